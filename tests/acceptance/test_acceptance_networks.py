"""Kernels of networks of any architecture against golden values (the architectures issue)."""

import json
from pathlib import Path

import numpy as np
import pytest

import tensorprog as tp

pytestmark = pytest.mark.slow  # what the default suite tests piece by piece

GOLDEN = Path(__file__).parent.parent / "golden"


def golden(name):
    return dict(np.load(GOLDEN / f"{name}.npz")), json.loads((GOLDEN / f"{name}.json").read_text())


ACTIVATIONS = {
    "Relu": lambda **k: tp.relu,
    "Erf": lambda **k: tp.erf,
    "Gelu": lambda **k: tp.gelu,
    "Abs": lambda **k: tp.abs,
    "Sin": lambda **k: tp.sin,
    "Identity": lambda **k: lambda x: x,
}
PLAIN = [
    "mlp_relu_d1",
    "mlp_relu_d3",
    "mlp_erf_d1",
    "mlp_erf_d3",
    "mlp_gelu_d1",
    "mlp_gelu_d3",
    "mlp_abs_d1",
    "mlp_sin_d1",
    "mlp_relu_d3_edge",
]


def plain_network(spec, activations=ACTIVATIONS):
    """A neural-tangents `serial` of Dense layers and activations, in this project's words."""
    n, h = tp.Width("n"), tp.Input("x")
    layers = spec[1]
    for i, layer in enumerate(layers):
        name, options = layer[0], (layer[1] if len(layer) > 1 else {})
        if name != "Dense":
            h = activations[name](**options)(h)
        elif i == len(layers) - 1:
            h = tp.readout("out", h, W_std=options["W_std"], b_std=options.get("b_std"))
        else:
            h = tp.dense(f"W{i}", h, n, W_std=options["W_std"], b_std=options.get("b_std"))
    return tp.Network(h)


@pytest.mark.parametrize("name", PLAIN)
def test_against_neural_tangents(name):
    data, description = golden(name)
    kernel_fn = tp.kernel_fn(plain_network(description["net"]))
    same, cross = kernel_fn(data["x1"], get=("nngp", "ntk")), kernel_fn(data["x1"], data["x2"], get=("nngp", "ntk"))
    for ours, theirs, tolerance in (
        (same.nngp, "nngp11", 1e-9),
        (same.ntk, "ntk11", 2e-7),
        (cross.nngp, "nngp12", 1e-9),
        (cross.ntk, "ntk12", 1e-9),
    ):
        scale = np.abs(data[theirs]).max(axis=1, keepdims=True)
        assert np.max(np.abs(ours - data[theirs]) / scale) < tolerance


def rnn(steps, varw, varu, varb, varv, phi, avgpool):
    n, x = tp.Width("n"), tp.Input("x", axes=("t",))
    W, s, states = tp.Matrix("W", n, n, var=varw), None, []
    u = tp.dense("U", x, n, W_std=varu**0.5, b_std=varb**0.5)
    for t in range(steps):
        h = tp.take(u, "t", t)
        s = phi(h if s is None else W @ s + h)
        states.append(s)
    out = sum(states[1:], states[0]) / steps if avgpool else states[-1]
    return tp.Network(tp.readout("v", out, W_std=varv**0.5))


def test_rnn_of_tensor_programs_ii():
    data, description = golden("rnn_ntk_notebook")
    X = np.stack([data["x0"], data["x1"]])
    net = rnn(X.shape[1], **{k: v for k, v in description["hyperparameters"].items()}, phi=tp.erf)
    np.testing.assert_allclose(tp.kernel_fn(net, parametrization="tp")(X, get="ntk"), data["ntk"], rtol=1e-8)


def test_transformer_of_tensor_programs_ii():
    data, _ = golden("transformer_ntk_notebook")
    X = data["x"]
    n, x = tp.Width("n"), tp.Input("x", axes=("t",))
    k = tp.dense("U", x, n, W_std=1)
    a = tp.softmax(tp.moment(k * tp.rename(k, t="s")), "s")
    z = tp.layer_norm(tp.sum(a * tp.rename(k, t="s"), "s") + k)
    h = tp.dense("W2", tp.relu(tp.dense("W1", z, n, W_std=1)), n, W_std=1)
    net = tp.Network(tp.readout("v", tp.mean(tp.layer_norm(h + z), "t"), W_std=1))
    np.testing.assert_allclose(tp.kernel_fn(net, parametrization="tp")(X, get="ntk"), data["ntk"], rtol=1e-8)


