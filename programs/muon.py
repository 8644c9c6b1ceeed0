"""Training with Muon: a linear network whose matrix moves by the orthogonalised momentum of its gradients.

    f(x) = v.W U x / n,   loss = mean of (f - y)^2 / 2,   in the parametrization muP

    G = sum of d h'  over examples and steps, times powers of the momentum;  X = G / |G|
    X <- a X + b (X X') X + c (X X')^2 X, five times;   W <- W - lr X;   U and v by gradient descent

on x = (1, 1) with y = 1; with `examples=2` on x = (1, -1), y = -1, too. X is D C H' for the vectors d and h of all examples and
steps, C a small matrix that the Moments of these make: it is all that the steps of Newton and Schulz act on, at any width. One
example has one singular value, which five steps bring from 1 to p = 0.69643..; the first step of training is

    f_1 = lr (2 + p) = 0.6741..,

p of it by the motion of W, and twice lr by that of U and v; under GIA (`--gia`) U moves the output not at all: lr (1 + p).
With `phi="tanh"` the limit is that of populations.

formula:
    c1 = 0.99999999999949995
    c2[i, j] = -4.7750000000000004*c1**2 + 2.0314999999999999*Sum(c1**4, (s1, 0, 0)) + 3.4445000000000001
    S1[i, j] = Sum(c1**2*Sum(c2[i, s3]*c2[s3, s2], (s3, 0, 0)), (s2, 0, 0))
    c3[i, j] = -4.7750000000000004*S1[i, j] + 2.0314999999999999*Sum(S1[i, s4]*S1[s4, j], (s4, 0, 0)) + 3.4445000000000001
    S2[i, j] = Sum(S1[s5, j]*Sum(c3[i, s6]*c3[s6, s5], (s6, 0, 0)), (s5, 0, 0))
    c4[i, j] = -4.7750000000000004*S2[i, j] + 2.0314999999999999*Sum(S2[i, s7]*S2[s7, j], (s7, 0, 0)) + 3.4445000000000001
    S3[i, j] = Sum(S2[s8, j]*Sum(c4[i, s9]*c4[s9, s8], (s9, 0, 0)), (s8, 0, 0))
    c5[i, j] = -4.7750000000000004*S3[i, j] + 2.0314999999999999*Sum(S3[i, s10]*S3[s10, j], (s10, 0, 0)) + 3.4445000000000001
    S4[i, j] = Sum(S3[s11, j]*Sum(c5[i, s12]*c5[s12, s11], (s12, 0, 0)), (s11, 0, 0))
    c6[i] = A2[i] - 0.25*Sum(A1[s13]*Sum((-4.7750000000000004*S4[0, s14] + 2.0314999999999999*Sum(S4[0, s15]*S4[s15, s14], (s15, 0, 0)) + 3.4445000000000001)*Sum(c5[s14, s16]*Sum(c4[s16, s17]*Sum(c1*c2[s18, s13]*c3[s17, s18], (s18, 0, 0)), (s17, 0, 0)), (s16, 0, 0)), (s14, 0, 0)), (s13, 0, 0))
    f[step, example] = Piecewise((0, Eq(step, 0)), (c6[example], True))
    loss[step] = Piecewise((1/2, Eq(step, 0)), (Sum((c6[s19] - 1)**2, (s19, 0, 0))/2, True))

check_gia: simple False, bp_like False, holds False (at W.T of a gradient: later steps multiply by W what it made).
check_regularity: covered True, Tensor Programs IVb, theorem 2.6.10 (OuterNonlins, pseudo-Lipschitz).

Source: K. Jordan et al., Muon: an optimizer for hidden layers in neural networks (2024); the limit is derived here.

Run:
    tensorprog limit programs/muon.py --set steps=3 momentum=0.9 examples=2
    tensorprog limit programs/muon.py --gia
    tensorprog compare programs/muon.py --set steps=3 phi="'tanh'" --widths 64 256 1024 --seeds 32
"""  # noqa: E501

import tensorprog as tp


def build(steps=1, lr=0.25, momentum=0, examples=1, phi=None):
    n = tp.Width("n")
    act = getattr(tp, phi) if phi else lambda h: h
    h = act(tp.dense("W", act(tp.dense("U", tp.Input("x"), n)), n))
    return tp.sgd(
        tp.Network(tp.readout("v", h)), [[1, 1], [1, -1]][:examples], [1, -1][:examples], steps=steps, lr=lr,
        parametrization="mup", optimizer=tp.Muon(momentum, others=tp.SGD()),
    )  # fmt: skip
