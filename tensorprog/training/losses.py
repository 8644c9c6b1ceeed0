"""Losses: what an output costs, and the error signal chi, its derivative, as scalars of the program."""

from __future__ import annotations

import operator
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from inspect import signature
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.language import algebra, build
from tensorprog.language.activations import exp, log, sigmoid, softplus
from tensorprog.language.expression import Expression, as_expression
from tensorprog.language.node import Node
from tensorprog.networks.inputs import EXAMPLE
from tensorprog.transforms.backprop import backprop

__all__ = ["LOSSES", "OUTPUT", "Loss", "loss_of", "takes"]

OUTPUT = "output"


@dataclass(frozen=True)
class Loss:
    """A loss on given targets.

    Attributes:
        targets: One row for each example.
        value: Of outputs f and targets, for every example.
        slope: Its derivative in f.
    """

    targets: np.ndarray
    value: Callable[[Any, Any], Any]
    slope: Callable[[Any, Any], Any]

    def __getstate__(self) -> dict[str, Any]:
        try:
            pickle.dumps(self.value)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            name = getattr(self.value, "__name__", type(self.value).__name__)
            raise TensorProgramError(
                f"a run of training whose loss is the function {name} cannot be pickled: {error}",
                why="pickle stores a function by its name in a module",
                fix="define it by def at the top of a module; or pickle trace.program",
            ) from None
        return self.__dict__

    def _of(self, rule: Callable[[Any, Any], Any], f: Node, examples: Any) -> Expression:
        axes = (EXAMPLE, OUTPUT)[: len(f.shape)]
        found = as_expression(
            rule(Expression(f, axes), build.array(self.targets[list(examples)], axes[: self.targets.ndim]))
        )
        return found

    def mean(self, f: Node, examples: Any) -> Node:
        """The mean over the examples, of outputs of shape (examples[, outputs])."""
        values = self._of(self.value, f, examples)
        if EXAMPLE not in values.axes:
            values = Expression(algebra.typed(values.node, (f.shape[0],), None, None), (EXAMPLE,))
        return build.mean(values, EXAMPLE).node

    def signal(self, f: Node, examples: Any) -> Node:
        """chi: the derivative of the mean in f, of the shape of f."""
        found = self._of(self.slope, f, examples) * Fraction(1, f.shape[0])
        axes = (EXAMPLE, OUTPUT)[: len(f.shape)]
        return algebra.typed(algebra.transpose(found.node, [found.names.index(a) for a in axes]), f.shape, None, None)


def _mse(f: Any, y: Any) -> Any:
    square = (f - y) ** 2 / 2
    return build.sum(square, OUTPUT) if OUTPUT in square.axes else square


def _logistic(f: Any, y: Any) -> Any:
    return softplus(-y * f)


def _logistic_slope(f: Any, y: Any) -> Any:
    return -y * sigmoid(-y * f)


def _cross_entropy(f: Any, y: Any) -> Any:
    """log sum exp f - y.f about m = p.f: no f is larger than m + log(outputs), and sum exp(f - m) >= 1: all of it is finite."""
    p = build.softmax(f, OUTPUT)
    m = build.sum(p * f, OUTPUT)
    return build.sum((p - y) * f, OUTPUT) + log(build.sum(exp(f - m), OUTPUT))


def _cross_entropy_slope(f: Any, y: Any) -> Any:
    return build.softmax(f, OUTPUT) - y


LOSSES: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]] = {
    "mse": (_mse, operator.sub),
    "logistic": (_logistic, _logistic_slope),
    "cross_entropy": (_cross_entropy, _cross_entropy_slope),
}
"""Name to (value, slope)."""


