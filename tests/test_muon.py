"""Muon: against steps on whole matrices in NumPy, at finite width; the limit against that of kernels, and against networks."""

from itertools import product

import numpy as np
import pytest
from marks import few, refused

import tensorprog as tp

N, M = tp.Width("n"), tp.Width("m", 2)
RNG = np.random.default_rng(3)
X, Y, XT = RNG.standard_normal((3, 4)), RNG.standard_normal(3), RNG.standard_normal((2, 4))
TWICE = [[0, 1], [2], [0, 1], [2]]


def mlp(phi=tp.tanh, first=N):
    h = phi(tp.dense("W", phi(tp.dense("U", tp.Input("x"), first)), N))
    return tp.Network(tp.readout("v", h))


# ---- whole matrices ----


def newton_schulz(g, eps=0.0, steps=5, coefficients=(3.4445, -4.7750, 2.0315)):
    a, b, c = coefficients
    x = g / np.sqrt(np.sum(g**2) + eps**2 * g.size)
    for _ in range(steps):
        square = x @ x.T
        x = a * x + b * square @ x + c * square @ square @ x
    return x


def adam(state, g, b1=0.9, b2=0.999, eps=1e-8):
    t, m, s = state or (0, 0.0, 0.0)
    m, s = b1 * m + (1 - b1) * g, b2 * s + (1 - b2) * g * g
    return m / (1 - b1 ** (t + 1)) / np.sqrt(s / (1 - b2 ** (t + 1)) + eps**2), (t + 1, m, s)


def plain_muon(u, w, v, lr, batches, kernel, momentum, nesterov, rule, decay):
    """Outputs of f = v.tanh(W tanh(U x)) / n^(1/2) or / n: W by Muon, U and v by `rule`, gradients those of order one."""
    (n, d), power, states, m, found = u.shape, 0.5 if kernel else 1.0, [None] * 2, 0.0, []

    def f(x):
        return np.tanh(np.tanh(x @ u.T) @ w.T) @ v / n**power

    for b in [*map(list, batches), None]:
        found.append(np.concatenate([f(X), f(XT)]))
        if b is None:
            return np.array(found)
        x1 = np.tanh(X[b] @ u.T)
        x2 = np.tanh(x1 @ w.T)
        chi = (f(X[b]) - Y[b]) / len(b)
        d2 = chi[:, None] * v * (1 - x2**2)
        d1 = (d2 @ w) * (1 - x1**2)
        step_u, states[0] = rule(states[0], d1.T @ X[b] / d**0.5)
        step_v, states[1] = rule(states[1], x2.T @ chi)
        g = d2.T @ x1
        m = momentum * m + (1 - momentum) * g
        step = newton_schulz((1 - momentum) * g + momentum * m if nesterov else m, 1e-6)
        rate, kept = lr * n**-0.5 if kernel else lr, 1 - lr * decay
        u, w, v = kept * u - rate * step_u / d**0.5, kept * w - rate * step, kept * v - rate * step_v
    return None


@pytest.mark.parametrize(("others", "rule"), [(tp.SGD(), lambda state, g: (g, None)), (tp.Adam(), adam)])
@pytest.mark.parametrize(
    ("scheme", "decay", "batch", "momentum", "nesterov"),
    few(
        [c for c in product(("ntk", "mup"), (0, 0.25), ("full", 2), (0, 0.9), (False, True)) if c[:2] != ("ntk", 0.25)],
        [
            ("ntk", 0, "full", 0, False),
            ("ntk", 0, 2, 0.9, True),
            ("mup", 0.25, "full", 0.9, True),
            ("mup", 0, 2, 0.9, False),
        ],
    ),
)
def test_runs_are_those_of_whole_matrices(scheme, decay, batch, momentum, nesterov, others, rule):
    n = 12
    rng = np.random.default_rng(5)
    u, w, v = rng.standard_normal((n, 4)) / 2, rng.standard_normal((n, n)) / n**0.5, rng.standard_normal(n)
    trace = tp.sgd(
        mlp(), X, Y, steps=4, lr=0.25, batch=batch, parametrization=scheme, X_test=XT, weight_decay=decay,
        optimizer=tp.Muon(momentum, nesterov, others=others),
    )  # fmt: skip
    runs = tp.run(trace, n=n, parameters={"U": u, "W": w, "v": v})
    batches = [range(3)] * 4 if batch == "full" else TWICE
    wanted = plain_muon(u, w, v, 0.25, batches, scheme == "ntk", momentum, nesterov, rule, decay)
    assert np.abs(np.concatenate([runs["f"][0], runs["f_test"][0]], axis=1) - wanted).max() < 1e-12


