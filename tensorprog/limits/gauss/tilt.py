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
from itertools import combinations
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.language.symbols import encode

__all__ = ["EPS", "Covariance", "Law", "Order", "Projection", "Weights", "vanishing"]

Array = np.ndarray
EPS = float(np.finfo(float).eps)
NODES = {1: 96, 2: 44}
"""Nodes for each form, by the number of forms."""
COARSE = 0.8
"""The lower resolution has this fraction of them."""
DEPTH = (31.0, 34.0)
"""The integral is cut where the integrand has fallen to exp(-DEPTH), at the two resolutions."""
IN_SPAN = 1e-10
"""Relative variance given the forms below which a variable is a linear function of theirs."""


class Law:
    """A Gaussian law tilted by one or two quadratic forms: the array of a scalar node.

    Its operands are the covariances of the blocks (sums of squares over one array of variables) in pairs i >= j, of shape
    (*outer, *extent_i, *extent_j), the variances that every block is made of, (*outer, *extent), and the constant term of
    every form. Its array has one axis after the outer ones, which
    holds, one after another: B (E, E), the projections T (Q1, E, E), the factors f (Q1, Q2, E), the weights (Q1, Q2).
    A variable u with covariances S_uh has W_u = S_uh B, P_u = S_uh T, and tilted covariances

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
        self.parts = np.cumsum([0, e * e, self.first * e * e, self.nodes * e, self.nodes])
        self.length = int(self.parts[-1])

    def encoded(self) -> bytes:
        """For the digest of nodes."""
        return encode(("laplace law", self.outer, self.extents, self.weights, self.owners, self.halves))

    # ---- reading ----
    def part(self, law: Array, i: int, *shape: int) -> Array:
        """One of the things its array holds."""
        return law[..., self.parts[i] : self.parts[i + 1]].reshape(*law.shape[:-1], *shape)

    def basis(self, law: Array) -> Array:
        """B, (.., E, E)."""
        return self.part(law, 0, self.size, self.size)

    def projections(self, law: Array) -> Array:
        """T, (.., Q1, E, E)."""
        return self.part(law, 1, self.first, self.size, self.size)

    def factors(self, law: Array) -> Array:
        """f, (.., Q1, Q2, E)."""
        return self.part(law, 2, self.first, self.last, self.size)

    @property
    def operands(self) -> int:
        """How many."""
        return len(self.extents) * (len(self.extents) + 3) // 2 + len(self.halves)

    def joint(self, args: Sequence[Array]) -> tuple[Array, Array, list[Array]]:
        """The covariance of all variables of the forms, what is rounding on its diagonal, the constants of the forms.

        Returns:
            Arrays (*outer, E, E), (*outer, E), and (*outer) for each form.
        """
        out = np.empty((*self.outer, self.size, self.size))
        start = np.cumsum([0, *self.sizes])
        k = 0
        for i, (m, e, w) in enumerate(zip(self.sizes, self.extents, self.weights, strict=True)):
            for j in range(i + 1):
                n, f = self.sizes[j], self.extents[j]
                block = np.broadcast_to(args[k], (*self.outer, *e, *f)).reshape(*self.outer, m, n)
                block = block * math.sqrt(w * self.weights[j])
                rows, cols = slice(start[i], start[i + 1]), slice(start[j], start[j + 1])
                out[..., rows, cols] = block
                out[..., cols, rows] = np.swapaxes(block, -1, -2)
                k += 1
        made = [
            np.broadcast_to(a, (*self.outer, *e)).reshape(*self.outer, -1) * w
            for a, e, w in zip(args[k:], self.extents, self.weights, strict=False)
        ]
        floor = 64 * EPS * np.concatenate(made, -1)
        constants = [np.broadcast_to(a, self.outer) for a in args[k + len(made) :]]
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
        joint, floor, constants = self.joint(args)
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
        parts = (basis, projections, 1 / (1 + shrink), weights)
        return np.concatenate([p.reshape(*self.outer, -1) for p in parts], -1)


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


def _stacked(blocks: Sequence[Array], law: Law, lead: int) -> Array:
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
        law, u = self.law, _stacked(args[1:], self.law, self.lead)
        maps = np.concatenate([law.basis(args[0])[..., None, :, :], law.projections(args[0])], -3)
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
        f = law.factors(args[0])
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


Order = tuple[Any, ...]
"""The power with which a function vanishes with its variables: ("variable", number), ("sum", ((factor, order), ..)),
("least", orders), ("within", vanishes it at 0?, grows it?, order of the argument)."""


def vanishing(x: Order, variables: Sequence[Array]) -> Any:
    """The power, given that of every variable: 1 where it vanishes, 0 where it does not."""
    match x[0]:
        case "variable":
            return variables[x[1]]
        case "sum":
            return sum([k * vanishing(y, variables) for k, y in x[1]], np.zeros(()))
        case "least":
            return np.minimum.reduce(np.broadcast_arrays(*[vanishing(y, variables) for y in x[1]]))
    _, vanishes, grows, inside = x
    power = vanishing(inside, variables)
    return np.where(power > 0, power if vanishes else 0.0, power if grows else 0.0)


class Weights:
    """The weights of the quadrature, once it is known that the expectation is finite.

    Operands: the law, the law's own operands, then for every variable of the numerator its variance and covariances with
    every block.

    Near h_F = 0 (a set F of forms without constant terms, of joint rank r), the integrand is like |h|^(d - k): k the sum of
    their exponents, d the power with which the numerator vanishes there. It is integrable if k - d < r.

    Args:
        law: The law.
        lead: The number of axes of the expectation.
        places: Where the forms' axes are among them.
        factors: (order, exponent, numbers of the variables) of every factor of the numerator.
    """

    moves = True

    def __init__(
        self, law: Law, lead: int, places: tuple[int, ...], factors: tuple[tuple[Order, int, tuple[int, ...]], ...]
    ) -> None:
        self.law, self.lead, self.places, self.factors = law, lead, places, factors

    def encoded(self) -> bytes:
        """For the digest of nodes."""
        return encode(("laplace weights", self.law, self.lead, self.places, self.factors))

    def __call__(self, args: Sequence[Array], level: int) -> Array:
        """Its array, (*outer of the law, Q).

        Raises:
            TensorProgramError: The expectation is infinite.
        """
        law = self.law
        b = len(law.extents)
        joint, floor, constants = law.joint(args[1 : 1 + law.operands])
        given = args[1 + law.operands :]
        variables = []
        for i in range(0, len(given), 1 + b):
            variables.append((np.asarray(given[i]), _stacked(given[i + 1 : i + 1 + b], law, self.lead)))
        bare = [i for i, c in enumerate(constants) if np.any(c <= 0)]
        for count in range(1, len(bare) + 1):
            for forms in combinations(bare, count):
                self._check(forms, joint, floor, constants, variables)
        return law.part(args[0], 3, law.nodes)

    def _check(
        self,
        forms: tuple[int, ...],
        joint: Array,
        floor: Array,
        constants: list[Array],
        variables: list[tuple[Array, Array]],
    ) -> None:
        law = self.law
        rows = np.any([law.rows[i] for i in forms], axis=0)
        both = rows[:, None] & rows
        scale, values, vectors, kept = law.spectrum(np.where(both, joint, 0.0), floor)
        rank = kept.sum(-1)
        basis = vectors * np.where(kept, 1 / np.sqrt(np.where(kept, values, 1.0)), 0.0)[..., None, :]
        basis = basis / scale[..., :, None]
        shape = [1] * self.lead
        for place, n in zip(self.places, law.outer, strict=True):
            shape[place] = n
        order = np.argsort(self.places)
        basis = np.moveaxis(basis, range(len(order)), order) if len(order) else basis
        basis = basis.reshape(*shape, *basis.shape[-2:])
        singular = np.all([constants[i] <= 0 for i in forms], axis=0)

        def placed(a: Array) -> Array:
            return np.moveaxis(a, range(len(order)), order).reshape(shape) if len(order) else a.reshape(shape)

        degree: Any = np.zeros(shape)
        alive: Any = placed(singular)
        inside = []
        for variance, covariances in variables:
            explained = np.square((np.where(rows, covariances, 0.0)[..., None, :] @ basis)[..., 0, :]).sum(-1)
            variance = np.broadcast_to(variance, explained.shape) if variance.ndim == 0 else variance
            inside.append((variance - explained <= IN_SPAN * variance, variance > 0))
        powers = [np.where(within, 1.0, 0.0) for within, _ in inside]
        for tree, k, numbers in self.factors:
            degree = degree + k * vanishing(tree, powers)
            if np.any(vanishing(tree, [np.ones(())] * len(inside)) > 0):
                alive = alive & np.any(np.broadcast_arrays(*[inside[i][1] for i in numbers]), axis=0)
        power = sum(law.halves[i] for i in forms)
        excess = power - degree - placed(rank)
        alive = alive | (placed(singular) & (placed(rank) == 0))  # 0/0
        if np.any(alive & (excess >= 0)):
            infinite = alive & (excess >= 0)
            lowest = int(np.broadcast_to(placed(rank), infinite.shape)[infinite].min())
            net = int(np.max(np.where(infinite, power - degree, 0)))
            what = f"q, a sum of squares of {int(rows.sum())} Gaussian variables whose covariance has rank {lowest}"
            raise TensorProgramError(
                f"an expectation with q**(-{net}/2) is infinite, for {what}"
                if lowest
                else f"division by {what}, so that it is 0",
                why="near q = 0, sqrt(q) has a density like its power rank - 1: the net power of sqrt(q) in the denominator has "
                "to be below the rank; B centred examples have rank B - 1 at most, less with duplicates",
                fix="take a larger batch, leave out duplicates, or add eps > 0 to the variance",
            )
