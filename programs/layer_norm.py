"""A multilayer perceptron with layer normalization.

    h_l = W_l x_(l-1),   y_l = (h_l - m) / sqrt(s^2 + eps),   x_l = relu(y_l)

m and s^2 are the mean and the variance of the n coordinates of h_l: scalars of the program, Moments. In the limit m = 0 and
s^2 is the variance of Z^h, so that y_l has variance 1 whatever W_std and |xi| are (at eps = 0): nngp is 1/2 on the diagonal.
The gradients of m and s^2 have limit 0, as they are odd in v. So normalization only divides,
Z^dh = Z^dy / sqrt(s^2 + eps), and the tangent kernel gets smaller as the weights get larger.

check_gia: simple True, bp_like True, holds True (the gradients of the Moments are odd in v: their limit is 0).

Source: J. Ba, J. Kiros, G. Hinton, Layer Normalization (arXiv:1607.06450), equation 3; G. Yang, Tensor Programs II
(arXiv:2006.14548), appendix D.

Run:
    tensorprog kernel programs/layer_norm.py
    tensorprog kernel programs/layer_norm.py --set W_std=10 eps=1e-5
    tensorprog compare programs/layer_norm.py --widths 64 256 1024 --seeds 32
"""

import numpy as np

import tensorprog as tp


def build(depth=2, W_std=2**0.5, eps=0):
    n = tp.Width("n")
    x = tp.Input("x")
    for layer in range(1, depth + 1):
        x = tp.relu(tp.layer_norm(tp.dense(f"W{layer}", x, n, W_std=W_std), eps=eps))
    return tp.Network(tp.readout("v", x))


def data(examples=3, features=4):
    return np.random.default_rng(0).standard_normal((examples, features))
