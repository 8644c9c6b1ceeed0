"""Training by hand: a linear network with two hidden layers, its weights after each step of gradient descent.

    h = W u,   f = v.h / n,   dh = (f - y) v,   du = W.T dh        (u the first layer on the one input)
    W <- W - lr dh u' / n,    u <- u - lr du,   v <- v - lr (f - y) h

in the parametrization muP, where features are learned in the limit. The matrix after a step is a value like any other,
`W - lr * tp.matrix(lambda d, x: d * x, dh, u)`: the program grows by the same few instructions at every step. u, v and the
entries of sqrt(n) W start as N(0, 1); f_0 tends to 0. With y = `target`, 1 by default, and lr = 1/4:

    output    limit                          under GIA
    f1        3/4                            1/2
    f2        65345/65536                    3369/4096
    f3        1.00045994...                  0.97334984...

and so on: all are rational. The gradients of u pass through W.T, which remembers what W has made of u: a third of the first
step is the Zdot term, and gradient independence, where W.T is that of a copy, learns more slowly.

formula:
    f1 = 3/4
    f2 = 65345/65536

check_gia: simple False, bp_like False, holds False (at W.T dh: u and v also enter products with W in later steps).
check_regularity: covered True, Tensor Programs IVb, theorem 2.6.10 (OuterNonlins, pseudo-Lipschitz).

Source: G. Yang and E. J. Hu, Tensor Programs IV (arXiv:2011.14522), section 6; updates as OuterNonlins: G. Yang and
E. Littwin, Tensor Programs IVb (arXiv:2308.01814), section 2.3.

Run:
    tensorprog limit programs/trained_weights.py --set steps=4
    tensorprog limit programs/trained_weights.py --gia
    tensorprog compare programs/trained_weights.py --widths 64 256 1024 --seeds 32
"""

from fractions import Fraction

import tensorprog as tp


def build(steps=2, lr=Fraction(1, 4), target=1):
    n = tp.Width("n")
    W, u, v = tp.Matrix("W", n, n), tp.Vector("u", n), tp.Vector("v", n)
    outputs = {}
    for t in range(steps + 1):
        h = W @ u
        f = tp.moment(v * h)
        if t:
            outputs[f"f{t}"] = f
        dh = (f - target) * v
        du = W.T @ dh
        W, u, v = W - lr * tp.matrix(lambda d, x: d * x, dh, u), u - lr * du, v - lr * (f - target) * h
    return tp.Program(outputs)
