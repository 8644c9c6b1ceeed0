"""Layers of different widths, whose ratios stay fixed as all grow: a bottleneck.

    z = U xi in n,   h = relu(W z) in `ratio` n,   x = V h in n,   f = v.x / sqrt(n)

A width is a symbol, and a ratio to the reference width n: --widths 64 means 64 and `ratio` 64. W has entries of variance
2/n, V of variance 2/(ratio n): with the fan-in in each variance the ratio drops out of both kernels in this parametrization,
as in Jacot's theorem, whose widths tend to infinity one after another. What ratio does change is how far a finite network is from
its limit.

check_gia: simple True, bp_like True, holds True (widths change nothing in the check).

Source: A. Jacot, F. Gabriel, C. Hongler, Neural Tangent Kernel (arXiv:1806.07572), theorem 1; widths with ratios: G. Yang, Tensor
Programs III (arXiv:2009.10685), appendix F.

Run:
    tensorprog kernel programs/narrow_layer.py
    tensorprog kernel programs/narrow_layer.py --set ratio=4
    tensorprog compare programs/narrow_layer.py --widths 64 256 1024 --seeds 32
"""

from fractions import Fraction

import numpy as np

import tensorprog as tp


def build(ratio=Fraction(1, 2)):
    n = tp.Width("n")
    narrow = tp.Width("narrow", ratio=ratio)
    z = tp.dense("U", tp.Input("x"), n)
    h = tp.relu(tp.dense("W", z, narrow, W_std=2**0.5))
    x = tp.relu(tp.dense("V", h, n, W_std=2**0.5))
    return tp.Network(tp.readout("v", x))


def data(examples=3, features=4):
    return np.random.default_rng(0).standard_normal((examples, features))
