"""A maxout network: the largest of a few products, coordinate by coordinate.

    x_l = max_k W_(l,k) x_(l-1),   k = 1 .. `pieces`,   f = v.x_L / sqrt(n)

max(a, b) = a + relu(b - a), so that a maximum is a Nonlin. Max pooling is the same over the positions of a window. With two
pieces max(a, b) = (a + b)/2 + |a - b|/2; both halves are independent and have variance q/2, so that on the diagonal E x^2 =
q/2 + q/2 = q: no factor is needed to keep activations at their size.

check_gia: simple True, bp_like True, holds True (the maximum of coordinates is a Nonlin).

Source: I. Goodfellow et al., Maxout Networks (arXiv:1302.4389), section 3.

Run:
    tensorprog kernel programs/maxout.py
    tensorprog kernel programs/maxout.py --set depth=1 pieces=3
    tensorprog compare programs/maxout.py --widths 64 256 1024 --seeds 32
"""

import numpy as np

import tensorprog as tp


def build(depth=2, pieces=2):
    n = tp.Width("n")
    x = tp.Input("x")
    for layer in range(1, depth + 1):
        x = tp.max_over([tp.dense(f"W{layer}_{k}", x, n) for k in range(pieces)])
    return tp.Network(tp.readout("v", x))


def data(examples=3, features=4):
    return np.random.default_rng(0).standard_normal((examples, features))
