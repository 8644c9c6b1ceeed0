"""Training in function space: against mpmath, NumPy's own loops, neural-tangents, traces of `tp.sgd`, and unlucky inputs."""

import json
from pathlib import Path

import mpmath
import numpy as np
import pytest
from marks import few, refused

import tensorprog as tp

GOLDEN = Path(__file__).parent / "golden"
N = tp.Width("n")


def mlp(depth=2, phi=tp.erf, W_std=1.3, b_std=0.2):
    h = tp.Input("x")
    for layer in range(depth):
        h = phi(tp.dense(f"W{layer}", h, N, W_std=W_std, b_std=b_std))
    return tp.Network(tp.readout("v", h, W_std=W_std, b_std=b_std))


def bell(x, width):
    return np.exp(-((x[:, None] - x) ** 2) / (2 * width**2))


def by_mpmath(K, K_test, y, S, S_test, S_both, times, r):
    """Means and covariances with 40 digits."""
    with mpmath.workdps(40):
        n = len(y)
        E, Q = mpmath.eigsy(mpmath.matrix(K.tolist()) + mpmath.mpf(r) * mpmath.eye(n))
        A, B, C, D = (mpmath.matrix(a.tolist()) for a in (K_test, S, S_test, S_both))
        means, covs = [], []
        for t in times:
            g = [1 / e if np.isinf(t) else -mpmath.expm1(-e * mpmath.mpf(t) / n) / e for e in E]
            M = A * Q * mpmath.diag(g) * Q.T
            means.append(np.array((M * mpmath.matrix(y.tolist())).tolist(), float)[:, 0])
            covs.append(np.array((D - M * C.T - C * M.T + M * B * M.T).tolist(), float))
    return np.array(means), np.array(covs)


@pytest.mark.parametrize(("width", "diag_reg"), few([(0.3, None), (1.0, None), (3.0, 0.0), (3.0, 1e-4)], {(1.0, None)}))
def test_errors_are_bounds(width, diag_reg):
    rng = np.random.default_rng(0)
    x, y, times, n = rng.uniform(-1, 1, 12), rng.standard_normal(9), [0.3, 1e4, np.inf], 9
    K, S = bell(x, width), np.exp(-np.abs(x[:, None] - x))
    pred = tp.predict(
        {"ntk": K[:n, :n], "nngp": S[:n, :n]}, y, {"ntk": K[n:, :n], "nngp": S[n:, :n]}, {"nngp": S[n:, n:]},
        diag_reg=diag_reg,
    )  # fmt: skip
    m = pred(t=times)
    means, covs = by_mpmath(K[:n, :n], K[n:, :n], y, S[:n, :n], S[n:, :n], S[n:, n:], times, float(pred.regulariser))
    assert (np.abs(m.mean - means) <= m.error).all()
    assert (np.abs(m.cov - covs) <= np.maximum(m.cov_error[:, :, None], m.cov_error[:, None])).all()
    assert np.allclose(m.variance, np.einsum("tii->ti", m.cov), atol=1e-14)
    if diag_reg is None:
        assert m.error.max() < 1e-3  # and no absurd ones
        assert (float(pred.regulariser) > 0) == (width == 1.0)
    if diag_reg == 0:
        assert np.isinf(m.error[-1]).all() and np.isfinite(m.mean).all() and "diag_reg" in m.note


def test_ensembles_of_neural_tangents():
    d = np.load(GOLDEN / "predict_mse_ensemble_erf_reg0.0.npz")
    lr = json.loads((GOLDEN / "predict_mse_ensemble_erf_reg0.0.json").read_text())["learning_rate"]
    pred = tp.predict(mlp(), d["x_train"], d["y_train"], d["x_test"])
    both = pred(t=[lr * t / 2 for t in (0, 1, 10, 1000)] + [np.inf], get=("nngp", "ntk"))
    for get in both._fields:
        for i, t in enumerate(("0.0", "1.0", "10.0", "1000.0", "None")):
            m = getattr(both, get)
            assert np.abs(m.mean[i] - d[f"{get}_mean_t{t}"]).max() < 1e-7
            assert np.abs(m.cov[i] - d[f"{get}_cov_t{t}"]).max() < 1e-7
            assert np.abs(m.train_mean[i] - d[f"{get}_trainmean_t{t}"]).max() < 1e-7


