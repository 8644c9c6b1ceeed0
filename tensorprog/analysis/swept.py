"""The loss against a hyperparameter, at finite widths and in the limit: the best value of each, and whether it transfers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorprog.analysis.bests import line
from tensorprog.analysis.compare import plus_minus
from tensorprog.analysis.row import Row
from tensorprog.errors import TensorProgramError
from tensorprog.estimate import Estimate

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

__all__ = ["Sweep", "checked_values"]

APART = 0.25
"""Slopes of log best on log n beyond this are no transfer: exponents of parametrizations are multiples of 1/2."""


@dataclass(frozen=True, eq=False)
class Sweep:
    """The loss at every value of a hyperparameter and every width; `print` shows the table and the verdict.

    Widths are integers, and `math.inf` for the limit.

    Attributes:
        name: Of the hyperparameter.
        values: Its values, ascending.
        rows: Width to `Row`, ascending, the limit last.
        of: What is swept over: the output, at the last step of a run of training.
        seeds: The seeds of finite widths.
    """

    name: str
    values: tuple[float, ...]
    rows: Mapping[float, Row]
    of: str = "loss"
    seeds: tuple[int, ...] = ()

    @classmethod
    def of_losses(
        cls, name: str, values: Sequence[float], losses: Mapping[float, Any], *, ceiling: float = math.inf
    ) -> Sweep:
        """A sweep that was made elsewhere.

        Args:
            name: Of the hyperparameter.
            values: Its values.
            losses: Width (`math.inf` for the limit) to losses, (values,) or (seeds, values); what is not finite has diverged.
            ceiling: A run whose loss ends above it is unstable.

        Raises:
            TensorProgramError: Shapes that do not fit, or values that repeat.

        Example:
            >>> import numpy as np
            >>> rates = 2.0 ** np.arange(-6, 3, 0.25)
            >>> losses = {n: (np.log2(rates) + np.log2(n) / 2) ** 2 + 1 for n in (4, 16, 64)}
            >>> s = Sweep.of_losses("lr", rates, losses)
            >>> round(float(s.slope), 12), s.transfers
            (-0.5, False)
        """
        order = checked_values(name, values)
        ascending = tuple([float(values[i]) for i in order])
        rows = {}
        for n, a in sorted(losses.items()):
            a = np.atleast_2d(np.asarray(a, dtype=float))
            if a.ndim != 2 or a.shape[1] != len(order):
                raise TensorProgramError(
                    f"losses of shape {a.shape} for {len(order)} values of {name}", fix="give one for each"
                )
            rows[n] = Row.of(ascending, a[:, order], first=ceiling)
        return cls(name, ascending, rows)

    # ---- what it says ----
    @property
    def widths(self) -> tuple[float, ...]:
        """The widths, ascending; `math.inf` is the limit."""
        return tuple(self.rows)

    @property
    def loss(self) -> dict[float, np.ndarray]:
        """Width to the mean loss at every value; infinite where there is none, and `status` says why."""
        return {n: row.on(self.values).loss for n, row in self.rows.items()}

    @property
    def error(self) -> dict[float, np.ndarray]:
        """Width to the standard error of that (of the limit: its own)."""
        return {n: row.on(self.values).error for n, row in self.rows.items()}

    @property
    def status(self) -> dict[float, tuple[str, ...]]:
        """Width to what each cell is."""
        return {n: row.on(self.values).status for n, row in self.rows.items()}

    @property
    def best(self) -> dict[float, Estimate | None]:
        """Width to the value with the least loss; None where it lies at the edge of the values, or beyond.

        A parabola through the least loss and its neighbours, on logarithmic axes where numbers are positive. The error is that of
        the seeds, and what the points leave open about the curve (`analysis/bests.py:valley`).
        """
        return {n: row.valley.best for n, row in self.rows.items()}

    @property
    def largest_stable(self) -> dict[float, float | None]:
        """Width to the largest value, going up from the best, at which the loss ends no higher than it began.

        The next value is the first that is not so: the truth is between the two. None where there is no such value at all.
        """
        return {n: row.largest_stable for n, row in self.rows.items()}

    @property
    def slope(self) -> Estimate | None:
        """The slope of log best on log n over finite widths; None where fewer than two of them have a best value."""
        found = [(n, e) for n, e in self.best.items() if math.isfinite(n) and e is not None and e.value > 0]
        if len(found) < 2:
            return None
        x = np.log([n for n, _ in found])
        y = np.log([float(e.value) for _, e in found])
        return line(x, y, np.array([e.error / e.value for _, e in found]))

    @property
    def transfers(self) -> bool | None:
        """Is the best value the same at all widths?

        True if the slope of its logarithm on log n is within 1/4 of 0, False if it is not, None if its error leaves that open.
        Exponents of learning rates are multiples of 1/2.
        """
        slope = self.slope
        if slope is None:
            return None
        size, error = abs(float(slope)), 2 * float(slope.error)
        return True if size + error < APART else False if size - error > APART else None

    @property
    def verdict(self) -> str:
        """In words."""
        slope = self.slope
        if slope is None:
            return f"Whether the best {self.name} transfers is not known: fewer than two widths have one inside the values."
        says = {True: "transfers", False: "DOES NOT transfer", None: "may or may not transfer"}[self.transfers]
        text = (
            f"The best {self.name} {says}: its slope on the width (log-log) is {plus_minus(float(slope), slope.error)}"
        )
        cost = self.cost_of_transfer()
        if cost is None:
            return text + "."
        source, target, share = cost
        there = "in the limit" if math.isinf(target) else f"at n = {target}"
        return f"{text}.\nThe best {self.name} of n = {source} costs {share} {there}."

    def cost_of_transfer(self) -> tuple[float, float, str] | None:
        """(smallest width, limit or largest width, what its best value costs there), where both have one."""
        inside = [n for n, e in self.best.items() if e is not None]
        if len(inside) < 2:
            return None
        source, target = inside[0], inside[-1]
        at, least = self.best[source], self.rows[target].valley.least
        assert at is not None
        there = self.rows[target].valley.at(float(at.value))
        if there is None:
            return source, target, "a run that is not stable"
        if least > 0 and there > 2 * least:
            return source, target, f"{there / least:.3g} times the least {self.of}"
        if least > 0:
            return source, target, f"{max(there / least - 1, 0.0):.1%} more {self.of} than the best"
        return source, target, f"{max(there - least, 0.0):.2g} more {self.of} than the best"

    # ---- how it is shown ----
    def __str__(self) -> str:
        from tensorprog.analysis.swept_text import table

        return table(self)

    __repr__ = __str__

    def plot(self, path: str | Path | None = None) -> Figure:
        """Draws the loss against the hyperparameter, one curve a width; needs the extra `plot`.

        Args:
            path: Where to save it; the suffix says as what (`.svg`, `.png`, `.pdf`).

        Returns:
            The matplotlib figure.
        """
        from tensorprog.analysis.plot_sweep import plot_sweep

        return plot_sweep(self, path)

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON types: a cell without a loss has null there, and its status says why."""
        from tensorprog.analysis.swept_text import as_json

        return as_json(self)

    def to_xarray(self) -> xarray.Dataset:
        """`loss`, `error` and `status` (width, value), `best` and `best_error` (width); needs the extra `xarray`.

        The dimension of the values has the hyperparameter's name; the limit is the width infinity.
        """
        try:
            import xarray
        except ImportError:
            raise TensorProgramError(
                "labelled arrays need xarray", fix="install the extra: pip install 'tensorprog[xarray]'"
            ) from None
        rows, best = [r.on(self.values) for r in self.rows.values()], list(self.best.values())
        dims = ["width", self.name]
        data = {
            "loss": (dims, np.array([r.loss for r in rows])),
            "error": (dims, np.array([r.error for r in rows])),
            "status": (dims, np.array([r.status for r in rows])),
            "best": (["width"], np.array([math.nan if e is None else float(e.value) for e in best])),
            "best_error": (["width"], np.array([math.nan if e is None else float(e.error) for e in best])),
        }
        return xarray.Dataset(data, coords={"width": np.array(self.widths, dtype=float), self.name: list(self.values)})


def checked_values(name: str, values: Sequence[Any]) -> list[int]:
    """The order of a hyperparameter's values.

    Raises:
        TensorProgramError: They are no list of different finite numbers.
    """
    try:
        a = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        a = np.array(np.nan)
    if a.ndim != 1 or not a.size or not np.isfinite(a).all() or len(np.unique(a)) < a.size:
        raise TensorProgramError(f"the values {values!r}"[:80] + f" of {name}", fix="give a list of different numbers")
    return np.argsort(a).tolist()
