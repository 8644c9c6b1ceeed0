"""What users hold: nodes with axis names and operators. Everything is checked here, where the user's line is known."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from tensorprog.errors import Source, TensorProgramError, caller
from tensorprog.language import algebra
from tensorprog.language.deferred import Deferred, has_deferred, layer
from tensorprog.language.describe import describe
from tensorprog.language.functions import PRIMITIVES
from tensorprog.language.node import Node
from tensorprog.language.symbols import (
    MatrixSpec,
    Width,
    check_name,
    number,
)

__all__ = [
    "Expression",
    "NoArithmetic",
    "Transposed",
    "align",
    "as_expression",
    "elementwise",
    "part",
    "product",
]


class NoArithmetic:
    """What a matrix and its transpose are not: numbers."""

    def _refused(self, *_: Any, **__: Any) -> Any:
        raise TensorProgramError(
            f"{self!r} is used like numbers",
            why="a program adds and scales matrices and multiplies vectors by them; a transpose only multiplies",
            fix="write (2 * W).T @ y for 2 * W.T, A.T @ y + B @ y for A.T + B; functions are for tp.matrix(...) alone",
        )

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refused
    __pow__ = __rpow__ = __neg__ = __pos__ = __abs__ = __rmatmul__ = __getitem__ = __len__ = __iter__ = _refused
    __lt__ = __le__ = __gt__ = __ge__ = __array_ufunc__ = _refused

    def __bool__(self) -> bool:  # without it, truth would be asked of __len__
        return True


@dataclass(frozen=True)
class Transposed(NoArithmetic):
    """The transpose of a matrix, for `W.T @ y`."""

    matrix: MatrixSpec | Expression

    @property
    def T(self) -> MatrixSpec | Expression:
        """The matrix itself."""
        return self.matrix

    def __matmul__(self, y: Expression) -> Expression:
        return product(self.matrix, True, y)

    def __repr__(self) -> str:
        return f"{self.matrix!r}.T"


class Expression:
    """A vector, multi-vector, matrix or scalar of a program under construction.

    Use Python's operators, `W @ x`, and the functions of this package. Axes are matched by name; the rest broadcasts.

    Attributes:
        node: The instruction that computes it.
        names: The names of the node's axes, by their positions there.
        axes: The same names in the order in which the user sees them, and arrays have them.
        in_body: Is it over a pair of coordinates, in the body of an OuterNonlin or of a matrix, where a vector has the first?
    """

    __slots__ = ("axes", "in_body", "names", "node")

    def __init__(
        self, node: Node, names: Sequence[str] = (), axes: Sequence[str] | None = None, in_body: bool = False
    ) -> None:
        self.node = node
        self.in_body = in_body or (node.width is None and node.inner is not None)
        self.names = tuple(names)
        self.axes = tuple(axes) if axes is not None else self.names
        if node.source is None:
            _place(node, caller())

    # ---- description ----
    @property
    def width(self) -> Width | None:
        """The width it has coordinates over, of a matrix that of its rows; None for a scalar."""
        return self.node.width

    @property
    def is_matrix(self) -> bool:
        """Has it two coordinates: is it a sum of initial matrices and of `tp.matrix(...)`?"""
        return self.node.width is not None and self.node.inner is not None

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of `axes`."""
        return tuple([self.node.shape[self.names.index(a)] for a in self.axes])

    def label(self, name: str) -> Expression:
        """Gives it a name for listings and error messages; returns it."""
        self.node.label = check_name(name, "a label")
        return self

    def aligned_node(self) -> Node:
        """The node with its axes in the user's order."""
        node = algebra.transpose(self.node, [self.names.index(a) for a in self.axes])
        _place(node, self.node.source)
        return node

    def __repr__(self) -> str:
        kind = "scalar" if self.width is None else f"vector of width {self.width.name}"
        if self.is_matrix:
            kind = f"matrix {self.node.width.name} x {self.node.inner.name}"  # type: ignore[union-attr]
        axes = "".join([f", {a}: {k}" for a, k in zip(self.axes, self.shape, strict=True)])
        return f"<{describe(self.node)}: {kind}{axes}>"

    def __bool__(self) -> bool:
        raise TensorProgramError(
            "a Tensor Program cannot branch on a value", why="programs are straight-line", fix="use tp.step or tp.relu"
        )

    def __iter__(self) -> Any:
        raise TensorProgramError(f"{describe(self.node)} cannot be iterated", fix='use tp.take(x, "axis", i)')

    def __getitem__(self, index: Any) -> Any:
        raise TensorProgramError(
            f"{describe(self.node)} is indexed",
            why="axes have names, and the coordinates of a vector are not seen one by one",
            fix='use tp.take(x, "axis", i)',
        )

    def __len__(self) -> int:
        raise TensorProgramError(f"the len of {describe(self.node)}", fix="use x.shape, the sizes of its axes")

    @property
    def T(self) -> Any:
        """Of a matrix, for `M.T @ y`; no vector has a transpose."""
        if self.is_matrix:
            return Transposed(self)
        raise TensorProgramError(
            f"{describe(self.node)} is transposed", fix="write tp.dot(x, y) for x.y/n; only a tp.Matrix has a transpose"
        )

    def _compared(self, other: Any) -> Any:
        raise TensorProgramError(
            f"{describe(self.node)} is compared",
            why="a value is not known before the program runs",
            fix="use tp.step(x - y), which is 1 where x > y and 0 where x < y",
        )

    __lt__ = __le__ = __gt__ = __ge__ = _compared

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **settings: Any) -> Any:
        """NumPy's operators, with a number or an array on the left, are ours; its functions have names here."""
        if ufunc in _OPERATORS and method == "__call__" and not settings:
            left, right = inputs
            left = part(left) if isinstance(left, MatrixSpec) else left
            if ufunc is np.matmul and not isinstance(left, Expression):
                raise TensorProgramError(
                    f"an array of shape {np.shape(left)} multiplies {describe(self.node)}",
                    why="the coordinates of a vector are as many as its width, which tends to infinity",
                    fix="multiply by a random matrix, tp.Matrix; along an axis, tp.sum(tp.array(a, axes=..) * x, axis)",
                )
            return _OPERATORS[ufunc](left if isinstance(left, Expression) else as_expression(left), right)
        if ufunc in (np.equal, np.not_equal):  # as ours: identity
            return (inputs[0] is inputs[1]) == (ufunc is np.equal)
        if ufunc in _COMPARISONS:
            return self._compared(None)
        name = {"absolute": "abs"}.get(ufunc.__name__, ufunc.__name__)
        raise TensorProgramError(
            f"NumPy's {ufunc.__name__} is applied to {describe(self.node)}",
            why="it is an instruction, not numbers",
            fix=f"use tp.{name}" if name in PRIMITIVES else "use the functions of tensorprog, or tp.Function",
        )

    # ---- arithmetic ----
    def __add__(self, other: Any) -> Expression:
        _check_terms(self, other)
        return elementwise(lambda x, y: algebra.add([(1, x), (1, y)]), self, other)

    def __radd__(self, other: Any) -> Expression:
        _check_terms(self, other)
        return elementwise(lambda x, y: algebra.add([(1, x), (1, y)]), other, self)

    def __sub__(self, other: Any) -> Expression:
        _check_terms(self, other)
        return elementwise(algebra.sub, self, other)

    def __rsub__(self, other: Any) -> Expression:
        _check_terms(self, other)
        return elementwise(algebra.sub, other, self)

    def __mul__(self, other: Any) -> Expression:
        if isinstance(other, Deferred):  # of a readout, perhaps
            return Deferred(operator.mul, (self, other))  # type: ignore[return-value]
        if getattr(other, "is_output", False):
            return NotImplemented
        return elementwise(lambda x, y: algebra.mul([x, y]), self, other)

    def __rmul__(self, other: Any) -> Expression:
        return elementwise(lambda x, y: algebra.mul([x, y]), other, self)

    def __truediv__(self, other: Any) -> Expression:
        if isinstance(other, Deferred):
            return NotImplemented
        other = as_expression(other)
        if other.node.op == "constant" and np.any(np.asarray(other.node.attr) == 0):
            raise TensorProgramError(f"{describe(self.node)} is divided by 0", fix="divide by something else")
        return elementwise(algebra.div, self, other)

    def __rtruediv__(self, other: Any) -> Expression:
        return as_expression(other) / self

    def __neg__(self) -> Expression:
        return elementwise(algebra.neg, self)

    def __pos__(self) -> Expression:
        return self

    def __abs__(self) -> Expression:
        return elementwise(lambda x: algebra.fn("abs", x), self)

    def __pow__(self, exponent: Any) -> Expression:
        k = number(exponent, "an exponent") if not isinstance(exponent, Expression) else None
        if isinstance(k, int) and k >= 0:
            return elementwise(lambda x: algebra.power(x, k), self)
        if isinstance(k, int):
            return elementwise(lambda x: algebra.power(algebra.fn("reciprocal", x), -k), self)
        if k is not None and Fraction(k).denominator == 2:
            half = Fraction(k)
            root = elementwise(lambda x: algebra.fn("sqrt", x), self)
            return root**half.numerator
        raise TensorProgramError(
            f"{describe(self.node)} is raised to the power {exponent!r}",
            why="powers are integers, or halves of integers where the argument is positive",
            fix="write it with tp.exp and tp.log",
        )

    def __rpow__(self, base: Any) -> Expression:
        return as_expression(base) ** self

    def __matmul__(self, other: Any) -> Expression:
        if self.is_matrix:
            return product(self, False, other)
        raise TensorProgramError(
            f"{describe(self.node)} is used as a matrix",
            fix="only a tp.Matrix, a tp.matrix(...), or a transpose of one multiplies: W @ x, W.T @ x",
        )

    def __rmatmul__(self, other: Any) -> Expression:
        raise TensorProgramError(
            f"{describe(self.node)} is multiplied by {other!r}, which is no matrix",
            fix="only a tp.Matrix, a tp.matrix(...), or a transpose of one multiplies: W @ x, W.T @ x",
        )


