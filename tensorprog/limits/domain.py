"""Where functions have no value, and where moments are infinite: refused before anything is computed."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.language.expression import describe
from tensorprog.language.functions import PRIMITIVES
from tensorprog.language.node import Node, topological
from tensorprog.language.program import Program

__all__ = ["Range", "check_domains", "check_value", "range_of", "ranges"]

TINY = 5e-324
INF = math.inf
EXPONENTIAL = math.inf
"""The degree of growth of exp(linear)."""


class Range(NamedTuple):
    """The interval in which a coordinate lies, and how fast it can grow with the Gaussians it is made of.

    Attributes:
        low: Greatest lower bound known; the smallest positive number stands for an open 0.
        high: Least upper bound known.
        degree: 0 bounded, k at most like a polynomial of that degree, `EXPONENTIAL` like exp(linear).
        vanishing: p if it may tend to 0 like exp(-|z|^p): its reciprocal has moments for p < 2.
    """

    low: float
    high: float
    degree: float
    vanishing: float = 0


def ranges(program: Program) -> dict[Node, Range]:
    """The range of every node."""
    out: dict[Node, Range] = {}
    for x in program.nodes:
        out[x] = _range(x, [out[a] for a in x.args])
    return out


def check_value(x: Node, argument: Node) -> None:
    """Refuses a function at a number where it has no value: a Moment whose limit is 0 has no reciprocal.

    Raises:
        TensorProgramError: naming the instruction and the user's line.
    """
    row = PRIMITIVES[x.attr[0]]
    if row.domain is None or argument.op != "constant":
        return
    values = np.atleast_1d(np.asarray(argument.attr, dtype=float))
    bad = row.refused(values)
    if np.any(bad):
        raise TensorProgramError(
            f"{row.name} of {describe(x.args[0])}, whose limit is {values[bad][0]:g}",
            why="the function has no value there, so that the program has no limit",
            fix="divide by something that stays away from 0",
            source=x.source,
            label=x.label,
        )


def range_of(x: Node) -> Range:
    """The range of one node, of a program or of its Z-program."""
    out: dict[Node, Range] = {}
    for y in topological([x]):
        out[y] = _range(y, [out[a] for a in y.args])
    return out[x]


def check_domains(program: Program) -> None:
    """Refuses roots, logarithms and reciprocals of vectors that can hit a bad argument, and infinite moments.

    Raises:
        TensorProgramError: naming the instruction and the user's line.
    """
    known = ranges(program)
    for x in program.nodes:
        if x.op != "fn" or x.width is None:
            continue
        name, argument = x.attr[0], known[x.args[0]]
        row = PRIMITIVES[name]
        if row.domain is not None:
            low, included = row.domain
            bad = (
                argument.low <= 0 <= argument.high
                if name == "reciprocal"
                else (argument.low < low if included else argument.low <= low)
            )
            if bad:
                what = "can be 0" if name == "reciprocal" else f"can be as low as {argument.low:g}"
                raise TensorProgramError(
                    f"{name} of {describe(x.args[0])}, which {what}",
                    why=f"{name} needs {'an argument away from 0' if name == 'reciprocal' else f'an argument above {low:g}'}; "
                    "a Gaussian coordinate takes every value",
                    fix="give it an argument of known sign, such as 1 + x * x or tp.exp(x)",
                    source=x.source,
                    label=x.label,
                )
        if (row.growth == "exponential" and argument.degree > 1 and argument.high == INF) or (
            name == "reciprocal" and argument.vanishing >= 2
        ):
            raise TensorProgramError(
                f"{name} of {describe(x.args[0])}, which "
                + ("tends to 0" if name == "reciprocal" else "grows faster than linearly in Gaussian coordinates"),
                why="its moments are infinite, or depend on how large the variance is; the Master Theorem needs finite ones",
                fix="bound its argument, for example with tp.tanh",
                source=x.source,
                label=x.label,
            )


def _range(x: Node, args: list[Range]) -> Range:
    match x.op:
        case "constant":
            values = np.asarray(x.attr, dtype=float)
            return Range(float(values.min()), float(values.max()), 0) if values.size else Range(0, 0, 0)
        case "inverse_sqrt":
            return Range(TINY, 1, 0)
        case "vector":
            return _of_vector(x)
        case "add":
            parts = [
                (min(c * r.low, c * r.high), max(c * r.low, c * r.high))
                for c, r in zip(map(float, x.attr), args, strict=True)
            ]
            low, high = sum(p[0] for p in parts), sum(p[1] for p in parts)
            fastest = min([r.vanishing for r in args]) if all(low >= 0 for low, _ in parts) else 0
            return Range(low, high, max(r.degree for r in args), fastest)
        case "mul":
            return _of_product(x, args)
        case "fn":
            return _of_function(x, args[0])
        case "view" | "take" | "inner" | "outer" | "moment":
            return args[0]._replace(degree=0, vanishing=0) if x.op == "moment" else args[0]
        case "stack":
            return Range(min(r.low for r in args), max(r.high for r in args), max(r.degree for r in args))
        case "sum":
            k = x.args[0].shape[x.attr]
            return Range(_times(k, args[0].low), _times(k, args[0].high), args[0].degree)
        case "softmax":
            return Range(TINY, 1, 0)
        case "matmul":
            return Range(-INF, INF, 1)
    return Range(-INF, INF, 0 if x.width is None else 1)


def _of_vector(x: Node) -> Range:
    spec = x.attr
    mean = np.asarray(spec.mean, dtype=float)
    if spec.cov is None and spec.var == 0 and not hasattr(spec.distribution, "dist"):
        return Range(float(mean.min()), float(mean.max()), 0)
    if spec.distribution in ("rademacher", "uniform"):
        spread = math.sqrt((1 if spec.distribution == "rademacher" else 3) * float(spec.var))
        return Range(float(mean.min()) - spread, float(mean.max()) + spread, 0)
    if spec.distribution is not None:
        low, high = map(float, spec.distribution.support())
        return Range(
            max(low, TINY) if low == 0 and not spec.distribution.pdf(0.0) else low,
            high,
            0 if math.isfinite(low) and math.isfinite(high) else 1,
        )
    return Range(-INF, INF, 1)


def _times(a: float, b: float) -> float:
    return 0.0 if a == 0 or b == 0 else a * b


def _of_product(x: Node, args: list[Range]) -> Range:
    low = high = 1.0
    degree = 0.0
    for r, k in zip(args, x.attr, strict=True):
        a, b = _power(r, k)
        corners = [_times(low, a), _times(low, b), _times(high, a), _times(high, b)]
        positive = low > 0 and a > 0
        low, high = min(corners), max(corners)
        if positive and low == 0:
            low = TINY
        degree += r.degree * k if r.degree else 0
    return Range(low, high, degree, max(r.vanishing for r in args))


def _power(r: Range, k: int) -> tuple[float, float]:
    def power(v: float) -> float:
        try:
            return v**k
        except OverflowError:
            return math.copysign(INF, v) if k % 2 else INF

    a, b = power(r.low), power(r.high)
    if r.low > 0:
        return max(a, TINY), b
    if k % 2 == 0:
        return (0.0 if r.high >= 0 else max(b, TINY)), max(a, b)
    return a, b


_BOUNDS = {
    "tanh": (-1, 1), "erf": (-1, 1), "sin": (-1, 1), "cos": (-1, 1), "sign": (-1, 1), "smooth_sign": (-1, 1), "step": (0, 1),
    "sigmoid": (TINY, 1), "normal_cdf": (0, 1), "gaussian": (TINY, 1), "gauss_exp": (0, 1), "arctan": (-math.pi / 2, math.pi / 2),
    "exp": (TINY, INF), "softplus": (TINY, INF), "relu": (0, INF), "abs": (0, INF), "bump": (0, INF), "sqrt": (0, INF),
}  # fmt: skip
_MONOTONE = {"tanh", "erf", "sigmoid", "normal_cdf", "exp", "softplus", "relu", "arctan", "log1p", "log", "sqrt"}


_DECAY = {"exp": 1, "sigmoid": 1, "softplus": 1, "gaussian": 2, "gauss_exp": 2, "bump": 2, "normal_cdf": 2}
"""How fast they tend to 0: 1 like exp(-|x|), 2 like exp(-x^2)."""


def _of_function(x: Node, r: Range) -> Range:
    """The range of a primitive of an argument in a range."""
    vanishing = _DECAY.get(x.attr[0], 0) * (r.degree if math.isfinite(r.degree) else 2)
    return _values(x, r)._replace(vanishing=vanishing)


def _values(x: Node, r: Range) -> Range:
    name = x.attr[0]
    row = PRIMITIVES[name]
    low, high = _BOUNDS.get(name, (-INF, INF))
    if name in _MONOTONE:
        with np.errstate(all="ignore"):
            ends = [float(row.array(np.float64(v))) if math.isfinite(v) else math.nan for v in (r.low, r.high)]
        low = ends[0] if math.isfinite(ends[0]) and not (ends[0] == 0 and low > 0) else low
        high = ends[1] if math.isfinite(ends[1]) else high
    if name == "abs":
        low = 0.0 if r.low <= 0 <= r.high else min(abs(r.low), abs(r.high))
        high = max(abs(r.low), abs(r.high))
    if name == "reciprocal" and (r.low > 0 or r.high < 0):
        corners = sorted([1 / r.low if abs(r.low) > 1e-300 else INF, 1 / r.high if math.isfinite(r.high) else 0.0])
        return Range(
            max(corners[0], TINY) if r.low > 0 else corners[0],
            corners[1],
            0 if math.isfinite(corners[1]) else max(r.degree, 1),
        )
    if math.isfinite(low) and math.isfinite(high):
        return Range(low, high, 0)
    if row.growth == "exponential":
        return Range(low, high, 0 if r.degree == 0 or math.isfinite(high) else EXPONENTIAL)
    return Range(low, high, r.degree)
