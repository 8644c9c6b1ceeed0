"""Adam and SignSGD where training follows an operator, K_Q of Tensor Programs IVb: of entries, sampled here independently."""

import numpy as np
import pytest

import tensorprog as tp

N = tp.Width("n")
RNG = np.random.default_rng(3)
X, Y = RNG.standard_normal((3, 4)), RNG.standard_normal(3)
LR, STEPS = 0.25, 3


def mlp():
    h = tp.tanh(tp.dense("W", tp.tanh(tp.dense("U", tp.Input("x"), N)), N))
    return tp.Network(tp.readout("v", h))


def adam(state, g, b1=0.9, b2=0.95, eps=0.25):
    t, m, s = state or (0, 0.0, 0.0)
    m, s = b1 * m + (1 - b1) * g, b2 * s + (1 - b2) * g * g
    return m / (1 - b1 ** (t + 1)) / np.sqrt(s / (1 - b2 ** (t + 1)) + eps**2), (t + 1, m, s)


def by_samples(rule, f0, batches, samples, seed):
    """Outputs from f_0 on: Gaussians layer by layer, backward ones independent, entries of W for all pairs of samples."""
    rng = np.random.default_rng(seed)
    draw = lambda k: rng.standard_normal((samples, len(X))) @ np.linalg.cholesky(k).T  # noqa: E731
    d = X.shape[1]
    h1 = draw(X @ X.T / d)
    x1 = np.tanh(h1)
    h2 = draw(x1.T @ x1 / samples)
    x2, v = np.tanh(h2), rng.standard_normal((samples, 1))
    d2 = v * (1 - x2**2)
    d1 = draw(d2.T @ d2 / samples) * (1 - x1**2)
    f, found, states = f0, [f0], [None] * 3
    for b in map(list, batches):
        chi = np.zeros(len(X))
        chi[b] = (f[b] - Y[b]) / len(b)
        step = np.zeros(len(X))
        q, states[0] = rule(states[0], (d1 * chi) @ X / d**0.5)
        step += np.mean(d1 * (q @ X.T), axis=0) / d**0.5
        q, states[1] = rule(states[1], (d2 * chi) @ x1.T)
        step += np.mean(d2 * (q @ x1), axis=0) / samples
        q, states[2] = rule(states[2], x2 @ chi)
        step += np.mean(q[:, None] * x2, axis=0)
        f = f - LR * step
        found.append(f)
    return np.array(found)


OPTIMIZERS = {
    "Adam": (tp.Adam(0.9, 0.95, 0.25), adam),
    "signs": (tp.SignSGD(), lambda state, g: (np.sign(g), None)),
    "smooth signs": (tp.SignSGD(0.5), lambda state, g: (g / np.sqrt(g**2 + 0.25), None)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("batch", ["full", 1])
def test_outputs_move_by_the_neural_tangent_operator(name, batch):
    """16 replicates of each: a t of 15 degrees of freedom passes 6 with probability 2e-5, over 6 times 9 entries 1e-3."""
    optimizer, rule = OPTIMIZERS[name]
    f0 = np.array([0.5, -1.0, 2.0])
    trace = tp.sgd(mlp(), X, Y, steps=STEPS, lr=LR, batch=batch, optimizer=optimizer)
    limit = tp.limit(trace, f0=f0)["f"]
    runs = np.array([by_samples(rule, f0, trace.recipe.batches, 1024, seed) for seed in range(16)])
    error = np.hypot(runs.std(0, ddof=1) / 4, limit.error)
    assert limit.method == "population" and np.max(limit.error) < 5e-3
    assert np.all(np.abs(runs.mean(0) - limit.value) <= 6 * error)
    assert np.abs(limit.value[1:] - limit.value[:-1]).max() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Adam", "smooth signs"])
def test_finite_networks_tend_to_it_from_their_own_outputs(name):
    trace = tp.sgd(mlp(), X, Y, steps=STEPS, lr=LR, optimizer=OPTIMIZERS[name][0])
    c = tp.compare(trace, widths=[64, 256, 1024], seeds=8)
    assert c.agrees, c
    assert all(-0.85 < float(slope) < -0.15 for slope in c.slope.values() if slope is not None)


def test_signs_of_one_example_know_its_sign_alone():
    """Example 2.4.6: of batch 1 the operator is linear in sign(chi), whatever its size."""
    near, far = [tp.sgd(mlp(), X[:1], [y], steps=1, lr=LR, optimizer=tp.SignSGD()) for y in (-0.1, -10)]
    up = tp.sgd(mlp(), X[:1], [0.1], steps=1, lr=LR, optimizer=tp.SignSGD())
    moved = [tp.limit(t, method="population", samples=64)["f"].value[1, 0] for t in (near, far, up)]
    assert moved[0] == moved[1] == -moved[2] != 0
