"""Optimisers: what a step makes of the gradient of a parameter, as instructions.

A gradient has the scale of one, whatever the width: of a matrix it is n times that of omega, entry by entry a product of
back-propagation's dg and h, summed over uses and examples. What is no linear function of it acts on entries (an OuterNonlin).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.language import algebra
from tensorprog.language.node import Node
from tensorprog.language.symbols import number

__all__ = ["SGD", "Adam", "Optimizer", "SignSGD"]


class Optimizer(Protocol):
    """What makes a step of a gradient.

    One that has a method `matrix_step`, too, makes those of hidden matrices of pairs of vectors (`training/muon.py`), and is
    linear or not in all else as its `others` is.

    Attributes:
        linear: Is the step a linear function of all gradients so far?
    """

    linear: ClassVar[bool]

    def step(self, known: Any, gradient: Node) -> tuple[Node, Any]:
        """The direction of a step, and what is to be known at the next one; `known` is None at the first."""
        ...


@dataclass(frozen=True)
class SGD:
    """Gradient descent with momentum: m <- momentum m + g, a step by m; Nesterov's by g + momentum m.

    Args:
        momentum: From 0 up to, and without, 1.
        nesterov: Whether to look ahead.
        weight_decay: Times a parameter, is added to its gradient before the momentum (coupled, as in PyTorch's SGD); that of
            `tp.sgd` is decoupled, as in AdamW. Where features are learned.

    Example:
        >>> SGD(momentum=0.9)
        SGD(momentum=0.9, nesterov=False, weight_decay=0)
    """

    momentum: Any = 0
    nesterov: bool = False
    weight_decay: Any = 0
    linear: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check("the momentum", self.momentum)
        if not isinstance(self.nesterov, (bool, np.bool_)):
            raise TensorProgramError(f"nesterov={self.nesterov!r} of an optimizer", fix="give True or False")
        if not number(self.weight_decay, "the weight decay") >= 0:
            raise TensorProgramError(f"weight_decay={self.weight_decay} of SGD", fix="give a number of at least 0")

    def step(self, known: Any, gradient: Node) -> tuple[Node, Any]:
        """See `Optimizer`."""
        mu = number(self.momentum)
        if mu == 0:
            return gradient, None
        m = gradient if known is None else _combined((mu, known), (1, gradient))
        return (_combined((1, gradient), (mu, m)) if self.nesterov else m), m


@dataclass(frozen=True)
class Adam:
    """Adam, entry by entry: m and s are running means of g and g^2, a step is by m / sqrt(s + eps^2), both without their bias.

    eps is inside the root, and is added to gradients of order one: so Adam is a smooth function that knows no width.

    Args:
        beta1: Of the running mean of g.
        beta2: Of that of g^2.
        eps: More than 0.

    Example:
        >>> Adam(eps=1e-4)
        Adam(beta1=0.9, beta2=0.999, eps=0.0001)

    Source: Yang and Littwin, Tensor Programs IVb (arXiv:2308.01814), section 2.1.
    """

    beta1: Any = 0.9
    beta2: Any = 0.999
    eps: Any = 1e-8
    linear: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check("beta1", self.beta1)
        _check("beta2", self.beta2)
        if not number(self.eps, "eps") > 0:
            raise TensorProgramError(f"eps={self.eps} of Adam", fix="give a number above 0")

    def step(self, known: Any, gradient: Node) -> tuple[Node, Any]:
        """See `Optimizer`."""
        b1, b2, eps = number(self.beta1), number(self.beta2), number(self.eps)
        t, m, s = known or (0, None, None)
        square = algebra.power(gradient, 2)
        m = _combined((1 - b1, gradient), *([] if m is None else [(b1, m)]))
        s = _combined((1 - b2, square), *([] if s is None else [(b2, s)]))
        t += 1
        below = algebra.add([(1 / (1 - b2**t), s), (eps * eps, algebra.ONE)])
        root = algebra.fn("reciprocal", algebra.fn("sqrt", _like(below, gradient)))
        return algebra.scale(1 / (1 - b1**t), algebra.mul([m, root])), (t, m, s)


@dataclass(frozen=True)
class SignSGD:
    """A step by the sign of the gradient, entry by entry; by g / sqrt(g^2 + eps^2) where eps is more than 0.

    Args:
        eps: At least 0.

    Example:
        >>> SignSGD()
        SignSGD(eps=0)

    Source: Bernstein et al. 2018; Yang and Littwin, Tensor Programs IVb (arXiv:2308.01814), example 2.4.6.
    """

    eps: Any = 0
    linear: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not number(self.eps, "eps") >= 0:
            raise TensorProgramError(f"eps={self.eps} of SignSGD", fix="give a number of at least 0")

    def step(self, known: Any, gradient: Node) -> tuple[Node, Any]:
        """See `Optimizer`."""
        eps = number(self.eps)
        if eps == 0:
            return algebra.fn("sign", gradient), None
        below = _like(algebra.add([(1, algebra.power(gradient, 2)), (eps * eps, algebra.ONE)]), gradient)
        return algebra.mul([gradient, algebra.fn("reciprocal", algebra.fn("sqrt", below))]), None


def _check(what: str, given: Any) -> None:
    if not 0 <= number(given, what) < 1:
        raise TensorProgramError(f"{what} {given} of an optimizer", fix="give a number from 0 up to, and without, 1")


def _combined(*terms: tuple[Any, Node]) -> Node:
    return _like(algebra.add(terms), terms[0][1])


def _like(x: Node, other: Node) -> Node:
    return algebra.typed(x, other.shape, other.width, other.inner)
