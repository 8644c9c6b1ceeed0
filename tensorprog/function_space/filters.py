"""What a kernel's eigenvalue has become of training until a time: flow, and steps of gradient descent with momentum.

Training from f_0 moves the outputs by K a, with coefficients a that solve da/dt = (y - f_0 - K a)/N, so a = g(K) (y - f_0)
with one function g for every time. At an eigenvalue x of K (the regulariser included)

    flow              g = (1 - exp(-x t/N)) / x
    steps             g = (1 - (1 - h x)^k) / x            h = lr/N, k steps
    momentum          g by its recursion

and 1 - x g of what is to be learned is left. All are accurate at x = 0, where g is t/N. `reach` bounds, for every eigenvalue,
the sum over the past of how much a unit force moves a, by which errors of the kernel are carried on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.function_space.checks import nonnegative

__all__ = ["Filter", "check_momentum", "checked_rate", "descent", "flow"]

MOST_STEPS = 10**5
"""Of a recursion that has no closed form."""


@dataclass(frozen=True, eq=False)
class Filter:
    """Functions of the eigenvalues, one a time.

    Attributes:
        at: The times, or the numbers of steps.
        single: Was it one number, so that results have no axis of times?
        gain: g, (times, eigenvalues).
        reach: At least |g| and the same of errors, (times, eigenvalues); equal to `gain` where nothing oscillates.
        widest: The largest `reach` (times,); infinite where eigenvalues that cannot be told from 0 would matter.
        cap: The same of any kernel, (times,).
        steps: Are these steps and no times?
        flow: The times of the flow beside them: lr k/(1 - momentum).
    """

    at: np.ndarray
    single: bool
    gain: np.ndarray
    reach: np.ndarray
    widest: np.ndarray
    cap: np.ndarray
    steps: bool
    flow: np.ndarray


def flow(t: Any, values: np.ndarray, r: float, examples: int, cutoff: float) -> Filter:
    """Of gradient flow.

    Args:
        t: Times, infinity among them.
        values: The kernel's eigenvalues, at least 0.
        r: The regulariser.
        examples: N.
        cutoff: At infinity, eigenvalues below are taken for 0: along them nothing moves.
    """
    times, single = nonnegative(t, "t", infinite=True)
    x = values + r
    s = times[:, None] / max(examples, 1)
    gain = _flow_gain(x[None], s, np.inf if r > 0 else cutoff, x)
    with np.errstate(divide="ignore"):
        cap = np.minimum(s[:, 0], 1 / r if r > 0 else np.inf)
    widest = gain.max(axis=1, initial=0.0)
    if r == 0 and (x <= cutoff).any():
        widest = np.where(np.isinf(times), np.inf, widest)
    return Filter(times, single, gain, gain, widest, cap, False, times)


def _flow_gain(x: np.ndarray, s: np.ndarray, cutoff: float, flat: np.ndarray) -> np.ndarray:
    known = flat > (0.0 if np.isinf(cutoff) else cutoff)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        z = x * s
        found = np.where(z > 0, -np.expm1(-z) / x, s)  # also of eigenvalues so small that x s is 0
        ended = np.where(known, 1 / x, 0.0)
    return np.where(np.isinf(s), ended, found)


def descent(
    steps: Any,
    lr: Any,
    values: np.ndarray,
    r: float,
    examples: int,
    momentum: float = 0.0,
    nesterov: bool = False,
    cutoff: float = 0.0,
) -> Filter:
    """Of gradient descent.

    Args:
        steps: How many; infinity where the rate is stable.
        lr: The rate: a number, or, without momentum, one for each step.
        values: The kernel's eigenvalues, at least 0.
        r: The regulariser.
        examples: N.
        momentum: From 0 up to, and without, 1.
        nesterov: Whether to look ahead.
        cutoff: As for `flow`.

    Raises:
        TensorProgramError: a rate that makes no sense, or with which numbers overflow.
    """
    at, single = nonnegative(steps, "steps", infinite=True, whole=True)
    check_momentum(momentum)
    rates, _ = nonnegative(checked_rate(lr), "lr")
    x = values + r
    if len(rates) > 1 or (callable(lr) or np.ndim(lr)):
        if momentum:
            raise TensorProgramError("a rate for every step, with momentum", fix="give one rate, or no momentum")
        last = int(at.max()) if np.isfinite(at).all() else None
        if last is None or len(rates) < last:
            raise TensorProgramError(f"{len(rates)} rates for {at.max():g} steps", fix="give one for each step")
        gain, reach = _recursion(at, rates / examples, x)
        elapsed = np.concatenate([[0.0], np.cumsum(rates)])[at.astype(int)]
        return Filter(at, single, gain, reach, reach.max(axis=1, initial=0.0), elapsed / examples, True, elapsed)
    rate = float(rates[0])
    h = rate / max(examples, 1)
    top = float(x.max(initial=0.0)) * h
    limit = _stable(momentum, nesterov)
    if np.isinf(at).any() and (top >= limit or rate == 0):
        raise TensorProgramError(
            f"infinitely many steps with lr={rate:g}",
            why=f"they converge for rates above 0 and below {limit * examples / x.max(initial=1e-300):.6g}",
            fix="give a smaller rate, or a number of steps",
        )
    with np.errstate(over="ignore", invalid="ignore"):
        if momentum:
            gain, reach = _momentum(at, h, x, momentum, nesterov)
        else:
            gain, reach = _plain(at[:, None], h, x[None])
    if not (np.isfinite(gain).all() and np.isfinite(reach).all()):
        raise TensorProgramError(
            f"gradient descent with lr={rate:g} diverges: its numbers overflow",
            why=f"rates above {limit * examples / x.max():.6g} are unstable",
            fix="give a smaller rate, or fewer steps",
        )
    ended = np.isinf(at)
    known = x > (0.0 if r > 0 else cutoff)
    widest = np.where(ended & (not known.all()), np.inf, reach.max(axis=1, initial=0.0))
    gain[ended], reach[ended] = np.where(known, gain[ended], 0.0), np.where(known, reach[ended], 0.0)
    elapsed = rate * at / (1 - momentum)
    cap = np.where(
        ended, 1 / r if r > 0 else np.inf, np.maximum(reach.max(axis=1, initial=0.0), h * np.where(ended, 0, at))
    )
    return Filter(at, single, gain, reach, widest, cap, True, elapsed)


def check_momentum(momentum: Any) -> None:
    """Refuses what is no momentum."""
    if not (np.ndim(momentum) == 0 and np.isreal(momentum) and 0 <= momentum < 1):
        raise TensorProgramError(f"momentum={momentum!r}", fix="give a number from 0 up to, and without, 1")


def checked_rate(lr: Any) -> Any:
    """Refuses rates that are missing, or functions."""
    if lr is None:
        raise TensorProgramError("steps without a rate", fix="give lr=")
    if callable(lr):
        raise TensorProgramError("lr is a function", fix="give its numbers: [lr(step) for step in range(steps)]")
    return lr


def _stable(momentum: float, nesterov: bool) -> float:
    """The largest h x with which steps do not diverge."""
    return 2 * (1 + momentum) / (1 + 2 * momentum) if nesterov else 2 * (1 + momentum)


def _plain(k: np.ndarray, h: float, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(1 - (1 - h x)^k)/x without cancellation, and h times the sum of |1 - h x|^j, j < k."""
    z = h * x
    base = np.abs(1 - z)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        log = np.where(z < 1, np.log1p(-np.minimum(z, 1)), np.log1p(np.where(z < 1, 0, z - 2)))  # of |1 - z|
        power = np.where(k == 0, 0.0, k * log)
        odd = (z > 1) & (np.where(np.isinf(k), 0, k) % 2 == 1)
        left = np.where(odd, 1 + np.exp(power), -np.expm1(power))
        few = h * np.where(np.isinf(k), np.inf, k)
        gain = np.where(z > 0, np.where(k == 0, 0.0, left) / x, few)
        reach = np.where(z <= 1, gain, np.where(base == 1, few, -np.expm1(power) * h / (1 - base)))
    return np.broadcast_to(gain, np.broadcast_shapes(k.shape, x.shape)).copy(), reach


