"""Learning features: a multilayer perceptron in muP, the largest motion of all layers that has a limit.

    f(x) = v.phi(W phi(U x)) / n,    rates n lr for U and v, lr for W        (so that all layers move by order 1)

Vectors after t steps are those of the matrices as they are then, W_t x = W_0 x - lr sum_(s<t) chi_s (x_s.x/n) dh_s, and the
gradients that multiply W_t.T remember what W_0 made of x. Where phi is not linear the limit has no closed form: `tp.limit`
samples it, with a standard error, by M joint samples of all vectors (phi="none" is linear, and exact: f = 0, 3/4,
65345/65536, ... for lr = 1/4 on x = y = 1). Its probe "features" is mean(h^2), which moves here and stays in the NTK
parametrization (`--set scheme=ntk`).

The best learning rate of the limit is that of wide networks:

    tp.sweep(trace, lr=[0.1, 0.2, 0.4, 0.8], widths=[64, 256, 1024]).verdict

Source: G. Yang and E. J. Hu, Tensor Programs IV (arXiv:2011.14522), section 6 and appendix H.

Run:
    tensorprog limit programs/mup_mlp.py
    tensorprog train programs/mup_mlp.py --widths 64 256 --seeds 8
    tensorprog sweep programs/mup_mlp.py --over "lr=[0.1,0.2,0.4,0.8,1.6]" --widths 64 256
"""

import tensorprog as tp

X = [[1.0, 0.5], [-0.5, 1.5], [1.0, -1.0]]
Y = [1.0, -1.0, 0.5]


def build(steps=4, lr=0.4, phi="tanh", depth=2, scheme="mup", X=X, Y=Y):
    n, h = tp.Width("n"), tp.Input("x")
    act = (lambda x: x) if phi == "none" else getattr(tp, phi)
    for layer in range(depth):
        h = act(tp.dense(f"W{layer}", h, n))
    net = tp.Network(tp.readout("v", h))
    return tp.sgd(net, X, Y, steps=steps, lr=lr, parametrization=scheme, probe={"features": tp.moment(h * h)})
