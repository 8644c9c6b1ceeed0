"""Universality: weights of +1/sqrt(n) and -1/sqrt(n) have the limit of Gaussian weights.

At finite width W has iid entries of mean 0 and variance 1/n of any law (`entries`: 'rademacher', 'uniform', or None
for Gaussian); the limit depends on the variance alone. Here with x constant 1, h = W x and v iid N(0, 1):

    output    limit             width n, Rademacher
    h4        3                 mean 3 - 2/n exactly    mean of h^4: a coordinate of h is a sum of n signs / sqrt(n)
    mean_dx   2                 mean 2 exactly          mean of 2 W.T W x, the counterexample to gradient independence
    m2        2                 tends to 2              v.(W W.T)^2 v / n, Marchenko-Pastur's second moment
    tanh2     0.394294...       tends to it             mean of tanh(h)^2, for h ~ N(0, 1)

formula:
    h4 = 3
    mean_dx = 2
    m2 = 2
    tanh2 = E[tanh(z1)**2; z1 ~ N(0, 1)]

check_gia: simple False, bp_like False, holds False (x has mean 1, and v enters products with W).
check_regularity: covered True, Tensor Programs IVb, theorem 2.6.10 (weights that are not Gaussian, polynomially smooth
functions).

Source: G. Yang and E. Littwin, Tensor Programs IVb (arXiv:2308.01814), setup 2.6.4 and theorem 2.6.10: independent
entries with bounded moments, nonlinearities that are smooth with polynomially bounded derivatives (as those here).

Run:
    tensorprog limit programs/universality.py
    tensorprog compare programs/universality.py --widths 64 256 1024 --seeds 32
    tensorprog compare programs/universality.py --set "entries='uniform'" --widths 64 256 1024 --seeds 32
"""

import tensorprog as tp


def build(entries="rademacher"):
    n = tp.Width("n")
    W = tp.Matrix("W", n, n, var=1, entries=entries)
    x = tp.Vector("x", n, mean=1, var=0)
    v = tp.Vector("v", n, mean=0, var=1)
    h = (W @ x).label("h")
    m2 = tp.moment((W @ (W.T @ v)) ** 2)
    return tp.Program(h4=tp.moment(h**4), mean_dx=tp.moment(W.T @ (2 * h)), m2=m2, tanh2=tp.moment(tp.tanh(h) ** 2))
