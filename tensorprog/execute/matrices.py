"""Matrices of a program as values: initial matrices as the space has them, pairs of vectors, and arrays.

A matrix M is E / cols, with E_ab = sum_i c_i (cols W_i)_ab + sum_r left_ra right_rb + entries_ab. A product costs what its parts
cost. Operands are never written to: the matrices of earlier steps of training stay what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any, NamedTuple, Protocol

import numpy as np

from tensorprog.execute.dense import DenseMatrix
from tensorprog.execute.random import Array
from tensorprog.language.algebra import view_array
from tensorprog.language.node import Node
from tensorprog.language.symbols import Width

__all__ = ["MatrixValue", "matrix_rule"]

DROPPED = 1e-15
"""Directions of an update that are smaller than this, relative to its largest, are rounding."""
FEW = 16
"""Up to this many pairs of vectors are not looked at for dependence."""
GROWTH = 3
"""They are looked at when their number has grown by this: with momentum the weights share the momentum's own pairs."""


class _Sizes(Protocol):
    def size(self, width: Width) -> int: ...
    def ratio(self, rows: Width, cols: Width) -> float: ...


class _Pairs:
    """Pairs of vectors, arrays (*axes, r, rows) and (*axes, r, cols), which several matrices may share.

    Where two matrices have the same pairs with coefficients of their own, as weights and their momentum, so has their sum.
    """

    __slots__ = ("_joined", "left", "right", "within")

    def __init__(self, left: Array, right: Array) -> None:
        self.left, self.right = left, right
        self._joined: tuple[_Pairs, _Pairs] | None = None
        self.within: tuple[_Pairs, int] | None = None  # what it has become a part of, and from where on

    def joined(self, other: _Pairs) -> _Pairs:
        """Both; the same object if asked again."""
        if self._joined is None or self._joined[0] is not other:
            sides = []
            for a, b in ((self.left, other.left), (self.right, other.right)):
                shape = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
                sides.append(np.concatenate([np.broadcast_to(x, (*shape, *x.shape[-2:])) for x in (a, b)], axis=-2))
            self._joined = other, _Pairs(*sides)
        self.within, other.within = (self._joined[1], 0), (self._joined[1], int(self.left.shape[-2]))
        return self._joined[1]


class _Chunk(NamedTuple):
    """sum_r c_r left_ra right_rb: the coefficients are an array (*axes, r)."""

    coefficients: Array
    pairs: _Pairs

    @property
    def rank(self) -> int:
        return int(self.pairs.left.shape[-2])


