"""Training by the tangent kernel: the outputs of a relu network after each step of gradient descent.

    f(x) = v.relu(W relu(U x)) / sqrt(n),   loss = mean of (f - y)^2 / 2,   every weight trained at the rate lr

in the NTK parametrization, on x = (1, 1) with y = 1; with `examples=2` on x = (1, -1), y = -1, too. `tp.sgd` unrolls the run; every
coordinate moves by n^(-1/2) only, and the program carries these increments. By the Master Theorem, Zdot and all, the limit of the
program is kernel gradient descent from f_0 (the hyperparameter "f0", 0 by default):

    f_{t+1} = f_t - lr K (f_t - y) / examples,   K = 3 the tangent kernel: one for each layer,

so that f_t = 1 - (1 - 3 lr)^t. Without the Zdot terms (`--gia`) the input layer does not move the output: K would be 2. Of two
examples K = [[3, k], [k, 3]], and f_t = (1 - (1 - lr (3 - k) / 2)^t) y.

formula:
    K1[i, j] = 1.0*KroneckerDelta(i, j)
    c1[i, j] = ArcSineKernel(2.0*KroneckerDelta(i, j), 2.0*K1[i, j], 2.0*KroneckerDelta(i, j))/4 + 1/4
    c2[i] = -0.25*Sum((f0[s3] - 1)*ArcCosineKernel(2.0*KroneckerDelta(i, s3), 2.0*K1[s3, i], 2.0*KroneckerDelta(i, s3)), (s3, 0, 0)) - 0.5*Sum((f0[s1] - 1)*K1[i, s1]*c1[s1, i], (s1, 0, 0)) - 1.0*Sum(1.0*(ArcSineKernel(2.0*KroneckerDelta(i, s2), 2.0*KroneckerDelta(i, s2), 2.0*KroneckerDelta(i, s2))/4 + 1/4)*(f0[s2] - 1)*KroneckerDelta(i, s2)*c1[s2, i], (s2, 0, 0))
    f[step, example] = Piecewise((f0[example], Eq(step, 0)), (c2[example] + f0[example], True))
    loss[step] = Piecewise((Sum((f0[s4] - 1)**2, (s4, 0, 0))/2, Eq(step, 0)), (Sum((c2[s5] + f0[s5] - 1)**2, (s5, 0, 0))/2, True))

check_gia: simple False, bp_like False, holds False (at W.T of a gradient: later steps multiply by W what it made).
check_regularity: covered None, none as proven; expected to hold (the derivative of relu jumps).

Source: G. Yang and E. Littwin, Tensor Programs IIb (arXiv:2105.03703), section 3 and theorem 5.3.

Run:
    tensorprog limit programs/kernel_training.py --set steps=5
    tensorprog limit programs/kernel_training.py --gia
    tensorprog compare programs/kernel_training.py --widths 64 256 1024 --seeds 32
"""  # noqa: E501

import tensorprog as tp


def build(steps=1, lr=0.25, examples=1):
    n, root = tp.Width("n"), 2**0.5
    h = tp.dense("W", tp.relu(tp.dense("U", tp.Input("x"), n, W_std=root)), n, W_std=root)
    net = tp.Network(tp.readout("v", tp.relu(h)))
    return tp.sgd(net, [[1, 1], [1, -1]][:examples], [1, -1][:examples], steps=steps, lr=lr)
