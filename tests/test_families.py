"""States that are made alike as one multi-vector: the same kernels as one by one, and what may not be taken for alike."""

import numpy as np
import pytest
from marks import few

import tensorprog as tp
from tensorprog.language import algebra
from tensorprog.limits.expect import families, products, rows
from tensorprog.transforms import tangent

N = tp.Width("n")


def recurrent(phi=tp.erf, name="R", x=None, **options):
    return tp.rnn(name, tp.Input("x", axes=("t",)) if x is None else x, N, phi=phi, **options)


NETWORKS = {
    "mean": lambda: tp.readout("v", tp.mean(recurrent(b_std=1), "t")),
    "two layers": lambda: tp.readout("v", tp.mean(recurrent(tp.relu, "S", recurrent(b_std=1)), "t")),
    "reverse": lambda: tp.readout("v", tp.mean(recurrent(tp.relu, reverse=True), "t")),
    "no bias": lambda: tp.readout("v", tp.mean(recurrent(tp.sin), "t")),
    "last": lambda: tp.readout("v", tp.take(recurrent(), "t", -1)),
    "dense": lambda: tp.readout("v", tp.mean(tp.relu(tp.dense("D", recurrent(), N, b_std=1)), "t")),
    "inside": lambda: tp.readout("v", tp.relu(tp.dense("D", tp.mean(recurrent(), "t"), N))),
    "outputs": lambda: tp.readout("v", recurrent(b_std=0.3), per="t"),
}


def many(monkeypatch, count):
    for module in (products, families, rows, tangent):
        monkeypatch.setattr(module, "MANY", count)


def data(steps):
    X = np.random.default_rng(0).standard_normal((3, steps, 2))
    X[2, :-1] = X[1, :-1]  # correlations of 1, but for the last time
    return X


def kernels(network, X):
    found = tp.limit(network.program(X))
    assert all(found[k].method == "closed form" for k in ("nngp", "ntk"))
    f = tp.kernel_fn(network)(X)
    return [np.asarray(a) for a in (found["nngp"].value, found["ntk"].value, f.nngp, f.ntk)]


@pytest.mark.parametrize("name", few(NETWORKS, ["mean", "no bias"]))
def test_the_kernels_are_those_of_one_by_one(monkeypatch, name):
    network, X = tp.Network(NETWORKS[name]()), data(5)
    many(monkeypatch, 10**9)
    alone = kernels(network, X)
    many(monkeypatch, 3)
    for a, b in zip(alone, kernels(network, X), strict=True):
        assert np.abs(a - b).max() <= 1e-13 * np.abs(a).max()


@pytest.mark.slow
def test_integrals_are_those_of_one_by_one(monkeypatch):
    network, X = tp.Network(tp.readout("v", tp.mean(recurrent(tp.tanh), "t"))), data(3)[1:]
    many(monkeypatch, 10**9)
    alone = tp.limit(network.program(X))
    many(monkeypatch, 3)
    together = tp.limit(network.program(X))
    for k in ("nngp", "ntk"):
        assert np.all(np.abs(alone[k].value - together[k].value) <= alone[k].error + together[k].error)


def lifted(steps, start):
    """The states of h_t = tanh(W h_(t-1) + u_t) that are one, of Z-expressions."""
    from tensorprog.limits.expect.lower import Lowering

    W, u = tp.Matrix("W", N, N), tp.Vector("u", N, axes={"t": steps})
    states = [start(tp.take(u, "t", 0))]
    for t in range(1, steps):
        states.append(tp.tanh(W @ states[-1] + tp.take(u, "t", t)))
    program = tp.Program({f"m{t}": tp.moment(h * h) for t, h in enumerate(states)})
    z = Lowering(program, {}).z
    members = [z[h.node] for h in states]
    found = families.Families()
    return members, found, found.of(members)


def test_a_first_state_without_a_matrix_is_like_the_others(monkeypatch):
    many(monkeypatch, 4)
    members, found, family = lifted(6, tp.tanh)
    ((one, places),) = found.groups(family)
    assert places == (0, 1, 2, 3, 4, 5)
    assert one.op == "fn"
    assert algebra.take(family, 0, 3) == members[3]


def test_another_function_is_not(monkeypatch):
    many(monkeypatch, 4)
    _, found, family = lifted(6, tp.sin)
    ((_, places),) = found.groups(family)
    assert places == (1, 2, 3, 4, 5)


def test_members_of_a_family_are_positions_of_it(monkeypatch):
    many(monkeypatch, 3)
    members, found, family = lifted(6, tp.tanh)
    part = found.of(members[1:4])
    assert part.op == "pick"
    assert part.args == (family,)
    assert part.attr == (0, (1, 2, 3))
