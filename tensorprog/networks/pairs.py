"""A network's kernels for one pair of examples, compiled; and the inner products of data that they are evaluated on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.language import algebra
from tensorprog.language.data import VALUES, ArrayData, SlotData, Values
from tensorprog.language.node import Node
from tensorprog.language.program import Output, Program
from tensorprog.limits.batched import Batched, Block
from tensorprog.limits.domain import check_domains
from tensorprog.limits.expectation import Expectation
from tensorprog.limits.jumps import check_jumps
from tensorprog.limits.lower import Lowering
from tensorprog.networks.inputs import joined, transformed
from tensorprog.networks.network import Network
from tensorprog.transforms.decouple import program_for
from tensorprog.transforms.tangent import Parametrization

__all__ = ["Compiled", "Products", "compile_pair"]

Shapes = Mapping[str, tuple[int, ...]]
"""Name of an Input to the shape (*axes, features) of one example."""


class Compiled:
    """Kernels of one pair of examples.

    Attributes:
        pair: For examples of two batches.
        same: For an example with itself: the diagonal, exactly.
        declined: Why the exact route has no limit, where it has none; the others are then None.
        digest: What was compiled.
    """

    def __init__(self, pair: Program, same: Program) -> None:
        self.declined = ""
        self.digest = hashlib.blake2b((pair.digest + same.digest).encode(), digest_size=16).digest()
        self.pair, self.same = [self._compiled(p) for p in (pair, same)]

    def _compiled(self, program: Program) -> Batched | None:
        check_domains(program)
        lowering = Lowering(program, program.values({}), Expectation())
        check_jumps(program, lowering)
        roots = [o.node for o in program.outputs.values()]
        reasons = [lowering.declined[x] for x in roots if x in lowering.declined]
        if reasons:
            self.declined = reasons[0]
            return None
        outputs = [algebra.typed(lowering.z[x], x.shape, None, None) for x in roots]
        batched = Batched(outputs)
        if any(not x.attr.by_quadrature for x in batched.integrals):
            self.declined = "an integral in many variables is sampled"
        if batched.others:
            self.declined = f"{batched.others[0]} is computed for the program of all examples"
        return batched


def compile_pair(
    network: Network, first: Shapes, second: Shapes, wanted: Sequence[str], scheme: Parametrization, gia: bool = False
) -> Compiled:
    """Compiles a network's kernels for examples of the given shapes.

    Raises:
        TensorProgramError: The network cannot see one example alone (batch normalisation), or is wrong.
    """
    sides = []
    names = {x.key: x.axis_names for x in network.inputs}
    values = {x.key for x in network.inputs if not x.features}
    from tensorprog.networks.samples import DEFAULT_AXES

    for slot, shapes in enumerate((first, second)):
        data = {
            k: (
                Values(None, k, slot, s) if k in values else SlotData(k, slot, s[:-1], s[-1]),
                names[k] if names[k] is not None else DEFAULT_AXES[len(s) + 1],
            )
            for k, s in shapes.items()
        }
        sides.append(network.body(data))
    programs = []
    for a, b in ((sides[0], sides[1]), (sides[0], sides[0])):
        outputs = {}
        for name in wanted:
            grid = [
                [network.block(name, a, b, i, j, scheme) for j in range(len(b.outputs))] for i in range(len(a.outputs))
            ]
            node = grid[0][0] if not network.several else algebra.stack([algebra.stack(row, 0) for row in grid], 0)
            outputs[name] = Output(node, ("output", "output2") if network.several else ())
        programs.append(program_for(Program(outputs), gia))
    return Compiled(*programs)


class Products:
    """The inner products of two batches of data, block by block.

    Args:
        first: Name of an Input to its array (examples, *axes, features).
        second: The same of the second batch; None for the first one again.
        dtype: float64 or float32.
    """

    def __init__(self, first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray] | None, dtype: Any) -> None:
        self.same = second is None
        self.arrays = first, first if second is None else second
        self.counts = tuple([len(next(iter(a.values()))) for a in self.arrays])
        self.dtype = dtype
        self._views: dict[Any, np.ndarray] = {}
        self._alone: dict[Any, np.ndarray] = {}
        self.duplicates = self._duplicates()

    def _duplicates(self) -> list[tuple[int, int, int]]:
        """Pairs (i, j, sign) with x_i = sign x'_j, for data without axes: their products are the squares, to the last bit."""
        if len(self.arrays[0]) != 1 or next(iter(self.arrays[0].values())).ndim != 2:
            return []
        (a,), (b,) = [list(d.values()) for d in self.arrays]
        return _equal_rows(a, b, self.same)

    def block(self, data: Sequence[Node], rows: slice, columns: slice) -> Block:
        """The arrays of the `data` nodes for some rows and columns."""
        with np.errstate(over="ignore", invalid="ignore"):  # what is infinite is refused at the end
            products = {x.attr: self._array(x, rows, columns) for x in data}
        n, m = len(range(self.counts[0])[rows]), len(range(self.counts[1])[columns])
        return Block(products, n, m, self.same and rows == columns)

    def _array(self, x: Node, rows: slice, columns: slice) -> np.ndarray:
        name, transform, other, change, slot, slot2 = x.attr[:6]
        if change == VALUES:
            return self._values(x, columns if slot else rows)
        if len(x.attr) > 6:
            return self._tied(x, rows, columns)
        a = self._view(name, transform, slot)
        value: Any
        own = columns if slot else rows
        if isinstance(change, ArrayData):  # fixed data: positions
            b = change.rows.astype(self.dtype)
            value = a.reshape(-1, a.shape[-1]) @ b.T / a.shape[-1]
            value = value.reshape(*a.shape[:-1], *change.shape)
            return _moved(value, 0, own, slot)
        if slot == slot2:
            key = (name, transform, other, change, slot)
            if key not in self._alone:
                b = self._view(other, change, slot2)
                rows_a, rows_b = a.reshape(len(a), -1, a.shape[-1]), b.reshape(len(b), -1, b.shape[-1])
                value = np.matmul(rows_a, rows_b.swapaxes(1, 2))
                self._alone[key] = (value / a.shape[-1]).reshape(len(a), *a.shape[1:-1], *b.shape[1:-1])
            return _moved(self._alone[key], 0, own, slot)
        b = self._view(other, change, 1)
        left, right = a[rows], b[columns]
        axes = (*a.shape[1:-1], *b.shape[1:-1])
        flat_a, flat_b = left.reshape(-1, a.shape[-1]), right.reshape(-1, a.shape[-1])
        value = flat_a @ (flat_a.T if self.same and rows == columns and a is b else flat_b.T)
        value /= a.shape[-1]
        if not axes:
            self._mend(value, rows, columns, x)
            return value
        p, q = prod(a.shape[1:-1]), prod(b.shape[1:-1])
        value = value.reshape(len(left), p, len(right), q).transpose(1, 3, 0, 2)
        return np.ascontiguousarray(value).reshape(*axes, len(left), len(right))

    def _values(self, x: Node, own: slice) -> np.ndarray:
        """Coefficients: the input's numbers themselves."""
        name, slot, shown = x.attr[0], x.attr[4], x.attr[6:]
        a = self.arrays[slot][name][own]
        letters = [chr(97 + k) for k in (shown[0] if shown else range(a.ndim - 1))]
        out = "".join(dict.fromkeys(letters))
        return np.ascontiguousarray(np.einsum(f"X{''.join(letters)}->{out}X", a), self.dtype)

    def _tied(self, x: Node, rows: slice, columns: slice) -> np.ndarray:
        """Inner products of some positions with equal ones; the attribute's last entry labels the axes."""
        name, transform, other, change, slot, slot2, labels = x.attr
        a = self._view(name, transform, slot)[columns if slot else rows]
        letters = [chr(97 + k) for k in labels]
        n = a.ndim - 2
        out = "".join(dict.fromkeys(letters))
        if isinstance(change, ArrayData):
            b = change.array.astype(self.dtype)
            subscripts = f"X{''.join(letters[:n])}Z,{''.join(letters[n:])}Z->{out}X"
        else:
            b = self._view(other, change, slot2)[columns if slot2 else rows]
            if slot != slot2 and len(set(letters[:n])) == n and letters[:n] == letters[n:]:  # position by position
                left, right = np.moveaxis(a, 0, -2), np.moveaxis(b, 0, -2).swapaxes(-1, -2)
                return np.matmul(left, right) / a.shape[-1]
            second = "X" if slot == slot2 else "Y"
            last = "X" if slot == slot2 else "XY"
            subscripts = f"X{''.join(letters[:n])}Z,{second}{''.join(letters[n:])}Z->{out}{last}"
        return np.ascontiguousarray(np.einsum(subscripts, a, b, optimize=True) / a.shape[-1])

    def _mend(self, value: np.ndarray, rows: slice, columns: slice, x: Node) -> None:
        if not self.duplicates:
            return
        name, transform, other, change, *_ = x.attr
        if (name, transform) != (other, change) or any(t[0] == "concat" for t in transform):
            return
        a = self._view(name, transform, 0)
        ahead, up = range(self.counts[0])[rows], range(self.counts[1])[columns]
        for i, j, sign in self.duplicates:
            if i in ahead and j in up:
                value[ahead.index(i), up.index(j)] = sign * (np.vecdot(a[i], a[i]) / a.shape[-1])

    def _view(self, name: str, transform: Any, slot: int) -> np.ndarray:
        key = (name, transform, 0 if self.same else slot)
        if key not in self._views:
            array = self.arrays[slot][name]
            for t in transform:
                if t[0] == "concat":
                    others = [x if isinstance(x, ArrayData) else self._view(x[0], x[1], slot) for x in (*t[2], *t[3])]
                    array = joined(array, t, others)
                else:
                    array = transformed(array, 1, t)
            self._views[key] = np.ascontiguousarray(array, self.dtype)
        return self._views[key]


