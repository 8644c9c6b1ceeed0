"""Numbers in place of data that is not known yet: of a generic pair of examples, consistent with each other.

Experiments on the limit of a network for any data (`check.py`) need numbers for its scalars. Taken at random one by one they
belong to no network: h / sqrt(moment(h * h)) then has another scale than it has for all data, and after sixty layers none that
floats can hold. Inner products of generic rows give all scalars the values that they have for one pair of examples.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorprog.language import algebra
from tensorprog.language.data import VALUES
from tensorprog.language.node import Node, topological
from tensorprog.limits.simplify.rebuild import rebuilt

__all__ = ["with_generic_data"]

FEATURES = 32
ENTRIES = 2**16
"""Larger inner products are not made up: experiments are to cost little."""


def with_generic_data(scalars: Sequence[Node]) -> list[Node]:
    """The same scalars of generic data, where their inner products are of one Input and there are not many; else as they are."""
    order = topological(scalars)
    made: dict[Node, Node] = {}
    for x in order:
        if x.op == "data":
            value = _generic(x)
            if value is None:
                return list(scalars)
            made[x] = algebra.constant(value, x.shape)
    if not made:
        return list(scalars)
    for x in order:
        if x not in made:
            made[x] = rebuilt(x, [made[a] for a in x.args]) if x.args else x
    return [made[x] for x in scalars]


def _generic(x: Node) -> np.ndarray | None:
    """An array for a `data` instruction."""
    name, transform, other, kind, slot, second, labels = x.attr
    if kind == VALUES:
        return np.asarray(0.5 + _draws((name, slot), x.shape, 1)[..., 0] ** 2)
    labels = tuple(range(len(x.shape))) if labels is None else labels
    sizes = dict(zip(dict.fromkeys(labels), x.shape, strict=True))
    shape = tuple([sizes[label] for label in labels])
    half = len(shape) // 2
    if (name, transform) != (other, kind) or math.prod(shape) > ENTRIES or shape[:half] != shape[half:]:
        return None
    rows = [_draws((name, transform, s), shape[:half], FEATURES) for s in (slot, second)]
    gram = np.tensordot(rows[0], rows[1], (-1, -1)) / FEATURES
    kept = list(sizes)
    operands: Any = (gram, [kept.index(label) for label in labels], [*range(len(kept))])
    return np.asarray(np.einsum(*operands))


def _draws(key: Any, shape: tuple[int, ...], features: int) -> np.ndarray:
    seed = int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "little")
    return np.random.default_rng(seed).standard_normal((*shape, features))
