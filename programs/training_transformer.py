"""Training a transformer block: attention, layer norms, a perceptron and skip connections, by gradient descent.

    k = U x,   z = LN(k + Attention(k, k, k)),   x = LN(z + W2 relu(W1 z)),    f = mean_t v.x_t / sqrt(n)

in the NTK parametrization. Attention weights and the moments of layer norms are Moments of vectors that move by n^(-1/2):
they stay what they were, their own gradients are odd in v and vanish, and the run is kernel gradient descent with the tangent
kernel of the block at its first step. The unrolled program knows nothing of that: it carries the increments of everything.

Source: G. Yang and E. Littwin, Tensor Programs IIb (arXiv:2105.03703), theorem 5.3; G. Yang, Tensor Programs II
(arXiv:2006.14548), appendix E.5.

Run:
    tensorprog limit programs/training_transformer.py
    tensorprog train programs/training_transformer.py --widths 64 128 --seeds 4
"""

import numpy as np

import tensorprog as tp


def build(steps=2, lr=0.5, sequences=2, tokens=2, scheme="ntk"):
    n, rng = tp.Width("n"), np.random.default_rng(0)
    h = tp.transformer_block("B", tp.dense("E", tp.Input("x", axes=("t",)), n), n)
    net = tp.Network(tp.readout("v", tp.mean(h, "t")))
    X, y = rng.uniform(-1, 1, (sequences, tokens, 3)), rng.uniform(-1, 1, sequences)
    return tp.sgd(net, X, y, steps=steps, lr=lr, parametrization=scheme)
