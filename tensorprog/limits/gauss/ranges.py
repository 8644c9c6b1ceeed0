"""The ranges of the primitive functions: of their values and slopes on intervals, and of their slopes off the real axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorprog.language.functions import PRIMITIVES

__all__ = ["SHAPES", "Shape"]

Array = np.ndarray
Bounds = Callable[[Array, Array], tuple[Array, Array]]


@dataclass(frozen=True)
class Shape:
    """An analytic function, real on the real axis.

    Attributes:
        range: (low, high) of an interval to that of its values; infinite where it has none on part of the interval.
        slope: The same of its derivative.
        steepest: An upper bound of the modulus of its derivative on ``{x + i t: low <= x <= high, |t| <= height}``, given
            low, high and height; infinite where it is not analytic there.
    """

    range: Bounds
    slope: Bounds
    steepest: Callable[[Array, Array, Array], Array]


def _between(f: Callable[[Array], Any], extremes: Sequence[float] = ()) -> Bounds:
    """The range of a function that is monotone between the given points."""

    def bounds(low: Array, high: Array) -> tuple[Array, Array]:
        values = [f(low), f(high)]
        bottom, top = np.minimum(*values), np.maximum(*values)
        for x in extremes:
            inside = (low < x) & (x < high)
            if inside.any():
                value = f(np.asarray(x))
                bottom = np.where(inside, np.minimum(bottom, value), bottom)
                top = np.where(inside, np.maximum(top, value), top)
        return bottom, top

    return bounds


def _above(limit: float, bounds: Bounds, singular: bool) -> Bounds:
    """The same where the function has no values up to a limit; singular ones are infinite at it."""

    def cut(low: Array, high: Array) -> tuple[Array, Array]:
        bottom, top = bounds(np.maximum(low, limit), np.maximum(high, limit))
        bad = low <= limit if singular else low < limit
        return np.where(bad & singular, -np.inf, bottom), np.where(bad & singular, np.inf, top)

    return cut


def _closest(low: Array, high: Array) -> Array:
    """Distance of an interval from 0."""
    return np.maximum(np.maximum(low, -high), 0)


def _farthest(low: Array, high: Array) -> Array:
    return np.maximum(np.abs(low), np.abs(high))


def _analytic(name: str, *params: float) -> Callable[[Array], Any]:
    array = PRIMITIVES[name].array
    return lambda x: array(x, *params)


def _line(slope: float, shift: float) -> Shape:
    def bounds(low: Array, high: Array) -> tuple[Array, Array]:
        return _between(lambda x: slope * x + shift if slope else np.full_like(x, shift))(low, high)

    def constant(low: Array, high: Array) -> tuple[Array, Array]:
        return np.full_like(low, slope), np.full_like(low, slope)

    return Shape(bounds, constant, lambda low, high, height: np.full_like(low, abs(slope)))


def _exp(scale: float = 1.0, shift: float = 0.0) -> Shape:
    def slope(x: Array) -> Array:
        return scale * np.exp(x)

    value = (lambda x: scale * np.expm1(x)) if shift else slope
    return Shape(_between(value), _between(slope), lambda low, high, height: abs(scale) * np.exp(high))


def _bell(rate: float, size: float) -> Callable[[Array, Array, Array], Array]:
    """sup |size exp(-rate z^2)|."""
    return lambda low, high, height: size * np.exp(rate * (height**2 - _closest(low, high) ** 2))


def _cumulative(variance: float, size: float, name: str, *params: float) -> Shape:
    """size times the distribution function of N(0, variance), and what differs from it by a constant."""
    rate, top = 1 / (2 * variance), size / math.sqrt(2 * math.pi * variance)

    def slope(x: Array) -> Array:
        return top * np.exp(-rate * x * x)

    return Shape(_between(_analytic(name, *params)), _between(slope, [0.0]), _bell(rate, top))


def _gauss(rate: float, size: float, name: str, *params: float) -> Shape:
    turn = math.sqrt(1 / (2 * rate))
    bell = _bell(rate, size)

    def slope(x: Array) -> Array:
        return np.where(np.isinf(x), 0, -2 * rate * size * x * np.exp(-rate * x * x))

    return Shape(
        _between(_analytic(name, *params), [0.0]),
        _between(slope, [-turn, turn]),
        lambda low, high, height: 2 * rate * np.hypot(_farthest(low, high), height) * bell(low, high, height),
    )


def _wave(phase: float) -> Shape:
    """sin(x + phase)."""

    def bounds(offset: float) -> Bounds:
        def f(x: Array) -> Array:
            return np.asarray(np.sin(x) if offset == 0 else np.cos(x) if offset < 3 else -np.sin(x))

        def of(low: Array, high: Array) -> tuple[Array, Array]:
            values = f(low), f(high)
            turn = 2 * math.pi

            def meets(place: float) -> Array:
                return np.asarray(place + turn * np.ceil((low - place) / turn) <= high) | ~np.isfinite(high - low)

            return (
                np.where(meets(-math.pi / 2 - offset), -1, np.minimum(*values)),
                np.where(meets(math.pi / 2 - offset), 1, np.maximum(*values)),
            )

        return of

    return Shape(bounds(phase), bounds(phase + math.pi / 2), lambda low, high, height: np.cosh(height) + 0 * low)


def _sigmoid_slope(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return e / (1 + e) ** 2


def _steepest_sigmoid(low: Array, high: Array, height: Array) -> Array:
    return _steepest_tanh(low / 2, high / 2, height / 2) / 4


def _steepest_tanh(low: Array, high: Array, height: Array) -> Array:
    """1/|cosh(x + i y)|^2 = 1/(sinh(x)^2 + cos(y)^2)."""
    x = np.minimum(_closest(low, high), 300)
    cosine = np.where(height < math.pi / 2, np.cos(height), 0)
    return np.where(np.isnan(height), np.nan, 1 / (np.sinh(x) ** 2 + cosine**2))


def _steepest_sech2(low: Array, high: Array, height: Array) -> Array:
    """2 |tanh z| / |cosh z|^2, and |tanh(x + i y)|^2 = (sinh(x)^2 + sin(y)^2) / (sinh(x)^2 + cos(y)^2) is monotone in x^2."""
    sine, cosine = (f(np.minimum(height, math.pi / 2)) ** 2 for f in (np.sin, np.cos))
    ends = [np.sinh(np.minimum(x, 300)) ** 2 for x in (_closest(low, high), _farthest(low, high))]
    largest = np.maximum(*[(s + sine) / np.where(s + cosine > 0, s + cosine, np.nan) for s in ends])
    return 2 * np.sqrt(np.where(np.isnan(largest), np.inf, largest)) * _steepest_tanh(low, high, height)


def _largest_sigmoid(low: Array, high: Array, height: Array) -> Array:
    """1/|1 + exp(-z)|; the nearest poles are at i pi, and all have real part 0: away from there the height does not matter."""
    e = np.exp(-np.minimum(high, 700))
    near = 1 / np.sqrt(1 + e**2)
    far = 1 / np.sin(np.minimum(height, math.pi))
    with np.errstate(all="ignore"):
        aside = np.where(low > 0, -1 / np.expm1(-np.abs(low)), 1 / np.expm1(np.minimum(np.abs(high), 700)))
    aside = np.where((low > 0) | (high < 0), aside, np.inf)
    return np.minimum(aside, np.where(height <= math.pi / 2, near, np.where(height < math.pi, far, np.inf)))


def _steepest_arctan(low: Array, high: Array, height: Array) -> Array:
    """|1 + z^2| = |z - i| |z + i|."""
    x = _closest(low, high)
    return 1 / (np.hypot(x, np.maximum(1 - height, 0)) * np.hypot(x, 1))


def _gelu_slope(x: Array) -> Array:
    from scipy.special import ndtr

    return ndtr(x) + np.where(np.isinf(x), 0, x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi))


def _steepest_gelu(low: Array, high: Array, height: Array) -> Array:
    from scipy.special import ndtr

    density = _bell(0.5, 1 / math.sqrt(2 * math.pi))(low, high, height)
    return ndtr(high) + (height + np.hypot(_farthest(low, high), height)) * density


def _silu_slope(x: Array) -> Array:
    from scipy.special import expit

    return expit(x) + np.where(np.isinf(x), 0, x * _sigmoid_slope(x))


def _steepest_silu(low: Array, high: Array, height: Array) -> Array:
    size = np.hypot(_farthest(low, high), height)
    return _largest_sigmoid(low, high, height) + size * _steepest_sigmoid(low, high, height)


def _positive(steepest: Callable[[Array], Array]) -> Callable[[Array, Array, Array], Array]:
    """A bound that falls with the real part and is infinite up to 0."""
    return lambda low, high, height: np.where(low > 0, steepest(np.maximum(low, 0)), np.inf)


def _reciprocal_like(f: Callable[[Array], Array]) -> Bounds:
    def bounds(low: Array, high: Array) -> tuple[Array, Array]:
        values = f(low), f(high)
        bad = (low <= 0) & (high >= 0)
        return np.where(bad, -np.inf, np.minimum(*values)), np.where(bad, np.inf, np.maximum(*values))

    return bounds


_ZERO, _ONE, _IDENTITY, _OPPOSITE = _line(0, 0), _line(0, 1), _line(1, 0), _line(-1, 0)
_TURN = math.atanh(3**-0.5)
"""Where sech^2 is steepest."""
_ROOT_SLOPE = _between(lambda x: 0.5 / np.sqrt(x))

#: Name of a primitive: its shape for given parameters, or a pair: the sides below and above its kink at 0.
SHAPES: dict[str, Callable[..., Shape | tuple[Shape, Shape]]] = {
    "relu": lambda: (_ZERO, _IDENTITY),
    "leaky_relu": lambda a: (_line(a, 0), _IDENTITY),
    "abs": lambda: (_OPPOSITE, _IDENTITY),
    "sign": lambda: (_line(0, -1), _ONE),
    "step": lambda: (_ZERO, _ONE),
    "elu": lambda a: (_exp(a, -a), _IDENTITY),
    "erf": lambda: _cumulative(0.5, 2, "erf"),
    "normal_cdf": lambda: _cumulative(1, 1, "normal_cdf"),
    "gelu": lambda: Shape(
        _between(_analytic("gelu"), [-0.7517915246935645]), _between(_gelu_slope, [-math.sqrt(2), math.sqrt(2)]),
        _steepest_gelu,
    ),
    "tanh": lambda: Shape(
        _between(np.tanh), _between(lambda x: 4 * _sigmoid_slope(2 * x), [0.0]), _steepest_tanh
    ),
    "sech2": lambda: Shape(
        _between(_analytic("sech2"), [0.0]),
        _between(lambda x: -2 * np.tanh(x) * 4 * _sigmoid_slope(2 * x), [-_TURN, _TURN]), _steepest_sech2,
    ),
    "sigmoid": lambda: Shape(_between(_analytic("sigmoid")), _between(_sigmoid_slope, [0.0]), _steepest_sigmoid),
    "softplus": lambda: Shape(_between(_analytic("softplus")), _between(_analytic("sigmoid")), _largest_sigmoid),
    "silu": lambda: Shape(
        _between(_analytic("silu"), [-1.2784645427610737]),
        _between(_silu_slope, [-2.399357280515468, 2.399357280515468]), _steepest_silu,
    ),
    "sin": lambda: _wave(0.0),
    "cos": lambda: _wave(math.pi / 2),
    "exp": lambda: _exp(),
    "gaussian": lambda: _gauss(1, 1, "gaussian"),
    "arctan": lambda: Shape(_between(np.arctan), _between(lambda x: 1 / (1 + x * x), [0.0]), _steepest_arctan),
    "log1p": lambda: Shape(
        _above(-1, _between(np.log1p), True), _above(-1, _between(lambda x: 1 / (1 + x)), True),
        lambda low, high, height: _positive(lambda x: 1 / x)(1 + low, 1 + high, height),
    ),
    "log": lambda: Shape(
        _above(0, _between(np.log), True), _above(0, _between(lambda x: 1 / x), True), _positive(lambda x: 1 / x)
    ),
    "sqrt": lambda: Shape(
        _above(0, _between(np.sqrt), False), _above(0, _ROOT_SLOPE, False), _positive(lambda x: 0.5 / np.sqrt(x))
    ),
    "reciprocal": lambda: Shape(
        _reciprocal_like(lambda x: 1 / x), _reciprocal_like(lambda x: -1 / x**2),
        lambda low, high, height: np.where(_closest(low, high) > 0, 1 / _closest(low, high) ** 2, np.inf),
    ),
    "smooth_sign": lambda t: _cumulative(t, 2, "smooth_sign", t) if t else (_line(0, -1), _ONE),
    "bump": lambda t: _gauss(1 / (2 * t), 1 / math.sqrt(2 * math.pi * t), "bump", t),
    "gauss_exp": lambda c: _gauss(c, 1, "gauss_exp", c),
}  # fmt: skip
