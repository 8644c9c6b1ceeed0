"""Functions of one's own: a SymPy expression, translated once per call into primitive instructions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import sympy

from tensorprog.errors import TensorProgramError
from tensorprog.language import build
from tensorprog.language.deferred import Deferred, has_deferred
from tensorprog.language.expression import Expression, as_expression
from tensorprog.language.symbols import Number, check_name, number

__all__ = ["Function"]


def _maximum(x: Any, y: Any) -> Expression:
    """max(x, y) = y + relu(x - y), with a number as y, so that max(x, 0) is relu(x)."""
    x, y = as_expression(x), as_expression(y)
    if x.node.op == "constant":
        x, y = y, x
    return y + build.relu(x - y)


def _minimum(x: Any, y: Any) -> Expression:
    return -_maximum(-as_expression(x), -as_expression(y))


_UNARY: dict[Any, Callable[[Any], Expression]] = {
    sympy.Abs: build.abs,
    sympy.sign: build.sign,
    sympy.exp: build.exp,
    sympy.log: build.log,
    sympy.sin: build.sin,
    sympy.cos: build.cos,
    sympy.tan: lambda x: build.sin(x) / build.cos(x),
    sympy.atan: build.arctan,
    sympy.tanh: build.tanh,
    sympy.sinh: lambda x: (build.exp(x) - build.exp(-x)) / 2,
    sympy.cosh: lambda x: (build.exp(x) + build.exp(-x)) / 2,
    sympy.erf: build.erf,
    sympy.erfc: lambda x: 1 - build.erf(x),
}
_AVAILABLE = "+ - * /, powers (integers and halves), Heaviside, Max, Min, Piecewise with < and >, " + ", ".join(
    sorted([f.__name__ for f in _UNARY])
)


class Function:
    """A function from a SymPy expression, called elementwise on vectors and scalars like the ones of this package.

    Rational numbers stay rational; other constants become floats. A kinked function is written with Max, Min, Abs,
    Heaviside, sign or Piecewise. Heaviside and Piecewise take the mean of both sides at a boundary, as `tp.step` does.

    Args:
        name: Its name, for messages.
        expression: A SymPy expression with one free symbol, or several. No string: reading it would run code.
        args: The order of the symbols in a call; by default sorted by name.

    Raises:
        TensorProgramError: for what is no real SymPy expression, and for functions that have no translation.

    Example:
        >>> import sympy, tensorprog as tp
        >>> s = sympy.Symbol("s", real=True)
        >>> swish = tp.Function("swish", s / (1 + sympy.exp(-s)))
        >>> x = tp.Vector("x", tp.Width("n"))
        >>> print(tp.Program(m=tp.moment(swish(x))))
        width n
        vector x : n, mean 0, var 1
        c1 = Moment(x/(exp(-x) + 1))
        output m = c1
    """

    def __init__(self, name: str, expression: Any, args: Sequence[Any] = ()) -> None:
        self.name = self.__name__ = check_name(name, "a function's name")
        if not isinstance(expression, sympy.Expr):
            why = (
                "reading a string would run code"
                if isinstance(expression, str)
                else "a function is defined by an expression"
            )
            raise TensorProgramError(
                f"function {name} is given {str(expression)[:60]!r} of type {type(expression).__name__}",
                why=why,
                fix='build it with sympy: x = sympy.Symbol("x"); sympy.tanh(x) + x**2',
            )
        self.expression = expression
        self._symbolic = _symbolic(expression)
        symbols = sorted([e for e in self._symbolic if isinstance(e, sympy.Symbol)], key=str)
        self.args: list[Any] = [sympy.Symbol(a) if isinstance(a, str) else a for a in args] or symbols
        if args and all(isinstance(a, str) for a in args):  # names stand for the symbols, whatever their assumptions
            by_name = {s.name: s for s in symbols}
            self.args = [by_name.get(str(a), a) for a in self.args]
        missing = [s for s in symbols if s not in self.args]
        if missing or len(set(self.args)) != len(self.args) or not self.args:
            raise TensorProgramError(
                f"function {name} has the symbols {symbols or 'none'} and the arguments {self.args}",
                fix="name every symbol once in args=, and use at least one symbol",
            )
        self(
            *[build.array([0.5], "check") * _probe(str(a)) for a in self.args]
        )  # what has no translation is refused here

    def _content(self) -> tuple[Any, ...]:
        return self.name, self.expression, tuple(self.args)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Function) and self._content() == other._content()

    def __hash__(self) -> int:
        return hash(self._content())

    def __call__(self, *xs: Any) -> Expression:
        """The function of vectors or scalars, one for each argument."""
        if has_deferred(xs):
            return Deferred(self, xs)  # type: ignore[return-value]
        if len(xs) != len(self.args):
            raise TensorProgramError(
                f"{self.name} is called with {len(xs)} arguments",
                why=f"it has {', '.join(map(str, self.args))}",
                fix="give each one",
            )
        values: dict[Any, Expression] = dict(zip(self.args, map(as_expression, xs), strict=True))
        stack = [self.expression]
        while stack:  # not recursive: expressions may be deep; and each subexpression once: they may be shared
            e = stack[-1]
            parts = [] if e in values else [a for a in self._parts(e) if a not in values]
            if e not in values and not parts:
                values[e] = self._translate(e, values)
            if parts:
                stack.extend(parts)
            else:
                stack.pop()
        return values[self.expression]

    def _parts(self, e: Any) -> list[Any]:
        return _operands(e, self._symbolic)

    def _refuse(self, e: Any, why: str) -> TensorProgramError:
        return TensorProgramError(f"{self.name} contains {str(e)[:80]}", why=why, fix=f"use {_AVAILABLE}")

    def _translate(self, e: Any, values: dict[Any, Expression]) -> Expression:
        parts = [values[a] for a in self._parts(e)]
        if e not in self._symbolic:
            return as_expression(self._constant(e))
        if isinstance(e, sympy.Add):
            return reduce(lambda a, b: a + b, parts)
        if isinstance(e, sympy.Mul):
            return reduce(lambda a, b: a * b, parts)
        if isinstance(e, sympy.Pow):
            if e.exp in self._symbolic:
                if e.base.is_positive:
                    return build.exp(parts[1] * build.log(parts[0]))
                raise self._refuse(e, "the exponent is no number and the base not positive")
            if not (2 * e.exp).is_Integer:
                raise self._refuse(e, "powers are integers and halves of integers")
            return parts[0] ** self._constant(e.exp)
        if isinstance(e, sympy.Max):
            return reduce(_maximum, parts)
        if isinstance(e, sympy.Min):
            return reduce(_minimum, parts)
        if isinstance(e, sympy.Heaviside):
            return build.step(parts[0])
        if isinstance(e, sympy.Piecewise):
            return self._piecewise(e, values)
        if e.func in _UNARY:
            return _UNARY[e.func](parts[0])
        raise self._refuse(e, f"there is no translation of {e.func.__name__}")

    def _constant(self, e: Any) -> Number:
        if e.is_real is not True or not e.is_finite:
            raise self._refuse(e, "it is not a real number")
        return number(e if e.is_Rational else float(e))

    def _piecewise(self, e: Any, values: dict[Any, Expression]) -> Expression:
        """Sum of value_i * step(..), each where no earlier condition holds."""
        out, before = as_expression(0), as_expression(1)
        for value, condition in e.args:
            if condition == sympy.true:
                return out + before * values[value]
            here = build.step(values[condition.gts] - values[condition.lts])
            out = out + before * here * values[value]
            before = before * (1 - here)
        raise self._refuse(e, "a Piecewise without a last case for all other arguments")


def _probe(name: str) -> Expression:
    from tensorprog.language.leaves import Scalar

    return Scalar("argument_" + "".join([c if c.isalnum() else "_" for c in name]))


def _symbolic(expression: Any) -> set[Any]:
    """The subexpressions that contain a symbol; each is visited once, unlike in SymPy's own walks."""
    found: set[Any] = set()
    done: set[Any] = set()
    stack = [(expression, False)]
    while stack:
        e, expanded = stack.pop()
        if expanded:
            if isinstance(e, sympy.Symbol) or any(a in found for a in e.args):
                found.add(e)
        elif e not in done:
            done.add(e)
            stack.append((e, True))
            stack.extend([(a, False) for a in e.args if a not in done])
    return found


def _operands(e: Any, symbolic: set[Any]) -> list[Any]:
    """The subexpressions that are translated before e."""
    if e not in symbolic:
        return []
    if isinstance(e, sympy.Pow):
        return [e.base, e.exp] if e.exp in symbolic else [e.base]
    if isinstance(e, sympy.Heaviside):
        return [e.args[0]]
    if not isinstance(e, sympy.Piecewise):
        return list(e.args)
    found: list[Any] = []
    for value, condition in e.args:
        if condition not in (sympy.true, sympy.false) and not isinstance(
            condition, (sympy.StrictGreaterThan, sympy.GreaterThan, sympy.StrictLessThan, sympy.LessThan)
        ):
            raise TensorProgramError(
                f"a Piecewise has the condition {condition}",
                why="conditions are translated into steps",
                fix="use <, <=, > or >=",
            )
        found += [value] if condition in (sympy.true, sympy.false) else [value, condition.gts, condition.lts]
    return found
