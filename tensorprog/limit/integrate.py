"""Gaussian expectations by quadrature, at two resolutions, and by randomised quasi-Monte-Carlo.

`gaussian_expectation` does one to three dimensions by nested rules that know where the integrand is rough.
`pair_expectation` does large arrays of ``E f(u) g(v)`` by Mehler's series, and by nested rules where it converges too
slowly. Neither states an error: the caller evaluates everything it depends on at level 0 and at level 1, and the
difference bounds the error of level 1, since level 0 has fewer nodes, other panels and a smaller range.
`qmc_expectation` gives one unbiased replicate of an integral in more dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri
from scipy.stats import qmc

from tensorprog.limit.nested import Feature, Integrand, line_rule, nested_rule, psd_factor, radius, rule

__all__ = ["MAX_DIMENSION", "Feature", "gaussian_expectation", "pair_expectation", "qmc_expectation"]

Array = NDArray[np.float64]

#: Largest dimension of `gaussian_expectation`.
MAX_DIMENSION = 3

#: Degrees at which Mehler's series may stop. All coefficients up to the last degree of a row are computed together.
_DEGREES = ((8, 16, 32), (64, 128), (256, 512))
#: Entries of a Mehler sum done together, nodes of Hermite coefficients done together, and QMC values done together.
_SUM_BLOCK, _NODE_BLOCK, _QMC_BLOCK = 2**13, 2**16, 2**21
#: Squared norms are not known better than this, relatively; so neither are the tails of a Hermite expansion.
_NORM_ROUNDING = 1e-15


def gaussian_expectation(
    f: Integrand,
    mean: ArrayLike,
    cov: ArrayLike,
    params: Sequence[ArrayLike] = (),
    features: Sequence[Feature] = (),
    level: int = 1,
) -> Array:
    """Expectations ``E f(z)``, ``z ~ N(mean, cov)``, for a batch of Gaussians.

    Args:
        f: ``f(z, p)`` with z a list of d arrays of shape (b, 1) or (b, n), p a list of arrays of shape (b, 1); returns
            an array that broadcasts to their common shape. Called many times with parts of the batch.
        mean: Means, shape (B, d), d = 0, ..., 3.
        cov: Covariances, shape (B, d, d), positive semidefinite up to rounding; may be singular. Exact duplicates,
            opposites and constants among the variables are treated exactly. Correlations within about 1e-15 of
            +-1 count as exact, because rounding of `cov` cannot be told from a difference there.
        params: Parameters, each of shape (B,).
        features: Where the integrand is rough; without them it is taken to be smooth on the scale of the Gaussian.
        level: 0 (coarse), 1 (fine, near rounding) or more (each halves the panels of the one before).

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
    params = [np.broadcast_to(np.asarray(p, dtype=np.float64), (size,)) for p in params]
    result = np.full(size, np.nan)
    finite = np.flatnonzero(np.isfinite(mean).all(axis=1) & np.isfinite(cov).all(axis=(1, 2)))
    if not len(finite):
        return result

    # Smooth variables go innermost: they cost fewest panels and smooth nothing that the outer ones must resolve.
    rough = {feature.variable for feature in features}
    arranged = np.array(sorted(range(dim), key=lambda i: i not in rough), dtype=np.intp)
    factor, order = psd_factor(cov[finite][:, arranged[:, None], arranged[None, :]])
    # Entries that share the order of the variables, the rank pattern and the range are integrated together.
    pattern = np.diagonal(factor, axis1=1, axis2=2) > 0
    variables = arranged[order]
    original = np.empty_like(factor)
    np.put_along_axis(original, variables[:, :, None], factor, axis=1)
    reach = radius(f, mean[finite], original, [p[finite] for p in params]) if dim else np.zeros(len(finite))
    key = np.concatenate([variables, pattern, reach[:, None]], axis=1)
    groups, member = np.unique(key, axis=0, return_inverse=True)
    for number, group in enumerate(groups):
        if np.isnan(group[-1]):
            continue
        here = np.flatnonzero(member.ravel() == number)
        entries, columns = finite[here], np.flatnonzero(group[dim:-1])
        active = [p[entries] for p in params]
        result[entries] = nested_rule(
            f, mean[entries], original[here][:, :, columns], active, sorted(set(features), key=repr), group[-1],
            resolution,
        )  # fmt: skip
    return result