RNG = np.random.default_rng(1)
X, Y, XT = RNG.standard_normal((5, 3)), RNG.standard_normal(5), RNG.standard_normal((2, 3))


@pytest.mark.parametrize(("momentum", "nesterov"), few([(0, False), (0.5, False), (0.5, True)], {(0.5, True)}))
def test_steps_are_those_of_a_trace(momentum, nesterov):
    net, f0 = mlp(1), RNG.standard_normal(7)
    trace = tp.sgd(net, X, Y, steps=3, lr=0.7, X_test=XT, optimizer=tp.SGD(momentum=momentum, nesterov=nesterov))
    limit = tp.limit(trace, f0=f0)
    m = tp.predict(net, X, Y, XT)(steps=range(4), lr=0.7, f0=f0, momentum=momentum, nesterov=nesterov)
    assert np.abs(m.train_mean - limit["f"].value).max() < 1e-12
    assert np.abs(m.mean - limit["f_test"].value).max() < 1e-12


def kernel_descent(K, y, steps, h, momentum=0.0, nesterov=False):
    """Every step by hand; the last rows of K are tests."""
    n, f, m, found = len(y), np.zeros(len(K)), np.zeros(len(K)), []
    for _ in range(steps + 1):
        found.append(f)
        g = K @ (f[:n] - y) / n
        m = momentum * m + g
        f = f - h * (g + momentum * m if nesterov else m)
    return np.array(found)


@pytest.mark.parametrize(("momentum", "nesterov"), [(0, False), (0.9, False), (0.9, True)])
@pytest.mark.parametrize("share", few([0.5, 0.99, 1.01], {0.99}))
def test_steps_and_the_largest_rate(share, momentum, nesterov):
    K = bell(np.linspace(-1, 1, 8), 0.3)
    y = np.sin(3 * np.arange(6.0)) + 1
    pred = tp.predict(K[:6, :6], y, K[6:, :6])
    lr = share * float(pred.largest_rate(momentum, nesterov))
    steps = [0, 1, 2, 7, 300, 1000]
    m = pred(steps=steps, lr=lr, momentum=momentum, nesterov=nesterov)
    by_hand = kernel_descent(K[:, :6], y, 1000, lr, momentum, nesterov)[steps]
    scale = np.abs(by_hand).max(axis=1, keepdims=True) + 1
    assert (np.abs(np.concatenate([m.train_mean, m.mean], axis=1) - by_hand) / scale).max() < 1e-9
    ended = np.abs(m.train_mean[-1] - y).max()
    assert ended > 10 if share > 1 else ended < 1
    assert (np.abs(m.mean - by_hand[:, 6:]) <= m.error + 1e-12 * scale).all()
    if share < 1:
        far = pred(steps=np.inf, lr=lr, momentum=momentum, nesterov=nesterov)
        assert np.abs(far.mean - pred(t=np.inf).mean).max() < 1e-9 and np.isfinite(far.error).all()
    else:
        with refused("converge"):
            pred(steps=np.inf, lr=lr, momentum=momentum, nesterov=nesterov)
        with refused("overflow"):
            pred(steps=10**5, lr=100 * lr, momentum=momentum, nesterov=nesterov)


def test_flow_stands_beside_steps():
    pred = tp.predict(mlp(), X, Y, XT)
    m = pred(steps=[0, 10, 1000], lr=1e-3, momentum=0.5)
    assert np.allclose(m.flow.t, [0, 0.02, 2]) and np.abs(m.gap).max() < 1e-3
    rates = [0.1, 0.3, 0.05]
    K = tp.kernel_fn(mlp())(np.concatenate([X, XT]), X, get="ntk")
    f = np.zeros(7)
    for rate in rates:
        f = f - rate * K @ (f[:5] - Y) / 5
    m = pred(steps=3, lr=rates, f0="zero")
    assert np.abs(np.concatenate([m.train_mean, m.mean]) - f).max() < 1e-13 and not m.cov.any()


