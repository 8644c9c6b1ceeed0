"""A network with several outputs: two tasks with a common trunk.

    h = relu(U xi),   f_1 = v.h / sqrt(n),   f_2 = w.relu(W h) / sqrt(n)

Kernels have two more axes, for the pair of outputs: ntk[i, j, a, b] is how a gradient step on f_b(xi_j) moves f_a(xi_i). With
readout vectors of their own, different outputs are independent, and the entries with a != b are 0: wide networks learn
their tasks side by side. With `shared=True` both outputs use one vector v, and they do not: ntk[.., 1, 2] has a
term from v, and one from U.

check_gia: simple True, bp_like True, holds True (both readout vectors are used in readouts alone).

Source: A. Jacot, F. Gabriel, C. Hongler, Neural Tangent Kernel (arXiv:1806.07572), theorem 1 (the kernel of several outputs is
Theta times the identity); R. Caruana, Multitask Learning (1997).

Run:
    tensorprog kernel programs/several_outputs.py
    tensorprog kernel programs/several_outputs.py --set shared=True
    tensorprog compare programs/several_outputs.py --widths 64 256 1024 --seeds 32
"""

import numpy as np

import tensorprog as tp


def build(shared=False):
    n = tp.Width("n")
    h = tp.relu(tp.dense("U", tp.Input("x"), n, W_std=2**0.5))
    deep = tp.relu(tp.dense("W", h, n, W_std=2**0.5))
    return tp.Network([tp.readout("v", h), tp.readout("v" if shared else "w", deep)])


def data(examples=2, features=3):
    return np.random.default_rng(0).standard_normal((examples, features))
