"""Where functions have no value, and where moments are infinite: refused before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.language.describe import describe
from tensorprog.language.functions import PRIMITIVES, TINY
from tensorprog.language.node import MOVES, Node, topological
from tensorprog.language.program import Program
from tensorprog.limits.expect.polynomials import interval_product, polynomial_bounds, power

__all__ = ["Range", "check_domains", "check_value", "jumps", "range_of", "ranges"]

INF = math.inf
EXPONENTIAL = math.inf
"""The degree of growth of exp(linear)."""
LOGARITHMIC = 1e-9
"""The degree of growth of the logarithm of a polynomial: exp of it has moments, whatever it is multiplied by."""


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
    """The range of every node, remembered with the program."""
    if "ranges" not in program._derived:
        out: dict[Node, Range] = {}
        asked = _asked(program.nodes)
        for x in program.nodes:
            out[x] = _refined(x, _range(x, [out[a] for a in x.args]), asked, out)
        program._derived["ranges"] = out
    known: dict[Node, Range] = program._derived["ranges"]
    return known


def _asked(nodes: Sequence[Node]) -> set[Node]:
    """The sums and products whose range somebody needs to know well: arguments of roots, logarithms, reciprocals and exp."""
    found = set()
    for x in nodes:
        if x.op == "fn" and (
            PRIMITIVES[x.attr.name].domain is not None or PRIMITIVES[x.attr.name].growth == "exponential"
        ):
            y = x.args[0]
            while y.op in MOVES:
                y = y.args[0]
            if y.op in ("add", "mul") and y.width is not None:
                found.add(y)
    return found


def _refined(x: Node, r: Range, asked: set[Node], known: Mapping[Node, Range]) -> Range:
    """A range, with the bounds of a polynomial where that is one."""
    if x not in asked or not (math.isinf(r.low) or math.isinf(r.high) or r.low <= 0 <= r.high):
        return r
    found = polynomial_bounds(x, lambda y: known[y][:2])
    if found is None:
        return r
    low, high = max(r.low, found[0]), min(r.high, found[1])
    return r._replace(low=low, high=high) if low <= high else r


def jumps(x: Node) -> bool:
    """Is it a discontinuous function?"""
    return x.op == "fn" and (PRIMITIVES[x.attr.name].jumps or x.attr == ("smooth_sign", (0,)))


def check_value(x: Node, argument: Node) -> None:
    """Refuses a function at a number where it has no value: a Moment whose limit is 0 has no reciprocal.

    Raises:
        TensorProgramError: naming the instruction and the user's line.
    """
    row = PRIMITIVES[x.attr.name]
    if row.domain is None or argument.op != "constant":
        return
    values = np.atleast_1d(np.asarray(argument.attr, dtype=float))
    bad = row.refused(values)
    if np.any(bad):
        if x.args[0].op == "inverse_sqrt":
            raise TensorProgramError(
                f"a product with {x.args[0].attr.name}**(1/2), which has no limit",
                why="a readout v.x/sqrt(n) has no limit as a number: it tends in law to a Gaussian",
                fix='ask for its covariance (of a network: of="nngp"), or run the program at finite widths',
                source=x.source,
                label=x.label,
            )
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
    nodes = topological([x], lambda y: () if y.op in ("leaf", "hat") else y.args)
    asked = _asked(nodes) | {x}
    for y in nodes:
        r = _range(y, [] if y.op in ("leaf", "hat") else [out[a] for a in y.args])
        out[y] = _refined(y, r, asked, out) if y.op in ("add", "mul") else r
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
        name, argument = x.attr.name, known[x.args[0]]
        row = PRIMITIVES[name]
        if row.domain is not None:
            low, included = row.domain
            bad = (
                argument.low <= 0 <= argument.high
                if name == "reciprocal"
                else (argument.low < low if included else argument.low <= low)
            )
            if name == "log" and argument.low == 0:
                bad = not positive_almost_surely(x.args[0], known)
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
            return Range(0, 0, 0)  # in the limit
        case "vector":
            return _of_vector(x)
        case "add":
            parts = [
                (min(c * r.low, c * r.high), max(c * r.low, c * r.high))
                for c, r in zip(map(float, x.attr), args, strict=True)
            ]
            low, high = sum(p[0] for p in parts), sum(p[1] for p in parts)
            positive = [r for r, c in zip(args, map(float, x.attr), strict=True) if r.low > 0 and c > 0]
            squares = [a for a, c in zip(x.args, map(float, x.attr), strict=True) if c > 0 and _is_square(a)]
            if low == 0 and (positive or len(squares) > 1):
                low = TINY
            # the slowest decides where all have one sign; elsewhere 0 is a value, and refused for that
            return Range(low, high, max(r.degree for r in args), min(r.vanishing for r in args))
        case "mul":
            return _of_product(x, args)
        case "fn":
            return _of_function(x, args[0])
        case "view" | "take" | "pick" | "inner" | "outer" | "moment":
            return args[0]._replace(degree=0, vanishing=0) if x.op == "moment" else args[0]
        case "stack":
            return Range(
                *[pick(values) for pick, values in zip((min, max, max, max), zip(*args, strict=True), strict=True)]
            )
        case "sum":
            k = x.args[0].shape[x.attr]
            low = TINY if args[0].low == 0 and _is_square(x.args[0]) and k > 1 else k * args[0].low
            return args[0]._replace(low=low, high=k * args[0].high)
        case "softmax":
            return Range(TINY, 1, 0)
        case "matmul":
            return Range(-INF, INF, 1)
    return Range(-INF, INF, 0 if x.width is None else 1)


_ANALYTIC = (
    "abs",
    "leaky_relu",
    "elu",
    "erf",
    "gelu",
    "tanh",
    "silu",
    "sin",
    "arctan",
    "exp",
    "sigmoid",
    "softplus",
    "log",
    "sech2",
)
"""Functions that are 0, or any other number, with probability 0 only, if their argument has a density."""


def positive_almost_surely(x: Node, known: Mapping[Node, Range]) -> bool:
    """Is a vector that is at least 0 equal to 0 with probability 0 only, and then no steeper than a polynomial?"""
    todo = [x]
    while todo:
        y = todo.pop()
        if known[y].low > 0:
            continue
        if y.op == "mul":
            todo += [a for a, k in zip(y.args, y.attr, strict=True) if k % 2 or not _has_density(a)]
        elif y.op in (*MOVES, "sum") or (y.op == "fn" and y.attr.name == "sqrt"):
            todo.append(y.args[0])
        elif not (
            (y.op == "fn" and y.attr.name == "abs" and _has_density(y.args[0])) or (y.op == "add" and _has_density(y))
        ):
            return False
    return True


def _has_density(x: Node) -> bool:
    """Surely no number with positive probability: an analytic function of Gaussian vectors that is not constant."""
    todo = [x]
    while todo:
        y = todo.pop()
        match y.op:
            case "vector":
                spec = y.attr
                if spec.distribution == "rademacher" or (spec.cov is not None and not np.all(np.diag(spec.cov) > 0)):
                    return False
                if getattr(spec, "data", None) is not None or (spec.cov is None and not np.min(spec.var) > 0):
                    return False
            case "matmul" | "leaf" | "hat":
                pass
            case "add" | "mul":
                vectors = [a for a in y.args if a.width is not None and a.op != "constant"]
                if not vectors or (y.op == "mul" and any(a.width is None for a in y.args)):
                    return False
                todo += vectors
            case "fn" if y.attr.name in _ANALYTIC:
                todo.append(y.args[0])
            case "view" | "take" | "pick":
                todo.append(y.args[0])
            case _:
                return False
    return True


def _is_square(x: Node) -> bool:
    """Is it a square of a vector, possibly seen along other axes? A sum of several is positive, almost surely.

    Whether the moments of its inverse powers are finite depends on the rank of the covariance and on what else is in the
    product; `limits/gauss/finite.py:Weights` finds out.
    """
    while x.op in (*MOVES, "sum"):
        x = x.args[0]
    return x.op == "mul" and x.width is not None and all(k % 2 == 0 for k in x.attr)


def _of_vector(x: Node) -> Range:
    spec = x.attr
    mean = np.asarray(spec.mean, dtype=float)
    if spec.cov is None and not np.any(spec.var) and not hasattr(spec.distribution, "dist"):
        return Range(float(mean.min()), float(mean.max()), 0)
    if spec.distribution in ("rademacher", "uniform"):
        spread = math.sqrt((1 if spec.distribution == "rademacher" else 3) * float(np.max(spec.var)))
        return Range(float(mean.min()) - spread, float(mean.max()) + spread, 0)
    if spec.distribution is not None:
        low, high = map(float, spec.distribution.support())
        return Range(
            max(low, TINY) if low == 0 and not spec.distribution.pdf(0.0) else low,
            high,
            0 if math.isfinite(low) and math.isfinite(high) else 1,
        )
    return Range(-INF, INF, 1)


def _of_product(x: Node, args: list[Range]) -> Range:
    low = high = 1.0
    degree = 0.0
    for r, k in zip(args, x.attr, strict=True):
        a, b = _power(r, k)
        positive = low > 0 and a > 0
        low, high = interval_product((low, high), (a, b))
        if positive and low == 0:
            low = TINY
        degree += r.degree * k if r.degree else 0
    return Range(low, high, degree, max(r.vanishing for r in args))


def _power(r: Range, k: int) -> tuple[float, float]:
    a, b = power(r.low, k), power(r.high, k)
    if r.low > 0:
        return max(a, TINY), b
    if k % 2 == 0:
        return (0.0 if r.high >= 0 else max(b, TINY)), max(a, b)
    return a, b


def _of_function(x: Node, r: Range) -> Range:
    """The range of a primitive of an argument in a range."""
    name, parameters = x.attr
    row = PRIMITIVES[name]
    low, high = row.bounds

    def value(v: float) -> float:
        with np.errstate(all="ignore"):
            return float(row.array(np.float64(v), *parameters)) if math.isfinite(v) else math.nan

    if row.monotone:
        ends = [value(r.low), value(r.high)]
        low = ends[0] if math.isfinite(ends[0]) and not (ends[0] == 0 and low > 0) else low
        high = ends[1] if math.isfinite(ends[1]) else high
    vanishing = row.decay * (r.degree if math.isfinite(r.degree) else 2)
    match name:
        case "abs":
            low = 0.0 if r.low <= 0 <= r.high else min(abs(r.low), abs(r.high))
            return Range(low, max(abs(r.low), abs(r.high)), r.degree, r.vanishing)
        case "sqrt":
            low = TINY if r.low == TINY else low
            return Range(low, high, r.degree / 2, r.vanishing)
        case "log" if r.low <= TINY:  # an argument that comes close to 0; exp of it would have a pole where it can be 0
            return Range(-INF, high, max(_logarithm(r.degree), r.vanishing, 2 if r.low == 0 else LOGARITHMIC))
        case "log" | "log1p":
            return Range(low, high, _logarithm(r.degree), r.vanishing if name == "log1p" else 0)
        case "reciprocal" if r.low > 0 or r.high < 0:
            corners = sorted([1 / r.low if abs(r.low) > 1e-300 else INF, 1 / r.high if math.isfinite(r.high) else 0.0])
            degree = 0 if math.isfinite(corners[1]) else EXPONENTIAL if r.vanishing else max(r.degree, 1)
            vanishing = 1 if r.degree == EXPONENTIAL else 0
            return Range(max(corners[0], TINY) if r.low > 0 else corners[0], corners[1], degree, vanishing)
    if r.vanishing and not vanishing and value(0) == 0:  # near 0, tanh(x) is x
        vanishing = r.vanishing
    if math.isfinite(low) and math.isfinite(high):
        return Range(low, high, 0, vanishing)
    if row.growth == "exponential":
        return Range(low, high, 0 if r.degree == 0 or math.isfinite(high) else EXPONENTIAL, vanishing)
    return Range(low, high, r.degree, vanishing)


def _logarithm(degree: float) -> float:
    """The degree of the logarithm of what grows with a degree."""
    return 1 if degree == EXPONENTIAL else LOGARITHMIC if degree else 0
