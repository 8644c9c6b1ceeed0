"""Rounding errors by experiment: every instruction's result is moved by what rounding may have moved it (Vignes 1978)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from math import prod
from typing import Any

import numpy as np

from tensorprog.language.data import VALUES
from tensorprog.language.node import MOVES, Node
from tensorprog.limits.gauss.rounding import EPS, NOISE

__all__ = ["Perturbation", "is_given", "size_of"]

INSIDE = 4 * NOISE
"""Of integrals: the arguments of an integrand are rounded, too, and Phi turns that in its tail into more."""
DRAWN, POOL = 2**11, 2**18
"""Signs drawn together; signs of which large arrays get a stretch each, far from the one before."""
SMALL, STRIDE = 2**7, 104729
"""Where there are many arrays, those of more entries are large; how far the stretches are apart."""
_ARITHMETIC = ("add", "mul", "sum", "constant")
_MOVING = (*MOVES, "stack")


def is_values(x: Node) -> bool:
    """Is it given as it is: a mask, an adjacency, rather than an inner product?"""
    return x.op == "data" and VALUES in x.attr[3:4]


def size_of(x: Node) -> float | None:
    """How far the result of an instruction is moved, relatively; None: not at all."""
    if x.op in _MOVING or (x.op == "laplace" and not x.attr.moves):
        return None
    return EPS if x.op in _ARITHMETIC else INSIDE if x.op in ("gauss", "guard") else NOISE


def is_given(x: Node) -> bool:
    """Is it given, rather than computed?"""
    return x.op == "constant" or is_values(x)


class Perturbation:
    """Moves numbers at random by one or a few units in the last place.

    Args:
        seed: Where the signs come from.
        lanes: The entries of the last axis that are moved, of arrays that have it in common; others are what they are.
    """

    def __init__(self, seed: Sequence[int], lanes: range | None = None) -> None:
        self._seed, self._lanes = tuple(seed), lanes
        self._signs, self._used = _first_signs(self._seed), 0
        self._place = hash(self._seed) % POOL  # of the next stretch
        if lanes is not None:  # the first signs are in the tables
            self._rows, self._used = 0, len(self._signs)

    @cached_property
    def _stream(self) -> np.random.Generator:
        """Where more signs come from."""
        stream = np.random.default_rng(self._seed)
        stream.integers(0, 2, DRAWN)  # these are known
        return stream

    def operands(self, x: Node, arrays: Sequence[Any]) -> Sequence[Any]:
        """The operands of a closed form, moved: what it cancels inside shows, even where they are whole numbers."""
        return [self._moved(a, EPS) for a in arrays] if x.op == "dual" else arrays

    def result(self, x: Node, value: Any) -> Any:
        """The result of an instruction, moved; whole constants are what they are."""
        size = size_of(x)
        return value if size is None else self.moved(value, size, is_given(x))

    def moved(self, value: Any, size: float, given: bool, operands: Sequence[Any] = ()) -> Any:
        """A result, moved; of lanes, in place if it is not one of the operands.

        Args:
            value: The array.
            size: How far, relatively.
            given: Is it known as it is, if it is whole?
            operands: What it is made of.
        """
        if (given or (self._lanes is not None and value.shape[-1] == 1)) and np.all(value == np.round(value)):
            return value
        own = self._lanes is not None and value.base is None and not any([value is a for a in operands])
        return self._moved(value, size, own)

    def _moved(self, value: Any, size: float, own: bool = False) -> Any:
        lanes = self._lanes
        if lanes is None:
            return value * self._factors(np.shape(value), size)
        shape = value.shape
        if len(shape) == 1:  # the most frequent ones: rows of a table that is made once
            table = _first_factors(self._seed, lanes, size)
            if self._rows < len(table):
                self._rows += 1
                return value * table[self._rows - 1]
        if not own or shape[-1] == 1:
            value = np.array(np.broadcast_to(value, (*shape[:-1], lanes.stop)))
        tail = value[..., lanes.start :]
        tail *= self._factors(tail.shape, size)
        return value

    def _factors(self, shape: tuple[int, ...], size: float) -> Any:
        """1 + size or 1 - size; few signs are taken from many that are drawn together."""
        count = prod(shape)
        if count >= POOL:
            return 1 + size * _signs(self._stream, count).reshape(shape)
        if count > (DRAWN if self._lanes is None else SMALL):
            self._place = (self._place + STRIDE) % (POOL - count)
            return _pool(size)[self._place : self._place + count].reshape(shape)
        if self._used + count > len(self._signs):
            self._signs, self._used = _drawn(self._stream), 0
        found = self._signs[self._used : self._used + count].reshape(shape)
        self._used += count
        return 1 + size * found


def _drawn(stream: np.random.Generator) -> np.ndarray:
    return 2.0 * stream.integers(0, 2, DRAWN) - 1


def _signs(stream: np.random.Generator, count: int) -> np.ndarray:
    bits = np.frombuffer(stream.bytes(-(-count // 8)), np.uint8)
    return np.asarray(2.0 * np.unpackbits(bits, count=count) - 1)


@lru_cache(maxsize=4)
def _pool(size: float) -> np.ndarray:
    return np.asarray(1 + size * _signs(np.random.default_rng(0), POOL))


@lru_cache(maxsize=64)
def _first_signs(seed: tuple[int, ...]) -> np.ndarray:
    """The first signs of a seed: to make a stream costs as much as many small instructions."""
    return _drawn(np.random.default_rng(seed))


@lru_cache(maxsize=64)
def _first_factors(seed: tuple[int, ...], lanes: range, size: float) -> np.ndarray:
    """Rows of factors for all lanes, those that are not moved included; one row has the same signs whatever the size."""
    rows = DRAWN // len(lanes)
    table = np.ones((rows, lanes.stop))
    table[:, lanes.start :] += size * _first_signs(seed)[: rows * len(lanes)].reshape(rows, -1)
    return table
