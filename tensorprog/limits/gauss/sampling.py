"""Gaussian integrals in many variables by sampling: tilted towards what matters, with an error that knows what was missed.

Plain quasi-Monte-Carlo serves where every sample carries its share. Where few of them do (rare events, tails, exponentials), an
integrand in standard normal coordinates x is made smoother and its samples are moved:

* *Supports.* A factor that vanishes outside of intervals of its variable (steps, relus, windows: `supports.py`) is sampled
  inside of them, one variable after the other given those before, and the conditional probabilities are the weight (Genz 1992;
  Geweke, Hajivassiliou and Keane). No sample is wasted on zeros, however rare the event.
* *Tilting.* Pilot samples, drawn wide as well, tell by their second moment whether plain sampling is good; where it is not, a
  Gaussian is fitted to `|F(x)| phi(x)` by the cross-entropy method (Rubinstein 1999), tempered so that no few samples decide,
  and along smoothed steps and relus where nothing is hit at first.
* *Defensive mixtures.* What is sampled is a mixture with the plain Gaussian, stratified, and every sample is weighted by the
  density of the whole mixture (Hesterberg 1995; Veach and Guibas 1995): unbiased whatever was fitted, and at most five times the
  variance of plain sampling with as many points.

Pilots only choose where to look, once; replicates are independent of each other and unbiased.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from tensorprog.estimate import unseen
from tensorprog.language import algebra
from tensorprog.language.node import Node, topological
from tensorprog.limits.gauss.integrand import POINTS, Integrand
from tensorprog.limits.gauss.integrate import cholesky_in_order, normal_points, qmc_expectation
from tensorprog.limits.gauss.supports import Intervals, supports

__all__ = ["PILOT", "ROUNDS", "Sampler"]

Array = NDArray[np.float64]

PILOT = 2**12
"""Samples that a density is fitted to, in each of its rounds."""
WIDE = (1.0, 1.5, 2.5, 4.0)
"""Standard deviations of the pilot's samples; the first is the Gaussian itself."""
EVEN = 8.0
"""Plain sampling is good where the mean square is at most this multiple of the squared mean modulus."""
EVEN_INSIDE = 2.0
"""The same inside supports: what is left there is smooth, and a Gaussian fits it."""
ROUNDS = 10
"""Of fitting, at most."""
DEFENSIVE = 0.2
"""Share of the plain Gaussian in what is sampled."""
NARROW = 0.1
"""Intervals narrower than this, over the scale on which the density falls, are sampled uniformly."""
MODES = 8
LEVELS = 24
SHARPER = 2.0
"""On the way to an event, steps are smooth on the scale of half a deviation of their arguments, among the samples so far."""
REPLICATES = 16


@dataclass(frozen=True)
class Component:
    """A Gaussian of the mixture: mean + root @ (standard normals), and log of the share over the determinant."""

    mean: Array
    root: Array
    inverse: Array
    log_weight: float

    @classmethod
    def of(cls, share: float, mean: Array, cov: Array) -> Component:
        """From its share, mean and covariance."""
        root = np.asarray(np.linalg.cholesky(cov))
        inverse = np.linalg.inv(root)
        return cls(mean, root, inverse, math.log(share) - float(np.log(np.diagonal(root)).sum()))

    def log_density(self, x: Array) -> Array:
        """Of samples (d, n), times the share; without the power of 2 pi."""
        w = self.inverse @ (x - self.mean[:, None])
        return np.asarray(self.log_weight - 0.5 * (w * w).sum(0))


@dataclass
class Tilt:
    """How one entry is sampled.

    Attributes:
        order: The variables, those with a support first.
        restricted: Which variables have one.
        components: The mixture; empty for the plain Gaussian.
        missed: What a sample that was never drawn could contribute, where no sample hit anything.
        largest: What the largest sample contributes to the mean of all replicates.
    """

    order: tuple[int, ...] = ()
    restricted: tuple[int, ...] = ()
    components: tuple[Component, ...] = ()
    missed: float = 0.0
    largest: float = 0.0


