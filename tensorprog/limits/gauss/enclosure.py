"""Enclosures: what values an integrand, its derivatives and its analytic continuation can take on a box.

An integrand is a tree of primitives. Carried along the tree are, for many boxes at once,

* the values at the corners of the box, and the range over it (interval arithmetic; Moore 1966), narrowed by the ranges of the
  partial derivatives: a function that is monotone on a box lies between its corners exactly;
* the range over complex neighbourhoods ``{x + i t: low <= x <= high, |t| <= height}``, with the side of each kink that
  holds on the real box continued analytically, as error bounds of Gauss rules need it (Petras 2002).

A function without values, or not analytic, on a set has an infinite range there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from tensorprog.language.functions import PRIMITIVES
from tensorprog.language.node import Node, topological
from tensorprog.limits.gauss.ranges import SHAPES, Shape
from tensorprog.limits.gauss.rounding import EPS, NOISE

__all__ = ["Box", "Enclosure", "Range", "enclosures", "function", "jumping", "kinked"]

Array = np.ndarray

WIDEN = 4 * float(np.finfo(np.float64).eps)
"""Relative rounding of one operation on a range."""


class Box(NamedTuple):
    """Boxes of integration variables, and the complex neighbourhoods of the first of them.

    Attributes:
        low: Shape (n, P): lower ends.
        high: Upper ends.
        left: Shape (K, P): the neighbourhoods of the first variable reach from here
        right: to here
        height: and so far off the axis. The other variables stay real.
    """

    low: Array
    high: Array
    left: Array
    right: Array
    height: Array


class Range(NamedTuple):
    """What one node can be.

    Attributes:
        corners: Shape (2^n, P); bit i of the number of a corner says which end of variable i.
        low: Shape (P,).
        high: Shape (P,).
        down: Lower ends of the partial derivatives, shape (n, P).
        up: Upper ends.
        left: Real parts on the neighbourhoods, shape (K, P), from
        right: to;
        height: imaginary parts are at most this.
        smooth: Shape (P,): are all kinks below decided, so that it is analytic on the box?
    """

    corners: Array
    low: Array
    high: Array
    down: Array
    up: Array
    left: Array
    right: Array
    height: Array
    smooth: Array

    @property
    def modulus(self) -> Array:
        """Upper bound on the neighbourhoods, shape (K, P); infinite where the function is not analytic there."""
        size = np.hypot(np.maximum(np.abs(self.left), np.abs(self.right)), self.height)
        return np.where(np.isnan(size), np.inf, size)


class Enclosure(NamedTuple):
    """The ranges of an integrand, and of the arguments of its kinks.

    Attributes:
        whole: The range of the integrand.
        kinks: The ranges of the arguments of kinked functions, whose kinks are at 0.
        turns: The same of functions that turn at 0 along curves in several variables, and how wide their turns are; kinks
            are turns of width 0.
    """

    whole: Range
    kinks: list[Range]
    turns: list[tuple[Range, float]]


def kinked(x: Node) -> bool:
    """Is this the instruction of a function with a kink at 0?"""
    return x.op == "fn" and (bool(PRIMITIVES[x.attr.name].kinks) or x.attr == ("smooth_sign", (0,)))


def jumping(x: Node) -> bool:
    """Is this the instruction of a function that jumps at 0?"""
    return kinked(x) and (PRIMITIVES[x.attr.name].jumps or x.attr.name == "smooth_sign")


def _turning(order: Sequence[Node]) -> dict[tuple[Node, float], None]:
    """Arguments of functions with kinks, and of those that turn along curves in several variables, with their widths."""
    variables: dict[Node, frozenset[int]] = {}
    found: dict[tuple[Node, float], None] = {}
    for x in order:
        below = [variables[a] for a in x.args]
        variables[x] = frozenset({x.attr}) if x.op == "var" else frozenset().union(*below)
        if kinked(x):
            found[x.args[0], 0.0] = None
        if x.op == "fn" and len(variables[x]) > 1:
            smoothed = x.attr[0] in ("smooth_sign", "bump")
            width = float(x.attr[1][0]) ** 0.5 if smoothed else PRIMITIVES[x.attr[0]].width
            if width > 0:
                found[x.args[0], width] = None
    return found


def moved(x: Node, noise: int) -> float:
    """What rounding may multiply the result of an instruction by; noise says in which way, 0 in none."""
    if not noise or x.op in ("param", "constant"):
        return 1.0
    bit = x.digest[noise // 8 % len(x.digest)] >> noise % 8 & 1
    return 1 + (NOISE if x.op == "fn" else EPS) * (2 * bit - 1)


def function(body: Node, noise: int = 0) -> Callable[[Sequence[Any], Sequence[Any]], Any]:
    """The function of variables and parameters that the enclosures enclose, to the last bit.

    With noise, the results of its instructions are moved by what rounding may have moved them.
    """
    order = topological([body])
    slots = {x: i for i, x in enumerate(order)}
    factors = [moved(x, noise) for x in order]

    def evaluate(z: Sequence[Any], p: Sequence[Any]) -> Any:
        values: list[Any] = []
        for x, factor in zip(order, factors, strict=True):
            args = [values[slots[a]] for a in x.args]
            match x.op:
                case "var":
                    values.append(z[x.attr])
                case "param":
                    values.append(p[x.attr])
                case "constant":
                    values.append(np.asarray(float(x.attr)))
                case "add":
                    values.append(_weighted([float(c) for c in x.attr], args))
                case "mul":
                    values.append(prod(_powered(a, int(k)) for a, k in zip(args, x.attr, strict=True)))
                case "fn":
                    values.append(np.asarray(PRIMITIVES[x.attr.name].array(args[0], *x.attr.parameters), dtype=float))
                case _:
                    raise AssertionError(f"no rule for {x.op}: please report this")
            if factor != 1:
                values[-1] = values[-1] * factor
        return values[-1]

    return evaluate


def _weighted(weights: Sequence[float], args: Sequence[Array]) -> Array:
    total = weights[0] * args[0]
    for c, a in zip(weights[1:], args[1:], strict=True):
        total = total + c * a
    return total


def _powered(a: Array, k: int) -> Array:
    return a if k == 1 else a**k


def enclosures(
    body: Node, noise: int = 0
) -> Callable[[Box, Sequence[Array], Sequence[Array], Sequence[Array]], Enclosure]:
    """A function of boxes, means (P,) and directions (n, P) of the variables, and parameters (P,): the enclosure there.

    Variable i is ``mean[i] + sum_k direction[i][k] e_k`` for e in the box. Noise is as in `function`.
    """
    order = topological([body])
    factors = [moved(x, noise) for x in order]
    slots = {x: i for i, x in enumerate(order)}
    arguments = list(dict.fromkeys(slots[x.args[0]] for x in order if kinked(x)))
    turns = [(slots[a], width) for a, width in _turning(order)]

    def evaluate(box: Box, mean: Sequence[Array], direction: Sequence[Array], params: Sequence[Array]) -> Enclosure:
        found: list[Range] = []
        with np.errstate(all="ignore"):
            for x, factor in zip(order, factors, strict=True):
                args = [found[slots[a]] for a in x.args]
                match x.op:
                    case "var":
                        found.append(_variable(box, mean[x.attr], direction[x.attr]))
                    case "param":
                        found.append(_constant(box, params[x.attr]))
                    case "constant":
                        found.append(_constant(box, np.asarray(float(x.attr))))
                    case "add":
                        found.append(_sum(box, [float(c) for c in x.attr], args))
                    case "mul":
                        found.append(_product(box, args, x.attr))
                    case "fn":
                        found.append(_function(box, args[0], x.attr.name, x.attr.parameters))
                    case _:
                        raise AssertionError(f"no enclosure for {x.op}: please report this")
                if factor != 1:
                    y = found[-1]
                    found[-1] = y._replace(**{name: getattr(y, name) * factor for name in Range._fields[:-1]})
        return Enclosure(found[-1], [found[i] for i in arguments], [(found[i], width) for i, width in turns])

    return evaluate


# ---- ranges of instructions ----


def _constant(box: Box, value: Array) -> Range:
    n, size = box.low.shape
    value = np.broadcast_to(value, (size,))
    spread = np.broadcast_to(value, box.left.shape)
    zero = np.zeros((n, size))
    return Range(
        np.broadcast_to(value, (2**n, size)), value, value, zero, zero, spread, spread, np.zeros(box.left.shape),
        np.ones(size, dtype=bool),
    )  # fmt: skip


def _ends(box: Box) -> Array:
    """The corners of the boxes, shape (2^n, n, P)."""
    n = len(box.low)
    return np.stack([np.where([[c >> i & 1] for i in range(n)], box.high, box.low) for c in range(2**n)])


def _variable(box: Box, mean: Array, direction: Array) -> Range:
    corners = mean + np.einsum("np,cnp->cp", direction, _ends(box))
    low, high = corners.min(0), corners.max(0)
    # Of the other variables, the whole box; of the first, its neighbourhood.
    ends = [(box.left, box.right), *zip(box.low[1:], box.high[1:], strict=True)]
    products = [(d * a, d * b) for d, (a, b) in zip(direction, ends, strict=True)]
    left = mean + sum(np.minimum(*ab) for ab in products)
    right = mean + sum(np.maximum(*ab) for ab in products)
    height = np.abs(direction[0]) * box.height
    return Range(corners, low, high, direction, direction, left, right, height, np.ones(low.shape, dtype=bool))


def _narrowed(
    box: Box, corners: Array, low: Array, high: Array, down: Array, up: Array, exact: Any, left: Array, right: Array,
    height: Array, smooth: Array,
) -> Range:  # fmt: skip
    """The range found, widened by its rounding and narrowed by the derivatives' ranges."""
    low, high = np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high)
    down, up = np.where(np.isnan(down), -np.inf, down), np.where(np.isnan(up), np.inf, up)
    rounding = np.where(exact | (low == high), 0, WIDEN * np.maximum(np.abs(low), np.abs(high)))
    low, high = low - rounding, high + rounding
    width = box.high - box.low
    falls, rises = _times(np.minimum(down, 0), width), _times(np.maximum(up, 0), width)  # (n, P)
    for number, value in enumerate(corners):
        below = above = np.zeros(1)
        for i in range(len(width)):
            at_high = number >> i & 1
            below = below + (-rises[i] if at_high else falls[i])
            above = above + (-falls[i] if at_high else rises[i])
        slack = WIDEN * np.abs(value)
        value = np.where(np.isfinite(value), value, np.nan)
        low = np.fmax(low, value + below - np.where(below == 0, 0, slack))
        high = np.fmin(high, value + above + np.where(above == 0, 0, slack))
    swapped = low > high
    if swapped.any():
        low, high = np.where(swapped, corners.min(0), low), np.where(swapped, corners.max(0), high)
    return Range(corners, low, high, down, up, left, right, height, smooth)


