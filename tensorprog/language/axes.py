"""Axes put together and taken apart: concatenation, splitting, and several axes as one.

Nothing here is an instruction of its own. A concatenation is a sum of parts that are spread over disjoint positions, each a
`pick` under a mask of zeros and ones; in the limit a Gaussian one is one Gaussian multi-vector, whose covariance is
computed block by block. A flattened vector is made of flattened vectors (`flat.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.language import algebra
from tensorprog.language.build import pick, size_of
from tensorprog.language.deferred import layer
from tensorprog.language.describe import describe
from tensorprog.language.expression import Expression, align, as_expression
from tensorprog.language.flat import flattened
from tensorprog.language.node import Node
from tensorprog.language.symbols import check_name

__all__ = ["concat", "flatten", "split"]


@layer
def concat(parts: Sequence[Any], axis: str) -> Any:
    """Expressions one after the other along an axis: a class token in front of patches, two sentences, the halves of an image.

    A part without the axis is one position. Other axes are matched by name; a part that lacks one is repeated along it. Inputs
    are concatenated as well, before a layer makes vectors of them; along "features", too.

    Args:
        parts: Vectors of one width, scalars, or Inputs.
        axis: The axis, whose size is the sum of the sizes.

    Raises:
        TensorProgramError: an empty list, vectors of different widths, a mixture of data and vectors.

    Example:
        >>> import tensorprog as tp
        >>> n = tp.Width("n")
        >>> patches = tp.Vector("x", n, axes={"t": 3}, mean=[1, 2, 3])
        >>> tokens = tp.concat([tp.Vector("class_token", n, mean=7), patches], "t")
        >>> tokens.shape, tp.limit(tp.Program(m=tp.moment(tokens)))["m"].value.tolist()
        ((4,), [7, 1, 2, 3])
    """
    check_name(axis, "an axis")
    if not isinstance(parts, (list, tuple)) or not parts:
        raise TensorProgramError(f"a concatenation along {axis!r} of {parts!r}", fix="give a list of vectors")
    if any(hasattr(p, "concatenated") for p in parts):
        return _of_data(parts, axis)
    xs = [as_expression(p) for p in parts]
    widths = {x.width for x in xs if x.width is not None}
    if len(widths) > 1 or any(x.node.inner for x in xs):
        raise TensorProgramError(
            f"vectors of widths {', '.join(sorted(w.name for w in widths))} are concatenated along {axis!r}",
            why="vectors of different widths never meet; an axis holds vectors of one width",
            fix="concatenate vectors of one width; for features of two widths give a layer the list: tp.dense(.., [x, y], n)",
        )
    width = next(iter(widths), None)
    sizes = [x.shape[x.axes.index(axis)] if axis in x.axes else 1 for x in xs]
    total, start = sum(sizes), 0
    spread = []
    for x, size in zip(xs, sizes, strict=True):
        places = np.arange(total) - start
        inside = (places >= 0) & (places < size)
        if axis in x.axes:  # what stands where the others are is masked; around the end, so that few positions repeat
            x = pick(x, axis, (places % size).tolist())
        spread.append((x, inside.astype(np.int64)))
        start += size
    order = list(dict.fromkeys(a for x in xs for a in x.axes))
    if axis not in order:
        order.insert(0, axis)
    masks = [Expression(algebra.constant(inside, inside.shape), (axis,)) for _, inside in spread]
    nodes, names, _ = align([*masks, *[x for x, _ in spread]])
    shape = nodes[0].shape or (1,)
    terms = []
    for mask, node in zip(nodes[: len(xs)], nodes[len(xs) :], strict=True):
        terms.append((1, algebra.typed(algebra.mul([mask, node]), shape, width, None)))
    return Expression(algebra.add(terms), names, order, any(x.in_body for x in xs))


def _of_data(parts: Sequence[Any], axis: str) -> Any:
    if not all(hasattr(p, "concatenated") for p in parts):
        raise TensorProgramError(
            f"data and vectors are concatenated along {axis!r}",
            why="data has features, vectors have a width",
            fix='make vectors of the data first: tp.dense("U", x, n)',
        )
    return parts[0].concatenated(parts[1:], axis)


def split(x: Any, axis: str, sizes: int | Sequence[int]) -> tuple[Any, ...]:
    """The parts of an axis, one after the other: the inverse of `concat`.

    Args:
        x: A vector, a scalar, or an Input, with the axis.
        axis: The axis.
        sizes: Of the parts, adding up to that of the axis; or the number of parts of equal size.

    Returns:
        A tuple of the parts, each with the axis.

    Example:
        >>> import tensorprog as tp
        >>> x = tp.Vector("x", tp.Width("n"), axes={"t": 5}, mean=[0, 1, 2, 3, 4])
        >>> first, rest = tp.split(x, "t", [2, 3])
        >>> first.shape, tp.limit(tp.Program(m=tp.moment(rest)))["m"].value.tolist()
        ((2,), [2, 3, 4])
    """
    counts: list[Any] = list(sizes) if isinstance(sizes, (list, tuple)) else [sizes]
    if not counts or not all(isinstance(k, (int, np.integer)) and not isinstance(k, bool) and k > 0 for k in counts):
        raise TensorProgramError(f"axis {axis!r} is split into {sizes!r}", fix="sizes are positive integers")
    equal = len(counts) == 1 and not isinstance(sizes, (list, tuple))
    number = int(counts[0]) if equal else len(counts)
    return tuple([_part(x, axis, None if equal else tuple(map(int, counts)), number, k) for k in range(number)])


@layer
def _part(x: Any, axis: str, sizes: tuple[int, ...] | None, number: int, k: int) -> Any:
    """One part of an axis, once the size of the axis is known."""
    size = size_of(x, axis)
    counts = sizes or (size // number,) * number
    if sum(counts) != size:
        raise TensorProgramError(
            f"axis {axis!r} of size {size} is split into {number if sizes is None else sizes}",
            fix="give sizes that add up to it, or a number of parts that divides it",
        )
    start = sum(counts[:k])
    return pick(x, axis, range(start, start + counts[k]))


@layer
def flatten(x: Any, axes: Sequence[str], into: str) -> Any:
    """Several axes as one, the last one fastest: the positions of an image as tokens.

    Args:
        x: A vector, a scalar, or an Input, with the axes.
        axes: Two axes or more, in the order in which they are read.
        into: The name of the new axis.

    Example:
        >>> import tensorprog as tp
        >>> x = tp.Vector("x", tp.Width("n"), axes={"h": 2, "w": 3}, mean=[[0, 1, 2], [3, 4, 5]])
        >>> tp.limit(tp.Program(m=tp.moment(tp.flatten(x, ("w", "h"), "t"))))["m"].value.tolist()
        [0, 3, 1, 4, 2, 5]
    """
    check_name(into, "an axis")
    over = [axes] if isinstance(axes, str) else list(axes)
    x = x if hasattr(x, "taken") else as_expression(x)
    known = x.axes
    why = (
        f"its axes are {known or 'none'}" if not set(over) <= set(known)
        else "an axis is named twice" if len(set(over)) < len(over)
        else f"it has another axis {into!r}" if into in set(known) - set(over)
        else "" if over else "no axis is named"
    )  # fmt: skip
    if why:
        raise TensorProgramError(
            f"{_name(x)} is flattened over {tuple(over)} into {into!r}", why=why, fix="name its axes"
        )
    if hasattr(x, "concatenated"):
        return x.flattened(over, into)
    node, order, shown = x.node, list(x.names), list(x.axes)
    for a in over[1:]:
        node = flattened(node, order.index(over[0]), order.index(a))
        order.remove(a)
        shown.remove(a)
    order[order.index(over[0])] = shown[shown.index(over[0])] = into
    return Expression(node, order, shown, x.in_body)


def _name(x: Any) -> str:
    return describe(x.node) if isinstance(getattr(x, "node", None), Node) else repr(x)
