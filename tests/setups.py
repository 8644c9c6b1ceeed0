"""Twelve set-ups of training that are right in muP, and twelve with one mistake each."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

import tensorprog as tp

N = tp.Width("n")
RNG = np.random.default_rng(5)
X, Y = RNG.standard_normal((4, 5)), RNG.standard_normal(4)
SEQUENCES = RNG.standard_normal((4, 3, 5))
IMAGES = RNG.standard_normal((4, 3, 2))
WORDS = 5
ONE_HOT, LOGITS = np.eye(WORDS)[:4], RNG.standard_normal((4, WORDS))
BASE = 64


def mlp(hidden=2, phi=tp.relu, **options):
    h = tp.Input("x")
    for i in range(hidden):
        h = phi(tp.dense("U" if i == 0 else f"W{i}", h, N, W_std=2**0.5, **options))
    return tp.Network(tp.readout("v", h))


def residual():
    h = tp.dense("U", tp.Input("x"), N)
    for i in range(2):
        h = h + tp.dense(f"W{i}", tp.tanh(h), N)
    return tp.Network(tp.readout("v", h))


def attention(factor=1):
    e = tp.dense("U", tp.Input("x", axes=("t",)), N)
    q, k, v = [tp.dense(name, e, N, W_std=2) for name in ("query", "key", "value")]
    h = tp.layer_norm(e + tp.dense("out", tp.attention(q * factor, k, v), N))
    return tp.Network(tp.readout("v", tp.mean(tp.relu(h), "t")))


def normed(gain="gain"):
    h = tp.layer_norm(tp.dense("W", tp.relu(tp.dense("U", tp.Input("x"), N)), N), gain=gain)
    return tp.Network(tp.readout("v", tp.tanh(h)))


def rnn():
    h = tp.rnn("cell", tp.Input("x", axes=("t",)), N)
    return tp.Network(tp.readout("v", tp.take(h, "t", -1)))


def conv():
    h = tp.relu(tp.conv("C1", tp.Input("x", axes=("h",)), N, 3, axes="h"))
    h = tp.relu(tp.conv("C2", h, N, 3, axes="h"))
    return tp.Network(tp.readout("v", tp.mean(h, "h")))


def tied(factor=1):
    words = tp.dense("E", tp.Input("words", value=np.eye(WORDS), axes=("w",)), N, W_std=WORDS**0.5)
    h = tp.dense("E", tp.Input("x"), N, W_std=WORDS**0.5)
    h = h + tp.dense("W", tp.tanh(h), N)
    return tp.Network(tp.moment(words * h) * factor, per="w")


ROOT = Fraction(1, 8) / tp.inverse_sqrt(N)
"""(n / 64)^(1/2)"""
E = tp.Exponents

RIGHT = {
    "relu, 1 hidden layer": (lambda: mlp(1), X, Y, {}),
    "relu, 2 hidden layers, biases": (lambda: mlp(2, b_std=0.5), X, Y, {}),
    "tanh, 3 hidden layers": (lambda: mlp(3, tp.tanh), X, Y, {}),
    "residual": (residual, X, Y, {}),
    "attention, 1/d": (attention, SEQUENCES, Y, {"optimizer": tp.Adam(), "lr": 0.05}),
    "layer norm": (normed, X, Y, {}),
    "RNN": (rnn, SEQUENCES, Y, {}),
    "tied embedding": (tied, ONE_HOT, LOGITS, {"optimizer": tp.Adam(), "lr": 0.05}),
    "convolution": (conv, IMAGES, Y, {"lr": 0.5}),
    "Adam": (mlp, X, Y, {"optimizer": tp.Adam()}),
    "SignSGD": (mlp, X, Y, {"optimizer": tp.SignSGD(), "lr": 0.05}),
    "Muon": (mlp, X, Y, {"optimizer": tp.Muon(others=tp.Adam()), "lr": 0.05}),
    "mean field, momentum": (
        lambda: mlp(1, tp.tanh),
        X,
        Y,
        {"parametrization": "mean_field", "optimizer": tp.SGD(momentum=0.9)},
    ),
}
"""Name to network, data, targets, and options of `tp.coord_check`."""

WRONG = {
    "readout not scaled": (mlp, X, Y, {"parametrization": E(a={"v": 0})}, "v", "a={'v': 1}"),
    "attention, 1/sqrt(d)": (
        lambda: attention(ROOT), SEQUENCES, Y, {"optimizer": tp.Adam(), "lr": 0.05}, "logits", "divide by d",
    ),
    "embedding rate falls with width": (
        mlp, X, Y, {"parametrization": E(c={"U": 1}), "optimizer": tp.Adam()}, "U", "c={'U': 0}",
    ),
    "gradient descent's rates with Adam": (
        mlp, X, Y, {"parametrization": E(rule="sgd"), "optimizer": tp.Adam(), "lr": 0.02}, "W1", "the optimiser needs Adam's",
    ),
    "Adam's rates with gradient descent": (
        mlp, X, Y, {"parametrization": E(rule="adam")}, "W1", "the optimiser needs gradient descent's",
    ),
    "hidden rate not scaled": (
        mlp, X, Y, {"parametrization": E(c={"W1": 0}), "optimizer": tp.Adam(), "lr": 0.02}, "W1", "c={'W1': 1}",
    ),
    "tied readout without multiplier": (
        lambda: tied(ROOT), ONE_HOT, LOGITS, {"optimizer": tp.Adam(), "lr": 0.02}, "f", "multiply by 1/n",
    ),
    "bias rate": (
        lambda: mlp(2, b_std=0.5), X, Y, {"parametrization": E(c={"U_b": 0, "W1_b": 0})}, "U_b", "c={'U_b': -1}",
    ),
    "input layer at the readout's scale": (mlp, X, Y, {"parametrization": E(a={"U": 1})}, "U", "a={'U': 0}"),
    "parametrization not applied": (
        mlp, X, Y, {"parametrization": "pytorch", "optimizer": tp.Adam(), "lr": 0.02}, "W1", "not applied",
    ),
    "weight decay falls with the rate": (
        mlp, X, Y, {"parametrization": E(decay={"hidden": 1}), "optimizer": tp.Adam(), "weight_decay": 0.5}, "W1", "decay",
    ),
    "gain at a hidden matrix's scale": (
        normed, X, Y, {"parametrization": E(c={"gain": 1}), "optimizer": tp.Adam()}, "gain", "c={'gain': 0}",
    ),
    "standard, labelled muP": (
        mlp, X, Y, {"parametrization": "standard", "target": "mup"}, "W1", "standard parametrization",
    ),
}  # fmt: skip
"""The same, the layer that the report names, and a part of what it says."""