@dataclass(frozen=True)
class MatrixValue:
    """A matrix in a space.

    Attributes:
        rows: Number of rows.
        cols: Number of columns.
        axes: Number of axes; arrays have size 1 along those on which they do not depend.
        forward: What sum_b E_ab x_b is multiplied by.
        backward: What sum_a E_ab y_a is multiplied by.
        initial: Coefficients and initial matrices.
        chunks: Pairs of vectors, the larger chunks first.
        entries: An array (*axes, rows, cols), or None.
        seen: The number of pairs when they were last looked at for dependence.
    """

    rows: int
    cols: int
    axes: int
    forward: float
    backward: float
    initial: tuple[tuple[Array, Any], ...] = ()
    chunks: tuple[_Chunk, ...] = ()
    entries: Array | None = None
    seen: int = FEW // 2

    @property
    def rank(self) -> int:
        """The number of pairs of vectors."""
        return sum([c.rank for c in self.chunks])

    def is_finite(self) -> bool:
        """Are all numbers in it finite, those of initial matrices apart?"""
        arrays = [a for c in self.chunks for a in (c.coefficients, c.pairs.left, c.pairs.right)]
        arrays += [c for c, _ in self.initial]
        arrays += [] if self.entries is None else [self.entries]
        return all(bool(np.isfinite(a).all()) for a in arrays)

    # ---- products ----
    def apply(self, x: Array) -> Array:
        """M x: (*axes, cols) -> (*axes, rows)."""
        return self._product(x, False)

    def apply_transposed(self, y: Array) -> Array:
        """M.T y: (*axes, rows) -> (*axes, cols)."""
        return self._product(y, True)

    def _product(self, x: Array, transposed: bool) -> Array:
        if x.ndim - 1 < self.axes:
            x = x.reshape((1,) * (self.axes - x.ndim + 1) + x.shape)
        total: Any = 0.0
        for c, pairs in self.chunks:
            here, there = (pairs.left, pairs.right) if transposed else (pairs.right, pairs.left)
            total = total + _times(_times(x, np.swapaxes(here, -1, -2)) * c, there)
        if self.entries is not None:
            total = total + _times(x, self.entries if transposed else np.swapaxes(self.entries, -1, -2))
        total = total * (self.backward if transposed else self.forward)
        for c, matrix in self.initial:
            total = total + c[..., None] * (matrix.apply_transposed(x) if transposed else matrix.apply(x))
        size = self.cols if transposed else self.rows
        return np.asarray(total) if np.ndim(total) else np.zeros((*x.shape[:-1], size))

    # ---- what is computed with them ----
    def widened(self, axes: int) -> MatrixValue:
        """With more axes, on which it does not depend."""
        if axes == self.axes:
            return self
        new = (None,) * (axes - self.axes)
        return replace(
            self,
            axes=axes,
            initial=tuple([(c[new], m) for c, m in self.initial]),
            chunks=tuple([_Chunk(c[new], _Pairs(p.left[new], p.right[new])) for c, p in self.chunks]),
            entries=None if self.entries is None else self.entries[new],
        )

    def scaled(self, left: Array | None, right: Array | None, coefficient: Array) -> MatrixValue:
        """left_a M_ab right_b times a coefficient; arrays (*axes, rows), (*axes, cols), (*axes,)."""
        entries = self.entries
        if entries is not None:
            entries = entries * coefficient[..., None, None]
            entries = entries if left is None else entries * left[..., :, None]
            entries = entries if right is None else entries * right[..., None, :]
        chunks = []
        for c, pairs in self.chunks:
            if left is not None or right is not None:
                pairs = _Pairs(
                    pairs.left if left is None else pairs.left * left[..., None, :],
                    pairs.right if right is None else pairs.right * right[..., None, :],
                )
            chunks.append(_Chunk(c * coefficient[..., None], pairs))
        initial = tuple([(c * coefficient, m) for c, m in self.initial])
        return replace(self, initial=initial, chunks=tuple(chunks), entries=entries)

    def settled(self) -> MatrixValue:
        """The same matrix with fewer numbers: dependent pairs left out, a stored matrix and its update in one."""
        value = replace(self, chunks=_merged(self.chunks))
        if value.rank >= max(FEW, GROWTH * value.seen):
            value = value._compressed()
        dense = all(isinstance(m, DenseMatrix) and c.size == 1 for c, m in value.initial)
        costly = value.rank * (value.rows + value.cols) > value.rows * value.cols
        stored = value.entries is not None
        if dense and ((costly and (stored or value.initial)) or (stored and value.initial)):
            return value._stored(costly)
        return value

    def _compressed(self) -> MatrixValue:
        """The pairs of vectors as few orthogonal ones: QR of both sides, the SVD of what is between them."""
        left, right = _whole(self.chunks)
        if not (np.isfinite(left).all() and np.isfinite(right).all()):
            return self
        q, r = np.linalg.qr(np.swapaxes(left, -1, -2))
        p, s = np.linalg.qr(np.swapaxes(right, -1, -2))
        u, sizes, v = np.linalg.svd(r @ np.swapaxes(s, -1, -2), full_matrices=False)
        largest = sizes[..., :1]
        kept = max(1, int((sizes > DROPPED * largest).sum(-1).max(initial=0)))
        left = np.swapaxes(q @ (u[..., :kept] * sizes[..., None, :kept]), -1, -2)
        right = np.swapaxes(p @ np.swapaxes(v[..., :kept, :], -1, -2), -1, -2)
        pairs = _Pairs(np.ascontiguousarray(left), np.ascontiguousarray(right))
        one = _Chunk(np.ones((*(1,) * self.axes, kept)), pairs)
        return replace(self, chunks=(one,), seen=max(kept, FEW // 2))

    def _stored(self, with_chunks: bool) -> MatrixValue:
        """Initial matrices that are arrays in one array with the entries, and the pairs of vectors, too, where they are many."""
        total: Any = 0.0 if self.entries is None else self.entries
        for c, m in self.initial:
            total = total + (c[..., None, None] / self.forward) * m.weights
        if with_chunks:
            for c, pairs in self.chunks:
                total = total + np.swapaxes(c[..., None] * pairs.left, -1, -2) @ pairs.right
        chunks, seen = ((), FEW // 2) if with_chunks else (self.chunks, self.seen)
        return replace(self, initial=(), entries=total, chunks=chunks, seen=seen)


def _times(x: Array, matrix: Array) -> Array:
    """The rows of x (*axes, k) times a matrix (*axes, k, l): one BLAS call where the matrix does not depend on the axes."""
    if prod(matrix.shape[:-2]) == 1:
        k, size = matrix.shape[-2:]
        return (x.reshape(-1, k) @ matrix.reshape(k, size)).reshape(*x.shape[:-1], size)
    return np.asarray(np.matmul(x[..., None, :], matrix)[..., 0, :])


def _whole(chunks: Sequence[_Chunk]) -> tuple[Array, Array]:
    """All pairs as two arrays (*axes, r, size), coefficients multiplied."""
    both = [(c[..., None] * p.left, p.right) for c, p in chunks]
    shape = np.broadcast_shapes(*[a.shape[:-2] for sides in both for a in sides])
    full = [[np.broadcast_to(a, (*shape, *a.shape[-2:])) for a in side] for side in zip(*both, strict=True)]
    return np.concatenate(full[0], axis=-2), np.concatenate(full[1], axis=-2)


def _merged(chunks: Sequence[_Chunk]) -> tuple[_Chunk, ...]:
    """The same pairs in few chunks, each longer than the next: adding one by one copies each only a few times."""
    out: list[_Chunk] = []
    for c in sorted(chunks, key=lambda c: -c.rank):
        out.append(c)
        while len(out) > 1 and out[-2].rank <= out[-1].rank:
            second, first = out.pop(), out.pop()
            both = (first.coefficients, second.coefficients)
            shape = np.broadcast_shapes(*[a.shape[:-1] for a in both])
            joined = np.concatenate([np.broadcast_to(a, (*shape, a.shape[-1])) for a in both], axis=-1)
            out.append(_Chunk(joined, first.pairs.joined(second.pairs)))
    return tuple(out)


def _absorbed(chunks: dict[int, _Chunk]) -> tuple[_Chunk, ...]:
    """The chunks by their pairs' identity; pairs that are a part of others that are there, too, become coefficients of these."""
    for key in sorted(chunks, key=lambda key: chunks[key].rank):
        c, whole = chunks[key]
        start = 0
        while whole.within is not None:
            whole, offset = whole.within
            start += offset
            if id(whole) in chunks:
                big = chunks[id(whole)].coefficients
                shape = np.broadcast_shapes(big.shape[:-1], c.shape[:-1])
                total = np.array(np.broadcast_to(big, (*shape, big.shape[-1])))
                total[..., start : start + c.shape[-1]] += c
                chunks[id(whole)] = _Chunk(total, whole)
                del chunks[key]
                break
    return tuple(chunks.values())


# ---- instructions ----


def matrix_rule(x: Node, space: _Sizes) -> Callable[..., MatrixValue]:
    """What an instruction of `execute/factors.py` does in a space: the values of its operands to a `MatrixValue`."""
    assert x.width is not None and x.inner is not None
    rows, cols = space.size(x.width), space.size(x.inner)
    # the transpose averages over the rows, times rho: at finite width both are sums divided by the number of columns
    backward = space.ratio(x.width, x.inner) / rows
    empty = MatrixValue(rows, cols, len(x.shape), 1.0 / cols, backward)
    return partial(_RULES[x.op], x, empty)


def _axes_of(a: Any, x: Node, axes: int) -> Array:
    """The array of an operand that is no matrix, with all axes of the result and its coordinates, if it has any."""
    array = np.asarray(a, dtype=np.float64)
    return array.reshape((1,) * (axes - len(x.shape)) + array.shape)


def _side(a: Any, x: Node, axes: int, size: int) -> tuple[Array | None, Array]:
    """A factor of the rows, or of the columns: its vector, and its coefficient."""
    array = _axes_of(a, x, axes)
    if x.width is None:
        return None, array
    return np.broadcast_to(array, (*array.shape[:-1], size)), np.ones((1,) * axes)


def _factors(x: Node, empty: MatrixValue, left: Any, right: Any) -> MatrixValue:
    first, c = _side(left, x.args[0], empty.axes, empty.rows)
    second, d = _side(right, x.args[1], empty.axes, empty.cols)
    one = (1,) * empty.axes
    first = np.ones((*one, empty.rows)) if first is None else first
    second = np.ones((*one, empty.cols)) if second is None else second
    return replace(empty, chunks=(_Chunk((c * d)[..., None], _Pairs(first[..., None, :], second[..., None, :])),))


def _entries(x: Node, empty: MatrixValue, array: Array) -> MatrixValue:
    shape = (*array.shape[:-2], empty.rows, empty.cols)
    return replace(empty, entries=array if array.shape == shape else np.broadcast_to(array, shape))


def _valued(value: Any, empty: MatrixValue, axes: int) -> MatrixValue:
    """An operand; an initial matrix is one of the space's own."""
    if isinstance(value, MatrixValue):
        return value.widened(axes)
    return replace(empty, axes=axes, initial=((np.ones((1,) * axes), value),))


def _combined(x: Node, empty: MatrixValue, *values: Any) -> MatrixValue:
    initial: dict[int, tuple[Array, Any]] = {}
    chunks: dict[int, _Chunk] = {}
    entries: Array | None = None
    seen = FEW // 2
    for c, given in zip(x.attr, values, strict=True):
        value = _valued(given, empty, empty.axes)
        number = float(c)
        for k, m in value.initial:
            known = initial.get(id(m))
            initial[id(m)] = (number * k if known is None else known[0] + number * k, m)
        for k, pairs in value.chunks:
            own = chunks.get(id(pairs))
            chunks[id(pairs)] = _Chunk(number * k if own is None else own.coefficients + number * k, pairs)
        seen = max(seen, value.seen)
        if value.entries is not None:
            term = value.entries if number == 1 else number * value.entries
            entries = term if entries is None else entries + term
    out = replace(empty, initial=tuple(initial.values()), chunks=_absorbed(chunks), entries=entries, seen=seen)
    return out.settled()


def _scaled(x: Node, empty: MatrixValue, matrix: Any, left: Any, right: Any) -> MatrixValue:
    first, c = _side(left, x.args[1], empty.axes, empty.rows)
    second, d = _side(right, x.args[2], empty.axes, empty.cols)
    return _valued(matrix, empty, empty.axes).scaled(first, second, c * d)


# ---- axes ----


def _moved(x: Node, empty: MatrixValue, *values: Any) -> MatrixValue:
    op, attr = x.attr
    if op == "stack":
        return _stacked(attr, empty, [_valued(v, empty, empty.axes - 1) for v in values])
    operand = x.args[0]
    value = _valued(values[0], empty, len(operand.shape))
    if op == "sum":
        return _summed(value, attr, operand.shape[attr]).settled()

    def moved(a: Array, trailing: int) -> Array:
        if op == "view":
            return view_array(a, attr, empty.axes, trailing)
        axis, index = attr
        if op == "take":
            return np.asarray(a[_at(axis, index if a.shape[axis] > 1 else 0)])
        return np.take(a, index, axis) if a.shape[axis] > 1 else a

    return replace(
        value,
        axes=empty.axes,
        initial=tuple([(moved(c, 0), m) for c, m in value.initial]),
        chunks=tuple([_Chunk(moved(c, 1), _Pairs(moved(p.left, 2), moved(p.right, 2))) for c, p in value.chunks]),
        entries=None if value.entries is None else moved(value.entries, 2),
    )


def _summed(value: MatrixValue, axis: int, size: int) -> MatrixValue:
    """The sum over an axis: along it, one pair of vectors becomes as many."""

    def total(a: Array) -> Array:
        return np.asarray(a.sum(axis) if a.shape[axis] == size else a[_at(axis, 0)] * size)

    chunks = []
    drop = _at(axis, 0)
    for c, pairs in value.chunks:
        left, right = pairs.left, pairs.right
        if c.shape[axis] > 1:
            c, left = np.ones((*(1,) * value.axes, c.shape[-1])), left * c[..., None]
        if left.shape[axis] == 1 or right.shape[axis] == 1:
            over = left.shape[axis] > 1 or right.shape[axis] == 1
            chunks.append(
                _Chunk(c[drop], _Pairs(total(left), right[drop]) if over else _Pairs(left[drop], total(right)))
            )
            continue
        sides = []
        for a in (left, right):
            a = np.moveaxis(a, axis, -3)
            sides.append(a.reshape(*a.shape[:-3], a.shape[-3] * a.shape[-2], a.shape[-1]))
        chunks.append(_Chunk(np.tile(c[drop], size), _Pairs(*sides)))
    return replace(
        value,
        axes=value.axes - 1,
        initial=tuple([(total(c), m) for c, m in value.initial]),
        chunks=tuple(chunks),
        entries=None if value.entries is None else total(value.entries),
    )


def _at(axis: int, index: int) -> tuple[Any, ...]:
    return (*[slice(None)] * axis, index)


def _stacked(axis: int, empty: MatrixValue, values: Sequence[MatrixValue]) -> MatrixValue:
    """Along a new axis, each under a mask of where it stands."""
    shape = [1] * empty.axes
    shape[axis] = len(values)
    initial: list[tuple[Array, Any]] = []
    chunks: list[_Chunk] = []
    entries: Array | None = None
    for i, value in enumerate(values):
        mask = np.zeros(len(values))
        mask[i] = 1.0
        mask = mask.reshape(shape)
        initial += [(np.expand_dims(c, axis) * mask, m) for c, m in value.initial]
        for c, p in value.chunks:
            pairs = _Pairs(np.expand_dims(p.left, axis), np.expand_dims(p.right, axis))
            chunks.append(_Chunk(np.expand_dims(c, axis) * mask[..., None], pairs))
        if value.entries is not None:
            term = np.expand_dims(value.entries, axis) * mask[..., None, None]
            entries = term if entries is None else entries + term
    return replace(empty, initial=tuple(initial), chunks=tuple(chunks), entries=entries).settled()


_RULES: dict[str, Callable[..., MatrixValue]] = {
    "factors": _factors, "entries": _entries, "combine": _combined, "scaled": _scaled, "moved": _moved,
}  # fmt: skip
