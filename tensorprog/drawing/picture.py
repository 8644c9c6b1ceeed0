"""A picture of a program, and what it is written as."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensorprog.drawing.colours import matrix_colours, theme_named
from tensorprog.drawing.fold import LIMIT, Folded, folded, unfolded
from tensorprog.drawing.highlight import Highlighted, highlighted
from tensorprog.drawing.layout import laid_out
from tensorprog.drawing.page import page
from tensorprog.drawing.scene import Scene
from tensorprog.drawing.svg import svg
from tensorprog.drawing.terminal import terminal
from tensorprog.drawing.tikz import document, tikz
from tensorprog.drawing.units import Unit, units
from tensorprog.errors import TensorProgramError
from tensorprog.language.node import Node

if TYPE_CHECKING:
    from tensorprog.language.program import Program

__all__ = ["SUFFIXES", "Drawing", "picture"]

SUFFIXES = (".svg", ".html", ".tex", ".txt")
"""What a picture is saved as."""
OPENED = 400
"""Shapes of what a box hides, where a page shows it."""


@dataclass(frozen=True, eq=False)
class Drawing:
    """A picture of a program; made by `tp.draw`. A notebook shows it.

    Attributes:
        units: What the program's text has, by name.
        picture: What is drawn of it: rows, columns, repeated blocks.
        theme: The name of the theme.
        marks: What is highlighted.
        nodes: What has a unit, drawn or not.
    """

    units: Mapping[str, Unit]
    picture: Folded
    theme: str
    marks: Highlighted = field(repr=False)
    nodes: frozenset[Node] = field(repr=False)

    @cached_property
    def scene(self) -> Scene:
        """Shapes with coordinates, without colours."""
        return laid_out(self.picture, self.nodes, self.marks.classes(self.picture), self.marks.edges(self.picture))

    @cached_property
    def colours(self) -> dict[str, str]:
        """The colour of each matrix, by its name."""
        return matrix_colours([u.matrix for u in self.units.values() if u.matrix], theme_named(self.theme))

    @cached_property
    def svg(self) -> str:
        """The picture as SVG."""
        many = sum([not u.is_leaf for u in self.units.values()])
        return svg(self.scene, theme_named(self.theme), self.colours, f"A Tensor Program of {many} instructions")

    @cached_property
    def text(self) -> str:
        """The picture in characters, for terminals."""
        return terminal(self.picture, self.nodes)

    @cached_property
    def tikz(self) -> str:
        r"""The picture as a `tikzpicture` for LaTeX; it needs `\usepackage{tikz}`."""
        return tikz(self.scene, theme_named(self.theme), self.colours)

    @cached_property
    def html(self) -> str:
        """A page with the picture, and below it what boxes hide."""
        return page("A Tensor Program", self.svg, self._boxes(), theme_named(self.theme))

    def _boxes(self) -> list[tuple[str, str]]:
        found = []
        for u in self.picture.units.values():
            if u.kind == "box":
                kept = {v.name for v in u.inside}
                inside = {v.name: v.within(kept) for v in u.inside}
                part = Drawing(inside, folded(inside, self.nodes, OPENED), self.theme, Highlighted(), self.nodes)
                part.__dict__["colours"] = self.colours  # those of the whole program
                found.append((u.title.partition("\n")[0].removesuffix(":"), part.svg))
        return found

    def _repr_svg_(self) -> str:
        return self.svg

    def __repr__(self) -> str:
        return self.text

    def save(self, path: str | Path) -> None:
        """Writes the picture.

        Args:
            path: Its suffix says as what: `.svg`; `.html`, a page on which what is folded opens; `.tex`, a document of the
                TikZ picture; `.txt`.

        Raises:
            TensorProgramError: for other suffixes, and where the file cannot be written.
        """
        written = {
            ".svg": lambda: self.svg,
            ".html": lambda: self.html,
            ".tex": lambda: document(self.tikz),
            ".txt": lambda: self.text + "\n",
        }
        suffix = Path(path).suffix
        if suffix not in written:
            raise TensorProgramError(
                f"a picture is saved as {str(path)!r}", fix=f"let the name end in {', '.join(SUFFIXES)}"
            )
        try:
            Path(path).write_text(written[suffix](), encoding="utf-8")
        except OSError as error:
            raise TensorProgramError(f"cannot save the picture as {str(path)!r}: {error.strerror}") from None


def picture(program: Program, fold: bool | int = True, theme: str = "light", highlight: Any = None) -> Drawing:
    """The picture of a program; the arguments are those of `tp.draw`."""
    if not isinstance(fold, int) or fold < 0:
        raise TensorProgramError(f"fold={fold!r}", fix="use True, False, or how many shapes there may be")
    theme_named(theme)
    found = units(program)
    nodes = frozenset([u.node for u in found.values() if u.node is not None])
    drawn = folded(found, nodes, LIMIT if fold is True else fold) if fold else unfolded(found)
    return Drawing(found, drawn, theme, highlighted(found, highlight), nodes)
