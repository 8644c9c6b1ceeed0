"""A number that knows how wrong it may be: what every limit and every comparison returns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError

__all__ = ["DEVIATIONS", "Estimate", "Estimates", "note", "unseen"]

KINDS = ("exact", "rounding", "bound", "standard error")
DEVIATIONS = 3.0
"""A bound of what is sampled is so many standard deviations: all of them hold with the probability of that, 0.9973."""


def unseen(hits: int = 0) -> float:
    """By how much the expected number of hits of rare events may exceed their number, with the probability of a bound.

    It is 5.9 where nothing was hit (the rule of three is that of 0.95), and three roots of the number where that is large: the
    bound of Clopper and Pearson for rare events.

    Example:
        >>> round(unseen(), 2), round(unseen(100) / 10, 1)
        (5.91, 3.1)
    """
    from scipy.special import erf, gammaincinv

    return float(gammaincinv(hits + 1, erf(DEVIATIONS / math.sqrt(2)))) - hits


@dataclass(frozen=True, eq=False)
class Estimate:
    """A value, its error, and where the error comes from.

    Attributes:
        value: A number (`int` or `Fraction` where the answer is rational) or an array.
        error: The same shape as `value`: 0 for `exact`; how far rounding may have moved it for `rounding`;
            a deterministic error estimate for `bound`; one standard deviation for `standard error`.
        method: What produced the value: `exact`, `closed form`, `quadrature`, `population`, ...
        kind: One of `exact`, `rounding`, `bound`, `standard error`: what `error` means.
        note: Anything a reader should know (why the exact route declined, for example).
        draws: Where the value is a mean of replicates: those, (replicates, *shape). Else None.

    Example:
        >>> from fractions import Fraction
        >>> Estimate(Fraction(45, 8), 0, "exact", "exact")
        45/8 (exact)
        >>> print(Estimate(0.446, 2e-9, "quadrature", "bound"))
        0.446 ± 2e-09 (quadrature, bound)
    """

    value: Any
    error: Any
    method: str
    kind: str
    note: str = ""
    draws: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}; it must be one of {', '.join(KINDS)}")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.value, dtype=float if dtype is None else dtype)

    def __float__(self) -> float:
        return float(self.value)

    def __repr__(self) -> str:
        how = self.method if self.method == self.kind else f"{self.method}, {self.kind}"
        if self.kind == "exact" and np.ndim(self.value) == 0:
            return f"{self.value} ({how})"
        if np.ndim(self.value) == 0:
            return f"{_digits(float(self.value), float(self.error))} ± {float(self.error):.0e} ({how})"
        worst = float(np.max(self.error, initial=0.0))
        return f"array{np.shape(self.value)} ± {worst:.0e} ({how})\n{np.asarray(self.value, dtype=float)}"

    def to_json(self) -> dict[str, Any]:
        """The value as plain JSON types; a rational carries its exact text too."""
        out: dict[str, Any] = {
            "value": _plain(self.value),
            "error": _plain(self.error),
            "method": self.method,
            "kind": self.kind,
        }
        if isinstance(self.value, Fraction) and self.value.denominator != 1:
            out["exact"] = str(self.value)
        if self.note:
            out["note"] = self.note
        return out


def _digits(value: float, error: float) -> str:
    """A value to one digit beyond its error, and to 15 at most."""
    known = math.log10(abs(value) / error) if value and 0 < error < math.inf else 15.0
    return f"{value:.{min(15, max(1, math.ceil(known) + 1))}g}"


def _plain(x: Any) -> Any:
    if np.ndim(x):
        return np.asarray(x, dtype=float).tolist()
    if isinstance(x, (int, np.integer)):
        return int(x)
    if isinstance(x, Fraction) and x.denominator == 1:
        return int(x)
    return float(x)


class Estimates(Mapping[str, Estimate]):
    """A mapping from output names to `Estimate`, in the program's order, that prints as a table.

    Attributes:
        axes: Output to the names of its axes.
        record: What was tried for every output, what it cost and why it was not kept (`limits/routes.py:Record`), if anything.
        explain: Called without arguments: output by output, the route and the rules that gave it, what it cost, and why others
            declined (`limits/explain.py:Explanation`).

    Example:
        >>> Estimates({"a": Estimate(2, 0, "exact", "exact")})
        a = 2 (exact)
    """

    def __init__(
        self,
        items: Mapping[str, Estimate],
        axes: Mapping[str, tuple[str, ...]] | None = None,
        record: Any = None,
        explain: Callable[[], Any] | None = None,
    ) -> None:
        self._items = dict(items)
        self._explain = explain
        self.record = record
        self.axes = dict(axes or {})

    def explain(self) -> Any:
        """Why the numbers are what they are, see `explain` above.

        Raises:
            TensorProgramError: they do not come from `tp.limit` of this process.
        """
        if self._explain is None:
            raise TensorProgramError("estimates without a program", fix="call explain() on the result of tp.limit")
        return self._explain()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_explain": None}

    def __getitem__(self, name: str) -> Estimate:
        try:
            return self._items[name]
        except KeyError:
            raise KeyError(f"no output {name!r}; there are {', '.join(self._items)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return "\n".join(f"{name} = {item!r}" for name, item in self._items.items())


def note(*parts: Any) -> str:
    """A note of its parts, those that are empty left out."""
    return "; ".join([str(p) for p in parts if p])
