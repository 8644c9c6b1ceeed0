"""Data of fixed dimension, and the initial vectors that a random matrix makes of it: U x for every row x of the data.

An input layer U has one row for each coordinate of the width and d columns. For data of shape (*axes, d) it makes a
multi-vector with those axes; the Z of its columns are jointly Gaussian with covariance var x.x'/d, which is all that a
limit needs to know. Two multi-vectors made with the same U from different data are jointly Gaussian too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.language import algebra
from tensorprog.language.attributes import InnerProducts
from tensorprog.language.node import Node
from tensorprog.language.symbols import Number, VectorSpec, Width, encode, number

__all__ = ["VALUES", "ArrayData", "Data", "Embedding", "SlotData", "Values", "merged"]


MANY = 2**15
"""Entries of a Gram matrix that is not made where it may be contracted instead."""
VALUES = "values"
"""Marks a `data` node that stands for the numbers of an input, not for inner products."""


class Data:
    """Rows of features, along some axes.

    Attributes:
        shape: The sizes of its axes, that of the features left out.
    """

    shape: tuple[int, ...]

    def gram(self, other: Data) -> Node:
        """x.x'/d for every row of this and every row of the other data, as a scalar of shape (*shape, *other.shape)."""
        raise NotImplementedError

    def metric(self, other: Data) -> Node:
        """The same as `gram`, where it is one factor of a contraction."""
        return self.gram(other)

    def flattened(self, i: int, j: int) -> Data:
        """The same rows with axes i and j as one, see `flat.py`."""
        raise NotImplementedError

    def encoded(self) -> bytes:
        """What digests know of it."""
        raise NotImplementedError


class ArrayData(Data):
    """Rows of numbers.

    Args:
        array: Shape (*axes, d).
        coordinates: Shape (*axes, r): the rows in coordinates that a finite network may use in place of their d
            features, with the same inner products; the array itself by default.
    """

    def __init__(self, array: np.ndarray, coordinates: np.ndarray | None = None) -> None:
        own = coordinates is None or coordinates is array
        self.array = np.ascontiguousarray(array)  # one layout: products then round the same after tp.save and tp.load
        self.coordinates = self.array if own else np.ascontiguousarray(coordinates)
        self.shape = array.shape[:-1]
        # Coordinates are content: the same rows have others beside a second batch, and a memory must not mix them up.
        self._encoded = encode(("data", array) if own else ("data", array, coordinates))

    @property
    def features(self) -> int:
        """d."""
        return self.array.shape[-1]

    @property
    def rows(self) -> np.ndarray:
        """Shape (product of the axes, d)."""
        return self.array.reshape(-1, self.features)

    def products(self, other: ArrayData) -> np.ndarray:
        """x.x'/d, shape (*shape, *other.shape); symmetric to the last bit where the data is the same."""
        a, b = self.rows, other.rows
        product = a @ b.T
        if self is other or self._encoded == other._encoded:
            product = (product + product.T) / 2
        return np.reshape(product / self.features, (*self.shape, *other.shape))

    def gram(self, other: Data) -> Node:
        """See `Data`."""
        if isinstance(other, SlotData):
            k, j = len(other.shape), len(self.shape)
            return algebra.transpose(other.gram(self), [*range(k, k + j), *range(k)])
        if not isinstance(other, ArrayData):
            raise TensorProgramError("numbers meet data that is not known yet", fix="please report this")
        return algebra.constant(self.products(other), (*self.shape, *other.shape))

    def metric(self, other: Data) -> Node:
        """The gram, as a sum over features where there are many positions: what it is contracted with may make it needless."""
        if not isinstance(other, ArrayData) or prod(self.shape) * prod(other.shape) < MANY:
            return self.gram(other)
        shape = (*self.shape, *other.shape, self.features)
        first = [*range(len(self.shape)), len(shape) - 1]
        second = [*range(len(self.shape), len(shape) - 1), len(shape) - 1]
        factors = [
            algebra.view(algebra.constant(data.array), index, shape) for data, index in ((self, first), (other, second))
        ]
        return algebra.scale(number(Fraction(1, self.features)), algebra.sum_axis(algebra.mul(factors), len(shape) - 1))

    def flattened(self, i: int, j: int) -> ArrayData:
        """See `Data`."""
        own = self.coordinates is self.array
        return ArrayData(merged(self.array, i, j), None if own else merged(self.coordinates, i, j))

    def encoded(self) -> bytes:
        """What digests know of it."""
        return self._encoded


def merged(a: np.ndarray, i: int, j: int) -> np.ndarray:
    """An array with axes i and j as one, which stands where i stood once j is gone; j runs fastest."""
    place = i - (j < i)
    shape = [k for p, k in enumerate(a.shape) if p != j]
    shape[place] = a.shape[i] * a.shape[j]
    return np.moveaxis(a, j, place + 1).reshape(shape)