def _place(node: Node, source: Source | None) -> None:
    """Gives a line to every instruction that has been made on it: x / h has a reciprocal inside."""
    stack = [node]
    while stack:
        x = stack.pop()
        if x.source is None and (x is node or x.op != "constant"):
            x.source = source
            stack.extend(x.args)


_OPERATORS: dict[Any, Callable[[Any, Any], Any]] = {
    np.add: operator.add,
    np.subtract: operator.sub,
    np.multiply: operator.mul,
    np.divide: operator.truediv,
    np.power: operator.pow,
    np.matmul: operator.matmul,
}
_COMPARISONS = (np.less, np.less_equal, np.greater, np.greater_equal)


def as_expression(x: Any) -> Expression:
    """An expression as it is; a number as a constant."""
    if isinstance(x, Expression):
        return x
    if isinstance(x, MatrixSpec) or hasattr(x, "matrix"):
        raise TensorProgramError(f"{x!r} is used like a vector", fix="multiply it with one first: W @ x")
    if hasattr(x, "as_vector"):  # what is no vector, and knows what to do about it: data
        x.as_vector()
    if np.ndim(x) > 0:
        raise TensorProgramError(
            f"an array of shape {np.shape(x)} is used without axis names", fix='name them: tp.array(a, axes=("t",))'
        )
    return Expression(algebra.constant(number(x, "an operand")))