# ---- kernels that are singular -----------------------------------------------------------------------------------------


def test_equal_examples_learn_the_mean_of_their_targets():
    doubled, targets = X[[0, 1, 2, 0, 0, 1]], np.array([1.0, 2, 3, 4, 5, -6])
    means = np.array([10 / 3, -2.0, 3.0])
    pred = tp.predict(mlp(), doubled, targets, X[:3])
    assert float(pred.regulariser) == 0 and "3 examples repeat" in repr(pred)
    m = pred(t=np.inf)
    assert np.abs(m.mean - means).max() < 1e-9 and np.abs(m.train_mean - means[[0, 1, 2, 0, 0, 1]]).max() < 1e-9
    assert (np.abs(m.mean - means) <= m.error).all() and np.abs(m.cov).max() < 1e-9
    K = tp.kernel_fn(mlp())(doubled, get="ntk")
    f = kernel_descent(K, targets, 50, 0.4)[-1]
    assert np.abs(pred(steps=50, lr=0.4).train_mean - f).max() < 1e-12
    constant = tp.predict(mlp(), np.ones((4, 3)), [0.0, 1, 0, 1], np.ones((1, 3)))(t=[1e30, np.inf])
    assert np.abs(constant.mean - 0.5).max() < 1e-12


def test_a_kernel_of_low_rank():
    """A linear network learns least squares, of the smallest norm: along the rest of the targets nothing can be learned."""
    x, y = np.random.default_rng(2).standard_normal((2, 12, 3))
    net = tp.Network(tp.readout("v", tp.dense("U", tp.Input("x"), N)))
    pred = tp.predict(net, x, y, x[:2] + 1)
    assert 0 < pred.regulariser.relative < 1e-4 and "diag" in repr(pred) and pred.condition > 1e15
    m = pred(t=[1e3, np.inf])
    w = np.linalg.lstsq(x, y, rcond=None)[0]
    assert np.abs(m.train_mean - x @ w).max() < 1e-4 and np.abs(m.mean - (x[:2] + 1) @ w).max() < 1e-4
    assert m.error.max() < 1e-3
    same = tp.predict(net, x, y, x[:2] + 1, diag_reg=0)(t=np.inf)
    assert np.abs(same.mean - (x[:2] + 1) @ w).max() < 1e-9  # its pseudo-inverse


@pytest.mark.parametrize("phi", [tp.erf, tp.relu])
def test_what_gave_not_a_number_elsewhere(phi):
    """Points on a line, far apart and many; targets of order 1e4; a kernel that is 0."""
    x = np.linspace(-10 * np.pi, 10 * np.pi, 60)[:, None]
    net = mlp(2, phi, 1.5, 0.05)
    m = tp.predict(net, x, 2e4 * np.sin(x), x[::7] + 0.01)(t=[0, 1, 1e6, np.inf], get=("nngp", "ntk"))
    for found in m:
        assert np.isfinite(found.mean).all() and np.isfinite(found.error).all() and (found.variance >= 0).all()
        assert "regulariser" in repr(found)
    nothing = tp.predict(np.zeros((3, 3)), np.ones(3), np.zeros((1, 3)))
    assert nothing(t=np.inf).mean == 0 and float(nothing.max_learning_rate) == np.inf
    assert nothing.early_stopping(0.1).time == 0 and "0" in repr(nothing.components)


# ---- components, stopping, posteriors ----------------------------------------------------------------------------------


def test_components_are_learned_at_their_times():
    K = bell(np.linspace(-1, 1, 6), 0.4)
    c = tp.predict(K, Y.repeat(2)[:6]).components
    assert np.allclose(c.eigenvalues, np.linalg.eigvalsh(K)[::-1] / 6) and c.error < 1e-14
    assert np.abs(c.directions.T @ K @ c.directions / 6 - np.diag(c.eigenvalues)).max() < 1e-14
    assert np.allclose(np.diagonal(c.learned(c.times)), 1 - np.exp(-1)) and (c.learned(np.inf) == 1).all()
    m = tp.predict(K, 3 * c.directions[:, 1])(t=7.0, f0="zero")
    assert np.abs(m.train_mean - 3 * c.learned(7.0)[1] * c.directions[:, 1]).max() < 1e-13


