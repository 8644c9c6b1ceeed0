"""The numbers of the Laplace route: Gaussian laws tilted by exp(-s q), on a grid of s, with the weights of the integral.

With q_i a sum of squares of Gaussian variables h_i and k_i > 0,

    E[F prod q_i^(-k_i/2)] = integral of prod s_i^(k_i/2 - 1)/Gamma(k_i/2) E[F exp(-sum s_i q_i)] ds,

and exp(-sum s_i |h_i|^2) turns the centred Gaussian law into a number times another one. Write h = A g with g standard
normal: the law of g becomes N(0, P^-1), P = I + 2 sum s_i A_i' A_i, and the number is det(P)^-1/2. The first form is
diagonalised once, the second once for each s_1: everything is a sum of positive terms over singular values, so that
nothing cancels where s is large, however singular the covariance.

The integrand is analytic in log s in a strip of half-width pi, and decays exponentially on both sides: the trapezoid
rule in x, log s = c + a sinh x, converges exponentially (Takahasi & Mori 1974).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from tensorprog.language.symbols import encode

__all__ = ["EPS", "Covariance", "Forms", "Law", "Projection", "Variable", "blocks_together"]

Array = np.ndarray
EPS = float(np.finfo(float).eps)
NODES = {1: 96, 2: 44}
"""Nodes for each form, by the number of forms."""
COARSE = 0.8
"""The lower resolution has this fraction of them."""
DEPTH = (31.0, 34.0)
"""The integral is cut where the integrand has fallen to exp(-DEPTH), at the two resolutions."""


T = TypeVar("T")


class Forms(NamedTuple, Generic[T]):
    """The operands of a `Law`, nodes or their arrays.

    Attributes:
        covariances: Of the blocks (sums of squares over one array of variables) in pairs i >= j, (*outer, *extent_i, *extent_j).
        made: The variances that every block is made of, (*outer, *extent).
        constants: The constant term of every form, (*outer).
    """

    covariances: Sequence[T]
    made: Sequence[T]
    constants: Sequence[T]

    @property
    def flat(self) -> tuple[T, ...]:
        """One after another, as `Law.forms` takes them apart again."""
        return (*self.covariances, *self.made, *self.constants)


class Variable(NamedTuple, Generic[T]):
    """A variable of the numerator, among the operands of `Weights`: its variance, its covariances with every block."""

    variance: T
    covariances: Sequence[T]


class Tilted(NamedTuple):
    """What the array of a `Law` holds, one after another along its last axis."""

    basis: Array
    """B, (.., E, E)."""
    projections: Array
    """T, (.., Q1, E, E)."""
    factors: Array
    """f, (.., Q1, Q2, E)."""
    weights: Array
    """(.., Q1 Q2)."""


class Law:
    """A Gaussian law tilted by one or two quadratic forms: the array of a scalar node.

    Its operands are `Forms`, and its array is `Tilted`. A variable u with covariances S_uh has W_u = S_uh B, P_u = S_uh T, and
    tilted covariances

        S_uv - W_u.W_v + sum_j P_uj P_vj f_j.

    Args:
        outer: Sizes of the axes along which the forms vary.
        extents: The shape of every block.
        weights: The coefficient of every block, > 0.
        owners: The form (0 or 1) that every block belongs to, ascending.
        halves: k of every form: it comes as q^(-k/2).
    """

    moves = True

    def __init__(
        self,
        outer: tuple[int, ...],
        extents: tuple[tuple[int, ...], ...],
        weights: tuple[float, ...],
        owners: tuple[int, ...],
        halves: tuple[int, ...],
    ) -> None:
        self.outer, self.extents, self.weights, self.owners, self.halves = outer, extents, weights, owners, halves
        self.sizes = [math.prod(e) for e in extents]
        self.size = sum(self.sizes)
        self.rows = [
            np.concatenate([np.full(n, o == i) for n, o in zip(self.sizes, owners, strict=True)])
            for i in range(len(halves))
        ]
        self.first = 1 if len(halves) == 1 else NODES[2]
        self.last = NODES[len(halves)]
        self.nodes = self.first * self.last
        e = self.size
        self.shapes = Tilted((e, e), (self.first, e, e), (self.first, self.last, e), (self.nodes,))  # type: ignore[arg-type]
        self.length = sum([math.prod(s) for s in self.shapes])

    def encoded(self) -> bytes:
        """For the digest of nodes."""
        return encode(("laplace law", self.outer, self.extents, self.weights, self.owners, self.halves))

    # ---- reading ----
    def read(self, law: Array) -> Tilted:
        """What its array holds."""
        found, start = [], 0
        for shape in self.shapes:
            stop = start + math.prod(shape)
            found.append(law[..., start:stop].reshape(*law.shape[:-1], *shape))
            start = stop
        return Tilted(*found)

    @property
    def pairs(self) -> int:
        """Of blocks, each with itself among them."""
        return len(self.extents) * (len(self.extents) + 1) // 2

    def forms(self, args: Sequence[T]) -> tuple[Forms[T], Sequence[T]]:
        """Its operands, and what comes after them."""
        covariances, rest = args[: self.pairs], args[self.pairs :]
        made, rest = rest[: len(self.extents)], rest[len(self.extents) :]
        constants, rest = rest[: len(self.halves)], rest[len(self.halves) :]
        return Forms(covariances, made, constants), rest

    def joint(self, forms: Forms[Array]) -> tuple[Array, Array, list[Array]]:
        """The covariance of all variables of the forms, what is rounding on its diagonal, the constants of the forms.

        Returns:
            Arrays (*outer, E, E), (*outer, E), and (*outer) for each form.
        """
        out = np.empty((*self.outer, self.size, self.size))
        start = np.cumsum([0, *self.sizes])
        covariances = iter(forms.covariances)
        for i, (m, e, w) in enumerate(zip(self.sizes, self.extents, self.weights, strict=True)):
            for j in range(i + 1):
                n, f = self.sizes[j], self.extents[j]
                block = np.broadcast_to(next(covariances), (*self.outer, *e, *f)).reshape(*self.outer, m, n)
                block = block * math.sqrt(w * self.weights[j])
                rows, cols = slice(start[i], start[i + 1]), slice(start[j], start[j + 1])
                out[..., rows, cols] = block
                out[..., cols, rows] = np.swapaxes(block, -1, -2)
        made = [
            np.broadcast_to(a, (*self.outer, *e)).reshape(*self.outer, -1) * w
            for a, e, w in zip(forms.made, self.extents, self.weights, strict=True)
        ]
        floor = 64 * EPS * np.concatenate(made, -1)
        constants = [np.broadcast_to(a, self.outer) for a in forms.constants]
        return (out + np.swapaxes(out, -1, -2)) / 2, floor, constants

    def spectrum(self, joint: Array, floor: Array) -> tuple[Array, Array, Array, Array]:
        """Scales of the rows, eigenvalues and eigenvectors of the scaled matrix, and which eigenvalues are not 0."""
        diagonal = np.diagonal(joint, axis1=-2, axis2=-1)
        scale = np.ones(diagonal.shape)
        for rows in self.rows:
            mean = np.where(diagonal > floor, diagonal, 0.0)[..., rows].mean(-1, keepdims=True)
            scale[..., rows] = np.sqrt(np.where(mean > 0, mean, 1.0))
        values, vectors = np.linalg.eigh(joint / (scale[..., :, None] * scale[..., None, :]))
        zero = np.maximum(64 * EPS * values[..., -1], (floor / scale**2).max(-1)) * self.size
        return scale, values, vectors, values > zero[..., None]

    # ---- computing ----
    def __call__(self, args: Sequence[Array], level: int) -> Array:
        """Its array."""
        joint, floor, constants = self.joint(self.forms(args)[0])
        row_scale, values, vectors, kept = self.spectrum(joint, floor)
        scales = [np.square(row_scale[..., rows][..., 0]) for rows in self.rows]
        roots = np.sqrt(np.where(kept, values, 1.0))
        basis = vectors * np.where(kept, 1 / roots, 0.0)[..., None, :] / row_scale[..., :, None]
        a = vectors * np.where(kept, roots, 0.0)[..., None, :]
        rank = kept.sum(-1)
        pieces = [_decomposed(a[..., rows, :]) for rows in self.rows]
        spare = rank - sum(self.halves)
        grids = [
            _grid(squares, k, spare, c / s, n, level)
            for (squares, _), k, c, s, n in zip(
                pieces, self.halves, constants, scales, (self.first, self.last)[-len(pieces) :], strict=True
            )
        ]
        for (_, log_weights), k, s in zip(grids, self.halves, scales, strict=True):
            log_weights -= (k / 2 * np.log(s) + math.lgamma(k / 2))[..., None]
        if len(pieces) == 1:
            (squares, turn), (t, log_weights) = pieces[0], grids[0]
            projections = (basis @ turn)[..., None, :, :]
            shrink = 2 * np.exp(t)[..., None, :, None] * squares[..., None, None, :]
            log_weights = log_weights[..., None, :]
        else:
            (first, turn), (s, log_first) = pieces[0], grids[0]
            t, log_last = grids[1]
            given = (
                1 + 2 * np.exp(s)[..., :, None] * first[..., None, :]
            )  # (.., Q1, E): precisions given the first form
            deviation = 1 / np.sqrt(given)[..., None, :]
            squares, again = _decomposed((a[..., self.rows[1], :] @ turn)[..., None, :, :] * deviation)
            projections = ((basis @ turn)[..., None, :, :] * deviation) @ again
            shrink = 2 * np.exp(t)[..., None, :, None] * squares[..., :, None, :]
            log_weights = log_first[..., :, None] - 0.5 * np.log(given).sum(-1)[..., None] + log_last[..., None, :]
        weights = np.exp(log_weights - 0.5 * np.log1p(shrink).sum(-1))
        found = Tilted(basis, projections, 1 / (1 + shrink), weights)
        return np.concatenate([p.reshape(*self.outer, -1) for p in found], -1)


def _decomposed(a: Array) -> tuple[Array, Array]:
    """Squared singular values, as many as columns, and right singular vectors as columns."""
    _, s, vt = np.linalg.svd(a, full_matrices=True)
    squares = np.zeros((*s.shape[:-1], a.shape[-1]))
    squares[..., : s.shape[-1]] = s * s
    return squares, np.swapaxes(vt, -1, -2)


def _grid(squares: Array, k: int, spare: Array, constant: Array, count: int, level: int) -> tuple[Array, Array]:
    """Nodes t = log s and logarithms of their weights, s^(k/2) e^(-s constant) included; unused ones have weight 0.

    The envelope of the integrand is s^(k/2) prod (1 + 2 s v_j)^(-1/2) e^(-s constant). Where other factors make up for a rank
    that is too low, convergence leaves a decay of s^(-1/2) at least.
    """
    size = squares.max(-1)
    size = np.where(size > 0, size, 1.0)
    positive = squares > 64 * squares.shape[-1] * EPS * size[..., None]
    rank = np.maximum(positive.sum(-1), 1)
    centre = -np.log(2 * size)
    tau = centre[..., None] + np.linspace(-160, 160, 1281)
    fall = 0.5 * sum(np.log1p(2 * np.exp(tau) * squares[..., j, None]) for j in range(squares.shape[-1]))
    slope = np.maximum(np.minimum(rank - k, spare), 1) + k
    with np.errstate(over="ignore"):
        envelope = k / 2 * tau - fall * (slope / rank)[..., None] - constant[..., None] * np.exp(tau)
    inside = envelope > envelope.max(-1, keepdims=True) - DEPTH[level]
    low = np.take_along_axis(tau, inside.argmax(-1)[..., None], -1)[..., 0]
    high = np.take_along_axis(tau, tau.shape[-1] - 1 - inside[..., ::-1].argmax(-1)[..., None], -1)[..., 0]
    turns = np.where(positive, -np.log(2 * np.where(positive, squares, 1.0)), centre[..., None])
    with np.errstate(divide="ignore"):
        decay = np.where(constant > 0, -np.log(constant), centre)
    turns = np.clip(np.concatenate([turns, decay[..., None]], -1), low[..., None], high[..., None])
    first, last = turns.min(-1), turns.max(-1)
    middle, spread = (first + last) / 2, np.maximum((last - first) / 2, 1.5)
    used = count if level else round(COARSE * count)
    start, stop = np.arcsinh((low - middle) / spread), np.arcsinh((high - middle) / spread)
    step = (stop - start) / (used - 1)
    x = start[..., None] + step[..., None] * np.minimum(np.arange(count), used - 1)
    t = middle[..., None] + spread[..., None] * np.sinh(x)
    weights = np.log(spread * step)[..., None] + np.log(np.cosh(x)) + k / 2 * t - constant[..., None] * np.exp(t)
    return t, np.where(np.arange(count) < used, weights, -np.inf)


def blocks_together(blocks: Sequence[Array], law: Law, lead: int) -> Array:
    """Covariances of a variable with all variables of the forms, (.., E), with size 1 along axes they do not vary on."""
    flat = []
    for a, e, w in zip(blocks, law.extents, law.weights, strict=True):
        a = np.asarray(a)
        a = a.reshape((1,) * (lead + len(e) - a.ndim) + a.shape)
        a = np.broadcast_to(a, (*a.shape[:lead], *e))
        flat.append(a.reshape(*a.shape[:lead], -1) * math.sqrt(w))
    shape = np.broadcast_shapes(*[a.shape[:lead] for a in flat])
    return np.concatenate([np.broadcast_to(a, (*shape, a.shape[-1])) for a in flat], -1)


class Projection:
    """W_u and P_u of a variable u, one after the other; operands: the law, and u's covariances with every block.

    Args:
        law: The law.
        lead: The number of axes before the last one.
    """

    moves = True

    def __init__(self, law: Law, lead: int) -> None:
        self.law, self.lead = law, lead
        self.length = (1 + law.first) * law.size

    def encoded(self) -> bytes:
        """For the digest of nodes."""
        return encode(("laplace projection", self.law, self.lead))

    def __call__(self, args: Sequence[Array], level: int) -> Array:
        """Its array, (.., (1 + Q1) E)."""
        law, u = self.law, blocks_together(args[1:], self.law, self.lead)
        tilted = law.read(args[0])
        maps = np.concatenate([tilted.basis[..., None, :, :], tilted.projections], -3)
        if maps.size == (1 + law.first) * law.size**2:
            out = u @ np.moveaxis(maps.reshape(-1, law.size, law.size), 1, 0).reshape(law.size, -1)
        else:
            out = (u[..., None, None, :] @ maps)[..., 0, :]
        return out.reshape(*out.shape[: self.lead], -1)


class Covariance:
    """Tilted covariances of u and v; operands: the law, the projections of u and v, Cov(u, v), Var u, Var v.

    Args:
        law: The law.
        lead: The number of axes before the last one.
        same: Are u and v one variable?
    """

    moves = False  # what it is made of has been moved; perfect correlations stay so

    def __init__(self, law: Law, lead: int, same: bool) -> None:
        self.law, self.lead, self.same = law, lead, same

    def encoded(self) -> bytes:
        """For the digest of nodes."""
        return encode(("laplace covariance", self.law, self.lead, int(self.same)))

    def __call__(self, args: Sequence[Array], level: int) -> Array:
        """Its array, (.., Q)."""
        law, e = self.law, self.law.size
        f = law.read(args[0]).factors
        given, rest = [], []
        for a in args[1:3]:
            given.append(a[..., :e])
            rest.append(a[..., e:].reshape(*a.shape[:-1], law.first, e))
        uv, uu, vv = [np.asarray(a, dtype=float) for a in args[3:]]
        deviation = np.sqrt(np.maximum(uu, 0) * np.maximum(vv, 0))

        def left(i: int, j: int, covariance: Array) -> Array:
            explained = (given[i] * given[j]).sum(-1)
            out = covariance - explained
            return np.where(np.abs(out) <= 256 * e * EPS * deviation, 0.0, out)[..., None, None]

        a = left(0, 0, uu) + _alike(rest[0], rest[0], f)
        if self.same:
            return self._flat(a)
        b = left(1, 1, vv) + _alike(rest[1], rest[1], f)
        c = left(0, 1, uv) + _contracted(rest[0], rest[1], f)
        size = np.sqrt(a * b)
        return self._flat(np.where(np.abs(c) >= size * (1 - 64 * EPS), np.copysign(size, c), c))

    def _flat(self, a: Array) -> Array:
        shape = np.broadcast_shapes(a.shape, (*[1] * self.lead, self.law.first, self.law.last))
        return np.broadcast_to(a, shape).reshape(*shape[:-2], -1)


def _alike(p: Array, q: Array, f: Array) -> Array:
    """sum_j p_j q_j f_j, position by position, (.., Q1, Q2)."""
    product = p * q
    if f.size == f.shape[-1] * f.shape[-2] * f.shape[-3]:
        f = f.reshape(*[int(size) for size in f.shape[-3:]])
        flat = product.reshape(-1, *product.shape[-2:])
        out = np.stack([flat[:, i] @ f[i].T for i in range(len(f))], 1)
        return out.reshape(*product.shape[:-1], f.shape[1])
    return np.einsum("...qj,...qtj->...qt", product, f)


def _contracted(p: Array, q: Array, f: Array) -> Array:
    """The same; where p and q vary along different axes, as matrix products, without an array over both and j."""
    left, right = p.shape[:-2], q.shape[:-2]
    apart = all(m == 1 or n == 1 for m, n in zip(left, right, strict=True))
    if not apart or f.size != f.shape[-1] * f.shape[-2] * f.shape[-3] or math.prod(right) == 1:
        return _alike(p, q, f)
    first, last, e = (int(size) for size in f.shape[-3:])
    f = f.reshape(first, last, e)
    m, n = math.prod(left), math.prod(right)
    a, b = p.reshape(m, first, e), q.reshape(n, first, e)
    out = np.empty((m, n, first, last))
    for i in range(first):
        product = (a[:, i, None, :] * f[i]).reshape(m * last, e) @ b[:, i].T
        out[:, :, i] = product.reshape(m, last, n).transpose(0, 2, 1)
    d = len(left)
    pairs = [axis for i in range(d) for axis in (i, d + i)]
    both = [r * s for r, s in zip(left, right, strict=True)]
    return out.reshape(*left, *right, first, last).transpose(*pairs, 2 * d, 2 * d + 1).reshape(*both, first, last)
