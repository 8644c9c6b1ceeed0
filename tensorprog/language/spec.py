"""What a legal graph is: one table of every operation, in every language that is made of nodes.

A program, its Z-program, the scalar program, an integrand and the blocks of a kernel are graphs of the same nodes. A row of
`SPEC` says which of these *dialects* an operation belongs to, how many operands it has, what its attribute is, and what its
type must be, given those of its operands. `check` looks at a graph after a stage, in tests: a pass that makes an illegal node
is found where it makes it, and not where a later one stumbles.

| dialect | what it is | types |
|---|---|---|
| program | what a user writes | vectors over `width`, scalars, bodies of OuterNonlins over `width` and `inner` |
| z | what `limits/expect/lower.py` makes of it | the same, of Gaussian leaves |
| scalar | what `limits/expect/expectation.py` makes of a Moment | arrays |
| integrand | a body of an integral, in its variables and parameters | numbers |
| blocks | the scalar program of a pair of examples, for all pairs | arrays; `width` says that there are rows, `inner` columns |
| run | a program with the instructions that run its matrices (`execute/factors.py`) | as in programs |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from typing import Any

import numpy as np

from tensorprog.language.attributes import Applied, Call, Hyperparameter, InnerProducts, Pick, Product, Take
from tensorprog.language.functions import PRIMITIVES
from tensorprog.language.node import Node, topological
from tensorprog.language.symbols import MatrixSpec, VectorSpec, Width

__all__ = ["SPEC", "Dialect", "IllegalNode", "Row", "check"]


class Dialect(Enum):
    """A language that is made of nodes."""

    PROGRAM = "program"
    Z = "z"
    SCALAR = "scalar"
    INTEGRAND = "integrand"
    BLOCKS = "blocks"
    RUN = "run"


PROGRAM, Z, SCALAR, INTEGRAND, BLOCKS, RUN = Dialect
Type = tuple[tuple[int, ...], Width | None, Width | None]


class IllegalNode(AssertionError):
    """A node that its dialect does not have, or that contradicts its row: a fault of the pass that made it."""


@dataclass(frozen=True)
class Row:
    """One operation.

    Attributes:
        dialects: Where it may stand.
        operands: The least and the largest number of its operands; None for any.
        attribute: Is this its attribute? Called with the node.
        type: Is its type what its operands make it? Called with the node.
        meaning: In words.
    """

    dialects: frozenset[Dialect]
    operands: tuple[int, int | None]
    attribute: Callable[[Node], bool]
    type: Callable[[Node], bool]
    meaning: str


# ---- attributes ----


def _is_number(c: Any) -> bool:
    return isinstance(c, (int, float, Fraction)) and not isinstance(c, bool)


def _is_constant(x: Node) -> bool:
    return _is_number(x.attr) or isinstance(x.attr, np.ndarray)


def _is_hyperparameter(x: Node) -> bool:
    name, default = x.attr
    return (
        isinstance(x.attr, Hyperparameter)
        and isinstance(name, str)
        and (default is None or _is_number(default) or isinstance(default, np.ndarray))
    )


def _is_product(x: Node) -> bool:
    return isinstance(x.attr, Product) and isinstance(x.attr.matrix, MatrixSpec) and _is_marked(x.attr)


def _is_use(x: Node) -> bool:
    return isinstance(x.attr, Applied) and _is_marked(x.attr)


def _is_marked(use: Product | Applied) -> bool:
    return isinstance(use.transposed, bool) and use.mark in ("", "forward", "backward")


def _are_coefficients(x: Node) -> bool:
    return isinstance(x.attr, tuple) and len(x.attr) == len(x.args) and all(map(_is_number, x.attr))


def _are_exponents(x: Node) -> bool:
    return len(x.attr) == len(x.args) and all(isinstance(k, int) and k >= 1 for k in x.attr)


def _is_primitive(x: Node) -> bool:
    name, parameters = x.attr
    row = PRIMITIVES.get(name)
    return (
        isinstance(x.attr, Call)
        and row is not None
        and len(parameters) == len(row.parameters)
        and all(map(_is_number, parameters))
    )


def _are_places(x: Node) -> bool:
    return len(x.attr) == len(x.args[0].shape) and all(0 <= p < len(x.shape) for p in x.attr)


def _is_position(x: Node) -> bool:
    axis, index = x.attr
    return isinstance(x.attr, Take) and 0 <= axis < len(x.args[0].shape) and 0 <= index < x.args[0].shape[axis]


def _are_positions(x: Node) -> bool:
    axis, index = x.attr
    shape = x.args[0].shape
    return (
        isinstance(x.attr, Pick)
        and 0 <= axis < len(shape)
        and len(index) > 0
        and all(0 <= i < shape[axis] for i in index)
    )


def _is_axis(x: Node) -> bool:
    return isinstance(x.attr, int) and 0 <= x.attr < max(len(x.args[0].shape), len(x.shape))


def _nothing(x: Node) -> bool:
    return x.attr is None


def _anything(x: Node) -> bool:
    return True


def _is(kind: type) -> Callable[[Node], bool]:
    return lambda x: isinstance(x.attr, kind)


# ---- types ----


def _type(x: Node) -> Type:
    return x.shape, x.width, x.inner


def _spread(x: Node) -> bool:
    """Numbers are spread over any axes and coordinates, arrays over axes before theirs."""
    have = np.shape(x.attr)
    return x.shape[len(x.shape) - len(have) :] == have


def _elementwise(x: Node) -> bool:
    """Operands have the result's axes or none, its coordinates or none."""
    return all(a.shape in ((), x.shape) and a.width in (None, x.width) and a.inner in (None, x.inner) for a in x.args)