def _recursion(at: np.ndarray, h: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """With a rate for every step."""
    found = np.zeros((2, len(at), len(x)))
    gain, reach = np.zeros(len(x)), np.zeros(len(x))
    for k in range(int(at.max()) + 1):
        found[:, at == k] = np.stack([gain, reach])[:, None]
        if k < len(h):
            gain = gain + h[k] * (1 - x * gain)
            reach = np.abs(1 - h[k] * x) * reach + h[k]
    return found[0], found[1]


def _momentum(at: np.ndarray, h: float, x: np.ndarray, mu: float, nesterov: bool) -> tuple[np.ndarray, np.ndarray]:
    """By its recursion m <- mu m + force, a <- a + h m (Nesterov: h (force + mu m)).

    Of infinitely many steps g is 1/x. Where a unit force does not make it oscillate, so is its reach; elsewhere it dies out soon.
    """
    swings = h * x > min((1 - mu**0.5) ** 2, ((1 - mu) / (1 + mu)) ** 2)
    ended = np.isinf(at)
    last = int(at[~ended].max(initial=0))
    if last > MOST_STEPS:
        raise TensorProgramError(
            f"{last} steps with momentum", why=f"at most {MOST_STEPS} are carried out", fix="give fewer"
        )
    found = np.zeros((2, len(at), len(x)))
    a, m = np.zeros(len(x)), np.zeros(len(x))
    kick, carried, reach = np.zeros(len(x)), np.zeros(len(x)), np.zeros(len(x))
    for k in range(MOST_STEPS + 1):
        found[:, at == k] = np.stack([a, reach])[:, None]
        if k >= last and not ended.any():
            break
        force = 1 - x * a
        m = mu * m + force
        a = a + h * (force + mu * m if nesterov else m)
        unit = (1.0 if k == 0 else 0.0) - x * kick  # the same of a single unit of force at the first step
        carried = mu * carried + unit
        moved = kick + h * (unit + mu * carried if nesterov else carried)
        kick = moved
        reach = reach + np.abs(kick)
        if not np.isfinite(reach.max(initial=0.0)):
            found[:, at > k] = np.inf
            break
        if k >= last and np.abs(kick[swings]).max(initial=0.0) <= 1e-17 * h:
            break
    with np.errstate(divide="ignore"):
        found[0, ended] = 1 / x
    found[1, ended] = np.where(swings, reach, np.maximum(reach, found[0, ended]))
    return found[0], found[1]
