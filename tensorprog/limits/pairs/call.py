"""What evaluations of compiled kernels that belong together find out, and the integrals that they share."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

import numpy as np

from tensorprog.language.node import Node
from tensorprog.limits.budget import Budget
from tensorprog.limits.evaluate import integrals

__all__ = ["Call"]

Array = np.ndarray


class Call:
    """What evaluations that belong together find out; a compiled program itself stays as it is.

    Args:
        budget: Evaluations of integrands are counted there; those over it raise `Exhausted`.
        compared: Are integrals of analytic functions without bounds, as good as a comparison with bounds elsewhere says?
        fast: Is compiled code wanted (True), unwanted (False), or used where it pays?

    Attributes:
        strained: Have numbers left the range of floats?
        integrated: Guarded closed forms that have turned to their integrals.
    """

    def __init__(self, budget: Budget | None = None, compared: bool = False, fast: bool | None = None) -> None:
        self.budget, self.compared, self.fast = budget or Budget(inf), compared, fast
        self.strained = False
        self.integrated: set[Node] = set()
        self._found: dict[Any, dict[bytes, float]] = {}

    @property
    def has_integrals(self) -> bool:
        """Are integrals of single examples known?"""
        return bool(self._found)

    def strain(self, *_: Any) -> None:
        """Called where a number leaves the range of floats."""
        self.strained = True

    def integral(self, x: Node, args: Sequence[Array], level: int) -> Array:
        """As `integrate_arrays`, of single examples; what is known is not integrated again.

        The variance of an example is asked for as that of a row, of a column and of the example alone.
        """
        shape = np.broadcast_shapes(*[np.shape(a) for a in args])
        flat = [np.broadcast_to(a, shape).reshape(-1).astype(float, copy=False) for a in args]
        keys = [row.tobytes() for row in np.stack(flat, -1)]
        known = self._found.setdefault((x.attr.body, x.attr.dimension, level), {})
        new = list({k: i for i, k in enumerate(keys) if k not in known}.items())
        if new:
            places = [i for _, i in new]
            found = integrals.integrate_arrays(
                x, [a[places] for a in flat], level, compared=self.compared, budget=self.budget
            )
            known.update(zip([k for k, _ in new], found.tolist(), strict=True))
        return np.array([known[k] for k in keys]).reshape(shape)
