"""Axes put together and taken apart, data rearranged, coefficients for each example: against the same by positions.

At finite width with the same dense weights both are the same numbers, gradients included; in the limit, the same kernels.
"""

import numpy as np
import pytest

import tensorprog as tp
from tensorprog.language.node import topological
from tensorprog.limits.expect.lower import Lowering

N = tp.Width("n")
RNG = np.random.default_rng(0)
SEQUENCES = RNG.standard_normal((3, 4, 5))
IMAGES = RNG.standard_normal((2, 2, 3, 4))


def kernels(net, X, of=("nngp", "ntk")):
    return np.stack(list(tp.kernel_fn(net)(X, get=of)))


def agree(one, other, X, Y=None, limit=True):
    """The same at finite width, with the same weights; and the same kernels."""
    Y = X if Y is None else Y
    for name in ("f", "ntk"):
        a, b = [tp.run(net, data, n=6, seeds=2, of=name)[name] for net, data in ((one, X), (other, Y))]
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
    if limit:
        np.testing.assert_allclose(kernels(one, X), kernels(other, Y), rtol=1e-12, atol=1e-14)


def vit(join, body=None):
    """A block of a transformer in front of which stands a class token, and its state at the end."""
    h = tp.dense("U", tp.Input("x", axes=("t",)), N)
    z = join(tp.Vector("token", N, trainable=True), h) if join else h
    z = z + tp.self_attention("A", tp.layer_norm(z), N, tied=True)
    z = z + tp.dense("W2", tp.relu(tp.dense("W1", z, N)), N)
    return tp.Network(tp.readout("v", tp.take(z, "t", 0)))


@tp.layer
def stacked(c, h):
    return tp.stack([c, *[tp.take(h, "t", i) for i in range(h.shape[h.axes.index("t")])]], "t")


def test_a_class_token():
    agree(vit(lambda c, h: tp.concat([c, h], "t")), vit(stacked), SEQUENCES[:2, :2])


def questions(net, X):
    lowering = Lowering(net.program(X))
    roots = [lowering.z[o.node] for o in lowering.program.outputs.values()]
    entries = sum(int(np.prod(x.shape)) for x in topological(roots) if x.op == "dual")
    return len(lowering.expectation.solver.memo), entries


def test_a_class_token_costs_what_an_axis_costs():
    X = RNG.standard_normal((2, 6, 4))
    asked, entries = questions(vit(lambda c, h: tp.concat([c, h], "t")), X)
    before, plain = questions(vit(None), X)
    assert asked <= 1.5 * before and entries <= 1.5 * (7 / 6) ** 2 * plain


def parts_and_positions(parts):
    return tp.concat(parts, "t"), [
        tp.take(p, "t", i) if p.axes else p for p in parts for i in range(p.shape[0] if p.axes else 1)
    ]


def test_functions_of_concatenations_of_what_is_not_gaussian():
    a, c = tp.Vector("a", N, axes={"t": 2}, cov=[[1, 0.3], [0.3, 2]]), tp.Vector("c", N)
    for parts in ([tp.tanh(a), c], [tp.relu(a), c, -tp.relu(a)]):
        z, apart = parts_and_positions(parts)
        found = tp.limit(tp.Program(k=tp.moment(tp.erf(z + c))))["k"]
        assert found.method != "quasi-Monte-Carlo"
        for i, u in enumerate(apart):
            one = tp.limit(tp.Program(k=tp.moment(tp.erf(u + c))))["k"]
            assert abs(found.value[i] - one.value) <= found.error[i] + one.error + 1e-15


@pytest.mark.slow
def test_kernels_of_concatenations_of_what_is_not_gaussian():
    a, b = tp.Vector("a", N, axes={"t": 2}, cov=[[1, 0.3], [0.3, 2]]), tp.Vector("b", N, mean=0.5)
    z, apart = parts_and_positions([tp.relu(a), b, tp.tanh(a)])
    found = tp.limit(tp.Program(k=tp.moment(tp.erf(z) * tp.erf(tp.rename(z, t="s")))))["k"]
    assert found.method == "quadrature"
    for i, j in ((0, 1), (0, 3), (2, 3), (1, 1)):
        one = tp.limit(tp.Program(k=tp.moment(tp.erf(apart[i]) * tp.erf(apart[j]))))["k"]
        assert abs(found.value[i, j] - one.value) <= found.error[i, j] + one.error + 1e-15


def test_concat_and_split_are_inverse_and_print():
    a, b = (
        tp.Vector("a", N, axes={"s": 2, "t": 2}, mean=[[1, 2], [3, 4]]),
        tp.Vector("b", N, axes={"t": 3}, mean=[5, 6, 7]),
    )
    z = tp.concat([a, b], "t")
    p = tp.Program(
        z=tp.moment(z),
        first=tp.moment(tp.split(z, "t", [2, 3])[0]),
        scalar=tp.concat([tp.moment(a), tp.moment(b)], "t"),
    )
    found = tp.limit(p)
    assert found["z"].value.tolist() == found["scalar"].value.tolist() == [[1, 2, 5, 6, 7], [3, 4, 5, 6, 7]]
    assert found["first"].value.tolist() == [[1, 2], [3, 4]]
    assert tp.parse(str(p)) == p
    halves = tp.split(tp.Vector("x", N, axes={"t": 6}), "t", 3)
    assert [h.shape for h in halves] == [(2,)] * 3


