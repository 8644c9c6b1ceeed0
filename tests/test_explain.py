"""`limit(..).explain()`: which route and which rules gave a number, and why others declined."""

import pickle

import pytest

import tensorprog as tp
from tensorprog.limits.expect.products import RULES

n = tp.Width("n")
u = tp.Vector("u", n)
W = tp.Matrix("W", n, n)


def why(**outputs):
    return tp.limit(tp.Program(outputs), samples=2**8).explain()


def test_rules_are_named():
    h = W @ tp.tanh(u)
    found = why(
        wick=tp.moment(u**4),
        closed=tp.moment(tp.relu(h) * tp.relu(h + u)),
        laplace=tp.moment(tp.relu(u) ** 2 / (u * u + (W @ u) ** 2)),
        apart=tp.moment(tp.tanh(u) ** 2 * tp.relu(W @ u)),
    )
    assert "Wick's theorem" in found["wick"].rules and not found["wick"].integrals
    assert found["closed"].closed_forms and found["closed"].rules["few variables"] >= 1
    assert "tilted laws (Laplace)" in found["laplace"].rules and found["laplace"].integrals == {"over tilted laws": 4}
    assert found["apart"].rules["independent families"] == 1 and found["apart"].integrals == {"in 1 variable": 1}
    known = {name for name, _ in RULES}
    for r in found.values():
        assert set(r.rules) <= known and sum(r.rules.values()) <= r.questions
        assert [a.outcome for a in r.attempts] == ["kept"] and not r.declined


def test_why_a_route_declined():
    found = why(q=tp.moment(tp.outer(lambda a, b: tp.exp(-abs(a - b)), u, u)), r=tp.moment(u * u))
    q = found["q"]
    assert "does not separate" in q.declined and q.size == 0
    assert (q.attempts[0].route, q.attempts[0].outcome) == ("exact", "declined")
    assert any(a.route == "population" and a.outcome == "kept" and a.cost > 0 for a in q.attempts)
    text = str(found)
    assert "route exact: declined" in text and "no scalar program" in text and "r = 1 (exact)" in text


def test_each_output_is_explained_alone():
    both = why(a=tp.moment(tp.relu(u) ** 2), b=tp.moment(tp.tanh(u + W @ u) ** 2))
    alone = why(b=tp.moment(tp.tanh(u + W @ u) ** 2))
    assert both["b"].rules == alone["b"].rules and both["b"].integrals == alone["b"].integrals


def test_networks_matrices_and_hyperparameters():
    net = tp.Network(tp.readout("v", tp.relu(tp.dense("U", tp.Input("x"), n, W_std=tp.Scalar("s")))))
    assert tp.limit(net, [[1.0, 2.0]], values={"s": 2}).explain()["ntk"].size > 0
    updated = W - tp.matrix(lambda d, h: d * h, tp.tanh(u), u) / 2
    assert why(q=tp.moment((updated @ u) ** 2))["q"].rules


def test_without_a_program_there_is_nothing_to_explain():
    found = tp.limit(tp.Program(q=tp.moment(u * u)))
    again = pickle.loads(pickle.dumps(found))
    assert again["q"].value == found["q"].value
    with pytest.raises(tp.TensorProgramError, match="without a program"):
        again.explain()
