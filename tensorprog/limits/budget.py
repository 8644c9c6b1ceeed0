"""What an answer may cost, as counts: nothing hangs, and no answer depends on how fast the machine is.

Two things can explode. *Expansions* are the questions that the rules of the limit ask each other and the terms they write out;
*evaluations* are the points at which integrands are evaluated. Whoever does such work counts it here, before or while it is
done, and is stopped by `Exhausted`, a `Declined`: the next route answers, and its note says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.limits.tasks import Exhausted

__all__ = ["EVALUATIONS", "EXPANSIONS", "Budget", "is_positive"]

EXPANSIONS = 30_000
"""Questions and terms for one output: some seconds."""
EACH, PAIR, PAIRS = 100, 3, 300_000
"""As many more for every instruction that the output is made of (long programs cost about 10 for each), and for every pair of
them, which meet where long sums are multiplied, up to a number."""
EVALUATIONS = 2**26
"""Points at which integrands are evaluated, for one output."""


def is_positive(x: Any) -> bool:
    """Is this, which a user gives, a number above 0?"""
    return isinstance(x, (int, float, np.integer, np.floating)) and not isinstance(x, bool) and bool(x > 0)


class Budget:
    """Counts work and stops it.

    Args:
        factor: How many times the usual work is allowed.

    Attributes:
        expansions: Questions and terms so far, over all outputs.
        evaluations: Points of integrands so far.

    Example:
        >>> budget = Budget(1e-3)
        >>> budget.expand(30)
        >>> budget.expand(1)
        Traceback (most recent call last):
        ...
        tensorprog.limits.tasks.Exhausted: it takes more than 30 terms (budget= allows more)
    """

    def __init__(self, factor: float = 1) -> None:
        self.factor = factor
        self.expansions = self.evaluations = 0
        self._points = EVALUATIONS * factor
        self._limit = self._allowed = EXPANSIONS * factor
        self._exactly: Callable[[], None] | None = None

    @classmethod
    def of(cls, factor: Any) -> Budget:
        """A budget as users give it.

        Raises:
            TensorProgramError: It is no number above 0.
        """
        if not is_positive(factor):
            raise TensorProgramError(
                f"budget={factor!r}",
                why="it says how many times the usual work (terms, integrand evaluations) an output may cost",
                fix="give a number above 0: 1, 10, math.inf",
            )
        return cls(float(factor))

    @contextmanager
    def share(self, height: int, below: Callable[[], tuple[int, int]], what: Callable[[], str]) -> Iterator[None]:
        """Inside, one more instruction may cost what those below it have left.

        Args:
            height: There are so many instructions below it at least.
            below: How many these are, and what they have cost; asked for only if it matters.
            what: The instruction, for the message.
        """
        outer = self._allowed, self._limit, self._exactly
        start = self.expansions

        def exactly() -> None:
            count, spent = below()
            self._limit = self._share_of(count)
            self._allowed = start + self._limit - spent

        # Those below have cost no more than all have: that much is allowed without looking at them.
        self._allowed, self._exactly = self._share_of(height), exactly
        try:
            yield
        except Exhausted:
            raise Exhausted(f"{what()} takes {self._more}") from None
        finally:
            self._allowed, self._limit, self._exactly = outer

    def _share_of(self, count: int) -> float:
        """What an output of so many instructions may cost."""
        return (EXPANSIONS + EACH * count + min(PAIR * count**2, PAIRS)) * self.factor

    @property
    def _more(self) -> str:
        return f"more than {self._limit:,.0f} terms (budget= allows more)"

    def expand(self, count: int = 1) -> None:
        """Counts questions or terms.

        Raises:
            Exhausted: There are too many of them.
        """
        self.expansions += count
        if self.expansions > self._allowed and self._exactly is not None:
            self._exactly()
            self._exactly = None
        if self.expansions > self._allowed:
            raise Exhausted(f"it takes {self._more}")

    def evaluate(self, points: int, what: str) -> None:
        """Counts evaluations of an integrand.

        Raises:
            Exhausted: There are too many of them.
        """
        self.evaluations += points
        self.foresee(0, what)

    def foresee(self, points: float, what: str) -> None:
        """Can as many more evaluations be had? Asked before they are made.

        Raises:
            Exhausted: There are too many of them.
        """
        if self.evaluations + points > self._points:
            raise Exhausted(f"{what} takes more than {self._points:,.0f} evaluations (budget= allows more)")

    def renewed(self) -> Budget:
        """The same allowance, nothing spent."""
        return Budget(self.factor)
