"""What a program is made of: widths, matrices, initial vectors. Plain data, identified by name and attributes."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Self

import numpy as np

from tensorprog.errors import Source, TensorProgramError, caller
from tensorprog.language.given import refuse_no_numbers

__all__ = [
    "BITS",
    "LongNumber",
    "MatrixSpec",
    "Number",
    "VectorSpec",
    "Width",
    "check_length",
    "check_name",
    "encode",
    "is_exact",
    "number",
    "numbers",
    "quotient",
    "ratio",
]

Number = int | Fraction | float
Distribution = Any
"""None (Gaussian), "rademacher", "uniform", or a frozen SciPy distribution."""
DIGITS = 4200
"""Rational numbers are exact up to this many digits: those of a scalar that is squared again and again double every time."""
BITS = int(DIGITS * math.log2(10))


class LongNumber(TensorProgramError):
    """A rational number of too many digits."""

    def __init__(self) -> None:
        super().__init__(
            f"a rational number of more than {DIGITS} digits",
            why="exact arithmetic carries all of them",
            fix="use floats (0.5 in place of 1/2), or rescale the program",
        )

    def __reduce__(self) -> Any:
        return LongNumber, ()


def check_length(x: int | Fraction) -> None:
    """Refuses numbers that are too long to be carried on.

    Raises:
        LongNumber: It has too many digits.
    """
    if max(x.numerator.bit_length(), x.denominator.bit_length()) > BITS:
        raise LongNumber


def number(x: Any, what: str = "a number") -> Number:
    """A Python number in normal form: `int`, `Fraction` or `float`. Rational in, rational out."""
    if isinstance(x, (bool, np.bool_)):
        return int(x)
    if isinstance(x, (int, np.integer)):
        check_length(x := int(x))
        return x
    if isinstance(x, Fraction):
        check_length(x)
        return x.numerator if x.denominator == 1 else x
    if isinstance(x, (float, np.floating)) or (isinstance(x, np.ndarray) and x.ndim == 0 and x.dtype != object):
        y = float(x)
        if not math.isfinite(y):
            raise TensorProgramError(f"{what} is {y}", fix="use a finite number")
        return int(x) if isinstance(x, np.ndarray) and x.dtype.kind in "iub" else y
    if getattr(x, "is_Rational", False):  # a sympy number, without importing sympy
        return number(Fraction(int(x.p), int(x.q)))
    if getattr(x, "is_number", False) and getattr(x, "is_real", False):
        return float(x)
    if isinstance(x, np.ndarray) and x.ndim == 0:
        return number(x.item(), what)
    raise TensorProgramError(f"{what} is {x!r}, not a real number", fix="use an int, Fraction or float")


def numbers(x: Any, what: str) -> Number | np.ndarray:
    """A number, or a read-only array of them: int64 or object (exact), or float64."""
    if np.ndim(x) == 0:
        return number(x, what)
    try:
        refuse_no_numbers(x, what)
    except ValueError as error:
        if isinstance(error, TensorProgramError):
            raise
        raise TensorProgramError(
            f"{what} is no array: its rows have different lengths", fix="use real numbers"
        ) from None
    a = np.array(x)
    if a.dtype.kind in "uf" and (a.dtype.kind == "u" or not isinstance(x, np.ndarray)):
        given = np.array(x, dtype=object)  # integers too large for int64, which NumPy would round or wrap
        a = given if all(isinstance(v, (int, np.integer)) for v in given.flat) and given.size else a
    if a.dtype == object:
        a = np.array([number(v, what) for v in a.ravel()] + [None], dtype=object)[:-1].reshape(a.shape)
        if any(isinstance(v, float) for v in a.flat):
            a = a.astype(float)
        elif all(isinstance(v, int) and -(2**63) <= v < 2**63 for v in a.flat):
            a = a.astype(np.int64)
    elif a.dtype.kind in "iub":
        a = a.astype(np.int64)
    elif a.dtype.kind == "f":
        a = a.astype(float)
    else:
        raise TensorProgramError(f"{what} has entries of type {a.dtype}", fix="use real numbers")
    if a.dtype.kind == "f" and not np.isfinite(a).all():
        raise TensorProgramError(f"{what} has an entry that is not finite", fix="use finite numbers")
    a.setflags(write=False)
    return a


def is_exact(x: Any) -> bool:
    """Is this number, or every entry of this array, a rational?"""
    return x.dtype.kind != "f" if isinstance(x, np.ndarray) else not isinstance(x, float)


_SIMPLE = {int, float, str, Fraction, type(None)}


def quotient(a: Number, b: Number) -> Number:
    """a / b, exactly where both are."""
    return number(Fraction(a) / Fraction(b)) if is_exact(a) and is_exact(b) else float(a) / float(b)


def encode(x: Any) -> bytes:
    """Bytes that determine x, its numeric type included (0.5 is not Fraction(1, 2))."""
    kind = type(x)
    if kind not in _SIMPLE and kind is not tuple and isinstance(x, tuple):  # of `attributes.py`
        x, kind = x.content() if hasattr(x, "content") else tuple(x), tuple
    try:
        if kind in _SIMPLE or (kind is tuple and _SIMPLE.issuperset(map(type, x))):
            return repr(x).encode()
    except ValueError:  # integers of thousands of digits have no repr
        if kind is int:
            return hex(x).encode()
        if kind is Fraction:
            return f"{x.numerator:x}/{x.denominator:x}".encode()
    if kind is bytes:
        return repr(x).encode()
    if kind is tuple:
        return b"(" + b",".join([encode(e) for e in x]) + b")"
    if isinstance(x, np.ndarray):
        body = repr(x.ravel().tolist()).encode() if x.dtype == object else np.ascontiguousarray(x).tobytes()
        return b"array" + encode((x.dtype.kind, *x.shape)) + hashlib.blake2b(body, digest_size=16).digest()
    if hasattr(x, "encoded"):
        return x.encoded()
    if hasattr(x, "dist") and hasattr(x, "args"):  # a frozen SciPy distribution
        given = tuple(sorted((k, float(v)) for k, v in x.kwds.items()))
        return encode(("scipy", x.dist.name, tuple(map(float, x.args)), given))
    if isinstance(x, (int, float, str)):  # a subclass, such as bool
        return encode(int(x) if isinstance(x, int) else float(x) if isinstance(x, float) else str(x))
    raise TypeError(f"cannot encode {kind.__name__}")


def _remembered(encoded: Any) -> Any:
    """Encodes an immutable object once."""

    def wrapper(self: Any) -> bytes:
        known = self.__dict__.get("_encoded")
        if known is None:
            known = encoded(self)
            object.__setattr__(self, "_encoded", known)
        return known

    return wrapper


def _roles(**given: Any) -> tuple[Any, ...]:
    """What is not None, with its names."""
    return tuple([y for name, x in given.items() if x is not None for y in (name, getattr(x, "digest", x))])


def check_name(name: Any, what: str) -> str:
    """Names are identifiers, so that programs print and parse."""
    if not isinstance(name, str) or not name.removesuffix("~").isidentifier():
        raise TensorProgramError(
            f"{what} {name!r} is not a name",
            why="programs are printed and parsed",
            fix="use letters, digits and underscores",
        )
    return name


def check_distribution(d: Distribution, what: str) -> Distribution:
    """None, one of the two names, or a frozen SciPy distribution with finite variance."""
    if d in (None, "gaussian", "normal"):
        return None
    if d in ("rademacher", "uniform"):
        return d
    if hasattr(d, "dist") and hasattr(d, "rvs"):
        if not (math.isfinite(d.mean()) and math.isfinite(d.var()) and d.var() > 0):
            raise TensorProgramError(
                f"the distribution of {what} has mean {d.mean()} and variance {d.var()}",
                why="the Master Theorem and its universality need finite, positive variance",
                fix="choose another distribution",
            )
        return d
    raise TensorProgramError(
        f"the distribution of {what} is {d!r}", fix="use None, 'rademacher', 'uniform' or a frozen SciPy distribution"
    )


@dataclass(frozen=True)
class Width:
    """A width that tends to infinity, as `ratio` times the reference width n.

    Args:
        name: Its name; two widths of one name in a program must have the same ratio.
        ratio: Its size over the reference width, a positive number. At reference width n it has round(ratio n)
            coordinates.

    Example:
        >>> from fractions import Fraction
        >>> Width("m", ratio=Fraction(1, 2))
        Width('m', ratio=1/2)
    """

    name: str
    ratio: Number = 1

    def __post_init__(self) -> None:
        check_name(self.name, "a width's name")
        object.__setattr__(self, "ratio", number(self.ratio, f"the ratio of width {self.name}"))
        if not self.ratio > 0:
            raise TensorProgramError(f"width {self.name} has ratio {self.ratio}", fix="a ratio is positive")

    def __repr__(self) -> str:
        return f"Width({self.name!r})" if self.ratio == 1 else f"Width({self.name!r}, ratio={self.ratio})"

    @_remembered
    def encoded(self) -> bytes:
        """What digests know of it."""
        return encode(("width", self.name, self.ratio))


def ratio(rows: Width, cols: Width) -> Number:
    """The limit of the quotient of two widths."""
    return quotient(rows.ratio, cols.ratio)


@dataclass(frozen=True)
class MatrixSpec:
    """An initial matrix, as an instruction has it: what `language/matrix.py:Matrix`, which has operators, is made from."""

    name: str
    rows: Width
    cols: Width
    var: Number = 1
    entries: Distribution = None
    source: Source | None = field(default=None, compare=False, repr=False)
    share: Number = 1
    std: Any = None

    def __post_init__(self) -> None:
        check_name(self.name, "a matrix's name")
        for width in (self.rows, self.cols):
            if not isinstance(width, Width):
                raise TensorProgramError(
                    f"matrix {self.name} is given {width!r} as a width", fix='make one with tp.Width("n") and pass it'
                )
        object.__setattr__(self, "var", number(self.var, f"the variance of matrix {self.name}"))
        if not self.var >= 0:
            raise TensorProgramError(f"matrix {self.name} has variance {self.var}", fix="a variance is at least 0")
        object.__setattr__(self, "entries", check_distribution(self.entries, f"matrix {self.name}"))
        object.__setattr__(self, "share", number(self.share, f"the share of matrix {self.name}"))
        if not 0 < self.share <= 1:
            raise TensorProgramError(f"matrix {self.name} has share {self.share}", fix="it is a part of a fan-in")
        if self.source is None:
            object.__setattr__(self, "source", caller())

    @property
    def ratio(self) -> Number:
        """rho = lim rows / cols."""
        return ratio(self.rows, self.cols)

    def __repr__(self) -> str:
        return f"Matrix({self.name!r}, {self.rows.name}, {self.cols.name}, var={self.var})"

    @_remembered
    def encoded(self) -> bytes:
        """What digests know of it."""
        roles = _roles(share=None if self.share == 1 else self.share, std=self.std)
        return encode(("matrix", self.name, self.rows, self.cols, self.var, self.entries, *roles))

    def renamed(self, name: str) -> Self:
        """An independent copy: the same law under another name."""
        return replace(self, name=name)

    # tests of equality go through attributes that may be SciPy objects, which compare by identity
    def __eq__(self, other: object) -> bool:
        return isinstance(other, MatrixSpec) and self.encoded() == other.encoded()

    def __hash__(self) -> int:
        return hash(self.encoded())


@dataclass(frozen=True, eq=False)
class VectorSpec:
    """An initial (multi-)vector: its coordinates are iid copies of one random vector, indexed by the axes.

    Attributes:
        name: Its name.
        width: The number of coordinates.
        shape: Sizes of the axes; () for a single vector.
        mean: A number or an array of that shape.
        var: The variance of every column, or an array of them, independent of each other; None when `cov` is given.
        cov: The covariance of the columns, (k, k) with k the product of the axes, possibly singular; else None.
        distribution: None for Gaussian; "rademacher" and "uniform" with this mean and variance; or a frozen SciPy distribution.
        trainable: Is it a parameter of a network?
        lr: What its part of the tangent kernel is a multiple of, whatever its variance; None: see `leaves.py:Vector`.
        std: A scalar node that multiplies it, as its standard deviation (a hyperparameter); else None.
    """

    name: str
    width: Width
    shape: tuple[int, ...] = ()
    mean: Any = 0
    var: Any = 1
    cov: Any = None
    distribution: Distribution = None
    trainable: bool = False
    lr: Number | None = None
    std: Any = None

    @_remembered
    def encoded(self) -> bytes:
        """What digests know of it."""
        trained: tuple[Any, ...] = ("trainable",) if self.trainable else ()
        trained += () if self.lr is None else (self.lr,)
        trained += _roles(std=self.std)
        law = (self.mean, self.var, self.cov, self.distribution)
        return encode(("vector", self.name, self.width, self.shape, *law, *trained))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VectorSpec) and self.encoded() == other.encoded()

    def __hash__(self) -> int:
        return hash(self.encoded())
