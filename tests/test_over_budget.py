"""Sampled integrals that are over budget: fewer points, a larger error, but an answer."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import tensorprog as tp
from tensorprog.limits import routes

n = tp.Width("n")


def hard(count: int = 6):
    """An integral in as many variables: E of a function of a sum and a product."""
    z = [tp.Vector(f"z{k}", n) for k in range(count)]
    inner = sum(tp.tanh(x * y) for x, y in itertools.pairwise(z))
    return tp.Program(q=tp.moment(tp.sigmoid(inner + tp.cos(z[0] * z[-1]))))


def test_the_exact_route_takes_as_many_points_as_the_budget_has_room_for(monkeypatch):
    monkeypatch.setattr(routes, "OPERATIONS", 2**20)
    whole = tp.limit(hard(), method="exact")["q"]
    monkeypatch.setattr(routes, "OPERATIONS", 2**17)
    few = tp.limit(hard(), method="exact")["q"]
    assert whole.error < few.error < 2e-2
    assert abs(whole.value - few.value) < 6 * few.error  # 16 replicates, t: probability 3e-5
    monkeypatch.setattr(routes, "OPERATIONS", 2**10)
    with pytest.raises(tp.TensorProgramError, match="budget= allows more"):
        tp.limit(hard(), method="exact")


@pytest.mark.slow
def test_the_tangent_kernel_of_batch_norm_and_tanh_is_finite():
    """The population does not see the tails of 1/s^2, whose mean is finite: its error is infinite, theirs is not."""
    X = np.random.default_rng(1).normal(size=(4, 64))
    net = tp.Network(tp.readout("v", tp.tanh(tp.batch_norm(tp.dense("U", tp.Input("x"), n)))))
    kernel = tp.kernel_fn(net)(X)
    assert np.max(kernel.error["ntk"]) < 0.02
    # 4 million samples of directions, with the radius integrated: E r^-2 = 1 for rank 3
    assert abs(kernel.ntk[0, 0] - 1.4115) < 0.02 and abs(kernel.ntk[0, 1] + 0.3530) < 0.01
