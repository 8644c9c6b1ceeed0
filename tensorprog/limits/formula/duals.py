"""The closed forms that scalar programs end in, as SymPy functions."""

from __future__ import annotations

from typing import Any

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
from tensorprog.limits.formula.special_shares import Share, Shares

__all__ = ["named"]

named: dict[str, Any] = {
    "share": lambda logarithm, _, m, q: Share(logarithm, m, q),
    "shares": lambda logarithm, x, y, both, m, k, s, t, a, c, b: Shares(logarithm, m, k, a + s, c, b + t),
    "difference": lambda x, y, _: sympy.exp(x) - sympy.exp(y),
    "vanishing": lambda m, q: sympy.KroneckerDelta(m, 0) * sympy.KroneckerDelta(q, 0),
    "widened": lambda x, y, z, q, t: Residual(x, y, z, q + t),
    "arccos1": ArcCosineKernel,
    "arcsine": ArcSineKernel,
    "arcsine_noisy": lambda s, t, a, c, b: ArcSineKernel(a + s, c, b + t),
    "sign_mean": SignMean,
    "sign_pair": lambda m, k, s, t, a, c, b: SignPair(m, k, a + s, c, b + t),
    "density": Density,
    "pinv": PseudoInverse,
    "residual": Residual,
}
"""The rows of `limits/gauss/duals.py`, by name."""
