"""Training a recurrent network: its whole run is one Tensor Program, and in the limit kernel gradient descent.

    s_t = phi(W s_(t-1) + U x_t),    f = v.s_T / sqrt(n),    every weight trained, full batches, the NTK parametrization

W is one matrix at all times and steps: a step of training moves it by a sum over times, and the increments of every state are
carried by all later ones. By the Master Theorem all of that is f <- f - lr K (f - y) / examples, K the tangent kernel at the
first step, which sums over pairs of uses of W. With `--set scheme=mup` features are learned, and the limit is sampled.

Source: G. Yang and E. Littwin, Tensor Programs IIb (arXiv:2105.03703), theorem 5.3 and appendix D.

Run:
    tensorprog limit programs/training_rnn.py
    tensorprog train programs/training_rnn.py --widths 64 256 --seeds 8
"""

import numpy as np

import tensorprog as tp


def build(steps=3, lr=0.5, phi="erf", sequences=3, times=3, scheme="ntk"):
    n, rng = tp.Width("n"), np.random.default_rng(0)
    states = tp.rnn("R", tp.Input("x", axes=("t",)), n, phi=getattr(tp, phi))
    net = tp.Network(tp.readout("v", tp.take(states, "t", -1)))
    X, y = rng.uniform(-1, 1, (sequences, times, 2)), rng.uniform(-1, 1, sequences)
    return tp.sgd(net, X, y, steps=steps, lr=lr, parametrization=scheme)
