"""Integrals of scalar programs as numbers: arrays of means, covariances and parameters, at one resolution.

Each goes the way that suits it: bounds in one variable and, where an integrand is rough inside, in two; a series, where it is a
product of one function of each of two variables; nested rules; samples.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorprog.language.node import Node
from tensorprog.limits.budget import Budget
from tensorprog.limits.gauss.integrand import MAX_QUADRATURE, POINTS, Integrand
from tensorprog.limits.gauss.nested import Indefinite
from tensorprog.limits.gauss.pairseries import PairProduct

if TYPE_CHECKING:
    from tensorprog.limits.gauss.sampling import Sampler

__all__ = ["PLANES", "Integrals", "distinct", "integrate_arrays"]

Array = np.ndarray

LINES = 2**11
"""So many integrals at once in one variable have error bounds; more of them are compared at two resolutions."""
PLANES = 16
"""The same in two variables, where the integrand is rough inside or two resolutions do not agree."""
PAIRS_FROM = 8
"""Products of one function of each of two variables go to the series rule from this many entries."""


class Integrals:
    """Integrals by whatever rule suits them, and what is remembered of them.

    Args:
        rng: Seeds what is sampled.
        points: Points of one replicate of a sampled integral.
        budget: Evaluations of integrands are counted there.

    Attributes:
        rough: Have covariances the rounding of what has been moved?
        compared: Are errors of analytic integrands found by comparing with bounds elsewhere?
        planar: Integrals in two variables and more whose inner and outer integrals are to have bounds.
        sampled: Those that are sampled.
        uncertain: Scalars that depend on sampled ones.
        samplers: How they are.
        coming: Evaluations that those at the coarse resolution announce.
        repeated: How many are to come for each one at the coarse resolution.
    """

    def __init__(self, rng: int = 0, points: int = POINTS, budget: Budget | None = None) -> None:
        self.rng, self.points, self.budget = rng, points, budget or Budget()
        self.rough = self.compared = False
        self.planar: set[Node] = set()
        self.sampled: set[Node] = set()
        self.uncertain: set[Node] = set()
        self.samplers: dict[Node, Sampler] = {}
        self.coming: float | None = None
        self.repeated: Callable[[Node], float] = lambda x: 1.0
        self._magnitudes: dict[Node, Array] = {}
        self._products: dict[Node, PairProduct | None] = {}

    def _product(self, x: Node) -> PairProduct | None:
        """The integrand as a product of one function of each of two variables, if it is one."""
        if x not in self._products:
            self._products[x] = PairProduct.of(x.attr)
        return self._products[x]

    def _sampler(self, x: Node, key: int) -> Sampler:
        from tensorprog.limits.gauss.sampling import Sampler

        if x not in self.samplers:
            self.samplers[x] = Sampler(x.attr, [self.rng, key], self.points)
        return self.samplers[x]

    def magnitude(self, x: Node, args: Sequence[Array]) -> Array:
        """E |f| of an integral E f, roughly; the integral itself is enough for large batches and sampled ones."""
        if x not in self._magnitudes:
            size = int(np.prod(np.broadcast_shapes(*[a.shape for a in args])))
            small = x not in self.sampled and size < PAIRS_FROM
            self._magnitudes[x] = np.abs(self.value(x, args, 0, 0, absolute=True)) if small else np.zeros(())
        return self._magnitudes[x]

    def value(
        self, x: Node, args: Sequence[Array], level: int, replicate: int, absolute: bool = False, noise: int = 0
    ) -> Array:
        """An integral, for arrays that broadcast.

        Args:
            x: Its node.
            args: Arrays of means, covariances and parameters.
            level: Resolution.
            replicate: Which sample.
            absolute: Of the integrand's absolute value?
            noise: The seed of what is moved inside.
        """
        integrand: Integrand = x.attr
        d = integrand.dimension
        product = None if absolute or x in self.sampled else self._product(x)
        if product is not None and math.prod(x.shape) >= PAIRS_FROM:
            known = product.outer(args, level)
            if known is not None:
                return known

        what = f"an integral in {d} variable{'s' * (d > 1)}"

        def evaluated(points: int) -> None:
            self.budget.evaluate(points, what)

        def foreseen(points: float) -> None:
            self.budget.foresee(points, what)

        values: Callable[..., Any] = integrand
        if noise and integrand.conditional:
            values = integrand.moved(np.random.default_rng([self.rng, noise]))

        def f(z: Sequence[Any], p: Sequence[Any]) -> Any:
            points = math.prod(np.broadcast_shapes(*[np.shape(a) for a in (*z, *p)]))
            evaluated(points)
            if self.coming is not None:
                self.coming += points * self.repeated(x)
                self.budget.foresee(self.coming, what)
            return np.abs(integrand(z, p)) if absolute else values(z, p)

        shape = np.broadcast_shapes(*[a.shape for a in args])
        flat = [
            np.broadcast_to(a, shape).reshape(-1).astype(float, copy=False) for a in args
        ]  # of float32 kernels, too
        if integrand.exchange is not None:  # one integral for (u, v) and (v, u)
            flat = _in_order(flat, integrand.exchange)
        unique, back = distinct(flat)
        means, triangle, params = unique[:d], unique[d : d + d * (d + 1) // 2], unique[d + d * (d + 1) // 2 :]
        size = len(unique[0])
        mean = np.stack(means, -1)
        cov = np.empty((size, d, d))
        k = 0
        for i in range(d):
            for j in range(i + 1):
                cov[:, i, j] = cov[:, j, i] = triangle[k]
                k += 1
        if self.rough or any(a in self.uncertain for a in x.args):
            cov = _semidefinite(cov)
        value, left = np.empty(size), np.ones(size, dtype=bool)
        ranks = 2 if x in self.planar else 1 if d <= MAX_QUADRATURE and size <= LINES else -1
        compared = self.compared and d == 1 and integrand.bounded.analytic
        if ranks > 0 and not compared and not integrand.conditional and not (d == 1 and x in self.sampled):
            value, done = integrand.bounded(mean, cov, params, ranks, level, noise, absolute, evaluated)
            left = ~(done & np.isfinite(value))  # bounds overflow before exp(-z) step(z) does
        if left.any() and x in self.sampled:
            key = int.from_bytes(hashlib.blake2b(x.digest, digest_size=8).digest(), "little")
            rng = np.random.default_rng([self.rng, replicate, key])
            value = np.where(left, self._sampler(x, key).expectation(f, mean, cov, params, rng, back), value)
        elif left.any():
            mean, cov, params = mean[left], cov[left], [p[left] for p in params]
            if product is not None and len(mean) >= PAIRS_FROM:
                value[left] = product.listed(mean, cov, level)
            else:
                value[left] = self._nested(integrand, f, mean, cov, params, level, evaluated, foreseen)
        return np.asarray(value)[back].reshape(shape)

    def _nested(
        self,
        integrand: Integrand,
        f: Any,
        mean: Array,
        cov: Array,
        params: Sequence[Array],
        level: int,
        count: Callable[[int], None],
        foresee: Callable[[float], None],
    ) -> Array:
        from tensorprog.limits.gauss.integrate import Curve, Feature, gaussian_expectation

        level += integrand.oblique  # no place to refine at: both resolutions finer
        curves = [Curve(*c) for c in integrand.curves or ()]
        deviations = np.sqrt(np.maximum(np.diagonal(cov, axis1=1, axis2=2), 0))
        if not any(turn.parametric for turn in integrand.turns):
            features = [Feature(*at) for at in integrand.located(mean, deviations, [])]
            return gaussian_expectation(f, mean, cov, params, features, level, curves, count, foresee)
        value = np.empty(len(mean))
        for k in range(len(mean)):  # at other places in every row
            row, mine = slice(k, k + 1), [p[k : k + 1] for p in params]
            features = [Feature(*at) for at in integrand.located(mean[row], deviations[row], [p[0] for p in mine])]
            value[k] = gaussian_expectation(f, mean[row], cov[row], mine, features, level, curves, count, foresee)[0]
        return value


def integrate_arrays(
    x: Node,
    args: Sequence[Array],
    level: int,
    rough: bool = False,
    absolute: bool = False,
    compared: bool = False,
    *,
    budget: Budget,
) -> Array:
    """An integral by quadrature, for arrays of means, covariances (up to rounding, if `rough`) and parameters that broadcast.

    Of the integrand's absolute value if `absolute`; without bounds, which are dear, if it is `compared` with them elsewhere.

    Raises:
        Exhausted: It takes more evaluations than the budget has left.
    """
    found = Integrals(budget=budget)
    found.rough, found.compared = rough, compared
    try:
        return found.value(x, args, level, 0, absolute)
    except Indefinite:  # the nearest covariance; how wrong that is shows when everything is moved
        found.rough = True
        return found.value(x, args, level, 0, absolute)


def _semidefinite(cov: Array) -> Array:
    """Covariances that are sampled themselves, in reach of the nearest correlations that are possible.

    Entries that are equal in truth come from different samples: copies of one variable then have a negative eigenvalue of the
    size of the error. What changes is of that size too, and different in every replicate, whose spread is the error stated.
    """
    variance = np.diagonal(cov, axis1=1, axis2=2)
    if (variance < 0).any():  # a variance that is 0 in truth
        positive = variance > 0
        cov = np.where(positive[:, :, None] & positive[:, None, :], cov, 0.0)
    deviation = np.sqrt(np.maximum(variance, 0))
    if not np.isfinite(cov).all():
        return cov
    inverse = np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > 0)
    value, vector = np.linalg.eigh(cov * inverse[:, :, None] * inverse[:, None, :])
    if value.min(initial=0.0) >= -1e-12:
        return cov
    root = vector * np.sqrt(np.maximum(value, 0))[:, None, :] * deviation[:, :, None]
    return np.asarray(root @ root.swapaxes(1, 2))


def _in_order(flat: Sequence[Array], exchange: Sequence[int]) -> list[Array]:
    """Means, covariances (variance, covariance, variance) and parameters, with the variables exchanged where that is sorted.

    Args:
        flat: Arrays of one shape.
        exchange: Which parameter takes the place of each when the variables change places.
    """
    m, n, v, c, w, *params = flat
    other = [n, m, w, c, v, *[params[k] for k in exchange]]
    before, after = np.zeros(len(m), dtype=bool), np.zeros(len(m), dtype=bool)
    for a, b in zip(flat, other, strict=True):
        undecided = ~(before | after)
        before, after = before | (undecided & (a < b)), after | (undecided & (a > b))
    return [np.where(after, b, a) for a, b in zip(flat, other, strict=True)]


def distinct(flat: Sequence[Array]) -> tuple[list[Array], Array]:
    """The distinct entries of several arrays taken together, and where each went."""
    size = len(flat[0])
    if size == 1:
        return list(flat), np.zeros(1, dtype=int)
    # Sorting one hash of every entry is several times faster than sorting entries.
    bits = np.stack(flat, -1).view(np.uint64)
    key = np.zeros(size, dtype=np.uint64)
    for column in bits.T:
        key = (key ^ column) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(29)
    _, first, back = np.unique(key, return_index=True, return_inverse=True)
    order = np.argsort(first)  # as they come: nothing depends on the hash
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    first, back = first[order], rank[back.reshape(-1)]
    if not np.array_equal(bits[first[back]], bits):  # two entries of one hash
        _, first, back = np.unique(bits, axis=0, return_index=True, return_inverse=True)
    return [a[first] for a in flat], back.reshape(-1)
