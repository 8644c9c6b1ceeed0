"""Convolutions: a sum over the offsets of the filter, each with a matrix of its own."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import product
from math import prod
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.language import build
from tensorprog.language.deferred import layer
from tensorprog.language.expression import Expression
from tensorprog.language.matrix import Matrix
from tensorprog.language.symbols import Number, Width, number, quotient
from tensorprog.networks.inputs import EXAMPLE, Bound
from tensorprog.networks.layers import (
    beside,
    bias,
    dense,
    deviation,
    hyperparameter,
    ordered,
    times,
    vector,
)

__all__ = ["Places", "conv", "places", "sizes"]

Places = tuple[tuple[int, ...], ...]
"""For every offset of a filter along an axis: the position that each position of the result reads, -1 for padding."""
PADDINGS = ("SAME", "VALID", "CIRCULAR")


def places(size: int, window: int, stride: int, padding: str, what: str) -> Places:
    """What a window reads along an axis of that size.

    "SAME" and "CIRCULAR" have ceil(size / stride) positions as a result, with zeros or the other end outside, the odd one
    at the end; "VALID" has those where the window fits.

    Raises:
        TensorProgramError: an unknown padding; a window that does not fit.

    Example:
        >>> places(4, 3, 1, "SAME", "conv")
        ((-1, 0, 1, 2), (0, 1, 2, 3), (1, 2, 3, -1))
    """
    if padding not in PADDINGS:
        raise TensorProgramError(f"{what} has padding {padding!r}", fix=f"use one of {', '.join(PADDINGS)}")
    if padding == "VALID":
        count, low = (size - window) // stride + 1, 0
        if size < window:
            raise TensorProgramError(
                f"the window of {what} has size {window}, and its axis {size}",
                fix='use a smaller one, or padding="SAME"',
            )
    else:
        count = -(-size // stride)
        low = max((count - 1) * stride + window - size, 0) // 2

    def position(i: int) -> int:
        return i % size if padding == "CIRCULAR" else i if 0 <= i < size else -1

    return tuple([tuple([position(p * stride + o - low) for p in range(count)]) for o in range(window)])


def sizes(value: Any, axes: Sequence[str], what: str) -> tuple[int, ...]:
    """A size for every axis: one integer for all, or a sequence of them."""
    if len(set(axes)) < len(axes):
        raise TensorProgramError(f"{what}: the axes {tuple(axes)}", fix="name every axis once")
    given = tuple(value) if isinstance(value, (list, tuple)) else (value,) * len(axes)
    if len(given) != len(axes) or not all(isinstance(k, (int, np.integer)) and k > 0 for k in given):
        raise TensorProgramError(
            f"{what}: {value!r}, for the axes {tuple(axes)}", fix="give a positive integer, or one for each axis"
        )
    return tuple([int(k) for k in given])


@layer
def conv(
    name: str,
    x: Any,
    n: Width,
    filter: int | Sequence[int] = 3,
    axes: str | Sequence[str] = ("h", "w"),
    padding: str = "SAME",
    strides: int | Sequence[int] = 1,
    W_std: Any = 1,
    b_std: Any = None,
) -> Expression:
    """A convolution: h_s = sum_k W_k x_(stride s + k) + b, k over the K offsets of the filter.

    The fan-in counts the filter: W_k has entries N(0, W_std^2 / (K n')) for a vector of width n'. Of data, W has columns
    for all features of a patch. A list means the concatenation of its channels, as for `dense`. (Tensor Programs II has
    variance W_std^2 / n' for each offset: there, W_std is K^-1/2 times that here.)

    Args:
        name: Of the weights: the matrices are `name_0_0`, `name_0_1`, .. by offset; of data, one input layer `name`; the
            bias is `name_b`. Of a list of vectors, the first has `name_0_0_0`, ..
        x: An Input or a vector, or a list of Inputs or of vectors, with the axes.
        n: The width of the result, its channels.
        filter: Its size along each axis, or one for all.
        axes: What it runs over; others are kept.
        padding: "SAME" (zeros outside), "VALID" (inside only) or "CIRCULAR". "SAME" with strides is that of TensorFlow and
            JAX: ceil(size / stride) positions, the padding split evenly and the odd one at the end. PyTorch's
            `padding=k//2` puts as many on both sides, so that with an even size and stride 2 its filters stand one to the
            left of these.
        strides: Along each axis, or one for all.
        W_std: Standard deviation of the weights, times the root of the fan-in.
        b_std: Of the bias, one for each channel; None for none.

    Returns:
        A vector of width n with the axes of x.

    Raises:
        TensorProgramError: axes that x has not; sizes, strides or a padding that make no sense.

    Example:
        >>> import tensorprog as tp
        >>> n = tp.Width("n")
        >>> h = tp.relu(tp.conv("U", tp.Input("x", axes=("t",)), n, filter=3, axes="t", W_std=2**0.5))
        >>> h = tp.relu(tp.conv("W", h, n, filter=3, axes="t", W_std=2**0.5))
        >>> net = tp.Network(tp.readout("v", tp.mean(h, "t")))
        >>> tp.limit(net.program([[[1.0], [0.0], [0.0], [-1.0]]], of="nngp"))["nngp"].value.round(3)
        array([[0.161]])

    Source: LeCun et al. 1989; Tensor Programs II (arXiv:2006.14548), appendix E.3; fan-in as neural-tangents' Conv.
    """
    if not isinstance(n, Width):
        raise TensorProgramError(f"layer {name} is given {n!r} as its width", fix='make one with tp.Width("n")')
    over = (axes,) if isinstance(axes, str) else tuple(axes)
    x = beside(x)
    listed = isinstance(x, (list, tuple))
    parts: list[Any] = [y if isinstance(y, Bound) and not listed else vector(y, name) for y in (x if listed else [x])]
    if not parts:
        raise TensorProgramError(f"layer {name} is given an empty list", fix="give vectors")
    for y in parts:
        for a in over:
            if a not in y.axes or a == EXAMPLE:
                raise TensorProgramError(
                    f"the convolution {name} runs over the axis {a!r}, and its input has {y.axes or 'none'}",
                    fix='name axes of the input: tp.conv(.., axes="t"), tp.Input("x", axes=("h", "w"))',
                )
    windows, steps = sizes(filter, over, f"the filter of {name}"), sizes(strides, over, f"the strides of {name}")
    var, factor = deviation(W_std, f"W_std of layer {name}")
    h: Any = None
    for i, y in enumerate(parts):
        reads = {
            a: places(y.shape[y.axes.index(a)], k, s, padding, name)
            for a, k, s in zip(over, windows, steps, strict=True)
        }
        if isinstance(y, Bound):
            whole = [reads.get(a, (tuple(range(y.size(a))),)) for a in y.axes if a != EXAMPLE]
            return dense(name, y.transformed(("patches", tuple(whole))), n, W_std=W_std, b_std=b_std)
        key = f"{name}_{i}" if listed else name
        part = quotient(y.width.ratio, sum([z.width.ratio for z in parts]))
        g = _convolved(key, y, n, reads, number(part * Fraction(1, prod(windows))), var, factor)
        h = g if h is None else h + g
    h = times(factor, ordered(h, parts[0].axes))
    return h if b_std is None else h + bias(f"{name}_b", n, b_std)


def _convolved(
    name: str, x: Expression, n: Width, reads: dict[str, Places], part: Number, var: Number, factor: Any
) -> Expression:
    """The sum over the offsets of the filter, every matrix with that part of the fan-in."""
    h: Any = None
    assert x.width is not None
    for offset in product(*[range(len(r)) for r in reads.values()]):
        shifted = x
        for (a, r), o in zip(reads.items(), offset, strict=True):
            shifted = _shifted(shifted, a, r[o])
        if shifted.node.is_zero:
            continue
        key = "_".join([name, *map(str, offset)])
        g = Matrix(key, n, x.width, var * part, share=part, std=hyperparameter(factor)) @ shifted
        h = g if h is None else h + g
    return h


def _shifted(x: Expression, axis: str, index: tuple[int, ...]) -> Expression:
    """x at those positions of an axis, 0 at -1."""
    inside = [i >= 0 for i in index]
    if not any(inside):
        return 0 * build.pick(x, axis, [0] * len(index))
    # What stands in for padding is masked. Without strides it continues the shift around the end: the adjoint of a
    # permutation, in back-propagation, is one pick; of a pick with repeats, several.
    size = x.shape[x.axes.index(axis)]
    shift = next(i - p for p, i in enumerate(index) if i >= 0) if len(index) == size else 0
    picked = build.pick(x, axis, [i if i >= 0 else (p + shift) % size for p, i in enumerate(index)])
    return picked if all(inside) else picked * build.array(np.array(inside, dtype=np.int64), axis)
