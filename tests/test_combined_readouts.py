"""Linear combinations of readouts, and readouts by a network's own vectors; what is no output is refused in words."""

import numpy as np
import pytest
from marks import refused

import tensorprog as tp

N = tp.Width("n")
X = np.random.default_rng(0).standard_normal((2, 3))
H = tp.relu(tp.dense("W", tp.relu(tp.dense("U", tp.Input("x"), N)), N))
G = tp.relu(tp.dense("V", tp.dense("U", tp.Input("x"), N), N))
F1, F2 = tp.readout("v", H, b_std=0.3), tp.readout("w", G)


def kernels(outputs, data=X):
    return tp.kernel_fn(tp.Network(outputs))(data)


@pytest.mark.parametrize(
    ("combined", "weights"),
    [
        (-F1, (-1, 0)),
        (2 * F1, (2, 0)),
        (F1 / 4, (0.25, 0)),
        (F1 + F1, (2, 0)),
        (F1 - 3 * F2, (1, -3)),
        (sum([F1, F2]), (1, 1)),
        (tp.Scalar("c", 2) * F1, (2, 0)),
    ],
)
def test_linear_combinations(combined, weights):
    both = kernels([F1, F2])
    one = tp.limit(tp.Network(combined), X)
    for name in ("nngp", "ntk"):
        expected = np.einsum("ijab,a,b", getattr(both, name), weights, weights)
        np.testing.assert_allclose(one[name].value, expected, rtol=1e-12, atol=1e-15)
    f, apart = tp.run(tp.Network(combined), X, n=5, of="f")["f"], tp.run(tp.Network([F1, F2]), X, n=5, of="f")["f"]
    np.testing.assert_allclose(f, apart @ np.array(weights, dtype=float), rtol=1e-10)


def test_what_is_no_output_is_refused_in_words():
    bad = [
        lambda: tp.tanh(F1), lambda: tp.sign(F1), lambda: F1 * F2, lambda: F1**2, lambda: abs(F1), lambda: 1 / F1,
        lambda: F1 / F2,
        lambda: F1 + 1, lambda: 1 - F1, lambda: F1 + tp.moment(H * H), lambda: tp.moment(H) + F1, lambda: F1 * H,
    ]  # fmt: skip
    for make in bad:
        with refused("readout"):
            kernels(make())


@pytest.mark.parametrize(
    "function",
    [np.tanh, np.negative, np.abs, bool, float, int, lambda v: v if v else 0, lambda v: v > 0, lambda v: np.float64(1) / v,
     lambda v: np.float64(1) + v, lambda v: v @ v],
)  # fmt: skip
def test_functions_of_readouts_are_refused_inside_functions(function):
    with refused("readout"):
        kernels(lambda x: function(tp.readout("v", tp.relu(tp.dense("U", x, N)))))


def test_numbers_of_numpy_multiply_readouts_inside_functions():
    def combined(x):
        h = tp.relu(tp.dense("U", x, N))
        v, w = tp.readout("v", h), tp.readout("w", h)
        return np.dot(np.array([2.0, 1.0]), [v, w]) - np.float64(3) * w + np.sum([w, w]) / np.float64(2)

    def plain(x):
        h = tp.relu(tp.dense("U", x, N))
        return 2 * tp.readout("v", h) - tp.readout("w", h)

    np.testing.assert_allclose(kernels(combined).ntk, kernels(plain).ntk, rtol=1e-13)


def test_a_network_without_outputs_is_refused():
    with refused("no outputs"):
        kernels(lambda x: [])


def test_bilinear_scores_and_tied_embeddings():
    """Against 200 networks of width 256: five standard errors; a wrong factor of 2 is twenty away."""
    Y = np.random.default_rng(1).standard_normal((2, 3))
    scores = tp.Network(tp.readout(tp.dense("Q", H, N), tp.dense("K", G, N)))
    tied = tp.Network(tp.readout(tp.dense("U", tp.Input("y"), N), H))
    for net, data in ((scores, X), (tied, {"x": X, "y": Y})):
        k, runs = kernels(net.outputs[0], data), tp.run(net, data, n=256, seeds=200)
        products = runs["f"][:, :, None] * runs["f"][:, None, :]
        for name, draws in (("nngp", products), ("ntk", runs["ntk"])):
            error = draws.std(0) / 200**0.5
            assert (np.abs(draws.mean(0) - getattr(k, name)) < 5 * error + 0.02 * np.abs(getattr(k, name)).max()).all()
    assert not tp.check_gia(tied).simple


def test_a_readout_without_a_law_is_refused():
    e = tp.dense("U", tp.Input("y"), N)
    net = tp.Network(tp.readout(e, tp.relu(tp.dense("U", tp.Input("x"), N))))
    with refused("correlated"):
        tp.kernel_fn(net)({"x": X, "y": X})
    assert tp.kernel_fn(net)({"x": X, "y": X}, get="ntk").shape == (2, 2)