def _sum(box: Box, weights: Sequence[float], args: Sequence[Range]) -> Range:
    def total(parts: Sequence[Array]) -> Array:
        return _weighted([1.0] * len(parts), parts)

    def ends(lows: Sequence[Array], highs: Sequence[Array]) -> tuple[Array, Array]:
        return (
            total([c * (a if c >= 0 else b) for c, a, b in zip(weights, lows, highs, strict=True)]),
            total([c * (b if c >= 0 else a) for c, a, b in zip(weights, lows, highs, strict=True)]),
        )

    corners = _weighted(weights, [a.corners for a in args])
    low, high = ends([a.low for a in args], [a.high for a in args])
    down, up = ends([a.down for a in args], [a.up for a in args])
    left, right = ends([a.left for a in args], [a.right for a in args])
    height = total([abs(c) * a.height for c, a in zip(weights, args, strict=True)])
    smooth = np.logical_and.reduce([a.smooth for a in args])
    if len(args) == 1:
        return Range(corners, low, high, down, up, left, right, height, smooth)
    return _narrowed(box, corners, low, high, down, up, False, left, right, height, smooth)


def _times(a: Array, b: Array) -> Array:
    """A product in which 0 times infinity is 0: a factor that is 0 on a set makes the product 0."""
    product = a * b
    undefined = np.isnan(product)
    return np.where(undefined & ((a == 0) | (b == 0)), 0, product) if undefined.any() else product


