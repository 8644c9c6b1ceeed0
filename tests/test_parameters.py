"""Networks with given parameters: the empirical tangent kernel of a trained model, against its Jacobian in plain NumPy."""

import numpy as np
import pytest
from marks import refused

import tensorprog as tp

N = tp.Width("n")
RNG = np.random.default_rng(0)
SIZE, FEATURES = 7, 3
X = RNG.standard_normal((4, FEATURES))
GIVEN = {
    "U": RNG.standard_normal((SIZE, FEATURES)),
    "U_b": RNG.standard_normal(SIZE),
    "W": RNG.standard_normal((SIZE, SIZE)) / SIZE**0.5,
    "W_b": RNG.standard_normal(SIZE),
    "v": RNG.standard_normal(SIZE),
    "v_b": RNG.standard_normal(SIZE),
}
NETWORK = tp.Network(
    tp.readout(
        "v",
        tp.tanh(tp.dense("W", tp.tanh(tp.dense("U", tp.Input("x"), N, b_std=0.5)), N, W_std=1.5, b_std=0.25)),
        b_std=0.1,
    )
)


def forward(p):
    h = np.tanh(X @ p["U"].T + p["U_b"])
    return (np.tanh(h @ p["W"].T + p["W_b"]) @ p["v"] + p["v_b"].sum()) / SIZE**0.5


def test_outputs_and_tangent_kernel_of_given_parameters():
    """Omega of every parameter is moved: W = 1.5 omega / sqrt(n), U = omega / sqrt(d), biases their deviation times omega."""
    runs = tp.run(NETWORK, X, n=SIZE, parameters=GIVEN)
    np.testing.assert_allclose(runs["f"][0], forward(GIVEN), rtol=1e-12)
    scales = {"U": FEATURES**-0.5, "U_b": 0.5, "W": 1.5 * SIZE**-0.5, "W_b": 0.25, "v": 1.0, "v_b": 0.1}
    kernel, step = np.zeros((4, 4)), 1e-5
    for name, a in GIVEN.items():
        rows = []
        for i in np.ndindex(a.shape):
            moved = [{**GIVEN, name: a.copy()} for _ in (1, -1)]
            for p, sign in zip(moved, (1, -1), strict=True):
                p[name][i] += sign * step * scales[name]
            rows.append((forward(moved[0]) - forward(moved[1])) / (2 * step))
        J = np.array(rows)
        kernel += J.T @ J
    np.testing.assert_allclose(runs["ntk"][0], kernel, rtol=1e-8)


def test_axes_and_matrices_alone():
    z = tp.Vector("z", N, axes={"t": 2})
    given = RNG.standard_normal((2, SIZE))
    W = RNG.standard_normal((SIZE, SIZE))
    p = tp.Program(m=tp.moment(tp.Matrix("W", N, N) @ z))
    np.testing.assert_allclose(tp.run(p, n=SIZE, parameters={"z": given, "W": W})["m"][0], (given @ W.T).mean(-1))
    one, two = tp.run(p, n=SIZE, parameters={"W": W})["m"], tp.run(p, n=SIZE, matrices={"W": W})["m"]
    np.testing.assert_array_equal(one, two)
    images = RNG.standard_normal((2, 3, 3, 2))
    h = tp.conv("U", tp.Input("x", axes=("h", "w")), N, 2, padding="VALID")
    U = RNG.standard_normal((SIZE, 8))  # offsets of the filter, channels fastest
    f = tp.run(tp.Network(tp.moment(tp.mean(h, ("h", "w")))), images, n=SIZE, parameters={"U": U}, of="f")["f"][0]
    patches = np.stack([images[:, i : i + 2, j : j + 2].reshape(2, 8) for i in range(2) for j in range(2)], 1)
    np.testing.assert_allclose(f, (patches @ U.T).mean((1, 2)))


@pytest.mark.parametrize(
    "bad",
    [
        {"Q": np.zeros(3)},
        {"W": np.zeros((SIZE, SIZE + 1))},
        {"U": np.zeros((FEATURES, SIZE))},
        {"v": np.zeros(SIZE - 1)},
        {"v": "v"},
        {"v": np.full(SIZE, np.nan)},
        [1],
    ],
)
def test_bad_parameters_are_refused(bad):
    with refused("parameter"):
        tp.run(NETWORK, X, n=SIZE, parameters=bad)


def test_one_parameter_is_given_once():
    with refused("both have 'W'"):
        tp.run(NETWORK, X, n=SIZE, parameters=GIVEN, matrices={"W": GIVEN["W"]})
