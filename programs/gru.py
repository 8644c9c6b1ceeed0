"""A gated recurrent unit.

    z = sigmoid(U_z x_t + W_z h),   r = sigmoid(U_r x_t + W_r h),   h_t = (1 - z) h + z tanh(U_c x_t + W_c (r h)),   h = h_(t-1)

f = v.h_T / sqrt(n). The gates multiply vectors coordinate by coordinate, so a step has E sigmoid(u) sigmoid(u') and
E tanh(u) tanh(u') of Gaussian pairs. They have no closed form, and are integrated.

check_gia: simple True, bp_like True, holds True (each W is used at many times, and W.T in back-propagation alone).

Source: K. Cho et al., Learning Phrase Representations using RNN Encoder-Decoder (arXiv:1406.1078), equations 5 to 8; with z
and 1 - z exchanged as here: G. Yang, Tensor Programs I (arXiv:1910.12478), whose theorem 5.4 is the limit.

Run:
    tensorprog kernel programs/gru.py
    tensorprog compare programs/gru.py --widths 64 256 1024 --seeds 32
"""

import numpy as np

import tensorprog as tp


def build(W_std=1, U_std=1, b_std=None):
    n = tp.Width("n")
    h = tp.gru("G", tp.Input("x", axes=("t",)), n, W_std=W_std, U_std=U_std, b_std=b_std)
    return tp.Network(tp.readout("v", tp.take(h, "t", -1)))


def data(sequences=2, steps=2, features=4):
    return np.random.default_rng(0).standard_normal((sequences, steps, features))
