"""Rounding errors by experiment: every instruction's result is moved by what rounding may have moved it (Vignes 1978)."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from tensorprog.language.data import VALUES
from tensorprog.language.node import MOVES, Node
from tensorprog.limits.gauss.rounding import EPS, NOISE

__all__ = ["Perturbation"]

INSIDE = 4 * NOISE
"""Of integrals: the arguments of an integrand are rounded, too, and Phi turns that in its tail into more."""
DRAWN = 2**11
"""Signs drawn together."""
_ARITHMETIC = ("add", "mul", "sum", "constant")
_MOVING = (*MOVES, "stack")


def is_values(x: Node) -> bool:
    """Is it given as it is: a mask, an adjacency, rather than an inner product?"""
    return x.op == "data" and VALUES in x.attr[3:4]


class Perturbation:
    """Moves numbers at random by one or a few units in the last place.

    Args:
        stream: Where the signs come from.
        scale: How many times as much as in float64.
        apart: Is the correlation of two variables never 1 because they are the same?
    """

    def __init__(self, stream: np.random.Generator, scale: float = 1.0, apart: bool = False) -> None:
        self._stream, self._scale, self.apart = stream, scale, apart
        self._signs: np.ndarray = np.zeros(0)
        self._used = 0

    def operands(self, x: Node, arrays: Sequence[Any]) -> Sequence[Any]:
        """The operands of a closed form, moved: what it cancels inside shows, even where they are whole numbers."""
        return [self._moved(a, EPS) for a in arrays] if x.op == "dual" else arrays

    def result(self, x: Node, value: Any) -> Any:
        """The result of an instruction, moved; whole constants are what they are."""
        if (
            x.op in _MOVING
            or (x.op == "laplace" and not x.attr.moves)
            or ((x.op == "constant" or is_values(x)) and np.all(value == np.round(value)))
        ):
            return value
        return self._moved(value, EPS if x.op in _ARITHMETIC else INSIDE if x.op in ("gauss", "guard") else NOISE)

    def _moved(self, value: Any, size: float) -> Any:
        return value * (1 + size * self._scale * self._drawn(np.shape(value)))

    def _drawn(self, shape: tuple[int, ...]) -> Any:
        """Signs; few are taken from many that are drawn together."""
        count = prod(shape)
        if count > DRAWN:
            return 2.0 * self._stream.integers(0, 2, shape) - 1
        if self._used + count > len(self._signs):
            self._signs, self._used = 2.0 * self._stream.integers(0, 2, DRAWN) - 1, 0
        found = self._signs[self._used : self._used + count].reshape(shape)
        self._used += count
        return found
