"""The exponent of a size against width, fitted over widths and seeds, with its error; and what is an approach to a limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Fit", "fitted"]

FLOOR = 2e-3
"""The least relative error of a mean over seeds, so that no width outweighs all others."""
SURE = 4.0
"""Standard errors by which a limit must differ from 0 to be one."""


@dataclass(frozen=True)
class Fit:
    """A size as a power of the width.

    Attributes:
        exponent: Of all widths, or of the wider half where these do not follow one power; -inf where the size is 0.
        error: A standard error, with what the narrower widths say differently.
        tends: What the size tends to, where a limit and a correction fit better than a power; else None.
        sizes: Root mean squares over seeds, one a width.
        errors: Their standard errors.
    """

    exponent: float
    error: float
    tends: float | None
    sizes: np.ndarray
    errors: np.ndarray


def fitted(widths: Sequence[int], squares: Sequence[np.ndarray]) -> Fit:
    """The fit of mean squares.

    Args:
        widths: Increasing, two or more.
        squares: For each the mean squares of all seeds.

    Example:
        >>> fit = fitted([64, 128, 256, 512], [np.array([4 / n, 4 / n]) for n in (64, 128, 256, 512)])
        >>> round(fit.exponent, 6), fit.tends
        (-0.5, None)
    """
    n = np.asarray(widths, float)
    top = max([float(np.max(s)) for s in squares]) or 1.0  # what diverges has no squares
    squares = [s / top for s in squares]
    mean = np.array([np.mean(s) for s in squares])
    spread = np.array([np.std(s, ddof=1) / np.sqrt(len(s)) if len(s) > 1 else 0.0 for s in squares])
    with np.errstate(divide="ignore", invalid="ignore"):
        sizes = np.sqrt(mean) * np.sqrt(top)
        errors = np.where(mean > 0, sizes * spread / (2 * mean), 0.0)
    if not (mean > 0).all():
        some = float("nan") if (mean > 0).any() else -np.inf
        return Fit(some, 0.0, None, sizes, errors)
    y = np.log(mean) / 2
    few = np.array(
        [(len(s) + 1) / (len(s) - 1) if len(s) > 1 else 1.0 for s in squares]
    )  # whose spread is not well known
    own = few * (spread / mean / 2) ** 2  # smallest where their mean happens to be small: half comes from all widths
    noise = np.maximum(np.sqrt((own + own.mean()) / 2), FLOOR)
    x = np.log(n)
    whole, error, rest = _line(x, y, noise)
    tends = _tends(n, mean, noise, rest)
    tends = None if tends is None else tends * float(np.sqrt(top))
    upper = n >= np.sqrt(n[0] * n[-1])
    upper[-3:] = True
    slope, wide, _ = _line(x[upper], y[upper], noise[upper])
    if abs(slope - whole) <= 3 * wide:  # as far as one can see, one power at all widths
        return Fit(whole, error, tends, sizes, errors)
    return Fit(slope, float(np.hypot(wide, slope - whole)), tends, sizes, errors)


def _line(x: np.ndarray, y: np.ndarray, noise: np.ndarray) -> tuple[float, float, float]:
    """Weighted least squares: the slope, its error, and chi squared of the rest."""
    w = noise**-2
    centre = (w * x).sum() / w.sum()
    inside = (w * (x - centre) ** 2).sum()
    slope = float((w * (x - centre) * y).sum() / inside)
    rest = float((w * (y - (w * y).sum() / w.sum() - slope * (x - centre)) ** 2).sum())
    return slope, float(np.sqrt(max(1.0, rest / max(len(x) - 2, 1)) / inside)), rest


def _tends(n: np.ndarray, mean: np.ndarray, noise: np.ndarray, rest: float) -> float | None:
    """The limit A of mean squares A + B/n, where that is better than a power and A is not 0."""
    if len(n) < 3:
        return None
    design = np.stack([np.ones_like(n), n[0] / n], 1) / (2 * noise * mean)[:, None]
    found, *_ = np.linalg.lstsq(design, 1 / (2 * noise), rcond=None)
    other = float(((design @ found - 1 / (2 * noise)) ** 2).sum())
    covariance = np.linalg.inv(design.T @ design) * max(1.0, other / max(len(n) - 2, 1))
    sure = found[0] > SURE * np.sqrt(covariance[0, 0])
    return float(np.sqrt(found[0])) if sure and other < rest else None
