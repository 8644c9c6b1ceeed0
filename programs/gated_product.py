"""Gated linear units: a layer multiplies its product with another one, squashed.

    x_l = (A_l x_(l-1)) * gate(B_l x_(l-1)),   f = v.x_L / sqrt(n)

A and B are independent, so the kernel of a layer is a product: E x_l x_l' = C E gate(u) gate(u') with (u, u') ~ N(0, C), where
C is the kernel before. `gate` is sigmoid for a GLU, relu for a ReGLU, gelu for a GEGLU, silu for a SwiGLU.

check_gia: simple True, bp_like True, holds True (products of coordinates are Nonlins).

Source: Y. Dauphin et al., Language Modeling with Gated Convolutional Networks (arXiv:1612.08083), equation 1; N. Shazeer, GLU
Variants Improve Transformer (arXiv:2002.05202), equation 5.

Run:
    tensorprog kernel programs/gated_product.py
    tensorprog kernel programs/gated_product.py --set gate=gelu depth=2
    tensorprog compare programs/gated_product.py --widths 64 256 1024 --seeds 32
"""

import numpy as np

import tensorprog as tp


def build(gate="sigmoid", depth=1):
    n = tp.Width("n")
    x = tp.dense("U", tp.Input("x"), n)
    for layer in range(1, depth + 1):
        x = tp.dense(f"A{layer}", x, n) * getattr(tp, gate)(tp.dense(f"B{layer}", x, n))
    return tp.Network(tp.readout("v", x))


def data(examples=3, features=4):
    return np.random.default_rng(0).standard_normal((examples, features))
