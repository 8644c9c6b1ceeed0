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

from tensorprog.limits.nested import Curve, Feature, Integrand, line_rule, nested_rule, psd_factor, radius, rule

__all__ = ["MAX_DIMENSION", "Curve", "Feature", "gaussian_expectation", "pair_expectation", "qmc_expectation"]

Array = NDArray[np.float64]

#: Largest dimension of `gaussian_expectation`.
MAX_DIMENSION = 3
CONDITIONED = 1e-4
"""A curve is followed where its variable keeps this share of its deviation, given the others."""

#: Degrees at which Mehler's series may stop. All coefficients up to the last degree of a row are computed together.
_DEGREES = ((4, 8, 12, 16, 24, 32), (48, 64, 96, 128), (192, 256, 384, 512))
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
    curves: Sequence[Curve] = (),
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
        result[entries] = nested_rule(f, mean[entries], slim, own, places, group[-1], resolution, curves)
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
        0.191700249782 0.191700249782
    """
    cov = np.asarray(cov, dtype=np.float64)
    shape, cov = cov.shape, cov.ravel()
    columns = [np.broadcast_to(np.asarray(x, dtype=np.float64), shape).ravel() for x in (*mean, *var)]
    mean_f, mean_g, var_f, var_g = columns
    result = np.full(len(cov), np.nan)
    finite = np.isfinite(cov + sum(columns))
    if np.any(np.minimum(var_f, var_g) < 0):
        raise ValueError("a variance is negative")
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
        left, right = _expand_both(f, g, [x[pending] for x in columns], features_f, features_g, degrees[-1], level)
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


class _Expansion:
    """Coefficients of ``f(mean + sd x)`` in normalised Hermite polynomials, for distinct (mean, variance) rows.

    Attributes:
        coefficients: Shape (K + 1, rows).
        tail: Shape (K + 2, rows): ``tail[k]`` is the L2 norm of what degrees 0, ..., k leave, ``tail[-1]`` the norm of
            f. NaN where f is not square integrable.
        row: The row of every pair, shape (pairs,).
    """

    def __init__(self, coefficients: Array, tail: Array, row: NDArray[np.intp]) -> None:
        self.coefficients, self.tail, self.row = coefficients, tail, row

    def only(self, mask: NDArray[np.bool_] | slice) -> _Expansion:
        """The same rows for some of the pairs."""
        return _Expansion(self.coefficients, self.tail, self.row[mask])

    @property
    def relative_size(self) -> Array:
        """Largest modulus of each coefficient relative to the norm, shape (K + 1,)."""
        norm = np.where(self.tail[-1] > 0, self.tail[-1], 1)
        return np.nanmax(np.abs(self.coefficients) / norm, axis=1, initial=0)

    @staticmethod
    def of(
        f: Callable[[Array], Array], mean: Array, var: Array, features: Sequence[Feature], degree: int, level: int
    ) -> _Expansion:
        """Expand f to a degree for every pair's mean and variance (pairs,)."""
        rows, row = np.unique(mean + 1j * var, return_inverse=True)  # complex numbers sort fast, pairs do not
        centre, deviation = rows.real, np.sqrt(rows.imag)
        features = sorted({replace(x, variable=0) for x in features}, key=repr)
        # The square of f with drop 1e-30 is f times the square root of the density with drop 1e-15, and Hermite
        # functions (polynomial times root of the density) are bounded.
        reach = radius(lambda z, _: f(z[0]) ** 2, centre[:, None], deviation[:, None, None], (), drop=1e-30)
        resolution = rule(level)
        # He_k oscillates with frequency sqrt(k) between its outermost zeros.
        resolution = replace(resolution, width=min(resolution.width, 8 / np.sqrt(degree)))
        coefficients, square = np.full((degree + 1, len(rows)), np.nan), np.full(len(rows), np.nan)
        for limit in np.unique(reach[np.isfinite(reach)]):
            member = np.flatnonzero(reach == limit)
            step = max(1, int(_NODE_BLOCK * resolution.width / (4 * limit * resolution.nodes)))
            for start in range(0, len(member), step):
                part = member[start : start + step]
                owner, e, weight = line_rule(centre[part], deviation[part], features, limit, resolution)
                value = np.broadcast_to(f(centre[part][owner, None] + deviation[part][owner, None] * e), e.shape)
                weighted = weight * value
                square[part] = np.bincount(owner, np.einsum("pn,pn->p", weighted, value), minlength=len(part))
                before, hermite = np.zeros_like(e), np.ones_like(e)
                for k in range(degree + 1):
                    sums = np.einsum("pn,pn->p", weighted, hermite)
                    coefficients[k, part] = np.bincount(owner, sums, minlength=len(part))
                    before *= -np.sqrt(k)
                    before += e * hermite
                    before /= np.sqrt(k + 1)
                    before, hermite = hermite, before
        rest = np.maximum(square - np.cumsum(coefficients**2, axis=0), _NORM_ROUNDING * square)
        return _Expansion(coefficients, np.sqrt(np.concatenate([rest, square[None]])), row)