def _array(x: Node) -> bool:
    return x.width is None and x.inner is None


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]


def _over_shape(shape: Callable[[Node], tuple[int, ...]]) -> Callable[[Node], bool]:
    """The coordinates of the operands, and axes that follow from theirs."""
    return lambda x: x.shape == shape(x) and all((a.width, a.inner) == (x.width, x.inner) for a in x.args)


def _stacked(x: Node) -> bool:
    """In blocks some positions may depend on rows and others not."""
    shape = x.args[0].shape
    return x.shape == (*shape[: x.attr], len(x.args), *shape[x.attr :]) and all(
        a.shape == shape and a.width in (None, x.width) and a.inner in (None, x.inner) for a in x.args
    )


def _family(x: Node) -> bool:
    return x.shape[0] == len(x.args) and all(
        a.shape in ((), x.shape[1:]) and (a.width, a.inner) == (x.width, x.inner) for a in x.args
    )


def _viewed(x: Node) -> bool:
    (a,) = x.args
    return (a.width, a.inner) == (x.width, x.inner) and all(
        x.shape[p] == k for p, k in zip(x.attr, a.shape, strict=True)
    )


def _multiplied(x: Node) -> bool:
    matrix, transposed, _ = x.attr
    rows, cols = (matrix.cols, matrix.rows) if transposed else (matrix.rows, matrix.cols)
    return _type(x) == (x.args[0].shape, rows, None) and x.args[0].inner is None and x.args[0].width in (None, cols)


def _applied(x: Node) -> bool:
    """M x or M.T x, either with the axes of the other or with none."""
    m, y = x.args
    rows, cols = (m.inner, m.width) if x.attr.transposed else (m.width, m.inner)
    shapes = {m.shape, y.shape} - {()}
    return len(shapes) <= 1 and _type(x) == (m.shape or y.shape, rows, None) and y.width in (None, cols) and not y.inner


def _matrix(x: Node) -> bool:
    return _type(x) == ((), x.attr.rows, x.attr.cols)


def _both(x: Node) -> bool:
    return x.width is not None and x.inner is not None


def _mean(x: Node) -> bool:
    (a,) = x.args
    return a.width is not None and a.inner is None and _type(x) == (a.shape, None, None)


def _moved(x: Node) -> bool:
    (a,) = x.args
    return a.width is not None and a.inner is None and _type(x) == (a.shape, None, a.width)


def _averaged(x: Node) -> bool:
    (a,) = x.args
    return a.inner is not None and _type(x) == (a.shape, a.width, None)


def _initial(x: Node) -> bool:
    return _type(x) == (x.attr.shape, x.attr.width, None)


def _number(x: Node) -> bool:
    return _type(x) == ((), None, None)


_EVERYWHERE = frozenset(Dialect)
_WITH_AXES = frozenset({PROGRAM, Z, SCALAR, BLOCKS, RUN})


def _row(dialects: Iterable[Dialect], operands: Any, attribute: Any, type: Any, meaning: str) -> Row:
    low, high = operands if isinstance(operands, tuple) else (operands, operands)
    return Row(frozenset(dialects), (low, high), attribute, type, meaning)