def shared(x):
    """A matrix and its transpose, over time: several uses, with an axis more than examples."""
    u, W = tp.dense("U", x, N), tp.Matrix("W", M, N)
    h = W.T @ tp.tanh(W @ tp.tanh(u))
    return [tp.readout("v", tp.tanh(h), over="t"), tp.readout("r", tp.tanh(W @ tp.take(h, "t", 0)))]


def test_uses_axes_outputs_and_widths():
    """One step of W, of 2 n rows and n columns, by the gradient that differences find."""
    n, d = 3, 2
    rng = np.random.default_rng(7)
    x, y = rng.standard_normal((2, 3, d)), rng.standard_normal((2, 2))
    given = {
        "U": rng.standard_normal((n, d)), "W": rng.standard_normal((2 * n, n)), "v": rng.standard_normal((3, n)),
        "r": rng.standard_normal(2 * n),
    }  # fmt: skip
    net = tp.Network(shared, [tp.Input("x", axes=("t",))])
    muon = tp.Muon(0, others=tp.SGD())
    options = {"steps": 1, "parametrization": "mup", "freeze": ["U", "v", "r"], "optimizer": muon}
    rate = 0.25
    f = tp.run(tp.sgd(net, x, y, lr=rate, **options), n=n, parameters=given)["f"][0]
    still = tp.sgd(net, x, y, lr=0, **options | {"optimizer": tp.SGD()})

    def outputs(W):
        run = tp.run(still, n=n, parameters=given | {"W": W})
        return run["f"][0, 0], run["loss"][0, 0]

    g, e = np.zeros((2 * n, n)), 1e-5
    for i in np.ndindex(g.shape):
        W = given["W"].copy()
        W[i] += e
        up = outputs(W)[1]
        W[i] -= 2 * e
        g[i] = (up - outputs(W)[1]) / (2 * e)
    moved = given["W"] - rate * 2**0.5 * newton_schulz(g)
    assert np.abs(f[1] - f[0]).max() > 1e-2
    assert np.abs(f[1] - outputs(moved)[0]).max() < 1e-8


@pytest.mark.parametrize("scheme", ["ntk", "mup"])
def test_gradients_of_less_rank_than_examples(scheme):
    """An example given three times is one of three times the weight; gradients of 0 move nothing."""
    three, once = [[1.0, 2.0], [1.0, 2.0], [1.0, 2.0], [0.0, 1.0]], [[1.0, 2.0], [0.0, 1.0]]
    muon = tp.Muon(0.5, others=tp.SGD())

    def train(x, y, loss="mse"):
        return tp.sgd(mlp(), x, y, steps=2, lr=0.5, parametrization=scheme, optimizer=muon, loss=loss)

    many = tp.run(train(three, [1, 1, 1, -1]), n=16, seeds=2)["f"]
    few = tp.run(train(once, [1, -1], lambda f, y: (f - y) ** 2 * (2 + y) / 4), n=16, seeds=2)["f"]
    assert np.isfinite(many).all() and np.abs(many[:, :, 2:] - few).max() < 1e-12
    f0 = tp.run(train(three, [0] * 4), n=16)["f"][0, 0]
    still = tp.run(train(three, f0.tolist()), n=16)["f"][0]
    assert np.abs(still - f0).max() < 1e-8
    opposite = train([[1.0, 2.0], [1.0, 2.0]], [1, -1])  # from outputs 0 on, the terms of the gradient cancel
    assert np.abs(np.diff(tp.run(opposite, n=16)["f"])).max() < 1e-12


@pytest.mark.slow
def test_limits_of_gradients_of_zero_that_cancel():
    muon = tp.Muon(0.5, others=tp.SGD())
    for y in ([0, 0], [1, -1]):
        limit = tp.limit(tp.sgd(mlp(tp.erf), [[1.0, 2.0]] * 2, y, steps=2, lr=0.5, optimizer=muon))["f"]
        assert np.all(np.abs(limit.value) <= 4 * np.asarray(limit.error) + 1e-9)
        assert np.max(limit.error) < 1e-3


