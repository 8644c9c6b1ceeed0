"""What instructions know besides their operands and types, where it is more than one thing (the table is in `node.py`).

Tuples with names: equal to what they hold, hashed and encoded as that.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tensorprog.language.symbols import MatrixSpec, Number

__all__ = ["Call", "Hyperparameter", "InnerProducts", "Pick", "Product", "Take", "Applied"]


class Hyperparameter(NamedTuple):
    """Of `scalar`: a name, and a number or an array, or None."""

    name: str
    default: Any


class Call(NamedTuple):
    """Of `fn` and `difference`: a row of `functions.py`, and its parameters."""

    name: str
    parameters: tuple[Number, ...]


class Take(NamedTuple):
    """Of `take`: one position of an axis."""

    axis: int
    position: int


class Pick(NamedTuple):
    """Of `pick`: positions of an axis."""

    axis: int
    positions: tuple[int, ...]


class Product(NamedTuple):
    """Of `matmul` and `hat`: W, or W.T; of a product that is marked, as what: "forward" or "backward"."""

    matrix: MatrixSpec
    transposed: bool
    mark: str = ""

    def content(self) -> tuple[Any, ...]:
        """What digests know of it."""
        return tuple(self) if self.mark else tuple(self[:2])


class Applied(NamedTuple):
    """Of `apply`: M, or M.T; the mark as that of a `Product`."""

    transposed: bool
    mark: str = ""

    def content(self) -> tuple[Any, ...]:
        """What digests know of it."""
        return tuple(self) if self.mark else tuple(self[:1])


class InnerProducts(NamedTuple):
    """Of `data`: inner products of inputs that are not known yet, or coefficients.

    Attributes:
        name: Of an input.
        transform: What is done with its array first.
        other: The other input's name; "" where its data are known.
        change: What is done with that; its data, or `language/data.py:VALUES`, where they are known.
        slot: Which of two examples the first is of.
        slot2: Which the other is of.
        labels: For the axes of the full array, those that are equal alike; None: all are different.
    """

    name: str
    transform: tuple[Any, ...]
    other: str
    change: Any
    slot: int
    slot2: int
    labels: tuple[int, ...] | None = None

    def content(self) -> tuple[Any, ...]:
        """What digests know of it."""
        return tuple(self[:6]) if self.labels is None else tuple(self)
