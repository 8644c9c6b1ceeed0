"""SymPy functions for shares of half lines and quadrants next to exponentials: the rows `share` and `shares` of `duals.py`."""

from __future__ import annotations

from typing import Any

import mpmath
import sympy

from tensorprog.limits.formula.special import Density, Named, SignMean, correlation_of

__all__ = ["Share", "Shares"]


class Share(Named):
    """exp(l) P(u > 0), u ~ N(m, q): arguments l, m, q; half of exp(l) where u is 0.

    Example:
        >>> Share(200, -20, 1), Share(200, -20, 1).evalf(8)
        (Share(200, -20, 1), 0.019897616)
    """

    nargs = 3
    _text = r"e^{{{0}}} \Phi\left(\frac{{{1}}}{{\sqrt{{{2}}}}}\right)"

    @classmethod
    def explicit(cls, logarithm: Any, m: Any, q: Any) -> Any:
        """The formula for a positive q."""
        return sympy.exp(logarithm) * sympy.erfc(-m / sympy.sqrt(2 * q)) / 2

    @classmethod
    def numeric(cls, logarithm: Any, m: Any, q: Any) -> Any:
        """Its value."""
        half = mpmath.mpf(1 + (m > 0) - (m < 0)) / 2
        return mpmath.exp(logarithm) * (mpmath.erfc(-m / mpmath.sqrt(2 * q)) / 2 if q > 0 else half)


class Shares(Named):
    """exp(l) P(u > 0, v > 0): arguments l, E u, E v, Var u, Cov(u, v), Var v.

    Of an exponential exp(w), l = log E exp(w), and of the signs of two variables under the law that it tilts. It has no
    elementary formula (Owen's T function); l and the means may be large together.

    Example:
        >>> Shares(0, 0, 0, 1, 0, 1).evalf(5), Shares(200, -20, -20, 1, 0, 1).evalf(8)
        (0.25000, 5.4790548e-91)
    """

    nargs = 6
    _text = (
        r"e^{{{0}}} \mathbb{{P}}_{{z \sim \mathcal{{N}}\left(\left({1}, {2}\right), "
        r"\left(\begin{{smallmatrix}}{3} & {4} \\ {4} & {5}\end{{smallmatrix}}\right)\right)}}"
        r"\left[z_1 > 0, z_2 > 0\right]"
    )

    def doit(self, deep: bool = True, **hints: Any) -> Any:
        """Itself, as there is no elementary formula."""
        return self.func(*[a.doit(**hints) for a in self.args]) if deep else self

    def fdiff(self, argindex: int = 1) -> Any:
        """The derivative: of l itself, of means and covariances by Price's theorem."""
        logarithm, m, k, a, c, b = self.args
        first = sympy.exp(logarithm) * Density(m, a) * (1 + SignMean(k - c * m / a, b - c**2 / a)) / 2
        second = sympy.exp(logarithm) * Density(k, b) * (1 + SignMean(m - c * k / b, a - c**2 / b)) / 2
        if argindex in (1, 2, 3):
            return (self, first, second)[argindex - 1]
        if argindex == 5:
            return sympy.exp(logarithm) * Density(m, a) * Density(k - c * m / a, b - c**2 / a)
        s = sympy.Dummy(real=True)
        moved = first.xreplace({m: s}) if argindex == 4 else second.xreplace({k: s})
        slope = moved.xreplace({f: f.doit() for f in moved.atoms(Density, SignMean)}).diff(s)
        return slope.xreplace({s: m if argindex == 4 else k}) / 2

    @classmethod
    def numeric(cls, logarithm: Any, m: Any, k: Any, a: Any, c: Any, b: Any) -> Any:
        """The integral of exp(l) times a density times a normal distribution function, scaled by its largest value."""
        if a <= 0 or b <= 0:
            m, q, other = (k, b, m) if a <= 0 else (m, a, k)
            half = mpmath.mpf(1 + (other > 0) - (other < 0)) / 2
            return half * Share.numeric(logarithm, m, q)
        _, rho, rest = correlation_of(a, c, b)
        h, g = -m / mpmath.sqrt(a), -k / mpmath.sqrt(b)
        if rest == 0:
            low, high = (max(h, g), None) if rho > 0 else (h, -g)
            if high is None:
                return Share.numeric(logarithm, -low, mpmath.mpf(1))
            if high <= low:
                return mpmath.mpf(0)
            sides = (-low, -high) if low > 0 else (high, low)
            return Share.numeric(logarithm, sides[0], mpmath.mpf(1)) - Share.numeric(logarithm, sides[1], mpmath.mpf(1))

        def inside(t: Any) -> Any:
            x = (rho * t - g) / rest
            tail = mpmath.erfc(-x / mpmath.sqrt(2)) / 2
            return mpmath.exp(logarithm - t * t / 2) * tail / mpmath.sqrt(2 * mpmath.pi)

        # where the integrand is largest: at h, at its own top, or at that of the density given the other variable
        tops = [h, mpmath.mpf(0), rho * g]
        places = sorted({h, *[p + w for p in tops for w in (-8, -1, 1, 8) if p + w > h], *[p for p in tops if p > h]})
        tail = [h + mpmath.mpf(2) ** -j for j in range(0, 24, 3)]
        places = sorted({*places, *tail})
        return mpmath.quad(inside, [*places, mpmath.inf])