def _moved(value: np.ndarray, lead: int, own: slice, slot: int) -> np.ndarray:
    """(examples, *axes) -> (*axes, rows) or, of the second batch, (*axes, columns)."""
    return np.ascontiguousarray(np.moveaxis(value[own], lead, -1))


_GRAM = "give X @ X.T / d, or (X1 @ X1.T / d, X1 @ X2.T / d, X2 @ X2.T / d)"


class GramProducts:
    """Inner products that are given.

    Args:
        gram: (N, N), or (K11, K12, K22) of two batches; entries x.x'/d.
        name: Of the Input.
        dtype: float64 or float32.

    Raises:
        TensorProgramError: matrices that do not fit together, or are not symmetric with a diagonal of at least 0.
    """

    def __init__(self, gram: Any, name: str, dtype: Any) -> None:
        given = list(gram) if isinstance(gram, (tuple, list)) and all(np.ndim(g) == 2 for g in gram) else [gram]
        self.same = len(given) == 1
        try:
            if len(given) not in (1, 3) or any(np.iscomplexobj(g) for g in given):
                raise TypeError
            k11, k12, k22 = [np.array(g, float) for g in (given * 3 if self.same else given)]
        except (TypeError, ValueError, OverflowError):
            raise TensorProgramError("gram= is no matrix of numbers, nor three of them", fix=_GRAM) from None
        fits = k11.ndim == k22.ndim == k12.ndim == 2 and k12.shape == (len(k11), len(k22)) and k12.size > 0
        for k in (k11, k22):
            if not (fits and k.shape == k.T.shape):
                raise TensorProgramError(
                    f"gram= with the shapes {k11.shape}" + ("" if self.same else f", {k12.shape}, {k22.shape}"),
                    why="it holds x.x'/d for all pairs of examples",
                    fix=_GRAM,
                )
        tolerance = 1e-10 if all(getattr(g, "dtype", float) != np.float32 for g in given) else 1e-5
        with np.errstate(all="ignore"):
            one, two = np.sqrt(np.diag(k11)), np.sqrt(np.diag(k22))  # nan where it is no norm
            wrong = (
                "x.x' <= |x| |x'|: no examples have these inner products"
                for k, a, b in ((k11, one, one), (k12, one, two), (k22, two, two))
                if not (np.abs(k) <= (1 + tolerance) * np.outer(a, b)).all()
            )
            uneven = (
                "it is symmetric"
                for k, a in ((k11, one), (k22, two))
                if not (np.abs(k - k.T) <= tolerance * np.outer(a, a)).all()
            )
            why = next(uneven, None) or next(wrong, None)
        if why:
            raise TensorProgramError("gram= holds no inner products", why=why, fix=_GRAM)
        k11, k12, k22 = [k.astype(dtype) for k in (k11, k12, k22)]
        self.products, self.alone = (k12 + k12.T) / 2 if self.same else k12, (np.diag(k11), np.diag(k22))
        self.counts, self.dtype = (len(k11), len(k22)), dtype
        self.duplicates: list[tuple[int, int, int]] = []  # not known: a product is as good as its rounding

    def block(self, data: Sequence[Node], rows: slice, columns: slice) -> Block:
        """As that of `Products`."""
        products = {}
        for x in data:
            slots = x.attr[4:6]
            own = self.products[rows, columns] if slots == (0, 1) else self.alone[slots[0]][(rows, columns)[slots[0]]]
            products[x.attr] = np.ascontiguousarray(own)
        n, m = len(range(self.counts[0])[rows]), len(range(self.counts[1])[columns])
        return Block(products, n, m, self.same and rows == columns)


