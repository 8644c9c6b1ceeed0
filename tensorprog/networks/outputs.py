"""The outputs of a network on a batch: their axes, and arrays of all of them.

An output has an axis of examples and, where there is one at each position (`tp.readout(.., per="node")`), one of positions.
Kernels have the examples of both sides first, then the outputs of both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tensorprog.language import algebra
from tensorprog.language.axes import concat
from tensorprog.language.data import Data
from tensorprog.language.expression import Expression
from tensorprog.language.node import Node
from tensorprog.networks.inputs import EXAMPLE
from tensorprog.transforms.backprop import Backward

__all__ = ["OTHER", "OUTPUTS", "Body", "concatenated", "has_positions", "joined", "joined_blocks", "of_outputs", "seen"]

OTHER = "example2"
"""The examples of the second batch, along the columns of a kernel."""
OUTPUTS = ("output", "output2")


@dataclass(frozen=True)
class Body:
    """A network on one batch: its outputs as expressions, and their gradients.

    Attributes:
        outputs: A `Readout`, or the scalar of an average readout, for every output.
        backward: The gradients of each.
        several: Are the outputs a list, or at positions, so that kernels have axes for them?
    """

    outputs: tuple[Any, ...]
    backward: tuple[Backward, ...]
    several: bool = False

    @property
    def count(self) -> int:
        """The number of outputs of an example; one that has positions counts once for each."""
        return sum([b.output.shape[-1] if b.positions else 1 for b in self.backward])


def has_positions(theta: Expression) -> int:
    """The number of its axes that are no examples: 0 or 1."""
    return int(any(a != EXAMPLE for a in theta.axes))


def seen(theta: Expression, data: Mapping[str, tuple[Data, tuple[str, ...]]]) -> Node:
    """An output as a node: the examples' axis first, where there is one, even if it does not depend on the example."""
    sizes = {d.shape[a.index(EXAMPLE)] for d, a in data.values() if EXAMPLE in a}
    known = dict(zip(theta.names, theta.node.shape, strict=True))
    examples = {EXAMPLE: sizes.pop()} if sizes else {}
    full = {**examples, **{a: known[a] for a in sorted(known, key=lambda a: a != EXAMPLE)}}
    names = list(full)
    return algebra.view(theta.node, [names.index(a) for a in theta.names], list(full.values()))


def of_outputs(block: Callable[[int, int], Node], a: Body, b: Body, front: int) -> Node:
    """Blocks (.., positions, positions) of pairs of outputs as one array (.., outputs, outputs); `front` axes come before."""
    if not a.several:
        return block(0, 0)
    have, others = [[x.positions for x in side.backward] for side in (a, b)]
    rows = []
    for i, own in enumerate(have):
        rows.append(concatenated([block(i, j) for j in range(len(others))], front + own, others))
    return concatenated(rows, front, have)


def concatenated(nodes: Sequence[Node], axis: int, have: Sequence[int]) -> Node:
    """Scalars one after the other along an axis, which some have and others get."""
    if not any(have):
        return algebra.stack(nodes, axis)
    if len(nodes) == 1:
        return nodes[0]
    rank = len(nodes[0].shape) - have[0]
    names = [f"axis{k}" for k in range(rank)]
    full = [*names[:axis], OUTPUTS[0], *names[axis:]]
    found = concat([Expression(x, full if own else names) for x, own in zip(nodes, have, strict=True)], OUTPUTS[0])
    return algebra.transpose(found.node, [found.names.index(a) for a in full])


def joined(groups: list[Node], places: list[tuple[int, ...]]) -> Node:
    """Arrays of groups of examples (first axis) as one array in the order of the places."""
    if len(groups) == 1:
        return groups[0]
    found = {p: algebra.take(g, 0, i) for g, at in zip(groups, places, strict=True) for i, p in enumerate(at)}
    return algebra.stack([found[p] for p in sorted(found)], 0)


def joined_blocks(blocks: list[list[Node]], rows: list[tuple[int, ...]], columns: list[tuple[int, ...]]) -> Node:
    """Blocks of kernels of groups of examples as one kernel, in the order of the places."""
    if len(blocks) == 1 and len(blocks[0]) == 1:
        return blocks[0][0]

    def across(row: list[Node]) -> Node:
        order = [1, 0, *range(2, len(row[0].shape))]
        turned = [algebra.transpose(b, order) for b in row]
        return algebra.transpose(joined(turned, columns), order)

    return joined([across(row) for row in blocks], rows)