def test_products_of_disjoint_masks_are_zero():
    a, b = tp.Vector("a", N, axes={"t": 2}), tp.Vector("b", N, axes={"t": 3})
    first, second = tp.concat([a, 0 * b], "t"), tp.concat([0 * a, b], "t")
    assert (first * second).node.is_zero


@pytest.mark.parametrize("over", [("h", "w"), ("w", "h")])
def test_flattening_commutes_with_layers(over):
    x = tp.Input("x", axes=("h", "w"))

    def net(early, late):
        h = tp.flatten(x, over, "t") if early else x
        h = tp.relu(tp.dense("U", h, N, b_std=0.1))
        h = tp.relu(tp.dense("W", tp.flatten(h, over, "t") if late else h, N))
        return tp.Network(tp.readout("v", tp.mean(h, "t" if early or late else ("h", "w"))))

    agree(net(True, False), net(False, False), IMAGES)
    agree(net(False, True), net(False, False), IMAGES)
    flat = IMAGES.transpose(0, *[1 + ("h", "w").index(a) for a in over], 3).reshape(2, 6, 4)
    y = tp.Input("x", axes=("t",))
    attended = tp.Network(tp.readout("v", tp.take(tp.self_attention("A", tp.dense("U", y, N), N, tied=True), "t", 1)))
    images = tp.Network(
        tp.readout(
            "v", tp.take(tp.self_attention("A", tp.flatten(tp.dense("U", x, N), over, "t"), N, tied=True), "t", 1)
        )
    )
    agree(images, attended, IMAGES, flat)


def test_flattening_a_convolution_picks_and_stacks():
    x = tp.Input("x", axes=("h", "w"))

    @tp.layer
    def both(h):
        return tp.stack([tp.take(h, "h", i) for i in range(2)], "h")

    def net(flat):
        h = both(tp.relu(tp.conv("U", x, N, 3)))
        p = tp.Vector("p", N, axes={"h": 2, "w": 3}, trainable=True)
        h = tp.conv("V", h + tp.mean(h, "h"), N, 3, padding="CIRCULAR") + p
        h = tp.relu(tp.flatten(h, ("h", "w"), "t") if flat else h)
        return tp.Network(tp.readout("v", tp.mean(h, "t" if flat else ("h", "w"))))

    agree(net(True), net(False), IMAGES, limit=False)


def test_flattening_vectors_with_axes():
    mean = np.arange(24).reshape(2, 3, 4)
    z = tp.Vector("z", N, axes={"a": 2, "b": 3, "c": 4}, mean=mean.tolist())
    flat = tp.limit(
        tp.Program(m=tp.moment(tp.flatten(z, ("c", "a"), "t")), q=tp.moment(tp.flatten(z, ("a", "b", "c"), "t") ** 2))
    )
    np.testing.assert_array_equal(flat["m"].value, mean.transpose(1, 2, 0).reshape(3, 8))
    np.testing.assert_array_equal(flat["q"].value, mean.ravel() ** 2 + 1)


def network(data, filter=3):
    h = tp.relu(tp.conv("U", data, N, filter, "t"))
    return tp.Network(tp.readout("v", tp.mean(tp.relu(tp.dense("W", h, N, b_std=0.1)), "t")))


def test_data_is_rearranged():
    x, y = tp.Input("x", axes=("t",)), tp.Input("y", axes=("t",))
    X, Y = SEQUENCES, RNG.standard_normal((3, 2, 5))
    fixed = tp.Input("fixed", axes=("t",), value=Y[0])
    both = {"x": X, "y": Y}
    cases = [
        (tp.concat([x, y], "t"), both, np.concatenate([X, Y], 1)),
        (tp.concat([tp.take(y, "t", 1), x], "t"), both, np.concatenate([Y[:, 1:], X], 1)),
        (tp.concat([fixed, x], "t"), X, np.concatenate([np.broadcast_to(Y[0], (3, 2, 5)), X], 1)),
        (tp.concat([x, x], "features"), X, np.concatenate([X, X], 2)),
        (tp.pick(x, "t", [2, 0, 1]), X, X[:, [2, 0, 1]]),
        (tp.stack([tp.take(x, "t", 1), tp.take(x, "t", -1)], "t"), X, X[:, [1, 3]]),
        (tp.split(x, "t", [1, 3])[1], X, X[:, 1:]),
    ]
    for data, given, plain in cases:
        one = network(data)
        right = kernels(network(x), plain)
        np.testing.assert_allclose(kernels(one, given), right, rtol=1e-13)
        limit = tp.limit(one, given)
        np.testing.assert_allclose(limit["ntk"].value, right[1], rtol=1e-13)