@dataclass
class Entry:
    """The integrand of one entry in standard normal coordinates."""

    f: Callable[..., Any]
    body: Node
    mean: Array
    cov: Array
    params: Sequence[float]
    tilt: Tilt
    sets: dict[int, Intervals] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.tilt.restricted:
            found = supports(self.body, self.params)
            self.sets = {i: found[i] for i in self.tilt.restricted if i in found}
        self.root = cholesky_in_order(self.cov, self.tilt.order)

    def arguments(self, x: Array) -> tuple[list[Array], Array | float]:
        """Samples of the variables from standard normals (d, n), and their weights."""
        z: list[Array] = [np.empty(0)] * len(self.mean)
        weight: Array | float = 1.0
        y = x.copy()
        for k, i in enumerate(self.tilt.order):
            here = self.mean[i] + self.root[i, :k] @ y[:k]
            pivot = self.root[i, k]
            if i in self.sets and pivot > 0:
                y[k], mass = _within(x[k], [((a - here) / pivot, (b - here) / pivot) for a, b in self.sets[i]])
                weight = weight * mass
            z[i] = here + pivot * y[k]
        return z, weight

    def __call__(self, x: Array, f: Callable[..., Any] | None = None, more: Sequence[float] = ()) -> Array:
        """F at standard normals (d, n): with expectation E f."""
        z, weight = self.arguments(x)
        p = [np.full((1, 1), v) for v in (*self.params, *more)]
        with np.errstate(all="ignore"):
            value = np.broadcast_to((f or self.f)([v[None] for v in z], p), (1, x.shape[1]))[0]
            # a weight of 0 is no sample; the function may be infinite there
            return np.where(np.asarray(weight) == 0, 0.0, value * weight)


def _within(x: Array, intervals: Sequence[tuple[Array, Array]]) -> tuple[Array, Array]:
    """A normal in one of the intervals as a function of a standard normal x, and its weight.

    Inside of an interval it is distributed like a standard normal there; in a narrow one uniformly, with the density in the
    weight, since the difference of two probabilities would have lost digits.
    """
    parts = []
    for a, b in intervals:
        flip = a > 0
        low, high = np.where(flip, -b, a), np.where(flip, -a, b)
        with np.errstate(invalid="ignore"):
            width = high - low
            narrow = width * (1 + np.minimum(np.abs(low), np.abs(high))) < NARROW
        middle = np.where(narrow, (low + high) / 2, 0.0)
        mass = np.where(narrow, width * _density(middle), ndtr(high) - ndtr(low))
        parts.append((flip, low, high, narrow, np.maximum(np.where(np.isfinite(mass), mass, 0.0), 0.0)))
    total = np.sum([p[-1] for p in parts], axis=0)
    left = ndtr(x) * total  # how much of the probability is to the left
    y, weight = np.zeros_like(x), total
    for k, (flip, low, high, narrow, mass) in enumerate(parts):
        here = (left >= 0) & ((left <= mass) | (k == len(parts) - 1))
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.clip(np.where(mass > 0, left / mass, 0.0), 0.0, 1.0)
            share = np.where(flip, 1 - share, share)
            wide = np.clip(ndtri(ndtr(low) + share * mass), low, high)
            linear = np.where(narrow, low + share * (high - low), 0.0)
            found = np.where(narrow, linear, wide)
            ratio = np.where(narrow & (mass > 0), (high - low) * _density(found) / mass, 1.0)
        y = np.where(here, np.where(flip, -found, found), y)
        weight = np.where(here, total * ratio, weight)
        left = np.where(here, -1.0, left - mass)
    return np.where(np.isfinite(y), y, 0.0), weight


def _density(y: Array) -> Array:
    return np.asarray(np.exp(-0.5 * y * y) / math.sqrt(2 * math.pi))


