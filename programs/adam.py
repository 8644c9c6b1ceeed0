"""Training with Adam in the neural tangent limit: the outputs move by an operator of the error signals, not by a kernel.

    f(x) = v.h / sqrt(n),  h = U x,   loss = (f - y)^2 / 2,   every entry w of U and v moved by n^(-1/2) of

    w <- w - lr m / sqrt(s + eps^2),   m and s the running means of g and g^2 (without their bias), g = chi dh x or chi h

in the NTK parametrization, on x = 1 with y = 1. Every coordinate moves by n^(-1/2) only, and Q, what Adam makes of the gradients
so far, acts on the entries of products of dh and x, not on their sums:

    f_{t+1} - f_t = -lr K_Q,   K_Q = E Q(chi_0 Z, .., chi_t Z) Z  for each of the two layers, Z = dh or h ~ N(0, 1).

The first step is f_1 = 2 lr E Z^2 / sqrt(Z^2 + eps^2), for eps = 0 by the signs of the gradients: lr (8 / pi)^(1/2). With
`hidden=1` a matrix is trained between the two, by Q of the entries of dh x' with independent dh and x: populations.

formula:
    S1[i] = Sum(1.0*(f0[s1] - 1)*KroneckerDelta(i, s1), (s1, 0, 0))
    K1 = Sum((f0[s2] - 1)*S1[s2], (s2, 0, 0))
    S2 = Sum((f0[s3] - 1)*A1[s3], (s3, 0, 0))
    K2 = Sum(S2*(f0[s4] - 1)*A1[s4], (s4, 0, 0))
    c1[i] = -0.25*S2*(-E[z1**2/(1.0*z1**2 + 0.010000000000000002)**(3/2); z1 ~ N(0, K2)] + E[1/sqrt(1.0*z1**2 + 0.010000000000000002); z1 ~ N(0, K2)]) - 0.25*(-E[z1**2/(1.0*z1**2 + 0.010000000000000002)**(3/2); z1 ~ N(0, K1)] + E[1/sqrt(1.0*z1**2 + 0.010000000000000002); z1 ~ N(0, K1)])*S1[i]
    f[step, example] = Piecewise((f0[example], Eq(step, 0)), (c1[example] + f0[example], True))
    loss[step] = Piecewise((Sum((f0[s5] - 1)**2, (s5, 0, 0))/2, Eq(step, 0)), (Sum((c1[s6] + f0[s6] - 1)**2, (s6, 0, 0))/2, True))

check_gia: simple True, bp_like True, holds True (there is no W.T).
check_regularity: covered True, Tensor Programs III, theorem E.15 (pseudo-Lipschitz in vectors and scalars).

Source: G. Yang and E. Littwin, Tensor Programs IVb (arXiv:2308.01814), theorem 2.4.7.

Run:
    tensorprog limit programs/adam.py --set steps=4
    tensorprog limit programs/adam.py --set hidden=1 steps=4 phi="'tanh'"
    tensorprog compare programs/adam.py --widths 64 256 1024 --seeds 32
"""  # noqa: E501

import tensorprog as tp


def build(steps=1, lr=0.25, beta1=0.9, beta2=0.999, eps=0.1, hidden=0, phi=None, parametrization="ntk"):
    n = tp.Width("n")
    act = getattr(tp, phi) if phi else lambda h: h
    h = act(tp.dense("U", tp.Input("x"), n))
    for layer in range(hidden):
        h = act(tp.dense(f"W{layer}", h, n))
    adam = tp.Adam(beta1=beta1, beta2=beta2, eps=eps)
    return tp.sgd(
        tp.Network(tp.readout("v", h)), [[1]], [1], steps=steps, lr=lr, optimizer=adam, parametrization=parametrization
    )
