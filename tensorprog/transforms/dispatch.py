"""Functions of programs that take a network and its data as well: `tp.limit(net, X)` for `tp.limit(net.program(X))`."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload, runtime_checkable

from tensorprog.errors import TensorProgramError
from tensorprog.language.program import Program

__all__ = ["needs_data", "of_networks", "program_of"]

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)

OPTIONS = ("X", "X2", "of", "parametrization", "width")
"""What `Network.program` takes; gradient independence is the function's own option."""


@runtime_checkable
class Network(Protocol):
    """What is asked of a network: its Inputs, and the program of data."""

    inputs: Any

    def program(self, *args: Any, **options: Any) -> Program: ...


class OfNetworks(Protocol[P, R_co]):
    """A function of a program, or of a network, its data, the options of `Network.program`, and the function's own."""

    @overload
    def __call__(self, program: Program, *args: P.args, **keywords: P.kwargs) -> R_co: ...
    @overload
    def __call__(self, program: Network, X: Any = ..., **keywords: Any) -> R_co: ...


def needs_data(net: Network) -> bool:
    """Has it an Input without a value of its own?"""
    return any(x.value is None for x in net.inputs)


def program_of(net: Network, X: Any = None, **options: Any) -> Program:
    """The program of a network that is given to a function of programs.

    Args:
        net: The network.
        X: Its data.
        options: As for `Network.program`.

    Raises:
        TensorProgramError: there is no data.
    """
    if X is None and needs_data(net):
        raise TensorProgramError(
            "a network without data",
            why="what it computes depends on X",
            fix="pass X as the second argument: an array (examples, ..., features), or a shape for generic data",
        )
    return net.program(X, **options)


def fitting(function: Callable[..., R_co], *args: Any, **keywords: Any) -> R_co:
    """Calls a function; what does not fit into memory is the user's error, with the numbers."""
    try:
        return function(*args, **keywords)
    except MemoryError as error:
        raise TensorProgramError(
            f"{function.__name__} does not fit into memory",
            why=str(error) or "an array is larger than what is free",
            fix="use fewer examples or positions, or a smaller width",
        ) from None


def of_networks(
    of: str | None = None, generic: bool = False
) -> Callable[[Callable[Concatenate[Program, P], R_co]], OfNetworks[P, R_co]]:
    """Makes a function of a program one of a network, too.

    A Program goes through untouched. Of a Network the second argument is X, those of `OPTIONS` are keywords for
    `Network.program`, and all others are the function's own, as keywords.

    Args:
        of: The outputs by default, as for `Network.program`.
        generic: Without data, or with a shape in place of it, the function is of the kernels of a generic pair of
            examples, whose inner products are symbols.

    Raises:
        TensorProgramError: A network has no data; a program is given some.
    """

    def decorate(function: Callable[Concatenate[Program, P], R_co]) -> OfNetworks[P, R_co]:
        known = list(signature(function).parameters.values())[1:]
        own = [p.name for p in known]
        positional = sum([p.kind is p.POSITIONAL_OR_KEYWORD for p in known])

        @wraps(function)
        def wrapper(program: Any, *args: Any, **keywords: Any) -> R_co:
            if not isinstance(program, Network):
                taken = len(args) > positional or any(k in keywords for k in own[: len(args)])
                wrong = [f"{k}=" for k in keywords if k in OPTIONS] + ["data"] * taken
                if wrong and isinstance(program, Program):
                    raise TensorProgramError(
                        f"{function.__name__} of a Program is given {wrong[0]}",
                        why="a Program has its data and outputs inside",
                        fix="leave it out; or pass the tp.Network in place of its program",
                    )
                return fitting(function, program, *args, **keywords)  # which refuses what is no Program
            if len(args) > 1:
                raise TensorProgramError(
                    f"{function.__name__} of a network is given {len(args)} arguments without a name",
                    why="the second one is X",
                    fix=f"name the others: {', '.join([f'{k}=' for k in own[:3]])}",
                )
            if args and "X" in keywords:
                raise TensorProgramError("X is given twice", fix="give it once")
            options = {k: keywords.pop(k) for k in OPTIONS if k in keywords}
            if args:
                options["X"] = args[0]
            if generic and needs_data(program) and "X2" not in options:
                from tensorprog.networks.generic import generic_pair, is_generic

                if is_generic(options.get("X")):
                    return fitting(function, generic_pair(program, **options), **keywords)  # type: ignore[arg-type]
            return fitting(function, program_of(program, **{"of": of, **options}), **keywords)

        return wrapper

    return decorate
