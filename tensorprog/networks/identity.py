"""What a network is: equal networks have done the same to equal inputs, whenever and wherever they were built."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

from tensorprog.language.deferred import Deferred, recorded_order
from tensorprog.language.describe import describe
from tensorprog.language.expression import Expression
from tensorprog.language.symbols import encode
from tensorprog.networks.inputs import Input
from tensorprog.networks.readouts import Readout

__all__ = ["content", "summary"]


def content(function: Callable[..., Any] | None, outputs: Any, inputs: tuple[Input, ...]) -> tuple[Hashable, ...]:
    """What two networks have in common if they are equal: functions, recorded calls, numbers (their types included).

    Calls are listed, equal ones once, and named by their place in the list: networks are deep. Functions are compared as
    Python does it: two lambdas are not the same function, even if their texts are.

    Args:
        function: Of the inputs, if the network is one.
        outputs: Expressions, readouts, recorded calls, lists of them.
        inputs: The Inputs.
    """
    rows: dict[Hashable, int] = {}
    place: dict[int, int] = {}
    for x in recorded_order([outputs, inputs]):
        if isinstance(x, Input):
            row: Hashable = ("input", x.key, x.axis_names, _plain(x.value, place), x.features)
        else:
            row = (_plain(x.function, place), _plain(x.args, place), _plain(x.keywords, place))
        place[id(x)] = rows.setdefault(row, len(rows))
    return _plain(function, place), _plain(outputs, place), _plain(inputs, place), *rows


def _plain(x: Any, place: Mapping[int, int]) -> Hashable:
    """Something hashable that is equal for equal arguments of calls."""
    if isinstance(x, Deferred):
        return ("call", place[id(x)])
    if isinstance(x, (list, tuple)):
        return ("list", *[_plain(y, place) for y in x])
    if isinstance(x, Mapping):
        return ("dict", *sorted([(str(k), _plain(v, place)) for k, v in x.items()], key=lambda item: item[0]))
    if isinstance(x, Expression):
        return ("expression", x.node.digest, x.names, x.axes)
    if isinstance(x, Readout):
        return ("readout", _plain([vars(x)[k] for k in sorted(vars(x))], place))
    if hasattr(x, "theta") or hasattr(x, "factor"):
        return ("part", _plain([vars(x)[k] for k in sorted(vars(x))], place))
    try:
        return (type(x).__name__, encode(x))
    except TypeError:
        return x if isinstance(x, Hashable) else id(x)


def summary(function: Callable[..., Any] | None, outputs: Any, inputs: tuple[Input, ...]) -> str:
    """A line: the inputs with their axes, and the outputs.

    Args:
        function: Of the inputs, if the network is one.
        outputs: As for `content`.
        inputs: The Inputs.
    """
    given = ", ".join([f"{x.key} ({', '.join(x.dimensions)})" for x in inputs]) or "no inputs"
    if function is not None:
        return f"<Network: {given} -> {getattr(function, '__name__', repr(function))}>"
    several = isinstance(outputs, (list, tuple))
    return f"<Network: {given} -> {', '.join(map(_named, outputs if several else [outputs]))}>"


def _named(o: Any) -> str:
    if isinstance(o, Readout):
        return " + ".join([f"readout {v}" for v in o.vectors]) or "readout"
    if isinstance(o, Expression):
        return describe(o.node)
    names = [a for a in o.args if isinstance(a, str)]
    return f"{o.name} {names[0]}" if names else f"{o.name}(..)"