class Sampler:
    """Replicates of one integral, for an array of Gaussians.

    Args:
        integrand: Its function.
        key: Seeds its pilots.
        points: Points of a replicate.
    """

    def __init__(self, integrand: Integrand, key: Sequence[int], points: int = POINTS) -> None:
        self.integrand, self.key, self.points = integrand, list(key), points
        self._tilts: list[Tilt] = []
        self._which: NDArray[np.intp] | None = None

    def expectation(
        self,
        f: Callable[..., Any],
        mean: Array,
        cov: Array,
        params: Sequence[Array],
        rng: np.random.Generator,
        back: NDArray[np.intp],
    ) -> Array:
        """One replicate.

        Args:
            f: The integrand, counted.
            mean: (B, d).
            cov: (B, d, d).
            params: Each (B,).
            rng: Source of the scrambling.
            back: Which of the B every entry of the array is. How an entry is sampled is chosen in the first call, once.
        """
        if self._which is None or len(self._which) != len(back):
            self._tilts = [self._chosen(f, mean[b], cov[b], [float(p[b]) for p in params]) for b in range(len(mean))]
            self._which = back
        _, first = np.unique(back, return_index=True)
        tilts = [self._tilts[i] for i in self._which[first]]
        result = np.full(len(mean), np.nan)
        plain = [b for b, t in enumerate(tilts) if not t.order]
        if plain:
            part = [p[plain] for p in params]
            radial = self.integrand.radial
            result[plain] = qmc_expectation(f, mean[plain], cov[plain], part, rng, self.points, radial=radial)
        for b, t in enumerate(tilts):
            if t.order and np.isfinite(mean[b]).all() and np.isfinite(cov[b]).all():
                entry = Entry(f, self.integrand.body, mean[b], cov[b], [float(p[b]) for p in params], t)
                result[b] = _mixed(entry, t, self.points, rng)
        return result

    @property
    def tilted(self) -> bool:
        """Are samples drawn elsewhere than the Gaussian itself would?"""
        return any(t.order for t in self._tilts)

    @property
    def has_missed(self) -> bool:
        """Is there an entry that no sample hit?"""
        return any(t.missed for t in self._tilts)

    @property
    def missed(self) -> Array:
        """For every entry of the array, what may have been missed where nothing was hit; else, the largest contribution."""
        return np.array([t.missed or t.largest for t in self._tilts])[self._which]

    # ---- how to sample ----
    def _chosen(self, f: Callable[..., Any], mean: Array, cov: Array, params: Sequence[float]) -> Tilt:
        d = len(mean)
        if not d or self.integrand.radial or not np.isfinite(mean).all() or not np.isfinite(cov).all():
            return Tilt()
        found = supports(self.integrand.body, params)
        deviation = np.sqrt(np.maximum(np.diagonal(cov), 0))
        tilt = Tilt(_order(mean, deviation, found, d), tuple(found))
        entry = Entry(f, self.integrand.body, mean, cov, params, tilt)
        rng = np.random.default_rng([*self.key, 0])
        pool = [Component.of(1 / len(WIDE), np.zeros(d), s * s * np.eye(d)) for s in WIDE]
        x, log_q = _drawn(pool, PILOT, rng)
        size = np.abs(entry(x))
        size = np.where(np.isfinite(size), size, 0.0)
        if np.count_nonzero(size) >= MODES * d:
            log_phi = -0.5 * (x * x).sum(0)
            ratio = np.exp(log_phi - log_q)
            first, second = (
                float(np.mean(size * ratio)),
                float(np.mean((size / size.max()) ** 2 * ratio)) * size.max() ** 2,
            )
            if 0 < second <= (EVEN_INSIDE if found else EVEN) * first**2:  # every sample carries its share
                return tilt if found else Tilt()
            log_f = _log(size)
        else:
            x, log_q, log_f = self._guided(entry, pool, x, log_q, rng)
        components = self._fitted(entry, x, log_q, log_f, rng)
        if not components:
            tilt.missed = self._missed(entry, x)
            return tilt
        tilt.components = components
        return tilt

    def _fitted(
        self, entry: Entry, x: Array, log_q: Array, log_f: Array, rng: np.random.Generator, f: Integrand | None = None,
        more: Sequence[float] = (), rounds: int = ROUNDS,
    ) -> tuple[Component, ...]:  # fmt: skip
        """The mixture that samples like |F| phi, by cross entropy."""
        d = len(x)
        best: tuple[float, tuple[Component, ...]] = (0.0, ())
        for _ in range(rounds):
            log_w = log_f - 0.5 * (x * x).sum(0) - log_q
            whole = _effective(log_w)
            if np.isfinite(log_w).sum() < 2 * MODES:
                break
            weights, tempered = _tempered(log_w, min(20.0 + 10 * d, 0.2 * np.isfinite(log_w).sum()))
            components = _mixture(x, weights, d)
            x, log_q = _drawn(components, PILOT, rng)
            log_f = _log(np.abs(entry(x, f, more)))
            now = _effective(log_f - 0.5 * (x * x).sum(0) - log_q)
            if now > best[0]:
                gained = now > 1.2 * best[0]
                best = (now, components)
                if tempered or gained:
                    continue
            if not tempered or now < whole / 4:
                break
        return best[1]

    def _guided(
        self, entry: Entry, pool: Sequence[Component], x: Array, log_q: Array, rng: np.random.Generator
    ) -> tuple[Array, Array, Array]:
        """Samples where F is not zero, found along integrands whose steps and relus are smooth, and less and less so."""
        guide = _smoothed(self.integrand)
        if guide is None:
            return x, log_q, _log(np.abs(entry(x)))
        smooth, arguments = guide
        p = [np.full((1, 1), v) for v in entry.params]
        steep = [0.0] * len(arguments)
        for _ in range(LEVELS):
            z, _ = entry.arguments(x)
            with np.errstate(all="ignore"):
                values = [np.broadcast_to(g([v[None] for v in z], p), (1, x.shape[1])) for g in arguments]
                spread = [float(np.nanstd(v)) for v in values]
            steep = [max(1.5 * k, SHARPER / s if 0 < s < math.inf else 1.0) for k, s in zip(steep, spread, strict=True)]
            log_f = _log(np.abs(entry(x, smooth, steep)))
            components = self._fitted(entry, x, log_q, log_f, rng, smooth, steep, rounds=4)
            if components:
                x, log_q = _drawn(components, PILOT, rng)
            size = np.abs(entry(x))
            if np.count_nonzero(np.nan_to_num(size)) >= PILOT // 20:
                break
        return x, log_q, _log(np.abs(entry(x)))

    def _missed(self, entry: Entry, x: Array) -> float:
        """The bound that no hits allow: what may not have been seen of the samples drawn, times what a hit could be."""
        guide = _smoothed(self.integrand)
        if guide is None:  # nothing says how large: another route has to
            return math.inf
        with np.errstate(all="ignore"):
            values = np.abs(entry(x, guide[0], [1.0] * len(guide[1])))
        size = float(np.max(values, initial=0.0, where=np.isfinite(values)))
        return unseen() * (size or 1.0) / (self.points * REPLICATES)


