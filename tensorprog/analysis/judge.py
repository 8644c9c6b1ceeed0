"""The statistics of a comparison: samples at finite widths against a limit, as pure functions of arrays.

Seeds are independent, widths need not be: `execute/random.py` draws other streams at another width, but runs made
elsewhere may share theirs. Everything here is therefore built from *one number a seed*, a fixed linear combination of that seed's
runs, and spread is only ever measured over seeds. This keeps the t tests exact for Gaussian averages whatever the
correlation between widths and however the variance depends on the width. `analysis/means.py` has the tests, their model
of the bias, and what is done about heavy tails.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tensorprog.analysis.means import FAMILY_ERROR, Contrasts, Spread, detectable, p_values
from tensorprog.errors import TensorProgramError
from tensorprog.estimate import Estimate
from tensorprog.language.given import real_array

__all__ = ["Anomaly", "Judgement", "judge", "log_slope"]

ROUNDING = 4096 * float(np.finfo(np.float64).eps)
"""Relative size of differences that are put down to rounding: 1e-12, far below any sampling error."""


class Anomaly(NamedTuple):
    """What is known beforehand of an output's approach to its limit; `analysis/anomalies.py` finds it.

    Attributes:
        half: Its bias has a term n**-1/2: why, or "" where it has none.
        heavy: It averages what has heavy tails: why, or "".
    """

    half: str = ""
    heavy: str = ""


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
        extrapolated: The mean extrapolated to n = infinity, free of the bias, with its standard error; None where there
            are too few widths.
        bias: The powers of 1/n that are fitted: (1,), or (1/2, 1) where the program calls for it.
        found_entry: By how little the limit may be wrong in one entry, whichever it is, and still be found with
            probability 0.99; absolute for a scalar, relative to the limit's root mean square entry for an array; None
            where nothing can be judged.
        found_all: The same for a limit that is wrong by a constant factor; of an array.
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
    bias: tuple[float, ...]
    found_entry: float | None
    found_all: float | None
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
    anomaly: Anomaly = Anomaly(),  # noqa: B008  (immutable)
) -> Judgement:
    """Judges one output: its deviations, their slope, and whether its means tend to the limit.

    Tests, each a two-sided t test on one number a seed: the value extrapolated to n = infinity equals the limit; and at
    each width the mean, less the bias fitted with the limit held fixed, equals the limit. (Where the widths are as few
    as the numbers fitted these are the same test, and one is made.) An array is tested entry by entry with half of the
    error probability, entries that are the same numbers in every run once; and with the other half in its mean entry
    and in its multiple of the limit, which keeps power where entries are many. A limit's `bound` or `rounding` error
    widens the tolerance, its `standard error` adds in quadrature.

    Args:
        name: The output's name, for messages.
        samples: Width to array of shape (S, *axes): the same S >= 2 seeds in the same order at every width.
        limit: The value of shape `axes` (or a number) to compare with.
        axes: The names of the axes; by default `axis0`, `axis1`, ...
        outputs: Among how many outputs the error probability `FAMILY_ERROR` is shared.
        anomaly: What is known of its bias and of its tails.

    Raises:
        TensorProgramError: Fewer than two seeds, no width, shapes that do not fit together, a limit or an error that is
            no finite number.

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
    target = real_array(limit.value, f"what output {name!r} is compared with", "give numbers")
    if target.shape != runs.shape[2:]:
        raise TensorProgramError(
            f"output {name!r} has shape {runs.shape[2:]} but what it is compared with has shape {target.shape}"
        )
    _check_limit(name, target, np.asarray(limit.error, dtype=float))
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
    contrasts = Contrasts(widths, bool(anomaly.half))
    unjudged: dict[str, Any] = dict(bias=contrasts.orders, extrapolated=None, found_entry=None, found_all=None)
    if not finite:
        bad = [str(n) for n, row in zip(widths, runs, strict=True) if not np.isfinite(row).all()]
        note = f"runs at n = {', '.join(bad)} are infinite or not a number"
        return Judgement(**found, **unjudged, slope=None, p_value=0.0, agrees=False, note=note)

    slope, notes = _slope_and_note(widths, squares, _scale(runs, target), relative=target.ndim > 0)
    if not len(contrasts.rows):
        notes.append(_too_few(widths, anomaly))
        return Judgement(**found, **unjudged, slope=slope, p_value=None, agrees=None, note="; ".join(notes))
    verdict = _Verdict(widths, runs, limit, outputs, anomaly)
    if verdict.p_value < FAMILY_ERROR:
        notes.insert(0, verdict.failure)
        # A diagnosis, not a verdict: the bias has terms beyond those fitted, and they show first at the smallest width.
        if len(widths) > len(contrasts.orders) + 2:
            wider = _Verdict(widths[1:], runs[1:], limit, outputs, anomaly)
            if wider.p_value >= FAMILY_ERROR:
                notes.insert(
                    1, f"without n = {widths[0]} it agrees: the bias there may be more than {_bias(contrasts)}"
                )
    notes += [f"its bias has a term n**-1/2: {anomaly.half}"] if anomaly.half else []
    notes += [f"heavy tails: {anomaly.heavy}"] if anomaly.heavy else []
    at_infinity = np.tensordot(contrasts.rows[0], runs, axes=1)
    error = at_infinity.std(axis=0, ddof=1) / math.sqrt(count)
    value = at_infinity.mean(axis=0)
    return Judgement(
        **found,
        bias=contrasts.orders,
        slope=slope,
        extrapolated=Estimate(value[()], error[()], "extrapolation", "standard error"),
        found_entry=verdict.found_entry,
        found_all=verdict.found_all,
        p_value=verdict.p_value,
        agrees=verdict.p_value >= FAMILY_ERROR,
        note="; ".join(notes),
    )


