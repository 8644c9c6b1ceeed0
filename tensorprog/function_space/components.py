"""Kernel principal components: what is learned along each, and when; the time at which to stop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.function_space.checks import nonnegative
from tensorprog.function_space.spectrum import EPS, Regulariser, Spectrum

__all__ = ["Components", "EarlyStopping", "stopping"]

SHOWN = 8


@dataclass(frozen=True, eq=False)
class Components:
    """The eigenvectors of K/N on the training examples (with the regulariser, where there is one), and the speed of learning.

    Attributes:
        eigenvalues: Of K/N, descending (components,).
        directions: Orthonormal columns (examples * outputs of the kernel, components).
        times: 1/eigenvalue: the time in which what is left along a direction becomes 1/e of it.
        error: Of every eigenvalue, at most.
        targets: The targets along the directions, (components, outputs).
        examples: N.

    Source: Jacot et al. 2018 (arXiv:1806.07572), section 5: d_t f = -K (f - y)/N decays along eigenvectors alone.
    """

    eigenvalues: np.ndarray
    directions: np.ndarray
    times: np.ndarray
    error: float
    targets: np.ndarray
    examples: int

    @staticmethod
    def of(spectrum: Spectrum, regulariser: Regulariser, y: np.ndarray, examples: int) -> Components:
        """Of a kernel, and targets (examples * outputs, columns)."""
        values = (spectrum.values + regulariser.value) / examples
        with np.errstate(divide="ignore"):
            times = np.where(values > 0, 1 / values, np.inf)
        directions = spectrum.expand(np.eye(len(values)))
        error = (spectrum.noise + EPS * spectrum.top) / examples
        return Components(values, directions, times, error, spectrum.project(y), examples)

    def learned(self, t: Any) -> np.ndarray:
        """The share of what is to be learned along every direction that is learned by times t: 1 - exp(-t eigenvalue).

        Args:
            t: A time, or several; infinity among them.
        """
        times, single = nonnegative(t, "t", infinite=True)
        with np.errstate(invalid="ignore"):
            z = np.where(self.eigenvalues > 0, self.eigenvalues * times[:, None], 0.0)
        found = -np.expm1(-z)
        return np.asarray(found[0] if single else found)

    def __len__(self) -> int:
        return len(self.eigenvalues)

    def __repr__(self) -> str:
        lines = [
            f"{len(self)} components of K/N, eigenvalues ± {self.error:.0e}",
            "  eigenvalue       time    share of y^2",
        ]
        total = float((self.targets**2).sum()) or 1.0
        for i in range(min(SHOWN, len(self))):
            share = float((self.targets[i] ** 2).sum()) / total
            lines.append(f"{self.eigenvalues[i]:12.5g} {self.times[i]:10.4g} {share:15.4f}")
        return "\n".join([*lines, *(["  ..."] if len(self) > SHOWN else [])])


@dataclass(frozen=True, eq=False)
class EarlyStopping:
    """The time with the smallest expected error on new targets with the same noise at the training inputs.

    Attributes:
        time: That time; 0 or infinity where the error only grows, or only falls.
        risk: The expected mean square error of f_t against the noiseless targets there, an estimate; it may be below 0.
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


def stopping(
    spectrum: Spectrum, r: float, residual: np.ndarray, examples: int, noise: Any, prior: np.ndarray | None
) -> EarlyStopping:
    """By the unbiased estimate of the risk of a linear smoother (Mallows' C_p, Stein's estimate).

    With y = f + noise and f_t - f_0 = H (y - f_0), the expected |f_t - f|^2 over noise is estimated without bias by
    |y - f_t|^2 + 2 s^2 tr H - M s^2 (M outputs); where f_0 is random, its covariance S adds tr (1 - H) S (1 - H).

    Args:
        spectrum: Of the kernel.
        r: The regulariser.
        residual: y - f_0, or y where f_0 is random (examples * outputs, columns).
        examples: N.
        noise: Its standard deviation s.
        prior: The diagonal of S in eigenvectors, or None.
    """
    level, single = nonnegative(noise, "noise")
    if not single:
        raise TensorProgramError("several levels of noise", fix="give one standard deviation")
    s2 = float(level[0]) ** 2
    x, b = spectrum.values, (spectrum.project(residual) ** 2).sum(axis=1)
    rest = float((residual**2).sum() - b.sum())  # along directions that never move
    columns = residual.shape[1]
    rate = (x + r) / examples
    moving = rate > 0

    def risk(t: float) -> float:
        with np.errstate(invalid="ignore"):
            left = np.where(moving, np.exp(-np.where(moving, rate, 1.0) * t), 1.0)
        h = np.where(moving, x / np.where(moving, x + r, 1.0), 0.0) * (1 - left)
        found = ((1 - h) ** 2 * b).sum() + max(rest, 0.0) + s2 * columns * (2 * h.sum() - len(residual))
        if prior is not None:
            found += columns * ((1 - h) ** 2 * prior).sum()
        return float(found / len(residual))

    if not moving.any():
        return EarlyStopping(0.0, risk(0.0), np.zeros(1), np.array([risk(0.0)]), float(level[0]))
    ends = 1e-3 / rate.max(), 50 / rate[moving].min()
    count = min(2000, max(200, int(40 * np.log10(ends[1] / ends[0]))))
    times = np.concatenate([[0.0], np.geomspace(*ends, count), [np.inf]])
    risks = np.array([risk(t) for t in times])
    best = int(risks.argmin())
    if risks[-1] <= risks[best] + 1e-12 * abs(risks[best]):  # what is left by then is rounding
        best = len(risks) - 1
    time = float(times[best])
    if 0 < best < len(times) - 1:
        from scipy.optimize import minimize_scalar

        low, high = np.log(times[max(best - 1, 1)]), np.log(min(times[best + 1], 2 * ends[1]))
        found = minimize_scalar(
            lambda u: risk(float(np.exp(u))), bounds=(low, high), method="bounded", options={"xatol": 1e-6}
        )
        time = float(np.exp(found.x)) if found.fun <= risks[best] else time
    return EarlyStopping(time, risk(time), times, risks, float(level[0]))