def _expand_both(
    f: Callable[[Array], Array],
    g: Callable[[Array], Array],
    columns: Sequence[Array],
    features_f: Sequence[Feature],
    features_g: Sequence[Feature],
    degree: int,
    level: int,
) -> tuple[_Expansion, _Expansion]:
    """Expansions of f and g for columns (mean_f, mean_g, var_f, var_g), sharing rows where f is g."""
    mean_f, mean_g, var_f, var_g = columns
    if f is not g or set(features_f) != set(features_g):
        return (
            _Expansion.of(f, mean_f, var_f, features_f, degree, level),
            _Expansion.of(g, mean_g, var_g, features_g, degree, level),
        )
    both = _Expansion.of(f, np.concatenate([mean_f, mean_g]), np.concatenate([var_f, var_g]), features_f, degree, level)
    size = len(mean_f)
    return both.only(slice(None, size)), both.only(slice(size, None))


def _mehler(left: _Expansion, right: _Expansion, rho: Array, degree: int) -> Array:
    """Horner's rule for ``sum_{k <= degree} rho**k a_k b_k``, blocks of pairs at a time."""
    result = np.empty(len(rho))
    # Odd or even functions have every other coefficient zero up to rounding.
    counts = left.relative_size * right.relative_size > 1e-25
    for start in range(0, len(rho), _SUM_BLOCK):
        part = slice(start, start + _SUM_BLOCK)
        i, j, x = left.row[part], right.row[part], rho[part]
        total = np.zeros_like(x)
        for k in range(degree, -1, -1):
            total *= x
            if counts[k]:
                total += left.coefficients[k, i] * right.coefficients[k, j]
        result[part] = total
    return result


def qmc_expectation(
    f: Integrand,
    mean: ArrayLike,
    cov: ArrayLike,
    params: Sequence[ArrayLike],
    rng: np.random.Generator,
    points: int = 2**13,
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

    Returns:
        Shape (B,). NaN where the mean or covariance is not finite.

    Raises:
        ValueError: points is no power of two, shapes disagree, or a covariance is indefinite.
    """
    from scipy.stats import qmc  # takes most of a second to import

    mean, cov = np.asarray(mean, dtype=np.float64), np.asarray(cov, dtype=np.float64)
    if mean.ndim != 2 or cov.shape != (*mean.shape, mean.shape[1]):
        raise ValueError(f"mean must be (B, d) and cov (B, d, d), not {mean.shape} and {cov.shape}")
    if points < 1 or points & (points - 1):
        raise ValueError(f"points must be a power of two, not {points}")
    size, dim = mean.shape
    columns = [np.broadcast_to(np.asarray(p, dtype=np.float64), (size,))[:, None] for p in params]
    # 52 bits reach 8 standard deviations; the default 30 cut the tails at 6. Points move to the middles of their
    # cells, away from 0.
    unit = qmc.Sobol(max(dim, 1), bits=52, rng=rng).random_base2(points.bit_length() - 1)[:, :dim]
    normal = ndtri(unit + 2.0**-53).T
    result = np.full(size, np.nan)
    finite = np.flatnonzero(np.isfinite(mean).all(axis=1) & np.isfinite(cov).all(axis=(1, 2)))
    step = max(1, _QMC_BLOCK // (points * max(dim, 1)))
    for start in range(0, len(finite), step):
        part = finite[start : start + step]
        z = mean[part, :, None] + _principal_factor(cov[part]) @ normal
        value = f([z[:, i] for i in range(dim)], [p[part] for p in columns])
        result[part] = np.broadcast_to(value, (len(part), points)).mean(axis=1)
    return result


def _principal_factor(cov: Array) -> Array:
    """``A`` with ``A A.T = cov``, shape (B, d, d), largest components first: the first Sobol coordinates are the best.

    Eigenvectors of the correlations, not of the covariances, so that small variances beside large ones stay exact.
    """
    variance = np.diagonal(cov, axis1=1, axis2=2)
    if np.any(variance < 0):
        raise ValueError(f"cov has a negative variance: {variance.min():.3g}")
    deviation = np.sqrt(variance)
    inverse = np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > 0)
    value, vector = np.linalg.eigh(cov * inverse[:, :, None] * inverse[:, None, :])
    if np.any(value < -1e-10):
        raise ValueError("cov is not positive semidefinite")
    rounding = 8 * variance.shape[1] * np.finfo(np.float64).eps
    root = np.sqrt(np.where(value > rounding, value, 0))
    return deviation[:, :, None] * (vector * root[:, None, :])[:, :, ::-1]
