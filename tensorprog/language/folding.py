"""Arithmetic of constants: exact for whole numbers and rationals, without overflow."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.language.symbols import BITS, LongNumber

__all__ = ["raised", "times", "unbounded"]


def unbounded(a: Any) -> Any:
    """Integer arrays as arrays of Python integers, which do not overflow."""
    return a.astype(object) if isinstance(a, np.ndarray) and a.dtype.kind == "i" else a


def times(a: Any, b: Any, k: int = 1) -> Any:
    """a b**k for numbers and arrays; whole numbers stay machine integers where they fit (masks are long)."""
    if isinstance(b, np.ndarray) and b.dtype.kind == "i":
        if isinstance(a, int) or (isinstance(a, np.ndarray) and a.dtype.kind == "i"):
            if largest(a) * largest(b) ** k < 2**62:
                return a * b**k
        a, b = unbounded(a), unbounded(b)
    elif (
        isinstance(a, np.ndarray)
        and a.dtype.kind == "i"
        and not (isinstance(b, int) and largest(a) * abs(b) ** k < 2**62)
    ):
        a = unbounded(a)
    with np.errstate(over="ignore"):  # what is infinite is refused as a constant
        return a * b**k


def largest(a: Any) -> int:
    return int(np.max(np.abs(a), initial=0)) if isinstance(a, np.ndarray) else abs(a)


def raised(c: Any, k: int) -> Any:
    """c**k, refused where it is too large for a float, or an exact one too long."""
    if isinstance(c, (int, Fraction)) and k * max(c.numerator.bit_length(), c.denominator.bit_length()) > 2 * BITS:
        raise LongNumber
    try:
        with np.errstate(over="raise"):
            return c**k
    except (OverflowError, FloatingPointError):
        raise TensorProgramError(f"the number {c} to the power {k} is too large", fix="rescale the program") from None
