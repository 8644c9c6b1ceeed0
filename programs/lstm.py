"""Long short-term memory: a memory c_t that gates add to and erase, and a state h_t that shows a part of it.

    c_t = f_t c_(t-1) + i_t tanh(g_t),   h_t = o_t tanh(c_t)

The gates f, i, o are sigmoid(U x_t + W h_(t-1)) and g_t = U x_t + W h_(t-1), each with weights of its own. The output is
v.h_T / sqrt(n). tanh(c_t) is a nonlinear function of products of nonlinear functions, in more and more Gaussian variables:
its expectations are integrated where there are few, and sampled (with an error) where there are many.

check_gia: simple True, bp_like True, holds True (each W is used at many times, and W.T in back-propagation alone).

Source: S. Hochreiter, J. Schmidhuber, Long Short-Term Memory (1997); with the forget gate f: F. Gers, J. Schmidhuber, F. Cummins,
Learning to Forget (2000); the limit: G. Yang, Tensor Programs I (arXiv:1910.12478), theorem 5.4.

Run:
    tensorprog kernel programs/lstm.py
    tensorprog compare programs/lstm.py --widths 64 256 1024 --seeds 32
"""

import numpy as np

import tensorprog as tp


def build(W_std=1, U_std=1, b_std=None):
    n = tp.Width("n")
    h = tp.lstm("L", tp.Input("x", axes=("t",)), n, W_std=W_std, U_std=U_std, b_std=b_std)
    return tp.Network(tp.readout("v", tp.take(h, "t", -1)))


def data(sequences=2, steps=2, features=4):
    return np.random.default_rng(0).standard_normal((sequences, steps, features))
