"""Divided differences: (phi(x + eps d) - phi(x)) / eps, of whole expressions.

Training in NTK parametrization moves every coordinate by n**-1/2 only. Its program carries the increments, and this is the
Nonlin that moves them on (Tensor Programs IIb, section 3); its limit is phi'(x) d. Written as a difference it would lose half
of the digits at width 10^6, and all of them in the limit.

Linear instructions pass increments on, a product is a sum of products, and a primitive has an instruction of its own
(`arrays/differences.py`).
"""

from __future__ import annotations

from collections.abc import Callable

from tensorprog.errors import TensorProgramError
from tensorprog.language import algebra
from tensorprog.language.describe import describe
from tensorprog.language.node import Node, topological

__all__ = ["increment"]


def increment(y: Node, known: dict[Node, Node], eps: Node, at: Callable[[Node], Node] = lambda x: x) -> Node:
    """The divided difference of a node, given those of what it is made of.

    Args:
        y: A function of nodes whose differences are known.
        known: These, and theirs; it grows.
        eps: The scalar.
        at: What a node is where the differences are taken; itself by default.

    Raises:
        TensorProgramError: y is made of them by an instruction that is neither linear nor elementwise, or by a jump.
    """
    moving = {x for x in known if not known[x].is_zero}
    for x in topological([y], lambda x: () if x in known else x.args):
        if x in known:
            continue
        if not any(a in moving for a in x.args):
            known[x] = algebra.ZERO
            continue
        known[x] = algebra.typed(_of(x, known, eps, at), x.shape, x.width, x.inner)
        known[x].source = known[x].source or x.source
        if not known[x].is_zero:
            moving.add(x)
    return algebra.typed(known[y], y.shape, y.width, y.inner)


def _of(x: Node, known: dict[Node, Node], eps: Node, at: Callable[[Node], Node]) -> Node:
    match x.op:
        case "add":
            return algebra.add([(c, known[a]) for c, a in zip(x.attr, x.args, strict=True)])
        case "mul":  # factor by factor: those before are moved already
            factors = [a for a, k in zip(x.args, x.attr, strict=True) for _ in range(k)]
            before = [at(a) for a in factors]
            moved = [
                b if known[a].is_zero else algebra.add([(1, b), (1, algebra.mul([eps, known[a]]))])
                for a, b in zip(factors, before, strict=True)
            ]
            terms = [
                (1, algebra.mul([*moved[:i], known[a], *before[i + 1 :]]))
                for i, a in enumerate(factors)
                if not known[a].is_zero
            ]
            return algebra.add(terms)
        case "fn":
            return algebra.difference(x.attr.name, at(x.args[0]), known[x.args[0]], eps, *x.attr.parameters)
        case "view" | "take" | "pick" | "sum" | "stack" | "matmul" | "moment" | "inner":
            return algebra.applied(x, [algebra.typed(known[a], a.shape, a.width, a.inner) for a in x.args])
    raise TensorProgramError(
        f"the divided difference of {describe(x)}",
        why="it is taken of functions of coordinates, and of what is linear",
        fix="take it of its parts",
        source=x.source,
    )
