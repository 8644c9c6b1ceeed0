"""Orthonormal bases that grow in program order, and matrices known only on such bases.

A matrix that is never stored is known through the vectors it has been applied to. `ImplicitMatrix` keeps, for W and for
W.T, an orthonormal basis of those vectors and the images of the basis. For a new direction q, orthogonal to W's basis,
what W.T has done fixes the component of W q in the span of W.T's basis P, and the rest is fresh:

    W q = fresh + adjoint * P (W.T P).T q,

with `fresh = (I - P P.T) xi` at finite width, and with samples in place of coordinates at infinite width
(docs/architecture.md, 'Executor and spaces'). The two spaces differ in `fresh` and in the constant alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from scipy.linalg.blas import dgemm, dgemv

from tensorprog.execute.random import Array

__all__ = ["TOLERANCE", "Basis", "ImplicitMatrix", "Rows"]

PANEL = 16  # rows made orthogonal at a time: old rows are read once a panel, and a panel's scratch space stays small
MAX_CHUNK_BYTES = 1 << 28
TOLERANCE = 1e-11
"""Vectors closer than this to the span of earlier ones, relative to their length, count as lying in it: an error of theirs that
no spread over runs shows. (At 1e-8 linear training is wrong by 1e-11 after eight steps, at this by rounding.)"""
ENOUGH = 0.5**0.5
"""Where a projection leaves this share of a vector, its rounding error is that of the vector."""


class Rows:
    """A growing (count, size) array in chunks: growing copies nothing, and memory that is not used is not touched."""

    def __init__(self, size: int) -> None:
        self.size, self.count = size, 0
        self._chunks: list[Array] = []
        self._used: list[int] = []

    def reserve(self, count: int) -> Array:
        """Scratch memory of `count` contiguous rows at the end; `commit` keeps the first few."""
        if not self._chunks or self._used[-1] + count > len(self._chunks[-1]):
            # Doubling keeps the number of chunks, hence of BLAS calls, logarithmic. Pages never written cost no memory.
            capacity = max(count, min(max(self.count, 8), MAX_CHUNK_BYTES // (8 * self.size)))
            self._chunks.append(np.empty((capacity, self.size)))
            self._used.append(0)
        start = self._used[-1]
        return self._chunks[-1][start : start + count]

    def commit(self, count: int) -> None:
        """Keep the first `count` rows of the last reservation."""
        self._used[-1] += count
        self.count += count

    def parts(self) -> list[Array]:
        """The rows, chunk by chunk."""
        return [chunk[:used] for chunk, used in zip(self._chunks, self._used, strict=True) if used]

    def dot(self, x: Array) -> Array:
        """Inner products of the rows of x (p, size) with all rows: (p, count)."""
        parts = self.parts()
        if not parts:
            return np.zeros((len(x), 0))
        return np.concatenate([_inner(x, part) for part in parts], axis=1)

    def accumulate(self, coefficients: Array, out: Array) -> None:
        """Add coefficients @ rows to out, in place; coefficients (p, count), out (p, size) C-contiguous."""
        start = 0
        for part in self.parts():
            _accumulate(coefficients[:, start : start + len(part)], part, out)
            start += len(part)


# All BLAS calls go through SciPy's library. NumPy brings a second one with threads of its own; where calls alternate
# the idle threads of one spin on the cores that the other needs (a dot product of 10^6 numbers: 11 ms in place of 1).


def _inner(x: Array, rows: Array) -> Array:
    """Inner products of the rows of x (p, size) and of rows (k, size), both C-contiguous: (p, k)."""
    if len(x) == 1:
        return dgemv(1.0, rows.T, x[0], trans=1)[None]
    return np.asarray(dgemm(1.0, rows.T, x.T, trans_a=1).T)


def _accumulate(coefficients: Array, rows: Array, out: Array) -> None:
    """Add coefficients @ rows to out, all C-contiguous, in place: no temporary of the size of out."""
    if not (len(out) and len(rows)):
        return
    if len(out) == 1:
        dgemv(1.0, rows.T, coefficients[0], 1.0, out[0], overwrite_y=1)
    else:
        dgemm(1.0, rows.T, np.ascontiguousarray(coefficients).T, 1.0, out.T, overwrite_c=1)


class Basis:
    """An orthonormal basis, in the Euclidean inner product, of the vectors it was shown, in that order.

    Gram-Schmidt in blocks, rank revealing, each direction made orthogonal twice (Giraud et al. 2005: twice is enough), but
    where the first time has left most of it (Daniel, Gragg, Kaufman and Stewart 1976), as of fresh noise it does:
    a vector whose residual is at most `tolerance` times the vector adds no direction. No pivoting and no
    eigendecomposition, so that the basis is a smooth function of the vectors.

    Args:
        size: Dimension of the space; there are never more directions than that.
        tolerance: What counts as linearly dependent, relative to each vector's own length.
    """

    def __init__(self, size: int, tolerance: float) -> None:
        self.rows, self.tolerance = Rows(size), tolerance

    @property
    def rank(self) -> int:
        """Number of directions so far."""
        return self.rows.count

    def extend(self, x: Array) -> tuple[Array, Array]:
        """Take the rows of x into the span, at most `PANEL` of them.

        Args:
            x: (p, size); zero rows and rows that are not finite add nothing.

        Returns:
            Coefficients (p, rank) of x in the grown basis, and the new directions (m, size), a view of the last rows.
        """
        space, old = self.rows, self.rank
        room = min(len(x), space.size - old)
        q = space.reserve(len(x))
        peak = np.maximum(x.max(axis=1), -x.min(axis=1))
        alive = np.isfinite(peak) & (peak > 0.0)
        # Lengths are taken after division by the largest coordinate: squares of 1e-170 or 1e170 are not lost.
        np.divide(x, peak[:, None], out=q, where=alive[:, None])
        q[~alive] = 0.0
        length = np.sqrt(np.einsum("ij,ij->i", q, q))

        onto_old = space.dot(q)
        space.accumulate(-onto_old, q)
        size = np.sqrt(np.einsum("ij,ij->i", q, q))
        if ((self.tolerance * length < size) & (size < ENOUGH * length)).any():
            again = space.dot(q)
            space.accumulate(-again, q)
            onto_old += again
            size = np.sqrt(np.einsum("ij,ij->i", q, q))
        onto_new = np.zeros((len(x), len(x)))
        kept, spoilt = 0, False
        for j in range(len(x)):
            row = q[j : j + 1]
            onto_new[j, :kept] = _remove(row, q[:kept])[0]
            rest = _norm(row)
            if self.tolerance * length[j] < rest < 1e-2 * size[j]:
                # Cancellation has spoilt the direction; repair it before later rows are compared with it.
                again = space.dot(row)
                space.accumulate(-again, row)
                onto_old[j] += again[0]
                onto_new[j, :kept] += _remove(row, q[:kept])[0]
                rest = _norm(row)
            if rest <= self.tolerance * length[j] or kept == room:
                continue
            spoilt = spoilt or rest < ENOUGH * size[j]
            np.divide(row, rest, out=q[kept : kept + 1])
            onto_new[j, kept] = rest
            kept += 1

        new = q[:kept]
        again, change = np.zeros((kept, old)), np.eye(kept)
        if spoilt:
            again = space.dot(new)
            space.accumulate(-again, new)
            for j in range(kept):
                row = new[j : j + 1]
                change[j, :j] = _remove(row, new[:j])[0]
                change[j, j] = _norm(row)
                row /= change[j, j]
        onto_new = onto_new[:, :kept]
        scale = np.where(alive, peak, 0.0)[:, None]
        coefficients = np.concatenate([onto_old + onto_new @ again, onto_new @ change], axis=1) * scale
        space.commit(kept)
        return coefficients, new


def _remove(row: Array, directions: Array) -> Array:
    """Take the components along orthonormal directions off a (1, size) row, in place, and return them."""
    if not len(directions):
        return np.zeros((1, 0))
    onto = _inner(row, directions)
    _accumulate(-onto, directions, row)
    return onto


def _norm(row: Array) -> float:
    return float(np.sqrt(np.einsum("ij,ij->", row, row)))


class Side:
    """The vectors one of W, W.T has been applied to (an orthonormal basis) and what came of them."""

    def __init__(self, inputs: int, outputs: int, tolerance: float) -> None:
        self.basis, self.image = Basis(inputs, tolerance), Rows(outputs)


class ImplicitMatrix(ABC):
    """A (rows x cols) matrix known only on the vectors it was applied to.

    Args:
        rows: Size of the outputs of W.
        cols: Size of the inputs of W.
        adjoint: The constant with <y, W x> = adjoint <W.T y, x> in the Euclidean inner products.
        tolerance: See `Basis`.
    """

    def __init__(self, rows: int, cols: int, *, adjoint: float, tolerance: float) -> None:
        self.forward, self.backward = Side(cols, rows, tolerance), Side(rows, cols, tolerance)
        self.adjoint = adjoint

    @abstractmethod
    def fresh(self, directions: Array, out: Array, *, transposed: bool) -> None:
        """Fill out with the part of the images of new directions that is orthogonal to the other side's basis.

        Args:
            directions: (m, size) orthonormal, orthogonal to all that W (W.T if transposed) has seen.
            out: (m, size of an image), to be overwritten.
            transposed: Whether the images are those of W.T.
        """

    def apply(self, x: Array) -> Array:
        """W x: (*axes, cols) -> (*axes, rows)."""
        return self._product(x, self.forward, self.backward, self.adjoint, transposed=False)

    def apply_transposed(self, y: Array) -> Array:
        """W.T y: (*axes, rows) -> (*axes, cols)."""
        return self._product(y, self.backward, self.forward, 1.0 / self.adjoint, transposed=True)

    def _product(self, x: Array, here: Side, there: Side, adjoint: float, *, transposed: bool) -> Array:
        flat = np.asarray(x, dtype=np.float64).reshape(-1, x.shape[-1])
        out = np.zeros((len(flat), here.image.size))
        for start in range(0, len(flat), PANEL):
            panel = flat[start : start + PANEL]
            coefficients, new = here.basis.extend(panel)
            if len(new):
                image = here.image.reserve(len(new))
                self.fresh(new, image, transposed=transposed)
                there.basis.rows.accumulate(adjoint * there.image.dot(new), image)
                here.image.commit(len(new))
            here.image.accumulate(coefficients, out[start : start + PANEL])
        # What is not finite stays visible, as it would with a stored matrix, and never enters a basis.
        out[~np.isfinite(flat).all(axis=1)] = np.nan
        return out.reshape(*x.shape[:-1], here.image.size)