@dataclass(frozen=True)
class SlotData(Data):
    """One example of a batch that is given when the limit is evaluated: its inner products are data, too.

    Attributes:
        name: Of the Input.
        slot: 0 for an example of the first batch, 1 for one of the second.
        shape: The sizes of the axes of one example.
        features: d.
        transform: What is done to an example before (patches of an image), see `networks/inputs.py`.
    """

    name: str
    slot: int
    shape: tuple[int, ...]
    features: int
    transform: tuple[Any, ...] = ()

    def gram(self, other: Data) -> Node:
        """See `Data`."""
        if isinstance(other, SlotData):
            key = InnerProducts(self.name, self.transform, other.name, other.transform, self.slot, other.slot)
            if self.slot > other.slot:  # x'.x is x.x'
                turned = other.gram(self)
                k, j = len(other.shape), len(self.shape)
                return algebra.transpose(turned, [*range(k, k + j), *range(k)])
            return Node("data", (), key, (*self.shape, *other.shape))
        if not isinstance(other, ArrayData):
            raise TensorProgramError(f"data of kind {type(other).__name__}", fix="please report this")
        key = InnerProducts(self.name, self.transform, "", other, self.slot, self.slot)
        return Node("data", (), key, (*self.shape, *other.shape))

    def flattened(self, i: int, j: int) -> SlotData:
        """See `Data`."""
        shape = merged(np.empty((*self.shape, 0)), i, j).shape[:-1]
        return replace(self, shape=shape, transform=(*self.transform, ("flatten", i, j)))

    def encoded(self) -> bytes:
        """What digests know of it."""
        return encode(("slot", self.name, self.slot, self.shape, self.features, self.transform))


class Values(Data):
    """Coefficients without features: numbers of a batch, or of an example that is not known yet.

    Args:
        array: Shape (*axes,); None for an example of a slot.
        name: Of the Input, for a slot.
        slot: As for `SlotData`.
        shape: The sizes of the axes, for a slot.
    """

    def __init__(
        self, array: np.ndarray | None, name: str = "", slot: int = 0, shape: tuple[int, ...] | None = None
    ) -> None:
        self.array, self.name, self.slot = array, name, slot
        self.shape = tuple(shape or ()) if array is None else array.shape
        self._encoded = encode(("values", array, name, slot, self.shape))

    @property
    def node(self) -> Node:
        """The numbers, as a scalar of the program."""
        if self.array is not None:
            whole = bool((self.array == np.round(self.array)).all() and (np.abs(self.array) < 2.0**31).all())
            return algebra.constant(self.array.astype(np.int64) if whole else self.array, self.shape)
        return Node("data", (), InnerProducts(self.name, (), "", VALUES, self.slot, self.slot), self.shape)

    def encoded(self) -> bytes:
        """What digests know of it."""
        return self._encoded


@dataclass(frozen=True)
class Weights:
    """What the U of an input layer is."""

    name: str
    width: Width
    var: Number
    features: int | None
    trainable: bool
    std: Node | None = None

    def encoded(self) -> bytes:
        """What digests know of it."""
        return encode(("embedding", self.name, self.width, self.var, self.features, self.trainable, *_std(self.std)))

    def __str__(self) -> str:
        return f"{self.width.name} x {self.features} features, var {self.var}"


@dataclass(frozen=True, eq=False)
class Embedding(VectorSpec):
    """The initial vectors U x, x the rows of some data, U with iid N(0, var/d) entries.

    Attributes:
        data: The rows.
    """

    data: Any = None
    trainable: bool = True

    @classmethod
    def of(
        cls, name: str, width: Width, var: Number, data: Data, trainable: bool = True, std: Node | None = None
    ) -> Embedding:
        """The embedding of data by the matrix of that name."""
        return cls(name, width, data.shape, 0, var, None, None, trainable, std=std, data=data)

    @cached_property
    def _encoded_embedding(self) -> bytes:
        return encode(("embedding", self.name, self.width, self.var, self.data, self.trainable, *_std(self.std)))

    def encoded(self) -> bytes:
        """What digests know of it."""
        return self._encoded_embedding

    @property
    def weights(self) -> Weights:
        """What U is, whatever it is applied to: the same name with other weights is an error."""
        return Weights(self.name, self.width, self.var, getattr(self.data, "features", None), self.trainable, self.std)

    def covariance_with(self, other: Embedding) -> Node:
        """Cov of its columns with another's: var x.x'/d, shape (*shape, *other.shape); a scalar."""
        return algebra.scale(self.var, self.data.gram(other.data))


def _std(x: Node | None) -> tuple[bytes, ...]:
    return () if x is None else (x.digest,)
