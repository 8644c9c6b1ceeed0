"""Kernels against values computed by neural-tangents 0.6.5 (double precision) and by the code of Tensor Programs II.

The files in `golden/` hold inputs, kernels and the networks in neural-tangents' own words. Off the diagonal both agree to
1e-9 and better; its diagonals of kinked functions are off by 4e-8, as arccos is near 1.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from marks import few

import tensorprog as tp

GOLDEN = Path(__file__).parent / "golden"


def load(name):
    return dict(np.load(GOLDEN / f"{name}.npz")), json.loads((GOLDEN / f"{name}.json").read_text())


def _erf(x, a=1, b=1, c=0):
    return a * tp.erf(b * x) + c


def _sin(x, a=1, b=1, c=0):
    return a * tp.sin(b * x + c)


ACTIVATIONS = {
    "Relu": tp.relu,
    "Erf": _erf,
    "Gelu": tp.gelu,
    "Abs": tp.abs,
    "Sign": tp.sign,
    "Sin": _sin,
    "Identity": tp.identity,
    "LeakyRelu": lambda x, alpha: tp.leaky_relu(x, alpha),
    "Monomial": lambda x, degree: x**degree,
    "Hermite": lambda x, degree: tp.hermite(x, degree, normalized=True),
    "Exp": lambda x, a=1, b=1: a * tp.exp(b * x),
    "Gaussian": lambda x, a=1, b=-1: a * tp.exp(b * x**2),
    "Rbf": lambda x, gamma: 2**0.5 * tp.sin((2 * gamma) ** 0.5 * x + np.pi / 4),
}


def network(spec):
    n, h = tp.Width("n"), tp.Input("x")
    layers = spec[1]
    for i, (name, *options) in enumerate(layers):
        settings = dict(options[0]) if options else {}
        settings.pop("parameterization", None)
        if name != "Dense":
            h = ACTIVATIONS[name](h, **settings)
        elif i == len(layers) - 1:
            h = tp.readout("out", h, W_std=settings["W_std"], b_std=settings.get("b_std"))
        else:
            h = tp.dense(f"W{i}", h, n, W_std=settings["W_std"], b_std=settings.get("b_std"))
    return tp.Network(h)


PLAIN = sorted(p.stem for p in GOLDEN.glob("mlp_*.npz"))


SMOOTH = [n for n in PLAIN if "std" not in n and "sign" not in n]


@pytest.mark.parametrize("name", few(SMOOTH, [n for n in SMOOTH if n not in ("mlp_gaussian_d1", "mlp_gelu_d3")]))
def test_multilayer_perceptrons(name):
    data, description = load(name)
    kernel_fn = tp.kernel_fn(network(description["net"]))
    same, cross = kernel_fn(data["x1"]), kernel_fn(data["x1"], data["x2"])
    kinked = any(k in name for k in ("relu", "abs"))
    for ours, key in ((same.nngp, "nngp11"), (same.ntk, "ntk11"), (cross.nngp, "nngp12"), (cross.ntk, "ntk12")):
        theirs = data[key]
        scale = np.abs(theirs).max(axis=1, keepdims=True)
        tolerance = 2e-7 if kinked and key == "ntk11" else 1e-9
        assert np.max(np.abs(ours - theirs) / scale) < tolerance, key


def test_a_jump_has_no_gradient():
    data, description = load("mlp_sign_d1")
    cross = tp.kernel_fn(network(description["net"]))(data["x1"], data["x2"])
    np.testing.assert_allclose(cross.nngp, data["nngp12"], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(cross.ntk, data["ntk12"], rtol=1e-12, atol=1e-14)


def test_standard_parametrization():
    data, description = load("mlp_relu_std_d3")
    kernel_fn = tp.kernel_fn(network(description["net"]), parametrization="standard", width=64)
    same, cross = kernel_fn(data["x1"]), kernel_fn(data["x1"], data["x2"])
    np.testing.assert_allclose(cross.nngp, data["nngp12"], rtol=1e-12)
    np.testing.assert_allclose(cross.ntk, data["ntk12"], rtol=1e-12)
    np.testing.assert_allclose(same.ntk, data["ntk11"], rtol=2e-7)


def test_linear_regression():
    """A network without a hidden layer has no width: the readout of data is one dense layer of a network that is linear."""
    data, description = load("linear_d1")
    ((_, settings),) = description["net"][1]
    n = tp.Width("n")
    net = tp.Network(tp.readout("v", tp.dense("U", tp.Input("x"), n, W_std=settings["W_std"])))
    kernel_fn = tp.kernel_fn(net)
    # f = v.U x: its NNGP without the bias is that of the regression, and each of U and v contributes it once.
    cross = kernel_fn(data["x1"], data["x2"], get=("nngp", "ntk_U", "ntk_v"))
    for kernel in cross:
        np.testing.assert_allclose(kernel + settings["b_std"] ** 2, data["nngp12"], rtol=1e-12)


def test_a_finite_network_with_given_weights():
    """The same program, run with the weights of a JAX network: outputs, and the empirical tangent kernel."""
    data, _ = load("finite_mlp_relu")
    x1, x2 = data["x1"], data["x2"]
    n = tp.Width("n")
    h = tp.dense("U", tp.Input("x"), n, W_std=1.3, b_std=0.2)
    h = tp.dense("W", tp.relu(h), n, W_std=1.3, b_std=0.2)
    v = [tp.readout(f"v{i}", tp.relu(h), W_std=1.3, b_std=0.2) for i in range(2)]
    net = tp.Network(v)
    program = net.program(x1, x2, of="ntk")
    U, bU, W, bW, V, _ = [data[f"param{i}"] for i in range(6)]
    columns = {"U": 1.3 * U.T, "U_b": 0.2 * bU[0], "W_b": 0.2 * bW[0], "v0": 1.3 * V[:, 0], "v1": 1.3 * V[:, 1]}

    class Given:
        """A space with these weights, n = 32."""

        size = staticmethod(lambda width: 32)
        inverse_sqrt = staticmethod(lambda width: 32**-0.5)
        mean = staticmethod(lambda x: x.mean(-1))

        @staticmethod
        def vector(spec):
            if hasattr(spec, "data"):
                return spec.data.array @ columns[spec.name].T / np.sqrt(spec.data.features)
            return columns.get(spec.name, np.zeros(32))

        @staticmethod
        def matrix(matrix):
            class Applied:
                apply = staticmethod(lambda x: x @ (1.3 * W / np.sqrt(32)))
                apply_transposed = staticmethod(lambda y: y @ (1.3 * W / np.sqrt(32)).T)

            return Applied

    from tensorprog.execute.executor import execute

    found = execute(program, Given())["ntk"]
    np.testing.assert_allclose(found, data["ntk12"], rtol=1e-11, atol=1e-12)
