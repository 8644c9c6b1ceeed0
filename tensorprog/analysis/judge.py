"""The statistics of a comparison: samples at finite widths against a limit, as pure functions of arrays.

Model, for one number (a scalar output, or an entry of an array): `mean over seeds at width n = limit + b/n`, b unknown.
Seeds are independent, widths need not be: `execute/random.py` draws other streams at another width, but runs made
elsewhere may share theirs. Everything here is therefore built from *one number a seed*, a fixed linear combination of that seed's
runs, and spread is only ever measured over seeds. This keeps the t tests exact for Gaussian averages whatever the
correlation between widths and however the variance depends on the width. For averages of heavy-tailed coordinates they
are approximate: simulated with squares of Gaussians at widths 64 to 512 a right limit is rejected as often as stated,
with fourth powers up to twice as often.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from tensorprog.errors import TensorProgramError
from tensorprog.estimate import Estimate

__all__ = ["FAMILY_ERROR", "Judgement", "judge", "log_slope"]

FAMILY_ERROR = 1e-3
"""The probability that a comparison rejects a right limit, over all outputs, entries and tests together."""

ROUNDING = 4096 * float(np.finfo(np.float64).eps)
"""Relative size of differences that are put down to rounding: 1e-12, far below any sampling error."""


@dataclass(frozen=True, eq=False)
class Judgement:
    """One output against its limit; K widths, S seeds, arrays of shape `axes`.

    Attributes:
        name: The output.
        axes: The names of its axes, empty for a scalar.
        widths: The widths n, ascending.
        limit: What it was compared with.
        samples: The runs, shape (K, S, *axes).
        mean: Their mean over seeds, shape (K, *axes).
        mean_error: The standard error of `mean`.
        summary: `mean` in one number a width, shape (K,): for a scalar itself; for an array its multiple of the limit,
            `<mean, limit> / <limit, limit>`, or its mean entry where the limit is zero.
        summary_error: The standard error of `summary`.
        deviation: Root mean square over seeds of the error, shape (K,): absolute for a scalar, Frobenius norm relative
            to the limit's for an array (or root mean square entry, where the limit is zero).
        deviation_error: The standard error of `deviation`.
        slope: Of log deviation on log n, or None where there is none; `note` then says why.
        extrapolated: The mean extrapolated to n = infinity, free of a b/n, with its standard error; None at one width.
        p_value: The smallest p-value times the number of all tests of the comparison (Bonferroni), at most 1; None
            where nothing can be judged.
        agrees: `p_value >= FAMILY_ERROR`; None where nothing can be judged.
        note: What a reader should know: why it was rejected, why there is no slope or no verdict.
    """

    name: str
    axes: tuple[str, ...]
    widths: tuple[int, ...]
    limit: Estimate
    samples: np.ndarray
    mean: np.ndarray
    mean_error: np.ndarray
    summary: np.ndarray
    summary_error: np.ndarray
    deviation: np.ndarray
    deviation_error: np.ndarray
    slope: Estimate | None
    extrapolated: Estimate | None
    p_value: float | None
    agrees: bool | None
    note: str


def judge(
    name: str,
    samples: Mapping[int, np.ndarray],
    limit: Estimate,
    *,
    axes: Sequence[str] = (),
    outputs: int = 1,
) -> Judgement:
    """Judges one output: its deviations, their slope, and whether its means tend to the limit.

    Tests, each a two-sided t test with S - 1 degrees of freedom on one number a seed: the value extrapolated to
    n = infinity equals the limit; and at each width the mean, less the b/n fitted with the limit held fixed, equals the
    limit. (At two widths these are the same test, and one is made.) An array is tested entry by entry with half of the
    error probability, and with the other half in its mean entry and in its multiple of the limit, which keeps power
    where entries are many. A limit's `bound` or `rounding` error widens the tolerance, its `standard error` adds in
    quadrature.

    Args:
        name: The output's name, for messages.
        samples: Width to array of shape (S, *axes): the same S >= 2 seeds in the same order at every width.
        limit: The value of shape `axes` (or a number) to compare with.
        axes: The names of the axes; by default `axis0`, `axis1`, ...
        outputs: Among how many outputs the error probability `FAMILY_ERROR` is shared.

    Raises:
        TensorProgramError: Fewer than two seeds, no width, or shapes that do not fit together.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> runs = {n: 2 + 3 / n + rng.normal(size=64) / n**0.5 for n in (64, 256, 1024)}
        >>> j = judge("m", runs, Estimate(2, 0, "exact", "exact"))
        >>> j.agrees, abs(float(j.slope) + 0.5) < 3 * j.slope.error
        (True, True)
        >>> judge("m", runs, Estimate(2.2, 0, "exact", "exact")).agrees
        False
    """
    widths = tuple(sorted(samples))
    runs = _stack(name, widths, samples)
    target = np.asarray(limit.value, dtype=float)
    if target.shape != runs.shape[2:]:
        raise TensorProgramError(
            f"output {name!r} has shape {runs.shape[2:]} but what it is compared with has shape {target.shape}"
        )
    names = tuple(axes) or tuple(f"axis{i}" for i in range(target.ndim))
    count = runs.shape[1]
    finite = bool(np.isfinite(runs).all())
    # A run that overflowed is an answer, not an accident to hide: it is shown, and rejected. Its statistics are nan.
    with np.errstate(all="ignore" if not finite else "warn"):
        weights, _ = _directions(target)
        projected = np.tensordot(runs.reshape(*runs.shape[:2], -1), weights[-1], axes=1)
        squares = _squared_errors(runs, target)
        power = squares.mean(axis=1)
        deviation = np.sqrt(power)
        spread = np.zeros_like(power)
        np.divide(squares.std(axis=1, ddof=1), 2 * deviation * math.sqrt(count), out=spread, where=deviation > 0)
        found: dict[str, Any] = dict(
            name=name,
            axes=names,
            widths=widths,
            limit=limit,
            samples=runs,
            mean=runs.mean(axis=1),
            mean_error=runs.std(axis=1, ddof=1) / math.sqrt(count),
            summary=projected.mean(axis=1),
            summary_error=projected.std(axis=1, ddof=1) / math.sqrt(count),
            deviation=deviation,
            deviation_error=spread,
        )
    if not finite:
        bad = [str(n) for n, row in zip(widths, runs, strict=True) if not np.isfinite(row).all()]
        note = f"runs at n = {', '.join(bad)} are infinite or not a number"
        return Judgement(**found, slope=None, extrapolated=None, p_value=0.0, agrees=False, note=note)

    slope, notes = _slope_and_note(widths, squares, _scale(runs, target), relative=target.ndim > 0)
    if len(widths) == 1:
        notes.append("no verdict: at one width a b/n cannot be told from a wrong limit; give two or more")
        return Judgement(
            **found,
            slope=slope,
            extrapolated=None,
            p_value=None,
            agrees=None,
            note="; ".join(notes),
        )
    p_value, failure = _verdict(widths, runs, limit, outputs)
    if p_value < FAMILY_ERROR:
        notes.insert(0, failure)
        # A diagnosis, not a verdict: the bias has terms beyond b/n, and they show first at the smallest width.
        if len(widths) > 3 and _verdict(widths[1:], runs[1:], limit, outputs)[0] >= FAMILY_ERROR:
            notes.insert(1, f"without n = {widths[0]} it agrees: the bias there may be more than b/n")
    at_infinity = np.tensordot(_contrasts(widths)[0], runs, axes=1)
    error = at_infinity.std(axis=0, ddof=1) / math.sqrt(count)
    value = at_infinity.mean(axis=0)
    return Judgement(
        **found,
        slope=slope,
        extrapolated=Estimate(value[()], error[()], "extrapolation", "standard error"),
        p_value=p_value,
        agrees=p_value >= FAMILY_ERROR,
        note="; ".join(notes),
    )


def log_slope(widths: Sequence[int], squares: np.ndarray) -> Estimate:
    """The slope of log deviation on log n by weighted least squares, with its standard error.

    Deviation at a width is `sqrt(mean over seeds of squares)`. The standard error is the jackknife's: the fit is
    repeated without each seed, at all widths at once, which takes in the correlation between widths. (It has S - 1
    degrees of freedom; simulated for Gaussian errors it is true to 10% from 32 seeds, and too small by a fifth at 8.)

    Args:
        widths: K >= 2 distinct widths.
        squares: Squared errors, shape (K, S), with a positive mean at every width.

    Example:
        >>> rng = np.random.default_rng(1)
        >>> n = np.array([64, 256, 1024])
        >>> s = log_slope(n, rng.normal(size=(3, 400)) ** 2 / n[:, None])
        >>> abs(s.value + 0.5) < 3 * s.error
        True
    """
    count = squares.shape[1]
    power = squares.mean(axis=1, keepdims=True)
    # Of the logarithm at each width, to first order: a seed moves it by (square / mean - 1) / 2.
    variance = ((squares / power - 1) / 2).var(axis=1, ddof=1) / count
    # With few seeds a sampling variance is itself a poor estimate, and one that is small by accident would take all
    # the weight: each is drawn half way to their mean. Weights only cost efficiency, never the standard error's truth.
    variance = (variance + variance.mean()) / 2
    weight = 1 / variance if variance.min() > 0 else np.ones(len(widths))
    x = np.log(np.asarray(widths, dtype=float))
    x = x - np.average(x, weights=weight)
    fit = weight * x / np.sum(weight * x * x)
    value = float(fit @ np.log(power[:, 0])) / 2
    # The floor: of two seeds, one with no error at all would leave a logarithm of zero.
    without = np.maximum((power * count - squares) / (count - 1), 1e-12 * power)
    error = float((fit @ np.log(without)).std(ddof=0)) / 2 * math.sqrt(count - 1)
    return Estimate(value, error, "weighted least squares", "standard error")


def _stack(name: str, widths: Sequence[int], samples: Mapping[int, np.ndarray]) -> np.ndarray:
    if not widths:
        raise TensorProgramError(f"output {name!r} has no runs to compare", fix="give at least two widths")
    shapes = {np.shape(samples[n]) for n in widths}
    if len(shapes) > 1:
        raise TensorProgramError(f"output {name!r} has different shapes at different widths: {sorted(shapes)}")
    runs = np.stack([np.asarray(samples[n], dtype=float) for n in widths])
    if runs.ndim < 2 or runs.shape[1] < 2:
        raise TensorProgramError(
            f"output {name!r} was run with {runs.shape[1] if runs.ndim > 1 else 0} seed(s)",
            why="a deviation has no error bar, and a mean no t test, from fewer than two",
            fix="give seeds=2 or more; 32 is a good start",
        )
    return runs


def _scale(runs: np.ndarray, target: np.ndarray) -> float:
    return max(float(np.abs(runs).max(initial=0.0)), float(np.abs(target).max(initial=0.0)))


def _squared_errors(runs: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Squared errors a run, shape (K, S): absolute for a scalar, relative Frobenius for an array."""
    squares = ((runs - target) ** 2).reshape(*runs.shape[:2], -1).sum(axis=2)
    if not target.ndim:
        return squares
    norm = float((target**2).sum())
    return squares / (norm if norm > 0 else max(target.size, 1))


