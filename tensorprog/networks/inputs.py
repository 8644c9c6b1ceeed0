"""Data as the input of a network: what a user gives, and what a layer sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.language.data import ArrayData, Data, SlotData
from tensorprog.language.deferred import Deferred
from tensorprog.language.given import real_array
from tensorprog.language.rearranged import FEATURES, Transform, beside, transformed
from tensorprog.language.symbols import check_name

__all__ = ["EXAMPLE", "FEATURES", "Bound", "Input", "Transform", "checked"]

EXAMPLE = "example"
"""The axis of a batch; data has it first."""


class Input(Deferred):
    """Data given to a network: an array whose first axis runs over examples, whose last one over features.

    Args:
        name: Its name; data for several inputs is given by name.
        axes: Names of the axes between examples and features: `("t",)` for sequences, `("h", "w")` for images; None for
            these names, as the data has it.
        value: The same for all examples, of shape (*axes, features): positions, say. Then no data is given for it.
        features: False for numbers without features, of shape (examples, *axes): a mask, the adjacency matrix of a graph for
            each example. They are no data for a layer but coefficients: `mask * h`, `tp.attention(.., mask=mask)`.

    Example:
        >>> import tensorprog as tp
        >>> x = tp.Input("x")
        >>> net = tp.Network(tp.readout("v", tp.relu(tp.dense("U", x, tp.Width("n"), W_std=2**0.5))))
        >>> tp.kernel_fn(net)([[3.0, 4.0]], get="nngp")
        array([[12.5]])
    """

    def __init__(
        self, name: str = "x", axes: str | Sequence[str] | None = (), value: Any = None, features: bool = True
    ) -> None:
        super().__init__(None)
        self.features = bool(features)
        self.key = check_name(name, "an input's name")
        self.axis_names: Any = (axes,) if isinstance(axes, str) else None if axes is None else tuple(axes)
        for a in self.axis_names or ():
            check_name(a, "an axis")
        if self.axis_names and (EXAMPLE in self.axis_names or len(set(self.axis_names)) < len(self.axis_names)):
            raise TensorProgramError(
                f"input {name} has axes {self.axis_names}",
                why=f'the axis "{EXAMPLE}" is always there, and names are distinct',
                fix="name the axes between examples and features",
            )
        self.value = None if value is None else checked(value, name)
        if self.value is not None and self.axis_names is None:
            self.axis_names = ()
        if self.value is not None and not self.features:
            raise TensorProgramError(
                f"input {name} is given a value, and has no features",
                why="numbers that are the same for all examples are no input",
                fix="write tp.array(value, axes=..)",
            )
        if not self.features and self.axis_names is None:
            raise TensorProgramError(f"input {name} has no features, and its axes have no names", fix="give axes=(..)")
        if self.value is not None and self.value.ndim != len(self.axis_names or ()) + 1:
            raise TensorProgramError(
                f"the value of input {name} has shape {self.value.shape}; its axes are {self.axis_names}",
                fix="give an array of shape (*axes, features)",
            )

    @property
    def dimensions(self) -> tuple[str, ...]:
        """The names of all axes of its data."""
        return (EXAMPLE, *(self.axis_names or ()), *(["features"] if self.features else []))

    def __repr__(self) -> str:
        return f"<Input {self.key}: {', '.join(self.dimensions)}>"


@dataclass(frozen=True, repr=False)
class Bound:
    """An Input with its data: what a layer gets.

    Attributes:
        data: The rows.
        axes: The names of the axes of the data, that of the features left out.
    """

    data: Data
    axes: tuple[str, ...]

    def __repr__(self) -> str:
        return f"data ({', '.join([*self.axes, 'features'])}), of which tp.dense makes vectors"

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of `axes`."""
        return self.data.shape

    def size(self, axis: str) -> int:
        """The size of an axis."""
        if axis not in self.axes:
            raise TensorProgramError(f"the input has no axis {axis!r}", why=f"its axes are {self.axes}", fix="name one")
        return self.shape[self.axes.index(axis)]

    def transformed(self, transform: Transform) -> Bound:
        """The same with something done to its features; its axes may get other sizes."""
        return self._moved(transform, self.axes)

    def _moved(self, transform: Transform, axes: tuple[str, ...]) -> Bound:
        """Another arrangement of the same numbers, with the given names of its axes."""
        data = self.data
        if isinstance(data, ArrayData):
            lead = int(EXAMPLE in self.axes)
            short = data.coordinates
            if transform[0] == "patches" or short is data.array:  # as many random numbers as features of a patch
                return Bound(ArrayData(transformed(data.array, lead, transform)), axes)
            return Bound(ArrayData(*[transformed(a, lead, transform) for a in (data.array, short)]), axes)
        assert isinstance(data, SlotData)
        probe = transformed(np.empty((*data.shape, data.features)), 0, transform)
        done = (*data.transform, transform)
        return Bound(replace(data, shape=probe.shape[:-1], features=probe.shape[-1], transform=done), axes)

    def _place(self, axis: str) -> int:
        """Where an axis is, not counting that of the examples."""
        self.size(axis)
        if axis == EXAMPLE:
            raise TensorProgramError(
                "the examples of the input are rearranged",
                why="a network sees one after the other",
                fix="name another axis",
            )
        return [a for a in self.axes if a != EXAMPLE].index(axis)

    def picked(self, axis: str, index: tuple[int, ...]) -> Bound:
        """Positions of an axis."""
        return self._moved(("pick", self._place(axis), index), self.axes)

    def taken(self, axis: str, index: int) -> Bound:
        """One position of an axis, which is dropped."""
        return self._moved(("take", self._place(axis), index), tuple([a for a in self.axes if a != axis]))

    def flattened(self, over: Sequence[str], into: str) -> Bound:
        """Axes as one, the last one fastest."""
        out = self
        for a in over[1:]:
            places = out._place(over[0]), out._place(a)
            out = out._moved(("flatten", *places), tuple([b for b in out.axes if b != a]))
        return Bound(out.data, tuple([into if a == over[0] else a for a in out.axes]))

    def renamed(self, names: dict[str, str]) -> Bound:
        """The same under other names of axes."""
        for a in names:
            self._place(a)
        return Bound(self.data, tuple([names.get(a, a) for a in self.axes]))

    def concatenated(self, others: Sequence[Bound], axis: str) -> Bound:
        """This and others along an axis, or along the features; a part without the axis is one position."""
        parts: list[Bound] = [self, *others]
        model = next((b for b in parts if axis in b.axes or axis == FEATURES), self)
        axes = tuple([a for a in model.axes if a != EXAMPLE])
        if axis not in (*axes, FEATURES):
            axes = (axis, *axes)
        parts = [b._with(axis, axes) for b in parts]
        place = len(axes) if axis == FEATURES else axes.index(axis)
        known = [b.data for b in parts if isinstance(b.data, ArrayData)]
        if len(known) == len(parts):
            arrays, short = [d.array for d in known], [d.coordinates for d in known]
            return Bound(ArrayData(beside(arrays, place, axes), beside(short, place, axes)), _named(parts, axes))
        first = next(k for k, b in enumerate(parts) if isinstance(b.data, SlotData))
        data = parts[first].data
        assert isinstance(data, SlotData)
        probes = [np.empty((*b.shape, b.data.features)) for b in parts]  # type: ignore[attr-defined]
        shape = beside(probes, place, axes).shape
        keys = [(b.data.name, b.data.transform) if isinstance(b.data, SlotData) else b.data for b in parts]
        change = ("concat", place, tuple(keys[:first]), tuple(keys[first + 1 :]))
        return Bound(replace(data, shape=shape[:-1], features=shape[-1], transform=(*data.transform, change)), axes)

    def _with(self, axis: str, axes: tuple[str, ...]) -> Bound:
        """With these axes in this order; a missing `axis` becomes one of size 1."""
        out = self
        own = [a for a in self.axes if a != EXAMPLE]
        if axis != FEATURES and axis not in own:
            out = out._moved(("insert", 0), (*self.axes[: len(self.axes) - len(own)], axis, *own))
            own = [axis, *own]
        if sorted(own) != sorted(axes):
            raise TensorProgramError(
                f"data with the axes {tuple(own)} and with {axes} is concatenated along {axis!r}",
                fix="give data with the same axes, but for that one",
            )
        order = tuple([own.index(a) for a in axes])
        if order == tuple(range(len(order))):
            return out
        return out._moved(("order", *order), (*out.axes[: len(out.axes) - len(own)], *axes))

    def as_vector(self, *_: Any) -> Any:
        """Data is no vector.

        Raises:
            TensorProgramError: always.
        """
        raise TensorProgramError(
            "data is used like a vector",
            why="data has a fixed dimension; a layer makes vectors of it",
            fix='start with tp.dense("U", x, n); coefficients are tp.Input(.., features=False)',
        )

    __add__ = __radd__ = __mul__ = __rmul__ = __sub__ = __rsub__ = __truediv__ = __rtruediv__ = as_vector
    __neg__ = __pow__ = __getitem__ = as_vector


