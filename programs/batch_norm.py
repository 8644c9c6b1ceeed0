"""A multilayer perceptron with batch normalization, and its kernels across two batches.

    h_i = U xi_i,   x_i = relu((h_i - m) / sqrt(s^2 + eps)),   f_i = v.x_i / sqrt(n)

m and s^2 are vectors here: the mean and the variance of every coordinate over the examples i of the batch. What the network
answers to an example depends on its batch, so data() returns two batches, and the kernels are those between them. In the
limit the batch h_1, .., h_B of one coordinate is a Gaussian vector g, and with the projection G = 1 - 11'/B on what has mean 0

    nngp(i, j) = E relu(Gg)_i / sqrt(|Gg|^2/B + eps)  relu(Gg')_j / sqrt(|Gg'|^2/B' + eps).

This is a Laplace transform in |Gg|^2, an integral of relu kernels over one variable for each batch. At eps = 0 gradients have
a second moment only in batches of four or more examples that are linearly independent.

check_gia: simple True, bp_like True, holds True (examples of a batch are mixed coordinate by coordinate: a Nonlin).

Source: S. Ioffe, C. Szegedy, Batch Normalization (arXiv:1502.03167), algorithm 1; G. Yang, Tensor Programs II
(arXiv:2006.14548), appendix E.4; the integrals: G. Yang et al., A Mean Field Theory of Batch Normalization
(arXiv:1902.08129).

Run:
    tensorprog kernel programs/batch_norm.py
    tensorprog kernel programs/batch_norm.py --set both=False eps=0.1
    tensorprog compare programs/batch_norm.py --widths 128 256 512 --seeds 32
"""

import numpy as np

import tensorprog as tp


def build(eps=0):
    n = tp.Width("n")
    h = tp.dense("U", tp.Input("x"), n)
    return tp.Network(tp.readout("v", tp.relu(tp.batch_norm(h, eps=eps))))


def data(batch=6, features=8, both=True):
    X = np.random.default_rng(0).standard_normal((2 * batch - 1, features))
    return (X[:batch], X[batch:]) if both else X[:batch]
