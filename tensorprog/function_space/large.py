"""`tp.predict` of more examples than eigenvectors are affordable for: the kernel is looked at by products only."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.estimate import Estimate
from tensorprog.function_space.checks import nonnegative, start_array
from tensorprog.function_space.filters import Filter, check_momentum, checked_rate, descent, flow
from tensorprog.function_space.krylov import Nystrom, Reduced, conjugate_gradients, lanczos
from tensorprog.function_space.results import Both, Parts, Prediction
from tensorprog.function_space.spectrum import EPS, Regulariser
from tensorprog.function_space.tiles import Operator

__all__ = ["Large", "LargePredictor", "Settings"]

SAMPLE = 512
"""Examples by which the size of the largest eigenvalue is guessed."""
CHUNK = 16
"""Tests whose variances are computed together."""


class Settings:
    """How far a Krylov method goes.

    Args:
        tol: How large an error of an output may be, in units of the largest target.
        most: Products with the kernel, at most.
        rank: Of the preconditioner.
        out: A folder for tiles and states, from which an interrupted call goes on; None for memory.
        progress: Whether to show progress bars; by default on a terminal only.
    """

    def __init__(self, tol: float, most: int, rank: int, out: Path | None, progress: bool | None) -> None:
        self.tol, self.most, self.rank, self.out, self.progress = tol, most, rank, out, progress


class Large:
    """Kernels and targets, the kernels made when they are first asked for.

    Args:
        names: Of the kernels, the one that is followed by default first.
        prior: The name of the covariance of f_0, or None.
        table: Targets (examples, outputs).
        one: Were they one-dimensional?
        tests: The number of tests.
        operator: Name to the kernel of the training examples.
        cross: Name to that of tests with training examples.
        own: Name to the diagonal of that of tests with themselves, or None.
        note: What a reader should know.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        prior: str | None,
        table: np.ndarray,
        one: bool,
        tests: int,
        operator: Callable[[str], Operator],
        cross: Callable[[str], np.ndarray],
        own: Callable[[str], np.ndarray | None],
        note: str = "",
    ) -> None:
        self.names, self.prior, self.y, self.one, self.tests, self.note = names, prior, table, one, tests, note
        self._make = {"operator": operator, "cross": cross, "own": own}
        self._known: dict[tuple[str, str], Any] = {}

    def get(self, what: str, name: str) -> Any:
        """The `"operator"`, the `"cross"` kernel, or the diagonal `"own"` of tests, of a name."""
        if (what, name) not in self._known:
            self._known[what, name] = self._make[what](name)
        return self._known[what, name]


