"""A bidirectional recurrent network: one runs forward, one backward, and the readout sees both.

    s_t = phi(W s_(t-1) + U x_t),   r_t = phi(W' r_(t+1) + U' x_t),   f = mean_t (v.s_t + v'.r_t) / sqrt(2 n)

The two have weights of their own, so that in the limit they are independent: both kernels are averages of that of one
network on the sequences and of the same on the reversed sequences.

check_gia: simple True, bp_like True, holds True (W is used many times, and W.T in back-propagation alone).

Source: M. Schuster, K. Paliwal, Bidirectional Recurrent Neural Networks (1997); kernels: as for programs/rnn.py.

Run:
    tensorprog kernel programs/bidirectional_rnn.py
    tensorprog compare programs/bidirectional_rnn.py --widths 64 256 1024 --seeds 32
"""

import numpy as np

import tensorprog as tp


def build(phi="relu", W_std=1, U_std=1, b_std=0.5):
    n = tp.Width("n")
    x = tp.Input("x", axes=("t",))
    both = tp.bidirectional(tp.rnn, "R", x, n, phi=getattr(tp, phi), W_std=W_std, U_std=U_std, b_std=b_std)
    return tp.Network(tp.readout("v", [tp.mean(s, "t") for s in both]))


def data(sequences=2, steps=3, features=4):
    return np.random.default_rng(0).standard_normal((sequences, steps, features))
