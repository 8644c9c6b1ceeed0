"""Functions of programs that take a network and its data as well: `tp.limit(net, X)` for `tp.limit(net.program(X))`."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any, ClassVar, Concatenate, ParamSpec, Protocol, TypeVar, overload, runtime_checkable

from tensorprog.errors import TensorProgramError
from tensorprog.language.program import Program

__all__ = ["HasProgram", "of_networks"]

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)

OF_NETWORKS = ("X", "X2", "of", "parametrization", "width")
"""Options that a Program, which has its data and outputs inside, is given by mistake."""


@runtime_checkable
class HasProgram(Protocol):
    """What a program is made of where it is asked for: a network and its data.

    Attributes:
        options: The keywords that are its own, the first of them also the second argument of a function; all others are the
            function's.
        needs_data: Is there no program without the first of them?
    """

    options: ClassVar[tuple[str, ...]]

    @property
    def needs_data(self) -> bool: ...  # noqa: D102

    def as_program(self, *, generic: bool = False, **options: Any) -> Program:
        """Its program. Where it is `generic`, and there are no data, these stay symbols."""
        ...


class OfNetworks(Protocol[P, R_co]):
    """A function of a program, or of a network, its data, the options of `Network.program`, and the function's own."""

    @overload
    def __call__(self, program: Program, *args: P.args, **keywords: P.kwargs) -> R_co: ...
    @overload
    def __call__(self, program: HasProgram, X: Any = ..., **keywords: Any) -> R_co: ...


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

    A Program goes through untouched. What has a way of its own, a method `own_run` for `run`, goes it. Of a Network the second
    argument is X, its `options` are keywords for `Network.program`, and all others are the function's own, as keywords.

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
            way: Callable[..., R_co] | None = getattr(program, f"own_{function.__name__}", None)
            if way is not None:
                return fitting(way, *args, **keywords)
            if not isinstance(program, HasProgram):
                taken = len(args) > positional or any(k in keywords for k in own[: len(args)])
                wrong = [f"{k}=" for k in keywords if k in OF_NETWORKS] + ["data"] * taken
                if wrong and isinstance(program, Program):
                    raise TensorProgramError(
                        f"{function.__name__} of a Program is given {wrong[0]}",
                        why="a Program has its data and outputs inside",
                        fix="leave it out; or pass the tp.Network in place of its program",
                    )
                return fitting(function, program, *args, **keywords)  # which refuses what is no Program
            data, *_ = program.options
            if len(args) > 1:
                raise TensorProgramError(
                    f"{function.__name__} of a network is given {len(args)} arguments without a name",
                    why=f"the second one is {data}",
                    fix=f"name the others: {', '.join([f'{k}=' for k in own[:3]])}",
                )
            if args and data in keywords:
                raise TensorProgramError(f"{data} is given twice", fix="give it once")
            options = {"of": of} | {k: keywords.pop(k) for k in program.options if k in keywords}
            if args:
                options[data] = args[0]
            return fitting(function, program.as_program(generic=generic, **options), **keywords)

        return wrapper

    return decorate
