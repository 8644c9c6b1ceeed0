"""The weights of the Laplace route, which refuse infinite expectations: inverse powers of what vanishes too often."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.language.symbols import encode
from tensorprog.limits.gauss.tilt import Law, Variable, blocks_together

__all__ = ["Order", "Weights", "vanishing"]

Array = np.ndarray
IN_SPAN = 1e-10
"""Relative variance given the forms below which a variable is a linear function of theirs."""
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
        tilted, (forms, given) = law.read(args[0]), law.forms(args[1:])
        joint, floor, constants = law.joint(forms)
        variables, each = [], 1 + len(law.extents)
        for i in range(0, len(given), each):
            u = Variable(given[i], given[i + 1 : i + each])
            variables.append((np.asarray(u.variance), blocks_together(u.covariances, law, self.lead)))
        bare = [i for i, c in enumerate(constants) if np.any(c <= 0)]
        for count in range(1, len(bare) + 1):
            for together in combinations(bare, count):
                self._check(together, joint, floor, constants, variables)
        return tilted.weights

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
