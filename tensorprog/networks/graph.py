"""Graph convolutions."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.language import build
from tensorprog.language.deferred import layer
from tensorprog.language.expression import Expression
from tensorprog.language.given import real_array
from tensorprog.language.symbols import Width
from tensorprog.networks.inputs import EXAMPLE
from tensorprog.networks.layers import bias, dense, ordered

__all__ = ["graph_conv"]


@layer
def graph_conv(
    name: str,
    x: Any,
    n: Width,
    adjacency: Any,
    axis: str = "node",
    W_std: Any = 1,
    b_std: Any = None,
    normalize: bool = True,
) -> Expression:
    """A graph convolution: h_i = sum_j A_ij W x_j + b, over the nodes of a graph.

    Args:
        name: Of the weights W; the bias is `name_b`.
        x: An Input or a vector, with the axis.
        n: The width of the result.
        adjacency: Numbers of shape (nodes, nodes), A_ij the weight of the edge from j to i; for a graph for each example an
            Input of such numbers, `tp.Input("A", axes=("node", "from"), features=False)`.
        axis: The nodes.
        W_std: Standard deviation of the weights, times the root of the fan-in.
        b_std: Of the bias; None for none.
        normalize: Use D^-1/2 (A + 1) D^-1/2, D_ii = sum_j (A + 1)_ij, in place of A.

    Returns:
        A vector of width n with the axes of x.

    Example:
        >>> import tensorprog as tp
        >>> path = [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
        >>> x = tp.Input("x", axes=("node",))
        >>> n = tp.Width("n")
        >>> h = tp.graph_conv("W2", tp.relu(tp.graph_conv("W1", x, n, path)), n, path)
        >>> net = tp.Network(tp.readout("v", tp.mean(h, "node")))
        >>> tp.limit(net.program([[[1.0], [1.0], [1.0]]], of="nngp"))["nngp"].value.round(6)
        array([[0.49069]])

    Source: Kipf, Welling 2017 (arXiv:1609.02907), equation 2.
    """
    h = dense(name, x, n, W_std=W_std)
    if axis not in h.axes:
        raise TensorProgramError(
            f"the graph convolution {name} runs over the axis {axis!r}, and its input has {h.axes or 'none'}",
            fix='name the axis of the nodes: tp.Input("x", axes=("node",))',
        )
    other = f"{axis}_from"
    while other in h.axes:
        other += "_"
    nodes = h.shape[h.axes.index(axis)]
    if isinstance(adjacency, Expression):
        weights = _expression(adjacency, axis, other, nodes, name, normalize)
    else:
        weights = build.array(_weights(adjacency, nodes, name, normalize), (axis, other))
    h = ordered(build.sum(weights * build.rename(h, **{axis: other}), other), h.axes)
    return h if b_std is None else h + bias(f"{name}_b", n, b_std)


def _expression(a: Expression, axis: str, other: str, nodes: int, name: str, normalize: bool) -> Expression:
    """The weights of a graph for each example."""
    own = [b for b in a.axes if b != EXAMPLE]
    sizes = [a.shape[a.axes.index(b)] for b in own]
    if a.width is not None or own[:1] != [axis] or sizes != [nodes, nodes]:
        raise TensorProgramError(
            f"the adjacency of {name} is {a!r}, for {nodes} nodes",
            why="its axes are the node that is reached and the one that is left",
            fix=f'give tp.Input("A", axes=("{axis}", "from"), features=False)',
        )
    a = build.rename(a, **{own[1]: other})
    if not normalize:
        return a
    a = a + build.array(np.eye(nodes, dtype=np.int64), (axis, other))
    root = build.sqrt(build.sum(a, other)) ** -1
    return a * root * build.rename(root, **{axis: other})


def _weights(adjacency: Any, nodes: int, name: str, normalize: bool) -> np.ndarray:
    a = real_array(adjacency, f"the adjacency of {name}", "give a matrix of shape (nodes, nodes)")
    if a.shape != (nodes, nodes) or not np.isfinite(a).all():
        raise TensorProgramError(
            f"the adjacency of {name} has shape {a.shape}, for {nodes} nodes",
            fix="give finite numbers of shape (nodes, nodes)",
        )
    if not normalize:
        return a
    a += np.eye(nodes)
    degrees = a.sum(1)
    if (degrees <= 0).any():
        raise TensorProgramError(
            f"node {int(np.argmin(degrees))} of {name} has degree {degrees.min():.3g}",
            why="the convolution divides by its root",
            fix="use weights of at least 0, or normalize=False",
        )
    return np.asarray(a / np.sqrt(np.outer(degrees, degrees)))
