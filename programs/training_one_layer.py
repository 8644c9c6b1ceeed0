"""Training one hidden layer: its increments and their limit, kernel gradient descent.

    h = U x,   f(x) = v.phi(h) / sqrt(n),   U <- U - lr df/dU chi,   chi = f - y on one example a step; v stays as it is

in the NTK parametrization, where U = u / sqrt(d) and every coordinate of h moves by n^(-1/2). With dh = phi'(h) v, the
increments delta h = sqrt(n) (h_t - h_(t-1)) of any input x' are, in the limit,

    Z^(delta h') = -lr chi (x.x'/d) Z^dh,    f'_t - f'_(t-1) = E Z^v phi'(Z^h') Z^(delta h') = -lr K(x', x) chi,
    K(x', x) = (x.x'/d) E phi'(Z^h) phi'(Z^h'),

the tangent kernel of U. With `--set frozen=None` v is trained, too, and K has the second part E phi(Z^h) phi(Z^h'). The
outputs before the first step are the hyperparameter "f0" of `tp.limit`, 0 by default; `tp.compare` starts the limit at those
of every network.

Source: G. Yang and E. Littwin, Tensor Programs IIb (arXiv:2105.03703), sections 3 and 4.

Run:
    tensorprog limit programs/training_one_layer.py
    tensorprog train programs/training_one_layer.py --widths 64 256 --seeds 8
    tensorprog show programs/training_one_layer.py --set steps=1
"""

import tensorprog as tp

X = [[1.0, 0.5], [-0.5, 1.5], [1.0, -1.0]]
Y = [1.0, -1.0, 0.5]


def build(steps=6, lr=1.0, phi="erf", frozen="v", batch=1):
    n = tp.Width("n")
    h = tp.dense("U", tp.Input("x"), n)
    net = tp.Network(tp.readout("v", getattr(tp, phi)(h)))
    return tp.sgd(net, X, Y, steps=steps, lr=lr, batch=batch, freeze=frozen)
