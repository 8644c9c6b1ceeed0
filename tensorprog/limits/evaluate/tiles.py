"""Large arrays of a scalar program, tile by tile.

A kernel over N inputs is a long chain of elementwise instructions on (N, N) arrays. Carried out one instruction at a
time, every
one streams 8 N^2 bytes through memory; carried out tile by tile, the intermediate results stay in the cache, tiles go
to all
cores (NumPy releases the interpreter's lock), and where the result is symmetric only the tiles on and above the
diagonal are
computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tensorprog.arrays.cores import each
from tensorprog.arrays.plan import Plan, Step
from tensorprog.language import algebra
from tensorprog.language.node import Node
from tensorprog.limits.evaluate.perturb import Perturbation
from tensorprog.limits.gauss.duals import dual

__all__ = ["LARGE", "Tiles", "stages"]

Array = np.ndarray
LARGE = 2**15
"""Arrays from this many entries on are computed in tiles."""
TILE = 2**15
"""Entries of a tile: a quarter of a megabyte, so that a handful stays in a core's second-level cache."""
_ELEMENTWISE = ("add", "mul", "fn", "dual")


def _tiled(x: Node) -> bool:
    return x.op in _ELEMENTWISE and len(x.shape) >= 2 and int(np.prod(x.shape)) >= LARGE


def stages(
    nodes: Sequence[Node], operands: Callable[[Node], Sequence[Node]]
) -> list[tuple[list[Node], list[list[Node]]]]:
    """An order of evaluation: at each stage some nodes one by one, then groups of large elementwise nodes of one shape each.

    A group's operands outside itself are ready when its turn comes, because crossing from a group to anything else is
    a new stage.
    """
    stage: dict[Node, int] = {}
    for x in nodes:
        mine = _tiled(x)
        stage[x] = max(
            [stage[a] + (1 if _tiled(a) and not (mine and a.shape == x.shape) else 0) for a in operands(x)], default=0
        )
    order: list[tuple[list[Node], list[list[Node]]]] = [([], []) for _ in range(max(stage.values(), default=-1) + 1)]
    groups: dict[tuple[int, tuple[int, ...]], list[Node]] = {}
    for x in nodes:
        if _tiled(x):
            key = (stage[x], x.shape)
            if key not in groups:
                groups[key] = []
                order[stage[x]][1].append(groups[key])
            groups[key].append(x)
        else:
            order[stage[x]][0].append(x)
    return order


class Tiles:
    """A group of large elementwise nodes of one shape.

    Args:
        nodes: The group, operands first.
        wanted: Those of its nodes that are needed outside.
        compute: The NumPy meaning of a node.
    """

    def __init__(
        self, nodes: Sequence[Node], wanted: set[Node], compute: Callable[[Node], Callable[..., Array]]
    ) -> None:
        self.nodes = list(nodes)
        self.shape = nodes[0].shape
        self.wanted = [x for x in nodes if x in wanted]
        steps = [Step(x, x.args, compute(x)) for x in nodes]
        plan = Plan(steps, wanted)
        self.inputs, self.slots = plan.given, plan.slots
        self.steps = list(zip(steps, plan.places, strict=True))
        self.symmetric = (
            len(self.shape) == 2 and self.shape[0] == self.shape[1] and all(map(_is_symmetric(), self.wanted))
        )

    def run(
        self,
        values: Mapping[Node, Array],
        noise: Perturbation | None = None,
        rows: np.ndarray | None = None,
        strain: Callable[..., Any] = lambda *_: None,
    ) -> dict[Node, Array]:
        """The arrays of the wanted nodes; of some rows only, if `rows` is given.

        `strain` is called where numbers leave the range of floats.
        """
        given = [np.asarray(values[a]) for a in self.inputs]
        if rows is not None:
            given = [a[rows] if a.ndim and a.shape[0] > 1 else a for a in given]
        shape = self.shape if rows is None else (len(rows), *self.shape[1:])
        out = {x: np.empty(shape) for x in self.wanted}
        symmetric = self.symmetric and rows is None and noise is None

        def tile(bounds: tuple[int, int]) -> None:
            low, high = bounds
            start = low if symmetric else 0
            cache: list[Any] = [_part(a, low, high, start) for a in given] + [None] * len(self.steps)
            with np.errstate(over="call", under="call", divide="ignore", invalid="ignore", call=strain):
                for step, place in self.steps:
                    x, compute = step.node, step.compute
                    assert compute is not None
                    arrays = [cache[i] for i in place.sources]
                    if noise is None:
                        cache[place.target] = compute(*arrays)
                    else:
                        cache[place.target] = noise.result(x, compute(*noise.operands(x, arrays)))
                    for i in place.frees:
                        cache[i] = None
            for x, full in out.items():
                full[low:high, start:] = cache[self.slots[x]]
                if symmetric:
                    full[high:, low:high] = full[low:high, high:].T

        each(tile, list(self._bounds(shape[0], symmetric)), noise is None)
        return out

    def _bounds(self, rows: int, symmetric: bool) -> Iterator[tuple[int, int]]:
        across = int(np.prod(self.shape[1:]))
        low = 0
        while low < rows:
            width = across - low if symmetric else across
            step = max(1, min(TILE // max(width, 1), 256 if symmetric else rows))
            yield low, min(low + step, rows)
            low += step


def _part(a: Array, low: int, high: int, start: int) -> Array:
    if a.ndim == 0:
        return a
    if a.shape[0] > 1:
        a = a[low:high]
    return a[:, start:] if start and a.shape[1] > 1 else a


def _is_symmetric() -> Callable[[Node], bool]:
    """Is a square array its own transpose? Read off the program: transposing every operand gives the same node again."""
    turned: dict[Node, Node] = {}

    def turn(x: Node) -> Node:
        found = turned.get(x)
        if found is None:
            if len(x.shape) < 2:
                found = x
            elif x.op == "constant":
                same = isinstance(x.attr, np.ndarray) and x.attr.shape == x.shape and np.array_equal(x.attr, x.attr.T)
                found = x if same or not isinstance(x.attr, np.ndarray) else Node("turned", (x,), None, x.shape)
            elif x.op == "view":
                y = x.args[0]
                own = sorted(x.attr) == [0, 1] and y.shape == x.shape and turn(y) == y
                found = x if own else algebra.view(y, [1 - i for i in x.attr], x.shape)
            elif x.op == "pick":
                found = algebra.pick(turn(x.args[0]), 1 - x.attr.axis, x.attr.positions)
            elif x.op == "dual":
                found = dual(x.attr, *[turn(a) for a in x.args])
            elif x.op in ("add", "mul", "fn"):
                found = algebra.rebuild(x, [turn(a) for a in x.args])
            else:
                found = Node("turned", (x,), None, x.shape)
            turned[x] = found
        return found

    def check(x: Node) -> bool:
        stack = [x]  # operands first, so that the recursion of `turn` is one level deep
        while stack:
            y = stack[-1]
            missing = [a for a in y.args if a not in turned and len(a.shape) == 2 and y.op in _ELEMENTWISE]
            if missing:
                stack.extend(missing)
            else:
                turn(y)
                stack.pop()
        return turned[x] == x

    return check