def _directions(target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fixed linear functionals of an output, shape (p, size), and their values at the limit, shape (p,)."""
    flat = target.reshape(-1)
    rows = [np.full(flat.size, 1 / max(flat.size, 1))]
    norm = float(flat @ flat)
    if target.ndim and norm > 0:
        rows.append(flat / norm)
    weights = np.stack(rows)
    return weights, weights @ flat


def _slope_and_note(
    widths: Sequence[int], squares: np.ndarray, scale: float, *, relative: bool
) -> tuple[Estimate | None, list[str]]:
    deviation = np.sqrt(squares.mean(axis=1))
    visible = deviation > ROUNDING * (1.0 if relative else scale)
    if not visible.any():
        return None, ["exact at every width"]
    kept = [n for n, v in zip(widths, visible, strict=True) if v]
    if len(kept) < 2:
        return None, ["no slope: it needs two widths with a deviation"]
    notes = [] if visible.all() else [f"exact at some widths; slope over n = {', '.join(map(str, kept))}"]
    return log_slope(kept, squares[visible]), notes


def _contrasts(widths: Sequence[int]) -> np.ndarray:
    """Combinations of the widths that a b/n does not enter, shape (J, K); the first extrapolates to n = infinity.

    Weighted by n, as the variance of a Moment is O(1/n). The weights are fixed beforehand, so that a wrong guess costs
    power and never validity.
    """
    n = np.asarray(widths, dtype=float)
    design = np.stack([np.ones_like(n), n[0] / n], axis=1)
    intercept = np.linalg.solve(design.T @ (n[:, None] * design), design.T * n)[0]
    if len(n) == 2:
        return intercept[None]
    residual = np.eye(len(n)) - (1 / n)[:, None] / np.sum(1 / n)
    return np.vstack([intercept, residual])


def _verdict(widths: Sequence[int], runs: np.ndarray, limit: Estimate, outputs: int) -> tuple[float, str]:
    """The family-wise p-value of one output, and the sentence that says which test it comes from."""
    target = np.asarray(limit.value, dtype=float).reshape(-1)
    error = np.broadcast_to(np.asarray(limit.error, dtype=float), np.shape(limit.value)).reshape(-1)
    contrasts = _contrasts(widths)
    flat = runs.reshape(*runs.shape[:2], -1)
    groups = [(flat, target, error)]
    if np.ndim(limit.value):
        weights, values = _directions(np.asarray(limit.value, dtype=float))
        # The errors of two entries may be fully correlated: their sum is the safe error of a combination.
        groups.append((flat @ weights.T, values, np.abs(weights) @ error))
    best, failure = math.inf, ""
    for samples, at_limit, its_error in groups:
        scale = max(float(np.abs(samples).max(initial=0.0)), float(np.abs(at_limit).max(initial=0.0)))
        p = _p_values(contrasts, samples, at_limit, its_error, limit.kind, ROUNDING * scale)
        p = p * (p.size * len(groups) * outputs)
        if p.size and p.min() < best:
            best = float(p.min())
            row = int(np.unravel_index(int(p.argmin()), p.shape)[0])
            failure = "extrapolated to n = infinity" if row == 0 else f"at n = {widths[row - 1]}, less the fitted b/n"
    return min(best, 1.0), f"differs from the limit {failure}"


def _p_values(
    contrasts: np.ndarray, samples: np.ndarray, target: np.ndarray, error: np.ndarray, kind: str, rounding: float
) -> np.ndarray:
    """Two-sided p-values, shape (J, m), of samples (K, S, m) against target (m,)."""
    count = samples.shape[1]
    combined = np.tensordot(contrasts, samples, axes=1)
    share = contrasts.sum(axis=1)[:, None]  # how much of the limit enters each combination
    difference = np.abs(combined.mean(axis=1) - share * target)
    variance = combined.var(axis=1, ddof=1) / count
    tolerance = rounding * np.abs(contrasts).sum(axis=1)[:, None]
    if kind == "standard error":
        variance = variance + (share * error) ** 2
    else:
        tolerance = tolerance + np.abs(share) * error
    excess = np.maximum(difference - tolerance, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(excess > 0, excess / np.sqrt(variance), 0.0)
    return 2 * stats.t.sf(t, count - 1)
