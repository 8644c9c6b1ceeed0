"""Powers of one Ginibre matrix: the singular values of W^p are not those of W, to the power p.

W is n x n with iid entries N(0, 1/n), p = `power`. For v with iid N(0, 1) coordinates, independent of W,
v.(W^p (W^p).T)^k v / n has the limit of (1/n) tr (W^p (W^p).T)^k, a Fuss-Catalan number:

    m_k = binom(p k + k, k) / (p k + 1)      p = 1:  1, 2, 5, 14      (Marchenko-Pastur)
                                             p = 2:  1, 3, 12, 55
                                             p = 3:  1, 4, 22, 140

the same as for a product of p independent matrices. The output `trace` is v.W^p v / n, which tends to 0: so do all
moments of the eigenvalues, whose law, the circular law, is invariant under rotations of the complex plane.

formula:
    trace = 0
    m1 = 1
    m2 = 3
    m3 = 12

check_gia: simple False, bp_like False, holds False (v is no readout: it enters products with W).
check_regularity: covered True, Tensor Programs III, theorem 2.10 (no scalars in Nonlins, polynomially bounded
functions).

Source: N. Alexeev, F. Götze, A. Tikhomirov, Asymptotic distribution of singular values of powers of random matrices,
Lithuanian Mathematical Journal 50 (2010) 121 (arXiv:1002.4442); traces as Moments: G. Yang, Tensor Programs III
(arXiv:2009.10685), theorem A.2.

Run:
    tensorprog limit programs/ginibre_powers.py --set power=3 order=4
    tensorprog compare programs/ginibre_powers.py --widths 64 256 1024 --seeds 32
"""

import tensorprog as tp


def build(power=2, order=3):
    n = tp.Width("n")
    W = tp.Matrix("W", n, n, var=1)
    v = tp.Vector("v", n, mean=0, var=1)

    def apply(matrix, x):
        for _ in range(power):
            x = matrix @ x
        return x

    outputs = {"trace": tp.moment(v * apply(W, v))}
    x = v
    for k in range(1, order + 1):
        x = apply(W, apply(W.T, x))
        outputs[f"m{k}"] = tp.moment(v * x)
    return tp.Program(outputs)
