"""Expressions of a program's text, by recursive descent: see the grammar in `parse.py`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tensorprog.language import algebra
from tensorprog.language.activations import check_domain
from tensorprog.language.describe import describe
from tensorprog.language.expression import Expression, product
from tensorprog.language.functions import PRIMITIVES
from tensorprog.language.node import Node
from tensorprog.language.symbols import MatrixSpec, Number, Width, number, quotient
from tensorprog.text.literals import letter
from tensorprog.text.tokens import Token
from tensorprog.text.values import MAX_AXES, MAX_DIGITS, MAX_SIZE, Values

__all__ = ["Expressions"]

MAX_DEPTH, MAX_EXPONENT = 64, 10**6
MAX_BITS = int(MAX_DIGITS * math.log2(10))


class Expressions(Values):
    """Reads expressions into nodes: the names that statements have defined, a method for each rule of the grammar."""

    def __init__(self, text: str, file: str = "") -> None:
        super().__init__(text, file)
        self.depth = 0
        self.widths: dict[str, Width] = {}
        self.matrices: dict[str, MatrixSpec] = {}
        self.values: dict[str, Node] = {}
        self.interned: dict[Node, Node] = {}

    def node(self, at: Token, rule: Callable[..., Node], *args: Any) -> Node:
        """A node in normal form; equal nodes are one object, so that they share their label."""
        x: Node = self.checked(at, rule, *args)
        if len(x.shape) > MAX_AXES or math.prod(x.shape) > MAX_SIZE:
            self.fail(at, f"this has the shape {x.shape}", f"at most {MAX_AXES} axes and {MAX_SIZE} entries are read")
        for y in (x, *x.args):
            if self.bits(y) > MAX_BITS:
                self.fail(at, f"a number of more than {MAX_DIGITS} digits", "use smaller numbers, or floating point")
        if x.op == "mul" and max(x.attr) > MAX_EXPONENT:
            self.fail(at, f"the exponent {max(x.attr)}", f"at most {MAX_EXPONENT} is read")
        x = self.interned.setdefault(x, x)
        if x.source is None and x.op != "constant":
            x.source = self.source(at)
        return x

    @staticmethod
    def bits(x: Node) -> int:
        """The size of the largest exact number in a node."""
        if x.op == "add":
            values = list(x.attr)
        elif x.op == "constant" and isinstance(x.attr, np.ndarray):
            values = x.attr.ravel().tolist() if x.attr.dtype == object else []
        else:
            values = [x.attr] if x.op == "constant" else []
        exact = [v for v in values if not isinstance(v, float)]
        return max([max(v.numerator.bit_length(), v.denominator.bit_length()) for v in exact], default=0)

    # ---- numbers and names ----
    def width(self) -> Width:
        """The width that the next name stands for."""
        width: Width = self.lookup(self.widths, self.take("name", "a width"), "width")
        return width

    # ---- expressions ----
    def aligned(self, at: Token, nodes: Sequence[Node]) -> None:
        """Operands of one instruction have one shape and one width each, or none."""
        apart = "vectors of different widths never meet in one Nonlin or Moment"
        for what, kinds, why, fix in (
            (
                "shape",
                {x.shape: x for x in nodes if x.shape},
                "axes are matched by position",
                "spread, as in x[i; j:3]",
            ),
            ("width", {x.width: x for x in nodes if x.width}, apart, "multiply one of them by a matrix first"),
            ("second width", {x.inner: x for x in nodes if x.inner}, apart, "multiply one of them by a matrix first"),
        ):
            if len(kinds) > 1:
                (one, x), (two, y) = list(kinds.items())[:2]
                k1, k2 = [k.name if isinstance(k, Width) else str(k) for k in (one, two)]
                self.fail(at, f"{describe(x)} has {what} {k1} and {describe(y)} has {what} {k2}", fix, why)

    def sum(self) -> Node:
        """Terms, as one node: coefficients must reach `algebra.add` apart from what they multiply."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.fail(
                self.next,
                f"an expression nested deeper than {MAX_DEPTH}",
                "give parts of it names, on lines of their own",
            )
        at = self.next
        sign = -1 if self.accept("-") else 1
        pairs: list[tuple[Number, Node]] = []
        while True:
            c, x = self.product()
            pairs.append((sign * c, x) if x is not None else (1, algebra.constant(sign * c)))
            operator = self.accept("+") or self.accept("-")
            if operator is None:
                break
            sign = -1 if operator.kind == "-" else 1
        self.depth -= 1
        if len(pairs) == 1 and isinstance(pairs[0][0], int) and pairs[0][0] == 1:
            return pairs[0][1]
        self.aligned(at, [x for _, x in pairs])
        return self.node(at, algebra.add, pairs)

    def product(self) -> tuple[Number, Node | None]:
        """A coefficient (the product of its numbers) and the rest; None where there is no rest."""
        at = self.next
        coefficient: Number = 1
        factors: list[Node] = []
        operator: Token | None = None
        while True:
            token = self.next
            while self.accept("-"):
                coefficient = -coefficient
            x = self.power()
            divides = operator is not None and operator.kind == "/"
            if divides and (x == 0 if not isinstance(x, Node) else x.is_zero):
                self.fail(token, "a division by 0", "divide by something else")
            if isinstance(x, Node):
                factors.append(self.node(token, algebra.fn, "reciprocal", x) if divides else x)
            elif not divides:
                coefficient = self.checked(token, lambda a, b: number(a * b), coefficient, x)
            elif factors and isinstance(x, float):  # as in Python: x / 0.5 is x * reciprocal(0.5)
                factors.append(self.node(token, algebra.fn, "reciprocal", algebra.constant(x)))
            else:
                coefficient = self.checked(token, quotient, coefficient, x)
            operator = self.accept("*") or self.accept("/")
            if operator is None:
                break
        if len(factors) < 2:
            return coefficient, factors[0] if factors else None
        self.aligned(at, factors)
        return coefficient, self.node(at, algebra.mul, factors)

    def power(self) -> Node | Number:
        """A power; a bare number stays one, to become a coefficient."""
        at = self.next
        x = self.postfix()
        if not self.accept("**"):
            return x
        if self.accept("("):
            exponent: Any = self.number()
            self.take(")")
        else:
            sign = -1 if self.accept("-") else 1
            exponent = sign * self.literal(self.take("number", "a number"))
        base = x if isinstance(x, Node) else algebra.constant(x)
        if (2 * exponent) % 1 or abs(exponent) > MAX_EXPONENT:
            fix = f"powers are integers or halves of integers, up to {MAX_EXPONENT}"
            self.fail(at, f"the exponent {exponent}", fix)
        twice = int(2 * exponent)
        if twice % 2:
            base, twice = self.function(at, "sqrt", base, ()), 2 * twice
        if twice < 0:
            base = self.function(at, "reciprocal", base, ())
        k = abs(twice) // 2
        if self.bits(base) * k > MAX_BITS:
            self.fail(at, f"a number of more than {MAX_DIGITS} digits", "use smaller numbers, or floating point")
        return self.node(at, algebra.power, base, k)

    def function(self, at: Token, name: str, x: Node, parameters: Sequence[Number]) -> Node:
        """A primitive, its parameters and domain checked."""
        row = PRIMITIVES[name]
        if len(parameters) != len(row.parameters):
            self.fail(
                at,
                f"{name} is given {len(parameters)} parameters",
                f"it has {len(row.parameters)}: {', '.join(row.parameters)}",
            )
        if row.domain is not None and x.op == "constant":
            self.checked(at, check_domain, name, Expression(x, range(len(x.shape))))  # type: ignore[arg-type]
        return self.node(at, algebra.fn, name, x, *parameters)

    def postfix(self) -> Node | Number:
        """An atom with its brackets and primes."""
        at = self.next
        x = self.atom()
        while self.next.kind in ("'", "["):
            x = x if isinstance(x, Node) else algebra.constant(x)
            if self.accept("'"):
                if x.width is None or x.inner is not None:
                    self.fail(at, f"{describe(x)}' is not a vector over the second coordinate", "put ' after a vector")
                x = self.node(at, algebra.inner, x)
            else:
                x = self.indexed(self.take("["), x)
        return x

    def indexed(self, at: Token, x: Node) -> Node:
        """Views, positions and spreads: x[j,i], x[2,:], x[i; j:3, n]."""
        index: list[int | None] = []  # of a view: a position
        position: tuple[int, int] | None = None
        sizes: dict[int, int] = {}
        width, inner = x.width, x.inner
        while self.next.kind not in (";", "]"):
            if index:
                self.take(",", "',' or ';' or ']'")
            if self.next.kind in ("number", "-"):
                sign = -1 if self.accept("-") else 1
                if position is not None:
                    self.fail(at, "two positions in one bracket", "write x[0,:][0]")
                position = (len(index), sign * self.integer(self.take("number", "a position")))
                index.append(None)
            else:
                index.append(None if self.accept(":") else self.axis())
        if self.accept(";"):
            while self.next.kind != "]":
                if sizes or width != x.width or inner != x.inner:
                    self.take(",")
                if self.tokens[self.position + 1].kind == ":":
                    p, k = self.size()
                    if p in sizes or k < 0:
                        self.fail(at, f"axis {letter(p)} is given twice", "give each new axis one size")
                    sizes[p] = k
                else:
                    w = self.width()
                    width, inner = (width, w) if self.accept("'") else (w, inner)
        self.take("]", "']'")
        if index and len(index) != len(x.shape):
            self.fail(
                at, f"{len(index)} indices for the {len(x.shape)} axes of {describe(x)}", "give one for each axis"
            )
        if (x.width or width) != width or (x.inner or inner) != inner:
            self.fail(
                at, f"{describe(x)} already has a width", "spread scalars only", "a width is changed by a matrix only"
            )
        views = [p for p in index if p is not None]
        if position is not None:
            axis, i = position
            if views or sizes or not -x.shape[axis] <= i < x.shape[axis]:
                self.fail(
                    at,
                    f"position {i} of an axis of size {x.shape[axis]}",
                    "write x[0,:] with ':' for the axes that stay",
                )
            x = self.node(at, algebra.take, x, axis, i % x.shape[axis])
        elif len(views) < len(index):
            self.fail(at, "':' without a position", "write x[0,:] or x[j,i]")
        elif index or sizes:
            for p, k in zip(views, x.shape, strict=True) if index or not x.shape else ():
                if sizes.setdefault(p, k) != k:
                    self.fail(
                        at, f"axis {letter(p)} would have the sizes {sizes[p]} and {k}", "a diagonal needs equal sizes"
                    )
            if sorted(sizes) != list(range(len(sizes))) or (x.shape and not index):
                self.fail(
                    at,
                    f"the axes of the result are {', '.join(map(letter, sorted(sizes)))}",
                    "name them i, j, k, ... in turn",
                )
            shape = [sizes[p] for p in range(len(sizes))]
            if len(shape) > MAX_AXES or math.prod(shape) > MAX_SIZE:
                self.fail(
                    at, f"this has the shape {tuple(shape)}", f"at most {MAX_AXES} axes and {MAX_SIZE} entries are read"
                )
            x = self.node(at, algebra.view, x, views, shape)
        return self.node(at, algebra.typed, x, x.shape, width, inner)

    def atom(self) -> Node | Number:
        """A number, name, list, call or sum in parentheses."""
        token = self.next
        if token.kind == "number":
            self.position += 1
            return self.literal(token)
        if token.kind == "[":
            return algebra.constant(self.list())
        if self.accept("("):
            x = self.sum()
            self.take(")", "')'")
            return x
        self.take("name", "an expression")
        if token.text == "rational" and self.next.kind == "(":
            return algebra.constant(self.rational())
        if self.next.kind == "(":
            x = self.call(token)
            self.take(")", "')'")
            return x
        if token.text in self.arrays:
            return algebra.constant(self.arrays[token.text])
        if token.text in self.matrices and token.text not in self.values:
            return self.node(token, algebra.matrix, self.matrices[token.text])
        found: Node = self.lookup(self.values, token, "vector, scalar or earlier line")
        return found

    @staticmethod
    def _multiplied(matrix: MatrixSpec | Node, transposed: bool, x: Node, backward: bool) -> Node:
        def named(y: Node) -> Expression:
            return Expression(y, [letter(i) for i in range(len(y.shape))])

        if isinstance(matrix, Node) and matrix.shape and x.shape:  # of one shape: axes are matched by position
            product(named(matrix), transposed, named(x))
            return algebra.apply(matrix, transposed, x, backward)
        return product(named(matrix) if isinstance(matrix, Node) else matrix, transposed, named(x), backward).node

    def matrix(self) -> MatrixSpec | Node:
        """An initial matrix, or a line with two coordinates."""
        token = self.take("name", "a matrix")
        if token.text in self.matrices or token.text not in self.values:
            found: MatrixSpec = self.lookup(self.matrices, token, "matrix")
            return found
        x = self.values[token.text]
        if x.width is None or x.inner is None:
            self.fail(token, f"{token.text} is no matrix", "multiply by a matrix, or by a line such as W1 = W - dh*h'")
        return x

    def picked(self, at: Token) -> Node:
        """What is between the parentheses of pick(x, i, [2, 0, 0])."""
        x = self.sum()
        self.take(",")
        axis = self.axis()
        self.take(",")
        index = self.value()
        if axis >= len(x.shape):
            self.fail(
                at, f"pick along {letter(axis)} of {describe(x)}, which has {len(x.shape)} axes", "name one of them"
            )
        k = x.shape[axis]
        if not isinstance(index, np.ndarray) or index.dtype.kind != "i" or index.ndim != 1 or not index.size:
            self.fail(at, f"pick along {letter(axis)} without positions", "write pick(x, i, [2, 0, 0])")
        if index.min() < -k or index.max() >= k:
            self.fail(at, f"a position outside of an axis of size {k}", f"use {-k} to {k - 1}")
        return self.node(at, algebra.pick, x, axis, (index % k).tolist())

    def call(self, name: Token) -> Node:
        """An instruction or a function, up to its closing parenthesis."""
        self.take("(")
        at = self.next
        match name.text:
            case "MatMul":
                matrix = self.matrix()
                transposed = self.accept(".") is not None and bool(self.word("T"))
                self.take(",")
                at, x = self.next, self.sum()
                backward = self.word("forward", "backward").text == "backward" if self.accept(",") else transposed
                if isinstance(matrix, Node) and matrix.shape and x.shape:
                    self.aligned(at, [algebra.constant(0, matrix.shape), algebra.constant(0, x.shape)])
                return self.node(at, self._multiplied, matrix, transposed, x, backward)
            case "difference":
                phi = self.take("name", "a function")
                self.lookup(PRIMITIVES, phi, "function")
                operands: list[Node] = []
                for _ in range(3):
                    self.take(",")
                    operands.append(self.sum())
                if not operands[2].is_scalar:
                    self.fail(at, "the step of a divided difference has coordinates", "give a scalar")
                self.aligned(at, operands)
                given: list[Number] = []
                while self.accept(","):
                    given.append(self.number())
                if len(given) != len(PRIMITIVES[phi.text].parameters):
                    self.fail(phi, f"{phi.text} with {len(given)} parameters", "give those of the function")
                return self.node(at, algebra.difference, phi.text, *operands, *given)
            case "inverse_sqrt":
                return self.node(at, algebra.inverse_sqrt, self.width())
            case "stack":
                axis, parts = self.axis(), []
                while self.accept(","):
                    parts.append(self.sum())
                if not parts or axis > len(parts[0].shape):
                    self.fail(
                        at,
                        f"stack along {letter(axis)}",
                        "write stack(i, a, b): the new axis, then vectors of one shape",
                    )
                self.aligned(at, parts)
                return self.node(at, algebra.stack, parts, axis)
            case "pick":
                return self.picked(at)
            case "Nonlin":
                return self.sum()
            case "Moment" | "OuterNonlin":
                x = self.sum()
                if name.text == "Moment" and x.inner is not None:
                    self.fail(at, "a Moment over two coordinates", "average the second one first: OuterNonlin(...)")
                if name.text == "OuterNonlin" and (x.inner is None or x.width is None):
                    self.fail(
                        at,
                        "an OuterNonlin needs two coordinates",
                        "write y' for a vector over the second: OuterNonlin(x*y')",
                    )
                return self.node(name, algebra.moment if name.text == "Moment" else algebra.outer, x)
            case "sum" | "softmax":
                x = self.sum()
                self.take(",")
                axis = self.axis()
                if axis >= len(x.shape) or (name.text == "softmax" and not x.is_scalar):
                    self.fail(
                        at,
                        f"{name.text} of {describe(x)}, which has {len(x.shape)} axes",
                        "sum needs the axis, softmax a scalar with it",
                    )
                return self.node(name, algebra.sum_axis if name.text == "sum" else algebra.softmax, x, axis)
        self.lookup(PRIMITIVES, name, "function")
        x, parameters = self.sum(), []
        while self.accept(","):
            parameters.append(self.number())
        return self.function(name, name.text, x, parameters)
