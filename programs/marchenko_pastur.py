"""The Marchenko-Pastur law: the moments of the spectrum of A A.T, for a rectangular matrix A.

A is m x n with entries N(0, 1/n) and m/n -> rho = `ratio`. For v with iid N(0, 1) coordinates, independent of A,
v.(A A.T)^k v / m has the limit of (1/m) tr (A A.T)^k. The moments are Narayana polynomials in rho,

    m_k = sum over i = 1..k of N(k, i) rho^(i-1),   N(k, i) = binom(k, i) binom(k, i - 1) / k,

    rho = 1      1, 2, 5, 14, 42, ...                  (the Catalan numbers)
    rho = 1/2    1, 3/2, 11/4, 45/8, 197/16, ...

and come out as exact rationals. `order` moments are computed, as outputs m1, m2, ...

formula:
    m1 = 1
    m2 = 3/2
    m3 = 11/4
    m4 = 45/8
    m5 = 197/16

check_gia: simple False, bp_like False, holds False (v is no readout: it enters products with A).
check_regularity: covered True, Tensor Programs III, theorem 2.10 (no scalars in Nonlins, polynomially bounded
functions).

Source: V. Marchenko and L. Pastur, Math. USSR-Sbornik 1 (1967) 457; as a Tensor Program: G. Yang, Tensor Programs III
(arXiv:2009.10685), section 3.2 and appendix F (normalised here by 1/m, the size of A A.T).

Run:
    tensorprog limit programs/marchenko_pastur.py --set ratio=1/2 order=5
    tensorprog compare programs/marchenko_pastur.py --widths 64 256 1024 --seeds 32
"""

from fractions import Fraction

import tensorprog as tp


def build(ratio=Fraction(1, 2), order=5):
    n, m = tp.Width("n"), tp.Width("m", ratio=ratio)
    A = tp.Matrix("A", m, n, var=1)
    v = tp.Vector("v", m, mean=0, var=1)
    x, moments = v, {}
    for k in range(1, order + 1):
        x = A @ (A.T @ x)
        moments[f"m{k}"] = tp.moment(v * x)
    return tp.Program(moments)
