"""A tied autoencoder as a network: its output is its reconstruction error.

    z = U xi,   h = relu(W z),   y = W.T h,   f = (1/n) |y - z|^2

W and its transpose belong to one forward pass, and f is an average: both clauses of the Simple GIA Check fail. f has the limit
s (3/4) for s = |xi|^2/d, where an untied decoder (`tied=False`) has s (3/2): see programs/tied_autoencoder.py, which has the
moments of one reconstruction. Here are all inputs together, and the tangent kernel of the loss, reported as n Theta.

check_gia: simple False, bp_like False, holds False (W and W.T in one forward pass, and an average readout).

Source: the rules ZHat and ZDot, G. Yang, Tensor Programs III (arXiv:2009.10685), Box 1; weights W and W.T in one network: its
appendix C, and TP II (arXiv:2006.14548), section 6.3.

Run:
    tensorprog limit programs/autoencoder.py
    tensorprog gia programs/autoencoder.py
    tensorprog kernel programs/autoencoder.py
    tensorprog compare programs/autoencoder.py --widths 64 256 1024 --seeds 32
"""

import numpy as np

import tensorprog as tp


def build(tied=True):
    n = tp.Width("n")
    z = tp.dense("U", tp.Input("x"), n)
    W = tp.Matrix("W", n, n, var=1)
    h = tp.relu(W @ z)
    y = W.T @ h if tied else tp.dense("V", h, n)
    return tp.Network(tp.moment((y - z) ** 2))


def data(examples=2, features=3):
    return np.random.default_rng(0).standard_normal((examples, features))
