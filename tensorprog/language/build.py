"""The functions users call: Moments, axes, OuterNonlin, matrices; with those of `activations.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from tensorprog.errors import MissingAxis, TensorProgramError
from tensorprog.language import activations, algebra
from tensorprog.language.activations import *  # noqa: F403
from tensorprog.language.deferred import layer
from tensorprog.language.describe import describe
from tensorprog.language.differences import increment
from tensorprog.language.expression import Expression, align, as_expression, part
from tensorprog.language.leaves import Vector
from tensorprog.language.node import Node
from tensorprog.language.symbols import MatrixSpec, Width, check_name, numbers

__all__ = [
    "array", "backward", "divided_difference", "dot", "forward", "matrix", "mean", "moment", "outer", "pick", "rename", "softmax",
    "stack", "sum", "take", "vectors", *[name for name in activations.__all__ if name != "check_domain"],
]  # fmt: skip


# ---- scalars ----


@layer
def moment(x: Any) -> Expression:
    """The Moment of a vector: (1/n) times the sum of its coordinates, a scalar for every position of its axes.

    Example:
        >>> import tensorprog as tp
        >>> x = tp.Vector("x", tp.Width("n"), mean=2)
        >>> tp.limit(tp.Program(m=tp.moment(x * x)))
        m = 5 (exact)
    """
    x = as_expression(x)
    if x.is_matrix:
        raise TensorProgramError(
            f"the Moment of the matrix {describe(x.node)}",
            why="a Moment is the mean over the coordinates of a vector; two coordinates there are inside an OuterNonlin, too",
            fix="multiply a vector by the matrix first, M @ x; take Moments outside of tp.outer",
        )
    if x.node.inner is not None:
        raise TensorProgramError("a Moment inside an OuterNonlin", fix="take it outside of tp.outer")
    return Expression(algebra.moment(x.node), x.names, x.axes)


@layer
def dot(x: Any, y: Any) -> Expression:
    """x.y/n, a scalar: `moment(x * y)`.

    Example:
        >>> import tensorprog as tp
        >>> x = tp.Vector("x", tp.Width("n"), var=3)
        >>> tp.limit(tp.Program(q=tp.dot(x, x)))
        q = 3 (exact)
    """
    return moment(as_expression(x) * y)


@layer
def backward(x: Any) -> Expression:
    """The product W @ x, or W.T @ y, as one of back-propagation: under gradient independence W is an independent copy there.

    Args:
        x: A product of a matrix and a vector. Without this mark `W.T @ y` is taken for back-propagation, `W @ x` is not.

    Raises:
        TensorProgramError: It is no product.

    Example:
        >>> import tensorprog as tp
        >>> n = tp.Width("n")
        >>> W, x = tp.Matrix("W", n, n), tp.Vector("x", n, mean=1, var=0)
        >>> print(tp.Program(q=tp.moment(tp.backward(W @ tp.forward(W.T @ x)))))
        width n
        matrix W : n x n, var 1
        vector x : n, mean 1, var 0
        g1 = MatMul(W.T, x, forward)
        g2 = MatMul(W, g1, backward)
        c3 = Moment(g2)
        output q = c3

    Source: Tensor Programs II, section 5.
    """
    return _marked(x, True)


@layer
def forward(x: Any) -> Expression:
    """The product W @ x, or W.T @ y, as one of the forward pass, which gradient independence leaves alone; see `backward`."""
    return _marked(x, False)


def _marked(x: Any, back: bool) -> Expression:
    x = as_expression(x)
    y, factors = x.node, list[tuple[Node, int]]()
    while y.op == "mul" or (y.op == "add" and len(y.args) == 1):  # a multiple of a product, or one spread over axes
        if y.op == "add":
            factors, y = [*factors, (algebra.constant(y.attr[0]), 1)], y.args[0]
        else:
            products = [a for a, k in zip(y.args, y.attr, strict=True) if k == 1 and not a.is_scalar]
            if len(products) != 1 or any(not a.is_scalar for a in y.args if a is not products[0]):
                break
            factors += [(a, k) for a, k in zip(y.args, y.attr, strict=True) if a is not products[0]]
            (y,) = products
    if y.op not in ("matmul", "apply") or y.width != x.node.width:
        raise TensorProgramError(
            f"{describe(x.node)} is marked as a product",
            why="only a product of a matrix and a vector is one of the forward or of the backward pass",
            fix="write tp.backward(W @ dx), tp.forward(W.T @ y)",
            source=x.node.source,
        )
    if y.op == "matmul":
        node = algebra.matmul(y.attr.matrix, y.attr.transposed, y.args[0], back)
    else:
        node = algebra.apply(y.args[0], y.attr.transposed, y.args[1], back)
    node = algebra.mul([*factors, node])
    return Expression(algebra.typed(node, x.node.shape, x.width, None), x.names, x.axes, x.in_body)


def array(values: Any, axes: str | Sequence[str]) -> Expression:
    """Numbers with named axes, as a scalar of the program.

    Example:
        >>> import tensorprog as tp
        >>> tp.array([[1, 2], [3, 4]], axes=("i", "j")).shape
        (2, 2)
    """
    names = (axes,) if isinstance(axes, str) else tuple(axes)
    a, shape = numbers(values, "an array"), np.shape(values)
    if len(shape) != len(names) or len(set(names)) != len(names):
        raise TensorProgramError(f"an array of shape {shape} is given the axes {names}", fix="name every axis once")
    return Expression(algebra.constant(a, shape), names)


# ---- axes ----


def position(x: Expression, axis: str) -> int:
    """Where an axis is in the node of an expression."""
    if axis not in x.names:
        error = MissingAxis(
            f"{describe(x.node)} has no axis {axis!r}", why=f"its axes are {x.axes or 'none'}", fix="name one of them"
        )
        error.axis = axis
        raise error
    return x.names.index(axis)


def size_of(x: Any, axis: str) -> int:
    """The size of an axis of an expression, or of data."""
    if hasattr(x, "size") and hasattr(x, "taken"):
        return int(x.size(axis))
    x = as_expression(x)
    return x.node.shape[position(x, axis)]


def _without(names: Sequence[str], axis: str) -> tuple[str, ...]:
    return tuple([a for a in names if a != axis])


@layer
def take(x: Any, axis: str, index: int) -> Expression:
    """One position of an axis, which is dropped; negative positions count from the end. Of an Input, too.

    Example:
        >>> import tensorprog as tp
        >>> z = tp.Vector("z", tp.Width("n"), axes={"t": 3})
        >>> tp.take(z, "t", -1).axes
        ()
    """
    size = size_of(x, axis)
    if not isinstance(index, (int, np.integer)):
        raise TensorProgramError(f"position {index!r} of axis {axis!r}", fix="a position is an integer")
    index = int(index)
    if not -size <= index < size:
        raise TensorProgramError(
            f"position {index} of axis {axis!r}, which has size {size}", fix=f"use {-size} to {size - 1}"
        )
    if hasattr(x, "taken"):
        return x.taken(axis, index % size)
    x = as_expression(x)
    i = position(x, axis)
    return Expression(algebra.take(x.node, i, index % size), _without(x.names, axis), _without(x.axes, axis), x.in_body)


@layer
def pick(x: Any, axis: str, index: Sequence[int]) -> Expression:
    """Positions of an axis in any order, with repeats and omissions: y[.., i, ..] = x[.., index[i], ..].

    Shifts, slices, strides, patches. The axis keeps its name and gets the size len(index). For padding, pick some valid
    position and multiply it by a mask of zeros and ones.

    Args:
        x: A vector or a scalar with that axis.
        axis: The axis.
        index: Integers; negative ones count from the end.

    Raises:
        TensorProgramError: if x has no such axis, it has no such position, or the index is empty or not of integers.

    Example:
        >>> import tensorprog as tp
        >>> z = tp.Vector("z", tp.Width("n"), axes={"t": 5}, mean=[0, 1, 2, 3, 4])
        >>> shift, part, stride = [4, 0, 1, 2, 3], range(1, 4), range(0, 5, 2)
        >>> [tp.limit(tp.Program(m=tp.moment(tp.pick(z, "t", i))))["m"].value.tolist() for i in (shift, part, stride)]
        [[4, 0, 1, 2, 3], [1, 2, 3], [0, 2, 4]]
        >>> left = tp.array([0, 1, 1, 1, 1], "t") * tp.pick(z, "t", shift)  # padded with a zero
        >>> tp.limit(tp.Program(m=tp.moment(left)))["m"].value.tolist()
        [0, 0, 1, 2, 3]
    """
    size = size_of(x, axis)
    if np.ndim(index) != 1 or not np.size(index):
        raise TensorProgramError(
            f"axis {axis!r} is picked at {index!r}",
            fix="give a sequence of at least one integer: one for each position",
        )
    positions = []
    for k in index:
        if not isinstance(k, (int, np.integer)) or isinstance(k, bool):
            raise TensorProgramError(f"position {k!r} of axis {axis!r}", fix="a position is an integer")
        if not -size <= k < size:
            raise TensorProgramError(
                f"position {k} of axis {axis!r}, which has size {size}", fix=f"use {-size} to {size - 1}"
            )
        positions.append(int(k) % size)
    if hasattr(x, "picked"):
        return x.picked(axis, tuple(positions))
    x = as_expression(x)
    return Expression(algebra.pick(x.node, position(x, axis), positions), x.names, x.axes, x.in_body)


@layer
def stack(xs: Sequence[Any], axis: str) -> Expression:
    """Expressions along a new axis, which comes first.

    Example:
        >>> import tensorprog as tp
        >>> n = tp.Width("n")
        >>> tp.stack([tp.Vector("x", n), tp.Vector("y", n)], "t").shape
        (2,)
    """
    if isinstance(xs, (list, tuple)) and xs and all(hasattr(x, "concatenated") and axis not in x.axes for x in xs):
        return xs[0].concatenated(xs[1:], axis)
    parts = [part(x) if isinstance(x, MatrixSpec) else as_expression(x) for x in xs]
    if not parts:
        raise TensorProgramError(f"an empty stack along {axis!r}", fix="give at least one vector")
    for p in parts:
        if axis in p.axes:
            raise TensorProgramError(f"{describe(p.node)} already has an axis {axis!r}", fix="choose another name")
    widths = {p.width for p in parts if p.width is not None}
    if len(widths) > 1 or len({p.node.inner for p in parts}) > 1:
        raise TensorProgramError(
            f"vectors of widths {', '.join(sorted(w.name for w in widths))} are stacked",
            why="vectors of different widths never meet",
            fix="stack vectors of one width",
        )
    nodes, names, axes = align(parts)
    in_body = any(p.in_body for p in parts)
    return Expression(algebra.stack(nodes, 0), (axis, *names), (axis, *axes), in_body)


@layer
def rename(x: Any, **names: str) -> Expression:
    """The same random vectors under other axis names: `rename(x, t="s")`.

    Example:
        >>> import tensorprog as tp
        >>> z = tp.Vector("z", tp.Width("n"), axes={"t": 3})
        >>> tp.moment(z * tp.rename(z, t="s")).shape
        (3, 3)
    """
    if hasattr(x, "renamed"):
        return x.renamed(names)
    x = as_expression(x)
    for old in names:
        position(x, old)
    order = tuple([names.get(a, a) for a in x.names])
    if len(set(order)) != len(order):
        raise TensorProgramError(f"renaming the axes of {describe(x.node)} gives {order}", fix="use distinct names")
    return Expression(x.node, order, [names.get(a, a) for a in x.axes], x.in_body)


@layer
def sum(x: Any, axis: str | Sequence[str] | None = None) -> Expression:
    """The contraction of one or several axes; all of them by default (over the width, use `moment`).

    Example:
        >>> import tensorprog as tp
        >>> z = tp.Vector("z", tp.Width("n"), axes={"t": 3})
        >>> tp.limit(tp.Program(q=tp.moment(tp.sum(z, "t") ** 2)))
        q = 3 (exact)
    """
    x = as_expression(x)
    for a in x.axes if axis is None else (axis,) if isinstance(axis, str) else axis:
        x = Expression(algebra.sum_axis(x.node, position(x, a)), _without(x.names, a), _without(x.axes, a), x.in_body)
    return x


@layer
def mean(x: Any, axis: str | Sequence[str] | None = None) -> Expression:
    """The mean over one or several axes; all of them by default (over the width, use `moment`).

    Example:
        >>> import tensorprog as tp
        >>> z = tp.Vector("z", tp.Width("n"), axes={"t": 4})
        >>> tp.limit(tp.Program(q=tp.moment(tp.mean(z, "t") ** 2)))
        q = 1/4 (exact)
    """
    x = as_expression(x)
    names = x.axes if axis is None else (axis,) if isinstance(axis, str) else tuple(axis)
    size = 1
    for a in names:
        size *= x.node.shape[position(x, a)]
    return sum(x, names) * Fraction(1, size)


@layer
def softmax(x: Any, axis: str) -> Expression:
    """exp(x) / sum exp(x) along an axis of a scalar (attention weights).

    Example:
        >>> import tensorprog as tp
        >>> tp.limit(tp.Program(p=tp.take(tp.softmax(tp.array([0.0, 0.0], "t"), "t"), "t", 0)))["p"].value
        0.5
    """
    x = as_expression(x)
    if x.width is not None or x.node.inner is not None:
        raise TensorProgramError(
            f"softmax of the vector {describe(x.node)}",
            why="it acts on scalars: attention weights are functions of Moments",
            fix="take a Moment first, such as tp.moment(q * k)",
        )
    return Expression(algebra.softmax(x.node, position(x, axis)), x.names, x.axes)


# ---- OuterNonlin and groups ----


@layer
def outer(body: Callable[..., Any], xs: Any, ys: Any) -> Expression:
    """OuterNonlin: x_a = (1/n_y) sum_b body(xs_a, ys_b), as in Tensor Programs IVb.

    Args:
        body: A Python function of the xs and the ys that uses the functions of this package; scalars may be used
            inside.
        xs: A vector, or a list of vectors of one width: the result's.
        ys: A vector, or a list of vectors of one width, averaged over.

    Example:
        >>> import tensorprog as tp
        >>> x, y = tp.Vector("x", tp.Width("n")), tp.Vector("y", tp.Width("m", 2))
        >>> z = tp.outer(lambda x, y: (x + y) ** 2, x, y)
        >>> tp.limit(tp.Program(m=tp.moment(z)))
        m = 2 (exact)
    """
    result = _body("tp.outer", body, xs, ys)
    return Expression(algebra.outer(result.node), result.names, result.axes, result.in_body)


@layer
def matrix(body: Callable[..., Any], rows: Any, cols: Any) -> Expression:
    """The matrix with the entries body(rows_a, cols_b) / n, n the number of its columns: an update of the weights, say.

    Matrices are added, and scaled by numbers and scalars, with `tp.Matrix` among them; what has no `tp.Matrix` in it is also
    the argument of any function. They multiply vectors, and do nothing else:
    `((W - eta * G) @ x)_a = (W x)_a - eta / n * sum_b body(rows_a, cols_b) x_b`.

    Args:
        body: A Python function of the rows and the cols that uses the functions of this package; scalars may be used inside.
        rows: A vector, or a list of vectors of one width: that of the rows.
        cols: A vector, or a list of vectors of one width: that of the columns.

    Example:
        >>> import tensorprog as tp
        >>> n = tp.Width("n")
        >>> W, x = tp.Matrix("W", n, n), tp.Vector("x", n)
        >>> dh = tp.Vector("dh", n)
        >>> W1 = W - tp.matrix(lambda d, h: d * h, dh, x) / 4
        >>> tp.limit(tp.Program(h=tp.moment((W1 @ x) ** 2), dx=tp.moment((W1.T @ dh) * x)))
        h = 17/16 (exact)
        dx = -1/4 (exact)

    Source: Tensor Programs IVb, section 2.3 (an OuterNonlin averages over the columns).
    """
    return _body("tp.matrix", body, rows, cols)


def _body(what: str, body: Callable[..., Any], xs: Any, ys: Any) -> Expression:
    """A function of two blocks of vectors, over both coordinates."""
    first = [as_expression(x) for x in (xs if isinstance(xs, (list, tuple)) else [xs])]
    second = [as_expression(y) for y in (ys if isinstance(ys, (list, tuple)) else [ys])]
    for e in (*first, *second):
        if e.width is None or e.node.inner is not None:
            raise TensorProgramError(
                f"{describe(e.node)} is not a vector", fix=f"{what} takes vectors; scalars go inside the body"
            )
    left = [Expression(x.node, x.names, x.axes, in_body=True) for x in first]
    right = [Expression(algebra.inner(y.node), y.names, y.axes) for y in second]
    result = body(*left, *right)
    result = part(result) if isinstance(result, MatrixSpec) else as_expression(result)
    widths, inners = {e.width for e in first}, {e.width for e in second}
    if len(widths) != 1 or len(inners) != 1:
        kind = "an OuterNonlin" if what == "tp.outer" else "a matrix"
        raise TensorProgramError(f"{kind} of vectors of different widths", fix="each of the two lists has one width")
    node = result.node
    node = algebra.typed(node, node.shape, node.width or next(iter(widths)), node.inner or next(iter(inners)))
    return Expression(node, result.names, result.axes, in_body=any(e.in_body for e in (*first, *second)))


@layer
def divided_difference(phi: Callable[..., Any], xs: Any, ds: Any, eps: Any) -> Expression:
    """The Nonlin (phi(x + eps d) - phi(x)) / eps, whose limit is the derivative of phi along d where eps tends to 0.

    Accurate for every eps, also where eps d is less than a rounding error of x; a population has the limit.

    Args:
        phi: A Python function of the xs that uses the functions of this package, continuous ones.
        xs: A vector or scalar, or a list of them.
        ds: Its increments, one for each.
        eps: A scalar, such as `tp.inverse_sqrt(n)`.

    Raises:
        TensorProgramError: phi jumps, or is no function of coordinates.

    Example:
        >>> import tensorprog as tp
        >>> n = tp.Width("n")
        >>> x, d = tp.Vector("x", n), tp.Vector("d", n)
        >>> dx = tp.divided_difference(lambda x: x**2, x, d, tp.inverse_sqrt(n))
        >>> print(tp.Program(q=tp.moment(dx * dx)))
        width n
        vector d : n, mean 0, var 1
        vector x : n, mean 0, var 1
        c1 = Moment((x*d + (x + inverse_sqrt(n)*d)*d)**2)
        output q = c1
        >>> tp.limit(tp.Program(q=tp.moment(dx * dx)))
        q = 4 (exact)

    Source: Yang and Littwin, Tensor Programs IIb (arXiv:2105.03703), section 3: what moves increments on.
    """
    first = [as_expression(x) for x in (xs if isinstance(xs, (list, tuple)) else [xs])]
    moves = [as_expression(d) for d in (ds if isinstance(ds, (list, tuple)) else [ds])]
    step = as_expression(eps)
    if len(first) != len(moves):
        raise TensorProgramError(
            f"{len(first)} arguments of a divided difference have {len(moves)} increments", fix="give one for each"
        )
    if step.width is not None or step.node.inner is not None:
        raise TensorProgramError(f"the step {describe(step.node)} of a divided difference", fix="give a scalar")
    for x, d in zip(first, moves, strict=True):
        if not set(d.axes) <= set(x.axes) or d.width not in (None, x.width):
            raise TensorProgramError(
                f"the increment {describe(d.node)} of {describe(x.node)} has axes {d.axes or 'none'}",
                why="it has no coordinates or axes that the argument lacks",
                fix=f"give the argument the same axes, or sum over them: it has {x.axes or 'none'}",
            )
    if step.axes:
        raise TensorProgramError(
            f"the step {describe(step.node)} of a divided difference has axes", fix="give one scalar"
        )
    result = as_expression(phi(*first))
    known: dict[Any, Any] = {}
    for x, d in zip(first, moves, strict=True):
        seen = algebra.view(d.node, [x.names.index(a) for a in d.names], x.node.shape) if d.names else d.node
        known[x.node] = algebra.typed(seen, x.node.shape, x.width, None)
    return Expression(increment(result.node, known, step.node), result.names, result.axes, result.in_body)


def vectors(names: Sequence[str], width: Width, mean: Any = 0, cov: Any = None) -> tuple[Expression, ...]:
    """A group of jointly Gaussian initial vectors, one for each name.

    Example:
        >>> import tensorprog as tp
        >>> u, v = tp.vectors(("u", "v"), tp.Width("n"), cov=[[1, 1], [1, 2]])
        >>> tp.limit(tp.Program(c=tp.moment(u * v)))
        c = 1 (exact)
    """
    names = [check_name(a, "a vector's name") for a in names]
    k = len(names)
    means = mean if np.ndim(mean) else [mean] * k
    covariance = np.eye(k, dtype=int) if cov is None else cov
    group = Vector("_".join(names), width, means, axes=("vector",), cov=covariance)
    return tuple([take(group, "vector", i).label(a) for i, a in enumerate(names)])
