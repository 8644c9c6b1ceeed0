"""Divided differences as arrays: (phi(x + eps d) - phi(x)) / eps is d times the mean of phi' between x and x + eps d."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tensorprog.language.functions import PRIMITIVES

__all__ = ["array_of_difference"]

NODES, WEIGHTS = np.polynomial.legendre.leggauss(4)
SHORT = 0.06
"""Steps of this part of the scale on which a function turns: four nodes integrate its derivative to a unit in the last place."""


def array_of_difference(name: str, parameters: Sequence[Any], slope: Callable[[Any], Any]) -> Callable[..., Any]:
    """The divided difference of a primitive: a function of the arrays x, d and eps, which broadcast.

    Args:
        name: Of the primitive.
        parameters: Its own.
        slope: Its derivative, of arrays.

    For short steps it is d times the mean of the derivative, on either side of a kink, to rounding however short they are;
    for long ones the difference itself, with the rounding of phi over eps. At eps = 0 it is phi'(x) d.

    Example:
        >>> tanh = array_of_difference("tanh", (), lambda x: 1 - np.tanh(x) ** 2)
        >>> round(float(tanh(0.5, 2.0, 1e-12)), 9), round(float(tanh(0.5, 2.0, 0.0)), 9)
        (1.572895466, 1.572895466)
    """
    row = PRIMITIVES[name]
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
