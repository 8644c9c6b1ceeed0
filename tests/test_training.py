"""Whole runs of training as programs: against plain SGD, kernel gradient descent, and known feature-learning limits."""

import pickle
import re
from fractions import Fraction

import numpy as np
import pytest
from marks import said

import tensorprog as tp
from tensorprog.execute.population import Population
from tensorprog.training.powers import named

N = tp.Width("n")


def mlp(hidden, phi, **options):
    h = tp.Input("x")
    for layer in range(hidden):
        h = phi(tp.dense(f"W{layer}", h, N, **options))
    return tp.Network(tp.readout("v", h))


def identity(x):
    return x


RNG = np.random.default_rng(3)
X, Y, XT = RNG.standard_normal((3, 4)), RNG.standard_normal(3), RNG.standard_normal((2, 4))


# ---- finite networks ----


def plain_sgd(weights, v, steps, lr, batches, kernel, momentum=0.0, nesterov=False, decay=0.0, clip=np.inf):
    """Outputs of f = v.tanh(.. tanh(W0 x)) / n^(1/2) or / n at every step, of SGD on the parameters themselves."""
    n, d = weights[0].shape
    ws, out = [w.copy() for w in weights], v / (n**0.5 if kernel else n)
    rates = [lr / d if kernel else lr * n / d, *[lr / n if kernel else lr] * (len(ws) - 1), lr / n]
    m = [0.0] * (len(ws) + 1)

    def forward(x):
        hs = [x]
        for w in ws:
            hs.append(np.tanh(hs[-1] @ w.T))
        return hs

    found = []
    for t in range(steps + 1):
        found.append(np.concatenate([forward(x)[-1] @ out for x in (X, XT)]))
        if t == steps:
            return np.array(found)
        b = list(batches[t])
        hs = forward(X[b])
        chi = (hs[-1] @ out - Y[b]) / len(b)
        g = [hs[-1].T @ chi]
        dx = chi[:, None] * out
        for i in reversed(range(len(ws))):
            dh = dx * (1 - hs[i + 1] ** 2)
            g.insert(0, dh.T @ hs[i])
            dx = dh @ ws[i]
        norm = sum([r / lr * np.sum(a**2) for r, a in zip(rates, g, strict=True)]) ** 0.5  # in the entries of omega
        decays = [decay * lr / r * w for r, w in zip(rates, [*ws, out], strict=True)]
        g = [a / max(1, norm / clip) + b for a, b in zip(g, decays, strict=True)]
        m = [momentum * a + b for a, b in zip(m, g, strict=True)]
        steps_by = [b + momentum * a if nesterov else a for a, b in zip(m, g, strict=True)]
        ws = [w - r * s for w, r, s in zip(ws, rates, steps_by, strict=False)]
        out = out - rates[-1] * steps_by[-1]
    return None


BATCHES = {"full": [range(3)] * 4, 1: [[0], [1], [2], [0]], 2: [[0, 1], [2], [0, 1], [2]]}


@pytest.mark.parametrize("scheme", ["ntk", "mup"])
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize(("momentum", "nesterov"), [(0, False), (0.5, False), (0.5, True)])
def test_runs_are_those_of_plain_sgd(scheme, batch, momentum, nesterov):
    n = 12
    rng = np.random.default_rng(4)
    ws = [rng.standard_normal((n, 4)) / 2, *[rng.standard_normal((n, n)) / n**0.5 for _ in range(2)]]
    v = rng.standard_normal(n)
    trace = tp.sgd(
        mlp(3, tp.tanh), X, Y, steps=4, lr=0.4, batch=batch, parametrization=scheme, X_test=XT,
        optimizer=tp.SGD(momentum, nesterov),
    )  # fmt: skip
    runs = tp.run(trace, n=n, parameters={"W0": ws[0], "W1": ws[1], "W2": ws[2], "v": v})
    wanted = plain_sgd(ws, v, 4, 0.4, BATCHES[batch], scheme == "ntk", momentum, nesterov)
    got = np.concatenate([runs["f"][0], runs["f_test"][0]], axis=1)
    assert np.abs(got - wanted).max() < 1e-13
    assert np.abs(runs["loss"][0] - ((wanted[:, :3] - Y) ** 2).mean(1) / 2).max() < 1e-13
    if scheme == "ntk":
        assert np.array_equal(runs["f0"][0], got[0])


@pytest.mark.parametrize(("scheme", "decay"), [("ntk", 0.25), ("mup", 0), ("mup", 0.25)])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("clip", [0.25, 1e3, None])
def test_clipping_and_coupled_decay_are_those_of_plain_sgd(scheme, decay, nesterov, clip):
    n = 12
    rng = np.random.default_rng(4)
    ws = [rng.standard_normal((n, 4)) / 2, *[rng.standard_normal((n, n)) / n**0.5 for _ in range(2)]]
    v = rng.standard_normal(n)
    trace = tp.sgd(
        mlp(3, tp.tanh), X, Y, steps=4, lr=0.4, batch=2, parametrization=scheme, X_test=XT,
        optimizer=tp.SGD(0.5, nesterov, weight_decay=decay), clip=clip,
    )  # fmt: skip
    runs = tp.run(trace, n=n, parameters={"W0": ws[0], "W1": ws[1], "W2": ws[2], "v": v})
    wanted = plain_sgd(ws, v, 4, 0.4, BATCHES[2], scheme == "ntk", 0.5, nesterov, decay, clip or np.inf)
    free = plain_sgd(ws, v, 4, 0.4, BATCHES[2], scheme == "ntk", 0.5, nesterov, decay)
    assert (np.abs(wanted - free).max() > 1e-2) == (clip == 0.25)
    assert np.abs(np.concatenate([runs["f"][0], runs["f_test"][0]], axis=1) - wanted).max() < 1e-13