def elementwise(rule: Callable[..., Node], *operands: Any) -> Expression:
    """Aligns the axes of the operands by name, checks their widths, and applies a rule to the nodes."""
    if has_deferred(operands):
        return Deferred(elementwise, (rule, *operands))  # type: ignore[return-value]
    for x in operands:
        if isinstance(x, Transposed) and any(getattr(y, "is_matrix", isinstance(y, MatrixSpec)) for y in operands):
            x._refused()
    xs = [part(x) if isinstance(x, MatrixSpec) else as_expression(x) for x in operands]
    _check_matrices(xs)
    widths: dict[Width, Expression] = {}
    inners: dict[Width, Expression] = {}
    for x in xs:
        if x.node.width is not None:
            widths.setdefault(x.node.width, x)
        if x.node.inner is not None:
            inners.setdefault(x.node.inner, x)
    if len(widths) > 1 or len(inners) > 1:
        (w1, x1), (w2, x2) = list((widths if len(widths) > 1 else inners).items())[:2]
        raise TensorProgramError(
            f"{describe(x1.node)} has width {w1.name} and {describe(x2.node)} has width {w2.name}",
            why="vectors of different widths never meet in one Nonlin or Moment",
            fix="multiply one of them by a matrix first, or take its tp.moment",
        )
    nodes, names, axes = align(xs)
    return Expression(rule(*nodes), names, axes, in_body=any(x.in_body for x in xs))


def part(matrix: MatrixSpec) -> Expression:
    """An initial matrix as an expression, to be added and scaled."""
    return Expression(algebra.matrix(matrix))


def _check_terms(x: Expression, other: Any) -> None:
    """Matrices are added to matrices: a number has no place in W. To 0 as well, for Python's sum."""
    y = other.node if isinstance(other, Expression) else None
    number_or_scalar = (
        y.is_scalar and not y.is_zero
        if y is not None
        else isinstance(other, (int, float, Fraction, np.number)) and other != 0
    )
    for node, scalar in ((x.node, number_or_scalar), (y, x.node.is_scalar and not x.node.is_zero)):
        if node is not None and node.has_matrix and scalar:
            raise TensorProgramError(
                f"a number is added to {describe(node)}, which has an initial matrix in it",
                why="numbers scale a matrix; the same one in all entries is an update, divided by the number of columns",
                fix="write W + tp.matrix(lambda d, h: c, rows, cols)",
            )


