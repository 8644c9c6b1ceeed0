"""What the symbols of a formula stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sympy

from tensorprog.limits.formula.special import (
    ArcCosineKernel,
    ArcSineKernel,
    Density,
    PseudoInverse,
    Residual,
    SignMean,
    SignPair,
)

if TYPE_CHECKING:
    from tensorprog.limits.formula.result import Formula

__all__ = ["legend_of"]

FUNCTIONS = {
    ArcCosineKernel: ("(a, c, b)", "E relu(u) relu(v), (u, v) ~ N(0, [[a, c], [c, b]])"),
    ArcSineKernel: ("(a, c, b)", "E sign(u) sign(v), (u, v) ~ N(0, [[a, c], [c, b]])"),
    SignMean: ("(m, q)", "E sign(u), u ~ N(m, q)"),
    SignPair: ("(m, k, a, c, b)", "E sign(u) sign(v), (u, v) ~ N([m, k], [[a, c], [c, b]])"),
    Density: ("(m, q)", "the density of N(m, q) at 0; 0 where q = 0"),
    PseudoInverse: ("(q)", "1/q, and 0 where q = 0"),
    Residual: ("(x, y, z, q)", "x - y z/q, and x where q = 0"),
}
"""A SymPy function of `special.py` to its arguments, and what it is."""

LETS = {
    "K": "a covariance",
    "m": "a mean",
    "c": "a part of the formula that occurs more than once",
    "P": "a softmax",
    "S": "a sum over an axis",
}
"""What the stems of let-bindings mean."""


def legend_of(formula: Formula) -> dict[str, str]:
    """Name or call to meaning: kernels, symbols of the data, hyperparameters, let-bindings, indices."""
    expressions = [e for _, e in formula.lets] + [formula[name] for name in formula]
    called = {type(f) for e in expressions for f in sympy.sympify(e).atoms(sympy.Function)}
    found = {f"{k.__name__}{text[0]}": text[1] for k, text in FUNCTIONS.items() if k in called}
    found |= formula.data
    found |= {name: "a hyperparameter" for name in formula.symbols if name not in formula.data}
    for symbol, _ in formula.lets:
        name = str(symbol.base.label if isinstance(symbol, sympy.Indexed) else symbol)
        found[name] = f"{LETS[name.rstrip('0123456789')]}, defined above"
    for axes in formula.axes.values():
        found |= {str(a): f"an index of the axis {a}" for a in axes}
    bound: set[Any] = {k for e in expressions for s in sympy.sympify(e).atoms(sympy.Sum) for k in s.variables}
    found |= {str(k): "an index that is summed over" for k in sorted(bound, key=str)}
    return found
