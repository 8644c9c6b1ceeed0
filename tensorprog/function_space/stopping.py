"""Early stopping: the time of gradient flow at which the expected error is smallest, given the noise of the targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.function_space.checks import nonnegative
from tensorprog.function_space.eigen import Eigenflow
from tensorprog.function_space.filters import flow

__all__ = ["EarlyStopping", "of_a_process", "of_targets"]

POINTS = 60
"""Times that are looked at in a factor of ten."""


@dataclass(frozen=True, eq=False)
class EarlyStopping:
    """The time with the smallest expected error.

    Attributes:
        time: That time; 0 or infinity where the error only grows, or only falls.
        risk: The expected mean square error of f_t there, against targets without noise; an unbiased estimate may be below 0.
        times: Times at which it was looked at.
        risks: The same at them.
        noise: The standard deviation of the noise.
    """

    time: float
    risk: float
    times: np.ndarray
    risks: np.ndarray
    noise: float

    def __float__(self) -> float:
        return self.time

    def __repr__(self) -> str:
        return f"early stopping at t={self.time:.6g} for noise {self.noise:g}: expected square error {self.risk:.4g}"


def _variance(noise: Any) -> float:
    level, single = nonnegative(noise, "noise")
    if not single:
        raise TensorProgramError("several levels of noise", fix="give one standard deviation")
    return float(level[0]) ** 2


def _left(own: Eigenflow, t: np.ndarray) -> np.ndarray:
    """exp(-(x + r) t/N), (times, eigenvalues): 1 where nothing moves."""
    rate = (own.spectrum.values + own.regulariser.value) / own.problem.examples
    with np.errstate(invalid="ignore"):
        return np.exp(-np.where(rate > 0, rate * t[:, None], 0.0))


def of_targets(own: Eigenflow, residual: np.ndarray, noise: Any, random: bool) -> EarlyStopping:
    """At the training inputs, with new noise: by the unbiased estimate of the risk of a linear smoother (Mallows, Stein).

    With y = f + noise and f_t - f_0 = H (y - f_0), the expected |f_t - f|^2 over noise is estimated without bias by
    |y - f_t|^2 + 2 s^2 tr H - M s^2 (M outputs); where f_0 is random, its covariance S adds tr (1 - H) S (1 - H).

    Args:
        own: The kernel.
        residual: y - f_0, or y where f_0 is random (examples * outputs, columns).
        noise: Its standard deviation s.
        random: Is f_0 random?
    """
    s2, spectrum = _variance(noise), own.spectrum
    x, b = spectrum.values, (spectrum.project(residual) ** 2).sum(axis=1)
    rest = max(float((residual**2).sum() - b.sum()), 0.0)  # along directions that never move
    columns, moved = residual.shape[1], x + own.regulariser.value
    share = np.where(moved > 0, x / np.where(moved > 0, moved, 1.0), 0.0)
    prior = np.zeros(len(x))
    if random:
        prior = own.prior if own.prior.ndim == 1 else np.diagonal(own.prior)

    def risk(t: np.ndarray) -> np.ndarray:
        h = share * (1 - _left(own, t))
        found = (1 - h) ** 2 @ (b + columns * prior) + rest + s2 * columns * (2 * h.sum(axis=1) - len(residual))
        return np.asarray(found / residual.size)

    return _smallest(own, risk, s2)


def of_a_process(own: Eigenflow, noise: Any, random: bool) -> EarlyStopping:
    """On the tests, where the truth is drawn from the Gaussian process whose covariance is the kernel itself.

    With rows k and g = g_t(K) the expected square error of a test is k(x, x) - 2 k.g k + k.g (K + s^2) g k, and the variance of
    f_t where f_0 is random; no posterior mean can do better than the one of Gaussian process regression.

    Args:
        own: The kernel.
        noise: The standard deviation s of the targets' noise.
        random: Is f_0 random?

    Raises:
        TensorProgramError: there are no tests, or their kernel is not known.
    """
    s2, p = _variance(noise), own.problem
    both = p.both_of(own.name) if p.tests else None
    if both is None:
        raise TensorProgramError(
            'early stopping with truth="process"',
            why="the error is that on tests",
            fix="give X_test, or K_test and K_test_test",
        )
    x, r, n = own.spectrum.values, own.regulariser.value, p.examples
    rows, total = (own.rows**2).mean(axis=0), float(np.diagonal(both).mean())

    def risk(t: np.ndarray) -> np.ndarray:
        f = flow(t, x, r, n, own.spectrum.noise)
        found = total + (f.gain**2 * (x + s2) - 2 * f.gain) @ rows
        if random:
            found = found + own.parts(f, None, True)["variance"]().reshape(len(t), -1).mean(axis=1)
        return np.asarray(found)

    return _smallest(own, risk, s2)


def _smallest(own: Eigenflow, risk: Callable[[np.ndarray], np.ndarray], s2: float) -> EarlyStopping:
    """On a grid of times from where nothing has moved to where nothing does any more, then between its points."""
    rate = (own.spectrum.values + own.regulariser.value) / own.problem.examples
    rate = rate[rate > own.spectrum.noise / own.problem.examples]
    noise = float(np.sqrt(s2))
    if not len(rate):
        return EarlyStopping(0.0, float(risk(np.zeros(1))[0]), np.zeros(1), risk(np.zeros(1)), noise)
    ends = 1e-3 / rate.max(), 50 / rate.min()
    times = np.concatenate([[0.0], np.geomspace(*ends, int(POINTS * np.log10(ends[1] / ends[0]))), [np.inf]])
    risks = risk(times)
    best = int(risks.argmin())
    if risks[-1] <= risks[best] + 1e-12 * abs(risks[best]):  # what is left by then is rounding
        best = len(risks) - 1
    time = float(times[best])
    if 0 < best < len(times) - 1:
        from scipy.optimize import minimize_scalar

        bounds = np.log(times[max(best - 1, 1)]), np.log(min(times[best + 1], 2 * ends[1]))
        found = minimize_scalar(
            lambda u: float(risk(np.exp([u]))[0]), bounds=bounds, method="bounded", options={"xatol": 1e-6}
        )
        time = float(np.exp(found.x)) if found.fun <= risks[best] else time
    return EarlyStopping(time, float(risk(np.array([time]))[0]), times, risks, noise)
