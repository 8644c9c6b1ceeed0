"""Colours: two themes, and one colour for each matrix, the same in both passes."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable
from dataclasses import dataclass

from tensorprog.errors import TensorProgramError

__all__ = ["THEMES", "Theme", "matrix_colours", "theme_named"]


@dataclass(frozen=True)
class Theme:
    """The colours of a picture.

    Attributes:
        name: As users call it.
        paper: The background.
        ink: Shapes and names.
        quiet: Names nobody chose, remarks.
        wire: Edges from operands.
        gate: The inside of gates.
        plate: The inside of folded blocks.
        bands: The grounds of forward passes, backward passes and outputs.
        mark: Highlighted paths.
        offender: Instructions at which a check fails.
        matrices: Those of the first matrices.
        lightness: Of the further ones.
    """

    name: str
    paper: str
    ink: str
    quiet: str
    wire: str
    gate: str
    plate: str
    bands: tuple[str, str, str]
    mark: str
    offender: str
    matrices: tuple[str, ...]
    lightness: float


LIGHT = Theme(
    name="light", paper="#ffffff", ink="#1a1d21", quiet="#7a828c", wire="#59616b", gate="#ffffff", plate="#e6e9ed",
    bands=("#f4f6f8", "#eef4fb", "#faf7f0"), mark="#1f6feb", offender="#d1242f",
    matrices=("#0b62c4", "#c2410c", "#0f7b4f", "#8b2fb8", "#b4136b", "#8a6100", "#00788a", "#4d4fc4"), lightness=0.36,
)  # fmt: skip
DARK = Theme(
    name="dark", paper="#0f1216", ink="#e8ecf1", quiet="#8d96a1", wire="#a3acb7", gate="#0f1216", plate="#2a3038",
    bands=("#171b21", "#16202d", "#201d17"), mark="#58a6ff", offender="#ff6b6b",
    matrices=("#6cb2ff", "#ff9a5c", "#4fd39a", "#d08bff", "#ff7fbd", "#e3b341", "#4fd0e3", "#a5a8ff"), lightness=0.72,
)  # fmt: skip
THEMES = {theme.name: theme for theme in (LIGHT, DARK)}


def theme_named(name: str) -> Theme:
    """A theme.

    Raises:
        TensorProgramError: There is none of this name.
    """
    theme = THEMES.get(name) if isinstance(name, str) else None
    if theme is None:
        raise TensorProgramError(f"theme={name!r}", fix='use "light" or "dark"')
    return theme


def matrix_colours(names: Iterable[str], theme: Theme) -> dict[str, str]:
    """A colour for each matrix, by the order of names.

    Example:
        >>> colours = matrix_colours([f"W{i}" for i in range(100)], THEMES["light"])
        >>> len(set(colours.values()))
        100
    """
    found: dict[str, str] = {}
    for i, name in enumerate(sorted(set(names))):
        if i < len(theme.matrices):
            found[name] = theme.matrices[i]
        else:  # hues a golden section apart
            turn = (i * 0.6180339887498949) % 1
            light = theme.lightness + 0.05 * ((i // 7) % 3 - 1)
            r, g, b = colorsys.hls_to_rgb(turn, light, 0.7)
            found[name] = f"#{round(255 * r):02x}{round(255 * g):02x}{round(255 * b):02x}"
    return found
