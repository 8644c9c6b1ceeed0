"""A recurrent network: one matrix at all times, read at the end or on average.

    s_t = phi(W s_(t-1) + U x_t + b),   s_0 = 0             f = v.s_T / sqrt(n), or mean_t v.s_t / sqrt(n)

W has entries of variance `W_std`^2/n and is used T times: each product is a use of one parameter, and the tangent kernel sums
over pairs of uses. With C(t, r) = E s_t s'_r for two sequences, forward

    C(t, r) = E phi(u) phi(u'),   Cov(u, u') = W_std^2 C(t-1, r-1) + U_std^2 x_t.x'_r/d + b_std^2

and backward D(t, r) = E ds_t ds'_r = 1/(T T') + W_std^2 D(t+1, r+1) E phi'(u) phi'(u') at (t+1, r+1), for `head="average"`;
for `head="last"` D is 0 but for pairs equally far from their ends. Sequences may have different lengths, as by default.

check_gia: simple True, bp_like True, holds True (W is used many times, and W.T in back-propagation alone).

Source: J. Elman, Finding Structure in Time (1990); G. Yang, Tensor Programs II (arXiv:2006.14548), figure 1, section 6.2.1 and
appendix E.2 (whose recursion for the average lacks the term 1/(T T')).

Run:
    tensorprog kernel programs/rnn.py
    tensorprog kernel programs/rnn.py --set head=last phi=relu W_std=1.4
    tensorprog compare programs/rnn.py --widths 64 256 1024 --seeds 32
"""

import numpy as np

import tensorprog as tp


def build(head="average", phi="erf", W_std=1, U_std=2**0.5, b_std=0.2**0.5):
    n = tp.Width("n")
    x = tp.Input("x", axes=("t",))
    s = tp.rnn("R", x, n, phi=getattr(tp, phi), W_std=W_std, U_std=U_std, b_std=b_std)
    if head == "average":
        return tp.Network(tp.readout("v", tp.mean(s, "t")))
    if head == "last":
        return tp.Network(tp.readout("v", tp.take(s, "t", -1)))
    raise ValueError(f"head is {head!r}: give average or last")


def data(lengths=(4, 4, 3), features=3):
    rng = np.random.default_rng(0)
    return [rng.uniform(-1, 1, (length, features)) for length in lengths]