def _named(parts: Sequence[Bound], axes: tuple[str, ...]) -> tuple[str, ...]:
    return (EXAMPLE, *axes) if any(EXAMPLE in b.axes for b in parts) else axes


SMALLEST = 1e-153
"""Rows are 0 or larger than this: their squares then have all digits."""


def checked(array: Any, name: str) -> np.ndarray:
    """Data as an array of floats, read-only.

    Raises:
        TensorProgramError: what is no array of finite real numbers.
    """
    a = real_array(
        array,
        f"the data for {name}",
        "give an array (examples, ..., features), or, of sequences of different lengths, a list of arrays (..., features)",
    )
    if a.ndim > 1 and a.shape[-1] == 0 and len(a):
        raise TensorProgramError(
            f"the data for {name} has shape {a.shape}: no features", fix="give at least one number for every example"
        )
    if a.ndim == 0 or a.size == 0:
        raise TensorProgramError(f"the data for {name} has shape {a.shape}", fix="give at least one example")
    size = np.maximum(a.max(axis=-1), -a.min(axis=-1)) if a.ndim > 1 else np.abs(a)
    if not np.isfinite(size).all():
        bad = tuple(int(i) for i in np.argwhere(~np.isfinite(a))[0])
        raise TensorProgramError(
            f"the data for {name} has the entry {a[bad]} at {bad}", fix="leave out or fill in what is missing"
        )
    if ((size > 0) & (size < SMALLEST)).any():
        raise TensorProgramError(
            f"the data for {name} has a row whose largest entry is {size[(size > 0) & (size < SMALLEST)].min():.1g}",
            why="its inner products are less than floats go, and would be taken for 0",
            fix="multiply the data by a number (and divide W_std of the layer that reads them by it)",
        )
    a.setflags(write=False)
    return a