SPEC: dict[str, Row] = {
    # leaves
    "constant": _row(_EVERYWHERE, 0, _is_constant, _spread, "a number, or an array of them, the same in every coordinate"),
    "scalar": _row(_WITH_AXES, 0, _is_hyperparameter, _array, "a hyperparameter"),
    "inverse_sqrt": _row({PROGRAM, RUN}, 0, _is(Width), _number, "width**-1/2"),
    "vector": _row({PROGRAM, RUN}, 0, _is(VectorSpec), _initial, "an initial vector"),
    "leaf": _row({Z}, 0, _is(VectorSpec), _initial, "the centred Gaussian of an initial vector"),
    "data": _row(_WITH_AXES, 0, _is(InnerProducts), _anything, "inner products or coefficients of data not known yet"),
    "array": _row({SCALAR}, 0, _is(tuple), _array, "an array that a formula has a name for"),
    "var": _row({INTEGRAND}, 0, _is(int), _number, "a Gaussian variable of an integral"),
    "param": _row({INTEGRAND}, 0, _is(int), _number, "a number an integrand depends on"),
    # what is elementwise
    "add": _row(_EVERYWHERE, (1, None), _are_coefficients, _elementwise, "a sum of multiples"),
    "mul": _row(_EVERYWHERE, (1, None), _are_exponents, _elementwise, "a product of powers"),
    "fn": _row(_EVERYWHERE, 1, _is_primitive, _elementwise, "a primitive function"),
    "difference": _row({PROGRAM, RUN}, 3, _is_primitive, _elementwise, "a divided difference of a primitive"),
    # what is structure
    "view": _row(_WITH_AXES, 1, _are_places, _viewed, "axes placed in a larger shape"),
    "take": _row(_WITH_AXES, 1, _is_position, _over_shape(lambda x: _without(x.args[0].shape, x.attr.axis)), "one position"),
    "pick": _row(
        _WITH_AXES, 1, _are_positions,
        _over_shape(lambda x: (*x.args[0].shape[: x.attr.axis], len(x.attr.positions), *x.args[0].shape[x.attr.axis + 1 :])),
        "positions of an axis",
    ),
    "stack": _row(_WITH_AXES, (1, None), _is_axis, _stacked, "a new axis"),
    "sum": _row(_WITH_AXES, 1, _is_axis, _over_shape(lambda x: _without(x.args[0].shape, x.attr)), "one axis contracted"),
    "softmax": _row(_WITH_AXES, 1, _is_axis, _over_shape(lambda x: x.args[0].shape), "exp(x) / sum exp(x)"),
    # instructions
    "matmul": _row({PROGRAM, RUN}, 1, _is_product, _multiplied, "W x or W.T x"),
    "matrix": _row({PROGRAM, RUN}, 0, _is(MatrixSpec), _matrix, "an initial matrix as a part of one"),
    "apply": _row({PROGRAM, RUN}, 2, _is_use, _applied, "M x or M.T x of what has two coordinates"),
    "hat": _row({Z}, 1, _is_product, _multiplied, "the Gaussian part of W x"),
    "moment": _row({PROGRAM, RUN}, 1, _nothing, _mean, "the mean over the width"),
    "inner": _row({PROGRAM, Z, RUN}, 1, _nothing, _moved, "over the second coordinate"),
    "outer": _row({PROGRAM, Z, RUN}, 1, _nothing, _averaged, "the mean over the second coordinate"),
    "family": _row({Z}, (1, None), lambda x: x.attr == 0, _family, "vectors made alike, along an axis in front"),
    # matrices of a run
    "factors": _row({RUN}, 2, _nothing, _both, "left_a right_b"),
    "entries": _row({RUN}, 1, _nothing, _both, "an array over rows and columns"),
    "combine": _row({RUN}, (1, None), _are_coefficients, _both, "a sum of multiples of matrices"),
    "scaled": _row({RUN}, 3, _nothing, _both, "left_a M_ab right_b"),
    "moved": _row({RUN}, (1, None), _is(tuple), _both, "a view, take, pick, sum or stack of matrices"),
    # closed forms and integrals
    "dual": _row({SCALAR, INTEGRAND, BLOCKS}, (1, None), _is(str), _anything, "a named closed form"),
    "gauss": _row({SCALAR, BLOCKS}, (2, None), lambda x: hasattr(x.attr, "dimension"), _anything, "an integral"),
    "guard": _row({SCALAR, BLOCKS}, (4, None), lambda x: hasattr(x.attr, "dimension"), _anything,
                  "a closed form that may cancel, with its size and its integral"),
    "laplace": _row({SCALAR}, (1, None), lambda x: callable(x.attr), _array, "a tilted law"),
    "turned": _row({SCALAR, BLOCKS}, 1, _nothing, _anything, "an array transposed once for all tiles"),
    "stencil": _row({BLOCKS}, (1, None), _anything, _anything, "a sum of shifted copies of one array"),
}  # fmt: skip


def check(outputs: Iterable[Node], dialect: Dialect) -> list[Node]:
    """Looks at every node that the outputs are made of.

    Args:
        outputs: Of a stage.
        dialect: Its language.

    Returns:
        The nodes, operands first.

    Raises:
        IllegalNode: naming the node and what is wrong with it.

    Example:
        >>> from tensorprog.language.algebra import constant, fn
        >>> len(check([fn("relu", constant(0.5))], Dialect.PROGRAM))
        2
    """
    nodes = topological(outputs)
    for x in nodes:
        row = SPEC.get(x.op)
        if row is None:
            raise IllegalNode(f"{x!r}: no operation of the table")
        low, high = row.operands
        if dialect not in row.dialects:
            raise IllegalNode(f"{x!r}: no operation of the dialect {dialect.value}")
        if not (low <= len(x.args) <= (len(x.args) if high is None else high)):
            raise IllegalNode(f"{x!r}: {len(x.args)} operands")
        if not row.attribute(x):
            raise IllegalNode(f"{x!r}: the attribute {x.attr!r}")
        if not row.type(x):
            raise IllegalNode(f"{x!r}: of operands {list(x.args)} with the attribute {x.attr!r}")
    return nodes
