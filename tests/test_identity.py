"""Equal networks built twice are equal, hash and print alike, across pickles too; what differs in anything is not."""

import copy
import pickle

import numpy as np
import pytest
import sympy

import tensorprog as tp

n = tp.Width("n")
S = sympy.Symbol("s", real=True)


def build(**changes):
    p = {"std": 1.5, "name": "W", "value": 0.0, "axes": "t", "out": "v", "function": S**2, "weight": -2} | changes
    x = tp.Input("x", axes=(p["axes"],))
    constant = tp.Input("c", axes=(p["axes"],), value=np.full((1, 2), p["value"]))
    h = tp.concat([tp.dense("U", x, n), tp.dense("C", constant, n)], p["axes"])
    h = tp.Function("own", p["function"])(h) + tp.dense(p["name"], h, n, W_std=p["std"])
    y = tp.Vector("g", n, mean=1, lr=1) * tp.layer_norm(h)
    return tp.Network(
        [p["weight"] * tp.readout(p["out"], tp.mean(y, p["axes"])), tp.moment(tp.mean(y, p["axes"]) ** 2)]
    )


def deep(depth):
    h = tp.dense("U", tp.Input("x"), n)
    for i in range(depth):
        h = h + tp.relu(tp.dense(f"W{i}", h, n))
    return tp.Network(tp.readout("v", h))


def of_function(x):
    return tp.readout("v", tp.relu(tp.dense("U", x, n)))


def without_inputs():
    return tp.Network(tp.readout("v", tp.relu(tp.Matrix("W", n, n) @ tp.Vector("u", n)), b_std=1))


NETWORKS = [build, lambda: deep(400), lambda: tp.Network(of_function), without_inputs]


@pytest.mark.parametrize("make", NETWORKS)
def test_networks_built_twice_are_equal(make):
    a, b = make(), make()
    assert a == b and hash(a) == hash(b) and repr(a) == repr(b) and len({a, b}) == 1
    assert pickle.loads(pickle.dumps(a)) == a == copy.deepcopy(a) == copy.copy(a)
    f, g = tp.kernel_fn(a, tol=1e-3), tp.kernel_fn(b, tol=1e-3)
    assert f == g and hash(f) == hash(g) and repr(f) == repr(g) and pickle.loads(pickle.dumps(f)) == f


CHANGES = [
    {"std": 1.25}, {"name": "Z"}, {"value": 1.0}, {"axes": "s"}, {"out": "w"}, {"function": S**3}, {"weight": 2},
    {"std": tp.Scalar("s")}, {"weight": -2.0},
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_what_differs_is_not_equal(change):
    assert build(**change) != build()


def test_settings_count():
    net = deep(1)
    functions = [tp.kernel_fn(net), tp.kernel_fn(net, "tp"), tp.kernel_fn(net, gia=True), tp.kernel_fn(net, tol=1e-3),
                 tp.kernel_fn(net, "standard", 64), tp.kernel_fn(net, method="exact"), tp.kernel_fn(deep(2))]  # fmt: skip
    assert len(set(functions)) == len(functions) and net != "net" and functions[0] != net
    assert tp.Network(of_function) != tp.Network(lambda x: of_function(x))


def test_what_is_printed():
    assert repr(deep(1)) == "<Network: x (example, features) -> readout v>"
    assert repr(tp.Network(of_function)) == "<Network: x (example, features) -> of_function>"
    assert repr(without_inputs()) == "<Network: no inputs -> readout v>"
    assert (
        repr(tp.kernel_fn(deep(1), "standard", 64, tol=0.1)) == f"kernel_fn({deep(1)!r}, standard, width 64, tol=0.1)"
    )


def test_results_keep_their_errors():
    found = tp.kernel_fn(deep(1))([[1.0, 2.0]])
    for again in (pickle.loads(pickle.dumps(found)), copy.deepcopy(found), found._replace(ntk=found.ntk)):
        assert repr(again) == repr(found) and again.error == found.error