def test_early_stopping_minimises_the_error():
    rng = np.random.default_rng(5)
    x = np.linspace(-1, 1, 40)
    K, truth, noise = bell(x, 0.2) + 0.1, np.sin(3 * x), 0.5
    risks, estimates = [], []
    for _ in range(12):
        stop = tp.predict(K, y := truth + noise * rng.standard_normal(40)).early_stopping(noise, f0="zero")
        risks.append(((tp.predict(K, y)(t=stop.times[::40], f0="zero").train_mean - truth) ** 2).mean(axis=1))
        estimates.append(stop.risks[::40])
    off = np.mean(np.subtract(estimates, risks), axis=0)
    spread = np.std(np.subtract(estimates, risks), axis=0) / 12**0.5
    assert (np.abs(off) < 6 * spread + 1e-12).all()  # without bias
    best = np.mean(risks, axis=0)
    assert 0 < best.argmin() < len(best) - 1 and 1 < stop.time < 1e3
    assert float(tp.predict(K, truth).early_stopping(0.0)) == np.inf
    assert tp.predict(K, truth).early_stopping(1e6, f0="zero").time == 0


def test_early_stopping_on_tests_of_a_process():
    """Against the formula in full, and the posterior's variance, which no time can beat."""
    x = np.linspace(-1, 1, 13)
    K, S = bell(x, 0.3), np.exp(-np.abs(x[:, None] - x))
    a, b = slice(0, 9), slice(9, None)
    pred = tp.predict(
        {"ntk": K[a, a], "nngp": S[a, a]}, x[a], {"ntk": K[b, a], "nngp": S[b, a]}, {"ntk": K[b, b], "nngp": S[b, b]}
    )
    stop = pred.early_stopping(0.3, f0="zero", truth="process")
    values, vectors = np.linalg.eigh(K[a, a])
    A = K[b, a] @ (vectors * (-np.expm1(-values * stop.time / 9) / values)) @ vectors.T
    by_hand = np.diagonal(K[b, b] - 2 * A @ K[a, b] + A @ (K[a, a] + 0.09 * np.eye(9)) @ A.T).mean()
    assert abs(stop.risk - by_hand) < 1e-12 and stop.risk <= stop.risks.min()
    assert np.diagonal(K[b, b] - K[b, a] @ np.linalg.solve(K[a, a] + 0.09 * np.eye(9), K[a, b])).mean() < stop.risk < 1
    random = pred.early_stopping(0.3, truth="process")
    assert (
        abs(random.risk - np.mean(pred(t=random.time).variance) - np.interp(random.time, stop.times, stop.risks)) < 1e-3
    )
    with refused("tests"):
        tp.predict(K, x).early_stopping(0.1, truth="process")


def test_posterior_is_that_of_a_gaussian():
    x = np.linspace(-1, 1, 7)
    K, y, s2 = bell(x, 0.5), np.cos(np.arange(5.0)), 0.01
    A = K[:5, :5] + s2 * np.eye(5)
    found = tp.predict(K[:5, :5], y, K[5:, :5], K[5:, 5:]).posterior(noise=0.1)
    assert np.allclose(found.mean, K[5:, :5] @ np.linalg.solve(A, y), atol=1e-11)
    assert np.allclose(found.cov, K[5:, 5:] - K[5:, :5] @ np.linalg.solve(A, K[:5, 5:]), atol=1e-11)
    density = -0.5 * (y @ np.linalg.solve(A, y) + np.linalg.slogdet(A)[1] + 5 * np.log(2 * np.pi))
    assert abs(found.log_marginal_likelihood.value - density) < 1e-11
    best = tp.predict(K[:5, :5], y).posterior(noise=None)
    for noise in (0.9 * best.noise, 1.1 * best.noise):
        assert float(tp.predict(K[:5, :5], y).posterior(noise).log_marginal_likelihood) < float(
            best.log_marginal_likelihood
        )
    twice = np.array([0, 0, 1, 2])
    A = K[np.ix_(twice, twice)] + s2 * np.eye(4)
    found = tp.predict(K[np.ix_(twice, twice)], y[:4]).posterior(noise=0.1)
    density = -0.5 * (y[:4] @ np.linalg.solve(A, y[:4]) + np.linalg.slogdet(A)[1] + 4 * np.log(2 * np.pi))
    assert abs(found.log_marginal_likelihood.value - density) < 1e-11


