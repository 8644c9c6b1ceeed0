"""The tangent kernel at finite width against networks written in NumPy, differentiated parameter by parameter.

A network is a NumPy function of omega, the trained arrays, in NTK parametrization. Its Jacobian is found by complex steps,
exact to rounding and unaware of back-propagation; the kernel is J J.T. The program draws the same weights.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import tensorprog as tp
from tensorprog.execute.random import stream

N = 6
SEED = 3
n = tp.Width("n")
m = tp.Width("m", ratio=2)
RNG = np.random.default_rng(0)
X = RNG.standard_normal((5, 3))
SEQUENCES = RNG.standard_normal((2, 3, 2))


# ---- the program's own weights ----
def matrix(name, rows=N, cols=N):
    """omega of a Matrix: entries N(0, 1)."""
    return stream(SEED, name, "matrix", rows, cols).standard_normal((rows, cols))


def layer(name, features, size=N):
    """omega of an input layer, (size, features)."""
    return stream(SEED, name, "vector", size).standard_normal((features, size)).T


def vector(name, size=N, columns=None):
    """omega of a trained vector."""
    return stream(SEED, name, "vector", size).standard_normal((columns or 1, size))[
        0 if columns is None else slice(None)
    ]


# ---- Jacobians ----
def jacobian(f: Callable, omega: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Name of each parameter to df/domega, shape (*outputs, entries)."""
    found = {}
    for name, a in omega.items():
        columns = []
        for i in range(a.size):
            step = np.zeros(a.size, dtype=complex)
            step[i] = 1e-30j
            columns.append(f({**omega, name: a + step.reshape(a.shape)}).imag / 1e-30)
        found[name] = np.stack(columns, -1)
    return found


def relu(x):
    return np.where(x.real > 0, x, 0)


