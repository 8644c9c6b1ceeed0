"""Unrolled training and its limits (the training issue)."""

import numpy as np
import pytest

import tensorprog as tp

pytestmark = pytest.mark.slow  # what the default suite tests piece by piece


def mlp(hidden, phi):
    n, h = tp.Width("n"), tp.Input("x")
    for layer in range(hidden):
        h = phi(tp.dense(f"W{layer}", h, n, W_std=1))
    return tp.Network(tp.readout("v", h))


def identity(x):
    return x


def data(examples=5, dimension=4, seed=0):
    rng = np.random.default_rng(seed)
    return (
        rng.standard_normal((examples, dimension)),
        rng.standard_normal(examples),
        rng.standard_normal((3, dimension)),
    )


@pytest.mark.parametrize("hidden", [1, 2, 3])
def test_the_limit_of_the_unrolled_program_is_kernel_gradient_descent(hidden):
    """Tensor Programs IIb, one example a step."""
    X, y, Xt = data()
    net, steps, lr = mlp(hidden, tp.tanh), 6, 0.3
    f0 = np.linspace(-1, 1, len(X) + len(Xt))
    trace = tp.sgd(net, X, y, steps=steps, lr=lr, batch=1, parametrization="ntk", X_test=Xt)
    limit = tp.limit(trace, f0=f0)
    both = np.concatenate([X, Xt])
    K, f, expected = tp.kernel_fn(net)(both, X, get="ntk"), f0.copy(), [f0]
    for t in range(steps):
        i = t % len(X)
        f = f - lr * K[:, i] * (f[i] - y[i])
        expected.append(f)
    ours = np.concatenate([np.asarray(limit["f"].value), np.asarray(limit["f_test"].value)], axis=1)
    np.testing.assert_allclose(ours, expected, atol=1e-9)


GOLDEN = {  # xi = y = 1, lr 1/4, loss (f - y)^2 / 2, muP, linear
    (1, False): [0, 0.5, 0.7734375, 0.91232094, 0.96955693],
    (2, False): [0, 0.75, 0.997086, 1.000460, 0.999926],
    (2, True): [0, 0.5, 0.822510, 0.973350, 0.998746],
}


@pytest.mark.parametrize("hidden,gia", GOLDEN)
def test_mup_limits_of_linear_networks(hidden, gia):
    trace = tp.sgd(
        mlp(hidden, identity), np.ones((1, 1)), np.ones(1), steps=4, lr=0.25, batch="full", parametrization="mup"
    )
    f = np.asarray(tp.limit(trace, gia=gia)["f"].value).ravel()
    np.testing.assert_allclose(f, GOLDEN[hidden, gia], atol=2e-6)


def test_finite_networks_converge_to_the_mup_limit():
    X, y, _ = data(4, 5, 1)
    trace = tp.sgd(mlp(2, tp.tanh), X, y, steps=8, lr=0.5, batch="full", parametrization="mup")
    limit, c = tp.limit(trace, rng=0), tp.compare(trace, widths=[128, 512, 2048], seeds=8)
    assert np.max(np.asarray(limit["loss"].error)) < 5e-3
    assert c.agrees


def test_every_step_of_a_real_network_is_the_program():
    X, y, _ = data(3, 4, 2)
    trace = tp.sgd(mlp(2, tp.tanh), X, y, steps=3, lr=0.4, batch=1, parametrization="ntk")
    c = tp.compare(trace, widths=[256, 1024, 4096], seeds=16)
    assert c.agrees and float(c.slope["f"]) < -0.3


ABC = {  # L = 2 hidden layers: a, b, c -> (stable, nontrivial, feature learning)
    "mup": (([-0.5, 0, 0.5], [0.5, 0.5, 0.5], 0), (True, True, True)),
    "ntk": (([0, 0.5, 0.5], [0, 0, 0], 0), (True, True, False)),
    "standard, lr 1/n": (([0, 0, 0], [0, 0.5, 0.5], 1), (True, True, False)),
    "standard, lr 1": (([0, 0, 0], [0, 0.5, 0.5], 0), (False, None, None)),
}


@pytest.mark.parametrize("name", ABC)
def test_dynamical_dichotomy(name):
    (a, b, c), (stable, nontrivial, features) = ABC[name]
    k = tp.classify(tp.ABC(a=a, b=b, c=c))
    assert k.stable == stable
    if stable:
        assert k.nontrivial == nontrivial and k.feature_learning == features
