"""Picks that all parts of an expression share: relu(pick(u)) + pick(v)**2 is the pick of relu(u) + v**2.

A convolution looks at one vector under many shifts. Its expectations are computed once, without the shift, and picked: `picks_of`
finds the pick that a whole expression is under along an axis, bottom up, one fact for each node; `unpicked` takes it off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from tensorprog.language import algebra
from tensorprog.language.node import MOVES, Node

if TYPE_CHECKING:
    from tensorprog.limits.expect.structure import Facts

__all__ = ["Pick", "Picks", "Question", "common_picks", "picks_of", "picks_of_scalar", "split", "unpicked"]

Pick = tuple[int, tuple[int, ...]]
"""The size of the axis before the pick, and the positions."""
Picks = Mapping[int, Pick]
Question = tuple[Node, int, int]
"""What is x without the pick along an axis, whose size then is that?"""
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
            axis = x.attr[0]
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


def unpicked(
    x: Node,
    axis: int,
    size: int,
    facts: Callable[[Node], Facts],
    settled: Callable[[Node], Node],
    opened: Callable[[Node], Node],
    known: dict[Question, Node],
) -> Node:
    """y, where x is y under the pick of an axis of that size that the facts about x have, if it varies along the axis.

    On a stack of questions, since x may be deep.
    """
    start = (x, axis, size)
    stack = [start]
    while stack:
        question = stack[-1]
        if question in known:
            stack.pop()
            continue
        answer = _step(question, facts, settled, opened, known)
        if isinstance(answer, Node):
            known[question] = answer
        else:
            stack.extend(answer)
    return known[start]


def _step(
    question: Question,
    facts: Callable[[Node], Facts],
    settled: Callable[[Node], Node],
    opened: Callable[[Node], Node],
    known: dict[Question, Node],
) -> Node | list[Question]:
    """An answer, or the questions that have to be answered before."""
    x, axis, size = question
    while x.op in MOVES and facts(x.args[0]).stacked:  # the facts see through the stack
        x = opened(x)
    shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
    varies = axis in facts(x).support
    if not varies and x.op not in ("view", "pick", "take", "add", "mul", "fn", "sum"):
        places = [i for i in range(len(shape)) if i != axis]
        return algebra.view(algebra.take(x, axis, 0), places, shape)
    y = x.args[0]
    if varies and x.op == "pick" and x.attr[0] == axis and axis not in facts(y).picks:
        return y
    if x.op == "view":  # source by source: there are several on a diagonal
        for i, p in enumerate(x.attr):
            if p == axis:
                if (y, i, size) not in known:
                    return [(y, i, size)]
                y = known[y, i, size]
        return settled(algebra.view(y, x.attr, shape))
    below = axis + (x.op in ("take", "sum") and axis >= (x.attr if x.op == "sum" else x.attr[0]))
    questions = [(a, below, size) for a in x.args if a.shape]
    missing = [q for q in questions if q not in known]
    if missing:
        return missing
    args = [known[a, below, size] if a.shape else a for a in x.args]
    if x.op == "pick":
        return args[0] if x.attr[0] == axis else algebra.pick(args[0], *x.attr)
    return settled(algebra.rebuild(x, args, shape))
