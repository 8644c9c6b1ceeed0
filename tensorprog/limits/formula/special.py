"""SymPy functions for the closed forms of the limit's scalar programs: kernels that keep their names.

Each closed form of `limits/gauss/duals.py` that is worth a name is a `sympy.Function` with its explicit formula (`doit`),
derivatives (`fdiff`), numbers at any precision (`evalf`) and LaTeX; the table is in `limits/formula/duals.py`.
Values at zero variance and at correlation +-1 are those of `duals.py`: `PseudoInverse(0)` and `Density(m, 0)` are 0.
"""

from __future__ import annotations

from typing import Any

import mpmath
import sympy

__all__ = [
    "GUARD",
    "ArcCosineKernel",
    "ArcSineKernel",
    "Density",
    "PseudoInverse",
    "Residual",
    "SignMean",
    "SignPair",
    "Named",
    "correlation_of",
    "mpf",
]

GUARD = 20
"""Bits beyond what was asked for."""


class Named(sympy.Function):
    """A closed form that keeps its name until `doit`."""

    _text = ""
    """LaTeX, with {0}, {1}, ... for the arguments."""

    @classmethod
    def explicit(cls, *args: Any) -> Any:
        """The formula."""
        raise NotImplementedError

    @classmethod
    def numeric(cls, *args: Any) -> Any:
        """Its value; called with mpmath numbers at the working precision."""
        raise NotImplementedError

    def _eval_is_real(self) -> bool:
        return True

    def doit(self, deep: bool = True, **hints: Any) -> Any:
        """The explicit formula."""
        args = [a.doit(**hints) for a in self.args] if deep else self.args
        return self.explicit(*args)

    def fdiff(self, argindex: int = 1) -> Any:
        """The derivative in one argument, of the explicit formula."""
        symbols = [sympy.Dummy(positive=True) for _ in self.args]
        slope = self.explicit(*symbols).diff(symbols[argindex - 1])
        return slope.xreplace(dict(zip(symbols, self.args, strict=True)))

    def _eval_evalf(self, prec: int) -> Any:
        values = mpf(self.args, prec + GUARD)
        if values is None:
            return None
        with mpmath.workprec(prec + GUARD):
            value = self.numeric(*values)
        return sympy.Float._new(value._mpf_, prec)

    def _latex(self, printer: Any, exp: Any = None) -> str:
        text = self._text.format(*map(printer._print, self.args))
        return text if exp is None else rf"{{{text}}}^{{{exp}}}"


def mpf(args: Any, prec: int) -> list[Any] | None:
    """Numbers as mpmath numbers; None if one is not a real number."""
    out = []
    for a in args:
        value = a if a.is_Float or a.is_Rational else a.evalf(int(prec / 3.32) + 3)
        if not (value.is_Float or value.is_Rational):
            return None
        out.append(value._to_mpmath(prec))
    return out