def _equal_rows(a: np.ndarray, b: np.ndarray, same: bool) -> list[tuple[int, int, int]]:
    """Pairs (i, j, sign) with a[i] = sign b[j] exactly: candidates by one random projection, sorted."""
    direction = np.random.default_rng(0).standard_normal(a.shape[1])
    # vecdot rather than @: all rows in one way, so that equal rows have equal marks, and no threads for so little
    marks = np.abs(np.concatenate([np.vecdot(x, direction) for x in ([a] if same else [a, b])]))
    order = np.argsort(marks, kind="stable")
    near = np.diff(marks[order]) <= 1e-10 * marks[order][1:]
    found: list[tuple[int, int, int]] = []
    start = 0
    for stop in [*(np.flatnonzero(~near) + 1).tolist(), len(order)] if near.any() else []:
        group = order[start:stop].tolist()
        start = stop
        if len(group) < 2:
            continue
        rows = [i for i in group if i < len(a)]
        columns = rows if same else [i - len(a) for i in group if i >= len(a)]
        for i in rows:
            for j in columns:
                if np.array_equal(a[i], b[j]):
                    found.append((i, j, 1))
                elif np.array_equal(a[i], -b[j]):
                    found.append((i, j, -1))
        if len(found) > 50 * (len(a) + len(b)):
            return []
    return found
