"""Guarded closed forms as numbers: integrated at the entries where they cancel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tensorprog.language.node import Node

__all__ = ["settled_by"]

Array = np.ndarray
LOST = 1e3
"""A closed form is kept where its terms are at most so many times larger than it is."""


def settled_by(
    node: Node,
    args: Sequence[Array],
    integrate: Callable[[Node, Sequence[Array]], Array],
    unwanted: Array | None = None,
) -> tuple[Array, bool]:
    """The values of a guarded closed form, and whether any had to be integrated.

    Args:
        node: The node.
        args: Arrays of its operands, which broadcast against each other.
        integrate: Called with the integral's node and arrays of its operands.
        unwanted: Entries that nobody looks at, which are not integrated; it broadcasts against the operands.
    """
    value, size, *rest = args
    value, size = np.broadcast_arrays(np.asarray(value, dtype=float), np.asarray(size, dtype=float))
    with np.errstate(all="ignore"):
        poor = ~(np.isfinite(value) & (size <= LOST * np.abs(value)))
    if unwanted is not None and poor.any():
        poor = poor & ~unwanted
    if not poor.any():
        return value, False
    integral = Node("gauss", node.args[2:], node.attr, node.shape)
    if poor.all():
        return np.asarray(integrate(integral, rest)), True
    shape = np.broadcast_shapes(value.shape, *[np.shape(a) for a in rest])
    poor = np.broadcast_to(poor, shape)
    out = np.array(np.broadcast_to(value, shape))
    out[poor] = integrate(integral, [np.broadcast_to(a, shape)[poor] for a in rest])
    return out, True
