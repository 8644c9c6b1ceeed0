"""Nested composite Gauss-Legendre rules for Gaussian integrals in one to three dimensions.

The integral of ``f(m + A e)`` against standard normals ``e_1, ..., e_r`` is taken one variable after the other. Every
one-dimensional integral is cut into panels (`panels.py`), and the panels of an inner variable depend on the values of the
outer ones: integrating out an inner variable turns a kink on the line ``z_i = c`` into an analytic transition of the outer
variable, of width (inner standard deviation) / |slope|. Near correlation +-1 it is sharp; at +-1 it is a kink again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tensorprog.limits.gauss.panels import BLOCK, Count, Feature, Rule, nodes_of, panels_of, roughness

__all__ = [
    "Indefinite",
    "Integrand",
    "Ladder",
    "common_line_rule",
    "line_rule",
    "nested_rule",
    "psd_factor",
    "radius",
]

Array = NDArray[np.float64]
#: Rows whose panels are made together.
_ROWS = 2**12
#: At most this many places stand for a transition that moves from row to row.
_MOVING = 24
#: So many inner integrals tell what all of them cost.
_PROBES = 16


Integrand = Callable[[list[Array], list[Array]], Array]


class Indefinite(ValueError):
    """A covariance that is none: its entries have errors larger than its small eigenvalues."""


def psd_factor(cov: Array, singular: float) -> tuple[Array, NDArray[np.intp]]:
    """Triangular factors of a batch of covariance matrices, singular ones included.

    Works on the correlations in extended precision, because near +-1 the conditional variance ``1 - rho**2`` loses the
    digits that the result depends on (E step(u) step(v) varies like its square root).

    Args:
        cov: Covariances, shape (B, d, d), positive semidefinite up to rounding. d <= 3 is pivoted as follows: the
            first variable comes first, and the last two change places where the second is nearly a copy of the first.
        singular: As in `Rule`.

    Returns:
        ``factor`` (B, d, d) and ``order`` (B, d): variable ``order[b, i]`` has the coefficients ``factor[b, i]``. The
        factor is lower triangular with diagonal >= 0, exactly 0 where a variable is a function of the ones before.

    Raises:
        ValueError: a matrix is indefinite by more than rounding.
    """
    size, dim = cov.shape[:2]
    variance = np.diagonal(cov, axis1=1, axis2=2)
    if np.any(variance < 0):
        raise Indefinite(f"cov has a negative variance: {variance.min():.3g}")
    deviation = np.sqrt(variance.astype(np.longdouble))
    inverse = np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > 0)
    correlation = cov * inverse[:, :, None] * inverse[:, None, :]
    if np.any(np.abs(correlation) > 1 + 1e-10) or (
        dim > 2 and np.any(np.linalg.eigvalsh(correlation.astype(np.float64)) < -1e-10)
    ):
        raise Indefinite("cov is not positive semidefinite")
    order = np.tile(np.arange(dim), (size, 1))
    if dim == 3:
        second, third = (1 - correlation[:, 0, i] ** 2 for i in (1, 2))
        order[second < 1e-3 * third] = (0, 2, 1)
        correlation = np.take_along_axis(correlation, order[:, :, None], axis=1)
        correlation = np.take_along_axis(correlation, order[:, None, :], axis=2)
    factor = np.zeros_like(correlation)
    for i in range(dim):
        for j in range(i):
            rest = correlation[:, i, j] - np.sum(factor[:, i, :j] * factor[:, j, :j], axis=1)
            np.divide(rest, factor[:, j, j], out=factor[:, i, j], where=factor[:, j, j] > 0)
        known = np.sum(factor[:, i, :i] ** 2, axis=1)
        left = 1 - known
        known_by_others = left <= singular
        factor[:, i, i] = np.sqrt(np.where(known_by_others, 0, left))
        # A function of the variables before keeps its whole variance: duplicates come out as exact duplicates.
        factor[known_by_others, i, :i] /= np.sqrt(np.where(known > 0, known, 1))[known_by_others, None]
    factor *= np.take_along_axis(deviation, order, axis=1)[:, :, None]
    return factor.astype(np.float64), order


class Ladder:
    """Radii at which integrals may be truncated, and the radii at which integrands are sampled to choose among them."""

    radii = np.array([9.0, 10.5, 12.0, 14.0, 17.0, 20.0, 25.0, 32.0])
    samples = np.concatenate([np.arange(9.0), radii])


def radius(f: Integrand, mean: Array, factor: Array, params: Sequence[Array], drop: float = 1e-14) -> Array:
    """Radius in whitened coordinates beyond which the integrand no longer matters.

    Follows ``|f|`` times the Gaussian density along the directions in which sums and differences of the variables grow
    fastest, and along the diagonals. Bounded and polynomial integrands need 9; exp(a e) needs a + 8.

    Args:
        f: The integrand, as in `gaussian_expectation`.
        mean: Means, shape (B, d).
        factor: ``z = mean + factor @ e``, shape (B, d, r).
        params: Parameters of the integrand, each (B,).
        drop: Fraction of its peak below which the integrand with its density is neglected.

    Returns:
        Shape (B,), values from `Ladder.radii`; NaN where the integrand has not dropped at the last of them (the
        integral diverges or overflows).
    """
    dim = mean.shape[1]
    signs = np.array([s for s in itertools.product((-1.0, 0.0, 1.0), repeat=dim) if any(s)])
    samples = Ladder.samples
    result = np.empty(len(mean))
    # Rare events in several variables at once are seen along diagonals of the whitened space.
    plain = np.array(
        [s for s in itertools.product((-1.0, 0.0, 1.0), repeat=factor.shape[2]) if np.count_nonzero(s) > 1]
    )
    plain = plain.reshape(-1, factor.shape[2])
    rays = len(signs) + len(plain)
    step = max(1, BLOCK // (rays * len(samples)))
    for start in range(0, len(mean), step):
        part = slice(start, start + step)
        direction = signs @ factor[part]
        direction = np.concatenate([direction, np.broadcast_to(plain, (len(direction), *plain.shape))], axis=1)
        norm = np.linalg.norm(direction, axis=2, keepdims=True)
        direction = np.divide(direction, norm, out=np.zeros_like(direction), where=norm > 0)
        speed = np.einsum("bdr,bsr->bds", factor[part], direction)
        z = (mean[part, :, None, None] + speed[..., None] * samples).reshape(len(speed), dim, -1)
        with np.errstate(all="ignore"):
            value = np.abs(f([z[:, i] for i in range(dim)], [p[part, None] for p in params]))
        value = np.broadcast_to(value, z[:, 0].shape).reshape(len(z), rays, len(samples)).max(axis=1)
        value = np.where(np.isnan(value), 0, value)
        heavy = value * np.exp(-(samples**2) / 2)
        peak = np.where(np.isfinite(heavy), heavy, 0).max(axis=1, keepdims=True)
        tail = np.maximum.accumulate(heavy[:, ::-1], axis=1)[:, ::-1][:, -len(Ladder.radii) :]
        small = tail <= drop * peak
        # A rare event (a step 31 deviations away) has its peak in the tail, but its integrand does not grow.
        small[:, -1] |= heavy[:, -1] <= 1e-100 * np.minimum(value[:, -1], 1)
        result[part] = np.where(small.any(axis=1), Ladder.radii[small.argmax(axis=1)], np.nan)
    return result


@dataclass(frozen=True)
class Curve:
    """A kink along a curve: at ``z[variable] == location(z, p)``, where location does not depend on z[variable]."""

    variable: int
    location: Callable[[Sequence[Array], Sequence[Array]], Array]


Foresee = Callable[[float], None]


def line_rule(
    mean: Array, deviation: Array, features: Sequence[Feature], radius: float, rule: Rule
) -> tuple[NDArray[np.intp], Array, Array]:
    """Composite rules for one-dimensional Gaussians ``z = mean + deviation * e``.

    Args:
        mean: Shape (B,).
        deviation: Standard deviations, shape (B,).
        features: Rough places of the integrand; all belong to variable 0.
        radius: Truncation in standard deviations.
        rule: The resolution.

    Returns:
        Owner (P,) of every panel, nodes e (P, nodes), and weights against the standard normal density (P, nodes).
    """
    (rough,) = roughness(mean[:, None], deviation[:, None, None], features, radius)
    owner, low, high = panels_of(np.full(len(mean), radius - rule.shrink), rough.offset, rough.eta, rule)
    return owner, *nodes_of(low, high, rule)


def common_line_rule(
    mean: Array, deviation: Array, features: Sequence[Feature], radius: float, rule: Rule
) -> tuple[Array, Array] | None:
    """One composite rule that is fine for all of several Gaussians, so that sums over its nodes are matrix products.

    Transitions may move from row to row; kinks must not.

    Args:
        mean: Shape (B,).
        deviation: Standard deviations, shape (B,).
        features: Rough places of the integrand; all belong to variable 0.
        radius: Truncation in standard deviations.
        rule: The resolution.

    Returns:
        Nodes e and weights against the standard normal density, both (n,); None where no such rule is economical.
    """
    limit = radius - rule.shrink
    (rough,) = roughness(mean[:, None], deviation[:, None, None], features, radius)
    places: list[tuple[float, float]] = []
    for place, eta in zip(rough.offset, rough.eta, strict=True):
        seen = np.isfinite(eta)
        x = np.clip(place[seen], -limit, limit)
        nearest, low, high = float(eta[seen].min()), float(x.min()), float(x.max())
        if low == high:
            places.append((low, nearest))
        elif nearest == 0 or high - low > (_MOVING - 1) * nearest / 2:
            return None
        else:  # never farther than a quarter of its distance from a representative
            count = int(np.ceil(2 * (high - low) / nearest)) + 1
            places += [(float(c), 0.75 * nearest) for c in np.linspace(low, high, count)]
    position, eta = np.array(places).reshape(-1, 2).T
    _, lower, upper = panels_of(np.array([limit]), position[:, None], eta[:, None], rule)
    e, weight = nodes_of(lower, upper, rule)
    return e.ravel(), weight.ravel()


def nested_rule(
    f: Integrand,
    mean: Array,
    factor: Array,
    params: Sequence[Array],
    features: Sequence[Feature],
    radius: float,
    rule: Rule,
    curves: Sequence[Curve] = (),
    count: Count = lambda points: None,
    foresee: Foresee = lambda points: None,
) -> Array:
    """Integrate ``f(mean + factor @ e)`` over standard normal e in the ball of the given radius.

    Args:
        f: The integrand, as in `gaussian_expectation`.
        mean: Means, shape (B, d).
        factor: Shape (B, d, r), row echelon: a variable depends on no later integration variable than the next one.
        params: Parameters of the integrand, each (B,).
        features: Rough places.
        radius: Truncation in whitened coordinates.
        rule: The resolution.
        curves: Kinks of the one variable that depends on the last integration variable.
        count: Told what finding the panels costs, in evaluations, before it is done.
        foresee: Told what is to come, as far as a few inner integrals show; it may object.

    Returns:
        Shape (B,).
    """
    _, dim, rank = factor.shape
    rough = roughness(mean, factor, features, radius, count)
    limit = radius - rule.shrink
    used = np.asarray(factor.any(axis=0))  # (d, r): which variables depend on which e at all

    def evaluate(entry: NDArray[np.intp], outer: list[Array], last: Array | None) -> Array:
        """Values of the integrand: entry and outer (P,), last (P, nodes) or None; result broadcasts to (P, nodes)."""
        z = []
        for i in range(dim):
            value = mean[entry, i]
            for k, e in enumerate(outer):
                if used[i, k]:
                    value = value + factor[entry, i, k] * e
            value = value[:, None]
            # Variables that do not depend on the innermost e keep one column: cheaper functions.
            if last is not None and used[i, -1]:
                value = value + factor[entry, i, -1, None] * last
            z.append(value)
        return f(z, [p[entry, None] for p in params])

    def along(curve: Curve, entry: NDArray[np.intp], outer: list[Array]) -> Array:
        """Where the last integration variable meets a curve, given the outer ones."""
        z = [mean[entry, i] + sum(factor[entry, i, k] * e for k, e in enumerate(outer)) for i in range(dim)]
        target = curve.location([x[:, None] for x in z], [p[entry, None] for p in params])
        there = np.broadcast_to(target, (len(entry), 1))[:, 0]
        return (there - z[curve.variable]) / factor[entry, curve.variable, -1]

    def panels(
        k: int, entry: NDArray[np.intp], outer: list[Array], spend: Count
    ) -> tuple[NDArray[np.intp], Array, Array]:
        # A ball instead of a cube: the corners weigh nothing.
        left = np.sqrt(np.maximum(limit**2 - sum((e**2 for e in outer), np.zeros(len(entry))), 0))
        place, eta = rough[k].at(entry, outer)
        if curves and k == rank - 1:
            cut = [along(curve, entry, outer) for curve in curves]
            place, eta = np.concatenate([place, cut]), np.concatenate([eta, np.zeros((len(cut), len(entry)))])
        return panels_of(left, place, eta, rule, spend)

    def probe(k: int, entry: NDArray[np.intp], outer: list[Array], low: Array, high: Array) -> float:
        """What the integrals over e_k take for every node of panels of e_{k-1}, from those of a few panels."""
        some = np.unique(np.linspace(0, len(entry) - 1, _PROBES).astype(np.intp))
        spent = 0

        def spend(points: int) -> None:
            nonlocal spent
            spent += points
            count(points)

        row, _, _ = panels(k, entry[some], [*(x[some] for x in outer), (low[some] + high[some]) / 2], spend)
        return (spent + rule.nodes * len(row)) / len(some) * rule.nodes * len(entry)

    def integrate(k: int, entry: NDArray[np.intp], outer: list[Array]) -> Array:
        """Integral over e_k, e_{k+1}, ... for every row (entry and outer values, each (rows,))."""
        if len(entry) > _ROWS:
            parts = [slice(s, s + _ROWS) for s in range(0, len(entry), _ROWS)]
            return np.concatenate([integrate(k, entry[p], [e[p] for e in outer]) for p in parts])
        row, low, high = panels(k, entry, outer, count)
        if k == 0 and rank > 1 and len(row):
            foresee(probe(1, entry[row], [], low, high))
        total = np.empty(len(row))
        step = max(1, BLOCK // rule.nodes)
        for start in range(0, len(row), step):
            part = slice(start, start + step)
            owner = row[part]
            e, weight = nodes_of(low[part], high[part], rule)
            inherited = [x[owner] for x in outer]
            if k == rank - 1:
                value = np.broadcast_to(evaluate(entry[owner], inherited, e), e.shape)
            else:
                rows = np.repeat(entry[owner], rule.nodes)
                value = integrate(k + 1, rows, [*(np.repeat(x, rule.nodes) for x in inherited), e.ravel()])
                value = value.reshape(e.shape)
            total[part] = np.einsum("pn,pn->p", weight, value)
        return np.bincount(row, total, minlength=len(entry)).astype(np.float64, copy=False)

    everyone = np.arange(len(mean))
    if rank == 0:
        return np.array(np.broadcast_to(evaluate(everyone, [], None), (len(mean), 1))[:, 0], dtype=np.float64)
    return integrate(0, everyone, [])
