"""Causal attention with positional embeddings: a token sees itself and what came before.

    k_t = U x_t + P pos_t,   a_ts = softmax over s <= t of k_t.k_s / n,   y_t = k_t + sum_s a_ts V k_s

f = v.relu(y_T) / sqrt(n) reads the last token, which has seen all others.

The positions are an Input with a value, the same for all sequences: sinusoids, as in Vaswani et al. P makes vectors of them;
their covariance pos_s.pos_t/d is added to that of the tokens.

check_gia: simple True, bp_like True, holds True (the gradients of the softmax are odd in v: their limit is 0).

Source: A. Vaswani et al., Attention Is All You Need (arXiv:1706.03762), sections 3.2.3 (masking) and 3.5 (positions); the
limit: G. Yang, Tensor Programs II (arXiv:2006.14548), appendix D; J. Hron et al., Infinite Attention (arXiv:2006.10540).

Run:
    tensorprog kernel programs/causal_attention.py
    tensorprog kernel programs/causal_attention.py --set P_std=0
    tensorprog compare programs/causal_attention.py --widths 64 256 1024 --seeds 32
"""

import numpy as np

import tensorprog as tp


def build(tokens=4, P_std=1, scale=1):
    n = tp.Width("n")
    x = tp.Input("x", axes=("t",))
    positions = tp.Input("positions", axes=("t",), value=sinusoids(tokens))
    k = tp.dense("U", x, n) + tp.dense("P", positions, n, W_std=P_std)
    y = k + tp.attention(k, k, tp.dense("V", k, n), mask="causal", scale=scale)
    return tp.Network(tp.readout("v", tp.relu(tp.take(y, "t", -1))))


def sinusoids(tokens, features=4):
    angle = np.arange(tokens)[:, None] / 100 ** (np.arange(0, features, 2) / features)
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1)


def data(sequences=2, tokens=4, features=4):
    return np.random.default_rng(0).standard_normal((sequences, tokens, features))
