"""What a node is at every width: zero inputs, biases that start at zero, and all that is made of them.

0 at every width is not the same as a limit that is 0: a jump may be met at the one, and not at the other (`check.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tensorprog.arrays.elementwise import kernel
from tensorprog.language.data import ArrayData
from tensorprog.language.node import Node
from tensorprog.language.symbols import Width

__all__ = ["at_every_width", "deviation", "standing"]

Array = np.ndarray


def at_every_width(nodes: Sequence[Node], values: Mapping[str, Any]) -> dict[Node, Array]:
    """What nodes are at every width, position by position; nan where that depends on the width or on chance.

    Args:
        nodes: Operands first.
        values: Numbers of the hyperparameters.

    Returns:
        Arrays that broadcast to the nodes' shapes.
    """
    known: dict[Node, Array] = {}
    with np.errstate(all="ignore"):
        for x in nodes:
            known[x] = _fixed(x, [known[a] for a in x.args], values)
    return known


def _fixed(x: Node, args: list[Array], values: Mapping[str, Any]) -> Array:
    unknown = np.full((1,) * len(x.shape), np.nan)
    match x.op:
        case "constant":
            value = np.asarray(x.attr, dtype=float)
            return value.reshape((1,) * (len(x.shape) - value.ndim) + value.shape)
        case "scalar":
            return np.asarray(values[x.attr.name], dtype=float) if x.attr.name in values else unknown
        case "vector":
            mean = np.asarray(x.attr.mean, dtype=float)
            return np.where(deviation(x) == 0, mean.reshape((1,) * (len(x.shape) - mean.ndim) + mean.shape), np.nan)
        case "inverse_sqrt":
            return unknown
        case "matmul":
            return np.where(args[0] == 0, 0.0, np.nan)
        case "moment" | "inner" | "outer":
            return args[0]
        case "mul":
            value = _positional(x)(*args)
            zero = [np.broadcast_to(a == 0, np.broadcast_shapes(a.shape, value.shape)) for a in args]
            return np.where(np.any(zero, axis=0), 0.0, value)
        case "add" | "fn" | "view" | "take" | "pick" | "stack" | "sum" | "softmax":
            return np.asarray(_positional(x)(*args))
    return unknown


def _positional(x: Node) -> Callable[..., Any]:
    """The kernel of an instruction, on arrays over its axes alone."""
    return standing(x, None)


def standing(x: Node, width: Width | None) -> Callable[..., Any]:
    """The kernel of an instruction all of whose operands have one kind of coordinates, or none."""
    args = tuple([Node("var", (), i, a.shape, width) for i, a in enumerate(x.args)])
    return kernel(Node(x.op, args, x.attr, x.shape, width))


def deviation(x: Node) -> Array:
    """Of every position of an initial vector; 1 where it is data that is not known yet."""
    spec = x.attr
    data = getattr(spec, "data", None)
    if isinstance(data, ArrayData):
        variance = float(spec.var) * np.square(data.array).mean(-1)
    elif data is not None:
        variance = np.asarray(float(spec.var))
    elif spec.cov is not None:
        variance = np.diagonal(np.asarray(spec.cov, dtype=float)).reshape(spec.shape)
    else:
        variance = np.asarray(spec.var, dtype=float)
        if hasattr(spec.distribution, "dist"):
            variance = np.asarray(1.0)
    return np.sqrt(np.maximum(variance.reshape((1,) * (len(x.shape) - variance.ndim) + variance.shape), 0))
