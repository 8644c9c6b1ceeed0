"""A graph convolutional network: every node averages over its neighbours.

    h_i = sum_j A_ij W x_j,   x_i = relu(h_i),   f = mean_i v.x_i / sqrt(n)

A is D^-1/2 (adjacency + 1) D^-1/2, D the degrees; W is the same at all nodes. A graph is an example: its features have shape
(nodes, d), and all examples live on one graph, a ring with `nodes` nodes by default. Covariances over pairs of nodes go by
C -> A C A' and the relu kernel in turn.

check_gia: simple True, bp_like True, holds True (weights are shared by all nodes, and no matrix is transposed).

Source: T. Kipf, M. Welling, Semi-Supervised Classification with Graph Convolutional Networks (arXiv:1609.02907), equation 2; the
limit: G. Yang, Tensor Programs I (arXiv:1910.12478), theorem 5.4; S. Du et al., Graph Neural Tangent Kernel (arXiv:1905.13192).

Run:
    tensorprog kernel programs/graph_convolution.py
    tensorprog kernel programs/graph_convolution.py --set nodes=8 depth=3
    tensorprog compare programs/graph_convolution.py --widths 64 256 1024 --seeds 32
"""

import numpy as np

import tensorprog as tp


def build(nodes=4, depth=2, W_std=2**0.5):
    n = tp.Width("n")
    ring = np.roll(np.eye(nodes), 1, axis=1)
    x = tp.Input("x", axes=("node",))
    for layer in range(1, depth + 1):
        x = tp.relu(tp.graph_conv(f"W{layer}", x, n, ring + ring.T, W_std=W_std))
    return tp.Network(tp.readout("v", tp.mean(x, "node")))


def data(graphs=2, nodes=4, features=3):
    return np.random.default_rng(0).standard_normal((graphs, nodes, features))