def _check_matrices(xs: Sequence[Expression]) -> None:
    """A matrix meets matrices and scalars; in a body also vectors, over either coordinate."""
    found = next((x for x in xs if x.is_matrix), None)
    vector = next((x for x in xs if x.width is not None and not x.is_matrix), None)
    if found is None or vector is None or any(x.in_body for x in xs):
        return
    name = f"({text})" if " " in (text := describe(found.node)) else text
    raise TensorProgramError(
        f"the matrix {name} and the vector {describe(vector.node)} meet, coordinate by coordinate",
        why="a vector has one coordinate and a matrix two",
        fix=f"multiply it by the vector, {name} @ x, or write the matrix with tp.matrix(lambda d, h: ..., rows, cols)",
    )


def align(xs: Sequence[Expression]) -> tuple[list[Node], tuple[str, ...], tuple[str, ...]]:
    """Nodes of one shape (or none), the names of their axes by position, and in the user's order.

    Positions must not depend on the order of commutative operands, so they are assigned from the operands sorted by
    digest.
    """
    sizes: dict[str, tuple[int, Expression]] = {}
    axes: list[str] = []
    for x in xs:
        for a, k in zip(x.axes, x.shape, strict=True):
            if a not in sizes:
                sizes[a] = (k, x)
                axes.append(a)
            elif sizes[a][0] != k:
                raise TensorProgramError(
                    f"axis {a!r} has size {sizes[a][0]} in {describe(sizes[a][1].node)} and {k} in {describe(x.node)}",
                    why="axes are matched by name",
                    fix=f"rename one of them: tp.rename(x, {a}=...)",
                )
    if not axes:
        return [x.node for x in xs], (), ()
    names: list[str] = []
    for x in sorted([x for x in xs if x.names], key=lambda x: x.node.digest):
        names += [a for a in x.names if a not in names]
    shape = [sizes[a][0] for a in names]
    nodes = [algebra.view(x.node, [names.index(a) for a in x.names], shape) if x.names else x.node for x in xs]
    return nodes, tuple(names), tuple(axes)


@layer
def product(matrix: MatrixSpec | Expression, transposed: bool, x: Any, backward: bool | None = None) -> Expression:
    """M @ x or M.T @ x, widths checked, axes matched by name; `backward` as in `algebra.matmul`."""
    m = part(matrix) if isinstance(matrix, MatrixSpec) else matrix
    rows, cols = (matrix.rows, matrix.cols) if isinstance(matrix, MatrixSpec) else (m.node.width, m.node.inner)
    assert rows is not None and cols is not None
    own = f"({text})" if " " in (text := describe(m.node)) else text
    name = f"{own}.T" if transposed else own
    if isinstance(x, MatrixSpec) or hasattr(x, "matrix") or (isinstance(x, Expression) and x.is_matrix):
        raise TensorProgramError(
            f"{name} multiplies a matrix",
            why="a program multiplies matrices with vectors only",
            fix="write A @ (B @ x)",
        )
    x = as_expression(x)
    wanted = rows if transposed else cols
    if x.node.width is None and x.node.inner is None:
        raise TensorProgramError(
            f"{name} multiplies the scalar {describe(x.node)}",
            why=f"its operand is a vector of width {wanted.name}",
            fix=f'for a constant vector use tp.Vector("one", {wanted.name}, mean=1, var=0)',
        )
    if x.node.inner is not None:
        raise TensorProgramError(f"{name} multiplies inside an OuterNonlin", fix="multiply outside of tp.outer")
    if x.node.width != wanted:
        other = cols if transposed else rows
        turned = own if transposed else f"{own}.T"
        fix = f"multiply by {turned}" if x.node.width == other else f"use a matrix with {x.node.width.name} columns"
        raise TensorProgramError(
            f"{name} is {rows.name} x {cols.name}{' transposed' if transposed else ''}, "
            f"but {describe(x.node)} has width {x.node.width.name}",
            why=f"{name} @ x needs a vector of width {wanted.name}",
            fix=fix,
        )
    if isinstance(matrix, MatrixSpec):
        return Expression(algebra.matmul(matrix, transposed, x.node, backward), x.names, x.axes, x.in_body)
    (left, right), names, axes = align([m, x])
    return Expression(algebra.apply(left, transposed, right, backward), names, axes, x.in_body)
