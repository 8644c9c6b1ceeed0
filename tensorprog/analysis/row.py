"""A row of a sweep: the losses of one width, or of the limit, at values of a hyperparameter, and what each cell is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tensorprog.analysis.bests import Valley, valley

__all__ = ["DIVERGED", "MISSING", "NO_LIMIT", "STABLE", "UNSTABLE", "Row"]

STABLE, UNSTABLE, DIVERGED, NO_LIMIT, MISSING = "stable", "unstable", "diverged", "no limit", "not run"
"""What a cell may be: its loss ends no higher than it began; it is finite, and higher; it is no finite number; the program has no
limit there; nobody has computed it yet."""


@dataclass(frozen=True, eq=False)
class Row:
    """One width, or the limit, at values of the hyperparameter: those of the sweep, and more beside the best of them.

    Attributes:
        values: Ascending.
        losses: (replicates, values): of every seed, or of every replicate of the limit; infinite where it diverged.
        error: (values,): the standard error of their mean, or the limit's own error.
        status: One of "stable", "unstable", "diverged", "no limit", "not run" for every value.
        notes: More about a value, such as the step at which training diverged.
        method: How it was found.
    """

    values: tuple[float, ...]
    losses: np.ndarray
    error: np.ndarray
    status: tuple[str, ...]
    notes: tuple[str, ...]
    method: str = ""

    def on(self, values: Sequence[float]) -> Row:
        """The row at some of its values."""
        at = [self.values.index(v) for v in values]
        status, notes = [self.status[i] for i in at], [self.notes[i] for i in at]
        return Row(tuple(values), self.losses[:, at], self.error[at], tuple(status), tuple(notes), self.method)

    @cached_property
    def valley(self) -> Valley:
        """Where its loss is least."""
        return valley(self.values, np.where(self.known, self.losses, np.inf))

    @property
    def largest_stable(self) -> float | None:
        """See `Sweep.largest_stable`."""
        ok = np.array([s == STABLE for s in self.status])
        start = int(np.argmin(self.loss))
        last = start + int(np.argmin(np.append(ok[start:], False))) - 1
        return self.values[last] if ok[start] else None

    @cached_property
    def loss(self) -> np.ndarray:
        """(values,): the mean over seeds or replicates; infinite where there is none."""
        return np.asarray(np.where(self.known, self.losses.mean(axis=0), np.inf))

    @property
    def known(self) -> np.ndarray:
        """(values,): is there a loss?"""
        return np.array([s in (STABLE, UNSTABLE) for s in self.status])

    @classmethod
    def of(
        cls,
        values: Sequence[float],
        losses: Any,
        *,
        first: Any = math.inf,
        error: Any = None,
        status: Mapping[int, str] | None = None,
        notes: Mapping[int, str] | None = None,
        method: str = "",
    ) -> Row:
        """A row from its losses.

        Args:
            values: Of the hyperparameter, ascending.
            losses: (replicates, values); what is not finite has diverged.
            first: The loss before training, or (values,) of them: what ends higher is unstable.
            error: (values,): by default the standard error of the mean.
            status: By position, what is known already.
            notes: By position.
            method: How it was found.
        """
        a = np.array(np.atleast_2d(losses), dtype=float)
        a[~np.isfinite(a)] = np.inf
        count = a.shape[1]
        before = np.broadcast_to(np.asarray(first, dtype=float), count)
        known = np.isfinite(a).all(axis=0)
        found = [
            (status or {}).get(i, DIVERGED if not known[i] else STABLE if a[:, i].mean() <= before[i] else UNSTABLE)
            for i in range(count)
        ]
        if error is None:
            with np.errstate(invalid="ignore", over="ignore"):
                error = a.std(axis=0, ddof=1) / math.sqrt(len(a)) if len(a) > 1 else np.zeros(count)
        error = np.where(known, error, np.inf)
        return cls(
            tuple(values), a, error, tuple(found), tuple([(notes or {}).get(i, "") for i in range(count)]), method
        )
