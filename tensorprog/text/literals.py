"""How the text writes axes, numbers, arrays and distributions."""

from __future__ import annotations

import hashlib
import json
import string
from fractions import Fraction
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.language.symbols import Number, encode

__all__ = ["axis_text", "fingerprint", "law_text", "letter", "literal", "number_text"]

LITERAL = 400
"""Characters of an array that is written in place."""
_LETTERS = string.ascii_lowercase[8:]  # i, j, k, ...


def letter(position: int) -> str:
    """What the text calls the axis at a position: i, j, k, ...; i18, i19, ... after z.

    Example:
        >>> letter(0), letter(1), letter(18)
        ('i', 'j', 'i18')
    """
    return _LETTERS[position] if position < len(_LETTERS) else f"i{position}"


def fingerprint(a: np.ndarray) -> str:
    """16 hexadecimal digits that identify an array: entries, shape and type.

    Example:
        >>> fingerprint(np.zeros(3)) == fingerprint(np.zeros(3, dtype=int))
        False
    """
    return hashlib.blake2b(encode(a), digest_size=8).hexdigest()


def axis_text(name: Any) -> str:
    """A name of an axis, in quotes where it is no identifier."""
    if not isinstance(name, str):
        raise TensorProgramError(
            f"an axis is called {name!r}", why="programs are printed and parsed", fix="use a string"
        )
    return name if name.isidentifier() else json.dumps(name)


def number_text(c: Number) -> str:
    """A number."""
    try:
        return repr(c) if isinstance(c, float) else str(c)
    except ValueError:
        raise TensorProgramError("a number has more than 4000 digits", fix="use floating point") from None


def literal(a: np.ndarray) -> str | None:
    """A small array as nested lists; None for one that is better named."""
    if not 0 < a.size <= LITERAL // 2:
        return None

    def write(values: Any) -> str:
        return f"[{', '.join(map(write, values))}]" if isinstance(values, list) else number_text(values)

    text = write(a.tolist())
    if a.dtype == object and not any(isinstance(v, Fraction) for v in a.flat):
        text = f"rational({text})"
    return text if len(text) <= LITERAL else None


def law_text(d: Any, of: str) -> str:
    """A distribution of the entries or coordinates of something."""
    if isinstance(d, str):
        return d
    import scipy.stats

    name = str(d.dist.name)
    if type(getattr(scipy.stats, name, None)) is not type(d.dist):
        raise TensorProgramError(
            f"the distribution of {of} is called {name!r}, which scipy.stats does not have",
            why="the text of a program names distributions of scipy.stats",
            fix="use one of those, with loc and scale",
        )
    values = [number_text(v if isinstance(v, int) else float(v)) for v in d.args]
    values += [f"{k}={number_text(v if isinstance(v, int) else float(v))}" for k, v in sorted(d.kwds.items())]
    return f"scipy {name}({', '.join(values)})"