def _interval_product(a: Array, b: Array, c: Array, d: Array) -> tuple[Array, Array]:
    products = [_times(a, c), _times(a, d), _times(b, c), _times(b, d)]
    low = np.minimum(np.minimum(products[0], products[1]), np.minimum(products[2], products[3]))
    high = np.maximum(np.maximum(products[0], products[1]), np.maximum(products[2], products[3]))
    return low, high


def _largest(left: Array, right: Array) -> Array:
    return np.maximum(np.abs(left), np.abs(right))


def _product(box: Box, args: Sequence[Range], powers: Sequence[int]) -> Range:
    factors = [_power(box, a, int(k)) for a, k in zip(args, powers, strict=True)]
    u = factors[0]
    for v in factors[1:]:
        corners = u.corners * v.corners
        low, high = _interval_product(u.low, u.high, v.low, v.high)
        first = _interval_product(u.down, u.up, v.low, v.high)
        second = _interval_product(u.low, u.high, v.down, v.up)
        left, right = _interval_product(u.left, u.right, v.left, v.right)
        cross = _times(u.height, v.height)
        height = _times(_largest(u.left, u.right), v.height) + _times(_largest(v.left, v.right), u.height)
        u = _narrowed(
            box, corners, low, high, first[0] + second[0], first[1] + second[1], False, left - cross, right + cross,
            height, u.smooth & v.smooth,
        )  # fmt: skip
    return u