def _snap() -> Any:
    """What is smaller, relatively, is rounding: the arguments have the working precision less what they lost."""
    return mpmath.mpf(2) ** (-(3 * (mpmath.mp.prec - GUARD)) // 4)


def correlation_of(a: Any, c: Any, b: Any) -> tuple[Any, Any, Any]:
    """sqrt(ab), the correlation and sqrt(1 - correlation^2), in range whatever rounding has done."""
    size = mpmath.sqrt(max(a, 0) * max(b, 0))
    rho = c / size if size else mpmath.mpf(0)
    if abs(rho) > 1 - _snap():
        rho = mpmath.mpf(1 if rho > 0 else -1)
    return size, rho, mpmath.sqrt((1 - rho) * (1 + rho))


def _later(a: Any, b: Any) -> bool:
    """Are the two variances of a symmetric kernel in the wrong order?"""
    return a != b and sympy.default_sort_key(b) < sympy.default_sort_key(a)


class ArcCosineKernel(Named):
    """E relu(u) relu(v) for centred u, v: the arc-cosine kernel of order 1 (Cho & Saul 2009).

    `sqrt(a b)/(2 pi) (sin t + (pi - t) cos t)` with `cos t = c/sqrt(a b)`.

    Args:
        a: Var u.
        c: Cov(u, v).
        b: Var v.

    Example:
        >>> a, b = sympy.symbols("a b", positive=True)
        >>> ArcCosineKernel(a, 0, b), ArcCosineKernel(a, a, a)
        (sqrt(a)*sqrt(b)/(2*pi), a/2)
        >>> ArcCosineKernel(2, 1, 2).doit()
        sqrt(3)/(2*pi) + 1/3
    """

    nargs = 3
    _text = r"\kappa_1\left({0}, {1}, {2}\right)"

    @classmethod
    def eval(cls, a: Any, c: Any, b: Any) -> Any:
        """Where the value is simple."""
        if a.is_zero or b.is_zero:
            return sympy.S.Zero
        if c.is_zero:
            return sympy.sqrt(a) * sympy.sqrt(b) / (2 * sympy.pi)
        if a == b == c:
            return a / 2
        return cls(b, c, a) if _later(a, b) else None

    @classmethod
    def explicit(cls, a: Any, c: Any, b: Any) -> Any:
        """The formula."""
        size = sympy.sqrt(a * b)
        theta = sympy.acos(c / size)
        return sympy.expand(size / (2 * sympy.pi) * (sympy.sqrt(1 - c**2 / (a * b)) + (sympy.pi - theta) * c / size))

    @classmethod
    def numeric(cls, a: Any, c: Any, b: Any) -> Any:
        """Its value."""
        size, rho, root = correlation_of(a, c, b)
        return size / (2 * mpmath.pi) * (root + rho * mpmath.atan2(root, -rho))


class ArcSineKernel(Named):
    """E sign(u) sign(v) for centred u, v; with 1/2 added to both variances the kernel of erf (Williams 1997).

    Example:
        >>> ArcSineKernel(2, 1, 2), ArcSineKernel(2, 1, 2).doit()
        (ArcSineKernel(2, 1, 2), 1/3)
    """

    nargs = 3
    _text = r"\tfrac{{2}}{{\pi}} \arcsin \frac{{{1}}}{{\sqrt{{\left({0}\right) \left({2}\right)}}}}"

    @classmethod
    def eval(cls, a: Any, c: Any, b: Any) -> Any:
        """Where the value is simple."""
        if a.is_zero or b.is_zero or c.is_zero:
            return sympy.S.Zero
        if a == b == c and a.is_positive:
            return sympy.S.One
        return cls(b, c, a) if _later(a, b) else None

    @classmethod
    def explicit(cls, a: Any, c: Any, b: Any) -> Any:
        """The formula."""
        return 2 / sympy.pi * sympy.asin(c / sympy.sqrt(a * b))

    @classmethod
    def numeric(cls, a: Any, c: Any, b: Any) -> Any:
        """Its value."""
        _, rho, root = correlation_of(a, c, b)
        return 2 / mpmath.pi * mpmath.atan2(rho, root)

    def _latex(self, printer: Any, exp: Any = None) -> str:
        text = super()._latex(printer)
        return text if exp is None else rf"\left({text}\right)^{{{exp}}}"


class PseudoInverse(Named):
    """1/q, and 0 where q = 0 (Stein's form of Zdot: Tensor Programs III).

    Example:
        >>> PseudoInverse(3), PseudoInverse(0), PseudoInverse(sympy.Symbol("q"))
        (1/3, 0, PseudoInverse(q))
    """

    nargs = 1
    _text = r"\left({0}\right)^{{+}}"

    @classmethod
    def eval(cls, q: Any) -> Any:
        """1/q for a positive q."""
        if q.is_positive:
            return 1 / q
        return sympy.S.Zero if q.is_nonpositive else None

    @classmethod
    def explicit(cls, q: Any) -> Any:
        """The generic case."""
        return 1 / q

    @classmethod
    def numeric(cls, q: Any) -> Any:
        """Its value."""
        return 1 / q if q > 0 else mpmath.mpf(0)


class Residual(Named):
    """x - y z/q, and x where q = 0: means and covariances given a variable of variance q.

    Example:
        >>> Residual(3, 1, 1, 2), Residual(3, 1, 1, 0), Residual(3, 1, 1, sympy.Symbol("q"))
        (5/2, 3, (3 - 1/q))
    """

    nargs = 4

    @classmethod
    def eval(cls, x: Any, y: Any, z: Any, q: Any) -> Any:
        """The formula for exact numbers; with floating point ones a difference within rounding is 0."""
        if y.is_zero or z.is_zero or q.is_zero:
            return x
        exact = q.is_positive and all(a.is_number and not a.has(sympy.Float) for a in (x, y, z, q))
        return cls.explicit(x, y, z, q) if exact else None

    @classmethod
    def explicit(cls, x: Any, y: Any, z: Any, q: Any) -> Any:
        """The generic case."""
        return x - y * z / q

    @classmethod
    def numeric(cls, x: Any, y: Any, z: Any, q: Any) -> Any:
        """Its value."""
        taken = y * z / q if q > 0 else mpmath.mpf(0)
        return mpmath.mpf(0) if abs(x - taken) <= _snap() * max(abs(x), abs(taken)) else x - taken

    def _sympystr(self, printer: Any) -> str:
        return f"({printer._print(self.explicit(*self.args))})"

    def _latex(self, printer: Any, exp: Any = None) -> str:
        text = rf"\left({printer._print(self.explicit(*self.args))}\right)"
        return text if exp is None else rf"{text}^{{{exp}}}"


class Density(Named):
    """The density of N(m, q) at 0; 0 where q = 0.

    Example:
        >>> Density(0, 1), Density(1, 0), Density(0, sympy.Symbol("q"))
        (sqrt(2)/(2*sqrt(pi)), 0, Density(0, q))
    """

    nargs = 2
    _text = r"\mathcal{{N}}\left(0; {0}, {1}\right)"

    @classmethod
    def eval(cls, m: Any, q: Any) -> Any:
        """The formula for a positive q."""
        if q.is_nonpositive:
            return sympy.S.Zero
        return cls.explicit(m, q) if q.is_positive and not (m.has(sympy.Float) or q.has(sympy.Float)) else None

    @classmethod
    def explicit(cls, m: Any, q: Any) -> Any:
        """The generic case."""
        return sympy.exp(-(m**2) / (2 * q)) / sympy.sqrt(2 * sympy.pi * q)

    @classmethod
    def numeric(cls, m: Any, q: Any) -> Any:
        """Its value."""
        return mpmath.exp(-m * m / (2 * q)) / mpmath.sqrt(2 * mpmath.pi * q) if q > 0 else mpmath.mpf(0)


class SignMean(Named):
    """E sign(u), u ~ N(m, q).

    Example:
        >>> SignMean(1, 2), SignMean(-3, 0), SignMean(0, sympy.Symbol("q"))
        (erf(1/2), -1, 0)
    """

    nargs = 2
    _text = r"\operatorname{{erf}}\frac{{{0}}}{{\sqrt{{2 \left({1}\right)}}}}"

    @classmethod
    def eval(cls, m: Any, q: Any) -> Any:
        """The formula for a positive q, sign(m) for q = 0."""
        if m.is_zero:
            return sympy.S.Zero
        if q.is_nonpositive:
            return sympy.sign(m)
        return cls.explicit(m, q) if q.is_positive and not (m.has(sympy.Float) or q.has(sympy.Float)) else None

    @classmethod
    def explicit(cls, m: Any, q: Any) -> Any:
        """The generic case."""
        return sympy.erf(m / sympy.sqrt(2 * q))

    @classmethod
    def numeric(cls, m: Any, q: Any) -> Any:
        """Its value."""
        return mpmath.erf(m / mpmath.sqrt(2 * q)) if q > 0 else mpmath.mpf((m > 0) - (m < 0))


class SignPair(Named):
    """E sign(u) sign(v) of Gaussian u, v with means m, k: arguments m, k, Var u, Cov(u, v), Var v.

    It has no elementary formula (Owen's T function).

    Example:
        >>> SignPair(0, 0, 2, 1, 2), round(SignPair(1, 1, 2, 1, 2).evalf(), 12)
        (ArcSineKernel(2, 1, 2), 0.493808427486)
    """

    nargs = 5
    _text = (
        r"\mathbb{{E}}_{{z \sim \mathcal{{N}}\left(\left({0}, {1}\right), "
        r"\left(\begin{{smallmatrix}}{2} & {3} \\ {3} & {4}\end{{smallmatrix}}\right)\right)}}"
        r"\left[\operatorname{{sign}} z_1 \operatorname{{sign}} z_2\right]"
    )

    @classmethod
    def eval(cls, m: Any, k: Any, a: Any, c: Any, b: Any) -> Any:
        """Where it is simpler."""
        if m.is_zero and k.is_zero:
            return ArcSineKernel(a, c, b)
        return SignMean(m, a) * SignMean(k, b) if c.is_zero else None

    def doit(self, deep: bool = True, **hints: Any) -> Any:
        """Itself, as there is no elementary formula."""
        return self.func(*[a.doit(**hints) for a in self.args]) if deep else self

    def fdiff(self, argindex: int = 1) -> Any:
        """The derivative, by Price's theorem."""
        m, k, a, c, b = self.args
        if argindex == 1:
            return 2 * Density(m, a) * SignMean(k - c * m / a, b - c**2 / a)
        if argindex == 2:
            return 2 * Density(k, b) * SignMean(m - c * k / b, a - c**2 / b)
        if argindex == 4:
            return 4 * Density(m, a) * Density(k - c * m / a, b - c**2 / a)
        s = sympy.Dummy(real=True)
        moved = self.func(s, k, a, c, b).fdiff(1) if argindex == 3 else self.func(m, s, a, c, b).fdiff(2)
        slope = moved.xreplace({f: f.doit() for f in moved.atoms(Density, SignMean)}).diff(s)
        return slope.xreplace({s: m if argindex == 3 else k}) / 2

    @classmethod
    def numeric(cls, m: Any, k: Any, a: Any, c: Any, b: Any) -> Any:
        """4 P(u < 0, v < 0) - 2 P(u < 0) - 2 P(v < 0) + 1, the orthant by Plackett's integral over the correlation."""
        if a <= 0 or b <= 0:
            return SignMean.numeric(m, a) * SignMean.numeric(k, b)
        _, rho, root = correlation_of(a, c, b)
        h, g = -m / mpmath.sqrt(a), -k / mpmath.sqrt(b)
        p, q = mpmath.ncdf(h), mpmath.ncdf(g)
        if root == 0:
            both = min(p, q) if rho > 0 else max(p + q - 1, mpmath.mpf(0))
        else:

            def slope(t: Any) -> Any:
                return mpmath.exp(-(h * h - 2 * h * g * mpmath.sin(t) + g * g) / (2 * mpmath.cos(t) ** 2))

            both = p * q + mpmath.quad(slope, [0, mpmath.atan2(rho, root)]) / (2 * mpmath.pi)
        return 4 * both - 2 * p - 2 * q + 1
