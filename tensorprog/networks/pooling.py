"""Pooling: averages over windows and whole axes, and the largest of a few vectors."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.language import build
from tensorprog.language.deferred import layer
from tensorprog.language.describe import describe
from tensorprog.language.expression import Expression, as_expression
from tensorprog.networks.convolution import places, sizes
from tensorprog.networks.inputs import EXAMPLE
from tensorprog.networks.layers import ordered, vector

__all__ = ["avg_pool", "global_avg_pool", "max_over"]


@layer
def avg_pool(
    x: Any,
    window: int | Sequence[int] = 2,
    axes: str | Sequence[str] = ("h", "w"),
    strides: int | Sequence[int] | None = None,
    padding: str = "VALID",
) -> Expression:
    """The mean over windows along axes.

    Args:
        x: A vector with the axes.
        window: Its size along each axis, or one for all.
        axes: What is pooled; others are kept.
        strides: Along each axis, or one for all; the window's size by default.
        padding: "VALID", "SAME" or "CIRCULAR", as for `conv`; zeros outside count in the mean.

    Returns:
        A vector of the width of x, with its axes; those pooled are shorter.

    Example:
        >>> import tensorprog as tp
        >>> x = tp.Vector("x", tp.Width("n"), axes={"t": 6})
        >>> y = tp.avg_pool(x, 2, axes="t")
        >>> y.shape, tp.limit(tp.Program(q=tp.moment(y * y)))["q"].value.tolist()
        ((3,), [Fraction(1, 2), Fraction(1, 2), Fraction(1, 2)])

    Source: LeCun et al. 1998; edges as neural-tangents' AvgPool with normalize_edges=False.
    """
    over = (axes,) if isinstance(axes, str) else tuple(axes)
    x = _with(x, over, "avg_pool")
    windows = sizes(window, over, "the window of avg_pool")
    steps = windows if strides is None else sizes(strides, over, "the strides of avg_pool")
    for a, k, s in zip(over, windows, steps, strict=True):
        size = x.shape[x.axes.index(a)]
        reads = places(size, k, s, padding, "avg_pool")
        # A contraction with a constant matrix: in the limit a product of two matrices, however large the window.
        counts = np.zeros((len(reads[0]), size), dtype=np.int64)
        for index in reads:
            for p, i in enumerate(index):
                if i >= 0:
                    counts[p, i] += 1
        source = f"{a}_pooled"
        while source in x.axes:
            source += "_"
        y = build.rename(x, **{a: source})
        x = ordered(build.sum(build.array(counts, (a, source)) * y, source) * Fraction(1, k), x.axes)
    return x


@layer
def global_avg_pool(x: Any, axes: str | Sequence[str] | None = None) -> Expression:
    """The mean over whole axes: all but that of the examples, unless they are named.

    Example:
        >>> import tensorprog as tp
        >>> x = tp.Vector("x", tp.Width("n"), axes={"example": 2, "h": 3, "w": 3})
        >>> tp.global_avg_pool(x).axes
        ('example',)

    Source: Lin, Chen, Yan 2014 (arXiv:1312.4400).
    """
    x = vector(x, "global_avg_pool")
    over = [a for a in x.axes if a != EXAMPLE] if axes is None else [axes] if isinstance(axes, str) else list(axes)
    return build.mean(_with(x, over, "global_avg_pool"), over)


def _with(x: Any, axes: Sequence[str], what: str) -> Expression:
    x = vector(x, what)
    for a in axes:
        if a not in x.axes:
            raise TensorProgramError(
                f"{what} over the axis {a!r}, and {describe(x.node)} has {x.axes or 'none'}", fix="name one of them"
            )
    return x


@layer
def max_over(xs: Sequence[Any]) -> Expression:
    """The largest of a few vectors, coordinate by coordinate: max(a, b) = a + relu(b - a).

    Args:
        xs: Expressions of one width; max pooling takes them from an axis: [tp.take(x, "t", i) for i in range(3)].

    Returns:
        A vector (or a scalar, if all are).

    Example:
        >>> import tensorprog as tp
        >>> x, y = tp.vectors(("x", "y"), tp.Width("n"))
        >>> print(tp.limit(tp.Program(m=tp.moment(tp.max_over([x, y])))))
        m = 0.564189583547...

    Source: max pooling and maxout, Goodfellow et al. 2013 (arXiv:1302.4389).
    """
    if not isinstance(xs, (list, tuple)) or not xs:
        raise TensorProgramError("max_over is given no list of vectors", fix="give a list: tp.max_over([x, y])")
    largest, *others = map(as_expression, xs)
    for y in others:
        largest = largest + build.relu(y - largest)
    return largest
