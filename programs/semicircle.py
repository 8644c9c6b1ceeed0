"""Wigner's semicircle law: the moments of the spectrum of W + W.T.

W is n x n with entries N(0, 1/(2n)), so that the symmetric matrix W + W.T has entries of variance 1/n off the diagonal.
For v with iid N(0, 1) coordinates, independent of W, v.(W + W.T)^k v / n has the limit of (1/n) tr (W + W.T)^k:

    m_k = 0 for odd k, the Catalan number C_(k/2) for even k:   0, 1, 0, 2, 0, 5, 0, 14, ...

the moments of the density sqrt(4 - x^2)/(2 pi) on [-2, 2]. Under the gradient independence assumption W and W.T would
be independent, and W + W.T like a Ginibre matrix: all moments 0.

formula:
    m1 = 0
    m2 = 1
    m3 = 0
    m4 = 2
    m5 = 0
    m6 = 5
    m7 = 0
    m8 = 14

check_gia: simple False, bp_like False, holds False (v is no readout: it enters products with W).
check_regularity: covered True, Tensor Programs III, theorem 2.10 (no scalars in Nonlins, polynomially bounded
functions).

Source: E. Wigner, Annals of Mathematics 67 (1958) 325; as a Tensor Program: G. Yang, Tensor Programs III
(arXiv:2009.10685), section 3.1.

Run:
    tensorprog limit programs/semicircle.py
    tensorprog compare programs/semicircle.py --set order=6 --widths 64 256 1024 --seeds 32
"""

from fractions import Fraction

import tensorprog as tp


def build(order=8):
    n = tp.Width("n")
    W = tp.Matrix("W", n, n, var=Fraction(1, 2))
    v = tp.Vector("v", n, mean=0, var=1)
    x, moments = v, {}
    for k in range(1, order + 1):
        x = W @ x + W.T @ x
        moments[f"m{k}"] = tp.moment(v * x)
    return tp.Program(moments)
