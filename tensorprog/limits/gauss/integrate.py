"""Gaussian expectations by quadrature, at two resolutions, and by randomised quasi-Monte-Carlo.

`gaussian_expectation` does one to three dimensions by nested rules that know where the integrand is rough.
It states no error: the caller evaluates everything it depends on at level 0 and at level 1, and the
difference bounds the error of level 1, since level 0 has fewer nodes, other panels and a smaller range.
`qmc_expectation` gives one unbiased replicate of an integral in more dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from tensorprog.limits.gauss.nested import Curve, Indefinite, Integrand, nested_rule, psd_factor, radius
from tensorprog.limits.gauss.panels import Feature, rule

__all__ = [
    "MAX_DIMENSION",
    "Curve",
    "Feature",
    "Indefinite",
    "cholesky_in_order",
    "gaussian_expectation",
    "normal_points",
    "qmc_expectation",
]

Array = NDArray[np.float64]

#: Largest dimension of `gaussian_expectation`.
MAX_DIMENSION = 3
CONDITIONED = 1e-4
"""A curve is followed where its variable keeps this share of its deviation, given the others."""

#: QMC values done together.
_QMC_BLOCK = 2**21


def gaussian_expectation(
    f: Integrand,
    mean: ArrayLike,
    cov: ArrayLike,
    params: Sequence[ArrayLike] = (),
    features: Sequence[Feature] = (),
    level: int = 1,
    curves: Sequence[Curve] = (),
    count: Callable[[int], None] = lambda points: None,
    foresee: Callable[[float], None] = lambda points: None,
) -> Array:
    """Expectations ``E f(z)``, ``z ~ N(mean, cov)``, for a batch of Gaussians.

    Args:
        f: ``f(z, p)`` with z a list of d arrays of shape (b, 1) or (b, n), p a list of arrays of shape (b, 1); returns
            an array that broadcasts to their common shape. Called many times with parts of the batch.
        mean: Means, shape (B, d), d = 0, ..., 3.
        cov: Covariances, shape (B, d, d), positive semidefinite up to rounding; may be singular. Exact duplicates,
            opposites and constants among the variables are treated exactly. Level 1 takes correlations within 9e-16
            of +-1 for exact, level 0 only within rounding of `cov`; the levels differ where this matters.
        params: Parameters, each of shape (B,).
        features: Where the integrand is rough; without them it is taken to be smooth on the scale of the Gaussian.
        level: 0 (coarse), 1 (fine, near rounding) or more (each halves the panels of the one before).
        curves: Kinks of one variable along functions of the others. NaN where that variable is determined by the others:
            a curve cannot be followed then.
        count: Told what finding the panels costs, in evaluations, before it is done; it may object.
        foresee: Told what is to come, as far as a few inner integrals show; it may object.

    Returns:
        Shape (B,). NaN where the mean or covariance is not finite, and where the integrand has not decayed at 32
        standard deviations (the integral diverges or overflows).

    Raises:
        NotImplementedError: d > 3.
        ValueError: shapes disagree, a feature names no variable, or a covariance is indefinite.

    Example:
        >>> cov = [[[1.0, 0.5], [0.5, 1.0]]]
        >>> kinks = [Feature(0, 0.0), Feature(1, 0.0)]
        >>> value = gaussian_expectation(lambda z, p: (z[0] > 0) * (z[1] > 0), [[0.0, 0.0]], cov, features=kinks)
        >>> print(f"{value[0]:.12f}")
        0.333333333333
    """
    mean, cov = np.asarray(mean, dtype=np.float64), np.asarray(cov, dtype=np.float64)
    if mean.ndim != 2 or cov.shape != (*mean.shape, mean.shape[1]):
        raise ValueError(f"mean must be (B, d) and cov (B, d, d), not {mean.shape} and {cov.shape}")
    size, dim = mean.shape
    if dim > MAX_DIMENSION:
        raise NotImplementedError(f"nested rules stop at dimension {MAX_DIMENSION}, not {dim}; use qmc_expectation")
    if any(not 0 <= feature.variable < dim for feature in features):
        raise ValueError(f"a feature names a variable outside 0, ..., {dim - 1}: {list(features)}")
    resolution = rule(level)
    columns = [np.broadcast_to(np.asarray(p, dtype=np.float64), (size,)) for p in params]
    result = np.full(size, np.nan)
    finite = np.flatnonzero(np.isfinite(mean).all(axis=1) & np.isfinite(cov).all(axis=(1, 2)))
    if not len(finite):
        return result

    # Smooth variables go innermost: they cost fewest panels and smooth nothing that the outer ones must resolve.
    rough = {feature.variable for feature in features}
    last = curves[0].variable if curves else -1
    arranged = np.array(sorted(range(dim), key=lambda i: (i == last, i not in rough)), dtype=np.intp)
    factor, order = psd_factor(cov[finite][:, arranged[:, None], arranged[None, :]], resolution.singular)
    if curves:
        followed = (order[:, -1] == dim - 1) & (factor[:, -1, -1] > CONDITIONED * np.sqrt(cov[finite][:, last, last]))
        finite, factor, order = finite[followed], factor[followed], order[followed]
        if not len(finite):
            return result
    # Entries that share the order of the variables, the rank pattern and the range are integrated together.
    pattern = np.diagonal(factor, axis1=1, axis2=2) > 0
    variables = arranged[order]
    original = np.empty_like(factor)
    np.put_along_axis(original, variables[:, :, None], factor, axis=1)
    reach = radius(f, mean[finite], original, [p[finite] for p in columns]) if dim else np.zeros(len(finite))
    key = np.concatenate([variables, pattern, reach[:, None]], axis=1)
    places = sorted(set(features), key=repr)
    groups, member = np.unique(key, axis=0, return_inverse=True)
    for number, group in enumerate(groups):
        if np.isnan(group[-1]):
            continue
        here = np.flatnonzero(member.ravel() == number)
        entries, active = finite[here], np.flatnonzero(group[dim:-1])
        own = [p[entries] for p in columns]
        slim = original[here][:, :, active]
        result[entries] = nested_rule(
            f, mean[entries], slim, own, places, group[-1], resolution, curves, count, foresee
        )
    return result


def qmc_expectation(
    f: Integrand,
    mean: ArrayLike,
    cov: ArrayLike,
    params: Sequence[ArrayLike],
    rng: np.random.Generator,
    points: int = 2**13,
    radial: float = 0,
) -> Array:
    """One replicate of a randomised quasi-Monte-Carlo estimate of ``E f(z)``, ``z ~ N(mean, cov)``.

    Scrambled Sobol points (Owen 1997), one set for the whole batch. Every replicate is unbiased; replicates with fresh
    randomness give a standard error.

    Args:
        f: As in `gaussian_expectation`; here z has shape (b, points).
        mean: Means, shape (B, d).
        cov: Covariances, shape (B, d, d), positive semidefinite up to rounding; may be singular.
        params: Parameters, each of shape (B,).
        rng: Source of the scrambling.
        points: Number of points, a power of two (Sobol points are balanced only then).
        radial: p, where f is homogeneous of degree -p: the radius is then integrated exactly.

    Returns:
        Shape (B,). NaN where the mean or covariance is not finite.

    Raises:
        ValueError: points is no power of two, shapes disagree, or a covariance is indefinite.
    """
    mean, cov = np.asarray(mean, dtype=np.float64), np.asarray(cov, dtype=np.float64)
    if mean.ndim != 2 or cov.shape != (*mean.shape, mean.shape[1]):
        raise ValueError(f"mean must be (B, d) and cov (B, d, d), not {mean.shape} and {cov.shape}")
    if points < 1 or points & (points - 1):
        raise ValueError(f"points must be a power of two, not {points}")
    size, dim = mean.shape
    columns = [np.broadcast_to(np.asarray(p, dtype=np.float64), (size,))[:, None] for p in params]
    normal = normal_points(dim, points, rng)
    result = np.full(size, np.nan)
    finite = np.flatnonzero(np.isfinite(mean).all(axis=1) & np.isfinite(cov).all(axis=(1, 2)))
    step = max(1, _QMC_BLOCK // (points * max(dim, 1)))
    for start in range(0, len(finite), step):
        part = finite[start : start + step]
        factor = _principal_factor(cov[part])
        z = mean[part, :, None] + factor @ normal
        value = f([z[:, i] for i in range(dim)], [p[part] for p in columns])
        if radial and not mean[part].any():
            value = value * _radius_integrated(factor, normal, radial)
        result[part] = np.broadcast_to(value, (len(part), points)).mean(axis=1)
    return result


def normal_points(dim: int, count: int, rng: np.random.Generator) -> Array:
    """Scrambled Sobol points made standard normal, (dim, count); any count, the first of the next power of two.

    52 bits reach 8 standard deviations; the default 30 cut the tails at 6. Points move to the middles of their cells, away
    from 0.
    """
    from scipy.stats import qmc  # takes most of a second to import

    unit = qmc.Sobol(max(dim, 1), bits=52, rng=rng).random_base2((count - 1).bit_length())[:count, :dim]
    return np.asarray(ndtri(unit + 2.0**-53).T)


def cholesky_in_order(cov: Array, order: Sequence[int]) -> Array:
    """``A`` with ``A A.T = cov``, (d, d), where the variable ``order[k]`` depends on the first k + 1 columns alone.

    A variable that those before it determine has no column of its own.
    """
    d = len(cov)
    variance = np.diagonal(cov)
    if np.any(variance < 0):
        raise Indefinite(f"a negative variance: {variance.min():.3g}")
    out = np.zeros((d, d))
    for k, i in enumerate(order):
        rest = variance[i] - out[i, :k] @ out[i, :k]
        if rest > 32 * d * np.finfo(np.float64).eps * variance[i]:
            out[i, k] = np.sqrt(rest)
            later = list(order[k + 1 :])
            out[later, k] = (cov[later, i] - out[later, :k] @ out[i, :k]) / out[i, k]
    return out


def _radius_integrated(factor: Array, normal: Array, p: float) -> Array:
    """r^p E r^-p, (B, points), r the radius in the coordinates that the factors use.

    E f = E[f r^p] E[r^-p] for f homogeneous of degree -p: the radius is independent of the direction. What is left is as
    bounded as f is on the sphere, whereas the variance of r^-p is infinite in 2 p dimensions and fewer.
    """
    used = np.any(factor != 0, axis=1)
    square = used.astype(float) @ (normal * normal)
    ranks = used.sum(-1)
    scale = [
        2 ** (-p / 2) * math.exp(math.lgamma((r - p) / 2) - math.lgamma(r / 2)) if r > p else math.nan for r in ranks
    ]
    return np.asarray(scale)[:, None] * square ** (p / 2)


def _principal_factor(cov: Array) -> Array:
    """``A`` with ``A A.T = cov``, shape (B, d, d), largest components first: the first Sobol coordinates are the best.

    Eigenvectors of the correlations, not of the covariances, so that small variances beside large ones stay exact.
    """
    variance = np.diagonal(cov, axis1=1, axis2=2)
    if np.any(variance < 0):
        raise Indefinite(f"cov has a negative variance: {variance.min():.3g}")
    deviation = np.sqrt(variance)
    inverse = np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > 0)
    value, vector = np.linalg.eigh(cov * inverse[:, :, None] * inverse[:, None, :])
    if np.any(value < -1e-10):
        raise Indefinite(f"cov is not positive semidefinite: its correlations have the eigenvalue {value.min():.1g}")
    rounding = 8 * variance.shape[1] * np.finfo(np.float64).eps
    root = np.sqrt(np.where(value > rounding, value, 0))
    return deviation[:, :, None] * (vector * root[:, None, :])[:, :, ::-1]
