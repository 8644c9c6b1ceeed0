"""By which route the kernels of two batches are computed: chosen by its cost, a count, and by errors that were measured."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError, caller
from tensorprog.limits.budget import EVALUATIONS, Budget
from tensorprog.limits.fused.compiled import available
from tensorprog.limits.pairs.accuracy import AccuracyWarning, Measured
from tensorprog.limits.pairs.compiled import Compiled
from tensorprog.limits.pairs.inner_products import GramProducts, Products
from tensorprog.limits.pairs.pairs import Pairs
from tensorprog.limits.routes import checked_method, checked_tolerance
from tensorprog.networks.samples import Batch

__all__ = ["How", "Part", "checked"]

POOR = 1e-2
"""Relative error above which another route is tried, and a warning given if none is better."""


@dataclass(frozen=True)
class How:
    """What the user asks of a route.

    Attributes:
        method: One of `tp.limit`'s.
        tol: The relative error to be kept; None for what is usual.
        budget: How many times the usual work (`limits/budget.py`).
        fast: Is compiled code wanted (True), unwanted (False), or used where it pays?
    """

    method: str
    tol: float | None
    budget: float
    fast: bool | None = None

    @staticmethod
    def of(method: Any, tol: Any, budget: Any, fast: Any) -> How:
        """As the user gives it.

        Raises:
            TensorProgramError: it is no method, no number above 0; there is no compiler.
        """
        if fast not in (None, True, False):
            raise TensorProgramError(f"fast={fast!r}", fix="give True, False, or None for where it pays")
        if fast and not available():
            raise TensorProgramError("fast=True without a compiler", fix='pip install "tensorprog[fast]"')
        return How(checked_method(method), checked_tolerance(tol), Budget.of(budget).factor, fast)

    @property
    def changed(self) -> str:
        """What is not as usual, for people."""
        usual = How("auto", None, 1.0)
        return "".join([f", {k}={v!r}" for k, v in vars(self).items() if v != getattr(usual, k)])

    @property
    def rough(self) -> float:
        """The relative error from which on what is sampled is tried in place of what is not."""
        return POOR if self.tol is None else self.tol

    def too_dear(self, evaluations: float) -> str:
        """Why the exact route is over the budget; empty if it is not."""
        allowed = EVALUATIONS * self.budget
        if evaluations <= allowed:
            return ""
        return f"integrals take {evaluations:.0e} evaluations, more than {allowed:.0e} (budget= allows more)"


class Part(Pairs):
    """The kernels of two batches of examples, each of one shape.

    Attributes:
        rows: The first batch.
        columns: The second.
        mirror: Are the kernels of the second with the first wanted as well?
    """

    def __init__(
        self,
        rows: Batch,
        columns: Batch,
        products: Products | GramProducts,
        mirror: bool,
        compiled: Compiled,
        fast: bool | None = None,
    ) -> None:
        super().__init__(products, compiled, fast)
        self.rows, self.columns, self.mirror = rows, columns, mirror

    @property
    def note(self) -> str:
        """Why it is computed so."""
        return "the closed form cancels" if self.cancelled else ""

    def measure(self, names: Sequence[str], budget: Budget) -> None:
        """Measures errors, and says where they are in what the user gave."""
        super().measure(names, budget)
        rows, columns = self.rows.places, self.columns.places
        self.measured.worst = {k: (rows[i], columns[j]) for k, (i, j) in self.measured.worst.items()}


def checked(names: Sequence[str], measured: Measured, how: How, method: dict[str, str], source: Any) -> None:
    """Looks at the errors of what is to be returned.

    Raises:
        TensorProgramError: no digit is known.
        AccuracyWarning: (warning) it is not as good as asked.
    """
    for name in names:
        share = measured.visible[name]
        if share <= how.rough:
            continue
        i, j = measured.worst.get(name, (0, 0))
        what = (
            f"{name} of the examples {(i, j)} is known to {share:.0e} of its size only: its error is up to "
            f"{measured.error[name]:.0e} ({method[name]})"
        )
        if np.isinf(share):
            what, why = (
                f"{name} is not finite for the examples {(i, j)}",
                "a number, or its error, is larger than 1e308",
            )
            raise TensorProgramError(what, why=why, fix="look for what grows", source=source)
        if not share < 1:
            raise TensorProgramError(
                what, why="no route knows a digit of it", fix="look for what cancels or grows", source=source
            )
        asked = caller()
        warnings.warn_explicit(
            f"{what}; tp.limit with more samples, or a larger tol=, may do",
            AccuracyWarning,
            asked.file if asked else "",
            asked.line if asked else 0,
        )
