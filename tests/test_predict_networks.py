"""Training in function space against networks of width 10,000 that are trained; the slow half of tests/test_predict.py."""

import numpy as np
import pytest

import tensorprog as tp

pytestmark = pytest.mark.slow
WIDTH, SEEDS, STEPS, RATE = 10_000, 60, 40, 1.5
RNG = np.random.default_rng(7)
X, XT = RNG.standard_normal((6, 3)), RNG.standard_normal((2, 3))
Y = np.sin(2 * X[:, 0])


def trained(seed):
    """Outputs, at the start and after some steps, of v.tanh(U x + 0.3 b)/n^(1/2), all of it trained."""
    rng = np.random.default_rng(seed)
    U, b, v = rng.standard_normal((WIDTH, 3)), rng.standard_normal(WIDTH), rng.standard_normal(WIDTH)
    A = np.concatenate([X, XT])

    def outputs():
        h = np.tanh(A @ U.T / 3**0.5 + 0.3 * b)
        return h, h @ v / WIDTH**0.5

    start = outputs()[1]
    for _ in range(STEPS):
        h, f = outputs()
        chi = (f[:6] - Y) * RATE / 6 / WIDTH**0.5
        dh = chi[:, None] * (1 - h[:6] ** 2) * v
        U, b, v = U - dh.T @ X / 3**0.5, b - 0.3 * dh.sum(0), v - chi @ h[:6]
    return start, outputs()[1]


def test_trained_networks_of_width_ten_thousand():
    n = tp.Width("n")
    net = tp.Network(tp.readout("v", tp.tanh(tp.dense("U", tp.Input("x"), n, b_std=0.3))))
    pred = tp.predict(net, X, Y, XT)
    starts, ends = (np.array(x) for x in zip(*map(trained, range(SEEDS)), strict=True))
    # each network is where the limit that starts at its own f_0 is, up to O(n^(-1/2)) = 0.01 times some units
    own = np.array([np.concatenate([m.train_mean, m.mean]) for m in (pred(steps=STEPS, lr=RATE, f0=s) for s in starts)])
    off = np.sqrt(((ends - own) ** 2).mean(axis=0))
    moved = np.sqrt(((ends - starts) ** 2).mean(axis=0))
    assert (off < 0.05 * moved).all() and (off > 1e-4).all()
    # and the ensemble has the mean and variance that are predicted: quantiles at a failure probability of 1e-4 in all
    m = pred(steps=STEPS, lr=RATE)
    mean = np.concatenate([m.train_mean, m.mean])
    deviation = np.sqrt(np.concatenate([np.diagonal(m.train_cov), m.variance]))
    z = (ends - mean) / deviation
    assert (np.abs(z.mean(axis=0)) * SEEDS**0.5 < 4.8).all()
    assert (np.abs((z**2).mean(axis=0) - 1) * (SEEDS / 2) ** 0.5 < 6).all()
