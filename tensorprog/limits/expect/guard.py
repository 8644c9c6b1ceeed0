"""Closed forms that may cancel, with an integral to fall back on.

exp(2 u) - 2 exp(u) + 1 at small variances, u exp(u) Phi(-u) at large ones: a closed form may be a small difference of large
terms. Its size, the same sum without signs, says how many digits are left. Where they are too few, entry by entry, the
expectation is integrated; that is slower, and good at every scale.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from tensorprog.language.algebra import add, fn, mul
from tensorprog.language.node import Node, topological

__all__ = ["guarded", "size_of"]

POSITIVE = ("share", "shares_size", "density", "arccos1", "vanishing", "pinv")
Array = np.ndarray


def size_of(value: Node, given: Collection[Node]) -> Node:
    """What a closed form is added up from, without signs.

    Args:
        value: Made by sums and products of closed forms and of what is given.
        given: Means and covariances, which are taken as they are.
    """
    known = set(given)
    size: dict[Node, Node] = {}
    for x in topological([value], lambda x: x.args if x.op in ("add", "mul") and x not in known else ()):
        if x.op == "constant":
            size[x] = fn("abs", x)
        elif x not in known and x.op == "add":
            size[x] = add([(abs(c), size[a]) for c, a in zip(x.attr, x.args, strict=True)])
        elif x not in known and x.op == "mul":
            size[x] = mul([(size[a], k) for a, k in zip(x.args, x.attr, strict=True)])
        elif x.op == "dual" and x.attr == "shares":
            size[x] = Node("dual", x.args, "shares_size", x.shape)
        else:
            positive = (x.op == "dual" and x.attr in POSITIVE) or (x.op == "fn" and x.attr.name in ("exp", "sqrt"))
            size[x] = x if positive else fn("abs", x)
    return size[value]


def guarded(value: Node, size: Node, integral: Node) -> Node:
    """The closed form where it is good, the integral where it is not."""
    return Node("guard", (value, size, *integral.args), integral.attr, integral.shape)
