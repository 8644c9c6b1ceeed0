"""Rewriting programs, and gradient independence as a rewrite."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tensorprog as tp
from tensorprog.execute.executor import population
from tensorprog.language import algebra
from tensorprog.transforms.decouple import copy_of, decouple
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
