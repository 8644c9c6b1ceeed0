"""An output at every position of an axis by one readout: the same numbers as by one readout for each, at the cost of an axis."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from marks import few

import tensorprog as tp
from tensorprog.kernels.compile import compile_pair
from tensorprog.language.node import topological
from tensorprog.limits.evaluate.scalar import ScalarProgram
from tensorprog.limits.expect.lower import Lowering
from tensorprog.transforms.parametrization import parametrization

n = tp.Width("n")
RNG = np.random.default_rng(5)
A = np.array([[1.0, 0.5, 0.0], [0.5, 0.0, 2.0], [0.0, 2.0, 1.0]])
NODES, X, X2 = tp.Input("x", axes=("node",)), RNG.normal(size=(2, 3, 3)), RNG.normal(size=(3, 3, 3))
IMAGE, IMAGES = tp.Input("x", axes=("h", "w")), RNG.normal(size=(2, 3, 2, 2))
PLACES = [(i, j) for i in range(3) for j in range(2)]


def at(x, **where):
    for axis, i in where.items():
        x = tp.take(x, axis, i)
    return x


def graph():
    """Weights that mix the positions, and trained vectors of each of them."""
    own = tp.Vector("g", n, axes={"node": 3}, mean=0, var=0.5, trainable=True)
    return tp.erf(tp.graph_conv("W2", tp.relu(tp.graph_conv("W1", NODES, n, A, b_std=0.3)), n, A) + own)


def convolution():
    return tp.relu(tp.conv("C2", tp.relu(tp.conv("C1", IMAGE, n, 3, padding="SAME")), n, 3, padding="SAME"))


def each(make):
    return [make(i) for i in range(3)]


h, c, v = graph(), convolution(), tp.readout
NORMED = tp.relu(tp.dense("W3", tp.layer_norm(h), n))
KEYS = tp.dense("K", NODES, n)
SCALES = tp.array([1.0, 2.0, 3.0], "node")
POOLED = tp.readout("u", tp.mean(h, "node"))
CASES = {
    "nodes": (v("v", h, 1.5, 0.2, per="node"), each(lambda i: v("v", at(h, node=i), 1.5, 0.2)), X2),
    "positions that do not mix": (v("v", NORMED, per="node"), each(lambda i: v("v", at(NORMED, node=i))), None),
    "before an output for all": (
        [v("v", h, per="node"), POOLED], [*each(lambda i: v("v", at(h, node=i))), POOLED], None,
    ),
    "after it": ([POOLED, v("v", h, per="node")], [POOLED, *each(lambda i: v("v", at(h, node=i)))], X2),
    "a sum": (v("v", h, per="node") + POOLED, each(lambda i: v("v", at(h, node=i)) + POOLED), X2),
    "twice": (
        2 * v("v", h, per="node") - v("v", tp.erf(h), per="node"),
        each(lambda i: 2 * v("v", at(h, node=i)) - v("v", tp.erf(at(h, node=i)))),
        None,
    ),
    "factors": (v("v", h, per="node") * SCALES, each(lambda i: v("v", at(h, node=i)) * (i + 1.0)), X2),
    "two widths of features": (
        v("v", [h, tp.erf(h)], b_std=1, per="node"),
        each(lambda i: v("v", [at(h, node=i), tp.erf(at(h, node=i))], b_std=1)),
        None,
    ),
    "a vector of the network": (v(KEYS, h, per="node"), each(lambda i: v(at(KEYS, node=i), at(h, node=i))), X2),
    "images": (v("v", c, per=("h", "w")), [v("v", at(c, h=i, w=j)) for i, j in PLACES], None),
    "images, columns first": (
        v("v", c, per=("w", "h")), [v("v", at(c, h=i, w=j)) for j in range(2) for i in range(3)], None,
    ),
    "rows": (v("v", c, over="w", per="h"), each(lambda i: v("v", at(c, h=i), over="w")), None),
}  # fmt: skip


def networks(name):
    one, several, other = CASES[name]
    return tp.Network(one), tp.Network(several), IMAGES if "images" in name or name == "rows" else X, other


@pytest.mark.parametrize("name", few(CASES, list(CASES)[::2]))
def test_as_one_readout_for_each_position(name):
    """Equal weights, to rounding: outputs and kernels of a network of finite width."""
    net, apart, data, other = networks(name)
    for scheme in ("ntk", "tp"):
        p, q = [w.program(data, other, of="all", parametrization=scheme) for w in (net, apart)]
        one, several = [tp.run(w, n=8, seeds=[3]) for w in (p, q)]
        for k in one:
            assert one[k].shape == several[k].shape
            np.testing.assert_allclose(one[k], several[k], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    "name",
    ["before an output for all", *[pytest.param(k, marks=pytest.mark.slow) for k in ("rows", "a sum", "factors")]],
)
def test_limits(name):
    net, apart, data, other = networks(name)
    f, found, several = tp.kernel_fn(net)(data, other), tp.limit(net, data, X2=other), tp.kernel_fn(apart)(data, other)
    for k in ("nngp", "ntk"):
        K = getattr(f, k)
        assert K.shape[:2] == (2, len(data if other is None else other))
        np.testing.assert_allclose(K, getattr(several, k), rtol=0, atol=f.error[k] + several.error[k])
        np.testing.assert_allclose(found[k].value, K, rtol=0, atol=found[k].error.max() + f.error[k])


@pytest.mark.parametrize("axes", ["h", ("h", "w")])
def test_average_readouts_at_positions(axes):
    y = tp.relu(tp.conv("C1", IMAGE, n, 3, padding="SAME"))
    x = tp.moment(y * y) if axes != "h" else tp.mean(tp.moment(y * y), "w")
    net = tp.Network(x, per=axes)
    take = PLACES if axes != "h" else [(i,) for i in range(3)]
    apart = tp.Network([at(x, **dict(zip(axes, place, strict=True))) for place in take])
    one, other = [tp.run(w, IMAGES, n=8, seeds=[3]) for w in (net, apart)]
    limits = tp.limit(net, IMAGES)
    for k in ("f", "ntk"):
        assert limits[k].value.shape[-1] == one[k].shape[-1] == len(take)
        np.testing.assert_allclose(one[k], other[k], rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(tp.kernel_fn(net)(IMAGES, get="ntk"), limits["ntk"].value, rtol=1e-12)


def test_standard_parametrization_parts_and_hyperparameters():
    w = tp.Scalar("sigma")
    net = tp.Network(v("v", tp.erf(tp.graph_conv("W", NODES, n, A, W_std=w)), per="node"))
    apart = tp.Network(each(lambda i: v("v", at(tp.erf(tp.graph_conv("W", NODES, n, A, W_std=w)), node=i))))
    for of in ("ntk", "ntk_W", "ntk_v"):
        p, q = [k.program(X, of=of, parametrization="standard", width=16) for k in (net, apart)]
        a, b = [tp.limit(k, values={"sigma": 1.3})[of].value for k in (p, q)]
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_costs_do_not_depend_on_the_number_of_positions():
    def net(size):
        path = np.eye(size, k=1) + np.eye(size, k=-1)
        x = tp.Input("x", axes=("node",))
        h = tp.relu(tp.graph_conv("W2", tp.relu(tp.graph_conv("W1", x, n, path)), n, path))
        return tp.Network(v("v", h, per="node")), tp.Network(v("v", tp.mean(h, "node")))

    def count(network, size):
        return len(network.program(np.ones((2, size, 3))).nodes)

    sizes = [count(net(k)[0], k) for k in (3, 5, 30)]
    assert len(set(sizes)) == 1
    assert sizes[0] <= count(net(3)[1], 3) + 8  # as one network that is pooled
    assert tp.kernel_fn(net(30)[0])(RNG.normal(size=(1, 30, 3))).ntk.shape == (1, 1, 30, 30)
    shapes = {"x": (30, 3)}
    compiled = compile_pair(net(30)[0], shapes, shapes, ("nngp", "ntk"), parametrization("ntk"))
    assert len(topological(compiled.same.outputs)) < 100


def test_shapes_of_examples():
    net = tp.Network(lambda x: v("v", tp.relu(tp.dense("U", x, n)), per="t"), inputs=[tp.Input("x", axes=("t",))])
    words = [RNG.normal(size=(3, 2)), RNG.normal(size=(3, 2))]
    assert tp.kernel_fn(net)(words).ntk.shape == (2, 2, 3, 3)
    for function in (tp.kernel_fn(net), net.program):
        with pytest.raises(tp.TensorProgramError, match="3 or 5 outputs"):
            function([words[0], RNG.normal(size=(5, 2))])


def test_a_network_of_two_groups_of_shapes():
    """Examples with axes of different sizes that are pooled away, and one that is kept."""
    x = tp.Input("x", axes=("t", "s"))
    net = tp.Network(v("v", tp.relu(tp.dense("W", tp.mean(tp.relu(tp.dense("U", x, n)), "s"), n)), per="t"))
    data = [RNG.normal(size=(2, 3, 2)), RNG.normal(size=(2, 1, 2)), RNG.normal(size=(2, 3, 2))]
    found = tp.limit(net.program(data))
    K = tp.kernel_fn(net)(data)
    assert K.ntk.shape == (3, 3, 2, 2)
    np.testing.assert_allclose(found["ntk"].value, K.ntk, rtol=1e-12)
    np.testing.assert_allclose(K.ntk, K.ntk.transpose(1, 0, 3, 2), rtol=1e-12)
    assert tp.run(net.program(data, of="f"), n=8)["f"].shape == (1, 3, 2)


def test_equal_networks():
    average = tp.moment(h * h)
    assert tp.Network(average, per="node") == tp.Network(average, per="node") != tp.Network(average)
    assert tp.Network(v("v", h, per="node")) != tp.Network(v("v", h))


def test_gia_and_formulas():
    net = tp.Network(v("v", h, per="node"))
    report = tp.check_gia(net, X)
    assert report.simple and report.bp_like and report.holds
    assert "output2" in str(tp.formula(tp.Network(v("v", KEYS, per="node")), (1, 2, 3), of="nngp"))


def test_finite_networks_agree():
    """Failure probability 1e-3 for right code (`tp.compare`)."""
    assert tp.compare(tp.Network(v("v", h, per="node")), X, widths=[32, 64], seeds=range(8)).agrees


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: tp.Network(v("v", h)), 'per="node"'),
        (lambda: tp.Network(tp.moment(h * h)), "Network"),
        (lambda: tp.Network(v("v", h, per="t")), "per the axis 't'"),
        (lambda: tp.Network(v("v", h, over="node", per="node")), "once"),
        (lambda: tp.Network(v("v", h, per=3)), "per is 3"),
        (lambda: tp.Network([v("v", h, per="node"), v("v", h, over="node")]), "two different"),
        (lambda: tp.Network(v("v", h, per="node"), per="node"), "no Moment"),
        (lambda: tp.Network(tp.moment(h * h), per=["node", "node"]), "each once"),
        (lambda: tp.Network(v("v", h, per="node") + v("u", tp.rename(h, node="s"), per="s")), "are added"),
    ],
)
def test_what_is_refused(make, words):
    with pytest.raises(tp.TensorProgramError) as error:
        make().program(X)
    assert words in str(error.value)


def test_graph_kernels_of_all_positions_hold_no_more_than_pairs_of_pairs() -> None:
    """Sums over neighbours are contracted although transpositions are between them and their products: no array of five axes."""
    nodes = 5
    edges = np.random.default_rng(0).random((nodes, nodes))
    h = tp.Input("x", axes=("node",))
    for name in ("A", "B"):
        h = tp.relu(tp.graph_conv(name, h, tp.Width("n"), edges))
    net = tp.Network(tp.readout("v", h, per="node"))
    data = np.random.default_rng(1).standard_normal((1, nodes, 3))
    program = net.program(data)
    lowering = Lowering(program)
    steps = ScalarProgram([lowering.z[o.node] for o in program.outputs.values()]).steps
    assert max(prod(s.node.shape) for s in steps) == nodes**4
    found, right = tp.limit(net, data), tp.kernel_fn(net)(data)
    for k in ("nngp", "ntk"):
        assert np.abs(found[k].value - getattr(right, k)).max() <= 1e-13 * np.abs(getattr(right, k)).max()
