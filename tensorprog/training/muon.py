"""Muon: hidden matrices move by the orthogonalised momentum of their gradients.

The momentum is G = D H', a sum over examples and steps of products d h' of vectors, of far smaller rank than width. The steps of
Newton and Schulz make of it G p(G'G), an odd polynomial with singular values near 1. As G (G'G)^k = D K^k H' with

    K = (H'H) (D'D),

they act on the small matrix between D and H alone. Its entries are Moments, and all steps are instructions of scalars.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.language import algebra
from tensorprog.language.node import Node
from tensorprog.language.symbols import number
from tensorprog.training.optimizers import SGD, Adam, Optimizer
from tensorprog.training.pairs import Pairs, product

__all__ = ["Muon"]

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of a step X <- a X + b (X X') X + c (X X')^2 X: those that practitioners use, which bring singular values to 0.7 .. 1.2."""

CANCELLED = 1e-8
"""Of squares, relative to those of all terms: what is smaller is rounding, after `MOST` steps that stretch it."""
MOST = 10


@dataclass(frozen=True)
class Muon:
    """Hidden matrices move by their momentum with all singular values brought near 1; other parameters as `others` says.

    A step of a hidden matrix W, rows x cols, with the gradient g of the batch, whose entries are scaled to order one:

        m <- momentum m + (1 - momentum) g,    u = (1 - momentum) g + momentum m    (or u = m, if not Nesterov's)
        X = u / sqrt(|u|^2 + eps^2 rows cols), |u| the Frobenius norm
        X <- a X + b (X X') X + c (X X')^2 X,  `steps` times
        W <- (1 - lr weight_decay) W - lr sqrt(rows / cols) X

    This is PyTorch's, but for its sqrt(max(1, rows / cols)), the same of square and tall matrices, and where eps stands.
    So |u| does not matter, lr is about the spectral norm of a step, and a good one is the same at all widths in muP (in the NTK
    parametrization a step is n^(-1/2) times this). Input layers, biases and readouts are trained by `others`, Adam as
    practitioners do; `tp.sgd(lr={"W": 0.02, "default": 0.001})` gives both their rates. Of a convolution every tap has a
    matrix of its own.

    Args:
        momentum: From 0 up to, and without, 1.
        nesterov: Whether to look ahead.
        steps: Of Newton and Schulz, up to 10; 0 divides by the norm and does no more.
        eps: More than 0; gradients that are 0 stay so.
        coefficients: (a, b, c).
        others: The optimiser of all that is no hidden matrix.

    Example:
        >>> import tensorprog as tp
        >>> n = tp.Width("n")
        >>> net = tp.Network(tp.readout("v", tp.dense("W", tp.dense("U", tp.Input("x"), n), n)))
        >>> muon = Muon(momentum=0, others=tp.SGD())
        >>> trace = tp.sgd(net, [[1]], [1], steps=2, lr=0.25, parametrization="mup", optimizer=muon)
        >>> tp.limit(trace)["f"].value.ravel().round(6).tolist()
        [0.0, 0.674109, 1.090314]

    Source: Jordan et al., Muon (https://kellerjordan.github.io/posts/muon, 2024), with its coefficients; the factor
        sqrt(rows / cols): Bernstein and Newhouse, Modular duality in deep learning (arXiv:2410.21265). That the steps are those
        of the small matrix, and the limit of infinite width, are this package's own.
    """

    momentum: Any = 0.95
    nesterov: bool = True
    steps: int = 5
    eps: Any = 1e-6
    coefficients: Sequence[Any] = COEFFICIENTS
    others: Optimizer = field(default_factory=Adam)
    linear: ClassVar[bool] = False

    def __post_init__(self) -> None:
        SGD(self.momentum, self.nesterov)  # which checks both
        if isinstance(self.steps, bool) or not isinstance(self.steps, (int, np.integer)) or not 0 <= self.steps <= MOST:
            raise TensorProgramError(
                f"steps={self.steps!r} of Muon", fix=f"give a whole number up to {MOST}, 5 as a rule"
            )
        if not number(self.eps, "eps") > 0:
            raise TensorProgramError(f"eps={self.eps} of Muon", fix="give a number above 0")
        if np.shape(self.coefficients) != (3,):
            raise TensorProgramError(f"coefficients={self.coefficients!r} of Muon", fix="give three numbers a, b, c")
        object.__setattr__(self, "coefficients", tuple([number(c, "a coefficient") for c in self.coefficients]))
        if isinstance(self.others, Muon) or not (hasattr(self.others, "step") and hasattr(self.others, "linear")):
            raise TensorProgramError(
                f"others={self.others!r} of Muon", fix="use tp.SGD(..), tp.Adam(..) or tp.SignSGD(..)"
            )
        if getattr(self.others, "weight_decay", 0):
            raise TensorProgramError(
                "a coupled weight decay beside Muon",
                why="it would be a part of the gradients that are orthogonalised",
                fix="use tp.sgd(.., weight_decay=)",
            )

    def step(self, known: Any, gradient: Node) -> tuple[Node, Any]:
        """That of what is no hidden matrix; see `Optimizer`."""
        return self.others.step(known, gradient)

    def matrix_step(self, known: Any, gradient: Sequence[Pairs]) -> tuple[Node, Any]:
        """The direction of a step of a hidden matrix, and what is to be known at the next one.

        Args:
            known: The momentum, a dictionary of h to what SGD knows of d in G = sum of d h'; None at first.
            gradient: Its parts.
        """
        mu = number(self.momentum)
        rule = SGD(mu, self.nesterov)
        new: dict[Node, Node] = {}
        for pairs in gradient:
            for d, h in pairs.single():
                new[h] = algebra.add([(1, new[h]), (1, d)]) if h in new else d
        kept: dict[Node, Any] = {}
        rows: dict[Node, Node] = {}
        for h in dict.fromkeys([*(known or {}), *new]):
            d = new[h] if h in new else algebra.constant(0, (), gradient[0].rows.width)
            rows[h], kept[h] = rule.step((known or {}).get(h), algebra.scale(1 - mu, d))
        return self._orthogonalised(list(rows.values()), list(rows)), kept if mu else None

    def _orthogonalised(self, rows: list[Node], cols: list[Node]) -> Node:
        """The sum of d h', as the values of a matrix, brought near an orthogonal one by the steps."""
        d, h = algebra.stack(rows, 0), algebra.stack(cols, 0)
        gd, gh = _gram(d), _gram(h)
        scale = self._scale(gd, gh)
        one = algebra.constant(np.eye(len(rows), dtype=int))
        core = algebra.mul([scale, one])
        a, b, c = self.coefficients
        even = algebra.mul([scale, scale, _times(gh, gd)])  # X X' between D and H: (core)^2 K
        for k in range(self.steps):
            p = algebra.add([(a, one), (b, even), (c, _times(even, even))])
            core = algebra.mul([scale, p]) if k == 0 else _times(p, core)
            if k < self.steps - 1:
                even = _times(_times(p, p), even)
        size = len(rows)
        mixed = algebra.mul([algebra.view(core, (0, 1), (size, size)), algebra.view(d, (0,), (size, size))])
        left = algebra.sum_axis(algebra.typed(mixed, (size, size), d.width, None), 0)
        return product(left, h)

    def _scale(self, gd: Node, gh: Node) -> Node:
        """1 / |sum of d h'|, with eps.

        Terms that cancel leave rounding, which may be no square: of the small matrix it would make an eigenvalue below 0, and
        the steps would blow it up. So (CANCELLED T)^2 / (square + CANCELLED T) is added, T the sum of the squares of all terms:
        no more than rounding where they do not cancel, and the square root of rounding where they do.
        """
        eps = algebra.constant(number(self.eps) ** 2)
        one = algebra.constant(np.eye(gd.shape[0], dtype=int))
        square = algebra.fn("relu", _everything(algebra.mul([gd, gh])))  # which it is without, up to rounding
        rest = algebra.scale(CANCELLED, algebra.fn("relu", _everything(algebra.mul([one, gd, gh]))))
        guard = algebra.mul([rest, rest, algebra.fn("reciprocal", algebra.add([(1, square), (1, rest), (1, eps)]))])
        return algebra.fn("reciprocal", algebra.fn("sqrt", algebra.add([(1, square), (1, guard), (1, eps)])))


def _everything(x: Node) -> Node:
    for _ in x.shape:
        x = algebra.sum_axis(x, 0)
    return x


def _gram(x: Node) -> Node:
    """E x_r x_s."""
    size = x.shape[0]
    both = algebra.mul([algebra.view(x, (0,), (size, size)), algebra.view(x, (1,), (size, size))])
    return algebra.moment(algebra.typed(both, (size, size), x.width, None))


def _times(a: Node, b: Node) -> Node:
    """The product of two square matrices of scalars."""
    size = a.shape[0]
    cube = (size, size, size)
    both = algebra.mul([algebra.view(a, (0, 1), cube), algebra.view(b, (1, 2), cube)])
    return algebra.sum_axis(algebra.typed(both, cube, None, None), 1)
