"""Training two hidden layers: the increments that W remembers are what the first layer adds to the kernel.

    g = U x,   z = phi(g),   h = W z,   f(x) = v.phi(h) / sqrt(n),   one example a step; v stays as it is

in the NTK parametrization. The increments of h have three parts: of z, through W as it was at first; of W; and one that vanishes,

    delta h' = W delta z' - lr chi (z.z'/n) dh - ...,     dh = phi'(h) v,    delta g' = -lr chi (x.x'/d) phi'(g) W.T dh.

W delta z' has a Gaussian part, of which the output sees nothing, and Zdot: W.T is in delta g', so that W remembers it,

    Zdot = -lr chi (x.x'/d) E phi'(Z^g) phi'(Z^g') Z^dh,    f'_t - f'_(t-1) = -lr K(x', x) chi,
    K = (x.x'/d) E phi'(Z^g) phi'(Z^g') E phi'(Z^h) phi'(Z^h')  +  E Z^z Z^z' E phi'(Z^h) phi'(Z^h').

Without Zdot (`--gia`) the first term is missing: U trains, and the output does not see it.

Source: G. Yang and E. Littwin, Tensor Programs IIb (arXiv:2105.03703), section 4.

Run:
    tensorprog limit programs/training_two_layers.py
    tensorprog limit programs/training_two_layers.py --gia
    tensorprog train programs/training_two_layers.py --widths 64 256 --seeds 8
"""

import tensorprog as tp

X = [[1.0, 0.5], [-0.5, 1.5], [1.0, -1.0]]
Y = [1.0, -1.0, 0.5]


def build(steps=6, lr=1.0, phi="erf", frozen="v", batch=1):
    n, phi = tp.Width("n"), getattr(tp, phi)
    h = tp.dense("W", phi(tp.dense("U", tp.Input("x"), n)), n)
    net = tp.Network(tp.readout("v", phi(h)))
    return tp.sgd(net, X, Y, steps=steps, lr=lr, batch=batch, freeze=frozen)
