"""Infinite moments of inverse powers, where the rest of their integrals is sampled: sampling would not notice them."""

from __future__ import annotations

from collections.abc import Iterable

from tensorprog.language.node import Node, topological
from tensorprog.limits.evaluate.scalar import ScalarProgram

__all__ = ["check_moments"]


def check_moments(unweighed: Iterable[Node]) -> None:
    """Evaluates weights, which refuse infinite moments.

    Args:
        unweighed: Those that no scalar program has, of what has no closed form under a tilted law
            (`limits/expect/expectation.py:Expectation.unweighed`).

    Raises:
        TensorProgramError: An expectation is infinite.
    """
    for weights in unweighed:
        if not any(x.op == "scalar" for x in topological([weights])):
            ScalarProgram([weights]).run(level=0)
