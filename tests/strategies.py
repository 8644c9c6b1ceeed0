"""Random programs for property-based tests, well typed and of moderate growth; and a tiny evaluator."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import strategies as st

import tensorprog as tp
from tensorprog.arrays.elementwise import kernel
from tensorprog.language import algebra
from tensorprog.language.node import topological

N = tp.Width("n")
M = tp.Width("m", ratio=Fraction(1, 2))
W = tp.Matrix("W", N, N, var=1)
V = tp.Matrix("V", M, N, var=Fraction(3, 2))

SMOOTH = (tp.tanh, tp.erf, tp.sin, tp.cos, tp.sigmoid, tp.gelu, tp.softplus, tp.silu, tp.gaussian, tp.arctan)
KINKED = (tp.relu, tp.abs, tp.sign, tp.step, tp.leaky_relu, tp.elu)
COEFFICIENTS = (1, -1, 2, -3, Fraction(1, 2), Fraction(-2, 3), 0.5, -1.25)


def moderate(x: tp.Expression, growth: int, draw: Any) -> tp.Expression:
    """x, through a bounded function where it grows faster than a cube."""
    return x if growth <= 3 else tp.tanh(x)


@st.composite
def programs(
    draw: Any,
    max_instructions: int = 12,
    axes: bool = True,
    scalars: bool = True,
    kinked: bool = True,
    matrices: bool = True,
    floats: bool = True,
    labels: bool = False,
    updates: bool = False,
) -> tp.Program:
    """Vectors of two widths, W, W.T and the rectangular V, V.T, scalars, axes, smooth and kinked functions.

    With `updates` also sums of W or V and what has two coordinates, which multiply all that comes after.

    Every vector is bounded by a cubic polynomial of Gaussians, so that moments exist and finite widths converge.
    """
    functions = SMOOTH + (KINKED if kinked else ())
    numbers = [c for c in COEFFICIENTS if floats or not isinstance(c, float)]
    pool: list[tuple[tp.Expression, int]] = [
        (tp.Vector("x", N, mean=Fraction(1, 2), var=1), 1),
        (tp.Vector("y", M, mean=0, var=2), 1),
        (tp.Vector("u", N, mean=0, var=1, distribution=draw(st.sampled_from([None, "rademacher", "uniform"]))), 1),
    ]
    if axes:
        pool.append((tp.Vector("z", N, axes=("a",), cov=[[2, 1], [1, 1]]), 1))
    constants: list[tp.Expression] = [tp.Scalar("eta", Fraction(1, 4)), tp.inverse_sqrt(N)] if scalars else []
    outputs: dict[str, tp.Expression] = {}
    weights: list[Any] = [W, V]
    for k in range(draw(st.integers(1, max_instructions))):
        x, growth = draw(st.sampled_from(pool))
        kinds = ["function", "combine", "combine", "product", "moment"]
        kinds += ["multiply"] * 3 if matrices else []
        kinds += ["update"] * 2 if updates else []
        kinds += ["axis"] if x.axes else []
        kinds += ["scale", "outer"] if constants else []
        kind = draw(st.sampled_from(kinds))
        if kind == "multiply":
            choices = [w for w in weights if _widths(w)[1] == x.width] + [
                w.T for w in weights if _widths(w)[0] == x.width
            ]
            new = (draw(st.sampled_from(choices)) @ x, growth)
        elif kind == "update":
            w = draw(st.sampled_from(weights))
            rows, cols = _widths(w)
            d, _ = draw(st.sampled_from([(y, g) for y, g in pool if y.width == rows]))
            h, _ = draw(st.sampled_from([(y, g) for y, g in pool if y.width == cols]))
            c = draw(st.sampled_from([*numbers, *constants]))
            how = draw(st.sampled_from(["product", "product", "function", "sum"]))
            if how == "function":
                g = tp.matrix(lambda d, h: tp.tanh(d * h) + tp.sin(d), d, h)
            else:
                g = tp.matrix(lambda d, h: tp.tanh(d) * (tp.tanh(h) + 1), d, h)
            if how == "sum" and g.axes:
                g = tp.sum(g, g.axes[0])
            w = draw(st.sampled_from([w - c * g, c * w + g, w + g / 2]))
            if not (len(w.axes) > 2 or isinstance(w, tp.Matrix)):
                weights.append(w)
            continue
        elif kind == "function":
            new = (draw(st.sampled_from(functions))(x), min(growth, 1))
        elif kind in ("combine", "product"):
            y, other = draw(st.sampled_from([(y, g) for y, g in pool if y.width == x.width]))
            if kind == "combine":
                a, b = draw(st.sampled_from(numbers)), draw(st.sampled_from(numbers))
                new = (a * x + b * y, max(growth, other))
            else:
                new = (moderate(x * y, growth + other, draw), growth + other if growth + other <= 3 else 0)
        elif kind == "moment":
            c = tp.moment(x)
            outputs[f"c{k}"] = c
            if scalars:
                constants.append(tp.tanh(c))
            continue
        elif kind == "axis":
            name = draw(st.sampled_from(x.axes))
            how = draw(st.sampled_from(["take", "pick", "sum", "rename", "stack"]))
            if how == "take":
                new = (tp.take(x, name, draw(st.sampled_from([0, -1]))), growth)
            elif how == "pick":
                last = x.node.shape[x.names.index(name)] - 1
                index = draw(st.lists(st.integers(0, last), min_size=last + 1, max_size=last + 1))  # the size stays
                new = (tp.pick(x, name, index), growth)
            elif how == "sum":
                new = (tp.sum(x, name), growth)
            elif how == "rename" and len(x.axes) < 3 and "b" not in x.axes:
                new = (tp.rename(x, **{name: "b"}), growth)
            else:
                fresh = next(name for name in ("s", "s2", "s3", "s4", "s5") if name not in x.axes)
                both = tp.stack([x, tp.tanh(x)], fresh)
                new = (both if len(x.axes) < 3 else tp.take(both, fresh, 1), growth)
        elif kind == "scale":
            s = draw(st.sampled_from(constants))
            new = (s * x if draw(st.booleans()) else s + x, growth)
        else:
            y, _ = draw(st.sampled_from([(y, g) for y, g in pool if not y.axes]))
            s = draw(st.sampled_from(constants))
            new = (tp.outer(lambda a, b, s=s: tp.tanh(a + b) * s, x, y), 0)
        if labels and draw(st.booleans()) and new[0].node.op not in ("vector", "scalar", "constant"):
            new[0].label(draw(st.sampled_from(["h", "dx", "x", "g1", "value"])))
        pool.append(new)
    last, _ = pool[-1]
    outputs["last"] = tp.moment(last)
    outputs["square"] = tp.moment(last * draw(st.sampled_from([y for y, _ in pool if y.width == last.width])))
    return tp.Program(outputs)


X = algebra.hyperparameter("x", None)


def _widths(w: Any) -> tuple[Any, Any]:
    """Of the rows and the columns of a matrix."""
    return (w.rows, w.cols) if isinstance(w, tp.Matrix) else (w.node.width, w.node.inner)


def evaluate(node, x):
    """The array of a node in the one scalar X."""
    values = {}
    for y in topological([node]):
        values[y] = np.asarray(x, dtype=float) if y == X else kernel(y)(*[values[a] for a in y.args])
    return np.broadcast_to(values[node], np.shape(x))
