"""Views, takes and picks moved past what they are of: to the leaves, where variables are, or out of a sum that is contracted.

Positions come last in what users write, relu(x)[i], and first in what is computed, relu(x[i]).
"""

from __future__ import annotations

from tensorprog.language import algebra
from tensorprog.language.node import MOVES, Node, topological
from tensorprog.limits.tasks import Declined

__all__ = [
    "MOVED", "PASSED", "is_variable", "opened", "opened_fully", "ordered", "root", "scalar_version", "settled", "summand",
]  # fmt: skip

MOVED = (*MOVES, "sum")
"""What `opened` takes apart."""
PASSED = ("add", "mul", "fn", "sum", "stack")
"""What it moves views, takes and picks past."""
UNROLLED = 8
"""A contraction of up to this many nonlinear terms inside a nonlinear function is written out."""


def root(x: Node) -> Node:
    """What is under views, takes and picks."""
    while x.op in MOVES:
        x = x.args[0]
    return x


def is_variable(x: Node) -> bool:
    """A leaf, or positions of one?"""
    return root(x).op in ("leaf", "hat")


def opened(x: Node) -> Node:
    """A view, take or pick moved one level down, past a sum, product, primitive, contraction or stack; a contraction written out.

    Raises:
        Declined: for a contraction of too many terms.
    """
    y = x.args[0]
    if x.op == "sum":
        if y.shape[x.attr] > UNROLLED:
            raise Declined(f"a nonlinear function of a contraction of {y.shape[x.attr]} nonlinear terms")
        return algebra.add([(1, algebra.take(y, x.attr, i)) for i in range(y.shape[x.attr])])
    if y.op in ("take", "pick"):  # of something that is not a leaf
        return algebra.rebuild(x, [opened(y)])
    if y.op in ("add", "mul", "fn"):
        return algebra.rebuild(y, [_past_stacks(algebra.applied(x, [a])) if a.shape else a for a in y.args], x.shape)
    if y.op == "sum":
        return _past_sum(x, y)
    if y.op in ("stack", "family"):
        return _past_stack(x, y)
    raise Declined(f"a {x.op} of a {y.op}")


def settled(x: Node) -> Node:
    """Views and takes at the top moved down as far as they go; picks of functions stay, for `unpicked` to take off."""
    while x.op in MOVES and x.width is not None and root(x).op in PASSED:
        y = x.args[0] if x.op == "view" else x
        picked = y.op == "pick"
        while y.op == "pick":
            y = y.args[0]
        if picked and y.op in ("add", "mul", "fn", "sum"):
            break
        x = opened(x)
    return x


def _past_stacks(x: Node) -> Node:
    """Moves of a stack are carried out at once: later ones then find its parts, not the whole stack to move again."""
    while x.op in MOVES and root(x).op == "stack":
        x = opened(x)
    return x


def _past_sum(x: Node, y: Node) -> Node:
    body, axis = y.args[0], y.attr
    if x.op == "take":
        position, index = x.attr
        return algebra.sum_axis(algebra.take(body, position + (position >= axis), index), axis - (position < axis))
    if x.op == "pick":
        position, positions = x.attr
        return algebra.sum_axis(algebra.pick(body, position + (position >= axis), positions), axis)
    last = len(x.shape)
    index = [*x.attr[:axis], last, *x.attr[axis:]]
    return algebra.sum_axis(algebra.view(body, index, [*x.shape, body.shape[axis]]), last)


def _past_stack(x: Node, y: Node) -> Node:
    axis = y.attr
    if x.op == "take":
        position, index = x.attr
        if position == axis:
            return y.args[index]
        return algebra.stack(
            [algebra.take(a, position - (position > axis), index) for a in y.args], axis - (position < axis)
        )
    if x.op == "pick":  # along another axis
        position, positions = x.attr
        return algebra.stack([algebra.pick(a, position - (position > axis), positions) for a in y.args], axis)
    target = x.attr[axis]
    return algebra.stack([algebra.take(x, target, i) for i in range(len(y.args))], target)


def opened_fully(x: Node) -> Node:
    """x without views, takes and picks on top, unless it is a variable."""
    while x.op in MOVES and not is_variable(x) and x.width is not None and root(x).op != "family":
        x = opened(x)
    return x


def ordered(u: Node, v: Node) -> tuple[Node, Node]:
    """The two in the order of their digests: a pair is one question."""
    return (u, v) if u.digest <= v.digest else (v, u)


def summand(a: Node, shape: tuple[int, ...]) -> Node:
    """What a contraction sums, over the given shape (the contraction's, or a larger one) and one more axis at the end."""
    body, last = a.args[0], len(shape)
    index = [*range(a.attr), last, *range(a.attr, len(body.shape) - 1)] if a.shape else [last]
    return opened_fully(algebra.view(body, index, [*shape, body.shape[a.attr]]))


def scalar_version(x: Node) -> Node:
    """A deterministic expression as a scalar: the same number in every coordinate."""
    done: dict[Node, Node] = {}

    def operands(y: Node) -> tuple[Node, ...]:
        if y.width is None:
            return ()
        return (opened(y),) if y.op in MOVES and _has_leaves(y) else y.args

    for y in topological([x], operands):
        if y.width is None:
            done[y] = y
            continue
        if y.op in MOVES and operands(y) != y.args:
            done[y] = done[opened(y)]
            continue
        plain = y.op == "constant"
        z = Node("constant", (), y.attr, y.shape) if plain else algebra.applied(y, [done[a] for a in y.args])
        done[y] = algebra.typed(z, y.shape, None, None)
    return done[x]


def _has_leaves(x: Node) -> bool:
    """Is there something random below, which a deterministic expression does not see: other parts of a stack?"""
    below = topological([x], lambda y: () if y.width is None or y.op in ("leaf", "hat") else y.args)
    return any(y.op in ("leaf", "hat") for y in below)
