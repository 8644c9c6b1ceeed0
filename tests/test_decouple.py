"""Rewriting programs, and gradient independence as a rewrite."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import programs

import tensorprog as tp
from tensorprog.execute.compiled import compiled
from tensorprog.execute.executor import population
from tensorprog.language import algebra
from tensorprog.language.node import topological
from tensorprog.limits.expect.expectation import Expectation
from tensorprog.limits.expect.lower import Lowering
from tensorprog.transforms.decouple import copy_of, decouple, unmarked
from tensorprog.transforms.rewrite import rewrite

n = tp.Width("n")
W = tp.Matrix("W", n, n, var=1)


def counterexample() -> tp.Program:
    x = tp.Vector("x", n, mean=1, var=0)
    h = W @ x
    dx = W.T @ (2 * h)
    return tp.Program(mean_dx=tp.moment(dx), dx2=tp.moment(dx * dx), h2=tp.moment(h * h))


def test_every_transpose_is_one_independent_copys():
    x = tp.Vector("x", n)
    p = tp.Program(a=tp.moment(W.T @ tp.tanh(W.T @ tp.relu(W @ x))))
    uses = [(x.attr[0].name, x.attr[1]) for x in decouple(p).nodes if x.op == "matmul"]
    assert sorted(uses) == [("W", False), ("W~", True), ("W~", True)]
    assert decouple(decouple(p)) == decouple(p) and decouple(p) != p
    assert copy_of(W).var == W.var and copy_of(W).rows == W.rows and copy_of(copy_of(W)) == copy_of(W)


def test_nothing_changes_without_transposes():
    p = tp.Program(a=tp.moment(tp.tanh(W @ tp.Vector("x", n))))
    assert decouple(p) == p


def test_labels_and_lines_are_kept():
    p = tp.Program(a=tp.moment((W.T @ tp.tanh(W @ tp.Vector("x", n))).label("gradient") ** 2))
    (dx,) = [x for x in decouple(p).nodes if x.label == "gradient"]
    assert dx.source is not None and dx.source.file == __file__


def test_outputs_keep_their_axes():
    z = tp.Vector("z", n, axes={"b": 2, "t": 3})
    p = decouple(tp.Program(k=tp.moment((W.T @ z) * tp.rename(z, b="c", t="s"))))
    assert p.outputs["k"].axes == ("b", "t", "c", "s")


def test_forward_weights_are_those_of_the_coupled_run():
    p = counterexample()
    coupled, free = (tp.run(p, n=64, seeds=3, weights="dense", gia=gia) for gia in (False, True))
    assert np.array_equal(coupled["h2"], free["h2"]) and not np.array_equal(coupled["dx2"], free["dx2"])


@pytest.mark.parametrize("weights", ["dense", "lazy"])
def test_the_mean_gradient_vanishes(weights):
    runs = tp.run(counterexample(), n=200, seeds=40, gia=True, weights=weights)["mean_dx"]
    assert abs(runs.mean()) < 5 * runs.std(ddof=1) / math.sqrt(40)


def test_in_the_population():
    free = population(counterexample(), 256, replicates=2, gia=True)
    np.testing.assert_allclose(free["mean_dx"], 0, atol=1e-12)
    np.testing.assert_allclose(free["dx2"], 4, atol=1e-12)


def test_a_rule_sees_rewritten_operands():
    x = tp.Vector("x", n)
    p = tp.Program(a=tp.moment(tp.relu(W @ tp.relu(x))))

    def smooth(node, args):
        return algebra.fn("tanh", args[0]) if node.op == "fn" else algebra.rebuild(node, args)

    assert rewrite(p, smooth) == tp.Program(a=tp.moment(tp.tanh(W @ tp.tanh(x))))


def test_an_outer_nonlinearity_is_rebuilt():
    x = tp.Vector("x", n)
    p = tp.Program(a=tp.moment(tp.outer(lambda x, y: tp.tanh(x * y), W.T @ x, W @ x)))
    assert [m.name for m in decouple(p).matrices] == ["W", "W~"]
    assert np.isfinite(tp.run(p, n=20, gia=True)["a"]).all()


def test_a_program_of_two_thousand_instructions():
    x = tp.Vector("x", n)
    y = x
    for _ in range(700):
        y = tp.tanh(W.T @ y) + x
    p = decouple(tp.Program(a=tp.moment(y)))
    assert [m.name for m in p.matrices] == ["W~"] and len(p.nodes) > 2000


# ---- marks ----

x, z = tp.Vector("x", n), tp.Vector("z", n)


def both(mark=lambda y: y, other=lambda y: y):
    """One product that is of both passes, and one of W the other way round."""
    y = tp.tanh(W @ x)
    a, b = mark(W.T @ y), W.T @ y
    return tp.Program(q=tp.moment(tp.relu(a) * tp.tanh(b)), r=tp.moment(other(W @ (y * a)) * z * b))


def test_marks_are_content_that_numbers_do_not_see():
    plain, marked = both(), both(tp.forward, tp.backward)
    assert plain != marked and unmarked(marked) == plain and unmarked(plain) is plain
    for weights in ("dense", "lazy"):
        one, two = (tp.run(p, 64, 3, weights=weights) for p in (plain, marked))
        assert all(np.array_equal(one[k], two[k]) for k in plain)
    for method in ("auto", "population"):
        one, two = (tp.limit(p, method=method, samples=2**9, replicates=4) for p in (plain, marked))
        assert {k: (e.value, e.error) for k, e in one.items()} == {k: (e.value, e.error) for k, e in two.items()}


def test_a_product_of_both_passes_is_done_once():
    plain, marked = both(), both(tp.forward, tp.backward)
    assert len(marked.nodes) > len(plain.nodes)
    assert compiled(marked).products() == compiled(plain).products() == {"W": 3}
    assert len(compiled(marked)) == len(compiled(plain))

    def questions(p):
        lowering = Lowering(p, {}, Expectation())
        hats = topological(lowering.z.values())
        return len({y for y in hats if y.op == "hat"}), len(lowering.expectation.solver.memo)

    assert questions(marked) == questions(plain)


def test_what_some_marks_mean():
    """Each is about its own instruction; what has none is what it always is."""
    y = W.T @ tp.tanh(W @ x)
    p = tp.Program(q=tp.moment(tp.forward(W.T @ y) * tp.backward(W @ y) * x))
    found = {
        (m.attr[0].name, m.attr[1], (m.attr.mark,) if m.attr.mark else ())
        for m in decouple(p).nodes
        if m.op == "matmul"
    }
    assert found == {
        ("W", False, ()),  # W @ x
        ("W~", True, ()),  # W.T @ tanh
        ("W", True, ("forward",)),
        ("W_T~", False, ("backward",)),
    }
    assert decouple(decouple(p)) == decouple(p)
    assert tp.forward(W @ x).node == (W @ x).node and tp.backward(W.T @ x).node == (W.T @ x).node
    assert tp.backward(3 * (W @ x)).node == (3 * tp.backward(W @ x)).node
    assert tp.forward(tp.backward(W @ x)).node == (W @ x).node
    for wrong in (x, tp.tanh(W @ x), tp.moment(x), 2):
        with pytest.raises(tp.TensorProgramError, match="marked as a product"):
            tp.backward(wrong)


def test_marks_in_text_latex_and_graph():
    p = both(tp.forward, tp.backward)
    assert str(p).count(", forward)") == 1 and str(p).count(", backward)") == 1
    assert tp.parse(str(p)) == p and pickle.loads(pickle.dumps(p)) == p
    assert tp.latex(p).count("MatMul, forward") == 1 and tp.latex(p).count("MatMul, backward") == 1
    back = sorted((d["matrix"], d["backward"]) for _, d in p.graph().nodes(data=True) if d["op"] == "matmul")
    assert back == [("W", False), ("W", True), ("W.T", False), ("W.T", True)]
    usual = "width n\nmatrix W : n x n, var 1\nvector x : n, mean 0, var 1\noutput q = Moment(MatMul(W.T, x{}))"
    assert tp.parse(usual.format(", backward")) == tp.parse(usual.format("")) != tp.parse(usual.format(", forward"))
    for wrong in (", sideways", ", forward, backward", ", 2"):
        with pytest.raises(tp.TensorProgramError):
            tp.parse(usual.format(wrong))


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(programs(max_instructions=8, updates=True), st.randoms(use_true_random=False))
def test_random_marks(p, random):
    def rule(y, args):
        if y.op == "matmul":
            return algebra.matmul(*y.attr[:2], args[0], random.choice([None, True, False]))
        if y.op == "apply":
            return algebra.apply(args[0], y.attr[0], args[1], random.choice([None, True, False]))
        return algebra.rebuild(y, args)

    marked = rewrite(p, rule)
    assert tp.parse(str(marked), arrays=marked.arrays) == marked and pickle.loads(pickle.dumps(marked)) == marked
    assert unmarked(marked) == rewrite(p, algebra.rebuild)
    assert decouple(decouple(marked)) == decouple(marked)