def test_a_mini_batch_costs_what_its_examples_do():
    """Where training follows a kernel, too, whose program has the error signals of all examples."""
    x, y = RNG.standard_normal((12, 4)), RNG.standard_normal(12)
    trace = tp.sgd(mlp(), x, y, steps=2, lr=0.5, batch=2, optimizer=tp.Muon(0.5, others=tp.SGD()))
    products = [x.args[0].shape for x in trace.program.nodes if x.op == "sum" and x.width is None]
    assert max([shape for shape in products if len(shape) == 3]) == (4, 4, 4)


# ---- limits ----


def test_the_limit_where_training_follows_a_kernel():
    """f moves by tr A C, with C the steps of D H' and A = D_a' D, for E dh dh' and E x x' of every example: exact."""
    net, lr, steps = mlp(tp.erf), 0.5, 3
    trace = tp.sgd(net, X, Y, steps=steps, lr=lr, optimizer=tp.Muon(0.5, False, others=tp.SGD()))
    first = tp.Network(tp.readout("v", tp.erf(tp.dense("U", tp.Input("x"), N))))
    x = tp.kernel_fn(first)(X, get="nngp")
    s = 1 + 2 * np.diag(x)
    d = 4 / np.pi / np.sqrt(np.outer(s, s) - 4 * x**2)
    K = tp.kernel_fn(net)(X, get="ntk") - d * x  # the others'
    f, pairs, found = np.zeros(3), [], [np.zeros(3)]
    root = lambda k: np.linalg.cholesky(k).T  # vectors with these inner products  # noqa: E731
    left, right, m = root(d), root(x), np.zeros((3, 3))
    for _ in range(steps):
        chi = (f - Y) / 3
        m = 0.5 * m + 0.5 * (left * chi) @ right.T
        f = f - lr * (K @ chi + np.einsum("ia,ij,ja->a", left, newton_schulz(m, 0), right))
        found.append(f)
    limit = tp.limit(trace)["f"]
    assert limit.method != "population" and pairs == []
    assert np.abs(limit.value - found).max() < 1e-9


def test_the_limit_of_linear_networks_is_exact():
    """One example: X X' is a number, and five steps of it. After a step f = lr p + .. by hand, u and v of unit variance."""
    a, b, c = 3.4445, -4.7750, 2.0315
    p = 1.0
    for _ in range(5):
        p = a * p + b * p**3 + c * p**5
    trace = tp.sgd(
        mlp(lambda x: x), [[1.0]], [1.0], steps=1, lr=0.25, parametrization="mup", freeze=["U", "v"],
        optimizer=tp.Muon(0, others=tp.SGD()),
    )  # fmt: skip
    f = tp.limit(trace)["f"]
    assert abs(f.value[1, 0] - 0.25 * p) < 1e-11 and f.method != "population"


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["ntk", "mup"])
@pytest.mark.parametrize("momentum", [0, 0.9])
def test_finite_networks_tend_to_the_limit(scheme, momentum):
    trace = tp.sgd(
        mlp(), X, Y, steps=4, lr=0.25, parametrization=scheme, X_test=XT,
        optimizer=tp.Muon(momentum, others=tp.SGD()),
    )  # fmt: skip
    c = tp.compare(trace, widths=[128, 512, 2048], seeds=16)
    assert c.agrees, c
    assert all(-0.75 < float(slope) < -0.25 for slope in c.slope.values() if slope is not None)


ERRORS = {
    "momentum": (lambda: tp.Muon(1), "the momentum 1"),
    "steps": (lambda: tp.Muon(steps=-1), "steps=-1 of Muon"),
    "eps": (lambda: tp.Muon(eps=0), "eps=0 of Muon"),
    "coefficients": (lambda: tp.Muon(coefficients=(1, 2)), "three numbers"),
    "others": (lambda: tp.Muon(others="adam"), "others='adam'"),
    "decay": (lambda: tp.Muon(others=tp.SGD(weight_decay=0.1)), "coupled weight decay"),
    "exponents": (
        lambda: tp.sgd(mlp(), X, Y, steps=1, lr=1, parametrization="standard", optimizer=tp.Muon()), "Muon in the param",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_what_makes_no_sense_is_refused(name):
    build, message = ERRORS[name]
    with refused(message):
        build()