@pytest.mark.parametrize("scheme", ["ntk", "mup"])
def test_a_step_costs_what_the_one_before_did(scheme):
    counts = [
        len(tp.sgd(mlp(3, tp.tanh), X, Y, steps=t, lr=0.4, parametrization=scheme, X_test=XT).program.nodes)
        for t in (3, 4, 5, 6)
    ]
    assert not np.any(np.diff(counts, 2))


def plain_entrywise(weights, v, steps, lr, batches, kernel, rule, decay, clip=np.inf):
    """As `plain_sgd`, two hidden layers: what `rule` makes of (state, gradient of order one) moves every omega."""
    (n, d), power = weights[0].shape, 0.5 if kernel else 1.0
    u, w, out, states, found = weights[0], weights[1], v, [None] * 3, []

    def f(x):
        return np.tanh(np.tanh(x @ u.T) @ w.T) @ out / n**power

    for t in range(steps + 1):
        found.append(np.concatenate([f(X), f(XT)]))
        if t == steps:
            return np.array(found)
        b = list(batches[t])
        x1 = np.tanh(X[b] @ u.T)
        x2 = np.tanh(x1 @ w.T)
        chi = (f(X[b]) - Y[b]) / len(b)
        d2 = chi[:, None] * out * (1 - x2**2)
        d1 = (d2 @ w) * (1 - x1**2)
        moves = []
        gradients = [d1.T @ X[b] / d**0.5, d2.T @ x1, x2.T @ chi]
        norm = (np.sum(gradients[0] ** 2) / n + np.sum(gradients[1] ** 2) / n**2 + np.sum(gradients[2] ** 2) / n) ** 0.5
        for i, g in enumerate([g / max(1, norm / clip) for g in gradients]):
            step, states[i] = rule(states[i], g)
            moves.append(lr * step * (n**-0.5 if kernel else 1))
        kept = 1 - lr * decay
        u, w, out = kept * u - moves[0] / d**0.5, kept * w - moves[1] / n, kept * out - moves[2]
    return None


def adam(state, g, b1=0.9, b2=0.95, eps=0.01):
    t, m, s = state or (0, 0.0, 0.0)
    m, s = b1 * m + (1 - b1) * g, b2 * s + (1 - b2) * g * g
    return m / (1 - b1 ** (t + 1)) / np.sqrt(s / (1 - b2 ** (t + 1)) + eps**2), (t + 1, m, s)


@pytest.mark.parametrize(("scheme", "decay"), [("ntk", 0), ("ntk", 0.25), ("mup", 0.25)])
@pytest.mark.parametrize(
    ("optimizer", "rule"),
    [
        (tp.SGD(), lambda state, g: (g, None)),
        (tp.Adam(0.9, 0.95, 0.01), adam),
        (tp.SignSGD(), lambda state, g: (np.sign(g), None)),
        (tp.SignSGD(0.5), lambda state, g: (g / np.sqrt(g**2 + 0.25), None)),
    ],
)
@pytest.mark.parametrize("clip", [None, 0.25])
def test_optimizers_are_those_of_entries(scheme, decay, optimizer, rule, clip):
    n = 12
    rng = np.random.default_rng(5)
    ws = [rng.standard_normal((n, 4)) / 2, rng.standard_normal((n, n)) / n**0.5]
    v = rng.standard_normal(n)
    trace = tp.sgd(
        mlp(2, tp.tanh), X, Y, steps=4, lr=0.25, batch=2, parametrization=scheme, X_test=XT, optimizer=optimizer,
        weight_decay=decay, clip=clip,
    )  # fmt: skip
    runs = tp.run(trace, n=n, parameters={"W0": ws[0], "W1": ws[1], "v": v})
    wanted = plain_entrywise(ws, v, 4, 0.25, BATCHES[2], scheme == "ntk", rule, decay, clip or np.inf)
    assert np.abs(np.concatenate([runs["f"][0], runs["f_test"][0]], axis=1) - wanted).max() < 1e-13


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["ntk", "mup"])
@pytest.mark.parametrize("optimizer", [tp.Adam(0.9, 0.95, 0.5), tp.SignSGD(0.5)])
def test_finite_networks_tend_to_the_limits_of_optimizers(scheme, optimizer):
    if scheme == "mup":
        trace = tp.sgd(mlp(2, tp.tanh), X, Y, steps=3, lr=0.25, parametrization=scheme, optimizer=optimizer)
        assert tp.compare(trace, widths=[64, 128, 256], seeds=16).agrees
    else:  # one step from f_0 = 0, of networks whose first outputs are taken off
        trace = tp.sgd(mlp(2, tp.tanh), X, Y, steps=1, lr=0.25, parametrization=scheme, optimizer=optimizer)
        limit = tp.limit(trace, method="population", samples=512)
        assert tp.compare(trace.program, widths=[64, 128, 256], seeds=16, against=limit).agrees


