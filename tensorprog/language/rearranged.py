"""Data in another arrangement: patches of images, positions picked or merged, batches side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.language.data import ArrayData, merged

__all__ = ["FEATURES", "Transform", "beside", "joined", "transformed"]

FEATURES = "features"
"""The last axis of data, along which `tp.concat` may put inputs together."""
Transform = tuple[Any, ...]
"""What is done to data before a layer multiplies it: ("patches", ...), see `convolution.py`; positions picked, merged, joined."""


def beside(arrays: Sequence[np.ndarray], place: int, axes: Sequence[str]) -> np.ndarray:
    """Arrays (*axes, features), some of them with examples in front, one after the other along an axis."""
    own = len(axes) + 1
    counts = {a.shape[0] for a in arrays if a.ndim > own}
    lead = (counts.pop(),) if counts else ()
    full = [np.broadcast_to(a, (*lead, *a.shape[-own:])) for a in arrays]
    apart = {a.shape[len(lead) : len(lead) + place] + a.shape[len(lead) + place + 1 :] for a in full}
    if len(apart) > 1:
        along = FEATURES if place == len(axes) else axes[place]
        raise TensorProgramError(
            f"data of shapes {', '.join(str(a.shape[-own:]) for a in arrays)} is concatenated along {along!r}",
            why=f"its axes are {', '.join([*axes, FEATURES])}",
            fix="give data that agrees along the others",
        )
    return np.concatenate(full, axis=len(lead) + place)


def joined(array: np.ndarray, transform: Transform, found: Sequence[Any]) -> np.ndarray:
    """A batch with others before and after it; `found`: the arrays of the others, ArrayData for what is the same for all."""
    _, place, before, _ = transform
    others = [x.array if isinstance(x, ArrayData) else x for x in found]
    return beside([*others[: len(before)], array, *others[len(before) :]], place, [""] * (array.ndim - 2))


def transformed(array: np.ndarray, lead: int, transform: Transform) -> np.ndarray:
    """A transform of data of shape (*lead axes, *axes, features)."""
    kind, *options = transform
    match kind:
        case "pick":
            return np.take(array, options[1], lead + options[0])
        case "take":
            return np.take(array, options[1], lead + options[0])
        case "flatten":
            return merged(array, lead + options[0], lead + options[1])
        case "insert":
            return np.expand_dims(array, lead + options[0])
        case "order":
            last = array.ndim - 1
            return np.transpose(array, [*range(lead), *[lead + k for k in options], last])
    if kind != "patches":
        raise TensorProgramError(f"an unknown transform {kind!r}", fix="please report this")
    (places,) = (
        options  # for each axis: for each offset of the filter, the position read by each output, -1 for padding
    )
    parts = [array]
    for axis, offsets in enumerate(places):
        parts = [_picked(a, lead + axis, index) for a in parts for index in offsets]
    return np.concatenate(parts, axis=-1)


def _picked(a: np.ndarray, axis: int, index: tuple[int, ...]) -> np.ndarray:
    found = np.take(a, np.maximum(index, 0), axis)
    outside = np.asarray(index) < 0
    if outside.any():
        found.swapaxes(0, axis)[outside] = 0
    return found
