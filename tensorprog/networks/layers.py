"""The layer that everything is built from: dense; and what layers share.

A layer is a function of expressions with the decorator `layer`; so are those of the other modules of this folder, and those
that users write.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from tensorprog.errors import TensorProgramError
from tensorprog.language import algebra
from tensorprog.language.data import Embedding
from tensorprog.language.deferred import layer
from tensorprog.language.describe import describe
from tensorprog.language.expression import Expression, as_expression
from tensorprog.language.leaves import Vector
from tensorprog.language.matrix import Matrix
from tensorprog.language.node import Node, topological
from tensorprog.language.symbols import Number, Width, check_name, is_exact, number, quotient
from tensorprog.networks.inputs import FEATURES, Bound

__all__ = [
    "beside", "bias", "dense", "deviation", "hyperparameter", "ordered", "residual", "squared", "times", "vector",
]  # fmt: skip


def deviation(std: Any, what: str) -> tuple[Number, Any]:
    """The variance of weights, and what multiplies them: (std^2, 1) for a number; (1, std) for a hyperparameter.

    Raises:
        TensorProgramError: what is neither a number of at least 0 nor a scalar of hyperparameters.
    """
    if not isinstance(std, Expression):
        return squared(std, what), 1
    if std.width is not None or std.axes or any(x.op in ("moment", "inverse_sqrt") for x in topological([std.node])):
        raise TensorProgramError(
            f"{what} is {describe(std.node)}", fix="give a number, a tp.Scalar, or what is made of these alone"
        )
    return 1, std


def hyperparameter(std: Any) -> Node | None:
    """The scalar that multiplies weights of variance 1, for their specification; None for the 1 that `deviation` has."""
    return std.node if isinstance(std, Expression) else None


def times(factor: Any, x: Expression) -> Expression:
    """The product with what `deviation` has."""
    return factor * x if isinstance(factor, Expression) else x


def squared(std: Any, what: str) -> Number:
    """The variance for a standard deviation: 2**0.5 gives 2 to the last bit."""
    s = number(std, what)
    if s < 0:
        raise TensorProgramError(f"{what} is {s}", fix="a standard deviation is at least 0")
    v = s * s
    if s and not Fraction(1, 10**300) < v < 10**300:
        raise TensorProgramError(
            f"{what} is {s:g}" if not is_exact(s) else f"{what} has {len(str(s))} digits",
            why="its square is no floating point number",
            fix="use a standard deviation between 1e-150 and 1e150",
        )
    return v if is_exact(v) else _nearby(float(v))


def _nearby(v: float) -> Number:
    """What is a short rational but for the rounding of a square root becomes that number again, as a float."""
    near = Fraction(v).limit_denominator(10_000)
    return float(near) if abs(v - float(near)) <= 4e-16 * abs(v) else v


@layer
def dense(
    name: str,
    x: Any,
    n: Width,
    W_std: Any = 1,
    b_std: Any = None,
) -> Expression:
    """A dense layer: W x + b.

    Of data, W has d columns with entries N(0, W_std^2/d): the result are initial vectors. Of a vector of width n', W is the
    Matrix `name` with entries N(0, W_std^2/n'). A list of vectors means their concatenation: one matrix for each,
    `name_0`, `name_1`, .., with the variance W_std^2 over the whole fan-in; a list of Inputs means all their features. The same
    name is the same weights.

    Args:
        name: The name of W; the bias is `name_b`.
        x: An Input, a vector, or a list of Inputs or of vectors; axes are kept.
        n: The width of the result.
        W_std: Standard deviation of the weights, times the root of the fan-in; a number, or a `tp.Scalar` (as everywhere), which
            multiplies weights of variance 1: then formulas have it as a symbol, and `values=` as a number.
        b_std: Standard deviation of the biases; None for no bias.

    Returns:
        A vector of width n with the axes of x.

    Example:
        >>> import tensorprog as tp
        >>> n = tp.Width("n")
        >>> x = tp.Vector("x", n)
        >>> tp.limit(tp.Program(q=tp.moment(tp.dense("W", tp.relu(x), n, W_std=2, b_std=1) ** 2)))
        q = 3 (exact)
        >>> s = tp.Scalar("s")
        >>> tp.formula(tp.Program(q=tp.moment(tp.dense("W", tp.relu(x), n, W_std=s, b_std=1) ** 2)))
        q = s**2/2 + 1

    Source: parametrization of Jacot et al. 2018, and of neural-tangents' Dense.
    """
    name = check_name(name, "a layer's name")
    if not isinstance(n, Width):
        raise TensorProgramError(f"layer {name} is given {n!r} as its width", fix='make one with tp.Width("n")')
    var, factor = deviation(W_std, f"W_std of layer {name}")
    x = beside(x)
    if isinstance(x, Bound):
        node = algebra.initial(Embedding.of(name, n, var, x.data, std=hyperparameter(factor)))
        h = Expression(node, x.axes)
    elif isinstance(x, (list, tuple)):
        parts = [vector(y, name) for y in x]
        if not parts:
            raise TensorProgramError(f"layer {name} is given an empty list", fix="give vectors")
        ratios = [_width(p).ratio for p in parts]
        h = _number(0)
        for i, (p, r) in enumerate(zip(parts, ratios, strict=True)):
            part = quotient(r, sum(ratios))
            W = Matrix(f"{name}_{i}", n, _width(p), var * part, share=part, std=hyperparameter(factor))
            h = h + W @ p
    else:
        y = vector(x, name)
        h = Matrix(name, n, _width(y), var, std=hyperparameter(factor)) @ y
    h = times(factor, h)
    return h if b_std is None else h + bias(f"{name}_b", n, b_std)


def beside(x: Any) -> Any:
    """A list of data as data with all their features; anything else as it is."""
    if isinstance(x, (list, tuple)) and x and all(isinstance(y, Bound) for y in x):
        return x[0].concatenated(x[1:], FEATURES) if len(x) > 1 else x[0]
    return x


def vector(x: Any, name: str) -> Expression:
    """What a layer is given, as a vector of the program.

    Raises:
        TensorProgramError: data, a scalar, numbers.
    """
    if isinstance(x, Bound):
        raise TensorProgramError(
            f"layer {name} is given data where it needs vectors",
            why="data has a fixed dimension",
            fix="make vectors of the data first, with tp.dense",
        )
    if isinstance(x, (list, tuple)):
        raise TensorProgramError(
            f"layer {name} is given a list where it needs one vector", fix="tp.dense and tp.readout take lists"
        )
    x = as_expression(x)
    if x.width is None:
        raise TensorProgramError(f"layer {name} is given the scalar {describe(x.node)}", fix="give it a vector")
    return x


def _width(x: Expression) -> Width:
    assert x.width is not None
    return x.width


def ordered(x: Expression, axes: Sequence[str]) -> Expression:
    """The same with its axes in that order, as far as it has them."""
    return Expression(x.node, x.names, [*[a for a in axes if a in x.axes], *[a for a in x.axes if a not in axes]])


def bias(name: str, n: Width, b_std: Any) -> Expression:
    """A trained vector with N(0, b_std^2) coordinates."""
    var, factor = deviation(b_std, f"b_std of {name}")
    b = Vector(name, n, mean=0, var=var, trainable=True, std=factor if isinstance(factor, Expression) else None)
    return times(factor, b)


def _number(x: Number) -> Expression:
    """A number as an expression."""
    return Expression(algebra.constant(x))


def residual(block: Callable[..., Any], x: Any, scale: Any = 1) -> Any:
    """x + scale block(x): a residual connection; before or after the activation, as the block says.

    Example:
        >>> import tensorprog as tp
        >>> n = tp.Width("n")
        >>> x = tp.Vector("x", n)
        >>> tp.limit(tp.Program(q=tp.moment(tp.residual(lambda y: tp.dense("W", tp.relu(y), n), x) ** 2)))
        q = 3/2 (exact)

    Source: He et al. 2016.
    """
    return x + (block(x) if isinstance(scale, int) and scale == 1 else scale * block(x))
