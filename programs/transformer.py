"""The transformer of Tensor Programs II: attention, layer norm, a two-layer perceptron, skip connections.

    k = U x,   z = LN(k + Attention(k, k, k)),   x = LN(z + W2 relu(W1 z))             for each block
    f = mean_t v.x_t / sqrt(n)                                                         after the last

Attention has keys, queries and values k, and logits k_s.k_t/n, whose limit is the covariance of k. So forward, over all
pairs of tokens of all sequences, with A = softmax(C_k) inside a sequence, V the relu kernel and Corr(C) the correlations of
a covariance C:

    C_y = (A + 1) C_k (A + 1)',   C_z = Corr(C_y),   C_g = W_std^2 C_z,   C_x = Corr(C_z + W_std^2 V(C_g)).

Backward, layer norms divide and attention weights act as constants: their own gradients are odd in v, with limit 0.

check_gia: simple True, bp_like True, holds True (the gradients of softmax and layer norm are odd in v: their limit is 0).

Source: G. Yang, Tensor Programs II (arXiv:2006.14548), figure 1 and appendix E.5; A. Vaswani et al., Attention Is All You
Need (arXiv:1706.03762), figure 1.

Run:
    tensorprog kernel programs/transformer.py
    tensorprog kernel programs/transformer.py --set depth=2
    tensorprog compare programs/transformer.py --widths 64 128 256 --seeds 16
"""

import numpy as np

import tensorprog as tp


def build(depth=1, W_std=1, U_std=1):
    n = tp.Width("n")
    x = tp.Input("x", axes=("t",))
    for block in range(1, depth + 1):
        x = tp.transformer_block(f"B{block}", x, n, W_std=W_std, U_std=U_std)
    return tp.Network(tp.readout("v", tp.mean(x, "t")))


def data(sequences=2, tokens=5, features=3):
    return np.random.default_rng(0).uniform(-1, 1, (sequences, tokens, features))
