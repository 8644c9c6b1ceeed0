"""Training that diverges: the step at which numbers stop being finite."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import TypeVar

from tensorprog.errors import NotFinite, TensorProgramError
from tensorprog.language import algebra
from tensorprog.language.program import Output, Program

__all__ = ["STEP", "finite"]

STEP = "step"
"""The first axis of what is known at every step."""

T = TypeVar("T")


def finite(program: Program, evaluate: Callable[[Program], T]) -> T:
    """Evaluates a run of training; of one that diverges, says at which step.

    The outputs up to a step are a program that is smaller than the run, and whether its numbers are finite is monotone in the
    step: so a bisection finds it.

    Raises:
        NotFinite: Numbers are finite before the first step, and later they are not.
    """
    try:
        return evaluate(program)
    except NotFinite as error:
        steps = max(o.node.shape[0] for o in program.outputs.values() if o.axes[:1] == (STEP,)) - 1

        def fails(t: int) -> bool:
            try:
                evaluate(_until(program, t))
            except NotFinite:
                return True
            return False

        first = bisect_left(range(steps), True, key=fails)
        if first == 0:
            raise
        raise NotFinite(
            f"training diverged at step {first} of {steps}: after it {_lowered(error)}",
            why=error.why,
            fix="use a smaller learning rate, or fewer steps",
        ) from error


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
