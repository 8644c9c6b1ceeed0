"""Training by any loss: its equation da/dt = -(l'(f_0 + K a) + r a)/N for the coefficients, solved; and its steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.function_space.checks import nonnegative
from tensorprog.function_space.losses import ArrayLoss
from tensorprog.function_space.problem import Problem
from tensorprog.function_space.results import Parts
from tensorprog.function_space.spectrum import EPS
from tensorprog.progress import progress_bar

__all__ = ["Solution", "solve_flow", "solve_steps"]

TOLERANCE = 1e-9
COARSE = 100
"""How many times larger the tolerance of the second solution is, from which the error is estimated."""
MOST = 2e13
"""Floating point operations that a solution may take: a few hours."""


@dataclass(frozen=True, eq=False)
class Solution:
    """Coefficients at times, and others whose distance says how far off they may be.

    Attributes:
        at: Times or steps.
        single: Was it one number?
        a: (times, examples * blocks, columns).
        other: The same with a perturbed kernel and, of equations, a larger tolerance.
        elapsed: Times of the flow beside.
        tolerance: Of the solver; the first steps of both solutions may be the same.
    """

    at: np.ndarray
    single: bool
    a: np.ndarray
    other: np.ndarray
    elapsed: np.ndarray
    tolerance: float = 0.0

    def parts(self, p: Problem, name: str, start: tuple[np.ndarray, np.ndarray]) -> Parts:
        """How to compute what a `Prediction` has."""

        def on(K: Any, f0: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            values, others = (np.tensordot(K, x, axes=(1, 1)).transpose(1, 0, 2) for x in (self.a, self.other))
            size = np.abs(self.a).sum(axis=1, keepdims=True)
            solver = 10 * self.tolerance * np.tensordot(np.abs(K), np.abs(self.a), axes=(1, 1)).transpose(1, 0, 2)
            return values + f0, (np.abs(values - others) + solver + p.error(name) * size).max(axis=2)

        parts: Parts = {
            "train_mean": lambda: p.outputs(on(p.train(name), start[0])[0]),
            "train_error": lambda: on(p.train(name), start[0])[1].max(axis=1),
        }
        if p.tests:
            parts["mean"] = lambda: p.outputs(on(p.cross(name), start[1])[0])
            parts["error"] = lambda: p.largest(on(p.cross(name), start[1])[1])
        return parts


@dataclass(frozen=True, eq=False)
class _Field:
    """The right side of the equation."""

    K: np.ndarray
    f0: np.ndarray
    r: float
    loss: ArrayLoss

    def force(self, a: np.ndarray) -> np.ndarray:
        """Minus the slope of the loss, and of the regulariser, at coefficients (examples * blocks, columns)."""
        f = (self.f0 + self.K @ a).reshape(self.loss.shape)
        found: np.ndarray = -self.loss.slope(f).reshape(a.shape) - self.r * a
        return found

    def jacobian(self, a: np.ndarray) -> np.ndarray:
        """Of the force, in coefficients one after another."""
        H = self.loss.curvature((self.f0 + self.K @ a).reshape(self.loss.shape))
        n, c = len(H), H.shape[1]
        if a.shape[1] == 1:  # outputs are examples of their own
            K = self.K.reshape(n, c, -1)
            found = -np.einsum("iab,ibj->iaj", H, K).reshape(n * c, -1)
        else:
            found = -np.einsum("iab,ij->iajb", H, self.K).reshape(n * c, n * c)
        return found - self.r * np.eye(n * c)


def solve_flow(
    t: Any, p: Problem, name: str, loss: ArrayLoss, f0: np.ndarray, r: float, noise: float, top: float
) -> Solution:
    """Gradient flow.

    Args:
        t: Times.
        p: Kernels.
        name: Of the one that is followed.
        loss: The loss.
        f0: Outputs at the start (examples * blocks, columns).
        r: The regulariser.
        noise: How far the kernel may be off, in Frobenius norm.
        top: Its largest eigenvalue.

    Raises:
        TensorProgramError: it would take too long, or the solution grows beyond all bounds.
    """
    times, single = nonnegative(t, "t", infinite=True)
    if np.isinf(times).any():
        raise TensorProgramError(
            f"t=inf with the loss {loss.name}", why="outputs may grow for ever, and no closed form says where to",
            fix="give a large time",
        )  # fmt: skip
    K = p.train(name)
    fields = [_Field(K, f0, r, loss), _Field(_perturbed(K, noise), f0, r, loss)]
    steep = float(np.abs(loss.curvature(f0.reshape(loss.shape))).sum(axis=2).max(initial=0.0)) + 1
    last = float(times.max())
    size = f0.size
    explicit = 12 * (2 * len(K) * size) * (100 + last * top * steep / p.examples / 3)
    implicit = 200 * size**3 + 2000 * size**2
    if min(explicit, implicit) > MOST:
        raise TensorProgramError(
            f"gradient flow of {p.examples} examples until t={last:g}",
            why=f"it takes about {min(explicit, implicit):.0e} operations, more than {MOST:.0e}",
            fix="give earlier times, or steps of a large rate",
        )
    method = "DOP853" if explicit <= implicit else "Radau"
    a, other = (
        _solved(field, times, p.examples, method, tol)
        for field, tol in zip(fields, (TOLERANCE, COARSE * TOLERANCE), strict=True)
    )
    return Solution(times, single, a, other, times, TOLERANCE)


def _solved(field: _Field, times: np.ndarray, examples: int, method: Any, tolerance: float) -> np.ndarray:
    from scipy.integrate import solve_ivp

    shape = field.f0.shape
    order = np.unique(times)
    if order[-1] == 0:
        return np.zeros((len(times), *shape))
    slope = np.abs(field.force(np.zeros(shape))).max(initial=0.0) * order[-1] / examples
    options: Any = {"jac": lambda _, a: field.jacobian(a.reshape(shape)) / examples} if method == "Radau" else {}
    with np.errstate(over="ignore", invalid="ignore"):
        found = solve_ivp(
            lambda _, a: field.force(a.reshape(shape)).ravel() / examples, (0.0, order[-1]), np.zeros(field.f0.size),
            method=method, t_eval=order, rtol=tolerance, atol=tolerance * 1e-3 * slope + 1e-300, **options,
        )  # fmt: skip
    if not found.success or not np.isfinite(found.y).all():
        raise TensorProgramError(
            f"gradient flow by the loss {field.loss.name} has no solution until t={order[-1]:g}",
            why=str(found.message).lower(), fix="look whether the loss has a lower bound, or give earlier times",
        )  # fmt: skip
    return np.asarray(found.y.T[np.searchsorted(order, times)].reshape(len(times), *shape))


def solve_steps(
    steps: Any, lr: Any, momentum: float, nesterov: bool,
    p: Problem, name: str, loss: ArrayLoss, f0: np.ndarray, r: float, noise: float,
) -> Solution:  # fmt: skip
    """Gradient descent on all examples.

    Args:
        steps: Numbers of steps.
        lr: The rate, or one for each step.
        momentum: As `tp.SGD` has it.
        nesterov: As `tp.SGD` has it.
        p: Kernels.
        name: Of the one that is followed.
        loss: The loss.
        f0: Outputs at the start (examples * blocks, columns).
        r: The regulariser.
        noise: How far the kernel may be off, in Frobenius norm.

    Raises:
        TensorProgramError: numbers overflow.
    """
    at, single = nonnegative(steps, "steps", whole=True)
    given, one = nonnegative(lr, "lr")
    last = int(at.max())
    if not one and len(given) < last:
        raise TensorProgramError(f"{len(given)} rates for {last} steps", fix="give one for each step")
    if last * 4.0 * len(p.train(name)) * f0.size > MOST:
        raise TensorProgramError(f"{last} steps of {p.examples} examples", why="they take hours", fix="give fewer")
    rates = np.full(last, given[0]) if one else given[:last]
    K = p.train(name)
    found = []
    for field in (_Field(K, f0, r, loss), _Field(_perturbed(K, noise), f0, r, loss)):
        a, m, kept = np.zeros(f0.shape), np.zeros(f0.shape), np.zeros((len(at), *f0.shape))
        with np.errstate(over="ignore", invalid="ignore"):
            for k, rate in enumerate(progress_bar(rates, unit="step", delay=2)):
                kept[at == k] = a
                force = field.force(a) / p.examples
                m = momentum * m + force
                a = a + rate * (force + momentum * m if nesterov else m)
        kept[at == last] = a
        if not np.isfinite(kept).all():
            raise TensorProgramError(
                f"gradient descent with lr={lr} diverges: its numbers overflow", fix="give a smaller rate"
            )
        found.append(kept)
    elapsed = np.concatenate([[0.0], np.cumsum(rates)])[at.astype(int)] / (1 - momentum)
    return Solution(at, single, found[0], found[1], elapsed)


def _perturbed(K: np.ndarray, noise: float) -> np.ndarray:
    """The kernel and a random symmetric matrix of the norm of its error."""
    E = np.random.default_rng(0).standard_normal(K.shape)
    E = E + E.T
    return K + E * (max(noise, EPS * float(np.abs(K).max(initial=0.0))) / max(float(np.linalg.norm(E)), 1e-300))
