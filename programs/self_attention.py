"""Multi-head self-attention, with keys tied to queries or independent of them.

    a_ij = softmax_j(q_i.k_j / n),   y_i = sum_j a_ij V x_j,   f = mean_i v.O y_i / sqrt(n)

The logits have 1/n, not 1/sqrt(n): they are Moments, and have a limit. With tied keys and queries (`tied=True`, the default)
it is their covariance, logits_ij = x_i.x_j / d for a first layer, so that positions look at what is like them. With
independent ones it is 0, and every position sees the plain average of all. Heads share their limit: their number does not
matter. Gradients through the softmax have limit 0, as they are odd in v: attention weights act as constants, and
the tangent kernel has nothing from keys and queries (`--of ntk_A_key_0` is 0).

check_gia: simple True, bp_like True, holds True (the gradients of the softmax are odd in v: their limit is 0).

Source: A. Vaswani et al., Attention Is All You Need (arXiv:1706.03762), section 3.2; with 1/n: G. Yang, Tensor Programs II
(arXiv:2006.14548), appendix D; tied keys: J. Hron et al., Infinite Attention (arXiv:2006.10540).

Run:
    tensorprog kernel programs/self_attention.py
    tensorprog kernel programs/self_attention.py --set tied=False
    tensorprog compare programs/self_attention.py --widths 64 256 1024 --seeds 32
"""

import numpy as np

import tensorprog as tp


def build(heads=2, tied=True, scale=1):
    n = tp.Width("n")
    x = tp.Input("x", axes=("t",))
    y = tp.self_attention("A", x, n, heads=heads, tied=tied, scale=scale)
    return tp.Network(tp.readout("v", tp.mean(tp.relu(y), "t")))


def data(sequences=2, tokens=3, features=4):
    return np.random.default_rng(0).standard_normal((sequences, tokens, features))
