"""Where lines are cut into panels: away from kinks, and fine where an integrand turns.

Gauss-Legendre with n nodes errs like ``rho**(-2 n)`` if the integrand is analytic in the Bernstein ellipse of parameter rho
around the panel (Trefethen, *Approximation Theory and Approximation Practice*, theorem 19.3). A panel is halved until its ellipse
excludes the singularities the features announce. Panels are kept as a ragged list (owner, lower, upper), so that each row of a
batch pays for its own panels only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["BLOCK", "Count", "Feature", "Roughness", "Rule", "nodes_of", "panels_of", "roughness", "rule"]

Array = NDArray[np.float64]
Count = Callable[[int], None]

#: Panels of one evaluation of the integrand hold about this many nodes: the temporaries stay in the cache.
BLOCK = 2**17
PLACES = 2
"""So many rough places are compared with a panel for what an evaluation costs, as measured."""
_EPS = float(np.finfo(np.float64).eps)
#: Transitions this wide (in standard deviations) need no attention: the largest panels resolve them.
_WIDE = 6.0
#: Effective distance of the singularity of a step smoothed by a Gaussian, in standard deviations of the Gaussian.
#: It is entire, but grows like exp(y**2 / 2) off the axis: by a factor 23 at 2.5.
_SMOOTHED = 2.5
_INV_SQRT_2PI = 1 / np.sqrt(2 * np.pi)


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


@dataclass(frozen=True)
class Roughness:
    """Rough places of one integration variable ``e_k``, as affine functions of the outer ones.

    Place j of batch entry b is at ``offset[j, b] + sum_i slope[j, i, b] e_i``. Its nearest singularity is ``eta[j, b]``
    off the axis: 0 for a kink, inf where there is nothing to see.
    """

    offset: Array
    slope: Array
    eta: Array

    @staticmethod
    def make(offset: Array, slope: Array, eta: Array) -> Roughness | None:
        """One place (offset (b,), slope (k, b), eta (b,)); None if no entry of the batch need see it."""
        seen = (eta < _WIDE) & np.isfinite(offset)
        if not seen.any():
            return None
        return Roughness(
            np.where(seen, offset, 0)[None], np.where(seen, slope, 0)[None], np.where(seen, eta, np.inf)[None]
        )

    @staticmethod
    def join(places: Sequence[Roughness], outer: int, size: int) -> Roughness:
        """Several places, or none, as one."""
        empty = Roughness(np.empty((0, size)), np.empty((0, outer, size)), np.empty((0, size)))
        columns = [empty, *places]
        return Roughness(*(np.concatenate([getattr(c, a) for c in columns]) for a in ("offset", "slope", "eta")))

    def at(self, entry: NDArray[np.intp], outer: Sequence[Array]) -> tuple[Array, Array]:
        """Positions and singularity distances, both (places, rows), for rows of batch entries and outer values."""
        place = self.offset[:, entry]
        for i, e in enumerate(outer):
            place += self.slope[:, i, entry] * e
        return place, self.eta[:, entry]


def roughness(
    mean: Array, factor: Array, features: Sequence[Feature], radius: float, count: Count = lambda points: None
) -> list[Roughness]:
    """Rough places of every integration variable, for ``z = mean + factor @ e`` with factor (b, d, r)."""
    size, _, rank = factor.shape
    stages: list[Roughness] = []
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for k in range(rank):
            places = []
            for feature in features:
                row = factor[:, feature.variable]
                inner = np.linalg.norm(row[:, k + 1 :], axis=1)
                eta = (np.pi / 2 * feature.scale + _SMOOTHED * inner) / np.abs(row[:, k])
                offset = (feature.location - mean[:, feature.variable]) / row[:, k]
                places.append(Roughness.make(offset, -row[:, :k].T / row[:, k], eta))
            stages.append(Roughness.join([p for p in places if p is not None], k, size))
        # Where two rough places of e_{k+1} cross as functions of e_k, the integral over e_{k+1} changes character
        # (the integral over e_2 > max(a(e_1), b(e_1)) has a kink at a = b).
        for k in range(rank - 2, -1, -1):
            below = stages[k + 1]
            count(len(below.eta) ** 2 * size // 2)
            stages[k] = Roughness.join([stages[k], *_crossings(below, k, radius)], k, size)
    return stages


def _crossings(below: Roughness, k: int, radius: float) -> Iterator[Roughness]:
    """Where two places of the variable after e_k cross, as functions of e_k: those that some entry of the batch need see."""
    places, size = below.eta.shape
    first, second = np.triu_indices(places, 1)
    step = max(1, BLOCK // (16 * size))  # the temporaries stay in the cache
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
        yield Roughness(np.where(seen, offset, 0), moving, np.where(seen, eta, np.inf))


def panels_of(
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
        size = max(1, BLOCK // len(place))
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


def nodes_of(low: Array, high: Array, rule: Rule) -> tuple[Array, Array]:
    """Nodes and weights against the standard normal density, both (P, nodes)."""
    x, w = _legendre(rule.nodes)
    half = (high - low)[:, None] / 2
    e = (low + high)[:, None] / 2 + half * x
    return e, half * w * (np.exp(-(e**2) / 2) * _INV_SQRT_2PI)
