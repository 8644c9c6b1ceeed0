"""Cross-attention: a sequence of queries looks at another sequence, the memory.

    q_s = U x_s,   k_t = U m_t,   a_st = softmax_t(q_s.k_t / n),   y_s = q_s + sum_t a_st V m_t
    f = mean_s v.relu(y_s) / sqrt(n)

A network with two inputs, x and memory, each with its own length: data() returns a dictionary. Queries and keys share U, so
that their logits q_s.k_t/n have the limit x_s.m_t/d; values have their own weights.

check_gia: simple True, bp_like True, holds True (the gradients of the softmax are odd in v: their limit is 0).

Source: A. Vaswani et al., Attention Is All You Need (arXiv:1706.03762), section 3.2.3 (encoder-decoder attention); the limit:
G. Yang, Tensor Programs II (arXiv:2006.14548), appendix D.

Run:
    tensorprog kernel programs/cross_attention.py
    tensorprog compare programs/cross_attention.py --widths 64 256 1024 --seeds 32
"""

import numpy as np

import tensorprog as tp


def build(scale=1):
    n = tp.Width("n")
    x, memory = tp.Input("x", axes=("s",)), tp.Input("memory", axes=("t",))
    q, k = tp.dense("U", x, n), tp.dense("U", memory, n)
    y = q + tp.attention(q, k, tp.dense("V", memory, n), axis="s", keys="t", scale=scale)
    return tp.Network(tp.readout("v", tp.mean(tp.relu(y), "s")))


def data(sequences=2, queries=2, keys=3, features=4):
    rng = np.random.default_rng(0)
    return {
        "x": rng.standard_normal((sequences, queries, features)),
        "memory": rng.standard_normal((sequences, keys, features)),
    }
