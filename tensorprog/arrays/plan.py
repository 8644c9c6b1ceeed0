"""Nodes as steps to be carried out in order, with sums and Moments of products fused (`contraction.py`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod

from tensorprog.arrays.contraction import Contraction, contraction
from tensorprog.arrays.elementwise import KERNELS, Kernel
from tensorprog.language.node import Node, topological

__all__ = ["Step", "schedule"]

LARGE = 2**16
"""Products with so many entries are not made, nor are those of their factors that are sums of products themselves."""


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction to be carried out: `compute` of the operands' arrays is the node's array.

    `compute` is None for what is the evaluator's own: leaves but constants, matmul, outer, Moments that are not fused.
    """

    node: Node
    operands: tuple[Node, ...]
    compute: Kernel | None


def schedule(
    outputs: Iterable[Node],
    *,
    operands: Callable[[Node], Iterable[Node]] = lambda x: x.args,
    moments: bool = True,
    pairs: bool = True,
) -> list[Step]:
    """The steps that compute the outputs, operands first, with sums (and Moments) of products fused.

    A product, and a sum between it and the outer one, is fused where nothing else needs its array.

    Args:
        outputs: What is wanted; these are never fused away.
        operands: Of a node, as for `topological`; an evaluator may stop at leaves of its own or look into a body.
        moments: Are Moments means over the last axis? Not in the limit, where they are expectations.
        pairs: Are the Moments in a large product steps of their own?
    """
    outputs = list(outputs)
    nodes = topological(outputs, operands)
    uses: Counter[Node] = Counter(a for x in nodes for a in operands(x))
    users: dict[Node, list[Node]] = {}
    for x in nodes:
        for a in operands(x):
            users.setdefault(a, []).append(x)
    kinds = ("sum", "moment") if moments else ("sum",)
    wanted = set(outputs)
    fused: dict[Node, Contraction] = {}

    def reduces(x: Node) -> bool:
        return x.op in kinds and tuple(operands(x)) == x.args

    def absorbed(x: Node) -> bool:
        """Is it needed in one product alone, and made of sums of products?"""
        if x in wanted or uses[x] > 1 or tuple(operands(x)) != x.args:
            return False
        return x.op in kinds or (x.op == "add" and x.is_scalar and all(map(absorbed, x.args)))

    for x in nodes:  # a product is fused where all its users are sums or Moments
        if x.op == "mul" and x not in wanted and tuple(operands(x)) == x.args and all(map(reduces, users[x])):
            for y in users[x]:
                top = y
                while top not in wanted and uses[top] == 1 and reduces(users[top][0]):
                    top = users[top][0]
                c = contraction(top, absorbed if moments and not pairs and prod(x.shape) >= LARGE else lambda _: False)
                assert c is not None
                fused[top] = c
    steps = []
    for x in topological(outputs, lambda x: fused[x].operands if x in fused else operands(x)):
        if x in fused:
            steps.append(Step(x, fused[x].operands, fused[x]))
        else:
            make = KERNELS.get(x.op) if tuple(operands(x)) == x.args else None
            steps.append(Step(x, tuple(operands(x)), None if make is None else make(x)))
    return steps
