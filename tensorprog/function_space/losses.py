"""A loss of `tp.sgd` as functions of arrays: its values and slopes at outputs of all training examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tensorprog.arrays.plan import schedule
from tensorprog.language import algebra
from tensorprog.language.node import Node
from tensorprog.training.losses import loss_of

__all__ = ["ArrayLoss"]


class ArrayLoss:
    """A loss on targets.

    Args:
        loss: As for `tp.sgd`: "mse", "logistic", "cross_entropy", or a function of outputs and targets.
        y: The targets.
        examples: How many.
        outputs: The number of outputs; None for one that has no axis.

    Attributes:
        name: What it is called.
        shape: Of outputs f: (examples,) or (examples, outputs).
        targets: The targets, classes as rows of a unit matrix.

    Example:
        >>> loss = ArrayLoss("logistic", [1, -1], 2, None)
        >>> loss.slope(np.zeros(2)).tolist(), loss.mean(np.zeros(2)).round(4).tolist()
        ([-0.5, 0.5], 0.6931)
    """

    def __init__(self, loss: Any, y: Any, examples: int, outputs: int | None) -> None:
        found = loss_of(loss, y, examples, outputs)
        self.name = loss if isinstance(loss, str) else getattr(loss, "__name__", "a loss")
        self.shape = (examples,) if outputs is None else (examples, outputs)
        self.targets = found.targets
        f = algebra.hyperparameter("f", None, self.shape)
        self._signal = _compiled(found.signal(f, range(examples)), f)
        self._mean = _compiled(found.mean(f, range(examples)), f)

    def slope(self, f: np.ndarray) -> np.ndarray:
        """The derivative of every example's loss in its outputs, of the shape of f."""
        return self.shape[0] * np.broadcast_to(self._signal(f), f.shape)

    def mean(self, f: np.ndarray) -> np.ndarray:
        """The mean over the examples."""
        return np.asarray(self._mean(f))

    def curvature(self, f: np.ndarray) -> np.ndarray:
        """Second derivatives of every example's loss (examples, outputs, outputs), by differences."""
        table = f.reshape(len(f), -1)
        step = 1e-6 * (1 + np.abs(table).max(initial=0.0))
        found = []
        for k in range(table.shape[1]):
            move = np.zeros_like(table)
            move[:, k] = step
            move = move.reshape(f.shape)
            found.append((self.slope(f + move) - self.slope(f - move)).reshape(table.shape) / (2 * step))
        return np.stack(found, axis=2)


def _compiled(node: Node, f: Node) -> Callable[[np.ndarray], Any]:
    steps = schedule([node], moments=False)

    def compute(x: np.ndarray) -> Any:
        known: dict[Node, Any] = {f: x}
        with np.errstate(over="ignore", under="ignore"):
            for step in steps:
                if step.node not in known:
                    assert step.compute is not None
                    known[step.node] = step.compute(*[known[a] for a in step.operands])
        return known[node]

    return compute
