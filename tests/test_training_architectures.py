"""Feature learning of every architecture: the population limit against finite networks.

Right limits are rejected with probability 1e-3 each; networks and seeds are fixed. Limits of a learning rate that is half as
large again are rejected, so that agreement means something.
"""

from __future__ import annotations

import numpy as np
import pytest

import tensorprog as tp
from tensorprog.analysis.anomalies import anomalies
from tensorprog.analysis.compare import Comparison

pytestmark = pytest.mark.slow
n = tp.Width("n")
WIDTHS, SEEDS = (64, 256, 1024), 12


def mlp():
    h = tp.tanh(tp.dense("U", tp.Input("x"), n, W_std=1.4, b_std=0.25))
    return tp.readout("v", tp.tanh(tp.dense("W", h, n, W_std=1.4))), (4, 5)


def residual():
    h = tp.dense("U", tp.Input("x"), n)
    for block in range(2):
        h = h + tp.dense(f"W{block}", tp.tanh(h), n)
    return tp.readout("v", h), (4, 5)


def normalized():
    h = tp.layer_norm(tp.dense("U", tp.Input("x"), n))
    return tp.readout("v", tp.relu(tp.dense("W", h, n))), (4, 5)


def recurrent():
    h = tp.rnn("R", tp.Input("x", axes=("t",)), n, U_std=1.4, b_std=0.3)
    return tp.readout("v", tp.take(h, "t", -1)), (3, 3, 4)


def transformer():
    h = tp.transformer_block("B", tp.dense("U", tp.Input("x", axes=("t",)), n), n)
    return tp.readout("v", tp.mean(h, "t")), (3, 3, 4)


def convolution():
    h = tp.relu(tp.conv("C", tp.Input("x", axes=("p",)), n, 3, axes="p", W_std=1.4))
    h = tp.relu(tp.conv("D", h, n, 3, axes="p", W_std=1.4))
    return tp.readout("v", tp.mean(h, "p")), (3, 4, 2)


@pytest.mark.parametrize("network", [mlp, residual, normalized, recurrent, transformer, convolution])
def test_features_are_learned_as_in_finite_networks(network):
    output, shape = network()
    X = np.random.default_rng(0).standard_normal(shape)
    y = np.sin(2.0 * np.arange(len(X)))
    right, faster = [tp.sgd(tp.Network(output), X, y, steps=2, lr=lr, parametrization="mup") for lr in (0.5, 0.75)]
    limit, wrong = tp.limit(right), tp.limit(faster)
    assert limit["f"].method == "population"
    assert np.max(limit["loss"].error) < 1e-2 * np.ptp(limit["loss"].value)
    known = anomalies(right.program, n=min(WIDTHS))
    runs = {k: tp.run(right, n=k, seeds=SEEDS) for k in WIDTHS}
    samples = {k: {name: found[name] for name in limit} for k, found in runs.items()}
    assert Comparison.of(samples, limit, known=known).agrees
    assert not Comparison.of(samples, wrong, known=known).agrees
