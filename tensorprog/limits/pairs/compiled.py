"""The limits of one pair of examples, compiled."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from tensorprog.language import algebra
from tensorprog.language.program import Program
from tensorprog.language.symbols import encode
from tensorprog.limits.budget import Budget
from tensorprog.limits.evaluate.moments import check_moments
from tensorprog.limits.expect.domain import check_domains
from tensorprog.limits.expect.expectation import Expectation
from tensorprog.limits.expect.lower import Lowering
from tensorprog.limits.jumps.check import check_jumps
from tensorprog.limits.pairs.blocks import Batched

__all__ = ["SAMPLED", "Compiled"]

SAMPLED = "an integral in many variables is sampled"
"""Why the program of all examples is asked: it has the replicates."""
REMEMBERED = 64
"""Compiled programs that are kept, whoever asks for them."""


class Compiled:
    """The outputs of one pair of examples, and of an example with itself.

    Args:
        pair: The program for examples of two batches.
        same: For an example with itself.
        several: Has an output two axes of its own, as the kernels of a network with several outputs have?
        budget: How many times the usual work.
        values: Numbers for the hyperparameters of each.

    Attributes:
        pair: For examples of two batches.
        same: For an example with itself: the diagonal, exactly.
        declined: Why the exact route has no limit, where it has none; the others may then be None.
        uncertain: Were floats folded that had cancelled?
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
        self.declined, self.uncertain = "", False
        self.several, self.budget = several, budget
        self.programs = pair, same
        numbers = [p.values(given) for p, given in zip(self.programs, values, strict=True)]
        self.digest = _digest(self.programs, numbers)
        self.pair, self.same = [self._compiled(p, v) for p, v in zip(self.programs, numbers, strict=True)]

    @classmethod
    def of(
        cls,
        pair: Program,
        same: Program,
        several: bool,
        budget: float = 1,
        values: Sequence[Mapping[str, Any]] = ({}, {}),
    ) -> Compiled:
        """The same, compiled once: whoever asks for equal programs gets the same."""
        numbers = [p.values(given) for p, given in zip((pair, same), values, strict=True)]
        # programs are equal whatever the order of their outputs; arrays come in that order
        key = _digest((pair, same), numbers), tuple(pair.outputs), several, budget
        found = _KNOWN.pop(key, None) or cls(pair, same, several, budget, values)
        _KNOWN[key] = found  # the last one asked for is the last one to be forgotten
        while len(_KNOWN) > REMEMBERED:
            _KNOWN.pop(next(iter(_KNOWN)), None)
        return found

    def _compiled(self, program: Program, values: Mapping[str, Any]) -> Batched | None:
        check_domains(program)
        lowering = Lowering(program, values, Expectation(Budget(self.budget), integrals=False))
        check_moments(lowering.expectation.unweighed)
        check_jumps(program, lowering)
        roots = [o.node for o in program.outputs.values()]
        self.uncertain |= any(map(lowering.floats.reaches, roots))
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

    def evaluations(self, pairs: int, examples: int) -> float:
        """Of integrands, for some pairs of examples and the examples themselves, roughly."""
        return sum(
            c.evaluations(k, n) for c, k, n in ((self.pair, pairs, examples), (self.same, examples, examples)) if c
        )


_KNOWN: dict[Any, Compiled] = {}


def _digest(programs: Sequence[Program], values: Sequence[Mapping[str, Any]]) -> bytes:
    content = (*[p.digest for p in programs], *[tuple(sorted(found.items())) for found in values])
    return hashlib.blake2b(encode(content), digest_size=16).digest()
