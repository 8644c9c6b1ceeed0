"""Tests that means at several widths tend to a limit: what can be told from one number a seed and width.

Model, for one number: `mean over seeds at width n = limit + b n**-1`, or `limit + a n**-1/2 + b n**-1` where the program
says so (`analysis/anomalies.py`); a and b are unknown. A *contrast* is a combination of the widths that they do not enter.

Averages of heavy tails are far from Gaussian at any width one can run, and skewed: runs that miss the tail have a small
mean and a small spread together, and a t test rejects a right limit. Three things are done about it. The degrees of
freedom are those of a variance estimated from a sample of that kurtosis (Satterthwaite). Where a width shows a skewness
or a kurtosis that Gaussian runs have not, or the program's functions grow so fast that it need not show, the variance is
the largest that any width suggests, brought to this one by the rate 1/n, and the tolerance is widened by what a tail
that no run has met may still hold: events of a size not below the largest seen, whose number is Poisson and zero with
probability `FAMILY_ERROR`, that is, `log(1 / FAMILY_ERROR) / S` of them a seed.

Source: Satterthwaite, An approximate distribution of estimates of variance components (1946); the tests of skewness and
kurtosis of D'Agostino (1970) and Anscombe and Glynn (1983).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import optimize, special

__all__ = ["FAMILY_ERROR", "FOUND", "Contrasts", "Spread", "detectable", "p_values"]

FAMILY_ERROR = 1e-3
"""The probability that a comparison rejects a right limit, over all outputs, entries and tests together."""

FOUND = 0.99
"""The probability with which a deviation that is called detectable is found."""

HEAVY = 2.5
"""Standard scores of skewness and kurtosis from which runs are not taken for Gaussian."""


KNOTS = 9
"""Numbers of degrees of freedom for which the power of a test is found; others are interpolated."""


class Contrasts:
    """Combinations of the widths that the bias does not enter.

    Attributes:
        rows: Shape (J, K); the first extrapolates to n = infinity. J = 0 where there are too few widths.
        shares: How much of the limit enters each, shape (J,).
        orders: The powers of 1/n in the bias.
    """

    def __init__(self, widths: Sequence[int], half: bool = False) -> None:
        # Weighted by n, as the variance of a Moment is O(1/n). The weights are fixed beforehand, so that a wrong guess
        # costs power and never validity.
        n = np.asarray(widths, dtype=float)
        self.orders = (0.5, 1.0) if half else (1.0,)
        bias = np.stack([(n[0] / n) ** p for p in self.orders], axis=1)
        design = np.column_stack([np.ones_like(n), bias])
        if len(n) < design.shape[1]:
            self.rows = np.zeros((0, len(n)))
        else:
            root = np.sqrt(n)[:, None]
            intercept = np.linalg.pinv(root * design)[0] * root[:, 0]
            self.rows = intercept[None]
            if len(n) > design.shape[1]:  # else these are the first one again
                self.rows = np.vstack([intercept, np.eye(len(n)) - bias @ (np.linalg.pinv(root * bias) * root.T)])
        self.shares = self.rows.sum(axis=1)


class Spread:
    """How far the means of some contrasts may be off, from the runs alone.

    Args:
        contrasts: Of the widths.
        widths: Ascending.
        samples: Shape (K, S, m).
        heavy: Are the tails known to be heavy?

    Attributes:
        mean: Of every contrast, shape (J, m).
        variance: Of that mean.
        degrees: Degrees of freedom of the variance.
        unseen: What a tail that was not met may hold.
    """

    def __init__(self, contrasts: Contrasts, widths: Sequence[int], samples: np.ndarray, heavy: bool) -> None:
        count = samples.shape[1]
        combined = np.tensordot(contrasts.rows, samples, axes=1)
        self.mean = combined.mean(axis=1)
        centred = combined - self.mean[:, None]
        square, kurtosis = _moments(centred)
        at_widths = samples - samples.mean(axis=1, keepdims=True)
        spread, peak = _moments(at_widths)
        kurtosis = np.maximum(kurtosis, peak.max(axis=0, initial=0.0))
        self.degrees = np.minimum(count - 1.0, 2 * count / np.maximum(kurtosis - 1, 1e-9))
        tails = np.full(samples.shape[2:], heavy) | _heavy(at_widths)
        scaled = spread * np.asarray(widths, dtype=float)[:, None]
        mean = scaled.mean(axis=0)
        most = np.divide(scaled.max(axis=0, initial=0.0), mean, out=np.ones_like(mean), where=mean > 0)
        self.variance = square * np.where(tails, most, 1.0) / (count - 1)
        lost = -math.log(FAMILY_ERROR) / count
        self.unseen = np.where(tails, lost * np.abs(centred).max(axis=1, initial=0.0), 0.0)


def _moments(centred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean square over the second axis, and the kurtosis."""
    size = np.abs(centred).max(axis=1, initial=0.0)
    unit = np.divide(centred, size[:, None], out=np.zeros_like(centred), where=size[:, None] > 0)
    square, fourth = (unit**2).mean(axis=1), (unit**4).mean(axis=1)
    kurtosis = np.divide(fourth, square**2, out=np.ones_like(square), where=square > 0)
    return square * size**2, kurtosis