# ---- the kernel limit ----


def kernel_descent(K, y, f0, batches, lr):
    """f <- f - lr K[:, b] (f - y)[b] / B, on all examples; K (examples, examples[, outputs, outputs])."""
    f, found = f0, [f0]
    for b in map(list, batches):
        chi = (f[b] - y[b]) / len(b)
        f = f - lr * (K[:, b] @ chi if K.ndim == 2 else np.einsum("abij,bj->ai", K[:, b], chi))
        found.append(f)
    return np.array(found)


def rnn():
    def f(x):
        u = tp.dense("U", x, N, b_std=0.5)
        h = tp.erf(tp.take(u, "t", 0))
        for t in (1, 2):
            h = tp.erf(tp.Matrix("W", N, N) @ h + tp.take(u, "t", t))
        return tp.readout("v", h, b_std=0.3)

    return tp.Network(f, [tp.Input("x", axes=("t",))]), (3, 3, 2)


def normalized():
    h = tp.erf(tp.layer_norm(tp.dense("U", tp.Input("x"), N)))
    return tp.Network(tp.readout("v", tp.erf(tp.layer_norm(tp.dense("W", h, N))))), (3, 4)


def convolution():
    h = tp.erf(tp.conv("U", tp.Input("x", axes=("t",)), N, 3, axes="t"))
    return tp.Network(tp.readout("v", tp.mean(tp.erf(tp.conv("W", h, N, 3, axes="t")), "t"))), (3, 4, 2)


def transformer():
    h = tp.transformer_block("b", tp.dense("U", tp.Input("x", axes=("t",)), N), N)
    return tp.Network(tp.readout("v", tp.mean(h, "t"))), (2, 2, 3)


def transposed():
    """Gradient independence fails: W.T follows W in the forward pass."""
    h, W = tp.dense("U", tp.Input("x"), N), tp.Matrix("W", N, N)
    return tp.Network(tp.readout("v", W.T @ (W @ tp.erf(h)))), (3, 4)


def several():
    h = tp.relu(tp.dense("W", tp.relu(tp.dense("U", tp.Input("x"), N, b_std=0.2)), N, b_std=0.1))
    return tp.Network([tp.readout("v", h), tp.readout("w", h)]), (4, 4)


def two_widths():
    h = tp.erf(tp.dense("U", tp.Input("x"), tp.Width("m", 2)))
    return tp.Network(tp.readout("v", tp.erf(tp.dense("W", h, N)))), (4, 4)


