"""An average in place of a readout: the architecture whose tangent kernel gradient independence gets wrong.

    x = W1 xi + 1,   h = W2 x,   f = (1/n) sum h^2

No readout vector is sampled: gradients start from 2 h, which remembers W2, and meet W2.T. So the gradient at x is
Z^dx = Zhat + 2 Z^x; under gradient independence it is Zhat alone. f has a limit, 1 + s with s = |xi|^2/d, and no Gaussian
process. The tangent kernel is reported as n Theta:

    n Theta(xi, xi)       limit               under GIA
    from W1               8 s (1 + s)         4 s (1 + s)
    from W2               4 (1 + s)^2         4 (1 + s)^2

The two inputs by default have s = 1 and s = 5/8. The same as a bare program: programs/counterexample.py.

check_gia: simple False, bp_like False, holds False (an average has no readout vector, and x has mean 1).

Source: G. Yang, Tensor Programs II (arXiv:2006.14548), section 6.3; Tensor Programs III (arXiv:2009.10685), appendix C.

Run:
    tensorprog kernel programs/average_readout.py --of ntk_W1,ntk_W2
    tensorprog gia programs/average_readout.py --of ntk_W1,ntk_W2
    tensorprog compare programs/average_readout.py --widths 64 256 1024 --seeds 32
    tensorprog compare programs/average_readout.py --widths 64 256 1024 --seeds 32 --against-gia
"""

import tensorprog as tp


def build():
    n = tp.Width("n")
    x = tp.dense("W1", tp.Input("x"), n) + tp.Vector("one", n, mean=1, var=0)
    h = tp.dense("W2", x, n)
    return tp.Network(tp.moment(h * h))


def data():
    return [[1, 1], [1 / 2, -1]]
