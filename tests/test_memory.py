"""Tangent kernels of many positions at finite width: contracted in an order that makes no array of pairs of positions."""

import tracemalloc
from fractions import Fraction

import numpy as np
import pytest

import tensorprog as tp
from tensorprog.arrays import plan as schedule
from tensorprog.arrays.contraction import Contraction
from tensorprog.arrays.elementwise import array_shape
from tensorprog.execute import executor
from tensorprog.execute.compiled import Compiled
from tensorprog.execute.dense import Dense
from tensorprog.language import data

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


@pytest.mark.parametrize("readout", [flat, averaged, attended, both_ways])
def test_memory_is_known_before(readout):
    """The shapes that the estimate is made of are those of the arrays."""
    program = convolutional(readout, 2).program(RNG.standard_normal((2, 3, 3, 2)), of=("f", "nngp", "ntk"))
    code, space = Compiled(program), Dense(8)
    seen = []

    def watch(node, compute, arrays, out):
        if node.op != "scalar" and not (node.op == "matmul" and not isinstance(out, np.ndarray)):
            given = [np.shape(a) for a in arrays if isinstance(a, (np.ndarray, np.generic))]
            known = (
                compute.needs(tuple(given))[0]
                if isinstance(compute, Contraction)
                else array_shape(node, given, space.size)
            )
            seen.append((node, np.shape(out), known))
        return out

    code.run(space, {}, watch)
    assert len(seen) > 20
    assert not [s for s in seen if s[1] != s[2]]


def test_what_does_not_fit_is_refused_with_the_numbers(monkeypatch):
    monkeypatch.setattr(executor, "_memory", lambda: 20e6)
    images = RNG.standard_normal((4, 20, 20, 1))
    with pytest.raises(tp.TensorProgramError, match="GB"):
        tp.run(convolutional(averaged, 2), images, n=512)
    assert tp.run(convolutional(averaged, 2), images, n=8)["ntk"].shape == (1, 4, 4)
