"""Weight decay where training follows a kernel: another kernel for every pair of steps, that of the first weights, shrunk."""

from dataclasses import replace
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from marks import few, refused
from test_training import NETWORKS

import tensorprog as tp
from tensorprog.training.prior import covariance
from tensorprog.training.unroll import Unrolled

N, M = tp.Width("n"), tp.Width("m", 2)
RNG = np.random.default_rng(3)
X, Y, XT = RNG.standard_normal((2, 4)), RNG.standard_normal(2), RNG.standard_normal((1, 4))
ALL = np.concatenate([X, XT])
STEPS, LR, BATCHES = 2, 0.4, [[0, 1], [0]]
PARAMETERS = ("U", "W", "v", "v_b")


def mlp(phi=tp.erf, bias=None):
    h = phi(tp.dense("W", phi(tp.dense("U", tp.Input("x"), M)), N))
    return tp.Network(tp.readout("v", h, b_std=bias))


# ---- by hand ----


def erf_dual(a, b, c):
    """E erf erf, and of the slopes, for variances a (down) and b (across) and covariances c."""
    root = np.sqrt(np.outer(1 + 2 * a, 1 + 2 * b))
    return 2 / np.pi * np.arcsin(2 * c / root), 4 / np.pi / np.sqrt(root**2 - 4 * c**2)


def kernels(k, j, bias):
    """NNGP and NTK of erf networks with two hidden layers, whose parameters are k and j times those they share.

    Without factors k, j in front of gradients: parameters are what is trained, and they are shrunk, not their scale.
    """
    gram = ALL @ ALL.T / ALL.shape[1]
    q = np.diag(gram)
    own = {}
    for side in (k, j):
        first, _ = erf_dual(side["U"] ** 2 * q, side["U"] ** 2 * q, side["U"] ** 2 * gram)
        own[id(side)] = side["U"] ** 2 * q, side["W"] ** 2 * np.diag(first)
    (a1, a2), (b1, b2) = own[id(k)], own[id(j)]
    x1, d1 = erf_dual(a1, b1, k["U"] * j["U"] * gram)
    x2, d2 = erf_dual(a2, b2, k["W"] * j["W"] * x1)
    v, w = k["v"] * j["v"], k["W"] * j["W"]
    nngp = v * x2 + k["v_b"] * j["v_b"] * bias**2
    return nngp, {"U": v * d2 * w * d1 * gram, "W": v * d2 * x1, "v": x2, "v_b": bias**2 * np.ones_like(x2)}


def by_hand(first, batches, decay=0.0, coupled=0.0, momentum=0.0, nesterov=False, rates=None, bias=0.0):
    """Outputs at every step, from those of the first parameters; one is what is left of its first, less sum_s c_s g_s."""
    rates = rates or dict.fromkeys(PARAMETERS, LR)
    left = [dict.fromkeys(PARAMETERS, 1.0)]
    c = {p: np.zeros((STEPS + 1, STEPS)) for p in PARAMETERS}
    m, shrunk = {p: np.zeros(STEPS) for p in PARAMETERS}, dict.fromkeys(PARAMETERS, 0.0)
    f, chi = [first[0]], np.zeros((STEPS, len(ALL)))
    for t, b in enumerate(map(list, batches)):
        chi[t, b] = (f[t][b] - Y[b]) / len(b)
        left.append({})
        for p in PARAMETERS:
            g, h = np.eye(STEPS)[t] - coupled * c[p][t], coupled * left[t][p]
            m[p], shrunk[p] = momentum * m[p] + g, momentum * shrunk[p] + h
            by, of = (g + momentum * m[p], h + momentum * shrunk[p]) if nesterov else (m[p], shrunk[p])
            kept = 1 - rates[p] * decay
            c[p][t + 1] = kept * c[p][t] + rates[p] * by
            left[-1][p] = kept * left[t][p] - rates[p] * of
        f.append(first[t + 1].copy())
        for s in range(t + 1):
            for p, k in kernels(left[-1], left[s], bias)[1].items():
                f[-1] -= c[p][t + 1, s] * k @ chi[s]
    return np.array(f)


def outputs(found):
    return np.concatenate([np.asarray(found["f"].value), np.asarray(found["f_test"].value)], axis=1)


CASES = {
    "decoupled": {"decay": 0.3},
    "coupled": {"coupled": 0.3},
    "momentum": {"coupled": 0.3, "momentum": 0.5},
    "both, and Nesterov": {"decay": 0.1, "coupled": 0.3, "momentum": 0.5, "nesterov": True},
    "rates": {"decay": 0.3, "momentum": 0.5, "rates": {"U": 0.1, "W": 0.5, "v": 0.25, "v_b": 0}},
    "all of it at once": {"decay": 1 / LR},
}


