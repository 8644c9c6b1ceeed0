"""Arrays that users give: what is no number is refused before NumPy makes one of it.

NumPy reads "2" as 2.0 and a date as the number of its days, and ignores the mask of a masked array: each would be computed
with, silently.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError

__all__ = ["real_array", "refuse_no_numbers"]

_NO_NUMBERS = {
    "c": "complex numbers",
    "S": "bytes",
    "U": "strings",
    "M": "dates",
    "m": "time differences",
    "V": "records",
    "T": "strings",
}
"""Kinds of dtypes, and what their entries are."""

_FIXES = {
    "c": "give real and imaginary parts as features of their own",
    "S": "convert them, if they are numbers: array.astype(float)",
    "U": "convert them, if they are numbers: array.astype(float)",
    "T": "convert them, if they are numbers: array.astype(float)",
    "M": "give numbers: the time since some date, in a unit that suits",
    "m": "give numbers, in a unit that suits: array / np.timedelta64(1, 'D')",
}


def refuse_no_numbers(given: Any, what: str) -> None:
    """Refuses arrays and nested lists of what is no real number, and masked arrays with anything masked.

    Args:
        given: What a user gave.
        what: What it is, for the message.

    Raises:
        TensorProgramError: saying what its entries are.
    """
    if _masked(given):
        raise TensorProgramError(
            f"{what} is a masked array with masked entries",
            why="what lies under a mask is no number to compute with, and a mask is no number either",
            fix="fill it in: array.filled(0); a mask of positions is an input of its own",
        )
    a = np.asarray(given)  # ragged lists raise ValueError, the caller's to explain
    kind: str = a.dtype.kind
    if kind == "O":
        kind = next((k for v in a.flat if (k := _kind(v))), "")
    if kind in _NO_NUMBERS:
        raise TensorProgramError(
            f"{what} is made of {_NO_NUMBERS[kind]}", fix=_FIXES.get(kind, "give an array of real numbers")
        )


def real_array(given: Any, what: str, fix: str = "give an array of real numbers") -> np.ndarray:
    """A new array of floats.

    Args:
        given: An array or nested lists.
        what: What it is, for the message.
        fix: What to do about lists that are no array.

    Raises:
        TensorProgramError: for what is no array of real numbers. (Entries may be infinite or not a number.)
    """
    try:
        refuse_no_numbers(given, what)
        return np.array(given, dtype=float)
    except (TypeError, ValueError, OverflowError) as error:
        if isinstance(error, TensorProgramError):
            raise
        raise TensorProgramError(f"{what} is no array of numbers", fix=fix) from None


def _masked(x: Any) -> bool:
    """Is it, or does a list contain, a masked array with masked entries?"""
    if isinstance(x, np.ma.MaskedArray):
        return bool(np.ma.getmaskarray(x).any())
    return isinstance(x, (list, tuple)) and any(_masked(v) for v in x if isinstance(v, (list, tuple, np.ndarray)))


def _kind(v: Any) -> str:
    """The kind of one entry of an array of objects; "" for numbers."""
    kind = np.asarray(v).dtype.kind if not isinstance(v, (int, float)) else "f"
    return kind if kind in _NO_NUMBERS else ""
