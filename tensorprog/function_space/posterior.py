"""Gaussian process regression with a kernel as the prior's covariance: the posterior, and the marginal likelihood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.estimate import Estimate
from tensorprog.function_space.checks import nonnegative
from tensorprog.function_space.eigen import Eigenflow
from tensorprog.function_space.filters import flow
from tensorprog.function_space.results import Parts
from tensorprog.function_space.spectrum import EPS

__all__ = ["Posterior", "posterior"]


@dataclass(frozen=True, eq=False)
class Posterior:
    """The law of a Gaussian process given noisy targets; every output has the same prior.

    Attributes:
        get: The kernel that is the prior's covariance.
        noise: The standard deviation of the noise.
        mean: On the tests (tests[, outputs]); None without tests.
        cov: Of the process, without noise (tests, tests); None where the covariance of tests is not known.
        error: Of `mean` (tests,).
        train_mean: On the training examples.
        log_marginal_likelihood: log p(y), an `Estimate`.
        note: What a reader should know.
    """

    get: str
    noise: float
    mean: np.ndarray | None
    cov: np.ndarray | None
    error: np.ndarray | None
    train_mean: np.ndarray
    log_marginal_likelihood: Estimate
    note: str = ""

    @property
    def variance(self) -> np.ndarray | None:
        """The diagonal of `cov`."""
        return None if self.cov is None else np.einsum("ii...->i...", self.cov)

    def __repr__(self) -> str:
        what = ""
        if self.mean is not None and self.error is not None:
            what = f"\nmean = array{self.mean.shape} ± {np.max(self.error):.0e}"
        found = self.log_marginal_likelihood
        text = (
            f"posterior of the {self.get} with noise {self.noise:.6g}; log p(y) = {found.value:.8g} ± {found.error:.0e}"
        )
        return text + what + (f"\n{self.note}" if self.note else "")


def posterior(own: Eigenflow, noise: Any) -> Posterior:
    """The posterior.

    Args:
        own: The kernel, with its regulariser, which counts as noise.
        noise: The standard deviation of the noise; None for the one with the largest marginal likelihood.

    Raises:
        TensorProgramError: without noise where the kernel is singular.
    """
    spectrum, p = own.spectrum, own.problem
    b = (spectrum.project(p.y) ** 2).sum(axis=1)
    rest = max(float((p.y**2).sum() - b.sum()), 0.0)
    more = len(p.y) - len(spectrum.values)
    if noise is None:
        level = _best(spectrum.values, b, rest, more, p.y.shape[1], spectrum.noise)
    else:
        given, single = nonnegative(noise, "noise")
        if not single:
            raise TensorProgramError("several levels of noise", fix="give one standard deviation")
        level = float(given[0])
    s2 = level**2 + own.regulariser.value
    if s2 <= 0 and (more or spectrum.values[-1] <= spectrum.noise):
        raise TensorProgramError(
            "the likelihood of targets without noise, for a singular kernel",
            why="examples that are equal for the kernel would have equal targets with certainty",
            fix="give noise=, or noise=None for the likeliest",
        )
    value, slope = _log_likelihood(spectrum.values, b, rest, more, p.y.shape[1], s2)
    error = spectrum.noise * slope + 8 * EPS * abs(value)
    f = flow(np.inf, spectrum.values, s2, p.examples, spectrum.noise)
    parts: Parts = own.parts(f, None, False)
    cov = None
    both = p.both_of(own.name)
    if p.tests and both is not None:
        held = own.rows * np.sqrt(f.gain[0])
        flat = both - held @ held.T
        np.fill_diagonal(flat, np.maximum(np.diagonal(flat), 0.0))
        cov = p.square(flat[None], p.tests)[0]
    return Posterior(
        own.name, level,
        parts["mean"]()[0] if p.tests else None, cov, parts["error"]()[0] if p.tests else None, parts["train_mean"]()[0],
        Estimate(value, error, "closed form", "bound"),
        f"the regulariser {own.regulariser.value:.3g} counts as noise" if own.regulariser.value else "",
    )  # fmt: skip


def _log_likelihood(
    x: np.ndarray, b: np.ndarray, rest: float, more: int, columns: int, s2: float
) -> tuple[float, float]:
    """log p(y), and a bound on its slope in the kernel, as the Frobenius norm of an error.

    The derivative along E is tr E (a a.T - C (K + s2)^-1)/2 with a = (K + s2)^-1 y.
    """
    z = x + s2
    quadratic = (b / z).sum() + (rest / s2 if rest and s2 else 0.0)
    logs = np.log(z).sum() + (more * np.log(s2) if more else 0.0)
    value = -0.5 * (quadratic + columns * logs + columns * (len(x) + more) * np.log(2 * np.pi))
    size = (b / z**2).sum()
    slope = 0.5 * (size + columns * np.sqrt((1 / z**2).sum()))
    return float(value), float(slope)


def _best(x: np.ndarray, b: np.ndarray, rest: float, more: int, columns: int, least: float) -> float:
    """The standard deviation of noise with the largest likelihood."""
    from scipy.optimize import minimize_scalar

    scale = max(float(b.sum() + rest) / max(len(x) + more, 1), float(x.max(initial=0.0)), 1e-300)
    low = np.log(max(least, 1e-14 * scale))
    grid = np.linspace(low, np.log(10 * scale), 200)
    value = lambda u: -_log_likelihood(x, b, rest, more, columns, float(np.exp(u)))[0]  # noqa: E731
    values = [value(u) for u in grid]
    i = int(np.argmin(values))
    bounds = grid[max(i - 1, 0)], grid[min(i + 1, len(grid) - 1)]
    found = minimize_scalar(value, bounds=bounds, method="bounded", options={"xatol": 1e-9})
    return float(np.exp((found.x if found.fun <= values[i] else grid[i]) / 2))