class LargePredictor:
    """As `Predictor`, for many examples: means, their errors, variances; no covariances, components or posteriors.

    Attributes:
        problem: Kernels and targets.
        settings: Tolerances.
    """

    def __init__(self, problem: Large, diag_reg: float | None, absolute: bool, settings: Settings) -> None:
        self.problem, self._diag_reg, self._absolute, self.settings = problem, diag_reg, absolute, settings
        self.name = problem.names[0]
        self._regularisers: dict[str, Regulariser] = {}

    def __repr__(self) -> str:
        p = self.problem
        return f"predict: {self.name} of {len(p.y)} examples, {p.tests} tests, by Krylov spaces; {self.regulariser}"

    @property
    def regulariser(self) -> Regulariser:
        """What is added to the diagonal, and why."""
        return self._regulariser(self.name)

    @cached_property
    def max_learning_rate(self) -> Estimate:
        """The largest rate with which gradient descent does not diverge: 2 over the largest eigenvalue of K/N."""
        K, r = self.problem.get("operator", self.name), float(self.regulariser)
        start = np.random.default_rng(0).standard_normal((K.size, 1))
        gaps = []

        def enough(found: Reduced) -> bool:
            gaps.append(float(found.last[0] * abs(found.vectors[0, -1, -1])))
            return gaps[-1] <= 1e-10 * found.top

        top = lanczos(K, start, enough, 100, progress=self.settings.progress).top + r
        error = (gaps[-1] if gaps else 0.0) + K.size * K.error
        rate = 2 * K.size / top
        return Estimate(rate, rate * (error / top + 8 * EPS), "Lanczos", "bound")

    def _regulariser(self, name: str) -> Regulariser:
        if name not in self._regularisers:
            K = self.problem.get("operator", name)
            scale = float(K.diagonal().mean()) or 1.0
            if self._diag_reg is not None:
                r = self._diag_reg if self._absolute else self._diag_reg * scale
                found = Regulariser(r, r / scale, "as given")
            else:
                at = np.sort(np.random.default_rng(0).choice(K.size, min(SAMPLE, K.size), replace=False))
                top = float(np.linalg.eigvalsh(K.columns(at)[at])[-1]) * K.size / len(at)
                noise = K.size * K.error
                r = float(np.sqrt(noise * max(top, 0.0)))
                found = Regulariser(
                    r, r / scale,
                    f"the smallest eigenvalue is not looked for: the root of what is not known of it, {noise:.1e}, "
                    f"times the largest, about {top:.2g}",
                )  # fmt: skip
            self._regularisers[name] = found
        return self._regularisers[name]

    def __call__(
        self,
        t: Any = None,
        get: str | Sequence[str] | None = None,
        f0: Any = None,
        *,
        steps: Any = None,
        lr: Any = None,
        momentum: float = 0.0,
        nesterov: bool = False,
    ) -> Any:
        """Means at times of gradient flow, or after steps of gradient descent; see `Predictor.__call__`.

        Args:
            t: A time or several, infinity among them; None, without `steps`, for infinity.
            get: `"ntk"` or `"nngp"`, or several names.
            f0: `"prior"`, with variances of the ensemble, `"zero"`, or an array.
            steps: In place of t: a number of steps, or several.
            lr: The learning rate of the steps.
            momentum: As `tp.SGD` has it.
            nesterov: As `tp.SGD` has it.

        Returns:
            A `Prediction`; of several names a named tuple of them.
        """
        if get is not None and not isinstance(get, str):
            options = {"steps": steps, "lr": lr, "momentum": momentum, "nesterov": nesterov}
            return Both.of({name: self(t, name, f0, **options) for name in get})
        p = self.problem
        name = self.name if get is None else get
        if name not in p.names:
            raise TensorProgramError(f"get={get!r}", fix=f"use {' or '.join(p.names)}")
        if steps is None and (lr is not None or momentum or nesterov):
            raise TensorProgramError("a learning rate without steps", fix="give steps=, or t= alone")
        if steps is not None and t is not None:
            raise TensorProgramError("both t= and steps=", fix="give one of them")
        if f0 is not None and not isinstance(f0, str):
            first, last = start_array(f0, len(p.y), p.tests, p.y.shape[1])
        elif f0 in (None, "prior", "zero"):
            first, last = np.zeros(p.y.shape), np.zeros((p.tests, p.y.shape[1]))
        else:
            raise TensorProgramError(f"f0={f0!r} of many examples", fix='use "prior", "zero" or an array')
        run = _Run(self, name, t, steps, lr, momentum, nesterov)
        parts = self._parts(run, first, last, f0 in (None, "prior") if f0 is None or isinstance(f0, str) else False)
        found = Prediction(
            parts, at=run.at, single=run.single, steps=steps is not None, get=name, regulariser=self._regulariser(name),
            condition=np.nan, note=p.note, method="Krylov",
        )  # fmt: skip
        if steps is not None:
            found.beside(lambda: self(run.elapsed[0] if run.single else run.elapsed, name, f0))
        return found

    def _parts(self, run: _Run, first: np.ndarray, last: np.ndarray, random: bool) -> Parts:
        p = self.problem

        @_once
        def solved() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            return run.solve(p.y - first, self.settings.out)

        def shaped(x: np.ndarray) -> np.ndarray:
            return x[:, :, 0] if p.one else x

        def error(rows: np.ndarray | None, own: np.ndarray | None) -> np.ndarray:
            a, _, rho = solved()
            size = np.sqrt((a**2).sum(axis=1))  # (times, outputs)
            reach = run.reach(rows, own)  # (times, rows)
            K = run.K
            found = reach * (rho + K.size * K.error * size).max(axis=1)[:, None]
            return found + (np.sqrt(K.size) * K.error + 8 * EPS * run.diagonal.max()) * size.max(axis=1)[:, None]

        parts: Parts = {
            "train_mean": lambda: shaped(solved()[1] + first),
            "train_error": lambda: error(None, run.diagonal).max(axis=1),
        }
        if p.tests:
            rows = p.get("cross", run.name)
            parts["mean"] = lambda: shaped(np.einsum("in,tnc->tic", rows, solved()[0], optimize=True) + last)
            parts["error"] = lambda: error(rows, p.get("own", run.name))
            if random and p.prior is not None and p.get("own", p.prior) is not None:
                variances = _once(lambda: self._variances(run))
                parts["variance"] = lambda: variances()[0]
                parts["cov_error"] = lambda: variances()[1]
            if not random:
                parts["variance"] = parts["cov_error"] = lambda: np.broadcast_to(0.0, (len(run.at), p.tests))
        return parts

    def _variances(self, run: _Run) -> tuple[np.ndarray, np.ndarray]:
        """Of the ensemble on the tests, some at a time, and their errors."""
        p = self.problem
        assert p.prior is not None
        S, rows, prior_rows, own = (
            p.get("operator", p.prior), p.get("cross", run.name), p.get("cross", p.prior), p.get("own", p.prior)
        )  # fmt: skip
        found, errors = np.empty((len(run.at), p.tests)), np.empty((len(run.at), p.tests))
        for i in range(0, p.tests, CHUNK):
            at = slice(i, min(i + CHUNK, p.tests))
            a, Ka, rho = run.solve(rows[at].T, None)
            times, n, c = a.shape
            Sa = (
                Ka
                if p.prior == run.name
                else S.dot(a.transpose(1, 0, 2).reshape(n, -1)).reshape(n, times, c).transpose(1, 0, 2)
            )
            across = prior_rows[at].T - Sa
            found[:, at] = np.maximum(
                own[at] - np.einsum("nc,tnc->tc", prior_rows[at].T, a) - np.einsum("tnc,tnc->tc", across, a), 0
            )
            size, held = np.sqrt((a**2).sum(axis=1)), np.sqrt((across**2).sum(axis=1))
            off = (rho + run.K.size * run.K.error * size) * run.longest[:, None]
            if p.prior == run.name:
                off, held = (rho + run.K.size * run.K.error * size) * run.smooth[:, None], np.sqrt(own[at])
            moved = 2 * off * held + (0.0 if p.prior == run.name else off**2 * float(np.sum(S.diagonal())))
            errors[:, at] = moved + S.error * (1 + np.sqrt(n) * size) ** 2
        return found, errors