NETWORKS = {
    "one hidden layer": lambda: (mlp(1, tp.erf), (3, 4)),
    "three hidden layers": lambda: (mlp(3, tp.erf), (3, 4)),
    "four hidden layers": lambda: (mlp(4, tp.relu, b_std=0.3), (3, 4)),
    "a recurrent network": rnn,
    "layer norm": normalized,
    "a convolution": convolution,
    "a transformer block": transformer,
    "a transpose in the forward pass": transposed,
    "two outputs": several,
    "two widths": two_widths,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_limit_is_kernel_gradient_descent(name):
    """Tensor Programs IIb: by the limit of the unrolled program, Zdot and all, from any f_0."""
    net, shape = NETWORKS[name]()
    rng = np.random.default_rng(1)
    x = rng.standard_normal(shape)
    K = np.asarray(tp.limit(net, x, of="ntk")["ntk"].value)
    y = rng.standard_normal((len(x), *K.shape[2:3]))
    f0 = rng.standard_normal(y.shape)
    trace = tp.sgd(net, x, y, steps=3, lr=0.3, batch=2)
    limit = tp.limit(trace, f0=f0)["f"]
    assert limit.method != "population"
    wanted = kernel_descent(K, y, f0, trace.recipe.batches, 0.3)
    assert np.all(np.abs(limit.value - wanted) <= np.asarray(limit.error) + 1e-14) and np.max(limit.error) < 1e-9


@pytest.mark.parametrize("name", ["one hidden layer", "a recurrent network", "two outputs", "two widths", "layer norm"])
def test_clipped_gradients_in_the_limit(name):
    """|g|^2 = chi K chi."""
    net, shape = NETWORKS[name]()
    rng = np.random.default_rng(1)
    x = rng.standard_normal(shape)
    K = np.asarray(tp.limit(net, x, of="ntk")["ntk"].value)
    y = rng.standard_normal((len(x), *K.shape[2:3]))
    f = rng.standard_normal(y.shape)
    limit = tp.limit(tp.sgd(net, x, y, steps=3, lr=0.6, clip=0.25), f0=f)["f"]
    K = K.transpose(0, 2, 1, 3).reshape(y.size, y.size) if y.ndim > 1 else K
    for t in range(4):
        assert np.abs(limit.value[t] - f).max() < 1e-12
        chi = (f - y).ravel() / len(y)
        step = 0.6 * K @ chi * min(1, 0.25 / (chi @ K @ chi) ** 0.5)
        f = f - step.reshape(f.shape)


def test_without_zdot_it_is_not():
    net = mlp(2, tp.erf)
    K = tp.kernel_fn(net)(X, get="ntk")
    trace = tp.sgd(net, X, Y, steps=2, lr=0.5)
    wanted = kernel_descent(K, Y, np.zeros(3), trace.recipe.batches, 0.5)
    assert np.abs(tp.limit(trace)["f"].value - wanted).max() < 1e-9
    assert np.abs(tp.limit(trace, gia=True)["f"].value - wanted).max() > 1e-2


def test_what_the_limit_asks_does_not_grow_with_steps_and_examples():
    """One integral for each kernel of each layer, whatever the number of steps; questions linear in it."""
    from tensorprog.language.node import topological
    from tensorprog.limits.expect.lower import Lowering
    from tensorprog.transforms.written_out import written_out

    asked = {}
    for examples, steps in ((10, 2), (10, 4), (20, 2)):
        rng = np.random.default_rng(0)
        trace = tp.sgd(
            mlp(2, tp.tanh), rng.standard_normal((examples, 4)), rng.standard_normal(examples), steps=steps, lr=1
        )
        lowering = Lowering(written_out(trace.program))
        integrals = [x for x in topological(lowering.z.values()) if x.op == "gauss"]
        asked[examples, steps] = len(integrals), lowering.expectation.budget.expansions
    assert asked[10, 2][0] == asked[10, 4][0] == asked[20, 2][0] == 5
    assert asked[20, 2][1] < 1.2 * asked[10, 2][1] and asked[10, 4][1] < 2.4 * asked[10, 2][1]  # digests order them


def test_from_many_starts_as_from_each():
    from tensorprog.training.starts import limits_from

    trace = tp.sgd(mlp(2, tp.erf), X, Y, steps=2, lr=0.5)
    starts = [np.array([0.5, -1, 2]), np.zeros(3)]
    for start, found in zip(starts, limits_from(trace.program, "f0", starts, None, False, 0), strict=True):
        assert np.abs(found["f"] - tp.limit(trace, f0=start)["f"].value).max() < 1e-12


# ---- feature learning ----


@pytest.mark.parametrize(("gia", "golden"), [(False, [0, 0.5, 0.7734375, 0.91232094, 0.96955693])])
def test_known_traces_of_linear_networks(gia, golden):
    trace = tp.sgd(mlp(1, identity), [[1]], [1], steps=4, lr=0.25, parametrization="mup")
    assert np.abs(tp.limit(trace, gia=gia)["f"].value.ravel() - golden).max() < 1e-8


def test_linear_networks_cost_a_power_of_the_steps():
    """The vectors of a step are sums of those of the steps before, not sums of sums of them: questions grow as steps^3 (they
    grew five times from two steps to three). The values are those of a population, which is exact for linear programs."""
    from tensorprog.execute.executor import population
    from tensorprog.limits.expect.lower import Lowering
    from tensorprog.transforms.written_out import written_out

    asked = {}
    for steps in (2, 3):
        trace = tp.sgd(mlp(3, identity), X[:2], Y[:2], steps=steps, lr=0.25, parametrization="mup")
        program = written_out(trace.program)
        lowering = Lowering(program)
        asked[steps] = lowering.expectation.budget.expansions
        f = lowering.z[program.outputs["f"].node]
        assert np.abs(f.attr - population(trace.program, 256, replicates=1)["f"][0]).max() < 1e-13
    assert asked[3] < (3 / 2) ** 3 * asked[2]


def probed(scheme, steps):
    h = tp.dense("W1", tp.dense("W0", tp.Input("x"), N), N)
    net = tp.Network(tp.readout("v", h))
    probe = {"h2": tp.moment(h * h), "own": lambda x: tp.moment(tp.dense("W0", x, N) ** 2)}
    return tp.sgd(net, X, Y, steps=steps, lr=0.25, parametrization=scheme, X_test=XT, probe=probe)


@pytest.mark.parametrize("scheme", ["ntk", "mup"])
def test_probes_are_moments_of_the_network_as_it_is(scheme):
    """After one step of plain gradient descent; in the kernel's limit nothing moves."""
    n, d = 12, 4
    rng = np.random.default_rng(4)
    u, w, v = rng.standard_normal((n, d)) / 2, rng.standard_normal((n, n)) / n**0.5, rng.standard_normal(n)
    trace = probed(scheme, 1)
    runs = tp.run(trace, n=n, parameters={"W0": u, "W1": w, "v": v})
    out = v / (n**0.5 if scheme == "ntk" else n)
    chi = (X @ u.T @ w.T @ out - Y) / 3
    rates = (1 / d, 1 / n) if scheme == "ntk" else (n / d, 1)
    back = chi[:, None] * out
    u1, w1 = u - 0.25 * rates[0] * (back @ w).T @ X, w - 0.25 * rates[1] * back.T @ (X @ u.T)
    for x, ending in ((X, ""), (XT, "_test")):
        for t, (a, b) in enumerate(((u, w), (u1, w1))):
            assert np.abs(runs["h2" + ending][0, t] - ((x @ a.T @ b.T) ** 2).mean(1)).max() < 1e-13
            assert np.abs(runs["own" + ending][0, t] - ((x @ a.T) ** 2).mean(1)).max() < 1e-13
    limit = tp.limit(trace)
    assert np.abs(limit["h2"].value[0] - (X**2).mean(1)).max() < 1e-14
    assert np.allclose(limit["h2"].value[1], limit["h2"].value[0], rtol=1e-14) == (scheme == "ntk")


def test_probes_of_features_that_are_learned():
    """One hidden layer, linear: Z^u and Z^v move in their own plane, u1 = u + lr y v and v1 = v + lr y u for x = 1."""
    h = tp.dense("W0", tp.Input("x"), N)
    trace = tp.sgd(
        tp.Network(tp.readout("v", h)),
        [[1]],
        [1],
        steps=1,
        lr=0.25,
        parametrization="mup",
        probe={"k": tp.moment(h * h)},
    )
    assert tp.limit(trace)["k"].value.ravel().tolist() == [1, 1 + 1 / 16]


def test_mean_field_is_mup_with_one_hidden_layer():
    traces = [tp.sgd(mlp(1, tp.tanh), X, Y, steps=2, lr=0.5, parametrization=p) for p in ("mup", "mean_field")]
    assert traces[0].program == traces[1].program


# ---- losses and rates ----


def test_a_loss_of_ones_own_is_differentiated():
    own = tp.sgd(mlp(1, tp.erf), X, Y, steps=2, lr=0.5, loss=lambda f, y: (f - y) ** 2 / 2, parametrization="mup")
    known = tp.sgd(mlp(1, tp.erf), X, Y, steps=2, lr=0.5, parametrization="mup")
    a, b = (tp.run(t, n=16)["loss"] for t in (own, known))
    assert np.abs(a - b).max() < 1e-14


@pytest.mark.parametrize("loss", ["logistic", "cross_entropy"])
def test_losses_go_down_as_their_slopes_say(loss):
    """f_1 - f_0 = -lr K chi in the limit, with chi the derivative of the loss, by differences."""
    h = tp.erf(tp.dense("U", tp.Input("x"), N))
    heads = [tp.readout(f"v{i}", h) for i in range(3)]
    net = tp.Network(heads if loss == "cross_entropy" else heads[0])
    y = np.array([2, 0, 1]) if loss == "cross_entropy" else np.array([1, -1, -1])

    def value(f):
        if loss == "logistic":
            return np.mean(np.log1p(np.exp(-y * f)))
        return np.mean(np.log(np.exp(f).sum(1)) - f[np.arange(3), y])

    f0 = np.random.default_rng(2).standard_normal((3, 3) if loss == "cross_entropy" else 3)
    limit = tp.limit(tp.sgd(net, X, y, steps=1, lr=0.5, loss=loss), f0=f0)
    chi = np.zeros_like(f0)
    for i in np.ndindex(f0.shape):
        e = np.zeros_like(f0)
        e[i] = 1e-5
        chi[i] = (value(f0 + e) - value(f0 - e)) / 2e-5
    K = tp.kernel_fn(net)(X, get="ntk")
    step = K @ chi if f0.ndim == 1 else np.einsum("abij,bj->ai", K, chi)
    assert np.abs(limit["f"].value[1] - (f0 - 0.5 * step)).max() < 1e-9
    assert abs(limit["loss"].value[0] - value(f0)) < 1e-12


def test_rates_by_step_and_parameter():
    rate = tp.Scalar("rate", 0.5)
    same = [0.5, [0.5, 0.5], lambda t: 0.5, {"v": 0.5, "default": 0.5}]
    programs = {tp.sgd(mlp(1, tp.erf), X, Y, steps=2, lr=lr).program.digest for lr in same}
    assert len(programs) == 1
    known = tp.limit(tp.sgd(mlp(1, tp.erf), X, Y, steps=2, lr=0.5))["f"].value
    trace = tp.sgd(mlp(1, tp.erf), X, Y, steps=2, lr=rate)
    assert np.abs(tp.limit(trace)["f"].value - known).max() < 1e-12
    frozen = tp.sgd(mlp(1, tp.erf), X, Y, steps=2, lr=0.5, freeze="v")
    still = tp.sgd(mlp(1, tp.erf), X, Y, steps=2, lr={"v": 0, "default": 0.5})
    assert np.abs(tp.limit(frozen)["f"].value - tp.limit(still)["f"].value).max() < 1e-12


# ---- parametrizations ----


def test_classification():
    """The table of Tensor Programs IV: L = 2."""
    half = Fraction(1, 2)
    mup, ntk, standard = (tp.classify(name) for name in ("mup", "ntk", "standard"))
    assert (mup.r, ntk.r, standard.r) == (0, half, half)
    assert mup.feature_learning and not ntk.feature_learning and not standard.feature_learning
    assert all(k.stable and k.nontrivial for k in (mup, ntk, standard))
    assert mup.maximal == (1, 2, 3) and ntk.maximal == (3,)
    uniform = tp.ABC(a=[-half + half / 2, half / 2, half], b=[half / 2] * 3, c=0)
    assert tp.classify(uniform).r == half / 2
    assert not tp.classify(tp.ABC(a=[0, 0, 0], b=[0, 0.5, 0.5], c=0)).stable
    tiny = tp.classify(tp.ABC(a=[0, 0.5, 0.5], b=[0, 0, 0], c=1))
    assert tiny.stable and not tiny.nontrivial


@pytest.mark.parametrize("name", ["mup", "ntk", "standard"])
def test_shifts_train_alike(name):
    abc = named(name, 2)
    shifted = abc.shifted(Fraction(1, 4))
    one, other = (tp.sgd(mlp(2, tp.erf), X, Y, steps=2, lr=0.5, parametrization=p) for p in (abc, shifted))
    assert one.program == other.program and (shifted.r, shifted.rates) == (abc.r, abc.rates)


@pytest.mark.parametrize("s", [Fraction(1, 4), Fraction(1, 2)])
def test_uniform_parametrizations_follow_the_kernel(s):
    half = Fraction(1, 2)
    abc = tp.ABC(a=[s - half, s, half], b=[half - s] * 3, c=0)
    net = mlp(2, tp.erf)
    trace = tp.sgd(net, X, Y, steps=2, lr=0.5, parametrization=abc)
    wanted = kernel_descent(tp.kernel_fn(net)(X, get="ntk"), Y, np.zeros(3), trace.recipe.batches, 0.5)
    assert np.abs(tp.limit(trace)["f"].value - wanted).max() < 1e-9


def test_batches_are_those_of_their_own_examples():
    """Data that are equal in one batch differ in the next: f = (tanh(U a) U b).v / n, plain SGD on (U, v)."""
    n, rng = 7, np.random.default_rng(8)
    a, b, y = np.array([[1.0], [1.0]]), np.array([[1.0], [2.0]]), np.array([1.0, -1.0])
    first, second = tp.dense("U", tp.Input("a"), N), tp.dense("U", tp.Input("b"), N)
    net = tp.Network(tp.readout("v", tp.tanh(first) * second))
    trace = tp.sgd(net, {"a": a, "b": b}, y, batch=1, steps=3, lr=0.4, parametrization="mup")
    u, v = rng.standard_normal((n, 1)), rng.standard_normal(n)
    got = tp.run(trace, n=n, parameters={"U": u, "v": v})["f"][0]
    v = v / n
    for t in range(4):
        f = (np.tanh(a @ u.T) * (b @ u.T)) @ v
        assert np.abs(got[t] - f).max() < 1e-14
        i = t % 2
        chi, g, h = f[i] - y[i], np.tanh(u @ a[i]), u @ b[i]
        du = chi * (np.outer(v * h * (1 - g**2), a[i]) + np.outer(v * g, b[i]))
        u, v = u - 0.4 * n * du, v - 0.4 / n * chi * g * h


def test_cross_entropy_is_that_of_probabilities_and_of_far_logits():
    f0, soft = np.array([[2.0, -2.0], [1.0, 0.0]]), np.array([[0.5, 0.5], [0.2, 0.8]])

    def first(y, f0):
        return float(
            tp.limit(tp.sgd(several()[0], X[:2], y, steps=1, lr=0.1, loss="cross_entropy"), f0=f0)["loss"].value[0]
        )

    wanted = (np.log(np.exp(f0).sum(1)) - (soft * f0).sum(1)).mean()
    assert abs(first(soft, f0) - wanted) < 1e-14
    assert abs(first([0, 1], [[-1000, 1000], [0, 0]]) - (2000 + np.log(2)) / 2) < 1e-12


def test_a_trace_is_pickled_drawn_from_and_named():
    trace = tp.sgd(mlp(1, tp.erf), X, Y, steps=1, lr=0.5, loss="mse", freeze=None)
    assert pickle.loads(pickle.dumps(trace)).program == trace.program
    first, again, other = [tp.limit(trace, f0="draw", **rng)["f"].value for rng in ({}, {"rng": 0}, {"rng": 1})]
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    trivial = tp.sgd(mlp(1, tp.erf), X, Y, steps=1, lr=0.5, parametrization=tp.ABC([0, 0.5], [0, 0], 1))
    assert "no step moves" in repr(trivial)
    h = tp.dense("U", tp.Input("x"), N)
    mixing = tp.sgd(tp.Network(tp.readout("v", h - tp.mean(h, "example"))), X, Y, steps=1, lr=0.5, batch=1)
    with pytest.raises(tp.TensorProgramError, match="mixes examples") as caught:
        mixing.program
    assert caught.value.source.file == __file__


ERRORS = {
    "steps": (lambda: tp.sgd(mlp(1, tp.erf), X, Y, steps=0, lr=1), "steps=0"),
    "the number of targets": (lambda: tp.sgd(mlp(1, tp.erf), X, Y[:2], steps=1, lr=1), "2 targets y for 3 examples"),
    "their shape": (lambda: tp.sgd(mlp(1, tp.erf), X, np.ones((3, 2)), steps=1, lr=1), r"shape \(3,\)"),
    "NaN": (lambda: tp.sgd(mlp(1, tp.erf), X, [1, np.nan, 0], steps=1, lr=1), "not finite"),
    "NaN in data": (lambda: tp.sgd(mlp(1, tp.erf), X * np.nan, Y, steps=1, lr=1), "nan at"),
    "labels": (lambda: tp.sgd(mlp(1, tp.erf), X, [0, 1, 1], steps=1, lr=1, loss="logistic"), "labels are 1 and -1"),
    "classes": (lambda: tp.sgd(several()[0], X, [0, 2, 1], steps=1, lr=1, loss="cross_entropy"), "0 to 1"),
    "a loss": (lambda: tp.sgd(mlp(1, tp.erf), X, Y, steps=1, lr=1, loss="hinge"), "mse, logistic"),
    "a batch": (lambda: tp.sgd(mlp(1, tp.erf), X, Y, steps=1, lr=1, batch=4), "from 1 to 3"),
    "batches": (lambda: tp.sgd(mlp(1, tp.erf), X, Y, steps=2, lr=1, batch=[[0]]), "1 batches for 2 steps"),
    "indices": (lambda: tp.sgd(mlp(1, tp.erf), X, Y, steps=1, lr=1, batch=[[3]]), "from 0 to 2"),
    "no index": (lambda: tp.sgd(mlp(1, tp.erf), X, Y, steps=2, lr=1, batch=[[0.7], [1.2]]), r"the batch \[0\.7\]"),
    "a mask": (lambda: tp.sgd(mlp(1, tp.erf), X, Y, steps=1, lr=1, batch=[[True, False, True]]), "flatnonzero"),
    "a large index": (lambda: tp.sgd(mlp(1, tp.erf), X, Y, steps=1, lr=1, batch=[[2**70]]), "from 0 to 2"),
    "an empty batch": (lambda: tp.sgd(mlp(1, tp.erf), X, Y, steps=1, lr=1, batch=[[]]), "from 0 to 2"),
    "no data": (lambda: tp.sgd(mlp(1, tp.erf), None, Y, steps=1, lr=1), "X has no data"),
    "a shape": (lambda: tp.sgd(mlp(1, tp.erf), (3, 4), Y, steps=1, lr=1), "X has no data"),
    "ragged rates": (lambda: tp.sgd(mlp(1, tp.erf), X, Y, steps=2, lr=[[1], [1, 2]]), "learning rate of step 0"),
    "an array of exponents": (lambda: tp.sgd(mlp(1, tp.erf), X, Y, steps=1, lr=1, parametrization=X), r"tp\.ABC"),
    "nesterov": (lambda: tp.SGD(0.5, "yes"), "True or False"),
    "a class": (lambda: tp.sgd(mlp(1, tp.erf), X, Y, steps=1, lr=1, optimizer=tp.Adam, parametrization="mup"), "optimizer="),
    "a number of layers": (lambda: tp.classify("mup", -2), "hidden_layers=-2"),
    "half a layer": (lambda: tp.classify("mup", 1.5), r"hidden_layers=1\.5"),
    "no names": (lambda: tp.sgd(mlp(1, tp.erf), X, Y, steps=1, lr=1, freeze=3), "freeze=3"),
    "a loss of one argument": (lambda: tp.sgd(mlp(1, tp.erf), X, Y, steps=1, lr=1, loss=lambda f: f**2), "two arguments"),
    "a rate of none": (lambda: tp.sgd(mlp(1, tp.erf), X, Y, steps=1, lr=lambda: 1), "one argument"),
    "f0 of words": (lambda: tp.limit(tp.sgd(mlp(1, tp.erf), X, Y, steps=1, lr=1), f0=["a", "b", "c"]), "f0"),
    "f0 of a run": (lambda: tp.run(tp.sgd(mlp(1, tp.erf), X, Y, steps=1, lr=1), 4, f0=Y), "its own"),
    "f0 of comparisons": (lambda: tp.compare(tp.sgd(mlp(1, tp.erf), X, Y, steps=1, lr=1), [4, 8], 2, f0=Y), "its own"),
    "a rate": (lambda: tp.sgd(mlp(1, tp.erf), X, Y, steps=1, lr=-1), "at least 0"),
    "rates": (lambda: tp.sgd(mlp(1, tp.erf), X, Y, steps=1, lr={"v": 1}), "no rate for W0"),
    "a name": (lambda: tp.sgd(mlp(1, tp.erf), X, Y, steps=1, lr=1, freeze="w"), "parameters are W0, v"),
    "f0": (lambda: tp.limit(tp.sgd(mlp(1, tp.erf), X, Y, steps=1, lr=1), f0=[1, 2]), r"shape \(3,\)"),
    "f0 in muP": (
        lambda: tp.limit(tp.sgd(mlp(1, tp.erf), X, Y, steps=1, lr=1, parametrization="mup"), f0=Y), "tend to 0",
    ),
    "mean field": (lambda: tp.sgd(mlp(2, tp.erf), X, Y, steps=1, lr=1, parametrization="mean_field"), "one hidden layer"),
    "a probe": (
        lambda: tp.sgd(mlp(1, tp.erf), X, Y, steps=1, lr=1, probe={"h": tp.dense("W0", tp.Input("x"), N)}), "a Moment",
    ),
    "a probe's name": (lambda: tp.sgd(mlp(1, tp.erf), X, Y, steps=1, lr=1, probe={"f": None}), "other names than f"),
    "a clip": (lambda: tp.sgd(mlp(1, tp.erf), X, Y, steps=1, lr=1, clip=0), "clip=0"),
    "Adam's exponents": (
        lambda: tp.sgd(mlp(1, tp.erf), X, Y, steps=1, lr=1, parametrization="standard", optimizer=tp.Adam()), "mup",
    ),
    "an optimizer": (lambda: tp.sgd(mlp(1, tp.erf), X, Y, steps=1, lr=1, optimizer="adam"), r"tp\.Adam"),
    "a parametrization": (lambda: tp.sgd(mlp(1, tp.erf), X, Y, steps=1, lr=1, parametrization="mu"), "mup"),
    "layers": (
        lambda: tp.sgd(mlp(1, tp.erf), X, Y, steps=1, lr=1, parametrization=named("mup", 2)), "3 layers, and the network has 2",
    ),
    "what blows up": (
        lambda: tp.sgd(mlp(2, tp.erf), X, Y, steps=1, lr=1, parametrization=tp.ABC([0, 0, 0], [0, 0.5, 0.5], 0)),
        r"layer 2 by n\^1",
    ),
    "an average readout": (
        lambda: tp.sgd(tp.Network(tp.moment(tp.dense("U", tp.Input("x"), N) ** 2)), X, Y, steps=1, lr=1), "mup",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_what_makes_no_sense_is_refused(name):
    build, message = ERRORS[name]
    with pytest.raises(tp.TensorProgramError) as caught:
        build()
    assert re.search(message, said(caught.value)), said(caught.value)


DIVERGING = {
    "limit": tp.limit,
    "run": lambda trace: tp.run(trace, n=8),
    "compare": lambda trace: tp.compare(trace, widths=[4], seeds=2),
}


@pytest.mark.parametrize("name", DIVERGING)
@pytest.mark.parametrize("scheme", ["ntk", "mup"])
def test_a_run_that_diverges_says_at_which_step(scheme, name):
    """The limit in the NTK parametrization is f of order lr^t: the loss is beyond floats where 100 t > 308."""

    def train(steps):
        return tp.sgd(mlp(1, identity), X[:1], Y[:1], steps=steps, lr=10**50, parametrization=scheme)

    with pytest.raises(tp.TensorProgramError) as caught:
        DIVERGING[name](train(5 if scheme == "ntk" else 3))
    step = int(re.search(r"training diverged at step (\d+) of", said(caught.value))[1])
    assert step == 4 or (scheme, name) != ("ntk", "limit")
    if name != "compare":
        DIVERGING[name](train(step - 1))
    with pytest.raises(tp.TensorProgramError):
        DIVERGING[name](train(step))


def test_gradient_independence_of_runs():
    """Products with W.T are those of back-propagation, and of one step f_1 alone is wrong without their Zdot."""
    assert tp.check_gia(tp.sgd(mlp(1, identity), X[:1], Y[:1], steps=1, lr=0.5)).holds
    assert tp.check_gia(tp.sgd(mlp(2, identity), X[:1], Y[:1], steps=1, lr=0.5)).holds is False


def test_a_trace_is_a_program_for_all_that_take_one(tmp_path):
    trace = tp.sgd(mlp(1, tp.erf), X, Y, steps=1, lr=0.5)
    assert tp.parse(str(trace.program), arrays=trace.program.arrays) == trace.program
    tp.save(trace, tmp_path / "trace.tp")
    assert tp.load(tmp_path / "trace.tp") == trace.program
    assert "MatMul" in tp.latex(tp.sgd(mlp(2, tp.erf), X, Y, steps=1, lr=0.5))
    assert tp.check_gia(trace).bp_like is not None


def test_populations_of_linear_networks_are_right_to_rounding(monkeypatch):
    """What counts as dependent is an error that no spread over replicas shows."""
    rng = np.random.default_rng(0)
    trace = tp.sgd(mlp(3, identity), rng.standard_normal((2, 3)), [1, -1], steps=8, lr=0.3, parametrization="mup")
    how = {"method": "population", "samples": 512, "replicates": 2}
    found = tp.limit(trace, **how)["f"]
    monkeypatch.setitem(Population.__init__.__kwdefaults__, "tolerance", 1e-13)
    assert np.abs(tp.limit(trace, **how)["f"].value - found.value).max() < 1e-14 + found.error.max()
