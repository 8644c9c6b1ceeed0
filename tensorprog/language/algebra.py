"""Constructors of nodes, in normal form: every node of every program is made by one of these functions.

Elementwise ones are in `arithmetic.py`, those of axes in `positions.py`, products with matrices and Moments here. Nothing
that needs knowledge of a meaning (expectations, derivatives) happens in any of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from tensorprog.errors import TensorProgramError
from tensorprog.language.arithmetic import (
    ONE,
    ZERO,
    add,
    as_before,
    combined,
    common_type,
    constant,
    difference,
    div,
    fn,
    hyperparameter,
    initial,
    inverse_sqrt,
    is_power_of_n,
    mul,
    neg,
    not_linear,
    power,
    scale,
    sub,
    terms,
    transpose,
    typed,
    view,
    view_array,
)
from tensorprog.language.attributes import Applied, Product
from tensorprog.language.node import Node
from tensorprog.language.positions import pick, pick_transposed, softmax, stack, sum_axis, take
from tensorprog.language.symbols import MatrixSpec

__all__ = [
    "ONE",
    "ZERO",
    "add",
    "applied",
    "apply",
    "common_type",
    "constant",
    "difference",
    "div",
    "fn",
    "hyperparameter",
    "initial",
    "inner",
    "inverse_sqrt",
    "is_backward",
    "is_power_of_n",
    "matmul",
    "matrix",
    "moment",
    "mul",
    "neg",
    "outer",
    "pick",
    "pick_transposed",
    "power",
    "rebuild",
    "scale",
    "softmax",
    "spread",
    "stack",
    "sub",
    "sum_axis",
    "take",
    "terms",
    "transpose",
    "typed",
    "view",
    "view_array",
]


def matmul(of: MatrixSpec, transposed: bool, x: Node, backward: bool | None = None) -> Node:
    """W x, or W.T x.

    Args:
        of: W.
        transposed: Is it W.T?
        x: What is multiplied.
        backward: Is it a product of back-propagation? By default W.T x is, and W x is not; anything else is a mark of the
            instruction, content that gradient independence is about (`transforms/decouple.py`) and no number is.
    """
    width = of.cols if transposed else of.rows
    if x.is_zero or of.var == 0:
        return constant(0, x.shape, width)
    y = spread(x)
    if y is not None:  # the same number in every coordinate: a multiple of W 1
        one = matmul(of, transposed, constant(1, (), x.width), backward)
        return typed(mul([y, one]), x.shape, width, None)
    return Node("matmul", (x,), Product(of, transposed, _mark(transposed, backward)), x.shape, width)


def matrix(of: MatrixSpec) -> Node:
    """An initial matrix as a part of a matrix: cols times its entries, so that M x is the mean over columns of all parts."""
    return Node("matrix", (), of, (), of.rows, of.cols) if of.var else constant(0, (), of.rows, of.cols)


def apply(m: Node, transposed: bool, x: Node, backward: bool | None = None) -> Node:
    """M x, or M.T x: (M x)_a = (1/cols) sum_b M_ab x_b, (M.T y)_b = (1/cols) sum_a M_ab y_a.

    Numbers and scalars that M is a multiple of are pulled out; of an initial matrix it is `matmul`.

    Args:
        m: What has two coordinates; of the shape of x, or one of them has none.
        transposed: Is it M.T?
        x: What is multiplied.
        backward: As for `matmul`.
    """
    width = m.inner if transposed else m.width
    shape = m.shape or x.shape
    if m.is_zero or x.is_zero:
        return constant(0, shape, width)
    y = spread(x)
    if y is not None:
        one = apply(m, transposed, constant(1, (), x.width), backward)
        return typed(mul([y, one]), shape, width, None)
    if m.op == "matrix":
        return matmul(m.attr, transposed, x, backward)
    if m.op == "add" and len(m.args) == 1 and m.args[0].width and m.args[0].inner:
        return typed(scale(m.attr[0], apply(m.args[0], transposed, x, backward)), shape, width, None)
    if m.op == "mul" and m.has_matrix:
        (rest,) = [a for a in m.args if a.has_matrix]
        scalars = [(a, k) for a, k in zip(m.args, m.attr, strict=True) if a is not rest]
        return typed(mul([*scalars, apply(rest, transposed, x, backward)]), shape, width, None)
    return Node("apply", (m, x), Applied(transposed, _mark(transposed, backward)), shape, width)


def _mark(transposed: bool, backward: bool | None) -> str:
    return "" if backward in (None, transposed) else ("backward" if backward else "forward")


def is_backward(x: Node) -> bool:
    """Is this product one of back-propagation: marked so, or W.T y without a mark?"""
    return x.attr.mark == "backward" if x.attr.mark else bool(x.attr.transposed)


def moment(x: Node) -> Node:
    """The mean over the width."""
    if x.op == "constant":
        return typed(constant(x.attr), x.shape, None, None)
    y = spread(x)
    if y is not None:
        return typed(y, x.shape, None, None)
    return Node("moment", (x,), None, x.shape) if x.width is not None else x


def spread(x: Node) -> Node | None:
    """The scalar that a vector is in every coordinate, where it was made by spreading one; else None."""
    if x.op == "add" and len(x.args) == 1 and x.args[0].width is None and x.width is not None:
        return scale(x.attr[0], x.args[0])
    return None


def inner(y: Node) -> Node:
    """y over the second coordinate of an OuterNonlin."""
    return Node("inner", (y,), None, y.shape, None, y.width)


def outer(body: Node) -> Node:
    """OuterNonlin: the mean of the body over its second coordinate."""
    if body.has_matrix:
        raise not_linear(body, "is the body of an OuterNonlin")
    return Node("outer", (body,), None, body.shape, body.width)


def applied(x: Node, args: Sequence[Node]) -> Node:
    """The operation of x on other operands, in normal form; the type is what the operands make it."""
    match x.op:
        case "add":
            return add(list(zip(x.attr, args, strict=True)))
        case "mul":
            return mul(list(zip(args, x.attr, strict=True)))
        case "fn":
            return fn(x.attr.name, args[0], *x.attr.parameters)
        case "difference":
            return difference(x.attr.name, args[0], args[1], args[2], *x.attr.parameters)
        case "view":
            return view(args[0], x.attr, x.shape)
        case "take":
            return take(args[0], *x.attr)
        case "pick":
            return pick(args[0], *x.attr)
        case "stack":
            return stack(args, x.attr)
        case "sum":
            return sum_axis(args[0], x.attr)
        case "softmax":
            return softmax(args[0], x.attr)
        case "matmul":
            return matmul(x.attr.matrix, x.attr.transposed, args[0], is_backward(x))
        case "apply":
            return apply(args[0], x.attr.transposed, args[1], is_backward(x))
        case "moment":
            return moment(args[0])
        case "inner":
            return inner(args[0])
        case "outer":
            return outer(args[0])
        case _:
            if args:
                raise TensorProgramError(f"no rule rebuilds {x.op!r}", fix="please report this")
            return x


def rebuild(x: Node, args: Sequence[Node], shape: tuple[int, ...] | None = None) -> Node:
    """The same instruction on other operands, in normal form; for sums, products and primitives over another shape, if given."""
    if x.op in ("add", "mul"):
        return combined(x, args, x.shape if shape is None else shape)
    out = applied(x, args)
    if x.op in ("fn", "difference"):
        out = typed(out, x.shape if shape is None else shape, x.width, x.inner)
    return as_before(x, out)