def test_networks_with_several_outputs():
    h = tp.erf(tp.dense("U", tp.Input("x"), N))
    g = tp.erf(tp.dense("W", h, N))
    net = tp.Network([tp.readout("v", h), tp.readout("w", g, W_std=2)])
    y = np.stack([Y, Y[::-1]], axis=1)
    m = tp.predict(net, X, y, XT)(t=[1.0, np.inf])
    K = tp.kernel_fn(net)(np.concatenate([X, XT]), get="ntk").transpose(0, 2, 1, 3).reshape(14, 14)
    by_hand = (K[10:, :10] @ np.linalg.solve(K[:10, :10], y.ravel())).reshape(2, 2)
    assert m.mean.shape == (2, 2, 2) and np.abs(m.mean[1] - by_hand).max() < 1e-9
    assert np.abs(m.train_mean[1] - y).max() < 1e-9
    assert m.cov.shape == (2, 2, 2, 2, 2) and m.variance.shape == (2, 2, 2) and m.error.shape == (2, 2)
    assert np.allclose(m.variance, np.einsum("tiijj->tij", m.cov))


# ---- what makes no sense -----------------------------------------------------------------------------------------------


K5 = bell(np.linspace(-1, 1, 5), 0.4)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: tp.predict(K5, Y)(t=-1), "t=-1"),
        (lambda: tp.predict(K5, Y)(t=[0, np.nan]), "t=nan"),
        (lambda: tp.predict(K5, Y)(t="soon"), "no numbers"),
        (lambda: tp.predict(K5, Y)(t=1, steps=1, lr=1), "both"),
        (lambda: tp.predict(K5, Y)(steps=1), "lr="),
        (lambda: tp.predict(K5, Y)(steps=1.5, lr=1), "whole"),
        (lambda: tp.predict(K5, Y)(steps=1, lr=-1), "lr=-1"),
        (lambda: tp.predict(K5, Y)(steps=1, lr=1, momentum=1), "momentum"),
        (lambda: tp.predict(K5, Y)(t=1, get="ntkk"), "ntkk"),
        (lambda: tp.predict(K5, Y)(t=1, f0="drawn"), "prior"),
        (lambda: tp.predict(K5, Y)(t=1, f0=[1, 2]), "f0 of shape"),
        (lambda: tp.predict(K5, Y)(t=1).mean, "no test examples"),
        (lambda: tp.predict(K5, Y, K5[:2])(t=1).cov, "K_test_test"),
        (lambda: tp.predict(K5, Y[:4]), "4 targets y for 5"),
        (lambda: tp.predict(K5, [0, 1, np.nan, 0, 1]), "not finite"),
        (lambda: tp.predict(np.full((5, 5), np.nan), Y), "not finite"),
        (lambda: tp.predict(K5[:4], Y), "of shape"),
        (lambda: tp.predict(np.arange(25.0).reshape(5, 5), Y), "symmetric"),
        (lambda: tp.predict(-K5, Y), "negative"),
        (lambda: tp.predict([[1, 2], [2, 1]], [1, 2])(t=1), "negative eigenvalue, -1"),
        (lambda: tp.predict(K5, Y, K5[:, :2]), "transposed"),
        (lambda: tp.predict(K5, Y, diag_reg=-1), "diag_reg"),
        (lambda: tp.predict(mlp(1), X, Y[:3]), "3 targets"),
        (lambda: tp.predict(mlp(1), X, Y, XT[:, :2]), "features"),
        (lambda: tp.predict(mlp(1), X), "X, y"),
        (lambda: tp.predict(np.ones((2, 2)), [0, 1]).posterior(), "singular"),
    ],
)
def test_bad_input_is_refused(call, says):
    with refused(says):
        call()