def loss_of(loss: Any, y: Any, examples: int, outputs: int | None) -> Loss:
    """A loss on targets.

    Args:
        loss: "mse", "logistic", "cross_entropy", or a function of outputs and targets with one number for each example.
        y: The targets: an array (examples[, outputs]); for cross-entropy the numbers of the classes.
        examples: How many there are.
        outputs: The number of outputs; None for a network with one that is not in a list.

    Raises:
        TensorProgramError: Targets that do not fit, or that the loss has no value for.
    """
    targets = _targets(y, examples)
    shape = (examples,) if outputs is None else (examples, outputs)
    if isinstance(loss, str) and loss == "cross_entropy":
        targets = _classes(targets, examples, outputs)
    elif targets.shape == (examples, 1) and outputs is None:
        targets = targets[:, 0]
    if isinstance(loss, str):
        if loss not in LOSSES:
            raise TensorProgramError(f"loss={loss!r}", fix=f"use a function, or one of {', '.join(LOSSES)}")
        if targets.shape != shape:
            raise TensorProgramError(
                f"targets y of shape {targets.shape}",
                why=f"the outputs have shape {shape}",
                fix="give one for each output",
            )
        if loss == "logistic" and not np.isin(targets, (-1, 1)).all():
            wrong = targets[~np.isin(targets, (-1, 1))].flat[0]
            raise TensorProgramError(
                f'the target {wrong} with loss="logistic"',
                why="its labels are 1 and -1",
                fix="give 2 * y - 1 for y of 0 and 1",
            )
        return Loss(targets, *LOSSES[loss])
    if not callable(loss):
        raise TensorProgramError(f"loss={loss!r}", fix=f"use a function of f and y, or one of {', '.join(LOSSES)}")
    if not takes(loss, "f", "y"):
        raise TensorProgramError(
            "a loss that is no function of two arguments", fix="give one of outputs f and targets y: lambda f, y: ..."
        )
    found = Loss(targets, loss, partial(_slope, loss))
    probe = algebra.hyperparameter("f", None, shape)
    value = found._of(loss, probe, range(examples))
    if value.width is not None or value.axes != (EXAMPLE,):
        raise TensorProgramError(
            f"the loss has axes {value.axes or 'none'}",
            why="it is one number for each example",
            fix="sum over the outputs",
        )
    return found


def _targets(y: Any, examples: int) -> np.ndarray:
    try:
        targets = np.asarray(y)
        ok = targets.dtype.kind in "iufb"
    except ValueError:
        ok = False
    if not ok or targets.ndim not in (1, 2):
        raise TensorProgramError(
            "targets y that are no array of numbers", fix="give an array (examples,) or (examples, outputs)"
        )
    if len(targets) != examples:
        raise TensorProgramError(f"{len(targets)} targets y for {examples} examples", fix="give one for each")
    if not np.isfinite(targets).all():
        raise TensorProgramError("a target y that is not finite", fix="leave such examples out")
    return targets.astype(np.int64) if targets.dtype.kind in "iub" else targets.astype(float)


def _classes(targets: np.ndarray, examples: int, outputs: int | None) -> np.ndarray:
    if outputs is None or outputs < 2:
        raise TensorProgramError(
            'loss="cross_entropy" of a network with one output', fix='give it one for each class; or use "logistic"'
        )
    if targets.shape == (examples, outputs):
        if (targets < 0).any() or np.abs(targets.sum(1) - 1).max(initial=0) > 1e-9:
            raise TensorProgramError(
                'targets y of loss="cross_entropy" that are no probabilities', fix="give rows of sum 1, or the classes"
            )
        return targets
    if targets.ndim != 1 or targets.dtype.kind != "i" or ((targets < 0) | (targets >= outputs)).any():
        raise TensorProgramError(
            'targets y of loss="cross_entropy"',
            why=f"they are classes: integers from 0 to {outputs - 1}",
            fix="check them",
        )
    return np.eye(outputs, dtype=np.int64)[targets]


def _slope(loss: Callable[[Any, Any], Any], f: Any, y: Any) -> Any:
    """The derivative of a user's loss, by the table of derivatives."""
    from tensorprog.transforms.rewrite import rewrite_nodes

    place = algebra.hyperparameter("f", None, f.node.shape)
    value = loss(Expression(place, f.names), y)
    back = backprop(build.sum(value, EXAMPLE).node)
    g = back.gradients.get(place)
    node = algebra.constant(0, f.node.shape) if g is None else g.node
    rule = lambda x, args: f.node if x == place else algebra.rebuild(x, args)  # noqa: E731
    return Expression(rewrite_nodes([node], rule)[node], f.names)


def takes(function: Callable[..., Any], *arguments: Any) -> bool:
    """Can a function be called with these arguments, as far as it says?"""
    try:
        signature(function).bind(*arguments)
    except TypeError:
        return False
    except ValueError:  # built in, and says nothing
        return True
    return True
