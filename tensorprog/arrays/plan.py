"""Nodes as steps to be carried out in order, with sums and Moments of products fused (`contraction.py`), over numbered slots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol

from tensorprog.arrays.contraction import Contraction, contraction
from tensorprog.arrays.elementwise import KERNELS, Kernel
from tensorprog.language.node import Node, topological

__all__ = ["Plan", "Step", "last_uses", "schedule"]

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


class Computed(Protocol):
    """What a plan has to know of a step."""

    @property
    def node(self) -> Node: ...
    @property
    def operands(self) -> tuple[Node, ...]: ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where the array of a step goes, where those of its operands are, and which are not needed any more then."""

    target: int
    sources: tuple[int, ...]
    frees: tuple[int, ...]


def last_uses(code: Sequence[tuple[int, Sequence[int]]], kept: Iterable[int]) -> list[list[int]]:
    """For every instruction the arrays, by number, that nothing looks at after it.

    Args:
        code: Where each instruction's array goes, and where its operands are.
        kept: Arrays that are needed to the end.
    """
    seen, dying = set(kept), []
    for target, sources in reversed(code):
        dying.append(sorted({target, *sources} - seen))
        seen.update(dying[-1])
    return dying[::-1]


class Plan:
    """Arrays by number: to look a node up costs as much as the arithmetic of a small array, and threads wait for each other.

    Args:
        steps: Operands first.
        wanted: Nodes whose arrays are kept.

    Attributes:
        given: The operands that no step computes, by number.
        slots: Node to number.
        places: One for each step.
    """

    def __init__(self, steps: Sequence[Computed], wanted: Collection[Node]) -> None:
        inside = {s.node for s in steps}
        self.given = list(dict.fromkeys(a for s in steps for a in s.operands if a not in inside))
        self.slots = {a: k for k, a in enumerate([*self.given, *[s.node for s in steps]])}
        code = [(self.slots[s.node], tuple([self.slots[a] for a in s.operands])) for s in steps]
        kept = [*range(len(self.given)), *[self.slots[a] for a in wanted if a in self.slots]]
        self.places = [Place(*c, tuple(dead)) for c, dead in zip(code, last_uses(code, kept), strict=True)]