def _check_limit(name: str, target: np.ndarray, error: np.ndarray) -> None:
    """Refuses to compare with what is no number: every test would pass."""
    if not (np.isfinite(target).all() and np.isfinite(error).all() and (error >= 0).all()):
        part = "value" if not np.isfinite(target).all() else "error"
        raise TensorProgramError(
            f"output {name!r} is compared with a limit whose {part} is not a finite number",
            why="nothing can agree with it, or disagree",
            fix="give numbers, and errors of at least 0; look at how the limit was found",
        )


def _too_few(widths: Sequence[int], anomaly: Anomaly) -> str:
    if anomaly.half:
        return (
            f"no verdict: at {len(widths)} width(s) a bias of n**-1/2 and 1/n ({anomaly.half}) cannot be told from a wrong "
            "limit; give three or more"
        )
    return "no verdict: at one width a b/n cannot be told from a wrong limit; give two or more"


def _bias(contrasts: Contrasts) -> str:
    return "b/n" if contrasts.orders == (1.0,) else "a/n**(1/2) + b/n"


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


class _Verdict:
    """The tests of one output.

    Attributes:
        p_value: The smallest, times the number of all tests.
        failure: Which test that was.
        found_entry: See `Judgement`.
        found_all: See `Judgement`.
    """

    def __init__(
        self, widths: Sequence[int], runs: np.ndarray, limit: Estimate, outputs: int, anomaly: Anomaly
    ) -> None:
        value = np.asarray(limit.value, dtype=float)
        target = value.reshape(-1)
        error = np.broadcast_to(np.asarray(limit.error, dtype=float), value.shape).reshape(-1)
        contrasts = Contrasts(widths, bool(anomaly.half))
        flat = runs.reshape(*runs.shape[:2], -1)
        once = _distinct(flat, target, error)
        groups = [(flat[..., once], target[once], error[once])]
        if value.ndim:
            weights, values = _directions(value)
            # The errors of two entries may be fully correlated: their sum is the safe error of a combination.
            groups.append((flat @ weights.T, values, np.abs(weights) @ error))
        best, self.failure = math.inf, ""
        found: list[float] = []
        for samples, at_limit, its_error in groups:
            scale = max(float(np.abs(samples).max(initial=0.0)), float(np.abs(at_limit).max(initial=0.0)))
            spread = Spread(contrasts, widths, samples, bool(anomaly.heavy))
            p = p_values(contrasts, spread, at_limit, its_error, limit.kind, ROUNDING * scale)
            tests = p.size * len(groups) * outputs
            if p.size and p.min() * tests < best:
                best = float(p.min()) * tests
                row = int(np.unravel_index(int(p.argmin()), p.shape)[0])
                self.failure = "differs from the limit " + (
                    "extrapolated to n = infinity" if row == 0 else f"at n = {widths[row - 1]}, less the fitted bias"
                )
            allowed = its_error if limit.kind != "standard error" else 0.0
            seen = detectable(contrasts, spread, FAMILY_ERROR / max(tests, 1)) + allowed
            found.append(float(seen.max(initial=0.0) if not found else seen[-1]))
        self.p_value = min(best, 1.0)
        size = float(np.sqrt(np.mean(target**2))) if value.ndim and target.any() else 1.0
        self.found_entry = found[0] / size
        self.found_all = found[1] if len(found) > 1 else None


def _distinct(runs: np.ndarray, target: np.ndarray, error: np.ndarray) -> np.ndarray:
    """The first of all entries that are the same numbers: a symmetric kernel has every one twice."""
    if runs.shape[2] < 2:
        return np.arange(runs.shape[2])
    columns = np.vstack([runs.reshape(-1, runs.shape[2]), target, error]).T
    _, first = np.unique(np.ascontiguousarray(columns).view(f"V{8 * columns.shape[1]}").ravel(), return_index=True)
    return np.sort(first)
