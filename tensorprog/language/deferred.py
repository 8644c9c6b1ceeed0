"""Calls that wait for the shapes of the data.

`tp.Input("x")` has no shape before there is data. What is done with it is recorded, not carried out: a `Deferred` is a
function, its arguments and the user's line. A Network carries the calls out when it is given data, and an error then names
the line where the call was recorded. Layers are ordinary functions of expressions; the decorator `layer` records them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import wraps
from inspect import signature
from typing import Any, TypeVar

import numpy as np

from tensorprog.errors import Source, TensorProgramError, caller, located
from tensorprog.language.symbols import number

__all__ = ["Deferred", "carry_out", "has_deferred", "layer", "recorded_order"]

F = TypeVar("F", bound=Callable[..., Any])


class Deferred:
    """A recorded call. Operators and the functions of this package record more of them.

    Attributes:
        function: What is called; None for a place that a value is given for.
        args: Its positional arguments, which may contain Deferred ones.
        keywords: Its keyword arguments.
        source: The user's line.
    """

    def __init__(
        self, function: Callable[..., Any] | None, args: tuple[Any, ...] = (), keywords: Mapping[str, Any] | None = None
    ) -> None:
        self.function, self.args, self.keywords = function, args, dict(keywords or {})
        self.source: Source | None = caller()
        self.name = getattr(function, "__name__", "input")

    def label(self, name: str) -> Deferred:
        """As `Expression.label`."""
        return Deferred(_label, (self, name))

    def __reduce__(self) -> tuple[Any, ...]:
        """As a list of calls: networks are deeper than the stack of pickle and deepcopy."""
        order = recorded_order([self])
        place = {id(x): i for i, x in enumerate(order)}
        rows = []
        for x in order:
            state = {k: v for k, v in x.__dict__.items() if k not in ("args", "keywords")}
            rows.append((type(x), state, _exchanged([x.args, x.keywords], lambda y: _Place(place[id(y)]))))
        return _restored, (rows,)

    def __repr__(self) -> str:
        return f"<{self.name}(...) of an Input: shapes are known when there is data>"

    def _unknown(self, what: str) -> TensorProgramError:
        return TensorProgramError(
            f"the {what} of {self!r}",
            why="an Input has no shape before there is data",
            fix="write a function of the input, tp.Network(f), or decorate the layer with @tp.layer: both run when it has",
        )

    @property
    def shape(self) -> Any:
        """Not known yet."""
        raise self._unknown("shape")

    @property
    def axes(self) -> Any:
        """Not known yet."""
        raise self._unknown("axes")

    @property
    def width(self) -> Any:
        """Not known yet."""
        raise self._unknown("width")

    @property
    def T(self) -> Any:
        """No vector has a transpose."""
        raise TensorProgramError(
            f"{self!r} is transposed", fix="write tp.dot(x, y) for x.y/n; only a tp.Matrix has a transpose"
        )

    def __bool__(self) -> bool:
        raise TensorProgramError(
            "a Tensor Program cannot branch on a value", why="programs are straight-line", fix="use tp.step or tp.relu"
        )

    def __iter__(self) -> Any:
        raise TensorProgramError(f"{self!r} cannot be iterated", fix='use tp.take(x, "axis", i)')

    def __getitem__(self, index: Any) -> Any:
        raise TensorProgramError(f"{self!r} is indexed", fix='use tp.take(x, "axis", i)')

    def __add__(self, other: Any) -> Deferred:
        return Deferred(operator.add, (self, other))

    def __radd__(self, other: Any) -> Deferred:
        return Deferred(operator.add, (other, self))

    def __sub__(self, other: Any) -> Deferred:
        return Deferred(operator.sub, (self, other))

    def __rsub__(self, other: Any) -> Deferred:
        return Deferred(operator.sub, (other, self))

    def __mul__(self, other: Any) -> Deferred:
        return Deferred(operator.mul, (self, other))

    def __rmul__(self, other: Any) -> Deferred:
        return Deferred(operator.mul, (other, self))

    def __truediv__(self, other: Any) -> Deferred:
        return Deferred(operator.truediv, (self, other))

    def __rtruediv__(self, other: Any) -> Deferred:
        return Deferred(operator.truediv, (other, self))

    def __pow__(self, other: Any) -> Deferred:
        return Deferred(operator.pow, (self, other))

    def __neg__(self) -> Deferred:
        return Deferred(operator.neg, (self,))

    def __pos__(self) -> Deferred:
        return self

    def __abs__(self) -> Deferred:
        return Deferred(operator.abs, (self,))

    def _compared(self, other: Any) -> Any:
        raise TensorProgramError(
            f"{self!r} is compared",
            why="it is random: it has no one value",
            fix="use tp.step, tp.sign, tp.relu or tp.abs",
        )

    __lt__ = __le__ = __gt__ = __ge__ = _compared

    def _multiplied(self, other: Any) -> Any:
        raise TensorProgramError(
            f"{self!r} is multiplied with @",
            why="@ is for tp.Matrix: W @ x, W.T @ y",
            fix="write x * y coordinate by coordinate, tp.dot(x, y) for the scalar x.y/n",
        )

    __matmul__ = __rmatmul__ = _multiplied

    def _no_number(self) -> Any:
        raise TensorProgramError(f"{self!r} is used as a number", fix="use tp.limit or tp.run to get one")

    __float__ = __int__ = __complex__ = __index__ = __len__ = _no_number

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **settings: Any) -> Any:
        """NumPy's operators on the left are ours; its other functions have namesakes here."""
        if ufunc.__name__ in ("equal", "not_equal"):  # as ours: identity
            return (inputs[0] is inputs[1]) == (ufunc.__name__ == "equal")
        own = _OPERATORS.get(ufunc.__name__)
        if own is None or method != "__call__":
            raise TensorProgramError(
                f"numpy.{ufunc.__name__} of {self!r}",
                why="it is no array: its values depend on the width and the seed",
                fix="use the functions of tensorprog: tp.tanh, tp.exp, ...",
            )
        return Deferred(own, inputs)


