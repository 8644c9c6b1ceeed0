"""Large arrays of ``E f(u) g(v)`` by Mehler's series, with errors known in advance.

With ``a_k(i)`` the coefficients of ``x -> f(mean_i + sd_i x)`` in normalised Hermite polynomials, and ``b_k(j)`` those
of g, ``E f(u_i) g(v_j) = sum_k rho_ij**k a_k(i) b_k(j)`` (Mehler 1866; O'Donnell, *Analysis of Boolean Functions*,
section 11.2). Coefficients cost one matrix product for all rows; the sum costs three passes over a tile that stays
in the cache for each degree.

Three errors, all relative to the norms ``sqrt(E f(u)**2)`` and ``sqrt(E g(v)**2)``: by Cauchy-Schwarz and Parseval the
terms beyond K are at most ``|rho|**(K+1)`` times the norms of what is left of f and of g, which decides K; errors of
the coefficients are measured on some of the rows against a finer rule; rounding of rho moves the sum by
at most its derivative.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tensorprog.arrays.cores import each
from tensorprog.limits.gauss.hermite import STAGES, Expansion, Function, Marginals, tolerance
from tensorprog.limits.gauss.integrate import gaussian_expectation
from tensorprog.limits.gauss.nested import Indefinite
from tensorprog.limits.gauss.panels import Feature, rule
from tensorprog.limits.gauss.rounding import SAFETY

__all__ = ["PairSeries"]

Array = NDArray[np.float64]
Rows = slice | NDArray[np.intp]

#: Entries of a sum done together: rho, the sum and a product of coefficients stay in a core's second-level cache.
_SUM_BLOCK = 2**15
_APART = 600
"""An entry summed by itself costs as much as this many terms in a block: about 5 times a term, at about degree 120."""
_EPS = float(np.finfo(np.float64).eps)


class PairSeries:
    """``E f(u_i) g(v_j)`` for many pairs of Gaussians with few marginals, tile by tile.

    After `prepare` it may be called from several threads; results do not depend on the order of calls.

    Args:
        f: Elementwise function of one array.
        g: Elementwise function of one array; pass the same object as `f` where they are the same.
        features_f: Where f is rough; the field `variable` is not used.
        features_g: Where g is rough; the field `variable` is not used.
        level: Resolution, as in `gaussian_expectation`. Level 1 is accurate to about 1e-14 of the norms.

    Example:
        >>> series = PairSeries(np.tanh, np.tanh, [Feature(0, 0.0, 1.0)], [Feature(0, 0.0, 1.0)])
        >>> series.prepare(0.0, [1.0, 2.0])
        >>> value, error = series(slice(None), slice(None), np.array([[1.0, 0.5], [0.5, 2.0]]), errors=True)
        >>> print(f"{value[0, 0]:.12f} {value[0, 1]:.12f}", error.max() < 1e-13)
        0.394294490398 0.146754115460 True
    """

    def __init__(
        self,
        f: Function,
        g: Function,
        features_f: Sequence[Feature] = (),
        features_g: Sequence[Feature] = (),
        level: int = 1,
    ) -> None:
        rule(level)  # refuses what is no level
        self.f, self.g, self.level = f, g, level
        self.features_f, self.features_g = list(features_f), list(features_g)
        self.same = f is g and set(self.features_f) == set(self.features_g)

    def prepare(
        self,
        mean_u: ArrayLike,
        var_u: ArrayLike,
        mean_v: ArrayLike | None = None,
        var_v: ArrayLike | None = None,
    ) -> None:
        """Take the marginals. Coefficients are computed when the first entry needs them, once, whatever the thread.

        Args:
            mean_u: Means of u, a number or shape (N1,).
            var_u: Variances of u, shape (N1,).
            mean_v: Means of v, a number or shape (N2,); by default v has the marginals of u.
            var_v: Variances of v, shape (N2,).

        Raises:
            ValueError: a variance is negative.
        """
        u = _columns(mean_u, var_u)
        v = u if mean_v is None and var_v is None else _columns(mean_v, var_v)
        #: Are rows and columns the same, so that a symmetric covariance has a symmetric result?
        self.square = self.same and all(np.array_equal(x, y) for x, y in zip(u, v, strict=True))
        self._left = Marginals(self.f, self.features_f, *u)
        self._right = self._left if self.square else Marginals(self.g, self.features_g, *v)
        self._expanded: list[tuple[Expansion, Expansion] | None] = [None] * len(STAGES)
        self._lock = threading.Lock()

    def _stage(self, stage: int) -> tuple[Expansion, Expansion]:
        """Both expansions up to the last degree of a stage."""
        found = self._expanded[stage]
        if found is None:
            with self._lock:
                found = self._expanded[stage]
                if found is None:
                    found = self._expand(stage)
                    self._expanded[stage] = found
        return found

    def _expand(self, stage: int) -> tuple[Expansion, Expansion]:
        left, right = self._left, self._right
        with np.errstate(over="ignore", invalid="ignore"):
            if left is right or not self.same:
                first = Expansion(left, stage, self.level)
                return first, first if left is right else Expansion(right, stage, self.level)
            # The same function of other Gaussians: rows in common are expanded once.
            mean, var = np.concatenate([left.mean, right.mean]), np.concatenate([left.var, right.var])
            both = Expansion(Marginals(self.f, self.features_f, mean, var), stage, self.level)
            return both.some(slice(None, len(left.mean))), both.some(slice(len(left.mean), None))

    # ---- sums ----
    def __call__(self, rows: Rows, cols: Rows, cov: ArrayLike, errors: bool = False) -> Array | tuple[Array, Array]:
        """A tile of expectations.

        Args:
            rows: Which u, r of them.
            cols: Which v, c of them.
            cov: Covariances, shape (r, c).
            errors: Return error bounds too?

        Returns:
            Shape (r, c), or two such arrays. NaN as in `gaussian_expectation`.

        Raises:
            ValueError: ``|cov|`` exceeds ``sqrt(var_u * var_v)`` by more than rounding, or has another shape.
        """
        cov = np.asarray(cov, dtype=np.float64)
        i = np.arange(len(self._left.mean))[rows]
        j = np.arange(len(self._right.mean))[cols]
        if cov.shape != (len(i), len(j)):
            raise ValueError(f"cov must have shape {(len(i), len(j))}, not {cov.shape}")
        value = np.empty(cov.shape)
        error = np.empty(cov.shape) if errors else None
        r, c = self._tile(i, j, cov, value, error)
        if len(r):
            found = self.pairs(i[r], j[c], cov[r, c], errors, shared=len(i) + len(j))
            if error is None:
                value[r, c] = found
            else:
                value[r, c], error[r, c] = found
        return value if error is None else (value, error)

    def pairs(
        self,
        i: NDArray[np.intp],
        j: NDArray[np.intp],
        cov: ArrayLike,
        errors: bool = False,
        shared: int | None = None,
    ) -> Array | tuple[Array, Array]:
        """Expectations for a list of pairs.

        Args:
            i: Which u, shape (B,).
            j: Which v, shape (B,).
            cov: Their covariances, shape (B,).
            errors: Return error bounds too?
            shared: Coefficients of the highest degrees are computed for more pairs than this; by default, the number
                of distinct marginals.

        Returns:
            Shape (B,), or two such arrays.

        Raises:
            ValueError: as in a call.
        """
        cov = np.asarray(cov, dtype=np.float64)
        rho = cov * self._left.inverse[i]
        rho *= self._right.inverse[j]
        value = np.empty(len(cov))
        error = np.empty(len(cov)) if errors else None
        self._flat(i, j, cov, _correlation(rho), value, error, shared)
        return value if error is None else (value, error)

    def matrix(self, cov: ArrayLike, errors: bool = False) -> Array | tuple[Array, Array]:
        """All expectations at once, on all cores; half of them where the result is symmetric.

        Args:
            cov: Covariances, shape (N1, N2).
            errors: Return error bounds too?

        Returns:
            Shape (N1, N2), or two such arrays.

        Raises:
            ValueError: as in a call.
        """
        cov = np.asarray(cov, dtype=np.float64)
        size, across = len(self._left.mean), len(self._right.mean)
        if cov.shape != (size, across):
            raise ValueError(f"cov must have shape {(size, across)}, not {cov.shape}")
        out = [np.empty(cov.shape) for _ in range(1 + errors)]
        symmetric = self.square and np.array_equal(cov, cov.T)
        bounds, low = [], 0
        while low < size:
            width = across - low if symmetric else across
            high = min(size, low + max(1, min(2 * _SUM_BLOCK // max(1, width), 256 if symmetric else size)))
            bounds.append((low, high))
            low = high

        row, column = np.arange(size), np.arange(across)
        below = np.tri(max((high - low for low, high in bounds), default=0) if symmetric else 0, k=-1, dtype=bool)

        def tile(bound: tuple[int, int]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
            low, high = bound
            first = low if symmetric else 0
            parts = [x[low:high, first:] for x in (cov, *out)]
            r, c = self._tile(row[low:high], column[first:], parts[0], parts[1], parts[2] if errors else None)
            if symmetric:
                for full in out:
                    full[high:, low:high] = full[low:high, high:].T
                    square = full[low:high, low:high]
                    np.copyto(square, square.T.copy(), where=below[: high - low, : high - low])
            return r + low, c + first

        found = each(tile, bounds)
        r, c = (np.concatenate(x) for x in zip(*found, strict=True)) if found else (row[:0], row[:0])
        if symmetric:
            r, c = r[r <= c], c[r <= c]
        if len(r):
            rest = self.pairs(r, c, cov[r, c], errors, shared=size + across)
            for full, part in zip(out, rest if isinstance(rest, tuple) else (rest,), strict=True):
                full[r, c] = part
                if symmetric:
                    full[c, r] = part
        return (out[0], out[1]) if errors else out[0]

    def _tile(
        self, i: NDArray[np.intp], j: NDArray[np.intp], cov: Array, value: Array, error: Array | None
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Most of a tile, in place; the places of the entries that are left."""
        step = max(1, _SUM_BLOCK // max(1, len(j)))
        rest = []
        for start in range(0, len(i), step):
            part = slice(start, start + step)
            mask = self._block(i[part], j, cov[part], value[part], None if error is None else error[part])
            if mask.any():
                r, c = np.nonzero(mask)
                rest.append((r + start, c))
        if not rest:
            return i[:0], j[:0]
        r, c = (np.concatenate(x) for x in zip(*rest, strict=True))
        return r, c

    def _block(
        self, i: NDArray[np.intp], j: NDArray[np.intp], cov: Array, value: Array, error: Array | None
    ) -> NDArray[np.bool_]:
        """One block that fits the cache: most of it to one degree. Which entries need more?"""
        rho = cov * self._left.inverse[i][:, None]
        rho *= self._right.inverse[j]
        rho = _correlation(rho)
        size = np.abs(rho)
        bound = np.empty_like(rho)

        def apart(stage: int, number: int) -> tuple[NDArray[np.bool_], bool]:
            """Entries that need more than this degree; are they few enough to be summed one by one?"""
            left, right = self._stage(stage)
            u, v = left.row[i], right.row[j]
            np.multiply(left.reach[number, u][:, None], right.reach[number, v], out=bound)
            mask = ~(size <= bound)  # NaN stays apart
            return mask, int(np.count_nonzero(mask)) * _APART <= STAGES[stage][number] * rho.size

        rest = np.ones(rho.shape, dtype=bool)
        for stage, degrees in enumerate(STAGES):
            # Coefficients of high degrees cost more than they save where few pairs share them.
            if stage == len(STAGES) - 1 and np.count_nonzero(rest) < len(i):
                break
            rest, few = apart(stage, len(degrees) - 1)
            if few or stage == len(STAGES) - 1:
                low, high = 0, len(degrees) - 1
                while low < high:
                    middle = (low + high) // 2
                    mask, few = apart(stage, middle)
                    if few:
                        high, rest = middle, mask
                    else:
                        low = middle + 1
                left, right = self._stage(stage)
                u, v, degree = left.row[i], right.row[j], degrees[high]
                a, b = left.coefficients[: degree + 1, u], right.coefficients[: degree + 1, v]
                _horner(value, a[:, :, None], b[:, None, :], rho, _terms(left, right, degree), bound)
                if error is not None:
                    error[:] = self._bound(left, right, u[:, None], v[None, :], size)
                return rest
        return np.ones(rho.shape, dtype=bool)

    def _flat(
        self,
        i: NDArray[np.intp],
        j: NDArray[np.intp],
        cov: Array,
        rho: Array,
        value: Array,
        error: Array | None,
        shared: int | None,
    ) -> None:
        """Entries one by one: each to the degree it needs, or by the nested rule."""
        size = np.abs(rho)
        pending = np.arange(len(rho))
        if shared is None:
            shared = len(self._left.centre) + len(self._right.centre)
        for stage, degrees in enumerate(STAGES):
            if not len(pending) or (stage == len(STAGES) - 1 and len(pending) <= shared):
                break
            left, right = self._stage(stage)
            for number in range((len(degrees) - 1) % 3, len(degrees), 3):
                degree = degrees[number]
                u, v = left.row[i[pending]], right.row[j[pending]]
                good = size[pending] <= left.reach[number, u] * right.reach[number, v]
                done, pending = pending[good], pending[~good]
                if not len(done):
                    continue
                terms = _terms(left, right, degree)
                step = max(1, 4 * _SUM_BLOCK // (degree + 1))
                for start in range(0, len(done), step):
                    part = done[start : start + step]
                    u, v = left.row[i[part]], right.row[j[part]]
                    a = left.coefficients[: degree + 1].take(u, axis=1)
                    b = right.coefficients[: degree + 1].take(v, axis=1)
                    total = np.empty(len(part))
                    _horner(total, a, b, rho[part], terms, np.empty(len(part)))
                    value[part] = total
                    if error is not None:
                        error[part] = self._bound(left, right, u, v, size[part])
        if len(pending):
            found = self._nested(i[pending], j[pending], cov[pending], self.level)
            value[pending] = found
            if error is not None:
                other = self._nested(i[pending], j[pending], cov[pending], 1 - min(self.level, 1))
                error[pending] = SAFETY * np.abs(found - other) + 4 * _EPS * np.abs(found)

    def _nested(self, i: NDArray[np.intp], j: NDArray[np.intp], cov: Array, level: int) -> Array:
        f, g, left, right = self.f, self.g, self._left, self._right
        features = [replace(x, variable=0) for x in self.features_f]
        features += [replace(x, variable=1) for x in self.features_g]
        matrix = np.stack([left.var[i], cov, cov, right.var[j]], axis=1).reshape(-1, 2, 2)
        centre = np.stack([left.mean[i], right.mean[j]], axis=1)
        return gaussian_expectation(lambda z, _: f(z[0]) * g(z[1]), centre, matrix, features=features, level=level)

    def _bound(self, left: Expansion, right: Expansion, i: NDArray[np.intp], j: NDArray[np.intp], size: Array) -> Array:
        """Tail, coefficients, rounding of the sum, and of rho, for rows of the expansions."""
        relative = tolerance(self.level) + left.error + right.error + 16 * _EPS
        return relative * left.norm[i] * right.norm[j] + 2 * _EPS * size * left.slope[i] * right.slope[j]


def _columns(mean: ArrayLike | None, var: ArrayLike | None) -> tuple[Array, Array]:
    if mean is None or var is None:
        raise ValueError("mean_v and var_v are given together or not at all")
    mean, var = np.broadcast_arrays(np.asarray(mean, dtype=np.float64), np.asarray(var, dtype=np.float64))
    if mean.ndim > 1:
        raise ValueError(f"means and variances are one-dimensional, not of shape {mean.shape}")
    return np.atleast_1d(mean), np.atleast_1d(var)


def _correlation(rho: Array) -> Array:
    """Checked and clipped, in place; NaN where not finite."""
    worst = np.abs(rho).max(initial=0.0)
    if worst > 1 or np.isnan(worst):
        rho[np.isinf(rho)] = np.nan
        if np.nanmax(np.abs(rho), initial=0.0) > 1 + 1e-10:
            raise Indefinite("|cov| exceeds the square root of the product of the variances")
        np.clip(rho, -1, 1, out=rho)
    return rho


def _terms(left: Expansion, right: Expansion, degree: int) -> list[int]:
    """Degrees that count, highest first: odd or even functions have every other coefficient zero up to rounding."""
    counts = left.size[: degree + 1] * right.size[: degree + 1] > 1e-25
    return list(np.flatnonzero(counts)[::-1].tolist())


def _horner(total: Array, a: Array, b: Array, rho: Array, terms: Sequence[int], product: Array) -> None:
    """``total = sum_k rho**k a[k] b[k]`` over the given degrees, highest first, in place."""
    if not terms:
        total[...] = 0
        return
    squared = rho * rho
    np.multiply(a[terms[0]], b[terms[0]], out=total)
    for k, below in zip(terms, [*terms[1:], 0], strict=True):
        for _ in range((k - below) // 2):
            total *= squared
        if (k - below) % 2:
            total *= rho
        if k != terms[-1]:
            np.multiply(a[below], b[below], out=product)
            total += product
