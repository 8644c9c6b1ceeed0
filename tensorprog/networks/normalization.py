"""Layer and batch normalization."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tensorprog.errors import MissingAxis, TensorProgramError
from tensorprog.language import build
from tensorprog.language.deferred import layer
from tensorprog.language.describe import describe
from tensorprog.language.expression import Expression
from tensorprog.language.leaves import Vector
from tensorprog.language.symbols import Number, number
from tensorprog.networks.inputs import EXAMPLE
from tensorprog.networks.layers import squared, vector

__all__ = ["batch_norm", "layer_norm", "scale"]


@layer
def scale(name: str, x: Any, g_std: Any = 0, lr: Any = 1, shift: bool = False) -> Expression:
    """A gain: g x coordinate by coordinate, g trained, with mean 1; with a shift `name_b` that starts at 0.

    Args:
        name: The name of g. The same name is the same gain.
        x: A vector; axes are kept, all positions have one gain.
        g_std: Standard deviation of the coordinates of g.
        lr: The learning rate of g and of the shift: their parts of the tangent kernel are lr Moment(dg dg'), in every
            parametrization.
        shift: Also add a trained vector.

    Returns:
        A vector with the width and the axes of x.

    Example:
        >>> import tensorprog as tp
        >>> h = tp.scale("g", tp.relu(tp.dense("U", tp.Input("x"), tp.Width("n"))))
        >>> kernel = tp.kernel_fn(tp.Network(tp.readout("v", h)))
        >>> kernel([[2.0]], get="ntk"), kernel([[2.0]], get="ntk_g")
        (array([[6.]]), array([[2.]]))

    Source: Ba, Kiros, Hinton 2016 (arXiv:1607.06450), section 3: gains after normalization.
    """
    x = vector(x, name)
    return _scaled(x, name, f"{name}_b" if shift else None, lr, squared(g_std, f"g_std of {name}"))


def _scaled(x: Expression, gain: str | None, shift: str | None, lr: Any, var: Number = 0) -> Expression:
    """Times a trained vector of mean 1, plus one of mean 0."""
    width = x.width
    assert width is not None
    if gain is not None:
        x = x * Vector(gain, width, mean=1, var=var, lr=lr)
    return x if shift is None else x + Vector(shift, width, mean=0, var=0, lr=lr)


@layer
def layer_norm(x: Any, eps: Number = 0, gain: str | None = None, shift: str | None = None, lr: Any = 1) -> Expression:
    """Layer normalization: (x - m) / sqrt(s^2 + eps), m and s^2 the mean and the variance of the coordinates of x.

    Every position of the axes is normalized by itself. The variance is that of all n coordinates (biased).

    Args:
        x: A vector; axes are kept.
        eps: Added to the variance, at least 0.
        gain: The name of a trained gain, 1 at first, that the result is multiplied with; by default there is none.
        shift: The name of a trained vector, 0 at first, that is added; by default there is none.
        lr: The learning rate of both, see `scale`.

    Returns:
        A vector with the width and the axes of x.

    Example:
        >>> import tensorprog as tp
        >>> x = tp.Vector("x", tp.Width("n"), mean=3, var=4)
        >>> tp.limit(tp.Program(q=tp.moment(tp.layer_norm(x) ** 2)))
        q = 1 (exact)
        >>> print(round(tp.limit(tp.Program(q=tp.moment(tp.layer_norm(x, eps=4) ** 2)))["q"].value, 12))
        0.5

    Source: Ba, Kiros, Hinton 2016 (arXiv:1607.06450), equation 3; Tensor Programs II (arXiv:2006.14548), appendix D.
    """
    x = vector(x, "layer_norm")
    centred = x - build.moment(x)
    return _scaled(centred * (build.moment(centred * centred) + _eps(eps)) ** -0.5, gain, shift, lr)


@layer
def batch_norm(
    x: Any,
    eps: Number = 0,
    axis: str = EXAMPLE,
    axes: str | Sequence[str] = (),
    gain: str | None = None,
    shift: str | None = None,
    lr: Any = 1,
) -> Expression:
    """Batch normalization in training mode: (x - m) / sqrt(s^2 + eps), m and s^2 over the examples of the batch.

    Every coordinate is normalized by itself. The variance is biased (over B examples: divided by B). An example's
    output depends on its whole batch, so that X and X2 of a kernel are two batches.

    Args:
        x: A vector with the axis; axes are kept.
        eps: Added to the variance, at least 0.
        axis: The axis of the batch.
        axes: More axes to take the statistics over: `("h", "w")` for images.
        gain: The name of a trained gain, 1 at first, that the result is multiplied with; by default there is none.
        shift: The name of a trained vector, 0 at first, that is added; by default there is none.
        lr: The learning rate of both, see `scale`.

    Returns:
        A vector with the width and the axes of x.

    Raises:
        TensorProgramError: an axis x has not; one position only, with eps = 0.

    Example:
        >>> import tensorprog as tp
        >>> h = tp.batch_norm(tp.dense("U", tp.Input("x"), tp.Width("n")))
        >>> tp.kernel_fn(tp.Network(tp.readout("v", h)))([[1.0], [2.0], [3.0], [4.0]], get="nngp").round(6)
        array([[ 1.8,  0.6, -0.6, -1.8],
               [ 0.6,  0.2, -0.2, -0.6],
               [-0.6, -0.2,  0.2,  0.6],
               [-1.8, -0.6,  0.6,  1.8]])

    Source: Ioffe, Szegedy 2015 (arXiv:1502.03167), algorithm 1; Tensor Programs II (arXiv:2006.14548), appendix D.
    """
    x = vector(x, "batch_norm")
    over = (axis, *((axes,) if isinstance(axes, str) else axes))
    count = 1
    for a in over:
        if a not in x.axes:
            error = MissingAxis(  # without the examples' axis, kernel_fn knows from this that they mix
                f"batch_norm over the axis {a!r} of {describe(x.node)}",
                why=f"its axes are {x.axes or 'none'}",
                fix="give it a vector made of a tp.Input, or name another axis: tp.batch_norm(x, axis=..)",
            )
            error.axis = a
            raise error
        count *= x.shape[x.axes.index(a)]
    constant = _eps(eps)
    if count == 1 and constant == 0:
        raise TensorProgramError(
            "batch_norm of a batch of one", why="its variance is 0", fix="give more examples, or eps > 0"
        )
    centred = x - build.mean(x, over)
    return _scaled(centred * (build.mean(centred * centred, over) + constant) ** -0.5, gain, shift, lr)


def _eps(eps: Any) -> Number:
    value = number(eps, "eps")
    if value < 0:
        raise TensorProgramError(f"eps is {value}", fix="it is added to a variance: give at least 0")
    return value
