"""Layer and batch normalization."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tensorprog.errors import TensorProgramError
from tensorprog.language import build
from tensorprog.language.deferred import layer
from tensorprog.language.describe import describe
from tensorprog.language.expression import Expression
from tensorprog.language.symbols import Number, number
from tensorprog.networks.inputs import EXAMPLE
from tensorprog.networks.layers import vector

__all__ = ["batch_norm", "layer_norm"]


@layer
def layer_norm(x: Any, eps: Number = 0) -> Expression:
    """Layer normalization: (x - m) / sqrt(s^2 + eps), m and s^2 the mean and the variance of the coordinates of x.

    Every position of the axes is normalized by itself. The variance is that of all n coordinates (biased), and there are no
    gains and shifts.

    Args:
        x: A vector; axes are kept.
        eps: Added to the variance, at least 0.

    Returns:
        A vector with the width and the axes of x.

    Example:
        >>> import tensorprog as tp
        >>> x = tp.Vector("x", tp.Width("n"), mean=3, var=4)
        >>> tp.limit(tp.Program(q=tp.moment(tp.layer_norm(x) ** 2)))
        q = 1 (exact)
        >>> tp.limit(tp.Program(q=tp.moment(tp.layer_norm(x, eps=4) ** 2)))["q"].value
        0.5

    Source: Ba, Kiros, Hinton 2016 (arXiv:1607.06450), equation 3; Tensor Programs II (arXiv:2006.14548), appendix D.
    """
    x = vector(x, "layer_norm")
    centred = x - build.moment(x)
    return centred * (build.moment(centred * centred) + _eps(eps)) ** -0.5


@layer
def batch_norm(x: Any, eps: Number = 0, axis: str = EXAMPLE, axes: str | Sequence[str] = ()) -> Expression:
    """Batch normalization in training mode: (x - m) / sqrt(s^2 + eps), m and s^2 over the examples of the batch.

    Every coordinate is normalized by itself. The variance is biased (over B examples: divided by B); there are no gains
    and shifts. An example's output depends on its whole batch, so that X and X2 of a kernel are two batches.

    Args:
        x: A vector with the axis; axes are kept.
        eps: Added to the variance, at least 0.
        axis: The axis of the batch.
        axes: More axes to take the statistics over: `("h", "w")` for images.

    Returns:
        A vector with the width and the axes of x.

    Raises:
        TensorProgramError: an axis x has not; one position only, with eps = 0.

    Example:
        >>> import tensorprog as tp
        >>> x = tp.Vector("x", tp.Width("n"), axes={"example": 4})
        >>> y = tp.batch_norm(x)
        >>> runs = tp.run(tp.Program(q=tp.mean(tp.moment(y * y))), n=64, seeds=1)
        >>> print(round(float(runs["q"][0]), 12))
        1.0

    Source: Ioffe, Szegedy 2015 (arXiv:1502.03167), algorithm 1; Tensor Programs II (arXiv:2006.14548), appendix D.
    """
    x = vector(x, "batch_norm")
    over = (axis, *((axes,) if isinstance(axes, str) else axes))
    count = 1
    for a in over:
        if a not in x.axes:
            raise TensorProgramError(
                f"batch_norm over the axis {a!r} of {describe(x.node)}",
                why=f"its axes are {x.axes or 'none'}",
                fix="give it a vector made of a tp.Input, or name another axis: tp.batch_norm(x, axis=..)",
            )
        count *= x.shape[x.axes.index(a)]
    constant = _eps(eps)
    if count == 1 and constant == 0:
        raise TensorProgramError(
            "batch_norm of a batch of one", why="its variance is 0", fix="give more examples, or eps > 0"
        )
    centred = x - build.mean(x, over)
    return centred * (build.mean(centred * centred, over) + constant) ** -0.5


def _eps(eps: Any) -> Number:
    value = number(eps, "eps")
    if value < 0:
        raise TensorProgramError(f"eps is {value}", fix="it is added to a variance: give at least 0")
    return value
