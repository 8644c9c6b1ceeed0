"""Divided differences: (phi(x + eps d) - phi(x)) / eps, of whole expressions and as NumPy arrays.

Training in NTK parametrization moves every coordinate by n**-1/2 only. Its program carries the increments, and this is the
Nonlin that moves them on (Tensor Programs IIb, section 3); its limit is phi'(x) d. Written as a difference it would lose half
of the digits at width 10^6, and all of them in the limit.

Linear instructions pass increments on, a product is a sum of products, and a primitive has an instruction of its own, whose array
is d times the mean of phi' between x and x + eps d.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.language import algebra
from tensorprog.language.describe import describe
from tensorprog.language.functions import PRIMITIVES
from tensorprog.language.node import Node, topological

__all__ = ["array_of_difference", "increment"]

NODES, WEIGHTS = np.polynomial.legendre.leggauss(4)
SHORT = 0.06
"""Steps of this part of the scale on which a function turns: four nodes integrate its derivative to a unit in the last place."""


def increment(y: Node, known: dict[Node, Node], eps: Node) -> Node:
    """The divided difference of a node, given those of what it is made of.

    Args:
        y: A function of nodes whose differences are known.
        known: These, and theirs; it grows.
        eps: The scalar.

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
        known[x] = algebra.typed(_of(x, known, eps), x.shape, x.width, x.inner)
        known[x].source = known[x].source or x.source
        if not known[x].is_zero:
            moving.add(x)
    return algebra.typed(known[y], y.shape, y.width, y.inner)


def _of(x: Node, known: dict[Node, Node], eps: Node) -> Node:
    match x.op:
        case "add":
            return algebra.add([(c, known[a]) for c, a in zip(x.attr, x.args, strict=True)])
        case "mul":  # factor by factor: those before are moved already
            factors = [a for a, k in zip(x.args, x.attr, strict=True) for _ in range(k)]
            moved = [
                a if known[a].is_zero else algebra.add([(1, a), (1, algebra.mul([eps, known[a]]))]) for a in factors
            ]
            terms = [
                (1, algebra.mul([*moved[:i], known[a], *factors[i + 1 :]]))
                for i, a in enumerate(factors)
                if not known[a].is_zero
            ]
            return algebra.add(terms)
        case "fn":
            return algebra.difference(x.attr[0], x.args[0], known[x.args[0]], eps, *x.attr[1])
        case "view" | "take" | "pick" | "sum" | "stack" | "matmul" | "moment" | "inner":
            return algebra.applied(x, [algebra.typed(known[a], a.shape, a.width, a.inner) for a in x.args])
    raise TensorProgramError(
        f"the divided difference of {describe(x)}",
        why="it is taken of functions of coordinates, and of what is linear",
        fix="take it of its parts",
        source=x.source,
    )


def array_of_difference(name: str, parameters: Sequence[Any]) -> Callable[[Any, Any, Any], Any]:
    """The divided difference of a primitive: a function of the arrays x, d and eps, which broadcast.

    For short steps it is d times the mean of the derivative, on either side of a kink, to rounding however short they are;
    for long ones the difference itself, with the rounding of phi over eps. At eps = 0 it is phi'(x) d.

    Example:
        >>> tanh = array_of_difference("tanh", ())
        >>> round(float(tanh(0.5, 2.0, 1e-12)), 9), round(float(tanh(0.5, 2.0, 0.0)), 9)
        (1.572895466, 1.572895466)
    """
    row = PRIMITIVES[name]
    slope = _slope(name, tuple(parameters))
    turns = float(row.width) if not row.parameters else _scale(name, parameters)

    def value(x: Any) -> Any:
        return row.array(x, *parameters)

    def mean(x: Any, h: Any) -> Any:
        """The mean of the derivative from x to x + h."""
        return sum([w / 2 * slope(x + (1 + t) / 2 * h) for t, w in zip(NODES, WEIGHTS, strict=True)])

    def call(x: Any, d: Any, eps: Any) -> Any:
        x, d, eps = np.broadcast_arrays(*[np.asarray(a, dtype=float) for a in (x, d, eps)])
        h = eps * d
        if not h.any():
            return np.asarray(d * slope(x))
        reach = np.full(x.shape, turns if turns else math.inf)
        if row.domain is not None:
            reach = np.minimum(reach, np.abs(x - row.domain[0]))
        short = np.abs(h) <= SHORT * reach
        out = np.asarray(d * mean(x, h))
        for k in row.kinks:
            crossed = short & ((x - k) * (x + h - k) < 0)
            if crossed.any():
                a, b = x[crossed], h[crossed]
                part = (k - a) / b
                out[crossed] = d[crossed] * (part * mean(a, k - a) + (1 - part) * mean(np.full(a.shape, k), a + b - k))
        long = ~short
        if long.any():
            out[long] = (value(x[long] + h[long]) - value(x[long])) / eps[long]
        return out

    return call


def _scale(name: str, parameters: Sequence[Any]) -> float:
    """On what scale a function with parameters turns."""
    if name in ("smooth_sign", "bump"):
        return math.sqrt(float(parameters[0]))
    if name == "gauss_exp":
        return 1 / math.sqrt(float(parameters[0])) if parameters[0] else math.inf
    return float(PRIMITIVES[name].width)


def _slope(name: str, parameters: tuple[Any, ...]) -> Callable[[Any], Any]:
    """The derivative of a primitive as a function of arrays."""
    from tensorprog.arrays.elementwise import kernel

    x = algebra.hyperparameter("x", None)
    derivative = PRIMITIVES[name].derivative
    assert derivative is not None
    y = derivative(algebra, x, *parameters)
    steps = [(node, kernel(node)) for node in topological([y]) if node != x]

    def call(values: Any) -> Any:
        done = {x: values}
        for node, compute in steps:
            done[node] = compute(*[done[a] for a in node.args])
        return np.broadcast_to(done[y], np.shape(values))

    return call
