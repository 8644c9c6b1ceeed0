"""Kernel principal components: what is learned along each, and when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorprog.function_space.checks import nonnegative
from tensorprog.function_space.spectrum import EPS, Regulariser, Spectrum

__all__ = ["Components"]

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
