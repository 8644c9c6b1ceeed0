"""Optimisers: what a step makes of the gradient of a parameter, as instructions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from tensorprog.errors import TensorProgramError
from tensorprog.language import algebra
from tensorprog.language.node import Node
from tensorprog.language.symbols import number

__all__ = ["SGD", "Optimizer"]


class Optimizer(Protocol):
    """What makes a step of a gradient, with what it remembers of earlier ones."""

    def step(self, state: dict[Any, Any], key: Any, gradient: Node) -> Node: ...  # noqa: D102


@dataclass(frozen=True)
class SGD:
    """Gradient descent with momentum: m <- momentum m + g, a step by m; Nesterov's by g + momentum m.

    Args:
        momentum: From 0 up to, and without, 1.
        nesterov: Whether to look ahead.

    Example:
        >>> SGD(momentum=0.9)
        SGD(momentum=0.9, nesterov=False)
    """

    momentum: Any = 0
    nesterov: bool = False

    def __post_init__(self) -> None:
        if not 0 <= number(self.momentum, "the momentum") < 1:
            raise TensorProgramError(f"momentum={self.momentum}", fix="give a number from 0 up to, and without, 1")

    def step(self, state: dict[Any, Any], key: Any, gradient: Node) -> Node:
        """The direction of a step."""
        mu = number(self.momentum)
        if mu == 0:
            return gradient
        before = state.get(key)
        m = gradient if before is None else algebra.add([(mu, before), (1, gradient)])
        state[key] = m = algebra.typed(m, gradient.shape, gradient.width, gradient.inner)
        return algebra.add([(1, gradient), (mu, m)]) if self.nesterov else m