def softmax(x):
    e = np.exp(x - x.real.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def layer_norm(x):
    c = x - x.mean(-1, keepdims=True)
    return c / np.sqrt((c**2).mean(-1, keepdims=True))


def tp_layer_norm(x):
    c = x - tp.moment(x)
    return c * tp.moment(c**2) ** -0.5


def check(net, data, f, omega, scales=None, scheme=None, factor=1.0, rtol=1e-12, **options):
    """f, the kernel, and its part for every parameter; scales multiply the part of a parameter."""
    program = net.program(data, of=("f", "ntk", *[f"ntk_{name}" for name in omega]), **options)
    got = tp.run(program, n=N, seeds=[SEED], weights="dense")
    values = f(omega)
    assert np.allclose(got["f"][0], values, rtol=rtol, atol=1e-13)
    total = 0.0
    for name, J in jacobian(f, omega).items():
        part = factor * np.tensordot(J, J, (-1, -1)) * (scales or {}).get(name, 1.0)
        if part.ndim == 4:  # examples, outputs, examples, outputs
            part = part.transpose(0, 2, 1, 3)
        total = total + part
        assert np.allclose(got[f"ntk_{name}"][0], part, rtol=rtol, atol=rtol * np.abs(part).max()), name
    assert np.allclose(got["ntk"][0], total, rtol=rtol, atol=rtol * np.abs(total).max())


def mlp():
    h = tp.dense("U", tp.Input("x"), n, W_std=1.5, b_std=0.3)
    h = tp.dense("W", tp.relu(h), m, W_std=1.2, b_std=0.5)
    return tp.Network(tp.readout("v", tp.tanh(h), W_std=0.7, b_std=0.4))


def mlp_in_numpy(o):
    h = 1.5 * X @ o["U"].T / 3**0.5 + 0.3 * o["U_b"]
    h = 1.2 * relu(h) @ o["W"].T / N**0.5 + 0.5 * o["W_b"]
    # A bias of a readout is a sum of coordinates, with the law and the kernel of one number.
    return 0.7 * np.tanh(h) @ o["v"] / (2 * N) ** 0.5 + 0.4 * o["v_b"].sum() / (2 * N) ** 0.5


MLP = {
    "U": layer("U", 3), "U_b": vector("U_b"), "W": matrix("W", 2 * N, N), "W_b": vector("W_b", 2 * N),
    "v": vector("v", 2 * N), "v_b": vector("v_b", 2 * N),
}  # fmt: skip


def test_mlp_with_biases():
    check(mlp(), X, mlp_in_numpy, MLP)


def test_mlp_trained_as_tensor_programs_ii():
    """omega ~ N(0, sigma^2): no sigma^2 in front."""
    scales = {"U": 1.5**-2, "U_b": 0.3**-2, "W": 1.2**-2, "W_b": 0.5**-2, "v": 0.7**-2, "v_b": 0.4**-2}
    check(mlp(), X, mlp_in_numpy, MLP, scales, parametrization="tp")


def test_mlp_in_standard_parametrization():
    """The entries of the weights are trained: fan-in over sigma^2 times as much. `width` is the reference width."""
    scales = {"U": 3 / 1.5**2, "U_b": 0.3**-2, "W": N / 1.2**2, "W_b": 0.5**-2, "v": 2 * N / 0.7**2, "v_b": 0.4**-2}
    # A bias is trained itself, without its deviation, as in neural-tangents.
    check(mlp(), X, mlp_in_numpy, MLP, scales, parametrization="standard", width=N)


def rnn(average):
    x = tp.Input("x", axes=("t",))
    u, W, s = tp.dense("U", x, n, W_std=1.3, b_std=0.2), tp.Matrix("W", n, n, var=1.44), 0
    states = []
    for t in range(3):
        h = tp.take(u, "t", t)
        s = tp.tanh(h + W @ s if t else h)
        states.append(s)
    return tp.Network(tp.readout("v", sum(states) / 3 if average else s))


@pytest.mark.parametrize("average", [False, True])
def test_rnn_with_tied_weights(average):
    def f(o):
        s, states = 0.0, []
        for t in range(3):
            h = 1.3 * SEQUENCES[:, t] @ o["U"].T / 2**0.5 + 0.2 * o["U_b"]
            s = np.tanh(h + (1.2 * s @ o["W"].T / N**0.5 if t else 0))
            states.append(s)
        return (sum(states) / 3 if average else s) @ o["v"] / N**0.5

    check(rnn(average), SEQUENCES, f, {"U": layer("U", 2), "U_b": vector("U_b"), "W": matrix("W"), "v": vector("v")})


def test_a_matrix_and_its_transpose_of_ratio_two():
    W = tp.Matrix("W", m, n, var=1.69)
    h = tp.tanh(tp.dense("U", tp.Input("x"), n))
    net = tp.Network(tp.readout("v", tp.tanh(W.T @ tp.tanh(W @ tp.tanh(W.T @ tp.tanh(W @ h))))))

    def f(o):
        w, h = 1.3 * o["W"] / N**0.5, np.tanh(X @ o["U"].T / 3**0.5)
        for _ in range(2):
            h = np.tanh(np.tanh(h @ w.T) @ w)
        return h @ o["v"] / N**0.5

    check(net, X, f, {"U": layer("U", 3), "W": matrix("W", 2 * N, N), "v": vector("v")})


def test_attention_and_layer_norm():
    x = tp.Input("x", axes=("t",))
    h = tp.dense("U", x, n, b_std=1)
    query, key, value = (tp.dense(name, h, n) for name in ("Q", "K", "V"))
    a = tp.softmax(tp.moment(query * tp.rename(key, t="s")), "s")
    z = tp_layer_norm(tp.sum(a * tp.rename(value, t="s"), "s") + h)
    net = tp.Network(tp.readout("v", tp.mean(tp.tanh(z), "t")))

    def f(o):
        h = SEQUENCES @ o["U"].T / 2**0.5 + o["U_b"]
        query, key, value = (h @ o[k].T / N**0.5 for k in "QKV")
        a = softmax(np.einsum("bti,bsi->bts", query, key) / N)
        z = layer_norm(np.einsum("bts,bsi->bti", a, value) + h)
        return np.tanh(z).mean(1) @ o["v"] / N**0.5

    omega = {
        "U": layer("U", 2),
        "U_b": vector("U_b"),
        "Q": matrix("Q"),
        "K": matrix("K"),
        "V": matrix("V"),
        "v": vector("v"),
    }
    check(net, SEQUENCES, f, omega)


def test_batch_norm_mixes_examples():
    h = tp.dense("U", tp.Input("x"), n)
    c = h - tp.mean(h, "example")
    net = tp.Network(tp.readout("v", tp.tanh(tp.dense("W", c * (tp.mean(c**2, "example") + 0.1) ** -0.5, n))))

    def f(o):
        h = X @ o["U"].T / 3**0.5
        c = h - h.mean(0)
        return np.tanh(c / np.sqrt((c**2).mean(0) + 0.1) @ o["W"].T / N**0.5) @ o["v"] / N**0.5

    check(net, X, f, {"U": layer("U", 3), "W": matrix("W"), "v": vector("v")})


def test_average_readout_reports_n_theta():
    h = tp.dense("W", tp.tanh(tp.dense("U", tp.Input("x"), n)), m, b_std=0.5)
    net = tp.Network(tp.moment(h * tp.tanh(h)))

    def f(o):
        h = np.tanh(X @ o["U"].T / 3**0.5) @ o["W"].T / N**0.5 + 0.5 * o["W_b"]
        return (h * np.tanh(h)).mean(-1)

    omega = {"U": layer("U", 3), "W": matrix("W", 2 * N, N), "W_b": vector("W_b", 2 * N)}
    check(net, X, f, omega, factor=N)


def test_several_outputs():
    h = tp.tanh(tp.dense("U", tp.Input("x"), n))
    g = tp.tanh(tp.dense("W", h, m))
    net = tp.Network([tp.readout("v", h), tp.readout("w", g), tp.readout("v", tp.sin(h), b_std=0.5)])

    def f(o):
        h = np.tanh(X @ o["U"].T / 3**0.5)
        g = np.tanh(h @ o["W"].T / N**0.5)
        third = np.sin(h) @ o["v"] / N**0.5 + 0.5 * o["v_b"].sum() / N**0.5
        return np.stack([h @ o["v"] / N**0.5, g @ o["w"] / (2 * N) ** 0.5, third], 1)

    omega = {
        "U": layer("U", 3), "W": matrix("W", 2 * N, N), "v": vector("v"), "w": vector("w", 2 * N), "v_b": vector("v_b")
    }  # fmt: skip
    check(net, X, f, omega)


def test_sequences_of_different_lengths():
    def of(x):
        u, W = tp.dense("U", x, n), tp.Matrix("W", n, n)
        s = tp.tanh(tp.take(u, "t", 0))
        for t in range(1, u.shape[u.axes.index("t")]):
            s = tp.tanh(W @ s + tp.take(u, "t", t))
        return tp.readout("v", s)

    data = [RNG.standard_normal((t, 2)) for t in (2, 3, 2, 1)]

    def f(o):
        found = []
        for x in data:
            s = np.tanh(x[0] @ o["U"].T / 2**0.5)
            for row in x[1:]:
                s = np.tanh(s @ o["W"].T / N**0.5 + row @ o["U"].T / 2**0.5)
            found.append(s @ o["v"] / N**0.5)
        return np.stack(found)

    net = tp.Network(of, inputs=[tp.Input("x", axes=("t",))])
    check(net, data, f, {"U": layer("U", 2), "W": matrix("W"), "v": vector("v")})


def test_flattening_readout():
    h = tp.tanh(tp.dense("U", tp.Input("x", axes=("t",)), m))
    net = tp.Network(tp.readout("v", tp.dense("W", h, n), W_std=1.5, over="t"))

    def f(o):
        h = np.tanh(SEQUENCES @ o["U"].T / 2**0.5) @ o["W"].T / (2 * N) ** 0.5
        return 1.5 * np.einsum("bti,ti->b", h, o["v"]) / (3 * N) ** 0.5

    omega = {"U": layer("U", 2, 2 * N), "W": matrix("W", N, 2 * N), "v": vector("v", N, 3)}
    check(net, SEQUENCES, f, omega)
    standard = {"U": 2.0, "W": 2.0 * N, "v": 3 * N / 1.5**2}
    check(net, SEQUENCES, f, omega, standard, parametrization="standard", width=N)


@pytest.mark.parametrize("scheme", ["ntk", "tp", "standard"])
def test_concatenations(scheme):
    h = tp.tanh(tp.dense("U", tp.Input("x"), n))
    g = tp.tanh(tp.dense("T", tp.Input("x"), m))
    k = tp.tanh(tp.dense("W", [h, g], n, W_std=1.3))
    net = tp.Network(tp.readout("v", [k, g], W_std=1.1))

    def f(o):
        h, g = np.tanh(X @ o["U"].T / 3**0.5), np.tanh(X @ o["T"].T / 3**0.5)
        k = np.tanh(1.3 * (h @ o["W_0"].T + g @ o["W_1"].T) / (3 * N) ** 0.5)
        return 1.1 * (k @ o["v_0"] + g @ o["v_1"]) / (3 * N) ** 0.5

    omega = {
        "U": layer("U", 3), "T": layer("T", 3, 2 * N), "W_0": matrix("W_0"), "W_1": matrix("W_1", N, 2 * N),
        "v_0": vector("v_0"), "v_1": vector("v_1", 2 * N),
    }  # fmt: skip
    if scheme == "ntk":
        check(net, X, f, omega)
    else:
        fan_in = {"U": 3, "T": 3, "W_0": 3 * N, "W_1": 3 * N, "v_0": 3 * N, "v_1": 3 * N}
        sigma2 = {"W_0": 1.69, "W_1": 1.69, "v_0": 1.21, "v_1": 1.21}
        scales = {k: (fan_in[k] if scheme == "standard" else 1) / sigma2.get(k, 1) for k in omega}
        check(net, X, f, omega, scales, parametrization=scheme, width=N if scheme == "standard" else None)


def test_a_trained_vector_inside_and_the_readout_vector_inside():
    v, p = tp.Vector("v", n, var=2, trainable=True), tp.Vector("p", n, mean=0.5, axes={"t": 3}, trainable=True)
    still = tp.Vector("still", n, mean=1)
    u = tp.dense("U", tp.Input("x", axes=("t",)), n)
    h = tp.sum(tp.tanh(u + p * tp.array([1.0, 2.0, -1.0], "t")), "t")
    net = tp.Network(tp.readout(v, tp.tanh(tp.dense("W", h, n) + v + still)))
    fixed = 1 + vector("still")

    def f(o):
        # p has a mean: omega is what is random in it.
        p = (0.5 + o["p"]) * np.array([1.0, 2.0, -1.0])[:, None]
        h = np.tanh(SEQUENCES @ o["U"].T / 2**0.5 + p).sum(1)
        return np.tanh(h @ o["W"].T / N**0.5 + 2**0.5 * o["v"] + fixed) @ (2**0.5 * o["v"]) / N**0.5

    omega = {"U": layer("U", 2), "W": matrix("W"), "v": vector("v"), "p": vector("p", N, 3)}
    check(net, SEQUENCES, f, omega)


def gains():
    """A layer norm with gain and shift, a gain with a law of its own, and a given vector with a mean."""
    h = tp.layer_norm(tp.dense("U", tp.Input("x"), n), gain="g", shift="s", lr=3)
    h = tp.scale("c", tp.tanh(tp.dense("W", h, n)), g_std=0.5, lr=0.25, shift=True)
    h = h * tp.Vector("d", n, mean=1, var=0, lr=1)
    return tp.Network(tp.readout("v", h))


@pytest.mark.parametrize(("scheme", "width"), [("ntk", None), ("tp", None), ("standard", N)])
def test_gains_train_in_every_parametrization(scheme, width):
    """omega of a gain is the gain itself, times its learning rate: not the random part of it, which is nothing."""

    def f(o):
        h = layer_norm(X @ o["U"].T / 3**0.5) * o["g"] + o["s"]
        h = np.tanh(h @ o["W"].T / N**0.5) * o["c"] + o["c_b"]
        return (h * o["d"]) @ o["v"] / N**0.5

    omega = {
        "U": layer("U", 3), "W": matrix("W"), "v": vector("v"), "g": np.ones(N), "s": np.zeros(N),
        "c": 1 + 0.5 * vector("c"), "c_b": np.zeros(N), "d": np.ones(N),
    }  # fmt: skip
    scales = {"g": 3, "s": 3, "c": 0.25, "c_b": 0.25, "d": 1}
    if scheme == "standard":
        scales |= {"U": 3, "W": N, "v": N}
    check(gains(), X, f, omega, scales, parametrization=scheme, width=width)


def test_gains_in_the_limit():
    """kernel_fn and limit agree, and the gain's part is lr E (dh h)(dh h)' of what it multiplies."""
    for scheme in ("ntk", "tp"):
        parts = ("ntk", "ntk_g", "ntk_s", "ntk_c", "ntk_d")
        limit = tp.limit(gains(), X, of=parts, parametrization=scheme)
        kernel = tp.kernel_fn(gains(), parametrization=scheme)(X, get=parts)
        for name, found in zip(parts, kernel, strict=True):
            np.testing.assert_allclose(found, limit[name].value, rtol=1e-6, atol=1e-9)
            assert np.diag(found).min() > 0.01
    h = tp.relu(tp.dense("U", tp.Input("x"), n))
    kernel = tp.kernel_fn(tp.Network(tp.readout("v", tp.scale("g", h, lr=2))))([[2.0]], get=("ntk_v", "ntk_g", "ntk_U"))
    np.testing.assert_allclose(np.ravel(kernel), [2, 4, 2], rtol=1e-12)


def test_batch_norm_with_gain_and_shift():
    def f(o):
        h = X @ o["U"].T / 3**0.5
        c = h - h.mean(0)
        h = c / np.sqrt((c**2).mean(0) + 0.5) * o["g"] + o["s"]
        return np.tanh(h) @ o["v"] / N**0.5

    h = tp.batch_norm(tp.dense("U", tp.Input("x"), n), eps=0.5, gain="g", shift="s")
    omega = {"U": layer("U", 3), "v": vector("v"), "g": np.ones(N), "s": np.zeros(N)}
    check(tp.Network(tp.readout("v", tp.tanh(h))), X, f, omega)


def test_one_gain_for_all_positions_and_a_gain_by_position():
    u = tp.tanh(tp.dense("U", tp.Input("x", axes=("t",)), n))
    d = tp.Vector("d", n, mean=1, var=0, axes={"t": 3}, lr=0.5)
    net = tp.Network(tp.readout("v", tp.sum(tp.scale("g", u) * d, "t")))

    def f(o):
        return (np.tanh(SEQUENCES @ o["U"].T / 2**0.5) * o["g"] * o["d"]).sum(1) @ o["v"] / N**0.5

    omega = {"U": layer("U", 2), "v": vector("v"), "g": np.ones(N), "d": np.ones((3, N))}
    check(net, SEQUENCES, f, omega, {"d": 0.5})


def test_correlated_columns_with_a_learning_rate():
    """The coordinates themselves are trained: the covariance is no part of it."""
    p = tp.Vector("p", n, mean=[1.0, 2.0, 1.0], axes=("t",), cov=np.zeros((3, 3)), lr=2)
    u = tp.tanh(tp.dense("U", tp.Input("x", axes=("t",)), n))
    net = tp.Network(tp.readout("v", tp.sum(u * p, "t")))

    def f(o):
        return (np.tanh(SEQUENCES @ o["U"].T / 2**0.5) * o["p"]).sum(1) @ o["v"] / N**0.5

    omega = {"U": layer("U", 2), "v": vector("v"), "p": np.ones((3, N)) * np.array([1.0, 2.0, 1.0])[:, None]}
    check(net, SEQUENCES, f, omega, {"p": 2})


@pytest.mark.parametrize(
    "law",
    [
        {"mean": 1, "var": 0},
        pytest.param({"mean": [1.0, 1.0, 2.0], "axes": ("t",), "cov": np.zeros((3, 3))}, marks=pytest.mark.slow),
    ],
)
def test_a_gain_that_would_not_train_is_refused(law):
    g = tp.Vector("g", n, trainable=True, **law)
    net = tp.Network(tp.readout("v", tp.sum(tp.tanh(tp.dense("U", tp.Input("x", axes=("t",)), n)) * g, "t")))
    with pytest.raises(tp.TensorProgramError, match=r"g has mean .* and variance 0(.|\n)*lr=1"):
        net.program(SEQUENCES, of="ntk")
    with pytest.raises(tp.TensorProgramError, match="variance 0"):
        tp.kernel_fn(net)(SEQUENCES, get="ntk")
    tp.kernel_fn(net)(SEQUENCES, get="nngp")
    assert np.isfinite(tp.kernel_fn(net, parametrization="tp")(SEQUENCES, get="ntk")).all()


def test_learning_rates_are_content():
    one, two = (tp.Program(q=tp.moment(tp.Vector("g", n, mean=1, var=0, lr=lr) ** 2)) for lr in (1, 2))
    assert one != two and tp.parse(str(one)) == one and "mean 1, var 0, lr 1" in str(one)
    assert "learning rate" in tp.latex(one)
    with pytest.raises(tp.TensorProgramError, match="learning rate"):
        tp.Vector("g", n, lr=-1)
    g = tp.Vector("g", n, lr=1)
    with pytest.raises(tp.TensorProgramError, match="lr 1"):
        tp.Program(q=tp.moment(g * tp.Vector("g", n)))


def test_two_batches_are_blocks_of_one():
    net = mlp()
    run = lambda p: tp.run(p, n=N, seeds=[SEED], weights="dense")["ntk"][0]  # noqa: E731
    full = run(net.program(X, of="ntk"))
    assert np.allclose(run(net.program(X[:4], X[1:], of="ntk")), full[:4, 1:], rtol=1e-12)
