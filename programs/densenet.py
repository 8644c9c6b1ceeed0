"""Dense connections: every layer sees the concatenation of all that came before it.

    x_l = relu(W_l [x_0, x_1, .., x_(l-1)] + b_l),   f = v.[x_0, .., x_L] / sqrt((L+1) n)

A list of vectors means their concatenation: one matrix for each, with the variance over the whole fan-in. So covariances are
averages over what is concatenated: W_std^2 (C_0 + .. + C_(l-1))/l + b_std^2.

check_gia: simple True, bp_like True, holds True (a product with a concatenation is a sum of products).

Source: G. Huang et al., Densely Connected Convolutional Networks (arXiv:1608.06993), equation 2.

Run:
    tensorprog kernel programs/densenet.py
    tensorprog kernel programs/densenet.py --set depth=5
    tensorprog compare programs/densenet.py --widths 64 256 1024 --seeds 32
"""

import numpy as np

import tensorprog as tp


def build(depth=3, W_std=2**0.5, b_std=0.1):
    n = tp.Width("n")
    features = [tp.dense("U", tp.Input("x"), n)]
    for layer in range(1, depth + 1):
        features = [*features, tp.relu(tp.dense(f"W{layer}", features, n, W_std=W_std, b_std=b_std))]
    return tp.Network(tp.readout("v", features))


def data(examples=3, features=4):
    return np.random.default_rng(0).standard_normal((examples, features))