def _power_range(low: Array, high: Array, k: int) -> tuple[Array, Array]:
    a, b = low**k, high**k
    if k % 2:
        return a, b
    return np.where((low <= 0) & (high >= 0), 0, np.minimum(a, b)), np.maximum(a, b)


def _power(box: Box, u: Range, k: int) -> Range:
    if k == 1:
        return u
    low, high = _power_range(u.low, u.high, k)
    slope = [k * s for s in _power_range(u.low, u.high, k - 1)]
    down, up = _interval_product(slope[0], slope[1], u.down, u.up)
    left, right = _power_range(u.left, u.right, k)
    size = np.hypot(_largest(u.left, u.right), u.height)
    if k == 2:
        left, height = left - u.height**2, 2 * _largest(u.left, u.right) * u.height
    else:
        bend = k * (k - 1) / 2 * u.height**2 * size ** (k - 2)
        left, right, height = left - bend, right + bend, k * size ** (k - 1) * u.height
    return _narrowed(box, _powered(u.corners, k), low, high, down, up, False, left, right, height, u.smooth)


def _function(box: Box, u: Range, name: str, params: tuple[Any, ...]) -> Range:
    array = PRIMITIVES[name].array
    corners = np.asarray(array(u.corners, *params), dtype=float)
    shape = SHAPES[name](*[float(p) for p in params])
    if isinstance(shape, Shape):
        found = _along(shape, u)
        return _narrowed(box, corners, *found[:4], False, *found[4:], u.smooth)
    jump = PRIMITIVES[name].jumps or name == "smooth_sign"
    # An argument that touches 0 jumps there at most at single points, unless it is 0 on an interval.
    touches = u.smooth & (u.low < u.high) if jump else True
    over, under = (u.low > 0) | (u.low == 0) & touches, (u.high < 0) | (u.high == 0) & touches
    zero = (u.low == 0) & (u.high == 0)
    decided = over | under | zero
    below, above = (_along(side, u) for side in shape)
    chosen = [np.where(over, b, a) for a, b in zip(below, above, strict=True)]
    if jump:  # its value on the box, not that at an end where the argument is 0
        corners = np.where(over | under, np.where(over, chosen[0], chosen[1]), corners)
        at_zero = float(array(np.zeros(()), *params))
        for i in (0, 1, 4, 5):
            chosen[i] = np.where(zero, at_zero, chosen[i])
    if not decided.all():
        # The side below is a function of what lies below only, and the same above.
        nothing = np.zeros_like(u.low)
        parts = [
            _along(side, u._replace(low=low, high=high, left=u.left.clip(*cut), right=u.right.clip(*cut)))
            for side, low, high, cut in (
                (shape[0], np.minimum(u.low, 0), nothing, (None, 0)),
                (shape[1], nothing, np.maximum(u.high, 0), (0, None)),
            )
        ]
        hull = [f(a, b) for f, a, b in zip((np.minimum, np.maximum) * 3, *parts, strict=False)]
        if jump:
            flat = (u.down == 0) & (u.up == 0)
            hull[2], hull[3] = np.where(flat, 0, -np.inf), np.where(flat, 0, np.inf)
        real = u.height == 0
        hull[4], hull[5] = np.where(real, hull[4], -np.inf), np.where(real, hull[5], np.inf)
        hull.append(np.where(real, 0, np.inf))
        chosen = [np.where(decided, c, h) for h, c in zip(hull, chosen, strict=True)]
    low, high, down, up, left, right, height = chosen
    return _narrowed(box, corners, low, high, down, up, jump, left, right, height, u.smooth & decided)


def _along(shape: Shape, u: Range) -> tuple[Array, Array, Array, Array, Array, Array, Array]:
    """low, high, down, up, left, right, height of an analytic function of a range."""
    low, high = shape.range(u.low, u.high)
    slope = shape.slope(u.low, u.high)
    down, up = _interval_product(slope[0], slope[1], u.down, u.up)
    left, right = shape.range(u.left, u.right)
    off = _times(u.height, np.where(u.height == 0, 0, shape.steepest(u.left, u.right, u.height)))
    return low, high, down, up, left - off, right + off, off
