"""Arrays with errors that can be indexed, and what `edge_of_chaos` returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorprog.estimate import Estimate

__all__ = ["Edge", "Table"]


class Table(Estimate):
    """An Estimate of an array, with labelled axes: indexing and arithmetic act on the values.

    Example:
        >>> Table(np.eye(2), np.zeros((2, 2)), "closed form", "bound").value[0]
        array([1., 0.])
    """

    def __getitem__(self, key: Any) -> Any:
        return np.asarray(self.value)[key]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the values."""
        return np.shape(self.value)


@dataclass(frozen=True)
class Edge:
    """The edge of chaos: the weights at which correlations of nearly 1 are neither lost nor gained.

    Attributes:
        W_std: Standard deviation of the weights, times the root of the fan-in.
        b_std: Of the biases.
        q: The variance at the fixed point.
        error: How wrong `W_std` may be.
        q_error: How wrong `q` may be.
        method: How it was found.
        note: Anything a reader should know: other solutions, say.
    """

    W_std: float
    b_std: float
    q: float
    error: float
    q_error: float
    method: str
    note: str = ""

    def __repr__(self) -> str:
        note = f"\n{self.note}" if self.note else ""
        return (
            f"edge of chaos: W_std = {self.W_std:.13g} ± {self.error:.0e}, b_std = {self.b_std:.10g}, "
            f"q = {self.q:.13g} ± {self.q_error:.0e} ({self.method}){note}"
        )

    @property
    def estimates(self) -> dict[str, Estimate]:
        """The numbers with their errors, by name."""
        return {
            "W_std": Estimate(self.W_std, self.error, self.method, "bound", self.note),
            "q": Estimate(self.q, self.q_error, self.method, "bound"),
        }
