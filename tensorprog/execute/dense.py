"""Finite width with stored matrices: what the papers simulate, and the yardstick for the other two spaces."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tensorprog.errors import TensorProgramError
from tensorprog.execute.random import Array, initial_vector, stream
from tensorprog.language.symbols import MatrixSpec, VectorSpec, Width

__all__ = ["Dense", "DenseMatrix", "FiniteSpace"]


class FiniteSpace:
    """What all spaces of finite width share: sizes, initial vectors, the mean over coordinates.

    Args:
        n: The reference width; a width of ratio r has max(1, round(n r)) coordinates.
        seed: Every stream is keyed by it and by the names in the program.
    """

    name: str

    def __init__(self, n: int, seed: int = 0) -> None:
        if n < 1 or n != int(n):
            raise TensorProgramError(f"the reference width is {n}", fix="give an integer n >= 1")
        self.n, self.seed = int(n), int(seed)

    def size(self, width: Width) -> int:
        """Number of coordinates of the vectors of this width."""
        return max(1, round(self.n * width.ratio))

    def ratio(self, rows: Width, cols: Width) -> float:
        """n_rows / n_cols."""
        return self.size(rows) / self.size(cols)

    def inverse_sqrt(self, width: Width) -> float:
        """The scalar n_w**-1/2."""
        return self.size(width) ** -0.5

    def vector(self, spec: VectorSpec) -> Array:
        """Fresh initial vectors, shape (*spec.shape, size); the same ones whichever way the matrices are kept."""
        size = self.size(spec.width)
        rng = stream(self.seed, spec.name, "vector", size)
        return initial_vector(spec, size, lambda count: rng.standard_normal((count, size)))

    def mean(self, x: Array) -> Array:
        """Moment: the mean over coordinates, shape (*axes,)."""
        return np.asarray(x.mean(axis=-1))


class DenseMatrix:
    """A stored matrix; multi-vectors are rows, so a product is one BLAS call whatever their axes."""

    def __init__(self, weights: Array) -> None:
        self.weights = weights

    def apply(self, x: Array) -> Array:
        """W x: (*axes, cols) -> (*axes, rows)."""
        return _rows_times(x, self.weights.T)

    def apply_transposed(self, y: Array) -> Array:
        """W.T y: (*axes, rows) -> (*axes, cols)."""
        return _rows_times(y, self.weights)


def _rows_times(x: Array, matrix: Array) -> Array:
    # matmul would loop over leading axes; as one tall matrix the product runs at BLAS-3 speed.
    return (x.reshape(-1, x.shape[-1]) @ matrix).reshape(*x.shape[:-1], matrix.shape[1])


class Dense(FiniteSpace):
    """Width n with every matrix stored: 8 rows cols bytes each (0.8 GB at n = 10^4), any iid entries.

    Gaussian entries are drawn in float64, row after row, in place: no second copy exists while they are made.

    Args:
        n: The reference width.
        seed: Key of the random streams.
        weights: Parameters by name, to use in place of random ones (a trained network's, say): matrices (rows, cols), input
            layers (size, features), other initial vectors (*axes, size).
    """

    name = "dense"

    def __init__(self, n: int, seed: int = 0, weights: Mapping[str, npt.ArrayLike] | None = None) -> None:
        super().__init__(n, seed)
        self.weights = dict(weights or {})

    def vector(self, spec: VectorSpec) -> Array:
        """Initial vectors, drawn or given.

        Raises:
            TensorProgramError: The given ones have another shape.
        """
        if spec.name not in self.weights:
            return super().vector(spec)
        size, data = self.size(spec.width), getattr(spec, "data", None)
        if data is None:
            return self._given(spec.name, (*spec.shape, size), "(*axes, size)")
        u = self._given(spec.name, (size, data.features), "(size, features)")
        return np.asarray(data.array @ u.T)

    def _given(self, name: str, shape: tuple[int, ...], what: str) -> Array:
        given = np.asarray(self.weights[name], dtype=np.float64)
        if given.shape != shape:
            raise TensorProgramError(
                f"the parameter given for {name} has shape {given.shape}, not {shape} {what}",
                fix="give an array of that shape, or run at the width it was made for",
            )
        return given

    def matrix(self, spec: MatrixSpec) -> DenseMatrix:
        """The matrix of this name, drawn from the stream of (seed, name) or taken from `weights`.

        Raises:
            TensorProgramError: The given weights have another shape.
        """
        shape = self.size(spec.rows), self.size(spec.cols)
        if spec.name in self.weights:
            return DenseMatrix(self._given(spec.name, shape, "(rows, cols)"))
        rng = stream(self.seed, spec.name, "matrix", *shape)
        weights = _standardised(spec.entries, rng, shape)
        weights *= math.sqrt(float(spec.var) / shape[1])
        return DenseMatrix(weights)


def _standardised(entries: Any, rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Iid entries of mean 0 and variance 1 with the given law, as `tp.Matrix` has checked it."""
    out = np.empty(shape)
    if entries is None:
        rng.standard_normal(out=out)
    elif entries == "rademacher":
        out[:] = 2.0 * rng.integers(0, 2, size=shape, dtype=np.int8) - 1.0
    elif entries == "uniform":
        rng.random(out=out)
        out -= 0.5
        out *= math.sqrt(12.0)
    else:
        out[:] = entries.rvs(size=shape, random_state=rng)
        out -= float(entries.mean())
        out /= float(entries.std())
    return out
