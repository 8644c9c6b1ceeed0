"""Errors from evaluations: a number as it is, moved by rounding, at another resolution of its integrals, from other samples.

One set of rules for scalar programs of any layout; what is evaluated is up to who asks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tensorprog.estimate import DEVIATIONS
from tensorprog.limits.gauss.rounding import NOISE, SAFETY

__all__ = [
    "PERTURBED_RUNS", "REFINED_RUNS", "SAMPLED_REPLICATES", "of_one_rounding", "of_resolution", "of_rounding", "of_samples",
    "student",
]  # fmt: skip

Array = np.ndarray

PERTURBED_RUNS = 8
"""Of programs without integrals; large kernels get 1."""
REFINED_RUNS = 3
"""Of those with integrals."""
SAMPLED_REPLICATES = 16
SEVERAL, ONE = 2, 4
"""The largest change that several moved evaluations show is stated so many times, and what one shows."""
COARSE = 1e-4
"""Part of the difference to the coarse resolution of integrals that is taken for an error of the fine one."""


def of_rounding(base: Array, moved: Sequence[Array], shape: tuple[int, ...], rows: Array | None = None) -> Array:
    """What rounding may have done to a value: how far it moves when every instruction's result is moved.

    Args:
        base: The value as it is.
        moved: The value moved, every time anew.
        shape: The value's, which arrays may be smaller than.
        rows: The moved ones are of these rows alone: their largest error speaks for all.
    """
    value = np.broadcast_to(base, shape)
    if rows is not None:
        worst = max(float(np.abs(m - base[rows]).max()) for m in moved)
        return np.broadcast_to(ONE * worst + NOISE * float(np.abs(value).max()), shape)
    return np.asarray(SEVERAL * np.max([np.abs(m - base) for m in moved], axis=0) + NOISE * np.abs(value))


def of_one_rounding(base: Array, moved: Array) -> Array:
    """The same from one evaluation that is moved."""
    return np.asarray(ONE * np.abs(moved - base) + NOISE * np.abs(base))


def of_resolution(base: Array, other: Array, coarse: Array | None = None) -> Array:
    """What integrals may be wrong by: a multiple of the difference to another resolution.

    A coarse one is off by more than the fine one, which a finer one can judge; but it would see a tail cut off.
    """
    found = SAFETY * np.abs(base - other)
    return np.asarray(found if coarse is None else found + COARSE * np.abs(base - coarse))


def of_samples(draws: Array, resolution: Array, unseen: Array, unhit: bool) -> tuple[Array, Array]:
    """The mean of replicates, and its standard error: a bound, of the usual probability, if there is what no sample hit.

    Args:
        draws: Replicates, first axis.
        resolution: The error of what is integrated by other means.
        unseen: What samples may not have seen.
        unhit: May there be such?
    """
    spread = draws.std(0, ddof=1) / math.sqrt(len(draws)) * student(len(draws) - 1)
    error = spread + resolution
    return draws.mean(0), np.hypot(DEVIATIONS * error if unhit else error, unseen)


def student(degrees: int, probability: float = 0.6826894921370859) -> float:
    """Half-width of the t interval that covers like one standard deviation, over the standard error."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.5 + probability / 2))