def _heavy(centred: np.ndarray) -> np.ndarray:
    """Does any width show a skewness or a kurtosis that Gaussian samples of that number rarely have? Shape (m,)."""
    count = centred.shape[1]
    if count < 8:  # fewer say nothing
        return np.zeros(centred.shape[2:], dtype=bool)
    size = np.abs(centred).max(axis=1, keepdims=True, initial=0.0)
    unit = np.divide(centred, size, out=np.zeros_like(centred), where=size > 0)
    power = unit * unit
    square = power.mean(axis=1)
    power *= unit
    third = power.mean(axis=1)
    power *= unit
    fourth = power.mean(axis=1)
    varies = square > 0
    skewness = np.divide(third, square**1.5, out=np.zeros_like(square), where=varies)
    kurtosis = np.divide(fourth, square**2, out=np.zeros_like(square), where=varies)
    scores = np.maximum(np.abs(_skewness_score(skewness, count)), _kurtosis_score(kurtosis, count))
    return np.asarray((varies & (scores > HEAVY)).any(axis=0))


def _skewness_score(skewness: np.ndarray, n: int) -> np.ndarray:
    """The standard score of the skewness of n Gaussian samples (D'Agostino 1970); n >= 8."""
    y = skewness * math.sqrt((n + 1) * (n + 3) / (6 * (n - 2)))
    beta = 3 * (n * n + 27 * n - 70) * (n + 1) * (n + 3) / ((n - 2) * (n + 5) * (n + 7) * (n + 9))
    w = math.sqrt(2 * (beta - 1)) - 1
    return np.asarray(np.arcsinh(y * math.sqrt((w - 1) / 2)) / math.sqrt(math.log(w) / 2))


def _kurtosis_score(kurtosis: np.ndarray, n: int) -> np.ndarray:
    """The standard score of the kurtosis of n Gaussian samples (Anscombe and Glynn 1983); n >= 5."""
    variance = 24 * n * (n - 2) * (n - 3) / ((n + 1) ** 2 * (n + 3) * (n + 5))
    x = (kurtosis - 3 * (n - 1) / (n + 1)) / math.sqrt(variance)
    root = 6 * (n * n - 5 * n + 2) / ((n + 7) * (n + 9)) * math.sqrt(6 * (n + 3) * (n + 5) / (n * (n - 2) * (n - 3)))
    a = 6 + 8 / root * (2 / root + math.sqrt(1 + 4 / root**2))
    cube = (1 - 2 / a) / (1 + x * math.sqrt(2 / (a - 4)))
    return np.asarray((1 - 2 / (9 * a) - np.cbrt(cube)) / math.sqrt(2 / (9 * a)))


def p_values(
    contrasts: Contrasts, spread: Spread, target: np.ndarray, error: np.ndarray, kind: str, rounding: float
) -> np.ndarray:
    """Two-sided p-values of every contrast, shape (J, m), of the limits target (m,) with their errors.

    A `bound` or `rounding` error widens the tolerance, a `standard error` adds in quadrature; `rounding` is what is
    put down to rounding at every width.
    """
    share = contrasts.shares[:, None]
    difference = np.abs(spread.mean - share * target)
    variance = spread.variance
    tolerance = spread.unseen + rounding * np.abs(contrasts.rows).sum(axis=1)[:, None]
    if kind == "standard error":
        variance = variance + (share * error) ** 2
    else:
        tolerance = tolerance + np.abs(share) * error
    excess = np.maximum(difference - tolerance, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(excess > 0, excess / np.sqrt(variance), 0.0)
    return 2 * np.asarray(special.stdtr(spread.degrees, -t))


def detectable(contrasts: Contrasts, spread: Spread, level: float) -> np.ndarray:
    """The smallest constant by which a limit may be wrong and is found with probability `FOUND`, shape (m,).

    Args:
        contrasts: Of the widths.
        spread: Of the runs.
        level: Of each single test.
    """
    if not spread.mean.size:
        return np.full(spread.mean.shape[1:], math.inf)
    # How many standard errors are needed is a smooth function of 1 / degrees of freedom: a few numbers tell all.
    inverse = 1 / spread.degrees
    knots = np.unique(np.linspace(inverse.min(initial=1.0), inverse.max(initial=0.0), KNOTS))
    logs = [math.log(_noncentrality(-float(special.stdtrit(1 / x, level / 2)), 1 / float(x))) for x in knots]
    needed = np.exp(np.interp(inverse, knots, logs))
    share = np.abs(contrasts.shares)[:, None]
    with np.errstate(divide="ignore"):
        found = np.where(share > 1e-9, (needed * np.sqrt(spread.variance) + spread.unseen) / share, math.inf)
    return np.asarray(found.min(axis=0))


def _noncentrality(quantile: float, degrees: float) -> float:
    """How many standard errors the truth must be off for a t statistic to exceed a quantile with probability `FOUND`."""
    # T > q where Z + d > q sqrt(V): integrated over the chi-square law of V, stable where the series of nct is not
    v = special.chdtri(degrees, (np.arange(512) + 0.5) / 512) / degrees

    def missed(log_shift: float) -> float:
        return float(special.ndtr(quantile * np.sqrt(v) - math.exp(log_shift)).mean()) - (1 - FOUND)

    high = math.log(quantile + 10) + 1
    while missed(high) > 0:
        high += 1
    return math.exp(float(optimize.brentq(missed, -2.0, high, xtol=1e-4)))
