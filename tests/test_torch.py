"""The tangent kernel at finite width against PyTorch's automatic differentiation, with the program's own weights.

Left out where PyTorch is not installed: pip install torch.
"""

from __future__ import annotations

import numpy as np
import pytest

import tensorprog as tp
from tensorprog.execute.random import stream

torch = pytest.importorskip("torch")
N, SEED = 16, 5
n, m = tp.Width("n"), tp.Width("m", ratio=2)
RNG = np.random.default_rng(0)
X = RNG.standard_normal((6, 4))
SEQUENCES = RNG.standard_normal((3, 4, 2))


def matrix(name, rows=N, cols=N):
    return stream(SEED, name, "matrix", rows, cols).standard_normal((rows, cols))


def layer(name, features, size=N):
    return stream(SEED, name, "vector", size).standard_normal((features, size)).T


def vector(name, size=N):
    return stream(SEED, name, "vector", size).standard_normal((1, size))[0]


def check(net, data, f, omega):
    """f(omega, data) in PyTorch, omega ~ N(0, 1): the outputs and the kernel of all parameters."""
    parameters = {k: torch.tensor(a, dtype=torch.float64, requires_grad=True) for k, a in omega.items()}
    out = f(parameters, torch.tensor(data, dtype=torch.float64))
    rows = [torch.autograd.grad(y, list(parameters.values()), retain_graph=True) for y in out]
    J = np.stack([np.concatenate([g.numpy().ravel() for g in row]) for row in rows])
    got = tp.run(net.program(data, of=("f", "ntk")), n=N, seeds=[SEED], weights="dense")
    assert np.allclose(got["f"][0], out.detach().numpy(), rtol=1e-12, atol=1e-13)
    assert np.abs(got["ntk"][0] - J @ J.T).max() < 1e-12 * np.abs(J @ J.T).max()


def test_mlp():
    h = tp.dense("U", tp.Input("x"), n, W_std=1.4, b_std=0.3)
    h = tp.dense("W", tp.gelu(h), m, W_std=1.2, b_std=0.1)
    net = tp.Network(tp.readout("v", tp.relu(h), W_std=1.1))

    def f(o, x):
        h = torch.nn.functional.gelu(1.4 * x @ o["U"].T / 2 + 0.3 * o["U_b"])
        return 1.1 * torch.relu(1.2 * h @ o["W"].T / N**0.5 + 0.1 * o["W_b"]) @ o["v"] / (2 * N) ** 0.5

    omega = {
        "U": layer("U", 4),
        "U_b": vector("U_b"),
        "W": matrix("W", 2 * N),
        "W_b": vector("W_b", 2 * N),
        "v": vector("v", 2 * N),
    }
    check(net, X, f, omega)


def test_rnn_with_w_and_its_transpose():
    u, W, s = tp.dense("U", tp.Input("x", axes=("t",)), n), tp.Matrix("W", n, n), None
    for t in range(4):
        h = tp.take(u, "t", t)
        s = tp.tanh(h if s is None else (W if t % 2 else W.T) @ s + h)

    def f(o, x):
        s = torch.tanh(x[:, 0] @ o["U"].T / 2**0.5)
        for t in range(1, 4):
            s = torch.tanh(s @ (o["W"].T if t % 2 else o["W"]) / N**0.5 + x[:, t] @ o["U"].T / 2**0.5)
        return s @ o["v"] / N**0.5

    check(tp.Network(tp.readout("v", s)), SEQUENCES, f, {"U": layer("U", 2), "W": matrix("W"), "v": vector("v")})


def test_transformer_block():
    h = tp.dense("U", tp.Input("x", axes=("t",)), n, b_std=0.5)
    q, k, v = (tp.dense(name, h, n) for name in "QKV")
    a = tp.softmax(tp.moment(q * tp.rename(k, t="s")), "s")
    z = tp.layer_norm(tp.sum(a * tp.rename(v, t="s"), "s") + h)
    net = tp.Network(tp.readout("v", tp.mean(tp.layer_norm(z + tp.dense("B", tp.relu(tp.dense("A", z, m)), n)), "t")))

    def norm(x):
        c = x - x.mean(-1, keepdim=True)
        return c / (c**2).mean(-1, keepdim=True).sqrt()

    def f(o, x):
        h = x @ o["U"].T / 2**0.5 + 0.5 * o["U_b"]
        q, k, v = (h @ o[name].T / N**0.5 for name in "QKV")
        z = norm(torch.softmax(q @ k.transpose(1, 2) / N, -1) @ v + h)
        return norm(z + torch.relu(z @ o["A"].T / N**0.5) @ o["B"].T / (2 * N) ** 0.5).mean(1) @ o["v"] / N**0.5

    omega = {k: matrix(k) for k in "QKV"} | {"A": matrix("A", 2 * N), "B": matrix("B", N, 2 * N)}
    check(net, SEQUENCES, f, {"U": layer("U", 2), "U_b": vector("U_b"), **omega, "v": vector("v")})


def test_convolution():
    """Three taps, circular: by hand in both."""
    h = tp.tanh(tp.dense("U", tp.Input("x", axes=("t",)), n))
    g = sum(tp.Matrix(f"W{k}", n, n, var=0.5) @ tp.pick(h, "t", [(t + k) % 4 for t in range(4)]) for k in range(3))
    net = tp.Network(tp.readout("v", tp.mean(tp.relu(g), "t")))

    def f(o, x):
        h = torch.tanh(x @ o["U"].T / 2**0.5)
        g = sum(0.5**0.5 * torch.roll(h, -k, 1) @ o[f"W{k}"].T / N**0.5 for k in range(3))
        return torch.relu(g).mean(1) @ o["v"] / N**0.5

    check(net, SEQUENCES, f, {"U": layer("U", 2), **{f"W{k}": matrix(f"W{k}") for k in range(3)}, "v": vector("v")})
