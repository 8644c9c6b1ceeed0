"""A matrix and its transpose in one forward pass: in series GIA fails, in parallel it happens to hold.

    series      f = v.tanh(W.T tanh(W z)) / sqrt(n)                            z = U xi
    parallel    f = v.(tanh(W z) + tanh(W.T z')) / sqrt(n)                     z' = V xi

GIA is the gradient independence assumption. In series the backward pass multiplies by W and then by W.T, and the second
product meets the first: two independent copies of W lose that term. In parallel nothing comes back to W: W.T multiplies
gradients that do not depend on W.T z', and conversely. The checks look at a clause (no matrix is the transpose of another)
and say no to both; they are sufficient, not necessary. `limit` and `kernel` are right in both cases, as they do not assume it.

check_gia: simple False, bp_like False, holds False (W.T in the forward pass; `arrangement=parallel`: holds True).

Source: G. Yang, Tensor Programs III (arXiv:2009.10685), appendix C (the clause, and what is right without it); Tensor Programs
II (arXiv:2006.14548), condition 1.

Run:
    tensorprog gia programs/transposed_weights.py
    tensorprog gia programs/transposed_weights.py --set arrangement=parallel
    tensorprog compare programs/transposed_weights.py --widths 64 256 1024 --seeds 32
"""

import numpy as np

import tensorprog as tp


def build(arrangement="series"):
    n = tp.Width("n")
    x = tp.Input("x")
    W = tp.Matrix("W", n, n, var=1)
    z = tp.dense("U", x, n)
    if arrangement == "series":
        return tp.Network(tp.readout("v", tp.tanh(W.T @ tp.tanh(W @ z))))
    if arrangement == "parallel":
        return tp.Network(tp.readout("v", tp.tanh(W @ z) + tp.tanh(W.T @ tp.dense("V", x, n))))
    raise ValueError(f"arrangement is {arrangement!r}: give series or parallel")


def data(examples=2, features=3):
    return np.random.default_rng(0).standard_normal((examples, features))
