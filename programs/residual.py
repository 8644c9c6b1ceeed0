"""A residual network, with the activation before or after the weights of a block.

    order="pre"      x_l = x_(l-1) + scale W_l relu(x_(l-1))             the skip connection carries everything
    order="post"     x_l = relu(x_(l-1) + scale W_l x_(l-1))             the skip connection ends in the activation

With "pre" the covariance of the vectors x_l only grows, q_l = q_(l-1) + scale^2 W_std^2 V(q_(l-1)), V the relu kernel. On the
diagonal V(q) = q/2: with W_std^2 = 2 it is multiplied by 1 + scale^2 a block, and scale = 1/sqrt(depth) keeps it bounded at
any depth.

With "post" the blocks after the first have an activation inside an activation, and no closed form: they are sampled, and the
kernels say how well.

check_gia: simple True, bp_like True, holds True (a sum of two branches is a Nonlin like any other).

Source: K. He et al., Deep Residual Learning (arXiv:1512.03385), equation 1, and Identity Mappings in Deep Residual Networks
(arXiv:1603.05027), figure 1; the scale 1/sqrt(depth): S. Hayou et al., Stable ResNet (arXiv:2010.12859).

Run:
    tensorprog kernel programs/residual.py
    tensorprog kernel programs/residual.py --set order=post
    tensorprog kernel programs/residual.py --set depth=100 scale=0.1
    tensorprog compare programs/residual.py --widths 64 256 1024 --seeds 32
"""

import numpy as np

import tensorprog as tp


def build(order="pre", depth=3, scale=1, W_std=2**0.5):
    n = tp.Width("n")
    x = tp.dense("U", tp.Input("x"), n)
    for layer in range(1, depth + 1):
        if order == "pre":
            x = x + scale * tp.dense(f"W{layer}", tp.relu(x), n, W_std=W_std)
        elif order == "post":
            x = tp.relu(x + scale * tp.dense(f"W{layer}", x, n, W_std=W_std))
        else:
            raise ValueError(f"order is {order!r}: give pre or post")
    return tp.Network(tp.readout("v", x))


def data(examples=3, features=4):
    return np.random.default_rng(0).standard_normal((examples, features))
