"""A network's kernels for a generic pair of examples: what formulas are of. Inner products of the inputs stay symbols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tensorprog.errors import MissingAxis, TensorProgramError
from tensorprog.language.program import Program
from tensorprog.networks.inputs import EXAMPLE
from tensorprog.networks.outputs import Body
from tensorprog.networks.samples import GENERIC, open_data
from tensorprog.transforms.parametrization import parametrization as named

if TYPE_CHECKING:
    from tensorprog.networks.network import Network

__all__ = ["generic_pair", "is_generic"]


def is_generic(X: Any) -> bool:
    """Is this no data, but its absence or its shape?"""
    if isinstance(X, Mapping):
        return all(map(is_generic, X.values()))
    return X is None or (isinstance(X, tuple) and bool(X) and all(isinstance(k, int) for k in X))


def generic_pair(
    network: Network,
    X: Any = None,
    of: str | Sequence[str] | None = None,
    parametrization: str = "ntk",
    width: int | None = None,
) -> Program:
    """The program of the kernels of two examples x and x', with `data` instructions for their inner products.

    Args:
        network: The network.
        X: The shape (examples, *axes, features) of data, whose first entry does not matter; by default a small generic one.
        of: As for `Network.program`; kernels only.
        parametrization: As there.
        width: As there.

    Raises:
        TensorProgramError: for outputs themselves, which have no formula without data; for a network that mixes examples.
    """
    scheme = named(parametrization, width)
    shapes = _shapes(network, X)
    one, other = [_side(network, shapes, slot) for slot in (0, 1)]
    wanted = network.kernels(one) if of is None else (of,) if isinstance(of, str) else tuple(of)
    for name in wanted:
        if name in ("f", "all"):
            raise TensorProgramError(
                f"a formula of {name!r} without data",
                fix="give data as an array, or ask for kernels: of=('nngp', 'ntk')",
            )
    return network.program_of_pair(wanted, one, other, scheme)


def _shapes(network: Network, X: Any) -> dict[str, tuple[int, ...]]:
    wanted = [x for x in network.inputs if x.value is None]
    given = X if isinstance(X, Mapping) else {x.key: X for x in wanted}
    found = {}
    for x in wanted:
        names = x.axis_names or ()
        features = [GENERIC + 1] if x.features else []
        shape = given.get(x.key) or (1, *[GENERIC] * len(names), *features)
        if x.axis_names is not None and len(shape) != len(x.dimensions):
            raise TensorProgramError(
                f"the shape {shape} for input {x.key}", why=f"its axes are {', '.join(x.dimensions)}",
                fix="give one size for each",
            )  # fmt: skip
        found[x.key] = tuple(shape[1:])
    return found


def _side(network: Network, shapes: Mapping[str, tuple[int, ...]], slot: int) -> Body:
    try:
        return network.body(open_data(network.inputs, shapes, slot))
    except MissingAxis as error:
        if error.axis != EXAMPLE:
            raise
        raise TensorProgramError(
            "a formula of a network that mixes the examples of a batch",
            why="its kernel of two examples depends on all others",
            fix="take the numbers: tp.limit(net, X)",
        ) from None