_OPERATORS = {
    "add": operator.add, "subtract": operator.sub, "multiply": operator.mul, "divide": operator.truediv,
    "power": operator.pow, "matmul": operator.matmul,
}  # fmt: skip


@dataclass(frozen=True)
class _Place:
    """Stands for a recorded call in a list of them."""

    index: int


def _exchanged(x: Any, new: Callable[[Any], Any], kind: type | None = None) -> Any:
    """Nested lists and dictionaries with other things in place of what is recorded, or of another kind."""
    if isinstance(x, kind or Deferred):
        return new(x)
    if isinstance(x, (list, tuple)):
        return type(x)([_exchanged(y, new, kind) for y in x])
    return {k: _exchanged(v, new, kind) for k, v in x.items()} if isinstance(x, dict) else x


def _restored(rows: list[tuple[Any, ...]]) -> Deferred:
    found: list[Deferred] = []
    for cls, state, parts in rows:
        x = cls.__new__(cls)
        x.__dict__.update(state)
        x.args, x.keywords = _exchanged(parts, lambda p: found[p.index], _Place)
        found.append(x)
    return found[-1]


def _label(x: Any, name: str) -> Any:
    return x.label(name)


def has_deferred(x: Any) -> bool:
    """Is it, or does a list, tuple or dictionary contain, something recorded?"""
    if isinstance(x, Deferred):
        return True
    if isinstance(x, (list, tuple)):
        return any(map(has_deferred, x))
    return isinstance(x, dict) and any(map(has_deferred, x.values()))


