"""Tangent kernels of many positions at finite width: contracted in an order that makes no array of pairs of positions."""

import tracemalloc
from fractions import Fraction

import numpy as np
import pytest

import tensorprog as tp
from tensorprog.language import data, schedule

N, M = tp.Width("n"), tp.Width("m", ratio=Fraction(1, 2))
RNG = np.random.default_rng(0)
X = tp.Input("x", axes=("h", "w"))


def convolutional(readout, layers=1):
    h = tp.relu(tp.conv("U", X, N, 3, b_std=0.1))
    for i in range(layers - 1):
        h = tp.relu(tp.conv(f"W{i}", h, N, 3, padding="CIRCULAR", b_std=0.2))
    return tp.Network(readout(h))


def flat(h):
    return tp.readout("v", h, over=("h", "w"))


def averaged(h):
    return tp.readout("v", tp.global_avg_pool(h))


def attended(h):
    h = tp.self_attention("A", tp.flatten(h, ("h", "w"), "t"), N, tied=True)
    return tp.readout("v", tp.take(tp.tanh(h), "t", 1))


def both_ways(h):
    W = tp.Matrix("T", M, N)
    return tp.readout("v", tp.global_avg_pool(h + W.T @ tp.tanh(W @ h)))


@pytest.mark.parametrize("readout", [flat, averaged, attended, both_ways])
def test_the_order_of_a_contraction_does_not_matter(readout, monkeypatch):
    images = RNG.standard_normal((2, 3, 3, 2))
    found = []
    for limits in ((1, 1), (2**60, 2**60)):
        monkeypatch.setattr(schedule, "LARGE", limits[0])
        monkeypatch.setattr(data, "MANY", limits[1])
        found.append(tp.run(convolutional(readout, 2), images, n=8, seeds=2, of="ntk")["ntk"])
        monkeypatch.undo()
    np.testing.assert_allclose(found[0], found[1], rtol=1e-10)


@pytest.mark.parametrize(("readout", "layers"), [(flat, 1), (averaged, 1), (averaged, 2)])
def test_memory_grows_with_the_positions_not_with_their_pairs(readout, layers):
    """All pairs of positions of 8 images of 20 x 20 would be 82 MB an array; a vector is 1.6 MB."""
    images = RNG.standard_normal((8, 20, 20, 1))
    program = convolutional(readout, layers).program(images, of="ntk")
    tracemalloc.start()
    tp.run(program, n=64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6