def _order(mean: Array, deviation: Array, sets: dict[int, Intervals], d: int) -> tuple[int, ...]:
    """Variables with a support first, the least probable first of all (Genz); the others as they come."""

    def probability(i: int) -> float:
        s = max(float(deviation[i]), 1e-300)
        ends = [(np.asarray((a - mean[i]) / s), np.asarray((b - mean[i]) / s)) for a, b in sets[i]]
        return float(_within(np.zeros(()), ends)[1])

    first = sorted(sets, key=lambda i: (probability(i), i))
    return (*first, *[i for i in range(d) if i not in sets])


def _drawn(components: Sequence[Component], count: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Samples (d, n) of a mixture, every component in proportion to its share, and the log density of all of it."""
    d = len(components[0].mean)
    shares = np.array([math.exp(c.log_weight + np.log(np.diagonal(c.root)).sum()) for c in components])
    parts = []
    for c, share in zip(components, shares, strict=True):
        number = max(1, round(count * share))
        normal = normal_points(d, number, rng)
        parts.append(c.mean[:, None] + c.root @ normal)
    x = np.concatenate(parts, axis=1)
    return x, _log_mixture(components, x)


def _log_mixture(components: Sequence[Component], x: Array) -> Array:
    return np.asarray(np.logaddexp.reduce([c.log_density(x) for c in components], axis=0))


def _mixed(entry: Entry, tilt: Tilt, points: int, rng: np.random.Generator) -> float:
    """One replicate of the mean of F."""
    d = len(entry.mean)
    if not tilt.components:
        value = entry(normal_points(d, points, rng))
        tilt.largest = max(tilt.largest, _largest(value) / (points * REPLICATES))
        return float(value.mean())
    total, strata = 0.0, []
    for c in tilt.components:
        share = math.exp(c.log_weight + float(np.log(np.diagonal(c.root)).sum()))
        number = 2 ** max(4, round(math.log2(points * share)))
        strata.append((share, c.mean[:, None] + c.root @ normal_points(d, number, rng)))
    for share, x in strata:
        ratio = np.exp(-0.5 * (x * x).sum(0) - _log_mixture(tilt.components, x))
        value = np.where(ratio == 0, 0.0, entry(x) * ratio)
        tilt.largest = max(tilt.largest, share * _largest(value) / (x.shape[1] * REPLICATES))
        total += share * float(value.mean())
    return total


def _largest(values: Array) -> float:
    """How far the largest is from the mean."""
    return float(np.max(np.abs(values - values.mean()), initial=0.0, where=np.isfinite(values)))


# ---- fitting ----


def _log(size: Array) -> Array:
    with np.errstate(all="ignore"):
        return np.where(np.isfinite(size) & (size > 0), np.log(size), -np.inf)


def _effective(log_w: Array) -> float:
    """The effective number of samples (Kish) of weights."""
    top = log_w.max(initial=-np.inf)
    if top == -np.inf:
        return 0.0
    w = np.exp(log_w - top)
    return float(w.sum() ** 2 / (w * w).sum())


def _tempered(log_w: Array, wanted: float) -> tuple[Array, bool]:
    """Weights to a power that leaves enough effective samples, and whether that is not 1."""
    low, high = 0.0, 1.0
    if _effective(log_w) < wanted:
        for _ in range(30):
            middle = (low + high) / 2
            low, high = (middle, high) if _effective(_times(middle, log_w)) >= wanted else (low, middle)
        power = low
    else:
        power = 1.0
    w = _times(power, log_w)
    w = np.exp(w - w.max())
    return w / w.sum(), power < 1.0


def _times(power: float, log_w: Array) -> Array:
    return np.where(log_w > -np.inf, power * np.where(log_w > -np.inf, log_w, 0.0), -np.inf)


def _mixture(x: Array, weights: Array, d: int) -> tuple[Component, ...]:
    """The plain Gaussian and a Gaussian fitted to weighted samples; two of them where these lie on two sides."""
    plain = Component.of(DEFENSIVE, np.zeros(d), np.eye(d))
    groups = [np.ones(x.shape[1], dtype=bool)]
    centre = x @ weights
    apart = (x - centre[:, None]) * np.sqrt(weights)
    values, vectors = np.linalg.eigh(apart @ apart.T)
    if values[-1] > 2.0:  # wider than the Gaussian itself: more than one place, perhaps
        side = vectors[:, -1] @ (x - centre[:, None]) > 0
        groups = [side, ~side]
    fitted = []
    for g in groups:
        share = float(weights[g].sum())
        if share < 0.02:
            continue
        w = weights[g] / share
        mean = x[:, g] @ w
        off = (x[:, g] - mean[:, None]) * np.sqrt(w)
        number = 1 / float((w * w).sum())
        cov = off @ off.T
        trust = number / (number + 2 * d)  # a covariance known from few samples is drawn towards its diagonal
        cov = trust * cov + (1 - trust) * np.diag(np.diagonal(cov)) + 1e-6 * np.eye(d)
        fitted.append((share, mean, 1.2 * cov))
    total = sum([s for s, _, _ in fitted])
    return (plain, *[Component.of((1 - DEFENSIVE) * s / total, m, c) for s, m, c in fitted])


# ---- smoothed integrands ----


def _smoothed(integrand: Integrand) -> tuple[Integrand, list[Integrand]] | None:
    """The integrand with sigmoids for steps and softplus for relus, steepness as further parameters; the arguments of these."""
    done: dict[Node, Node] = {}
    arguments: list[Node] = []
    first = integrand.parameters
    for y in topological([integrand.body]):
        args = [done[a] for a in y.args]
        if y.op == "fn" and y.attr[0] in ("step", "relu") and any(v.op == "var" for v in topological([y])):
            steep = Node("param", (), first + len(arguments))
            arguments.append(y.args[0])
            if y.attr[0] == "step":
                done[y] = algebra.fn("sigmoid", algebra.mul([steep, args[0]]))
            else:
                inside = algebra.fn("softplus", algebra.mul([steep, args[0]]))
                done[y] = algebra.mul([algebra.fn("reciprocal", steep), inside])
        else:
            same = all(a is b for a, b in zip(args, y.args, strict=True))
            dual = Node(y.op, tuple(args), y.attr, y.shape) if y.op == "dual" else None
            done[y] = y if same else dual or algebra.rebuild(y, args)
    if not arguments:
        return None
    d = integrand.dimension
    smooth = Integrand(done[integrand.body], d, first + len(arguments))
    return smooth, [Integrand(a, d, first) for a in arguments]
