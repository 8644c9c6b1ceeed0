"""Training that diverges: the step at which numbers stop being finite."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from tensorprog.errors import NotFinite, TensorProgramError
from tensorprog.language import algebra
from tensorprog.language.program import Output, Program

__all__ = ["STEP", "Diverged", "finite"]

STEP = "step"
"""The first axis of what is known at every step."""

T = TypeVar("T")


class Diverged(NotFinite):
    """Training whose numbers are not finite from some step on.

    Attributes:
        step: The first of those.
    """

    step: int = 0


def finite(
    program: Program, values: Mapping[str, Any] | None, evaluate: Callable[[Program, dict[str, Any] | None], T]
) -> T:
    """Evaluates a run of training; of one that diverges, says at which step.

    The outputs up to a step are a program that is smaller than the run, and whether its numbers are finite is monotone in the
    step: so a bisection finds it.

    Args:
        program: The run.
        values: Those of its hyperparameters.
        evaluate: What is wanted of the run, or of its first steps, which may not know all hyperparameters.

    Raises:
        Diverged: Numbers are finite before the first step, and later they are not.
    """
    try:
        return evaluate(program, None if values is None else dict(values))
    except NotFinite as error:
        steps = max(o.node.shape[0] for o in program.outputs.values() if o.axes[:1] == (STEP,)) - 1

        def fails(t: int) -> bool:
            part = _until(program, t)
            known = {k: v for k, v in (values or {}).items() if k in part.scalars}
            try:
                evaluate(part, known)
            except NotFinite:
                return True
            return False

        first = bisect_left(range(steps), True, key=fails)
        if first == 0:
            raise
        found = Diverged(
            f"training diverged at step {first} of {steps}: after it {_lowered(error)}",
            why=error.why,
            fix="use a smaller learning rate, or fewer steps",
        )
        found.step = first
        raise found from error


def _lowered(error: TensorProgramError) -> str:
    return error.what.partition(": that begins")[0]


def _until(program: Program, t: int) -> Program:
    return Program(
        {
            name: Output(algebra.pick(o.node, 0, range(t + 1)), o.axes)
            for name, o in program.outputs.items()
            if o.axes[:1] == (STEP,)
        }
    )
