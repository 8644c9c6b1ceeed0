"""A network's kernels for one pair of examples, compiled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tensorprog.language.node import topological
from tensorprog.language.program import Program, checked_values
from tensorprog.limits.pairs.compiled import Compiled
from tensorprog.networks.network import Network
from tensorprog.networks.outputs import Body
from tensorprog.networks.readouts import Readout
from tensorprog.networks.samples import open_data
from tensorprog.transforms.decouple import program_for
from tensorprog.transforms.parametrization import Parametrization

__all__ = ["compile_pair", "known_values"]

Shapes = Mapping[str, tuple[int, ...]]
"""Name of an Input to the shape (*axes, features) of one example."""


def compile_pair(
    network: Network,
    first: Shapes,
    second: Shapes,
    wanted: Sequence[str],
    scheme: Parametrization,
    gia: bool = False,
    budget: float = 1,
    values: Mapping[str, Any] | None = None,
) -> Compiled:
    """Compiles a network's kernels for examples of the given shapes.

    Raises:
        TensorProgramError: The network cannot see one example alone (batch normalisation), or is wrong; a hyperparameter has
            no value.
    """
    sides = [network.body(open_data(network.inputs, shapes, slot)) for slot, shapes in enumerate((first, second))]
    first_body, second_body = sides
    pair, same = [
        program_for(network.program_of_pair(wanted, first_body, other, scheme), gia)
        for other in (second_body, first_body)
    ]
    known = [known_values(p, sides, values) for p in (pair, same)]
    return Compiled.of(pair, same, first_body.several, budget, known)


def known_values(program: Program, bodies: Sequence[Body], values: Mapping[str, Any] | None) -> dict[str, Any]:
    """Numbers for the hyperparameters of a program: a single kernel may lack some of those that its network has.

    Args:
        program: Of a kernel.
        bodies: What it was made of.
        values: What the user gives for the network.

    Raises:
        TensorProgramError: the network has no hyperparameter of that name.
    """
    if values is None:
        return {}
    thetas = [o.theta if isinstance(o, Readout) else o for body in bodies for o in body.outputs]
    names = sorted({x.attr.name for x in topological([t.node for t in thetas]) if x.op == "scalar"})
    return {name: v for name, v in checked_values(values, names, "the network").items() if name in program.scalars}