def test_lists_of_data_and_of_channels():
    x, y = tp.Input("x"), tp.Input("y")
    X, Y = RNG.standard_normal((3, 2)), RNG.standard_normal((3, 4))
    of = lambda data: tp.Network(tp.readout("v", tp.relu(tp.dense("U", data, N))))  # noqa: E731
    for scheme in (("ntk", None), ("tp", None), ("standard", 8)):
        one, two = (
            tp.kernel_fn(of([x, y]), *scheme)({"x": X, "y": Y}),
            tp.kernel_fn(of(x), *scheme)(np.concatenate([X, Y], 1)),
        )
        np.testing.assert_allclose(one.ntk, two.ntk, rtol=1e-13)
    m = tp.Width("m", ratio=2)
    u, w = tp.Vector("u", N, axes={"t": 3}), tp.Vector("w", m, axes={"t": 3}, mean=1)
    h = tp.conv("W", [u, w], N, 3, "t", padding="CIRCULAR")  # a third of the channels has E u^2 = 1, two thirds 2
    assert tp.limit(tp.Program(q=tp.moment(h * h)))["q"].value.tolist() == [pytest.approx(5 / 3)] * 3


def test_padding_masks_for_each_example():
    x, mask = tp.Input("x", axes=("t",)), tp.Input("mask", axes=("t",), features=False)

    def net(mask):
        h = tp.dense("U", x, N)
        return tp.Network(
            tp.readout("v", tp.take(tp.relu(h + tp.self_attention("A", h, N, tied=True, mask=mask)), "t", 0))
        )

    M = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 1, 0]])
    ragged = [s[m > 0] for s, m in zip(SEQUENCES, M, strict=True)]
    given = {"x": SEQUENCES, "mask": M}
    right, k = kernels(net(None), ragged), tp.kernel_fn(net(mask))(given)
    np.testing.assert_allclose(k, right, rtol=1e-12)
    np.testing.assert_allclose(tp.limit(net(mask), given)["ntk"].value, right[1], rtol=1e-12)
    assert all(e < 1e-12 for e in k.error.values())
    a, b = [tp.run(net(m), X, n=6, of="f")["f"] for m, X in ((mask, given), (None, ragged))]
    np.testing.assert_allclose(a[:, 0], b[:, 0], rtol=1e-12)


def test_a_graph_for_each_example():
    x, a = tp.Input("x", axes=("node",)), tp.Input("A", axes=("node", "from"), features=False)

    def net(a, normalize):
        h = tp.relu(tp.graph_conv("U", x, N, a, normalize=normalize))
        return tp.Network(tp.readout("v", tp.mean(tp.relu(tp.graph_conv("V", h, N, a, normalize=normalize)), "node")))

    A = np.triu(RNG.random((3, 4, 4)) < 0.6, 1).astype(float)
    A += A.swapaxes(1, 2)
    for normalize in (True, False):
        k = kernels(net(a, normalize), {"x": SEQUENCES, "A": A})
        for i in range(3):
            one = kernels(net(A[i], normalize), SEQUENCES[i : i + 1])
            np.testing.assert_allclose(k[:, i, i], one[:, 0, 0], rtol=1e-12)
        # two examples at once, as one graph of two parts
        whole = np.block([[A[0], np.zeros((4, 4))], [np.zeros((4, 4)), A[1]]])
        h = tp.relu(tp.graph_conv("U", x, N, whole, normalize=normalize))
        h = tp.relu(tp.graph_conv("V", h, N, whole, normalize=normalize))
        q = tp.Network([tp.readout("v", tp.mean(part, "node")) for part in _halves(h)])
        both = kernels(q, np.concatenate([SEQUENCES[:1], SEQUENCES[1:2]], 1))
        np.testing.assert_allclose(both[:, 0, 0, 0, 1], k[:, 0, 1], rtol=1e-12)


def _halves(h):
    return [tp.pick(h, "node", range(4)), tp.pick(h, "node", range(4, 8))]


def test_what_is_refused():
    x, m = tp.Input("x", axes=("t",)), tp.Input("m", axes=("t",), features=False)
    u, w = tp.Vector("u", N, axes={"t": 2}), tp.Vector("w", tp.Width("m"), axes={"t": 2})
    bad = [
        lambda: tp.concat([], "t"),
        lambda: tp.concat([u, w], "t"),
        lambda: tp.split(u, "t", [1, 2]),
        lambda: tp.split(u, "s", 2),
        lambda: tp.flatten(u, ("t", "s"), "a"),
        lambda: tp.flatten(u, "t", "t t"),
        lambda: tp.limit(network(tp.concat([x, u], "t")), SEQUENCES),
        lambda: tp.limit(network(x * m), {"x": SEQUENCES, "m": np.ones((3, 4))}),
        lambda: tp.limit(network(tp.pick(x, "example", [0])), SEQUENCES),
        lambda: tp.Input("m", axes=("t",), value=[1.0], features=False),
        lambda: tp.Input("m", axes=None, features=False),
        lambda: tp.limit(network(tp.dense("U", x, N) * m), {"x": SEQUENCES, "m": np.ones((3, 4, 1))}),
    ]
    for call in bad:
        with pytest.raises(tp.TensorProgramError):
            call()