@pytest.mark.parametrize("name", few(CASES, ["both, and Nesterov", "all of it at once"]))
def test_the_limit_is_the_recursion_by_hand(name):
    options = CASES[name]
    first = np.random.default_rng(5).standard_normal((STEPS + 1, len(ALL)))
    optimizer = tp.SGD(options.get("momentum", 0), options.get("nesterov", False), options.get("coupled", 0))
    trace = tp.sgd(
        mlp(bias=0.5), X, Y, steps=STEPS, lr=options.get("rates", LR), X_test=XT, batch=BATCHES, optimizer=optimizer,
        weight_decay=options.get("decay", 0),
    )  # fmt: skip
    limit = tp.limit(trace, f0=first)
    assert limit["f"].method != "population"
    assert np.abs(outputs(limit) - by_hand(first, BATCHES, **options, bias=0.5)).max() < 1e-12


def test_first_outputs_are_drawn_with_those_of_the_later_steps():
    """Their covariance is the NNGP of networks whose parameters are shrunk by different factors."""
    trace = tp.sgd(mlp(bias=0.5), X, Y, steps=STEPS, lr=LR, X_test=XT, weight_decay=0.3)
    unrolled = Unrolled(trace.net, trace._train, trace._test, trace.recipe, own=False)
    unrolled.program()
    firsts = list(zip(unrolled.firsts, unrolled.left, strict=True))
    found = covariance(trace.net, [trace._train, trace._test], firsts, None, 0)
    found = found.reshape(STEPS + 1, len(ALL), STEPS + 1, len(ALL))
    for t, s in np.ndindex(STEPS + 1, STEPS + 1):
        k, j = (dict.fromkeys(PARAMETERS, (1 - LR * 0.3) ** a) for a in (t, s))
        assert np.abs(found[t, :, s] - kernels(k, j, 0.5)[0]).max() < 1e-14
    again = trace.given("draw")["f0"]
    assert again.shape == (STEPS + 1, len(ALL)) and np.array_equal(again, trace.given("draw")["f0"])


# ---- finite networks ----


OPTIMIZERS = {"SGD": tp.SGD(0.5, True, 0.3), "Adam": tp.Adam(0.9, 0.95, 0.5), "Muon": tp.Muon(0.5, others=tp.SGD())}


@pytest.mark.parametrize(
    ("name", "optimizer"),
    few(product(NETWORKS, OPTIMIZERS), [("two outputs", "SGD"), ("one hidden layer", "Adam"), ("layer norm", "Muon")]),
)
def test_runs_are_those_of_parameters_that_are_replaced(name, optimizer):
    """The program of increments against the one of values, which has no limit."""
    net, shape = NETWORKS[name]()
    rng = np.random.default_rng(1)
    x = rng.standard_normal(shape)
    y = rng.standard_normal((len(x), 2) if name == "two outputs" else len(x))
    trace = tp.sgd(net, x, y, steps=3, lr=0.3, batch=2, optimizer=OPTIMIZERS[optimizer], weight_decay=0.2, X_test=x[:1])
    recipe = replace(trace.recipe, powers=replace(trace.recipe.powers, scale=Fraction(0)))
    values = Unrolled(net, trace._train, trace._test, recipe, own=True).program()
    found, wanted = tp.run(trace, n=8, seeds=2), tp.run(values, n=8, seeds=2)
    for key in ("f", "f_test", "loss"):
        assert np.abs(found[key] - wanted[key]).max() < 1e-12 * max(1, np.abs(wanted[key]).max())


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"weight_decay": 0.3}, {"optimizer": tp.SGD(0.5, weight_decay=0.3)}], ids=str)
def test_finite_networks_tend_to_the_limit(options):
    c = tp.compare(tp.sgd(mlp(bias=0.5), X, Y, steps=STEPS, lr=LR, **options), widths=[64, 256, 1024], seeds=32)
    assert c.agrees, c
    assert all(-0.75 < float(slope) < -0.25 for slope in c.slope.values() if slope is not None)
    # the kernel of the first step is not that of all
    plain = tp.limit(tp.sgd(mlp(bias=0.5), X, Y, steps=STEPS, lr=LR))
    assert np.abs(plain["f"].value - c.outputs["f"].limit.value).max() > 0.01


def test_initial_outputs_are_those_of_every_step():
    trace = tp.sgd(mlp(), X, Y, steps=STEPS, lr=LR, weight_decay=0.1)
    with refused(r"have shape \(3, 2\)"):
        tp.limit(trace, f0=Y)
