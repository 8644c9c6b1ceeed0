"""Training along one kernel by its eigenvectors: means, covariances of ensembles, and bounds on what errors do to them."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from tensorprog.function_space.filters import Filter
from tensorprog.function_space.problem import Problem
from tensorprog.function_space.results import Parts
from tensorprog.function_space.spectrum import EPS, Regulariser, Spectrum

__all__ = ["Eigenflow"]

AT_ONCE = 2**21
"""Numbers of an intermediate array."""


class Eigenflow:
    """What follows one kernel.

    Args:
        problem: The data.
        name: Of the kernel that training follows.
        diag_reg: See `tp.predict`.
        absolute: Is it given absolutely?

    Attributes:
        spectrum: Of the kernel on the training examples.
        regulariser: What is added to its diagonal.
    """

    def __init__(self, problem: Problem, name: str, diag_reg: float | None, absolute: bool) -> None:
        self.problem, self.name = problem, name
        K = problem.train(name)
        prior = None if problem.prior in (None, name) else problem.train(str(problem.prior))
        self.spectrum = Spectrum.of(K, problem.error(name), prior)
        self.regulariser: Regulariser = self.spectrum.regulariser(diag_reg, float(np.diagonal(K).mean()), absolute)

    @cached_property
    def rows(self) -> np.ndarray:
        """The kernel of tests with training examples in eigenvectors, (tests, groups)."""
        return self._rows(self.name)

    def _rows(self, name: str) -> np.ndarray:
        found = self.problem.cross(name)
        assert found is not None
        return np.asarray(self.spectrum.merge(found.T).T @ self.spectrum.vectors)

    @cached_property
    def prior(self) -> np.ndarray:
        """The covariance of f_0 on the training examples, in eigenvectors; one-dimensional where it is diagonal."""
        name = self.problem.prior
        assert name is not None
        if name == self.name:
            return self.spectrum.values
        half = self.spectrum.project(self.problem.train(name))
        return self.spectrum.project(half.T)

    @cached_property
    def prior_rows(self) -> np.ndarray:
        """The covariance of f_0 of tests with training examples, in eigenvectors."""
        name = self.problem.prior
        assert name is not None
        return self.rows if name == self.name else self._rows(name)

    def of_prior(self, x: np.ndarray) -> np.ndarray:
        """Rows x in eigenvectors times the covariance of f_0."""
        if self.prior.ndim == 1:
            return x * self.prior
        return (x.reshape(-1, x.shape[-1]) @ self.prior).reshape(x.shape)  # one product, not one for every time

    # ---- parts of a prediction ----
    def parts(self, f: Filter, start: tuple[np.ndarray, np.ndarray] | None, random: bool) -> Parts:
        """How to compute what a `Prediction` has.

        Args:
            f: Functions of the eigenvalues.
            start: f_0 of training examples and tests; None for 0.
            random: Is f_0 random, with the prior's covariance?
        """
        p = self.problem
        residual = p.y if start is None else p.y - start[0]
        found = _Means(self, f, residual, start)
        parts: Parts = {"train_mean": found.train, "train_error": found.train_error}
        if p.tests:
            parts |= {"mean": found.test, "error": found.test_error}
        if not random:
            parts |= _still(p, len(f.at))
        elif p.prior is not None:
            covs = _Covariances(self, f)
            parts["train_cov"] = covs.train
            if p.tests and p.both() is not None:
                parts |= {"cov": covs.test, "variance": covs.variance, "cov_error": covs.error}
        return parts


def _still(p: Problem, times: int) -> Parts:
    """Of a given f_0: no covariance, in arrays that take no memory."""
    each = () if p.blocks == 1 else (p.blocks,)

    def zeros(*shape: int) -> np.ndarray:
        return np.broadcast_to(0.0, (times, *shape))

    parts: Parts = {"train_cov": lambda: zeros(p.examples, p.examples, *each, *each)}
    if p.tests:
        parts |= {
            "cov": lambda: zeros(p.tests, p.tests, *each, *each),
            "variance": lambda: zeros(p.tests, *each),
            "cov_error": lambda: zeros(p.tests),
        }
    return parts


class _Means:
    """f_0 + K_* g(K) (y - f_0) at all times."""

    def __init__(self, own: Eigenflow, f: Filter, residual: np.ndarray, start: Any) -> None:
        self.own, self.f, self.start = own, f, start
        self.force = own.spectrum.project(residual)  # (groups, outputs)

    @cached_property
    def pull(self) -> np.ndarray:
        """Bounds on the norms of all coefficients up to a time, moved ones among them: (times,), the largest of any output."""
        f, noise = self.f, self.own.spectrum.noise
        known = np.sqrt(np.max(f.reach**2 @ self.force**2, axis=1, initial=0.0))
        room = 1 - noise * f.widest
        with np.errstate(divide="ignore", invalid="ignore"):
            size = np.sqrt((self.force**2).sum(axis=0).max(initial=0.0))
            least = np.where(size > 0, f.cap * size, 0.0)
            return np.minimum(np.where(room > 0, known / room, np.inf), least)

    def test(self) -> np.ndarray:
        p = self.own.problem
        weights = self.f.gain[:, :, None] * self.force  # (times, groups, outputs)
        found = np.tensordot(self.own.rows, weights, axes=(1, 1)).transpose(1, 0, 2)
        return p.outputs(found if self.start is None else found + self.start[1])

    def train(self) -> np.ndarray:
        p = self.own.problem
        learned = (self.own.spectrum.values * self.f.gain)[:, :, None] * self.force
        found = self.own.spectrum.expand(learned.transpose(1, 0, 2)).transpose(1, 0, 2)
        return p.outputs(found if self.start is None else found + self.start[0])

    def test_error(self) -> np.ndarray:
        own, f = self.own, self.f
        carried = np.sqrt(f.reach**2 @ own.rows.T**2)  # (times, tests)
        size = np.sqrt(np.max(f.gain**2 @ self.force**2, axis=1, initial=0.0))[:, None]
        rows = own.problem.error(own.name) * np.sqrt(own.spectrum.examples)
        rounding = 8 * EPS * np.sqrt((own.rows**2).sum(axis=1)) * size
        found = _times(own.spectrum.noise * carried, self.pull[:, None]) + rows * size + rounding
        return own.problem.largest(found)

    def train_error(self) -> np.ndarray:
        own, f = self.own, self.f
        learned = (own.spectrum.values * f.reach).max(axis=1, initial=0.0)
        size = np.sqrt(np.max((own.spectrum.values * f.gain) ** 2 @ self.force**2, axis=1, initial=0.0))
        return _times(own.spectrum.noise * (1 + learned), self.pull) + 8 * EPS * size


class _Covariances:
    """Of f_0 - K_* g(K) f_0, f_0 Gaussian with the prior's covariance."""

    def __init__(self, own: Eigenflow, f: Filter) -> None:
        self.own, self.f = own, f

    def _across(self, at: slice) -> tuple[np.ndarray, np.ndarray]:
        """Those coefficients, and the covariance with f_0 on the training examples of what they make of f_0, at some times."""
        a = self.own.rows * self.f.gain[at, None]
        return a, self.own.prior_rows - self.own.of_prior(a)

    def _slices(self) -> list[slice]:
        count = max(1, AT_ONCE // max(1, self.own.rows.size))
        return [slice(i, i + count) for i in range(0, len(self.f.at), count)]

    def test(self) -> np.ndarray:
        own, p = self.own, self.own.problem
        both = p.both()
        assert both is not None
        found = np.empty((len(self.f.at), *both.shape))
        for at in self._slices():
            a, across = self._across(at)
            found[at] = both - (own.prior_rows + across) @ a.transpose(0, 2, 1)
        return p.square(_clipped(found), p.tests)

    def variance(self) -> np.ndarray:
        own, p = self.own, self.own.problem
        both = p.both()
        assert both is not None
        found = np.empty((len(self.f.at), len(both)))
        for at in self._slices():
            a, across = self._across(at)
            found[at] = np.diagonal(both) - np.einsum("tij,tij->ti", own.prior_rows + across, a)
        return p.outputs(np.maximum(found, 0.0)[:, :, None], squeeze=True)

    def error(self) -> np.ndarray:
        own, p, f = self.own, self.own.problem, self.f
        both = p.both()
        assert both is not None and p.prior is not None
        root, noise = np.sqrt(own.spectrum.examples), own.spectrum.noise
        room = np.maximum(1 - noise * f.widest, 0.0)[:, None]
        found = np.empty((len(f.at), len(both)))
        for at in self._slices():
            a, across = self._across(at)
            carried = np.sqrt((f.reach[at] ** 2) @ own.rows.T**2)
            held = np.sqrt(np.einsum("tij,tj->ti", across**2, f.reach[at] ** 2))
            size = np.sqrt((a**2).sum(axis=2))
            with np.errstate(divide="ignore", invalid="ignore"):
                moved = np.where(held > 0, held / room[at], 0.0)
            moved = 2 * _times(noise * carried + p.error(own.name) * root, moved)
            own_error = p.error(p.prior) * (1 + root * size) ** 2
            rounding = 8 * EPS * (np.diagonal(both) + 2 * np.abs(np.einsum("ij,tij->ti", own.prior_rows, a)))
            found[at] = moved + own_error + rounding
        return p.largest(found)

    def train(self) -> np.ndarray:
        own, p = self.own, self.own.problem
        left = 1 - own.spectrum.values * self.f.gain
        found = np.empty((len(self.f.at), own.spectrum.examples, own.spectrum.examples))
        prior = np.diag(own.prior) if own.prior.ndim == 1 else own.prior
        for i, kept in enumerate(left):
            half = own.spectrum.expand(kept[:, None] * prior * kept)
            found[i] = own.spectrum.expand(half.T)
        return p.square(_clipped(found), p.examples)


def _times(a: Any, b: Any) -> Any:
    """Products of bounds, where 0 times infinity is 0."""
    with np.errstate(invalid="ignore"):
        return np.where((np.asarray(a) == 0) | (np.asarray(b) == 0), 0.0, np.asarray(a) * np.asarray(b))


def _clipped(cov: np.ndarray) -> np.ndarray:
    """Symmetric, and without variances below 0, which rounding leaves where a variance vanishes."""
    cov = (cov + cov.transpose(0, 2, 1)) / 2
    diagonal = np.einsum("tii->ti", cov)
    np.maximum(diagonal, 0.0, out=diagonal)
    return cov
