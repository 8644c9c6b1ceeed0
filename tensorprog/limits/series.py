"""Large arrays of ``E f(u) g(v)`` by Mehler's series, with errors known in advance.

With ``a_k(i)`` the coefficients of ``x -> f(mean_i + sd_i x)`` in normalised Hermite polynomials, and ``b_k(j)`` those
of g, ``E f(u_i) g(v_j) = sum_k rho_ij**k a_k(i) b_k(j)`` (Mehler 1866; O'Donnell, *Analysis of Boolean Functions*,
proposition 11.31). Coefficients cost one matrix product for all rows; the sum costs three passes over a tile that stays
in the cache for each degree.

Three errors, all relative to the norms ``sqrt(E f(u)**2)`` and ``sqrt(E g(v)**2)``: by Cauchy-Schwarz and Parseval the
terms beyond K are at most ``|rho|**(K+1)`` times the norms of what is left of f and of g, which decides K; errors of
the coefficients are measured on some of the rows against a finer rule; rounding of rho moves the sum by
at most its derivative.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tensorprog.limits.integrate import gaussian_expectation
from tensorprog.limits.nested import Feature, common_line_rule, line_rule, radius, rule
from tensorprog.limits.tiles import cores

__all__ = ["PairSeries"]

Array = NDArray[np.float64]
Rows = slice | NDArray[np.intp]
Function = Callable[[Array], Array]

#: Degrees at which the series may stop. All coefficients up to the last degree of a stage are computed together.
_STAGES = ((4, 8, 12, 16, 20, 24, 32), (40, 48, 64, 80, 96, 128), (160, 192, 256), (384, 512))
#: Entries of a sum done together (rho, the sum and a product of coefficients stay in a core's second-level cache),
#: and nodes of Hermite coefficients done together.
_SUM_BLOCK, _NODE_BLOCK = 2**15, 2**18
_APART = 600
"""An entry summed by itself costs as much as this many terms in a block: about 5 times a term, at about degree 120."""
_SHARED = 256
"""Up to this degree the polynomials at the nodes are kept: one or two megabytes for each set of nodes."""
_NORM_ROUNDING = 1e-15
"""Squared norms are not known better than this, relatively; so neither are the tails of a Hermite expansion."""
_CHECKED_ROWS = 8
"""Rows whose coefficients are computed a second time."""
_SAFETY = 10.0
"""Stated over observed error of coefficients, and of nested rules."""
_INTERPOLATED = 5e-13
"""Coefficients are interpolated in the variance where that has a stated error below this."""
_EPS = float(np.finfo(np.float64).eps)


def _coefficients(
    f: Function, mean: Array, deviation: Array, features: Sequence[Feature], degree: int, level: int, finer: bool
) -> tuple[Array, Array]:
    """Coefficients (degree + 1, rows) of ``f(mean + deviation x)``, and the square of its norm (rows,).

    NaN where f is not square integrable. With `finer`, panels are 0.7 as wide, and the errors of 18 nodes 0.7**36.
    """
    coefficients, square = np.full((degree + 1, len(mean)), np.nan), np.full(len(mean), np.nan)
    # The square of f with drop 1e-30 is f times the square root of the density with drop 1e-15, and Hermite functions
    # (polynomial times root of the density) are bounded.
    reach = radius(lambda z, _: f(z[0]) ** 2, mean[:, None], deviation[:, None, None], (), drop=1e-30)
    resolution = rule(level)
    # He_k oscillates with frequency sqrt(k) between its outermost zeros: less than two waves a panel.
    resolution = replace(resolution, width=min(resolution.width, 12 / np.sqrt(degree)))
    if finer:
        resolution = replace(resolution, width=0.7 * resolution.width, ellipse=1.4 * resolution.ellipse, shrink=0.0)
    for limit in np.unique(reach[np.isfinite(reach)]):
        member = np.flatnonzero(reach == limit)
        common = common_line_rule(mean[member], deviation[member], features, limit, resolution)
        if common is not None:
            e, weight = common
            basis = (_basis if degree <= _SHARED else _basis.__wrapped__)(e.tobytes(), degree)
            step = max(1, _NODE_BLOCK // len(e))
            for start in range(0, len(member), step):
                part = member[start : start + step]
                shape = (len(part), len(e))
                value = np.broadcast_to(f(mean[part, None] + deviation[part, None] * e), shape)
                weighted = weight * value
                coefficients[:, part] = basis @ weighted.T
                square[part] = np.einsum("rn,rn->r", value, weighted)
            continue
        step = max(1, int(_NODE_BLOCK * resolution.width / (4 * limit * resolution.nodes)))
        for start in range(0, len(member), step):
            part = member[start : start + step]
            owner, e, weight = line_rule(mean[part], deviation[part], features, limit, resolution)
            value = np.broadcast_to(f(mean[part][owner, None] + deviation[part][owner, None] * e), e.shape)
            weighted = weight * value
            square[part] = np.bincount(owner, np.einsum("pn,pn->p", weighted, value), minlength=len(part))
            for k, h in enumerate(_hermite(e, degree)):
                sums = np.einsum("pn,pn->p", weighted, h)
                coefficients[k, part] = np.bincount(owner, sums, minlength=len(part))
    return coefficients, square


@lru_cache(maxsize=16)
def _basis(nodes: bytes, degree: int) -> Array:
    """Normalised Hermite polynomials (degree + 1, n) at nodes, which many functions and variances share."""
    e = np.frombuffer(nodes)
    basis = np.empty((degree + 1, len(e)))
    for k, h in enumerate(_hermite(e, degree)):
        basis[k] = h
    return basis


def _hermite(e: Array, degree: int) -> Iterator[Array]:
    """Normalised Hermite polynomials of degrees 0, ..., degree; each is overwritten after the next."""
    before, hermite, product = np.zeros_like(e), np.ones_like(e), np.empty_like(e)
    for k in range(degree + 1):
        yield hermite
        before *= -math.sqrt(k / (k + 1))
        np.multiply(e, hermite, out=product)
        product *= 1 / math.sqrt(k + 1)
        before += product
        before, hermite = hermite, before


class _Marginals:
    """A function on the distinct ones of many Gaussians, with their number in place of each."""

    def __init__(self, f: Function, features: Sequence[Feature], mean: Array, var: Array) -> None:
        self.f = f
        self.features = sorted({replace(x, variable=0) for x in features}, key=repr)
        self.mean, self.var = mean, var
        both = np.empty(len(mean), dtype=complex)  # complex numbers sort fast, pairs do not
        both.real, both.imag = mean, var
        rows, self.row = np.unique(both, return_inverse=True)
        self.usable = np.isfinite(rows)
        if np.any(rows.imag < 0):
            raise ValueError("a variance is negative")
        self.centre, self.deviation = rows.real, np.sqrt(rows.imag)
        self.inverse = np.divide(1, self.deviation, out=np.zeros(len(rows)), where=self.deviation > 0)[self.row]


class _Expansion:
    """Coefficients up to one degree for all rows of some marginals.

    Attributes:
        row: The number of every Gaussian among the distinct ones, which are the rows below; NaN for what is not finite.
        coefficients: Shape (K + 1, rows).
        norm: Of f, shape (rows,); NaN where f is not square integrable.
        error: Of the coefficients, Euclidean norm, relative to `norm`.
        slope: Norm of the derivative of the series, shape (rows,).
        reach: Shape (degrees, rows): the terms beyond a degree may be left out for a correlation up to the product of
            a row's and a column's reach.
        size: Largest modulus of each coefficient relative to the norm, shape (K + 1,).
    """

    def __init__(self, marginals: _Marginals, stage: int, level: int) -> None:
        m, degree = marginals, _STAGES[stage][-1]
        good = np.flatnonzero(m.usable)
        mean, deviation = m.centre[good], m.deviation[good]
        # Rows all over, those of the largest and smallest variance among them.
        some = np.unique(np.linspace(0, len(good) - 1, min(_CHECKED_ROWS, len(good))).astype(int))
        some = np.argsort(deviation, kind="stable")[some]
        fine, _ = _coefficients(m.f, mean[some], deviation[some], m.features, degree, max(level, 1), True)

        def error(found: Array, square: Array) -> float:
            norm = np.sqrt(square[some])
            change = np.sqrt(np.sum((found[:, some] - fine) ** 2, axis=0)) / np.where(norm > 0, norm, 1)
            return _SAFETY * float(np.nanmax(change, initial=0.0))

        table = _Table.of(mean, deviation)
        if table is not None:
            nodes = np.full(len(table.nodes), mean[0])
            found, square = _coefficients(m.f, nodes, table.nodes, m.features, degree, level, False)
            rest = table.largest(_rest(found, square, stage) / np.where(square > 0, square, 1))
            found, square = found @ table.weights, np.maximum(square @ table.weights, 0)
            self.error = error(found, square)
            rest *= square
        if table is None or not self.error < _INTERPOLATED:
            found, square = _coefficients(m.f, mean, deviation, m.features, degree, level, False)
            self.error = error(found, square)
            rest = _rest(found, square, stage)
        norm = np.sqrt(square)
        slope = np.sqrt(np.einsum("k,kr,kr->r", np.arange(degree + 1.0), found, found))
        relative = found / np.where(norm > 0, norm, 1)
        self.size = np.fmax(np.fmax.reduce(relative, axis=1, initial=0), -np.fmin.reduce(relative, axis=1, initial=0))
        exponent = 1 / (1 + np.array(_STAGES[stage])[:, None])
        with np.errstate(divide="ignore", invalid="ignore"):
            reach = (np.sqrt(tolerance(level)) * norm / np.sqrt(rest)) ** exponent
        reach = np.where(norm == 0, np.inf, reach)
        place = np.full(len(m.centre), len(good))  # of what is not finite: a column of NaN at the end
        place[good] = np.arange(len(good))
        self.row = place[m.row]
        columns: tuple[Array, ...] = (norm, slope, found, reach)
        if len(good) < len(m.centre):
            columns = tuple(np.concatenate([x, np.full((*x.shape[:-1], 1), np.nan)], axis=-1) for x in columns)
        self.norm, self.slope, self.coefficients, self.reach = columns


def _rest(coefficients: Array, square: Array, stage: int) -> Array:
    """Squared norms of what the degrees up to each of a stage leave, shape (degrees, rows)."""
    left = [square - np.einsum("kr,kr->r", c, c) for c in (coefficients[: k + 1] for k in _STAGES[stage])]
    return np.maximum(left, _NORM_ROUNDING * square)


class _Table:
    """Chebyshev interpolation in the logarithm of the deviation, for many rows of one mean and similar variances.

    Coefficients are analytic in log(sd): the Gaussian decays along lines through the origin at angles up to pi/4.

    Attributes:
        nodes: Deviations, shape (M,).
        weights: Values at the nodes times this are values at the rows, shape (M, rows).
    """

    def __init__(self, low: float, high: float, count: int, place: Array) -> None:
        x = np.cos(np.pi * (np.arange(count) + 0.5) / count)[::-1]
        t = np.clip((place - (low + high) / 2) / ((high - low) / 2), -1, 1)
        self.nodes = np.exp((low + high) / 2 + (high - low) / 2 * x)
        # sum_m (2 - [m = 0]) / M T_m(x) T_m(t): discrete orthogonality, stable on the interval.
        degrees = np.arange(count)[:, None]
        left, right = np.cos(degrees * np.arccos(x)), np.cos(degrees * np.arccos(t))
        left *= np.where(degrees == 0, 1, 2) / count
        self.weights = left.T @ right
        self._after = np.clip(np.searchsorted(x, t), 1, count - 1)

    @staticmethod
    def of(mean: Array, deviation: Array) -> _Table | None:
        """None where it would not pay."""
        if len(mean) < 16 or np.ptp(mean) > 0 or deviation.min() <= 0:
            return None
        place = np.log(deviation)
        low, high = float(place.min()), float(place.max())
        ratio = 0.6 / max((high - low) / 2, 1e-3)  # of the half-width of the strip, with a margin, to the interval's
        count = int(np.ceil(-np.log(1e-17) / np.arcsinh(ratio)))
        return _Table(low, high, count, place) if 2 * count < len(mean) else None

    def largest(self, x: Array) -> Array:
        """The larger of the values at both neighbours, for every row."""
        return np.maximum(x[..., self._after - 1], x[..., self._after])


def tolerance(level: int) -> float:
    """What is left out of a series, relative to the norms."""
    return 1e-12 if level == 0 else 2e-15


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
        self._left = _Marginals(self.f, self.features_f, *u)
        self._right = self._left if self.square else _Marginals(self.g, self.features_g, *v)
        self._expanded: list[tuple[_Expansion, _Expansion] | None] = [None] * len(_STAGES)
        self._lock = threading.Lock()

    def _stage(self, stage: int) -> tuple[_Expansion, _Expansion]:
        """Both expansions up to the last degree of a stage."""
        found = self._expanded[stage]
        if found is None:
            with self._lock:
                found = self._expanded[stage]
                if found is None:
                    found = self._expand(stage)
                    self._expanded[stage] = found
        return found

    def _expand(self, stage: int) -> tuple[_Expansion, _Expansion]:
        left, right = self._left, self._right
        with np.errstate(over="ignore", invalid="ignore"):
            if left is right or not self.same:
                first = _Expansion(left, stage, self.level)
                return first, first if left is right else _Expansion(right, stage, self.level)
            # The same function of other Gaussians: rows in common are expanded once.
            mean, var = np.concatenate([left.mean, right.mean]), np.concatenate([left.var, right.var])
            both = _Expansion(_Marginals(self.f, self.features_f, mean, var), stage, self.level)
            return _some(both, slice(None, len(left.mean))), _some(both, slice(len(left.mean), None))

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

        workers = min(cores(), 8, len(bounds))
        if workers > 1:
            with ThreadPoolExecutor(workers) as pool:
                found = list(pool.map(tile, bounds))
        else:
            found = [tile(bound) for bound in bounds]
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
            return mask, int(np.count_nonzero(mask)) * _APART <= _STAGES[stage][number] * rho.size

        rest = np.ones(rho.shape, dtype=bool)
        for stage, degrees in enumerate(_STAGES):
            # Coefficients of high degrees cost more than they save where few pairs share them.
            if stage == len(_STAGES) - 1 and np.count_nonzero(rest) < len(i):
                break
            rest, few = apart(stage, len(degrees) - 1)
            if few or stage == len(_STAGES) - 1:
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
        for stage, degrees in enumerate(_STAGES):
            if not len(pending) or (stage == len(_STAGES) - 1 and len(pending) <= shared):
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
                error[pending] = _SAFETY * np.abs(found - other) + 4 * _EPS * np.abs(found)

    def _nested(self, i: NDArray[np.intp], j: NDArray[np.intp], cov: Array, level: int) -> Array:
        f, g, left, right = self.f, self.g, self._left, self._right
        features = [replace(x, variable=0) for x in self.features_f]
        features += [replace(x, variable=1) for x in self.features_g]
        matrix = np.stack([left.var[i], cov, cov, right.var[j]], axis=1).reshape(-1, 2, 2)
        centre = np.stack([left.mean[i], right.mean[j]], axis=1)
        return gaussian_expectation(lambda z, _: f(z[0]) * g(z[1]), centre, matrix, features=features, level=level)

    def _bound(
        self, left: _Expansion, right: _Expansion, i: NDArray[np.intp], j: NDArray[np.intp], size: Array
    ) -> Array:
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


def _some(whole: _Expansion, part: slice) -> _Expansion:
    """The same rows, for some of the Gaussians."""
    new = copy(whole)
    new.row = whole.row[part]
    return new


def _correlation(rho: Array) -> Array:
    """Checked and clipped, in place; NaN where not finite."""
    worst = np.abs(rho).max(initial=0.0)
    if worst > 1 or np.isnan(worst):
        rho[np.isinf(rho)] = np.nan
        if np.nanmax(np.abs(rho), initial=0.0) > 1 + 1e-10:
            raise ValueError("|cov| exceeds the square root of the product of the variances")
        np.clip(rho, -1, 1, out=rho)
    return rho


def _terms(left: _Expansion, right: _Expansion, degree: int) -> list[int]:
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
