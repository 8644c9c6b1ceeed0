"""Gaussian expectations without a closed form, as SymPy expressions."""

from __future__ import annotations

from typing import Any

import sympy

from tensorprog.limits.formula.special import GUARD, mpf

__all__ = ["GaussianExpectation"]


class GaussianExpectation(sympy.Expr):
    """E f(z), z ~ N(m, K), unevaluated.

    Args:
        body: f, an expression in the variables.
        variables: Symbols; bound: nothing outside is called so.
        means: Their means.
        covariance: Entries of K, the lower triangle row by row.

    Example:
        >>> z, q = sympy.Symbol("z", real=True), sympy.Symbol("q", positive=True)
        >>> e = GaussianExpectation(sympy.tanh(z) ** 2, (z,), (0,), (q,))
        >>> e, e.free_symbols
        (E[tanh(z)**2; z ~ N(0, q)], {q})
        >>> e.subs(q, 1).evalf(20)
        0.39429449039784117442
    """

    is_commutative = True
    is_real = True

    def __new__(cls, body: Any, variables: Any, means: Any, covariance: Any) -> Any:
        """Deterministic bodies are their own expectation."""
        body, variables = sympy.sympify(body), sympy.Tuple(*variables)
        if not body.free_symbols & set(variables):
            return body
        return sympy.Expr.__new__(cls, body, variables, sympy.Tuple(*means), sympy.Tuple(*covariance))

    @property
    def body(self) -> Any:
        """f."""
        return self.args[0]

    @property
    def bound_symbols(self) -> list[Any]:
        """The variables."""
        return list(self.args[1])

    @property
    def free_symbols(self) -> set[Any]:
        """Symbols that are not bound."""
        found = self.body.free_symbols - set(self.bound_symbols)
        return found.union(*[a.free_symbols for a in (*self.args[2], *self.args[3])])

    def _eval_subs(self, old: Any, new: Any) -> Any:
        return self if old in self.bound_symbols else None

    def _eval_derivative(self, s: Any) -> Any:
        """Price's theorem: means act through first, covariances through second derivatives."""
        body, z, means, covariance = self.args

        def expect(f: Any) -> Any:
            return self.func(f, z, means, covariance)

        out = expect(body.diff(s))
        for v, m in zip(z, means, strict=True):
            if (slope := m.diff(s)) != 0:
                out += slope * expect(body.diff(v))
        pairs = [(i, j) for i in range(len(z)) for j in range(i + 1)]
        for (i, j), k in zip(pairs, covariance, strict=True):
            if (slope := k.diff(s)) != 0:
                out += slope * expect(body.diff(z[i], z[j])) / (2 if i == j else 1)
        return out

    def _eval_evalf(self, prec: int) -> Any:
        from tensorprog.limits.gauss.precise import expectation

        body, z, means, covariance = self.args
        values = mpf((*means, *covariance), prec + GUARD)
        if values is None or body.free_symbols - set(z):
            return None
        value = expectation(body, list(z), values[: len(z)], values[len(z) :], prec)
        return sympy.Float._new(value._mpf_, prec)

    def _rows(self) -> list[list[Any]]:
        k, n = self.args[3], len(self.args[1])
        return [[k[max(i, j) * (max(i, j) + 1) // 2 + min(i, j)] for j in range(n)] for i in range(n)]

    def _sympystr(self, printer: Any) -> str:
        body, z, means, covariance = self.args
        show = printer._print
        if len(z) == 1:
            return f"E[{show(body)}; {show(z[0])} ~ N({show(means[0])}, {show(covariance[0])})]"
        rows = ", ".join(["[" + ", ".join(map(show, row)) + "]" for row in self._rows()])
        return f"E[{show(body)}; {', '.join(map(show, z))} ~ N([{', '.join(map(show, means))}], [{rows}])]"

    def _latex(self, printer: Any, exp: Any = None) -> str:
        body, z, means, covariance = self.args
        show = printer._print
        if len(z) == 1:
            law = rf"{show(z[0])} \sim \mathcal{{N}}\left({show(means[0])}, {show(covariance[0])}\right)"
        else:
            mean = "0" if all(m.is_zero for m in means) else rf"\left({', '.join(map(show, means))}\right)"
            rows = r" \\ ".join([" & ".join(map(show, row)) for row in self._rows()])
            matrix = rf"\left(\begin{{smallmatrix}}{rows}\end{{smallmatrix}}\right)"
            law = rf"\left({', '.join(map(show, z))}\right) \sim \mathcal{{N}}\left({mean}, {matrix}\right)"
        text = rf"\mathbb{{E}}_{{{law}}}\left[{show(body)}\right]"
        return text if exp is None else rf"\left({text}\right)^{{{exp}}}"
