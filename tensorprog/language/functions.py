"""The primitive functions: one row each, and everything the package knows about a function is in its row.

To add a nonlinearity, add a row. `tests/test_functions.py` fails until the row is complete and right: its derivative,
SymPy body, parity, kinks, homogeneity, rational values, closed form and domain are each checked against the array
implementation.

A row's `basis` writes the function with polynomials and the five functions whose Gaussian expectations are closed
(`limits/expect/closed.py`): `sign`, `smooth_sign`, `bump`, `gauss_exp`, `exp`, and `sin`, `cos`. Where there is none, the
limit integrates numerically.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError

__all__ = ["NORMAL", "PRIMITIVES", "TINY", "Primitive"]

NORMAL = float(np.finfo(float).tiny)
"""Floats below this have fewer digits."""
TINY = 5e-324
"""The smallest positive number: as a lower bound it stands for an open 0."""


@dataclass(frozen=True)
class Primitive:
    """One elementwise function of one argument, with numeric parameters.

    Attributes:
        name: As it prints, and as `tp.name` calls it.
        array: NumPy implementation, called with the array and the parameters.
        sympy: Its body, called with the sympy module, the symbol and the parameters.
        derivative: Called with the module `algebra`, the argument's node and the parameters; None where there is none
            (a Dirac's).
        parity: 1 odd, 0 even, None neither.
        kinks: Where it is not smooth.
        jumps: Is it discontinuous at its kinks?
        width: The scale on which it turns from one behaviour into another; 0 if it does nothing but kink.
        growth: "bounded", "linear" (at most), "exponential", or "singular" (unbounded at a finite point).
        lipschitz: Is it (pseudo-)Lipschitz, as Tensor Programs asks of functions with scalar parameters?
        homogeneity: k if f(c x) = c^k f(x) for every c > 0, else None.
        parameters: Names of the parameters.
        least: The least value of the parameter; None for all reals.
        exact: A rational for a rational argument, or None when the value is not rational; None if it never is.
        basis: The function in terms of the basis, like `derivative`.
        domain: (lowest argument, is it included?) or None for all reals; `reciprocal` excludes 0 only.
        bounds: Between what its values lie; `TINY` below where they are positive and come arbitrarily close to 0.
        monotone: Is it nondecreasing?
        decay: p if it is positive and tends to 0 like exp(-c |x|^p), 1 or 2; else 0.
        latex: A template with {x} and the parameters.
        source: Where it comes from.
    """

    name: str
    array: Callable[..., np.ndarray]
    sympy: Callable[..., Any]
    derivative: Callable[..., Any] | None
    parity: int | None = None
    kinks: tuple[float, ...] = ()
    jumps: bool = False
    width: float = 1.0
    growth: str = "bounded"
    lipschitz: bool = True
    homogeneity: int | None = None
    parameters: tuple[str, ...] = ()
    least: float | None = None
    exact: Callable[..., Any] | None = None
    basis: Callable[..., Any] | None = None
    domain: tuple[float, bool] | None = None
    bounds: tuple[float, float] = (-math.inf, math.inf)
    monotone: bool = False
    decay: int = 0
    latex: str = ""
    source: str = ""

    def refused(self, values: Any) -> np.ndarray:
        """Where it has no value."""
        values = np.asarray(values, dtype=float)
        if self.domain is None:
            return np.zeros(values.shape, dtype=bool)
        low, included = self.domain
        return values == 0 if self.name == "reciprocal" else values < low if included else values <= low


def _special(name: str) -> Callable[..., np.ndarray]:
    """A function of scipy.special, imported when first used (it costs a tenth of a second)."""

    def call(x: Any) -> Any:
        import scipy.special

        return getattr(scipy.special, name)(x)

    return call


_erf, _expit, _ndtr = _special("erf"), _special("expit"), _special("ndtr")


def _smooth_sign(x: Any, t: Any) -> Any:
    return np.sign(x) if t == 0 else _erf(x / math.sqrt(2 * float(t)))


def _bump(x: Any, t: Any) -> Any:
    if t == 0:
        raise TensorProgramError(
            "a Dirac delta has no values",
            why="it is the derivative of a jump",
            fix="give a function without jumps there",
        )
    return np.exp(x * x / (-2 * float(t))) / math.sqrt(2 * math.pi * float(t))


def _sech2(x: Any) -> Any:
    e = np.exp(-2 * np.abs(x))
    return 4 * e / (1 + e) ** 2


def _leaky(x: Any, a: Any) -> Any:
    return np.where(x > 0, x, float(a) * x)


def _elu(x: Any, a: Any) -> Any:
    return np.where(x > 0, x, float(a) * np.expm1(np.minimum(x, 0)))


def _exact_reciprocal(v: Any) -> Any:
    return None if v == 0 else Fraction(1) / v


def _exact_sqrt(v: Any) -> Any:
    if v < 0:
        return None
    v = Fraction(v)
    p, q = math.isqrt(v.numerator), math.isqrt(v.denominator)
    return Fraction(p, q) if p * p == v.numerator and q * q == v.denominator else None


def _at_zero(value: int) -> Callable[..., Any]:
    return lambda v, *_: value if v == 0 else None


def _sign(v: Any) -> int:
    return (v > 0) - (v < 0)


def _half(a: Any, node: Any) -> Any:
    return a.scale(Fraction(1, 2), node)


def _one_plus(a: Any, node: Any) -> Any:
    return a.add([(1, a.ONE), (1, node)])


_ROWS = [
    # ---- kinked functions ----
    Primitive(
        "relu", lambda x: np.maximum(x, 0), lambda s, x: s.Max(x, 0), lambda a, x: a.fn("step", x), kinks=(0.0,),
        width=0.0,
        growth="linear", homogeneity=1, exact=lambda v: max(v, 0),
        basis=lambda a, x: _half(a, a.mul([x, _one_plus(a, a.fn("sign", x))])),
        bounds=(0, math.inf), monotone=True,
        latex=r"\mathrm{{relu}}({x})",
    ),
    Primitive(
        "leaky_relu", _leaky, lambda s, x, c: s.Max(x, 0) + c * s.Min(x, 0),
        lambda a, x, c: a.add([(1 - c, a.fn("step", x)), (c, a.ONE)]), kinks=(0.0,), width=0.0, growth="linear", homogeneity=1,
        parameters=("slope",), exact=lambda v, c: v if v > 0 else c * v,
        basis=lambda a, x, c: _half(a, a.add([(1 + c, x), (1 - c, a.mul([x, a.fn("sign", x)]))])),
        latex=r"\mathrm{{lrelu}}_{{{slope}}}({x})",
    ),
    Primitive(
        "abs", np.abs, lambda s, x: s.Abs(x), lambda a, x: a.fn("sign", x), parity=0, kinks=(0.0,), width=0.0,
        growth="linear",
        homogeneity=1, exact=abs, basis=lambda a, x: a.mul([x, a.fn("sign", x)]),
        bounds=(0, math.inf),
        latex=r"\lvert {x} \rvert",
    ),
    Primitive(
        "sign", np.sign, lambda s, x: s.sign(x), lambda a, x: a.scale(2, a.fn("bump", x, 0)), parity=1, kinks=(0.0,),
        jumps=True,
        width=0.0, lipschitz=False, homogeneity=0, exact=_sign, basis=lambda a, x: a.fn("smooth_sign", x, 0),
        bounds=(-1, 1), monotone=True,
        latex=r"\mathrm{{sign}}({x})",
    ),
    Primitive(
        "step", lambda x: np.heaviside(x, 0.5), lambda s, x: s.Heaviside(x), lambda a, x: a.fn("bump", x, 0),
        kinks=(0.0,),
        jumps=True, width=0.0, lipschitz=False, homogeneity=0, exact=lambda v: Fraction(1 + _sign(v), 2),
        basis=lambda a, x: _half(a, _one_plus(a, a.fn("smooth_sign", x, 0))),
        bounds=(0, 1), monotone=True,
        latex=r"\mathbb{{1}}_{{{x} > 0}}",
        source="value 1/2 at 0, so that step = (1 + sign)/2 everywhere",
    ),
    Primitive(
        "elu", _elu, lambda s, x, c: s.Piecewise((x, x > 0), (c * (s.exp(x) - 1), True)),
        lambda a, x, c: a.add([(1, a.fn("step", x)), (c, a.mul([a.fn("exp", x), a.fn("step", a.neg(x))]))]),
        kinks=(0.0,), width=1.0, growth="linear", parameters=("alpha",), exact=lambda v, c: v if v >= 0 else None,
        basis=lambda a, x, c: a.add([
            (Fraction(1, 2), a.mul([x, _one_plus(a, a.fn("sign", x))])),
            (Fraction(1, 2) * c, a.mul([a.add([(1, a.fn("exp", x)), (-1, a.ONE)]), a.add([(1, a.ONE), (-1, a.fn("sign", x))])])),
        ]),
        latex=r"\mathrm{{elu}}({x})",
    ),
    # ---- smooth functions ----
    Primitive(
        "erf", _erf, lambda s, x: s.erf(x), lambda a, x: a.scale(2, a.fn("bump", x, Fraction(1, 2))), parity=1,
        exact=_at_zero(0), basis=lambda a, x: a.fn("smooth_sign", x, Fraction(1, 2)),
        bounds=(-1, 1), monotone=True,
        latex=r"\mathrm{{erf}}({x})",
    ),
    Primitive(
        "normal_cdf", _ndtr, lambda s, x: (1 + s.erf(x / s.sqrt(2))) / 2, lambda a, x: a.fn("bump", x, 1),
        exact=lambda v: Fraction(1, 2) if v == 0 else None, basis=lambda a, x: _half(a, _one_plus(a, a.fn("smooth_sign", x, 1))),
        bounds=(0, 1), monotone=True, decay=2,
        latex=r"\Phi({x})",
    ),
    Primitive(
        "gelu", lambda x: x * _ndtr(x), lambda s, x: x * (1 + s.erf(x / s.sqrt(2))) / 2,
        lambda a, x: a.add([(1, a.fn("normal_cdf", x)), (1, a.mul([x, a.fn("bump", x, 1)]))]), growth="linear",
        exact=_at_zero(0), basis=lambda a, x: _half(a, a.mul([x, _one_plus(a, a.fn("smooth_sign", x, 1))])),
        latex=r"\mathrm{{gelu}}({x})", source="x Phi(x), without the tanh approximation",
    ),
    Primitive(
        "tanh", np.tanh, lambda s, x: s.tanh(x), lambda a, x: a.add([(1, a.ONE), (-1, a.power(a.fn("tanh", x), 2))]),
        parity=1,
        exact=_at_zero(0),
        bounds=(-1, 1), monotone=True,
        latex=r"\tanh({x})",
    ),
    Primitive(
        "sigmoid", _expit, lambda s, x: 1 / (1 + s.exp(-x)),
        lambda a, x: a.mul([a.fn("sigmoid", x), a.fn("sigmoid", a.neg(x))]),
        exact=lambda v: Fraction(1, 2) if v == 0 else None,
        bounds=(TINY, 1), monotone=True, decay=1,
        latex=r"\sigma({x})",
    ),
    Primitive(
        "softplus", lambda x: np.logaddexp(x, 0), lambda s, x: s.log(1 + s.exp(x)), lambda a, x: a.fn("sigmoid", x),
        growth="linear",
        bounds=(TINY, math.inf), monotone=True, decay=1,
        latex=r"\mathrm{{softplus}}({x})",
    ),
    Primitive(
        "silu", lambda x: x * _expit(x), lambda s, x: x / (1 + s.exp(-x)),
        lambda a, x: a.add([(1, a.fn("sigmoid", x)), (1, a.mul([x, a.fn("sigmoid", x), a.fn("sigmoid", a.neg(x))]))]),
        growth="linear", exact=_at_zero(0), latex=r"\mathrm{{silu}}({x})",
    ),
    Primitive(
        "sin", np.sin, lambda s, x: s.sin(x), lambda a, x: a.fn("cos", x), parity=1, exact=_at_zero(0),
        basis=lambda a, x: a.fn("sin", x),
        bounds=(-1, 1),
        latex=r"\sin({x})",
    ),
    Primitive(
        "cos", np.cos, lambda s, x: s.cos(x), lambda a, x: a.neg(a.fn("sin", x)), parity=0, exact=_at_zero(1),
        basis=lambda a, x: a.fn("cos", x),
        bounds=(-1, 1),
        latex=r"\cos({x})",
    ),
    Primitive(
        "exp", np.exp, lambda s, x: s.exp(x), lambda a, x: a.fn("exp", x), growth="exponential", lipschitz=False,
        exact=_at_zero(1), basis=lambda a, x: a.fn("exp", x),
        bounds=(TINY, math.inf), monotone=True, decay=1,
        latex=r"e^{{{x}}}",
    ),
    Primitive(
        "gaussian", lambda x: np.exp(-x * x), lambda s, x: s.exp(-(x**2)),
        lambda a, x: a.scale(-2, a.mul([x, a.fn("gaussian", x)])), parity=0, exact=_at_zero(1),
        basis=lambda a, x: a.fn("gauss_exp", x, 1),
        bounds=(TINY, 1), decay=2,
        latex=r"e^{{-({x})^2}}", source="exp(-x^2), as in neural-tangents",
    ),
    Primitive("arctan", np.arctan, lambda s, x: s.atan(x), lambda a, x: a.fn("reciprocal", _one_plus(a, a.power(x, 2))), parity=1,
              exact=_at_zero(0),
              bounds=(-math.pi / 2, math.pi / 2), monotone=True,
              latex=r"\arctan({x})"),
    Primitive("log1p", np.log1p, lambda s, x: s.log(1 + x), lambda a, x: a.fn("reciprocal", _one_plus(a, x)), growth="singular",
              lipschitz=False, exact=_at_zero(0), domain=(-1.0, False),
              monotone=True,
              latex=r"\log(1 + {x})"),
    Primitive("log", np.log, lambda s, x: s.log(x), lambda a, x: a.fn("reciprocal", x), growth="singular", lipschitz=False,
              exact=lambda v: 0 if v == 1 else None, domain=(0.0, False),
              monotone=True,
              latex=r"\log({x})"),
    Primitive("sqrt", np.sqrt, lambda s, x: s.sqrt(x), lambda a, x: _half(a, a.fn("reciprocal", a.fn("sqrt", x))),
              growth="linear", lipschitz=False, exact=_exact_sqrt, domain=(0.0, True),
              bounds=(0, math.inf), monotone=True,
              latex=r"\sqrt{{{x}}}"),
    Primitive("reciprocal", lambda x: 1.0 / x, lambda s, x: 1 / x, lambda a, x: a.neg(a.power(a.fn("reciprocal", x), 2)),
              parity=1, growth="singular", lipschitz=False, exact=_exact_reciprocal, domain=(0.0, False),
              latex=r"\frac{{1}}{{{x}}}"),
    # ---- what derivatives and the limit need ----
    Primitive(
        "sech2", _sech2, lambda s, x: s.sech(x)**2,
        lambda a, x: a.scale(-2, a.mul([a.fn("tanh", x), a.fn("sech2", x)])), parity=0, exact=_at_zero(1),
        bounds=(TINY, 1), decay=1,
        latex=r"\mathrm{{sech}}^2({x})", source="1/cosh(x)^2 = 1 - tanh(x)^2, which keeps no digits where tanh is near 1",
    ),
    Primitive(
        "smooth_sign", _smooth_sign, lambda s, x, t: s.sign(x) if t == 0 else s.erf(x / s.sqrt(2 * t)),
        lambda a, x, t: a.scale(2, a.fn("bump", x, t)), parity=1, exact=lambda v, t: _sign(v) if t == 0 or v == 0 else None,
        parameters=("variance",), least=0, basis=lambda a, x, t: a.fn("smooth_sign", x, t),
        bounds=(-1, 1), monotone=True,
        latex=r"\mathrm{{sign}}_{{{variance}}}({x})",
        source="E sign(x + sqrt(variance) g), g ~ N(0, 1): erf is variance 1/2, 2 Phi - 1 variance 1",
    ),
    Primitive(
        "bump", _bump, lambda s, x, t: s.DiracDelta(x) if t == 0 else s.exp(-(x**2) / (2 * t)) / s.sqrt(2 * s.pi * t),
        lambda a, x, t: a.scale(-Fraction(1) / t, a.mul([x, a.fn("bump", x, t)])), parity=0, lipschitz=False,
        parameters=("variance",), least=0, basis=lambda a, x, t: a.fn("bump", x, t),
        bounds=(0, math.inf), decay=2,
        latex=r"\mathcal{{N}}_{{{variance}}}({x})",
        source="the density of N(0, variance); a Dirac delta at variance 0, which has no values",
    ),
    Primitive(
        "gauss_exp", lambda x, c: np.exp(-float(c) * x * x), lambda s, x, c: s.exp(-c * x**2),
        lambda a, x, c: a.scale(-2 * c, a.mul([x, a.fn("gauss_exp", x, c)])), parity=0, exact=_at_zero(1),
        parameters=("rate",), least=0,
        basis=lambda a, x, c: a.fn("gauss_exp", x, c),
        bounds=(0, 1), decay=2,
        latex=r"e^{{-{rate} ({x})^2}}",
    ),
]  # fmt: skip

PRIMITIVES: dict[str, Primitive] = {row.name: row for row in _ROWS}