def test_a_shared_weight_is_not_two_weights():
    """h + h and W x + W x: neural-tangents answers 5.13 and 2.59 where the truth is 10.45 and 5.27."""
    X = np.random.default_rng(0).standard_normal((4, 5))
    n, x = tp.Width("n"), tp.Input("x")
    h = tp.dense("U", x, n, W_std=1.5)
    single, double = tp.Network(tp.readout("v", h)), tp.Network(tp.readout("v", h + h))
    a, b = tp.kernel_fn(single)(X, get=("nngp", "ntk")), tp.kernel_fn(double)(X, get=("nngp", "ntk"))
    np.testing.assert_allclose(b.nngp, 4 * a.nngp, rtol=1e-12)
    np.testing.assert_allclose(b.ntk, 4 * a.ntk, rtol=1e-12)


def test_the_simple_check_passes_and_fails_where_it_should():
    n, x = tp.Width("n"), tp.Input("x")
    W = tp.Matrix("W", n, n, var=1)
    h = W @ tp.tanh(tp.dense("U", x, n, W_std=1))
    good = tp.check_gia(tp.Network(tp.readout("v", tp.tanh(h))))
    assert good.simple and good.bp_like and good.holds
    v = tp.Vector("v", n, mean=0, var=1)
    bad = tp.check_gia(tp.Network(tp.readout(v, tp.tanh(h + v))))
    assert not bad.simple and bad.offenders and "test_acceptance_networks.py" in str(bad)
    k = W.T @ tp.tanh(h)
    tied = tp.check_gia(tp.Network(tp.readout("w", tp.tanh(k))))
    assert not tied.simple and tied.holds is False


def test_deviation_falls_like_the_inverse_square_root_of_the_width():
    X = np.random.default_rng(1).standard_normal((2, 4, 3))
    c = tp.compare(rnn(4, 1.0, 2.0, 0.2, 1.0, tp.erf, True), X, widths=[64, 128, 256, 512, 1024], seeds=30)
    assert c.agrees and -0.7 < float(c.slope["ntk"]) < -0.3


def test_width_ratios_and_transposes_in_the_tangent_kernel():
    """Limit against finite networks, with W and W.T both in the forward pass."""
    X = np.random.default_rng(2).standard_normal((3, 4))
    n, m, x = tp.Width("n"), tp.Width("m", ratio=2), tp.Input("x")
    W = tp.Matrix("W", m, n, var=1)
    h = tp.dense("U", x, n, W_std=1)
    net = tp.Network(tp.readout("v", tp.tanh(W.T @ tp.tanh(W @ tp.tanh(h)))))
    assert tp.compare(net, X, widths=[128, 256, 512, 1024, 2048], seeds=24).agrees


def test_batch_norm_of_tensor_programs_ii():
    data, _ = golden("batchnorm_ntk_notebook")
    n, x = tp.Width("n"), tp.Input("x")
    net = tp.Network(tp.readout("v", tp.relu(tp.batch_norm(tp.dense("U", x, n, W_std=1)))))
    kernel_fn = tp.kernel_fn(net, parametrization="tp")
    b = len(data["x1"])
    for got, want in (
        (kernel_fn(data["x1"], get="ntk"), data["ntk"][:b, :b]),
        (kernel_fn(data["x1"], data["x2"], get="ntk"), data["ntk"][:b, b:]),
    ):
        assert np.linalg.norm(got - want) < 2e-5 * np.linalg.norm(want)


def test_an_average_readout_reports_n_theta():
    """Tensor Programs II's counterexample as a network: the W1 part is 8 s (1 + s), the W2 part 4 (1 + s)^2, s = |xi|^2 / d."""
    X = np.array([[1.0, 1.0], [0.5, -1.0]])
    n, x = tp.Width("n"), tp.Input("x")
    W, one = tp.Matrix("W2", n, n, var=1), tp.Vector("one", n, mean=1, var=0)
    h = W @ (tp.dense("W1", x, n, W_std=1) + one)
    ntk = tp.kernel_fn(tp.Network(tp.moment(h * h)))(X, get="ntk")
    s = (X**2).sum(1) / 2
    np.testing.assert_allclose(np.diag(ntk), 8 * s * (1 + s) + 4 * (1 + s) ** 2, rtol=1e-10)


def test_a_user_writes_a_gated_recurrent_cell():
    X = np.random.default_rng(3).standard_normal((2, 3, 4))
    n, x = tp.Width("n"), tp.Input("x", axes=("t",))
    names = ("z", "r", "c")
    U = {k: tp.dense(f"U{k}", x, n, W_std=1) for k in names}
    W = {k: tp.Matrix(f"W{k}", n, n, var=1) for k in names}
    h = tp.tanh(tp.take(U["c"], "t", 0))
    for t in range(1, 3):
        u = {k: tp.take(U[k], "t", t) for k in names}
        z, r = tp.sigmoid(u["z"] + W["z"] @ h), tp.sigmoid(u["r"] + W["r"] @ h)
        h = (1 - z) * h + z * tp.tanh(u["c"] + W["c"] @ (r * h))
    assert tp.compare(tp.Network(tp.readout("v", h)), X, widths=[256, 512, 1024, 2048], seeds=24).agrees
