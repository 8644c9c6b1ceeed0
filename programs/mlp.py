"""A multilayer perceptron: its Gaussian process kernel and its neural tangent kernel, by Jacot's recursion.

    h1 = U xi + b1,   x1 = phi(h1),   h2 = W2 x1 + b2,   x2 = phi(h2),   ...,   f = v.xL / sqrt(n)

U has entries of variance `W_std`^2/d, W2, W3, .. of variance `W_std`^2/n, biases have variance `b_std`^2, v has variance 1.
With S1 = W_std^2 xi.xi'/d + b_std^2 and Theta1 = S1, layer by layer:

    nngp = C_l = E phi(u) phi(u'),   (u, u') ~ N(0, S_l)          S_(l+1) = W_std^2 C_l + b_std^2
    Dot_l = E phi'(u) phi'(u')                                  Theta_(l+1) = S_(l+1) + W_std^2 Theta_l Dot_l

and the readout ends it with ntk = C_L + Theta_L Dot_L. The default, two relu layers and all variances 1, is a worked
example of Tensor Programs II: on the diagonal ntk = 3 s/4 + 7/4 with s = |xi|^2/d.

check_gia: simple True, bp_like True, holds True (v is sampled with mean zero, and used in the readout alone).

Source: A. Jacot, F. Gabriel, C. Hongler, Neural Tangent Kernel (arXiv:1806.07572), theorem 1; G. Yang, Tensor Programs II
(arXiv:2006.14548), appendix E.1.

Run:
    tensorprog kernel programs/mlp.py
    tensorprog kernel programs/mlp.py --set phi=erf depth=3 W_std=1.5 b_std=0.1
    tensorprog compare programs/mlp.py --widths 64 256 1024 --seeds 32
"""

import numpy as np

import tensorprog as tp


def build(phi="relu", depth=2, W_std=1, b_std=1):
    n = tp.Width("n")
    x = tp.Input("x")
    for layer in range(1, depth + 1):
        x = getattr(tp, phi)(tp.dense(f"W{layer}", x, n, W_std=W_std, b_std=b_std))
    return tp.Network(tp.readout("v", x))


def data(examples=3, features=4):
    return np.random.default_rng(0).standard_normal((examples, features))
