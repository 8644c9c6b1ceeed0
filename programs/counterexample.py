"""The counterexample to gradient independence: one linear layer, whose gradient remembers its weights.

Forward: x is constant, h = W x, and the output is f = (1/n) sum h^2. Backward: dh = 2 h, dx = W.T dh = 2 W.T W x.
The gradient independence assumption (GIA) replaces W.T by a copy independent of W and finds mean 0 for dx; in truth
Zdx = Zhat + 2 Zx, because the Zdot term remembers that W and W.T are one matrix.

With m = `mean` and s = `var` of the coordinates of x (m = 1 and s = 0 by default):

    output    limit            under GIA
    mean_dx   2 m              0
    dx2       8 (m^2 + s)      4 (m^2 + s)
    h2        m^2 + s          m^2 + s

The output vector here is the constant 1, not a sampled readout with mean zero, so the Simple GIA Check fails.

formula:
    mean_dx = 2
    dx2 = 8
    h2 = 1

check_gia: simple False, bp_like False, holds False (at dx: x has mean 1).
check_regularity: covered True, Tensor Programs III, theorem 2.10 (no scalars in Nonlins, polynomially bounded
functions).

Source: G. Yang, Tensor Programs II (arXiv:2006.14548), section 6.3; Tensor Programs III (arXiv:2009.10685), appendix C.

Run:
    tensorprog limit programs/counterexample.py
    tensorprog limit programs/counterexample.py --gia
    tensorprog compare programs/counterexample.py --widths 64 256 1024 4096 --seeds 32 --plot counterexample.svg
"""

import tensorprog as tp


def build(mean=1, var=0):
    n = tp.Width("n")
    W = tp.Matrix("W", n, n, var=1)
    x = tp.Vector("x", n, mean=mean, var=var)
    h = (W @ x).label("h")
    dx = (W.T @ (2 * h)).label("dx")
    return tp.Program(mean_dx=tp.moment(dx), dx2=tp.moment(dx * dx), h2=tp.moment(h * h))
