"""Picks that all parts of an expression share: relu(pick(u)) + pick(v)**2 is the pick of relu(u) + v**2.

A convolution looks at one vector under many shifts. Its expectations are computed once, without the shift, and picked: `picks_of`
finds the pick that a whole expression is under along an axis, bottom up, one fact for each node;
`structure.py:Structure.unpicked` takes it off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tensorprog.language.node import Node

__all__ = ["Pick", "Picks", "common_picks", "picks_of", "picks_of_scalar", "split"]

Pick = tuple[int, tuple[int, ...]]
"""The size of the axis before the pick, and the positions."""
Picks = Mapping[int, Pick]
WHOLE = 2
"""A pick is pulled out of an expectation if it leaves at least one in this many positions."""


def common_picks(parts: Sequence[tuple[frozenset[int], Picks]]) -> dict[int, Pick]:
    """The picks that aligned expressions, given by their supports and picks, have in common."""
    found: dict[int, Pick] = {}
    for axis in {a for _, picks in parts for a in picks}:
        mine = {picks.get(axis) for support, picks in parts if axis in support}
        if len(mine) == 1 and (pick := mine.pop()) is not None:
            found[axis] = pick
    return found


def picks_of(x: Node, parts: Sequence[tuple[frozenset[int], Picks]]) -> Picks:
    """The picks of x, given the supports and picks of those of its operands that have axes."""
    if not any(picks for _, picks in parts) and x.op != "pick":
        return {}
    if x.op in ("add", "mul", "fn"):
        return common_picks(parts)
    ((support, picks),) = parts
    match x.op:
        case "view":
            moved = [
                (frozenset([p]), {p: picks[i]} if i in picks else {}) for i, p in enumerate(x.attr) if i in support
            ]
            return common_picks(moved)
        case "take":
            axis = x.attr.axis
            return {i - (i > axis): p for i, p in picks.items() if i != axis}
        case "sum":
            return {i - (i > x.attr): p for i, p in picks.items() if i != x.attr}
        case "pick":
            axis, index = x.attr
            if axis not in support:
                return picks
            if axis in picks:
                size, below = picks[axis]
                return {**picks, axis: (size, tuple([below[i] for i in index]))}
            return {**picks, axis: (x.args[0].shape[axis], index)}
    return {}


def picks_of_scalar(x: Node) -> Picks:
    """The picks at the top of a deterministic expression; what is below is not looked into."""
    if x.op == "view":
        y = x.args[0]
        return picks_of(x, [(frozenset(range(len(y.shape))), picks_of_scalar(y))])
    found: dict[int, Pick] = {}
    while x.op == "pick":
        axis, index = x.attr
        found[axis] = (x.args[0].shape[axis], index)
        x = x.args[0]
    return found


def split(pick: Pick) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """A pick as one that is pulled out, of one that stays inside (None: nothing stays).

    What is computed at all positions for the sake of a few would be wasted: of those few only order and repeats are pulled out.
    """
    size, index = pick
    used = sorted(set(index))
    if WHOLE * len(used) >= size:
        return index, None
    place = {i: k for k, i in enumerate(used)}
    return tuple([place[i] for i in index]), tuple(used)
