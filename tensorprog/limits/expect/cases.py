"""Functions of what is one thing at some positions of an axis and another at others.

A concatenation is a sum of parts under masks of zeros and ones. A Gaussian one is one Gaussian variable at every position, and a
function of it stays as it is. Otherwise a function of it is a function of all parts, most of them 0 at any one position; here
it becomes a sum over the kinds of positions: phi(m x + (1 - m) y) = m phi(x) + (1 - m) phi(y).
"""

from __future__ import annotations

import numpy as np

from tensorprog.language import algebra
from tensorprog.language.node import Node, topological

__all__ = ["by_cases"]

MANY = 64
"""Positions of more kinds than this are no concatenation."""


def by_cases(x: Node) -> list[tuple[Node, Node]]:
    """(mask, y): the x of each kind of positions, and where they are; [] if there is one kind.

    Args:
        x: A sum or product of vectors; masks are looked for in sums and products only.

    Example:
        >>> import tensorprog as tp
        >>> n = tp.Width("n")
        >>> x = tp.relu(tp.concat([tp.exp(tp.Vector("x", n, axes={"t": 2})), tp.Vector("y", n)], "t")).node
        >>> [mask.attr.tolist() for mask, _ in by_cases(x.args[0])]
        [[1, 1, 0], [0, 0, 1]]
    """
    if x.width is None or x.inner is not None or x.op not in ("add", "mul"):
        return []
    nodes = topological([x], lambda y: y.args if y.op in ("add", "mul") and y.width is not None else ())
    masks: dict[int, list[Node]] = {}
    for y in nodes:
        if (axis := _axis(y)) is not None and y not in masks.setdefault(axis, []):
            masks[axis].append(y)
    for axis, found in sorted(masks.items()):
        values = np.stack([_values(m) != 0 for m in found], 1)  # positions, masks
        kinds, first, where = np.unique(values, axis=0, return_index=True, return_inverse=True)
        if not 1 < len(kinds) <= min(MANY, len(found) + 1):
            continue
        out = []
        for k in np.argsort(first):  # as they come
            given = {m: algebra.constant(_values(m)[first[k]]) for m in found}
            here = (where.reshape(-1) == k).astype(np.int64)
            mask = algebra.view(algebra.constant(here, here.shape), (axis,), x.shape)
            out.append((mask, _with(nodes, given)))
        return out
    return []


def _with(nodes: list[Node], given: dict[Node, Node]) -> Node:
    done: dict[Node, Node] = {}
    for y in nodes:
        if y in given:
            done[y] = given[y]
        elif y.op in ("add", "mul") and y.width is not None:
            done[y] = algebra.rebuild(y, [done[a] for a in y.args])
        else:
            done[y] = y
    return done[nodes[-1]]


def _axis(x: Node) -> int | None:
    """The axis along which x is a mask (or a multiple of one), and does not vary along others; or None."""
    base = x.args[0] if x.op == "view" else x
    if base.op != "constant" or len(base.shape) != 1 or not isinstance(base.attr, np.ndarray):
        return None
    if not (base.attr == 0).any() or len(set(base.attr.tolist())) > 2:
        return None
    return x.attr[0] if x.op == "view" else 0


def _values(mask: Node) -> np.ndarray:
    return np.asarray((mask.args[0] if mask.op == "view" else mask).attr)
