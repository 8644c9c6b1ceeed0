"""What users pass as data, as batches: groups of examples of one shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from tensorprog.errors import Source, TensorProgramError
from tensorprog.language.data import ArrayData, Data, SlotData, Values
from tensorprog.language.symbols import encode
from tensorprog.networks.inputs import EXAMPLE, Input, checked

__all__ = ["Batch", "arrays", "batches", "open_data", "reduced", "same_features"]

DEFAULT_AXES = {2: (), 3: ("t",), 4: ("h", "w")}
"""Names of the axes of an input that does not name them, by the number of dimensions of its data."""
GENERIC = 3
"""Examples, and sizes of axes, of generic data; and features but one."""


@dataclass(eq=False)
class Batch:
    """Examples of one shape.

    Attributes:
        arrays: Name of each Input to its array (examples, *axes, features).
        axes: Name of each Input to the names of its axes.
        places: Where the examples stand in what the user gave.
        coordinates: See `reduced`.
        values: The names of Inputs without features.
    """

    arrays: dict[str, np.ndarray]
    axes: dict[str, tuple[str, ...]]
    places: tuple[int, ...]
    coordinates: dict[str, np.ndarray] | None = None
    values: frozenset[str] = frozenset()

    @property
    def data(self) -> dict[str, tuple[Data, tuple[str, ...]]]:
        """As `Network.body` wants it."""
        short = self.coordinates or {}
        return {
            k: (Values(a) if k in self.values else ArrayData(a, short.get(k)), (EXAMPLE, *self.axes[k]))
            for k, a in self.arrays.items()
        }

    @property
    def key(self) -> bytes:
        """What it is, for memories."""
        return encode((tuple([(k, a) for k, a in sorted(self.arrays.items())]), self.places))


Arrays = dict[str, Any]


def arrays(inputs: Sequence[Input], X: Any, source: Source | None) -> Arrays:
    """Name of each Input that wants data to an array, or to a list of arrays of different shapes.

    Raises:
        TensorProgramError: data that is missing or makes no sense.
    """
    wanted = [x for x in inputs if x.value is None]
    if isinstance(X, Mapping):
        extra = set(X) - {x.key for x in wanted}
        if extra:
            raise TensorProgramError(
                f"there is data for {sorted(extra)[0]!r}",
                why=f"the inputs are {', '.join(x.key for x in wanted) or 'none'}",
                fix="check the name",
            )
        missing = [x.key for x in wanted if x.key not in X]
        if missing:
            raise TensorProgramError(f"there is no data for input {missing[0]}", fix="give an array for every input")
        given = dict(X)
    elif len(wanted) == 1:
        given = {wanted[0].key: X}
    elif X is None and wanted:
        given = {x.key: None for x in wanted}
    elif not wanted:
        raise TensorProgramError(
            "a network without an Input is given data",
            why="its output would be one number",
            fix="for a program without data use tp.Program",
            source=source,
        )
    else:
        raise TensorProgramError(
            f"the network has {len(wanted)} inputs",
            fix="give a dictionary: {'" + "': .., '".join(x.key for x in wanted) + "': ..}",
        )
    found = {x.key: _array(x, given[x.key]) for x in wanted}
    counts = {k: len(a) for k, a in found.items()}
    if len(set(counts.values())) > 1:
        raise TensorProgramError(f"the inputs have different numbers of examples: {counts}", fix="give as many of each")
    return found


def _array(x: Input, given: Any) -> Any:
    names = x.axis_names
    if given is None:
        given = (GENERIC, *[GENERIC] * len(names or ()), *([GENERIC + 1] if x.features else []))
    if isinstance(given, tuple) and given and all(isinstance(k, (int, np.integer)) for k in given):
        if min(given) < 1:
            raise TensorProgramError(f"the shape {given} for input {x.key}", fix="sizes are positive")
        given = np.random.default_rng(0).standard_normal(given) if x.features else np.ones(given)
    try:
        a: Any = checked(given, x.key)
    except TensorProgramError:
        if (
            not isinstance(given, (list, tuple))
            or not given
            or len({np.shape(e) for e in given}) == 1
            or not all(isinstance(e, (list, tuple, np.ndarray)) for e in given)
        ):
            raise
        a = [checked(e, x.key) for e in given]
        if len({e.ndim for e in a}) > 1 or (x.features and len({e.shape[-1] for e in a}) > 1):
            raise TensorProgramError(
                f"the examples for input {x.key} have shapes {[e.shape for e in a][:4]}",
                why="examples may differ in the sizes of their axes, not in their number or in the features",
                fix="give arrays (*axes, features)",
            ) from None
    ndim = a.ndim if isinstance(a, np.ndarray) else a[0].ndim + 1
    expected = ndim if names is None else len(names) + 1 + x.features
    if ndim != expected or (names is None and ndim not in DEFAULT_AXES):
        shape = a.shape if isinstance(a, np.ndarray) else f"[{a[0].shape}, ..]"
        raise TensorProgramError(
            f"the data for input {x.key} has shape {shape}",
            why=f"its axes are {', '.join(x.dimensions)}",
            fix="one example is an array with one row: X[None]"
            if ndim == expected - 1
            else "name its axes: tp.Input(.., axes=..)",
        )
    return a


def batches(inputs: Sequence[Input], X: Any, source: Source | None) -> list[Batch]:
    """The data as batches, one for each shape that occurs, in the order of their first examples."""
    given = arrays(inputs, X, source)
    names = {x.key: x.axis_names for x in inputs}
    groups: dict[Any, list[int]] = {}
    count = len(next(iter(given.values())))
    if all(isinstance(a, np.ndarray) for a in given.values()):
        groups[()] = list(range(count))
    else:
        for i in range(count):
            groups.setdefault(tuple([given[k][i].shape for k in sorted(given)]), []).append(i)
    found = []
    for places in groups.values():
        parts = {
            k: a if len(groups) == 1 and isinstance(a, np.ndarray) else np.stack([a[i] for i in places])
            for k, a in given.items()
        }
        axes = {k: names[k] if names[k] is not None else DEFAULT_AXES[a.ndim] for k, a in parts.items()}
        found.append(Batch(parts, axes, tuple(places), values=frozenset([x.key for x in inputs if not x.features])))
    return found


def same_features(first: Sequence[Batch], second: Sequence[Batch]) -> None:
    """Refuses two batches whose examples have different numbers of features."""
    for name, a in first[0].arrays.items():
        if name in first[0].values:
            continue
        other = second[0].arrays[name].shape[-1]
        if a.shape[-1] != other:
            raise TensorProgramError(
                f"the two batches for input {name} have {a.shape[-1]} and {other} features",
                fix="give examples of the same features",
            )


def reduced(parts: Sequence[Batch], inputs: Sequence[Input] = ()) -> None:
    """Gives batches with more features than rows coordinates in as few dimensions as rows, the same for all of them.

    A finite network draws U for every feature; with X = L Q, Q having orthonormal rows, U Q.T has the law of U. Inputs
    with as many features may share U, so that they have one Q; it has to leave alone what `inputs` have as a value.
    """
    fixed = {x.value.shape[-1] for x in inputs if x.value is not None}
    keys = sorted(parts[0].arrays.keys() - parts[0].values)
    for d in {parts[0].arrays[key].shape[-1] for key in keys} - fixed:
        placed = [(b, key) for b in parts for key in keys if b.arrays[key].shape[-1] == d]
        X = np.concatenate([b.arrays[key].reshape(-1, d) for b, key in placed])
        if len(X) >= d:
            continue
        L = np.asarray(np.linalg.qr(X.T, mode="r")).T
        start = 0
        for b, key in placed:
            size = prod(b.arrays[key].shape[:-1])
            short = L[start : start + size].reshape(*b.arrays[key].shape[:-1], L.shape[1])
            b.coordinates = {**(b.coordinates or {}), key: short}
            start += size


def open_data(
    inputs: Sequence[Input], shapes: Mapping[str, tuple[int, ...]], slot: int
) -> dict[str, tuple[Data, tuple[str, ...]]]:
    """Data of one example that is not known yet, with the names of its axes.

    Args:
        inputs: Of the network.
        shapes: Name of an Input to the shape of an example: (*axes, features), of coefficients (*axes,).
        slot: Which of two examples.
    """
    by_key = {x.key: x for x in inputs}
    found: dict[str, tuple[Data, tuple[str, ...]]] = {}
    for k, shape in shapes.items():
        names = by_key[k].axis_names
        data: Data = SlotData(k, slot, shape[:-1], shape[-1]) if by_key[k].features else Values(None, k, slot, shape)
        found[k] = data, names if names is not None else DEFAULT_AXES[len(shape) + 1]
    return found