def _once(function: Callable[[], Any]) -> Callable[[], Any]:
    known: list[Any] = []

    def call() -> Any:
        if not known:
            known.append(function())
        return known[0]

    return call


class _Run:
    """Times, or steps, of one kernel; `solve` finds coefficients of any residuals."""

    def __init__(
        self, own: LargePredictor, name: str, t: Any, steps: Any, lr: Any, momentum: float, nesterov: bool
    ) -> None:
        self.name, self.settings = name, own.settings
        self.K: Operator = own.problem.get("operator", name)
        self.r = float(own._regulariser(name))
        self.diagonal = self.K.diagonal()
        self.scale = float(np.abs(own.problem.y).max(initial=0.0)) or 1.0
        n = self.K.size
        self.descent = steps is not None
        if steps is None:
            self.at, self.single = nonnegative(np.inf if t is None else t, "t", infinite=True)
            self.elapsed = self.at
            self.make: Callable[[Any, np.ndarray], Filter] = lambda at, x: flow(at, x, self.r, n, 0.0)
        else:
            check_momentum(momentum)
            rate, one = nonnegative(checked_rate(lr), "lr")
            if not one:
                raise TensorProgramError("a rate for every step, of many examples", fix="give one rate")
            self.at, self.single = nonnegative(steps, "steps", infinite=True, whole=True)
            self.elapsed = float(rate[0]) * self.at / (1 - momentum)
            self.make = lambda at, x: descent(at, float(rate[0]), x, self.r, n, momentum, nesterov, 0.0)
        if np.isinf(self.at).any() and self.r == 0:
            raise TensorProgramError(
                "infinite times without a regulariser, by Krylov spaces",
                why="the smallest eigenvalue of the kernel is not known, and so is no error",
                fix="give finite times, or diag_reg=",
            )  # fmt: skip
        s = self.elapsed / n
        with np.errstate(divide="ignore"):
            inverse = 1 / self.r if self.r else np.inf
            self.longest = np.minimum(s, inverse)
            self.smooth = np.minimum(np.sqrt(2 * s / np.e), np.sqrt(inverse) / 2)

    def reach(self, rows: np.ndarray | None, own: np.ndarray | None) -> np.ndarray:
        """What a residual of size 1 may do to outputs (times, outputs) of kernel rows, with the diagonals of their kernel."""
        found = np.full((len(self.at), len(own if rows is None else rows)), np.inf)  # type: ignore[arg-type]
        if rows is not None:
            found = np.sqrt((rows**2).sum(axis=1)) * self.longest[:, None]
        if own is not None and not self.descent:  # of steps that overshoot the bound by the root does not hold
            found = np.minimum(found, np.sqrt(np.maximum(own, 0.0)) * self.smooth[:, None])
        elif own is not None and rows is None:
            found = np.sqrt(np.maximum(own * self.diagonal.sum(), 0.0)) * self.longest[:, None]
        return found

    def solve(self, b: np.ndarray, folder: Path | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Coefficients a at all times (times, examples, columns), K a, and bounds on the norms of residuals (times, columns)."""
        n, c = b.shape
        a, Ka, rho = (np.zeros((len(self.at), *shape)) for shape in ((n, c), (n, c), (c,)))
        ended = np.isinf(self.at)
        if ended.any():
            x, sizes = self._ended(b, folder)
            a[ended], Ka[ended], rho[ended] = x, self.K.dot(x), sizes
        if not ended.all():
            now = np.flatnonzero(~ended)
            a[now], Ka[now], rho[now] = self._until(b, now, folder)
        return a, Ka, rho

    def _ended(self, b: np.ndarray, folder: Path | None) -> tuple[np.ndarray, np.ndarray]:
        s = self.settings
        widest = float(np.sqrt(self.diagonal.max(initial=0.0))) or 1.0
        target = np.full(b.shape[1], s.tol * self.scale * 2 * np.sqrt(self.r) / widest)
        x, sizes, _ = conjugate_gradients(
            self.K, self.r, b, Nystrom(self.K, self.r, s.rank), target, s.most, folder, s.progress
        )
        return x, sizes

    def _until(self, b: np.ndarray, now: np.ndarray, folder: Path | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        s, times = self.settings, self.at[now]
        worth = (self.longest * np.sqrt(self.diagonal.sum()) if self.descent else self.smooth)[now] * np.sqrt(
            self.diagonal.max()
        )

        def leak(found: Reduced) -> np.ndarray:
            """Norms of residuals up to every time (times, columns)."""
            if not self.descent:  # it grows with time
                return found.last * np.abs(found.coefficients(lambda x: self.make(times, x))[1][:, -1])
            every = np.arange(int(times.max()) + 1)
            u = np.abs(found.coefficients(lambda x: self.make(every, x))[1][:, -1])
            return found.last * np.maximum.accumulate(u, axis=0)[times.astype(int)]

        found = lanczos(
            self.K,
            b,
            lambda x: bool((leak(x).max(axis=1) * worth <= s.tol * self.scale).all()),
            s.most,
            folder,
            s.progress,
        )
        u = found.coefficients(lambda x: self.make(times, x))[1]
        a = found.apply(u)
        count, n, c = a.shape
        Ka = self.K.dot(a.transpose(1, 0, 2).reshape(n, -1)).reshape(n, count, c).transpose(1, 0, 2)
        rho = leak(found)
        if not self.descent:  # the residual itself, too: N da/dt = Q exp(-T t/N) Q.T b
            slope = np.stack([
                size * (np.exp(-np.maximum(x + self.r, 0.0) * times[:, None] / n) * v[0]) @ v.T
                for x, v, size in zip(found.values, found.vectors, found.sizes, strict=True)
            ], axis=2)  # fmt: skip
            rho = np.maximum(rho, np.linalg.norm(b - Ka - self.r * a - found.apply(slope), axis=1))
        return a, Ka, rho


def identity_of(*parts: Any) -> str:
    """What data, networks and settings are, for folders."""
    h = hashlib.blake2b(digest_size=12)
    for x in parts:
        h.update(np.ascontiguousarray(x).tobytes() if isinstance(x, np.ndarray) else repr(x).encode())
    return h.hexdigest()
