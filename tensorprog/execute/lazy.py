"""Finite width without the matrices: exact in law at width n, in O(n k) time and memory for k products."""

from __future__ import annotations

import math

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.execute.basis import TOLERANCE, ImplicitMatrix
from tensorprog.execute.dense import FiniteSpace
from tensorprog.execute.random import Array, stream
from tensorprog.language.symbols import MatrixSpec

__all__ = ["Lazy", "LazyMatrix"]


class LazyMatrix(ImplicitMatrix):
    """A Gaussian matrix with iid N(0, variance) entries, sampled only where it is looked at.

    Given what W.T has done to its basis P, and W to its own, W on a new direction q is
    `P (W.T P).T q + (I - P P.T) xi` with xi iid N(0, variance), and the same with the roles exchanged. The projection
    is off this matrix's own other side and off nothing else (docs/architecture.md, 'Executor and spaces').

    Args:
        rows: Number of rows.
        cols: Number of columns.
        variance: Variance of the entries.
        rng: Source of xi.
        tolerance: Vectors closer than this to the span of earlier ones, relative to their length, count as lying in it.
            Too small a value costs time, not correctness: the direction of a rounding error is orthonormal too.
    """

    def __init__(
        self, rows: int, cols: int, variance: float, rng: np.random.Generator, *, tolerance: float = TOLERANCE
    ) -> None:
        super().__init__(rows, cols, adjoint=1.0, tolerance=tolerance)
        self.std, self.rng = math.sqrt(variance), rng

    def fresh(self, directions: Array, out: Array, *, transposed: bool) -> None:
        """Gaussian noise, projected off the other side's basis."""
        other = (self.forward if transposed else self.backward).basis.rows
        self.rng.standard_normal(out=out)
        out *= self.std
        other.accumulate(-other.dot(out), out)


class Lazy(FiniteSpace):
    """Width n, up to millions, with Gaussian matrices that are never stored; exact in law, not the weights of `Dense`.

    Args:
        n: The reference width.
        seed: Key of the random streams; initial vectors are those of `Dense` with the same seed.
    """

    name = "lazy"

    def matrix(self, spec: MatrixSpec) -> LazyMatrix:
        """A matrix sampled as it is used.

        Raises:
            TensorProgramError: The entries are not Gaussian.
        """
        if spec.entries is not None:
            raise TensorProgramError(
                f"matrix {spec.name} has {spec.entries!r} entries, which cannot be sampled lazily",
                why="lazy sampling needs Gaussian entries: only they are independent in orthogonal directions",
                fix='run with weights="dense", or give the matrix Gaussian entries',
            )
        rows, cols = self.size(spec.rows), self.size(spec.cols)
        return LazyMatrix(rows, cols, float(spec.var) / cols, stream(self.seed, spec.name, "lazy", rows, cols))
