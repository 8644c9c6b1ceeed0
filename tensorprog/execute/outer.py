"""OuterNonlin: x_a = (1/n_y) sum_b phi(x_a, y_b), in blocks of a, so that no n_x by n_y array exists."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tensorprog.arrays.plan import Step, schedule
from tensorprog.errors import TensorProgramError
from tensorprog.language.describe import describe
from tensorprog.language.node import Node

__all__ = ["BUDGET", "Outer", "boundary"]

BUDGET = 10**11
"""Refused above this many evaluations of elementary functions, at a few nanoseconds each: some minutes."""

BLOCK = 1 << 19
"""Entries of one array of a block: 4 MB, so that the few arrays of a body stay in the cache."""


def boundary(node: Node) -> tuple[Node, ...]:
    """The vectors and scalars that the body of an OuterNonlin is made of, evaluated outside of it."""
    found: dict[Node, None] = {}
    seen: set[Node] = set()
    todo = [node.args[0]]
    while todo:
        x = todo.pop()
        if x in seen:
            continue
        seen.add(x)
        if x.inner is None:
            found[x] = None
        else:
            todo.extend(reversed(x.args))
    return tuple(found)


class Outer:
    """One `outer` instruction, called with the arrays of its `operands`.

    Attributes:
        operands: See `boundary`.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        self.operands = boundary(node)
        # Inside the body a vector may stand for x_a and, through `inner`, for y_b: the first is sliced, the second not.
        steps = schedule(node.args, operands=lambda x: () if x.inner is None or x.op == "inner" else x.args)
        self._steps: list[Step] = [s for s in steps if s.node.inner is not None and s.node.op != "inner"]
        self._constants = [(s.node, s.compute) for s in self._steps if s.node.op == "constant"]
        self._steps = [s for s in self._steps if s.node.op != "constant"]
        self._inner = [(s.node, self.operands.index(s.node.args[0])) for s in steps if s.node.op == "inner"]
        self._direct = [(s.node, self.operands.index(s.node)) for s in steps if s.node.inner is None]

    def __call__(self, *arrays: Any, size: int, inner_size: int) -> Any:
        """The array (*axes, size) of the node.

        Args:
            *arrays: Of the operands.
            size: n_x.
            inner_size: n_y.

        Raises:
            TensorProgramError: It would take more than `BUDGET` evaluations.
        """
        body = self.node.args[0]
        moving = [node for node, i in self._direct if node.width is not None and arrays[i].shape[-1] > 1]
        count = size if moving else 1  # a body without x_a is evaluated once
        entries = math.prod(body.shape)
        cost = count * inner_size * entries * max(1, len(self._steps))
        if cost > BUDGET:
            fits = int(max(size, inner_size) * math.sqrt(BUDGET / cost))
            raise TensorProgramError(
                f"{describe(self.node)} needs {cost:.1e} evaluations at widths {size} and {inner_size}",
                why=f"an OuterNonlin evaluates its body for all pairs of coordinates; the budget is {BUDGET:.0e}",
                fix=f"choose a smaller n (widths up to about {fits})",
                source=self.node.source,
            )
        fixed = {node: compute() for node, compute in self._constants if compute is not None}
        fixed |= {node: arrays[i] for node, i in self._inner}
        block = max(1, BLOCK // max(1, inner_size * entries))
        parts = []
        for start in range(0, count, block):
            stop = min(start + block, count)
            env = dict(fixed)
            for node, i in self._direct:
                env[node] = arrays[i][..., start:stop] if node in moving else arrays[i]
            for step in self._steps:
                compute: Callable[..., Any] | None = step.compute
                assert compute is not None, step.node
                env[step.node] = compute(*[env[a] for a in step.operands])
            # All pairs count, b = a too, in the population as well: its samples are balanced (Sobol points, orthogonal
            # noise), so their empirical measure is closer to the limit than that of independent samples, and so is the
            # mean over all pairs. Leaving out b = a would be unbiased for independent samples only; it misses
            # E exp(-(X - Y)^2) by 5e-3 with 128 samples, in place of 5e-4.
            parts.append(env[body].mean(axis=-1))
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
