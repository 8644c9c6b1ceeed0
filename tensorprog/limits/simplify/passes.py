"""What is done to every scalar program before it is evaluated."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tensorprog.language.node import Node
from tensorprog.limits.simplify.densities import tidied
from tensorprog.limits.simplify.diagonal import on_diagonals
from tensorprog.limits.simplify.sums import summed_inside

__all__ = ["PASSES", "simplified"]

PASSES: tuple[Callable[[Sequence[Node]], list[Node]], ...] = (on_diagonals, tidied, summed_inside)
"""In this order; what is carried out over pairs of examples goes through more of them, `limits/pairs/blocks.py`."""


def simplified(outputs: Sequence[Node]) -> list[Node]:
    """The same scalars, for less.

    Args:
        outputs: Scalar programs.
    """
    outputs = list(outputs)
    for one in PASSES:
        outputs = one(outputs)
    return outputs
