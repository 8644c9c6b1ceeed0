"""A recurrent cell of one's own: a Python loop over time, with the decorator tp.layer.

    z = sigmoid(U_z x_t + W_z h),   h_t = (1 - z) h + z erf(U x_t + W (z h)),   h = h_(t-1)

the minimal gated unit: one gate that forgets and updates. Copy this file for any cell. A layer is a function of vectors;
inside, shapes are known, and the same name means the same weights at all times. Nothing else has to be said: the program is
what the loop computes, and limits, gradients and finite networks follow from it.

check_gia: simple True, bp_like True, holds True (both matrices are used at all times, W.T in back-propagation alone).

Source: G. Zhou et al., Minimal Gated Unit for Recurrent Neural Networks (arXiv:1603.09420), section 3; the limit of any such
cell: G. Yang, Tensor Programs I (arXiv:1910.12478), theorem 5.4, and II (arXiv:2006.14548), theorem 2.1.

Run:
    tensorprog kernel programs/gated_cell.py
    tensorprog compare programs/gated_cell.py --widths 64 256 1024 --seeds 32
"""

import numpy as np

import tensorprog as tp


@tp.layer
def gated_cell(x, n):
    u, u_z = tp.dense("U", x, n), tp.dense("Uz", x, n)
    h = tp.sigmoid(tp.take(u_z, "t", 0)) * tp.erf(tp.take(u, "t", 0))  # h_0 = 0
    for t in range(1, u.shape[u.axes.index("t")]):
        z = tp.sigmoid(tp.take(u_z, "t", t) + tp.dense("Wz", h, n))
        h = (1 - z) * h + z * tp.erf(tp.take(u, "t", t) + tp.dense("W", z * h, n))
    return h


def build():
    return tp.Network(tp.readout("v", gated_cell(tp.Input("x", axes=("t",)), tp.Width("n"))))


def data(sequences=2, steps=2, features=4):
    return np.random.default_rng(0).standard_normal((sequences, steps, features))
