"""Nested composite Gauss-Legendre rules for Gaussian integrals in one to three dimensions.

The integral of ``f(m + A e)`` against standard normals ``e_1, ..., e_r`` is taken one variable after the other. Every
one-dimensional integral is cut into panels, and the panels of an inner variable depend on the values of the outer
ones. Two facts decide where to cut.

* Gauss-Legendre with n nodes errs like ``rho**(-2 n)`` if the integrand is analytic in the Bernstein ellipse of
  parameter rho around the panel (Trefethen, *Approximation Theory and Approximation Practice*, theorem 19.3). A panel
  is halved until its ellipse excludes the singularities the features announce.
* Integrating out an inner variable turns a kink on the line ``z_i = c`` into an analytic transition of the outer
  variable, of width (inner standard deviation) / |slope|. Near correlation +-1 it is sharp; at +-1 it is a kink again.

Panels are kept as a ragged list (owner, lower, upper), so that each row of a batch pays for its own panels only.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Feature",
    "Indefinite",
    "Integrand",
    "Ladder",
    "Rule",
    "common_line_rule",
    "line_rule",
    "nested_rule",
    "psd_factor",
    "radius",
    "rule",
]

Array = NDArray[np.float64]
Integrand = Callable[[list[Array], list[Array]], Array]

#: Panels of one evaluation of the integrand hold about this many nodes: the temporaries stay in the cache.
_BLOCK = 2**17
PLACES = 2
"""So many rough places are compared with a panel for what an evaluation costs, as measured."""
#: Rows whose panels are made together.
_ROWS = 2**12
_EPS = float(np.finfo(np.float64).eps)
#: Transitions this wide (in standard deviations) need no attention: the largest panels resolve them.
_WIDE = 6.0
#: At most this many places stand for a transition that moves from row to row.
_MOVING = 24
#: So many inner integrals tell what all of them cost.
_PROBES = 16
#: Effective distance of the singularity of a step smoothed by a Gaussian, in standard deviations of the Gaussian.
#: It is entire, but grows like exp(y**2 / 2) off the axis: by a factor 23 at 2.5.
_SMOOTHED = 2.5
_INV_SQRT_2PI = 1 / np.sqrt(2 * np.pi)


class Indefinite(ValueError):
    """A covariance that is none: its entries have errors larger than its small eigenvalues."""


@dataclass(frozen=True)
class Feature:
    """Where an integrand is rough along one of its variables.

    Attributes:
        variable: Position of the variable among the arguments of the integrand.
        location: The kink, jump or transition is at ``z[variable] == location``.
        scale: 0 for a kink or jump (the integrand is analytic on either side); otherwise the width of an analytic
            transition, meaning that the nearest complex singularity is about ``pi / 2 * scale`` off the axis: 1 for
            tanh and erf, 2 for the logistic function, 1/30 for tanh(30 z).
    """

    variable: int
    location: float
    scale: float = 0.0


@dataclass(frozen=True)
class Rule:
    """Resolution of a composite rule.

    Attributes:
        nodes: Gauss-Legendre nodes a panel.
        width: Largest panel, in standard deviations.
        ellipse: Parameter rho of the Bernstein ellipse that must be free of singularities.
        shrink: Taken off the radius, so that truncation errors show in the difference between levels.
        singular: A conditional variance below this fraction of the variance counts as rounding, and the variable as a
            function of the others. The two levels disagree about 2 to 8 units in the last place: where that matters
            (E step(u) step(v) at correlation 1 - 1e-15), the doubt shows in the difference between them.
    """

    nodes: int
    width: float
    ellipse: float
    shrink: float
    singular: float


def rule(level: int) -> Rule:
    """Resolution of a level: 0 is good to 1e-11, 1 to rounding, each further one halves the panels."""
    if level < 0:
        raise ValueError(f"level must be 0 (coarse), 1 (fine) or larger, not {level}")
    if level == 0:
        return Rule(nodes=15, width=4.5, ellipse=3.0, shrink=0.5, singular=1.2 * _EPS)
    finer = 2 ** (level - 1)
    return Rule(nodes=18, width=3.6 / finer, ellipse=2.95 * finer, shrink=0.0, singular=8 * _EPS)


@cache
def _legendre(nodes: int) -> tuple[Array, Array]:
    return np.polynomial.legendre.leggauss(nodes)


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
    step = max(1, _BLOCK // (rays * len(samples)))
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


Count = Callable[[int], None]
Foresee = Callable[[float], None]


@dataclass(frozen=True)
class _Roughness:
    """Rough places of one integration variable ``e_k``, as affine functions of the outer ones.

    Place j of batch entry b is at ``offset[j, b] + sum_i slope[j, i, b] e_i``. Its nearest singularity is ``eta[j, b]``
    off the axis: 0 for a kink, inf where there is nothing to see.
    """

    offset: Array
    slope: Array
    eta: Array

    @staticmethod
    def make(offset: Array, slope: Array, eta: Array) -> _Roughness | None:
        """One place (offset (b,), slope (k, b), eta (b,)); None if no entry of the batch need see it."""
        seen = (eta < _WIDE) & np.isfinite(offset)
        if not seen.any():
            return None
        return _Roughness(
            np.where(seen, offset, 0)[None], np.where(seen, slope, 0)[None], np.where(seen, eta, np.inf)[None]
        )

    @staticmethod
    def join(places: Sequence[_Roughness], outer: int, size: int) -> _Roughness:
        empty = _Roughness(np.empty((0, size)), np.empty((0, outer, size)), np.empty((0, size)))
        columns = [empty, *places]
        return _Roughness(*(np.concatenate([getattr(c, a) for c in columns]) for a in ("offset", "slope", "eta")))

    def at(self, entry: NDArray[np.intp], outer: Sequence[Array]) -> tuple[Array, Array]:
        """Positions and singularity distances, both (places, rows), for rows of batch entries and outer values."""
        place = self.offset[:, entry]
        for i, e in enumerate(outer):
            place += self.slope[:, i, entry] * e
        return place, self.eta[:, entry]


def _roughness(
    mean: Array, factor: Array, features: Sequence[Feature], radius: float, count: Count = lambda points: None
) -> list[_Roughness]:
    """Rough places of every integration variable, for ``z = mean + factor @ e`` with factor (b, d, r)."""
    size, _, rank = factor.shape
    stages: list[_Roughness] = []
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for k in range(rank):
            places = []
            for feature in features:
                row = factor[:, feature.variable]
                inner = np.linalg.norm(row[:, k + 1 :], axis=1)
                eta = (np.pi / 2 * feature.scale + _SMOOTHED * inner) / np.abs(row[:, k])
                offset = (feature.location - mean[:, feature.variable]) / row[:, k]
                places.append(_Roughness.make(offset, -row[:, :k].T / row[:, k], eta))
            stages.append(_Roughness.join([p for p in places if p is not None], k, size))
        # Where two rough places of e_{k+1} cross as functions of e_k, the integral over e_{k+1} changes character
        # (the integral over e_2 > max(a(e_1), b(e_1)) has a kink at a = b).
        for k in range(rank - 2, -1, -1):
            below = stages[k + 1]
            count(len(below.eta) ** 2 * size // 2)
            stages[k] = _Roughness.join([stages[k], *_crossings(below, k, radius)], k, size)
    return stages


def _crossings(below: _Roughness, k: int, radius: float) -> Iterator[_Roughness]:
    """Where two places of the variable after e_k cross, as functions of e_k: those that some entry of the batch need see."""
    places, size = below.eta.shape
    first, second = np.triu_indices(places, 1)
    step = max(1, _BLOCK // (16 * size))  # the temporaries stay in the cache
    for start in range(0, len(first), step):
        i, j = first[start : start + step], second[start : start + step]
        slope = below.slope[i] - below.slope[j]
        offset = -(below.offset[i] - below.offset[j]) / slope[:, k]
        eta = (below.eta[i] + below.eta[j]) / np.abs(slope[:, k])
        if k == 0:  # a crossing outside the range of e_2 is harmless
            height = np.abs(below.offset[i] + below.slope[i, 0] * offset)
            eta = np.where(height < radius + np.maximum(below.eta[i], below.eta[j]), eta, np.inf)
        seen = (eta < _WIDE) & np.isfinite(offset)
        some = seen.any(1)
        seen, offset, slope, eta = seen[some], offset[some], slope[some], eta[some]
        moving = np.where(seen[:, None], -slope[:, :k] / slope[:, k, None], 0)
        yield _Roughness(np.where(seen, offset, 0), moving, np.where(seen, eta, np.inf))


def _panels(
    limit: Array, place: Array, eta: Array, rule: Rule, spend: Count = lambda points: None
) -> tuple[NDArray[np.intp], Array, Array]:
    """Panels that cover [-limit, limit] in every row and respect the rough places.

    Args:
        limit: Shape (rows,).
        place: Positions of rough places, shape (F, rows).
        eta: Distances of their singularities from the axis, shape (F, rows).
        rule: The resolution.
        spend: Told what it costs, in evaluations.

    Returns:
        Owner (row), lower and upper ends of the panels, each (P,), in no particular order.
    """
    cuts = np.where(np.isfinite(eta), np.clip(place, -limit, limit), limit)
    cuts = np.sort(np.concatenate([-limit[None], cuts, limit[None]]), axis=0)
    # Slivers come from one cut computed in two ways.
    _, row = wide = np.nonzero(np.diff(cuts, axis=0) > 1e-15)
    low, high = cuts[:-1][wide], cuts[1:][wide]
    count = np.ceil((high - low) / rule.width).astype(np.intp)
    step = np.repeat((high - low) / count, count)
    part = np.arange(len(step)) - np.repeat(np.cumsum(count) - count, count)
    row, high, low = np.repeat(row, count), np.repeat(high, count), np.repeat(low, count) + part * step
    high = np.where(part == np.repeat(count, count) - 1, high, low + step)
    soft = ((eta > 0) & np.isfinite(eta)).any(axis=1)
    if not soft.any():
        return row, low, high
    place, eta = place[soft], np.where(eta[soft] > 0, eta[soft], np.inf)
    ellipse = (rule.ellipse + 1 / rule.ellipse) / 2
    done = []
    while len(row):
        spend(len(place) * len(row) // PLACES)
        split = high - low > 1e-14
        size = max(1, _BLOCK // len(place))
        for block in [slice(s, s + size) for s in range(0, len(row), size)]:
            x, y, a, b = place[:, row[block]], eta[:, row[block]], low[block], high[block]
            # The foci of the Bernstein ellipse are the ends of the panel.
            reach = np.hypot(x - a, y) + np.hypot(x - b, y)
            split[block] &= (reach < ellipse * (b - a)).any(axis=0)
        done.append((row[~split], low[~split], high[~split]))
        row, low, high = row[split], low[split], high[split]
        middle = (low + high) / 2
        row, low, high = np.tile(row, 2), np.concatenate([low, middle]), np.concatenate([middle, high])
    owner, lower, upper = (np.concatenate(column) for column in zip(*done, strict=True))
    return owner, lower, upper


def _nodes(low: Array, high: Array, rule: Rule) -> tuple[Array, Array]:
    """Nodes and weights against the standard normal density, both (P, nodes)."""
    x, w = _legendre(rule.nodes)
    half = (high - low)[:, None] / 2
    e = (low + high)[:, None] / 2 + half * x
    return e, half * w * (np.exp(-(e**2) / 2) * _INV_SQRT_2PI)


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
    (rough,) = _roughness(mean[:, None], deviation[:, None, None], features, radius)
    owner, low, high = _panels(np.full(len(mean), radius - rule.shrink), rough.offset, rough.eta, rule)
    return owner, *_nodes(low, high, rule)


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
    (rough,) = _roughness(mean[:, None], deviation[:, None, None], features, radius)
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
    _, lower, upper = _panels(np.array([limit]), position[:, None], eta[:, None], rule)
    e, weight = _nodes(lower, upper, rule)
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
    rough = _roughness(mean, factor, features, radius, count)
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
        return _panels(left, place, eta, rule, spend)

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
        step = max(1, _BLOCK // rule.nodes)
        for start in range(0, len(row), step):
            part = slice(start, start + step)
            owner = row[part]
            e, weight = _nodes(low[part], high[part], rule)
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
