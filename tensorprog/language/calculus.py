"""Derivatives of elementwise instructions: the one table of them.

Back-propagation multiplies gradients by them (`transforms/backprop.py`), Stein's lemma and Zdot take expectations of them
(`limits/expect/structure.py`).
"""

from __future__ import annotations

from tensorprog.language import algebra
from tensorprog.language.functions import PRIMITIVES
from tensorprog.language.node import Node

__all__ = ["partial"]


def partial(x: Node, i: int) -> Node | None:
    """The derivative of a sum, a product or a primitive in its operand i.

    That of a jump is a Dirac delta, the primitive `bump` of variance 0; that of a Dirac delta is None: there is none.

    Args:
        x: An `add`, `mul` or `fn`.
        i: The operand's position.

    Example:
        >>> from tensorprog.language.leaves import Vector
        >>> from tensorprog.language.symbols import Width
        >>> x = Vector("x", Width("n"))
        >>> partial((x**3).node, 0) == (3 * x**2).node
        True
    """
    match x.op:
        case "add":
            return algebra.constant(x.attr[i])
        case "mul":
            a, k = x.args[i], x.attr[i]
            others = [(b, j) for b, j in zip(x.args, x.attr, strict=True) if b is not a]
            return algebra.scale(k, algebra.mul([*([(a, k - 1)] if k > 1 else []), *others, algebra.ONE]))
        case "fn":
            name, parameters = x.attr
            row = PRIMITIVES[name]
            if row.derivative is None or (name == "bump" and parameters[0] == 0):
                return None
            return row.derivative(algebra, x.args[0], *parameters)
    raise ValueError(f"{x.op} is not elementwise")
