"""Readouts of flattened images: gradients at different positions are independent, and nothing is computed off the diagonal.

Counts of the largest array of a pair of images, over names of the weights, strides, shapes and nonlinearities.
"""

import itertools
import sys
from math import prod

import numpy as np
import pytest

import tensorprog as tp
from tensorprog.language import node
from tensorprog.networks.pairs import compile_pair
from tensorprog.transforms.tangent import parametrization

N = tp.Width("n")


def flattened(names, strides, phi=tp.relu, padding="SAME"):
    h = tp.Input("x", axes=("h", "w"))
    for name, stride in zip(names, strides, strict=True):
        h = phi(tp.conv(name, h, N, strides=stride, padding=padding, W_std=1.4))
    return tp.Network(tp.readout("v", h, over=("h", "w")))


def depth(net, shape):
    """Entries of the largest array of a pair."""
    pair = compile_pair(net, {"x": shape}, {"x": shape}, ("nngp", "ntk"), parametrization("ntk", None)).pair
    assert pair is not None
    return pair.depth


def positions(shape, strides):
    """Of the layer that has most of them."""
    sizes, found = list(shape[:2]), 0
    for s in strides:
        sizes = [-(-k // s) for k in sizes]
        found = max(found, prod(sizes))
    return found


@pytest.mark.parametrize("strides", [(2, 1), (1, 2)])
def test_no_cost_depends_on_names(strides):
    for names in [("A", "w"), ("D", "w"), ("D", "z")]:
        assert depth(flattened(names, strides), (4, 4, 2)) == positions((4, 4), strides), names


@pytest.mark.slow
@pytest.mark.parametrize("strides", [(1, 1), (1, 2)])
def test_no_cost_depends_on_more_names(strides):
    for names in itertools.product("ABCD", "wxyz"):
        assert depth(flattened(names, strides), (6, 6, 2)) == positions((6, 6), strides), names


@pytest.mark.parametrize(
    ("strides", "shape", "phi"),
    [
        ((2, 2), (6, 6, 1), tp.relu),
        ((1, 2), (5, 4, 1), tp.erf),
        ((3, 1), (7, 5, 1), tp.relu),
        ((2, 3), (7, 6, 1), tp.erf),
    ],
)
def test_strides_and_shapes(strides, shape, phi):
    net = flattened(("C1", "C2"), strides, phi)
    assert depth(net, shape) == positions(shape, strides)
    data = np.random.default_rng(0).standard_normal((2, *shape))
    found, right = tp.kernel_fn(net)(data), tp.run(net, data, n=2048, seeds=4, of="nngp")
    deviation = (
        np.asarray(right["nngp"]).mean(0) - found.nngp
    )  # 8,192 channels: errors below 1/60, 6 deviations in 1/10
    assert np.abs(deviation).max() < 0.1 * np.abs(found.nngp).max()


@pytest.mark.slow
@pytest.mark.parametrize("strides", [(1, 2, 1), (1, 1, 2), (2, 1, 2)])
def test_three_layers(strides):
    net = flattened(("C1", "C2", "C3"), strides)
    assert depth(net, (6, 6, 2)) == positions((6, 6), strides)
    data = np.random.default_rng(0).standard_normal((1, 6, 6, 2))
    found, right = tp.kernel_fn(net)(data), tp.limit(net, data, method="population")
    for k in ("nngp", "ntk"):
        assert np.abs(getattr(found, k) - right[k].value).max() < 6 * np.max(right[k].error)


def test_kernels_of_residual_networks_are_linear_in_depth():
    """All walks over nodes together, of compiling and of evaluating, as counts."""
    walked = []
    for blocks in (10, 20, 40):
        h = tp.dense("U", tp.Input("x"), N)
        for i in range(blocks):
            h = tp.residual(lambda y, i=i: tp.dense(f"V{i}", tp.relu(tp.dense(f"W{i}", y, N)), N), h)
        net = tp.Network(tp.readout("v", h))
        with pytest.MonkeyPatch.context() as patch:
            count = counted_walks(patch)
            tp.kernel_fn(net)([[1.0, 2.0], [0.5, 1.0]])
        walked.append(count[0])
    assert walked[2] - walked[1] < 2.2 * (walked[1] - walked[0]), walked


def counted_walks(patch):
    count = [0]
    walk = node.topological

    def counting(*args, **keywords):
        found = walk(*args, **keywords)
        count[0] += len(found)
        return found

    for module in list(sys.modules.values()):
        if getattr(module, "topological", None) is walk:
            patch.setattr(module, "topological", counting)
    return count
