"""`Formula`: the limit of a program as SymPy expressions over let-bindings; printing, substitution, numbers of any precision."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import sympy

from tensorprog.errors import TensorProgramError
from tensorprog.language.given import refuse_no_numbers
from tensorprog.language.program import checked_values, value_of

if TYPE_CHECKING:
    from tensorprog.language.program import Program

__all__ = ["Formula"]

GUARD = (6, 14, 30, 60)
"""Decimal digits carried beyond those asked for; an answer counts when two of these agree."""


class Formula(Mapping[str, Any]):
    """Expressions by output name.

    Attributes:
        lets: The let-bindings in order: (symbol, expression) pairs; an array's symbol is indexed, K1[i, j].
        symbols: The hyperparameters' symbols by name.
        arrays: The data behind the symbols of arrays, such as Sigma.
        axes: The index symbols of each output, called as its axes.
        data: What the symbols of data and arrays stand for, by their names.

    Example:
        >>> import tensorprog as tp
        >>> x = tp.Vector("x", tp.Width("n"), var=2)
        >>> f = tp.formula(tp.Program(q=tp.moment(tp.relu(x) ** 2), s=tp.moment(tp.abs(x))))
        >>> f["q"], f["s"], f.evalf(25)["s"]
        (1, 2/sqrt(pi), 1.128379167095512573896159)
    """

    def __init__(
        self, expressions: Mapping[str, Any], lets: Iterable[tuple[Any, Any]], symbols: Mapping[str, Any], program:
        Program,
        arrays: Mapping[Any, np.ndarray], axes: Mapping[str, tuple[Any, ...]], shapes: Mapping[str, tuple[int, ...]],
        data: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self._expressions, self.lets = dict(expressions), list(lets)
        self.symbols, self.arrays, self.axes = dict(symbols), dict(arrays), dict(axes)
        self._program, self._shapes, self.data = program, dict(shapes), dict(data or {})

    def __getitem__(self, name: str) -> Any:
        if name not in self._expressions:
            raise KeyError(f"no output {name!r}; there are {', '.join(self._expressions)}")
        return self._expressions[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._expressions)

    def __len__(self) -> int:
        return len(self._expressions)

    @property
    def legend(self) -> dict[str, str]:
        """What the symbols stand for, in the order in which they are met.

        Example:
            >>> import tensorprog as tp
            >>> x = tp.Vector("x", tp.Width("n"), axes="b", cov=[[2, 1], [1, 3]])
            >>> f = tp.formula(tp.Program(q=tp.moment(tp.relu(x) * tp.rename(tp.relu(x), b="c"))))
            >>> for name, meaning in f.legend.items():
            ...     print(f"{name}: {meaning}")
            ArcCosineKernel(a, c, b): E relu(u) relu(v), (u, v) ~ N(0, [[a, c], [c, b]])
            Sigma: the covariance of the columns of x
            b: an index of the axis b
            c: an index of the axis c
        """
        from tensorprog.limits.formula.legend import legend_of

        return legend_of(self)

    # ---- rewriting ----
    def expand(self, name: str) -> Any:
        """The expression with every let-binding written in (its size may grow exponentially with the depth)."""
        templates: dict[Any, tuple[tuple[Any, ...], Any]] = {}

        def written(e: Any) -> Any:
            known = {}
            for atom in e.atoms(sympy.Symbol, sympy.Indexed):
                base, index = _parts(atom)
                if base in templates:
                    formal, body = templates[base]
                    known[atom] = body.xreplace(dict(zip(formal, index, strict=True)))
            return e.xreplace(known)

        for symbol, e in self.lets:
            base, index = _parts(symbol)
            templates[base] = (index, written(e))
        return written(self[name])

    def subs(self, *args: Any, **kwargs: Any) -> Formula:
        """The formula with `expression.subs(...)` applied to every let-binding and output; names stand for hyperparameters.

        Example:
            >>> import tensorprog as tp
            >>> eta = tp.Scalar("eta")
            >>> f = tp.formula(tp.Program(q=tp.moment((eta * tp.Vector("x", tp.Width("n"))) ** 2)))
            >>> f["q"], f.subs({"eta": 3})["q"], f.subs("eta", 3)["q"]
            (eta**2, 9, 9)
        """

        def meant(x: Any) -> Any:
            return self.symbols.get(x, x) if isinstance(x, str) else x

        if len(args) == 1:
            pairs = args[0].items() if isinstance(args[0], Mapping) else args[0]
            args = ([(meant(a), b) for a, b in pairs],)
        elif args:
            args = (meant(args[0]), *args[1:])
        return Formula(
            {name: e.subs(*args, **kwargs) for name, e in self._expressions.items()},
            [(symbol, e.subs(*args, **kwargs)) for symbol, e in self.lets],
            self.symbols, self._program, self.arrays, self.axes, self._shapes, self.data,
        )  # fmt: skip

    # ---- numbers ----
    def evalf(self, digits: int = 15, values: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Every output as a number, or an array of numbers, to that many digits.

        Rational outputs stay rational. Gaussian expectations in one and two variables are integrated at this precision.

        Args:
            digits: Significant decimal digits.
            values: Numbers for the hyperparameters, else their defaults; and for inner products of data, or arrays of them.

        Raises:
            TensorProgramError: for a hyperparameter without value, an integral that cannot be had at this precision,
                and a value
                that is no finite real number.
        """
        given = checked_values(values, self.symbols | self.data, "the formula")
        for k, v in given.items():
            refuse_no_numbers(v, f"the value of {k}")
        tables = {k: np.asarray(v) for k, v in given.items() if k in self.data and k not in self.symbols}
        tables |= self._arrays_of_hyperparameters(given)
        if tables:  # inner products of inputs with axes, hyperparameters with axes
            arrays = self.arrays | {sympy.IndexedBase(k, real=True): a for k, a in tables.items()}
            symbols = {k: v for k, v in self.symbols.items() if k not in tables}
            known = Formula(
                self._expressions, self.lets, symbols, self._program, arrays, self.axes, self._shapes, self.data
            )
            return known.evalf(digits, {k: v for k, v in given.items() if k not in tables})
        bound = self._bound(given)
        last: dict[str, list[Any]] | None = None
        for guard in GUARD:
            found = _Numbers(self, bound, digits + guard).outputs()
            if last is not None and all(
                _agree(a, b, digits) for name in found for a, b in zip(found[name], last[name], strict=True)
            ):
                return {name: self._shaped(name, found[name], digits) for name in self}
            if last is None and all(v.is_Rational for entries in found.values() for v in entries):
                return {name: self._shaped(name, found[name], digits) for name in self}
            last = found
        raise TensorProgramError(
            f"the formula has no {digits} digits",
            why=f"with {GUARD[-1]} more the answers still differ",
            fix="ask for fewer digits",
        )

    def _arrays_of_hyperparameters(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The hyperparameters with axes as arrays, by name; those without values are missing."""
        shapes = {name: s for name, s in self._program.scalar_shapes.items() if s and name in self.symbols}
        given = {name: values.get(name, self._program.scalars[name]) for name in shapes}
        return {k: value_of(k, v, shapes[k]) for k, v in given.items() if v is not None}

    def _bound(self, given: Mapping[str, Any]) -> dict[Any, Any]:
        free = set[Any]()
        for _, e in [*self.lets, *self._expressions.items()]:
            free |= e.free_symbols
        out = {}
        for name, symbol in self.symbols.items():
            value = given.get(name, self._program.scalars.get(name))
            if value is not None:
                out[symbol] = sympy.sympify(value)
            elif symbol in free or getattr(symbol, "label", None) in free:
                raise TensorProgramError(f"hyperparameter {name} has no value", fix=f'pass values={{"{name}": ...}}')
        return out

    def _shaped(self, name: str, entries: list[Any], digits: int) -> Any:
        numbers = [v if v.is_Rational else sympy.Float(v, digits) for v in entries]
        if not self._shapes[name]:
            return numbers[0]
        out = np.empty(len(numbers), dtype=object)
        out[:] = numbers
        return out.reshape(self._shapes[name])

    # ---- printing ----
    def _lines(self) -> list[tuple[Any, Any]]:
        heads = [(sympy.IndexedBase(n)[self.axes[n]] if self.axes[n] else sympy.Symbol(n), e) for n, e in self.items()]
        return [*self.lets, *heads]

    def __str__(self) -> str:
        known = {str(base) for base in self.arrays}
        products = [f"{name}: {text}" for name, text in self.data.items() if name not in known]
        return "\n".join([*[f"{symbol} = {e}" for symbol, e in self._lines()], *products])

    def __repr__(self) -> str:
        return str(self)

    def latex(self) -> str:
        r"""An `align*` environment: let-bindings, then outputs; one line each.

        Example:
            >>> import tensorprog as tp
            >>> x = tp.Vector("x", tp.Width("n"))
            >>> print(tp.formula(tp.Program(q=tp.moment(tp.tanh(x) ** 2))).latex())
            \begin{align*}
            q &= \mathbb{E}_{z_{1} \sim \mathcal{N}\left(0, 1\right)}\left[\tanh^{2}{\left(z_{1} \right)}\right]
            \end{align*}
        """
        names = {}
        for symbol, _ in self.lets:
            base, _ = _parts(symbol)
            label = base.label if isinstance(base, sympy.IndexedBase) else base
            stem, number = re.fullmatch(r"(.*?)(\d*)", str(label)).groups()  # type: ignore[union-attr]
            names[label] = f"{stem}^{{({number})}}"
        for name in self:
            label = sympy.IndexedBase(name).label if self.axes[name] else sympy.Symbol(name)
            names[label] = name if len(name) == 1 else rf"\mathrm{{{name}}}".replace("_", r"\_")
        rows = [
            f"{sympy.latex(a, symbol_names=names)} &= {sympy.latex(e, symbol_names=names)}" for a, e in self._lines()
        ]
        return "\\begin{align*}\n" + " \\\\\n".join(rows) + "\n\\end{align*}"

    def _repr_latex_(self) -> str:
        return self.latex()


def _parts(symbol: Any) -> tuple[Any, tuple[Any, ...]]:
    """Base and index of a symbol or an entry."""
    return (symbol.base, symbol.indices) if isinstance(symbol, sympy.Indexed) else (symbol, ())


def _agree(a: Any, b: Any, digits: int) -> bool:
    if a.is_Rational and b.is_Rational:
        return bool(a == b)
    return bool(abs(a - b) <= sympy.Float(10, digits) ** (-digits) * max(abs(a), sympy.Float(10) ** (-digits)))


class _Numbers:
    """The let-bindings, entry by entry as far as needed, at one precision."""

    def __init__(self, formula: Formula, bound: Mapping[Any, Any], digits: int) -> None:
        self.formula, self.bound, self.digits = formula, bound, digits
        self.known: dict[tuple[Any, tuple[Any, ...]], Any] = {}
        self.memo: dict[Any, Any] = {}

    def outputs(self) -> dict[str, list[Any]]:
        f = self.formula
        wanted: dict[Any, dict[tuple[Any, ...], Any]] = {_parts(symbol)[0]: {} for symbol, _ in f.lets}
        asked = {}
        for name, e in f.items():
            asked[name] = [self._at(e, f.axes[name], index) for index in np.ndindex(f._shapes[name])]
            for entry in asked[name]:
                self._want(entry, wanted)
        for symbol, e in reversed(f.lets):
            base, formal = _parts(symbol)
            for index in wanted[base]:
                wanted[base][index] = self._at(e, formal, index)
                self._want(wanted[base][index], wanted)
        for symbol, _ in f.lets:
            base, _ = _parts(symbol)
            for index, e in wanted[base].items():
                self.known[base, index] = self._number(e, str(symbol))
        return {name: [self._number(e, name) for e in entries] for name, entries in asked.items()}

    def _at(self, e: Any, formal: tuple[Any, ...], index: tuple[Any, ...]) -> Any:
        """An expression at an index, its sums written out."""
        e = e.xreplace({**dict(zip(formal, map(sympy.Integer, index), strict=True)), **self.bound})
        while sums := e.atoms(sympy.Sum):
            inner = [s for s in sums if not s.function.atoms(sympy.Sum)]
            known = {}
            for s in inner:
                terms = [s.function]
                for k, low, high in s.limits:  # SymPy writes sums of sums as one
                    terms = [t.xreplace({k: sympy.Integer(i)}) for t in terms for i in range(int(low), int(high) + 1)]
                known[s] = sympy.Add(*terms)
            e = e.xreplace(known)
        positions = {}  # entries of arrays of integers may be indices of other entries
        for atom in e.atoms(sympy.Indexed):
            a = self.formula.arrays.get(atom.base)
            if a is not None and a.dtype.kind == "i" and all(i.is_Integer for i in atom.indices):
                positions[atom] = _entry(a[tuple(map(int, atom.indices))], self.digits)
        return e.xreplace(positions)

    def _want(self, e: Any, wanted: dict[Any, dict[tuple[Any, ...], Any]]) -> None:
        for atom in e.atoms(sympy.Symbol, sympy.Indexed):
            base, index = _parts(atom)
            if base in wanted:
                wanted[base].setdefault(tuple(index), None)

    def _number(self, e: Any, what: str) -> Any:
        known = {}
        for atom in e.atoms(sympy.Symbol, sympy.Indexed):
            base, index = _parts(atom)
            if (base, tuple(index)) in self.known:
                known[atom] = self.known[base, tuple(index)]
            elif base in self.formula.arrays:
                known[atom] = _entry(self.formula.arrays[base][tuple(map(int, index))], self.digits)
        e = e.xreplace(known)
        if e not in self.memo:
            value = e if e.is_Rational else e.evalf(self.digits)
            if not value.is_Rational and not (value.is_Float and value.is_finite):
                value = sympy.re(e.doit().evalf(self.digits)) if e.has(sympy.KroneckerDelta) else value
            if not (value.is_Rational or (value.is_Float and value.is_finite)):
                raise TensorProgramError(
                    f"{what} is {str(value)[:80]}, not a finite real number",
                    why="a symbol is free, or a function met an argument without a value",
                    fix="give every symbol a value, or see what tp.limit says",
                )
            self.memo[e] = value
        return self.memo[e]


def _entry(v: Any, digits: int) -> Any:
    if isinstance(v, (float, np.floating)):
        return sympy.Float(float(v), digits)
    return sympy.Integer(int(v)) if isinstance(v, (int, np.integer)) else sympy.Rational(v.numerator, v.denominator)