def pair_expectation(
    f: Callable[[Array], Array],
    g: Callable[[Array], Array],
    mean: tuple[ArrayLike, ArrayLike],
    var: tuple[ArrayLike, ArrayLike],
    cov: ArrayLike,
    features_f: Sequence[Feature] = (),
    features_g: Sequence[Feature] = (),
    level: int = 1,
) -> Array:
    """Expectations ``E f(u) g(v)`` over many pairs with few distinct marginals.

    Mehler's formula: ``E f(u) g(v) = sum_k rho**k a_k b_k`` with a_k, b_k the coefficients of ``f(mean + sd x)`` and
    ``g`` in normalised Hermite polynomials. By Cauchy-Schwarz and Parseval the terms beyond K are at most
    ``|rho|**(K+1)`` times the norms of what is left of f and g, which decides K for each pair. Pairs that would need
    more than 512 terms go to `gaussian_expectation`.

    Args:
        f: Elementwise function of one array.
        g: Elementwise function of one array.
        mean: Means of u and v, each broadcastable to the shape of `cov`.
        var: Variances of u and v, likewise.
        cov: Covariances, shape (B,) (or any shape).
        features_f: Where f is rough; the field `variable` is not used.
        features_g: Where g is rough; the field `variable` is not used.
        level: As in `gaussian_expectation`; a level also sets how long the series is.

    Returns:
        The shape of `cov`. Level 1 is accurate to about 1e-14 of ``sqrt(E f(u)**2 E g(v)**2)``. NaN as in
        `gaussian_expectation`.

    Raises:
        ValueError: a variance is negative or ``|cov|`` exceeds ``sqrt(var[0] * var[1])`` by more than rounding.

    Example:
        >>> value = pair_expectation(np.sin, np.sin, (0.0, 0.0), (1.0, 1.0), [0.5])
        >>> print(f"{value[0]:.12f} {np.exp(-1) * np.sinh(0.5):.12f}")
        0.191700142423 0.191700142423
    """
    cov = np.asarray(cov, dtype=np.float64)
    shape, cov = cov.shape, cov.ravel()
    columns = [np.broadcast_to(np.asarray(x, dtype=np.float64), shape).ravel() for x in (*mean, *var)]
    mean_f, mean_g, var_f, var_g = columns
    result = np.full(len(cov), np.nan)
    finite = np.isfinite(cov + sum(columns))
    deviation = np.sqrt(np.where(finite, var_f, 0)) * np.sqrt(np.where(finite, var_g, 0))
    rho = np.divide(cov, deviation, out=np.zeros_like(cov), where=finite & (deviation > 0))
    if np.any(np.abs(rho) > 1 + 1e-10):
        raise ValueError("|cov| exceeds the square root of the product of the variances")
    rho = np.clip(rho, -1, 1)

    pending = np.flatnonzero(finite)
    tolerance = 1e-12 if level == 0 else 2e-15
    for degrees in _DEGREES:
        if not len(pending):
            break
        left = _Expansion.of(f, mean_f[pending], var_f[pending], features_f, degrees[-1], level)
        right = _Expansion.of(g, mean_g[pending], var_g[pending], features_g, degrees[-1], level)
        # Expansions of rows that few pairs share cost more than they save.
        if degrees[-1] > 128 and len(pending) < 8 * (left.coefficients.shape[1] + right.coefficients.shape[1]):
            break
        for degree in degrees:
            tail = np.abs(rho[pending]) ** (degree + 1) * left.tail[degree, left.row] * right.tail[degree, right.row]
            good = tail <= tolerance * left.tail[-1, left.row] * right.tail[-1, right.row]
            result[pending[good]] = _mehler(left.only(good), right.only(good), rho[pending[good]], degree)
            pending, left, right = pending[~good], left.only(~good), right.only(~good)
    if len(pending):
        features = [replace(x, variable=0) for x in features_f] + [replace(x, variable=1) for x in features_g]
        matrix = np.stack([var_f[pending], cov[pending], cov[pending], var_g[pending]], axis=1).reshape(-1, 2, 2)
        centre = np.stack([mean_f[pending], mean_g[pending]], axis=1)
        result[pending] = gaussian_expectation(
            lambda z, _: f(z[0]) * g(z[1]), centre, matrix, features=features, level=level
        )
    return result.reshape(shape)