def layer(function: F) -> F:
    """Makes a function of expressions a layer: given an Input, or what was made of one, it runs when there is data.

    Inside, arguments have their shapes, so that loops over time steps and pixels are Python loops. Weights are shared by
    name, as everywhere.

    Example:
        >>> import tensorprog as tp
        >>> @tp.layer
        ... def sum_over_time(x):
        ...     return sum(tp.take(x, "t", t) for t in range(x.shape[x.axes.index("t")]))
        >>> n = tp.Width("n")
        >>> h = sum_over_time(tp.dense("U", tp.Input("x", axes=("t",)), n))
        >>> net = tp.Network(tp.readout("v", tp.relu(h)))
        >>> tp.kernel_fn(net)([[[1.0, 0.0], [0.0, 1.0]]], get="nngp")
        array([[0.5]])
    """

    @wraps(function)
    def recorded(*args: Any, **keywords: Any) -> Any:
        if any(map(has_deferred, args)) or any(map(has_deferred, keywords.values())):
            _check_numbers(_bound(function, args, keywords), function)
            return Deferred(recorded, args, keywords)
        try:
            return function(*args, **keywords)
        except TypeError:
            _bound(function, args, keywords)
            raise

    return recorded  # type: ignore[return-value]


def _check_numbers(arguments: Mapping[str, Any], function: Callable[..., Any]) -> None:
    """Refuses standard deviations that are none, and other numbers that are not finite, where a layer is called."""
    for name, x in arguments.items():
        if name.endswith("_std") and isinstance(x, (int, float, complex, str, Fraction, np.generic)):
            if number(x, f"{name} of {function.__name__}") < 0:
                raise TensorProgramError(
                    f"{name} of {function.__name__} is {x}", fix="a standard deviation is at least 0"
                )
        elif isinstance(x, (float, np.floating)):
            number(x, f"{name} of {function.__name__}")


def _bound(function: Callable[..., Any], args: tuple[Any, ...], keywords: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments by name; refuses those that a layer does not have, where it is called and not where it is carried out."""
    try:
        return signature(function).bind(*args, **keywords).arguments
    except TypeError as error:
        fix = f"its arguments are {', '.join(signature(function).parameters)}"
        raise TensorProgramError(f"{function.__name__}: {error}", fix=fix) from None


def carry_out(wanted: Any, given: Mapping[int, Any]) -> Any:
    """The value of something recorded, every recorded call carried out once.

    Args:
        wanted: A Deferred, or a list of them.
        given: `id` of a place to its value.
    """
    values: dict[int, Any] = dict(given)

    def settled(x: Any) -> Any:
        if isinstance(x, Deferred):
            return values[id(x)]
        if isinstance(x, (list, tuple)):
            return type(x)(map(settled, x))
        return {k: settled(v) for k, v in x.items()} if isinstance(x, dict) else x

    stack = [wanted]
    while stack:  # not recursive: recurrent networks are deep
        x = stack[-1]
        if not isinstance(x, Deferred) or id(x) in values:
            stack.pop()
            if isinstance(x, (list, tuple)):
                stack.extend(x)
            elif isinstance(x, dict):
                stack.extend(x.values())
            continue
        missing = [y for y in _parts([x.args, x.keywords]) if id(y) not in values]
        if missing:
            stack.extend(missing)
            continue
        if x.function is None:
            raise TensorProgramError(
                f"there is no data for {x!r}", fix="give an array for every Input: {'x': X, ...}", source=x.source
            )
        with located(x.source):
            values[id(x)] = x.function(*settled(x.args), **settled(x.keywords))
    return settled(wanted)


def recorded_order(wanted: Any) -> list[Deferred]:
    """All recorded calls that something is made of, each once, after those it is made of.

    Args:
        wanted: A Deferred, or nested lists and dictionaries that contain some.
    """
    order: list[Deferred] = []
    done: set[int] = set()
    stack = _parts(wanted)[::-1]
    while stack:
        x = stack[-1]
        missing = [] if id(x) in done else [y for y in _parts([x.args, x.keywords]) if id(y) not in done]
        if missing:
            stack.extend(missing[::-1])
            continue
        stack.pop()
        if id(x) not in done:
            done.add(id(x))
            order.append(x)
    return order


def _parts(x: Any) -> list[Deferred]:
    """The recorded calls in nested lists and dictionaries."""
    if isinstance(x, Deferred):
        return [x]
    if isinstance(x, dict):
        x = list(x.values())
    return [y for item in x for y in _parts(item)] if isinstance(x, (list, tuple)) else []
