"""Readouts of flattened images: gradients at different positions are independent, and nothing is computed off the diagonal.

Counts of the largest array of a pair of images, over names of the weights, strides, shapes and nonlinearities.
"""

import itertools
import sys
from math import prod

import numpy as np
import pytest
from marks import few

import tensorprog as tp
from tensorprog.kernels.compile import compile_pair
from tensorprog.language import node
from tensorprog.limits.simplify import passes
from tensorprog.transforms.parametrization import parametrization

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


@pytest.mark.parametrize("strides", few([((2, 1),), ((1, 2),)], [((2, 1),)]))
def test_no_cost_depends_on_names(strides):
    for names in [("A", "w"), ("D", "w"), ("D", "z")]:
        assert depth(flattened(names, strides), (4, 4, 2)) == positions((4, 4), strides), names


@pytest.mark.slow
@pytest.mark.parametrize("strides", [(1, 1), (1, 2)])
def test_no_cost_depends_on_more_names(strides):
    for names in itertools.product("ABC", "wz"):
        assert depth(flattened(names, strides), (6, 6, 2)) == positions((6, 6), strides), names


@pytest.mark.parametrize(
    ("strides", "shape", "phi"),
    few(
        [
            ((2, 2), (6, 6, 1), tp.relu),
            ((1, 2), (5, 4, 1), tp.erf),
            ((3, 1), (7, 5, 1), tp.relu),
            ((2, 3), (7, 6, 1), tp.erf),
        ],
        [((1, 2), (5, 4, 1), tp.erf), ((3, 1), (7, 5, 1), tp.relu)],
    ),
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


def largest(shape, strides, padding):
    """Positions of the layer that has most of them."""
    sizes, found = list(shape[:2]), 0
    for s in strides:
        sizes = [-(-(k if padding == "SAME" else k - 2) // s) for k in sizes]
        found = max(found, prod(sizes))
    return found


@pytest.mark.parametrize(
    ("strides", "shape", "padding"),
    [
        ((2, 2, 2), (6, 6, 1), "SAME"),
        ((2, 2), (7, 7, 1), "VALID"),
        pytest.param((3, 3), (6, 5, 1), "SAME", marks=pytest.mark.slow),
        pytest.param((2, 2), (8, 8, 1), "VALID", marks=pytest.mark.slow),
    ],
)
def test_layers_of_a_single_position(strides, shape, padding):
    """The one position of the last layer asks for pairs of equal positions below, too; what a stride skips is not computed."""
    names = [f"C{i}" for i in range(len(strides))]
    assert depth(flattened(names, strides, padding=padding), shape) <= largest(shape, strides, padding)


@pytest.mark.slow
def test_no_array_of_pairs_of_positions():
    for strides, shape in [((2, 2, 2), (15, 15, 1)), ((3, 2, 2), (13, 13, 1)), ((2, 1, 2), (6, 5, 1))]:
        for padding in ("SAME", "VALID")[: 1 + (strides == (2, 2, 2))]:
            for names in [("A", "B", "C"), ("x", "C", "q")]:
                found = depth(flattened(names, strides, padding=padding), shape)
                assert found <= largest(shape, strides, padding), (strides, padding, names)


@pytest.mark.parametrize(
    ("strides", "shape"), [((3, 1), (6, 5, 1)), pytest.param((2, 2), (5, 5, 1), marks=pytest.mark.slow)]
)
def test_the_same_kernels_as_without(strides, shape, monkeypatch):
    """Every pair of positions computed, and those that are looked at: rounding apart the same."""
    data = np.random.default_rng(0).standard_normal((2, *shape))
    found = tp.kernel_fn(flattened(("w", "C"), strides))(data)
    monkeypatch.setattr(passes, "PASSES", passes.PASSES[1:])
    right = tp.kernel_fn(flattened(("w", "C"), strides))(data)
    for k in ("nngp", "ntk"):
        assert np.abs(getattr(found, k) - getattr(right, k)).max() <= 1e-13 * np.abs(getattr(right, k)).max()


@pytest.mark.slow
@pytest.mark.parametrize("strides", [(1, 2, 1), (2, 1, 2)])
def test_three_layers(strides):
    net = flattened(("C1", "C2", "C3"), strides)
    assert depth(net, (5, 4, 2)) == positions((5, 4), strides)
    data = np.random.default_rng(0).standard_normal((1, 5, 4, 2))
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


def encoder_decoder(size, axes, flat, levels=2):
    """Down by strides, up by repetition, with the state of the same size on the way down beside it."""
    h, skips = tp.Input("x", axes=axes), []
    for k in range(levels + 1):
        h = tp.relu(tp.conv(f"D{k}", h, N, axes=axes, strides=2 if k else 1))
        skips.append(h)
    for k in reversed(range(levels)):
        for a in axes:
            h = tp.pick(h, a, [i // 2 for i in range(size // 2**k)])
        h = tp.relu(tp.conv(f"U{k}", [h, skips[k]], N, axes=axes))
    return tp.Network(tp.readout("v", h, over=axes) if flat else tp.readout("v", tp.mean(h, axes)))


def made(action):
    """How many nodes are made on the way."""
    count, init = [0], node.Node.__init__

    def counted(self, *args, **keywords):
        count[0] += 1
        init(self, *args, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(node.Node, "__init__", counted)
        action()
    return count[0]


@pytest.mark.parametrize("flat", few([False, True], [True]), ids=["average", "flattened"])
def test_nodes_of_an_encoder_decoder_do_not_grow_with_its_positions(flat):
    counts = []
    for size in (8, 16):
        net, shape = encoder_decoder(size, ("t",), flat), {"x": (size, 2)}
        counts.append(made(lambda: compile_pair(net, shape, shape, ("nngp", "ntk"), parametrization("ntk", None))))  # noqa: B023
    assert counts[1] < 1.2 * counts[0] < 20_000, counts


@pytest.mark.slow
def test_the_kernel_of_an_encoder_decoder():
    """Against samples, whose t quantiles cover 0.999 each: 3e-3 for the three entries of a program at 3 quantiles is 1e-8."""
    net = encoder_decoder(4, ("t",), flat=True)
    data = np.random.default_rng(0).standard_normal((2, 4, 2))
    found, right = tp.kernel_fn(net)(data), tp.limit(net, data, method="population")
    for k in ("nngp", "ntk"):
        assert np.abs(getattr(found, k) - right[k].value).max() < 3 * np.max(right[k].error)


@pytest.mark.slow
def test_nodes_of_an_encoder_decoder_of_images():
    net, shape = encoder_decoder(8, ("h", "w"), flat=False), {"x": (8, 8, 3)}
    assert made(lambda: compile_pair(net, shape, shape, ("nngp", "ntk"), parametrization("ntk", None))) < 80_000
