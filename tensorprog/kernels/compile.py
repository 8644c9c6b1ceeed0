"""A network's kernels for one pair of examples, compiled."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from tensorprog.language import algebra
from tensorprog.language.node import topological
from tensorprog.language.program import Program, checked_values
from tensorprog.language.symbols import encode
from tensorprog.limits.budget import Budget
from tensorprog.limits.evaluate.blocks import Batched
from tensorprog.limits.evaluate.moments import check_moments
from tensorprog.limits.expect.domain import check_domains
from tensorprog.limits.expect.expectation import Expectation
from tensorprog.limits.expect.lower import Lowering
from tensorprog.limits.jumps.check import check_jumps
from tensorprog.networks.network import Network
from tensorprog.networks.outputs import Body
from tensorprog.networks.readouts import Readout
from tensorprog.networks.samples import open_data
from tensorprog.transforms.decouple import program_for
from tensorprog.transforms.parametrization import Parametrization

__all__ = ["SAMPLED", "Compiled", "compile_pair", "known_values"]

Shapes = Mapping[str, tuple[int, ...]]
"""Name of an Input to the shape (*axes, features) of one example."""

SAMPLED = "an integral in many variables is sampled"
"""Why the program of all examples is asked: it has the replicates."""


class Compiled:
    """Kernels of one pair of examples.

    Args:
        pair: The program for examples of two batches.
        same: For an example with itself.
        several: Has the network several outputs, and a kernel two axes for them?
        budget: How many times the usual work.
        values: Numbers for the hyperparameters of each.

    Attributes:
        pair: For examples of two batches.
        same: For an example with itself: the diagonal, exactly.
        declined: Why the exact route has no limit, where it has none; the others may then be None.
        digest: What was compiled.
        several: As given.
    """

    def __init__(
        self,
        pair: Program,
        same: Program,
        several: bool,
        budget: float = 1,
        values: Sequence[Mapping[str, Any]] = ({}, {}),
    ) -> None:
        self.declined = ""
        self.several, self.budget = several, budget
        self.programs = pair, same
        numbers = [p.values(given) for p, given in zip(self.programs, values, strict=True)]
        content = encode(tuple([pair.digest, same.digest, *[tuple(sorted(found.items())) for found in numbers]]))
        self.digest = hashlib.blake2b(content, digest_size=16).digest()
        self.pair, self.same = [self._compiled(p, v) for p, v in zip(self.programs, numbers, strict=True)]

    def _compiled(self, program: Program, values: Mapping[str, Any]) -> Batched | None:
        check_domains(program)
        lowering = Lowering(program, values, Expectation(Budget(self.budget), integrals=False))
        check_moments(lowering.expectation.unweighed)
        check_jumps(program, lowering)
        roots = [o.node for o in program.outputs.values()]
        reasons = [lowering.declined[x] for x in roots if x in lowering.declined]
        if reasons:
            self.declined = self.declined or reasons[0]
            return None
        outputs = [algebra.typed(lowering.z[x], x.shape, None, None) for x in roots]
        batched = Batched(outputs)
        if any(not x.attr.by_quadrature for x in batched.integrals):
            self.declined = self.declined or SAMPLED
        if batched.others:
            self.declined = self.declined or f"{batched.others[0]} is computed for the program of all examples"
        return batched

    @property
    def method(self) -> str:
        """How it computes: "quadrature" if anything is integrated."""
        return "quadrature" if any(c and c.integrates for c in (self.pair, self.same)) else "closed form"

    def evaluations(self, pairs: int, examples: int) -> float:
        """Of integrands, for some pairs of examples and the examples themselves, roughly."""
        return sum(
            c.evaluations(k, n) for c, k, n in ((self.pair, pairs, examples), (self.same, examples, examples)) if c
        )


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
    return Compiled(pair, same, first_body.several, budget, known)


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
