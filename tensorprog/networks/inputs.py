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
from tensorprog.language.symbols import check_name

__all__ = ["EXAMPLE", "Bound", "Input", "Transform", "transformed"]

EXAMPLE = "example"
"""The axis of a batch; data has it first."""


class Input(Deferred):
    """Data given to a network: an array whose first axis runs over examples, whose last one over features.

    Args:
        name: Its name; data for several inputs is given by name.
        axes: Names of the axes between examples and features: `("t",)` for sequences, `("h", "w")` for images; None for
            these names, as the data has it.
        value: The same for all examples, of shape (*axes, features): positions, say. Then no data is given for it.

    Example:
        >>> import tensorprog as tp
        >>> x = tp.Input("x")
        >>> net = tp.Network(tp.readout("v", tp.relu(tp.dense("U", x, tp.Width("n"), W_std=2**0.5))))
        >>> tp.kernel_fn(net)([[3.0, 4.0]], get="nngp")
        array([[12.5]])
    """

    def __init__(self, name: str = "x", axes: str | Sequence[str] | None = (), value: Any = None) -> None:
        super().__init__(None)
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
        if self.value is not None and self.value.ndim != len(self.axis_names or ()) + 1:
            raise TensorProgramError(
                f"the value of input {name} has shape {self.value.shape}; its axes are {self.axis_names}",
                fix="give an array of shape (*axes, features)",
            )

    def __repr__(self) -> str:
        return f"<Input {self.key}: {', '.join([EXAMPLE, *(self.axis_names or ()), 'features'])}>"


Transform = tuple[Any, ...]
"""What is done to the features before a layer multiplies them: ("patches", ...), see `convolution.py`."""


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
        data = self.data
        if isinstance(data, ArrayData):
            lead = len(data.shape) - len([a for a in self.axes if a != EXAMPLE])
            return Bound(ArrayData(transformed(data.array, lead, transform)), self.axes)
        assert isinstance(data, SlotData)
        probe = transformed(np.zeros((*data.shape, data.features)), 0, transform)
        done = (*data.transform, transform)
        return Bound(replace(data, shape=probe.shape[:-1], features=probe.shape[-1], transform=done), self.axes)

    def as_vector(self, *_: Any) -> Any:
        """Data is no vector.

        Raises:
            TensorProgramError: always.
        """
        raise TensorProgramError(
            "data is used like a vector",
            why="data has a fixed dimension; a layer makes vectors of it",
            fix='start with tp.dense("U", x, n)',
        )

    __add__ = __radd__ = __mul__ = __rmul__ = __sub__ = __rsub__ = __truediv__ = __rtruediv__ = as_vector
    __neg__ = __pow__ = __getitem__ = as_vector


def transformed(array: np.ndarray, lead: int, transform: Transform) -> np.ndarray:
    """A transform of data of shape (*lead axes, *axes, features)."""
    kind, *options = transform
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
    if not np.isfinite(a).all():
        bad = tuple(int(i) for i in np.argwhere(~np.isfinite(a))[0])
        raise TensorProgramError(
            f"the data for {name} has the entry {a[bad]} at {bad}", fix="leave out or fill in what is missing"
        )
    a.setflags(write=False)
    return a
