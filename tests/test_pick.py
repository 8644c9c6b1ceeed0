"""`pick`: shifts, slices, strides and patches, in every meaning; convolutional networks against their recursion."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from marks import few

import tensorprog as tp
from tensorprog.arrays.elementwise import kernel, rank
from tensorprog.language import algebra
from tensorprog.language.node import topological
from tensorprog.language.symbols import VectorSpec
from tensorprog.limits.expect.expectation import Expectation
from tensorprog.limits.expect.lower import Lowering
from tensorprog.transforms.decouple import decouple

N = tp.Width("n")
W, V = tp.Matrix("W", N, N, var=Fraction(5, 4)), tp.Matrix("V", N, N, var=Fraction(1, 2))
COV = np.array([[3, 1, 0, 1], [1, 2, 1, 0], [0, 1, 2, -1], [1, 0, -1, 4]])
Z = tp.Vector("z", N, mean=[1, 0, Fraction(1, 2), -1], cov=COV, axes=("t",))
G = tp.Vector("g", N, axes={"h": 3, "v": 4}).node


def limit(**outputs):
    return tp.limit(tp.Program(outputs), method="exact")


def by_takes(x, axis, index):
    """The same vectors, one at a time."""
    return tp.stack([tp.take(x, axis, i) for i in index], axis)


# ---- normal form -----------------------------------------------------------------------------------------------------


def test_picks_fold_and_vanish():
    assert algebra.pick(G, 1, range(4)) is G
    assert algebra.pick(algebra.pick(G, 1, (3, 1, 1)), 1, (2, 0)) == algebra.pick(G, 1, (1, 3))
    assert algebra.pick(algebra.pick(G, 1, (3, 2, 1, 0)), 1, (3, 2, 1, 0)) == G
    there = algebra.pick(algebra.pick(G, 0, (1, 0)), 1, (2, 2))
    assert there == algebra.pick(algebra.pick(G, 1, (2, 2)), 0, (1, 0))
    assert there.shape == (2, 2)


def test_picks_of_constants_and_spreads_fold():
    assert algebra.pick(algebra.constant(3, (4,)), 0, (1, 1)) == algebra.constant(3, (2,))
    c = algebra.pick(algebra.constant(np.array([[1, 2], [3, 4]])), 1, (1, 0, 1))
    assert c == algebra.constant(np.array([[2, 1, 2], [4, 3, 4]]))
    s = algebra.hyperparameter("s", None)
    assert algebra.pick(algebra.typed(s, (4,), None, None), 0, (1, 3)) == algebra.typed(s, (2,), None, None)
    product = algebra.mul([algebra.typed(s, (4,), None, None), algebra.fn("tanh", s)])
    assert algebra.pick(product, 0, (1, 3)).shape == (2,) and algebra.pick(product, 0, (1, 3)).op == product.op


def test_picks_and_other_moves():
    picked = algebra.pick(G, 1, (3, 0))
    assert algebra.take(picked, 1, 0) == algebra.take(G, 1, 3)
    assert algebra.take(picked, 0, 2) == algebra.pick(algebra.take(G, 0, 2), 0, (3, 0))
    turned = algebra.transpose(G, (1, 0))
    assert algebra.pick(turned, 0, (3, 0)) == algebra.transpose(picked, (1, 0))
    wide = algebra.view(G, (0, 2), (3, 5, 4))
    assert algebra.pick(wide, 1, (0, 0)) == algebra.view(G, (0, 2), (3, 2, 4))
    square = algebra.pick(G, 1, (1, 2, 2))
    diagonal = algebra.view(square, (0, 0), (3,))
    both = algebra.pick(algebra.pick(square, 0, (2, 0)), 1, (2, 0))
    assert algebra.pick(diagonal, 0, (2, 0)) == algebra.view(both, (0, 0), (2,))
    parts = [tp.Vector(name, N).node for name in "abc"]
    assert algebra.pick(algebra.stack(parts, 0), 0, (2, 0)) == algebra.stack([parts[2], parts[0]], 0)


def test_messages():
    assert tp.pick(Z, "t", np.array([-1, 0])).node == tp.pick(Z, "t", [3, 0]).node
    for index, said in (([4], "size 4"), ([-5], "size 4"), ([], "picked at"), ([0.5], "integer"), (2, "picked at")):
        with pytest.raises(tp.TensorProgramError, match=said):
            tp.pick(Z, "t", index)
    with pytest.raises(tp.TensorProgramError, match="no axis"):
        tp.pick(Z, "u", [0])


@pytest.mark.parametrize("said", ["[0, 4]", "[]", "[0.5, 1]", "[[0]]", "3", "[0], 1"])
def test_text_that_is_refused(said):
    head = "width n\nvector z[i:4] : n, mean 0, var 1\n"
    with pytest.raises(tp.TensorProgramError):
        tp.parse(f"{head}output q[a] = Moment(pick(z, i, {said}))")
    with pytest.raises(tp.TensorProgramError):
        tp.parse(f"{head}output q[a] = Moment(pick(z, j, [0]))")


def test_text_and_latex():
    p = tp.Program(q=tp.moment(tp.pick(tp.relu(Z), "t", [2, 0, 0]) * tp.pick(Z, "t", range(1, 4))))
    assert "pick(z, i, [1, 2, 3])" in str(p) and tp.parse(str(p)) == p
    assert "pick(z, i, [-1, 0])" not in str(p)
    assert tp.parse(str(p).replace("[1, 2, 3]", "[-3, -2, -1]")) == p
    long = tp.Program(q=tp.moment(tp.pick(Z, "t", [k % 3 for k in range(300)])))
    assert long.arrays and tp.parse(str(long), arrays=long.arrays) == long
    assert "z_{i+1}" in tp.latex(p) and r"\left(2, 0, 0\right)_{i}" in tp.latex(p)


# ---- arrays ----------------------------------------------------------------------------------------------------------


def test_kernels():
    """Random tuples, ranges, strides and repeats, of every axis, with a width at the end and with axes of size 1."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 4, 5))
    indices = [[2], [1, 1], [0, 2], [3, 1], [3, 2, 1, 0], [0, 1, 2], [1, 2, 3, 0]]
    indices += [rng.integers(0, 3, rng.integers(1, 7)).tolist() for _ in range(40)]
    for index, axis in itertools.product(indices, (0, 1)):
        if max(index) >= x.shape[axis]:
            continue
        node = algebra.pick(G, axis, index)
        if node is G:
            continue
        before = x.copy()
        found = np.broadcast_to(kernel(node)(x), (*node.shape, 5))
        np.testing.assert_array_equal(found, np.take(x, index, axis))
        assert np.array_equal(x, before) and rank(node) == 3
        narrow = x[:1] if axis == 0 else x[:, :1]
        found = np.broadcast_to(kernel(node)(narrow), (*node.shape, 5))
        np.testing.assert_array_equal(found, np.take(np.broadcast_to(narrow, x.shape), index, axis))
    assert np.shares_memory(kernel(algebra.pick(G, 1, (3, 1)))(x), x)


def test_adjoint():
    """<pick x, y> = <x, pick_transposed y>, in as many picks as the commonest position has occurrences."""
    rng = np.random.default_rng(1)
    for _ in range(30):
        size, k = rng.integers(1, 6), rng.integers(1, 8)
        index = rng.integers(0, size, k).tolist()
        x, y = rng.integers(-9, 9, (2, size)), rng.integers(-9, 9, (2, k))
        a = algebra.initial(VectorSpec("a", N, (2, int(k)), 0, 1, None, None))
        node = algebra.pick_transposed(a, 1, index, int(size))
        assert node.shape == (2, size) and node.width == N
        values = {}
        for z in topological([node]):
            values[z] = y[..., None].astype(float) if z == a else kernel(z)(*[values[b] for b in z.args])
        assert np.sum(x[:, index] * y) == np.sum(x * np.broadcast_to(values[node], (2, size, 1))[..., 0])
        assert sum(z.op == "pick" for z in topological([node])) <= max(map(index.count, index))
    turned = algebra.pick_transposed(G, 1, (2, 0, 3, 1), 4)
    assert turned == algebra.pick(G, 1, (1, 3, 0, 2))


def test_runs():
    """Finite widths: dense, lazy and the population see the same vectors as single positions do."""
    index = [3, 0, 0, 2]
    h = tp.relu(W @ tp.pick(Z, "t", index)) + tp.pick(W @ Z, "t", index)
    other = tp.relu(W @ by_takes(Z, "t", index)) + by_takes(W @ Z, "t", index)
    p = tp.Program(a=tp.moment(h * h), b=tp.moment(other * other))
    for weights in ("dense", "lazy"):
        found = tp.run(p, 32, seeds=2, weights=weights)
        np.testing.assert_allclose(found["a"], found["b"], rtol=1e-10)
    found = tp.limit(p, method="population", samples=256, replicates=2)
    np.testing.assert_allclose(found["a"].value, found["b"].value, rtol=1e-9)


# ---- limits ----------------------------------------------------------------------------------------------------------


def shifted(x, index):
    return tp.pick(x, "t", index)


def smooth(x, move):
    return tp.erf(W @ move(x, [1, 2, 3, 0]) + V @ x)


def tied(x, move):
    """The same matrix at both positions, and shifts that do not agree."""
    return tp.relu(W @ x + W @ move(tp.relu(x), [1, 2, 3, 3]))


def backward(x, move):
    h = W @ move(x, [0, 0, 2, 1])
    return W.T @ (tp.gaussian(move(h, [3, 2, 1, 0])) * tp.array([1, 0, 1, 1], "t")) + move(x, [1, 1, 1, 1])


def inside(x, move):
    return tp.relu(move(x, [1, 2, 3, 0]) + 2 * move(x, [3, 2, 1, 0])) - move(tp.relu(x), [3, 3, 0, 1])


def padded(x, move):
    return tp.relu(W @ (tp.array([0, 1, 1, 1], "t") * move(x, [3, 0, 1, 2]))) + tp.array([1, 2, 3, 4], "t")


def summed(x, move):
    return tp.tanh(move(x, [1, 0, 2, 2])) * tp.sum(move(x, [0, 0, 3]), "t")


def few_positions(x, move):
    """One position of four, in a new order and with a repeat: computed at this position alone."""
    return tp.relu(W @ move(tp.relu(V @ x), [2, 2])) + move(tp.relu(V @ x), [2, 2])


NETWORKS = [smooth, tied, backward, inside, padded, summed, few_positions]


@pytest.mark.parametrize("network", few(NETWORKS, (smooth, tied, backward, padded, few_positions)))
def test_limits_are_those_of_single_positions(network):
    """A stack of takes is the same multi-vector; all pairs of positions, and aligned ones."""
    values = []
    for move in (shifted, lambda x, index: by_takes(x, "t", index)):
        y = network(Z, move)
        e = limit(
            pairs=tp.moment(y * tp.rename(y, t="s")), own=tp.moment(y * y), mean=tp.moment(y),
            cross=tp.moment(y * tp.rename(Z, t="s")), picked=tp.pick(tp.moment(y * tp.rename(Z, t="s")), "s", [2, 0]),
        )  # fmt: skip
        values.append({k: (np.asarray(v.value, float), np.max(v.error)) for k, v in e.items()})
        e = values[-1]
        np.testing.assert_array_equal(e["picked"][0], e["cross"][0][:, [2, 0]])
        np.testing.assert_allclose(np.diag(e["pairs"][0]), e["own"][0], rtol=1e-9, atol=1e-12)
    for name, (value, error) in values[0].items():
        other, slack = values[1][name]
        np.testing.assert_allclose(value, other, rtol=0, atol=float(error + slack) + 1e-12)
        assert error < 1e-5


def wrapped(rule, x, *args):
    """A rule of nodes with one axis, as one of expressions."""
    return tp.Expression(rule(x.node, 0, *args), x.axes)


def test_back_propagation_through_a_convolution():
    """One dimension, three offsets, zero padding, the same matrices transposed: Zdot and the covariances of the gradient."""
    x = tp.relu(V @ tp.Vector("z", N, cov=COV[:3, :3], axes=("t",)))
    offsets = [([0, 0, 1], [0, 1, 1]), ([0, 1, 2], [1, 1, 1]), ([1, 2, 2], [1, 1, 0])]
    matrices = [tp.Matrix(f"C{k}", N, N, var=Fraction(1, 3)) for k in range(3)]
    found = []
    for pick, transposed in (
        (tp.pick, lambda a, index: wrapped(algebra.pick_transposed, a, index, 3)),
        (by_takes, lambda a, index: tp.stack(
            [sum([tp.take(a, "t", i) for i in range(3) if index[i] == j], 0 * tp.take(a, "t", 0)) for j in range(3)], "t")),
    ):  # fmt: skip
        parts = list(zip(matrices, offsets, strict=True))
        h = sum(m @ (tp.array(mask, "t") * pick(x, "t", index)) for m, (index, mask) in parts)
        dh = tp.erf(h) + tp.Vector("v", N)
        dx = sum(transposed(tp.array(mask, "t") * (m.T @ dh), index) for m, (index, mask) in parts)
        outputs = limit(
            a=tp.moment(dx * tp.rename(dx, t="s")), b=tp.moment(dx * tp.rename(x, t="s")), c=tp.moment(dx * dx)
        )
        assert all(e.method != "population" for e in outputs.values())
        found.append([np.asarray(outputs[name].value, dtype=float) for name in "abc"])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)
    assert np.all(np.abs(np.diag(found[0][1])) > 1e-3)


def test_positions_of_a_stack_that_are_zero():
    """What is under a mask in one part of a stack is deterministic there, and random in the others."""
    mask = tp.array([0, 1, 1, 1], "t")
    for move in (shifted, lambda x, index: by_takes(x, "t", index)):
        e = limit(m=tp.moment(tp.relu(W @ (mask * move(Z, [3, 0, 1, 2]))) ** 2), o=tp.moment(W @ by_takes(Z, "t", [1])))
        second = [0, 4, 2, Fraction(9, 4)]  # E z^2 at 3 (masked), 0, 1, 2
        np.testing.assert_allclose(np.asarray(e["m"].value, dtype=float), [float(Fraction(5, 8) * s) for s in second])
        assert np.shape(e["o"].value) == (1,)


def test_exact_numbers_stay_exact():
    y = tp.pick(W @ Z, "t", [3, 1]) - tp.pick(Z, "t", [0, 2])
    q = limit(q=tp.moment(y * tp.rename(y, t="s")))["q"]
    mean = [1, 0, Fraction(1, 2), -1]
    second = [[COV[i][j].item() + mean[i] * mean[j] for j in range(4)] for i in range(4)]
    a, b = [3, 1], [0, 2]
    expected = [[Fraction(5, 4) * second[a[i]][a[j]] + second[b[i]][b[j]] for j in range(2)] for i in range(2)]
    assert q.kind == "exact" and np.asarray(q.value).tolist() == expected


def test_random_moves_of_two_axes():
    rng = np.random.default_rng(2)
    a = rng.normal(size=(12, 12))
    x = tp.Vector("x", N, cov=a @ a.T / 12, axes={"h": 3, "w": 4})
    for _ in range(5):
        moves = [(axis, rng.integers(0, size, 3).tolist()) for axis, size in (("h", 3), ("w", 4))]
        more = [(axis, rng.integers(0, 3, 2).tolist()) for axis in ("w", "h")]
        found = []
        for move in (tp.pick, by_takes):
            y = x
            for step in moves:
                y = move(y, *step)
            y = tp.relu(W @ tp.relu(y))
            for step in more:
                y = move(y, *step)
            found.append(array(tp.moment(y * tp.rename(y, h="a")), ("h", "w", "a")))
            found.append(array(tp.moment(y * tp.rename(tp.relu(x), h="a", w="b")), ("h", "w", "a", "b")))
        np.testing.assert_allclose(found[0], found[2], rtol=1e-12)
        np.testing.assert_allclose(found[1], found[3], rtol=1e-12)


def array(output, axes):
    e = limit(q=output)
    return np.asarray(e["q"].value, dtype=float).transpose([e.axes["q"].index(a) for a in axes])


def test_formula():
    x = tp.Vector("x", N, axes={"t": 4}, cov=COV)
    for index in ([1, 2, 3], [2, 3, 0, 1], [3, 0, 0]):
        y = tp.relu(W @ tp.pick(tp.relu(V @ x), "t", index)) + tp.relu(tp.pick(x, "t", index))
        p = tp.Program(q=tp.moment(y * tp.rename(y, t="s")))
        f = tp.formula(p)
        np.testing.assert_allclose(f.evalf(20)["q"].astype(float), np.asarray(tp.limit(p)["q"].value), rtol=1e-13)
        assert ("Mod(" in str(f)) == (index == [2, 3, 0, 1]) and ("P[" in str(f)) == (index == [3, 0, 0])


def test_regularity_and_gia_pass_through():
    h = W @ tp.pick(Z, "t", [1, 0])
    p = tp.Program(q=tp.moment(tp.pick(tp.relu(h), "t", [1, 1, 0])))
    assert tp.check_regularity(p).covered
    assert decouple(p) == p


# ---- convolutional networks ------------------------------------------------------------------------------------------


def convolution(x, layer, stride=1, circular=False):
    """3 x 3, one matrix for each offset; padded with zeros, or around."""
    height, width = (x.shape[x.axes.index(a)] for a in "hw")
    out = 0
    for kh, kw in itertools.product((-1, 0, 1), repeat=2):
        rows, columns = range(kh, height + kh, stride), range(kw, width + kw, stride)
        y = tp.pick(tp.pick(x, "h", [r % height for r in rows]), "w", [c % width for c in columns])
        if not circular:
            inside = np.outer([0 <= r < height for r in rows], [0 <= c < width for c in columns])
            y = tp.array(inside.astype(int), ("h", "w")) * y
        out = out + tp.Matrix(f"W{layer}_{kh + 1}{kw + 1}", N, N, var=Fraction(1, 9)) @ y
    return out


def network_of(x, layers, stride, circular):
    for layer in range(layers):
        x = tp.relu(convolution(x, layer, stride, circular))
    return tp.Program(q=tp.moment(x * tp.rename(x, h="h2", w="w2")))


def recursion(k, layers, stride, circular):
    """Arc-cosine kernels (Cho & Saul 2009) and sums over patches (Novak et al. 2019; Yang 2019)."""
    k = arc_cosine(k)
    for _ in range(layers):
        (h, w), padded = k.shape[:2], np.pad(k, [(1, 1)] * 4, mode="wrap" if circular else "constant")
        patches = [
            padded[i : i + h : stride, j : j + w : stride, i : i + h : stride, j : j + w : stride]
            for i, j in itertools.product(range(3), repeat=2)
        ]
        k = arc_cosine(sum(patches) / 9)
    return k


def arc_cosine(k):
    deviations = np.sqrt(np.einsum("abab->ab", k))
    size = deviations[:, :, None, None] * deviations
    rho = np.clip(k / size, -1, 1)
    return size / (2 * np.pi) * (np.sqrt((1 - rho) * (1 + rho)) + rho * (np.pi - np.arccos(rho)))


def image(size, seed=0):
    a = np.random.default_rng(seed).normal(size=(size * size, 80))
    return (a @ a.T / 80).reshape(size, size, size, size)


@pytest.mark.parametrize(
    ("layers", "stride", "circular"), [(1, 1, False), (3, 1, False), (3, 1, True), (2, 2, False), (1, 3, True)]
)
def test_convolutional_networks(layers, stride, circular):
    k = image(8)
    h = tp.Vector("h", N, cov=k.reshape(64, 64), axes={"h": 8, "w": 8})
    p = network_of(tp.relu(h), layers, stride, circular)
    e = tp.limit(p, method="exact")
    assert e.axes["q"] == ("h", "w", "h2", "w2") and e["q"].method == "closed form"
    np.testing.assert_allclose(np.asarray(e["q"].value), recursion(k, layers, stride, circular), rtol=0, atol=1e-12)


@pytest.mark.parametrize("build", [lambda h: tp.relu(h), lambda h: h])
def test_the_shifts_share_one_dual(build):
    """Nine shifts, one arc-cosine kernel for each layer; counted."""
    h = tp.Vector("h", N, cov=image(8).reshape(64, 64), axes={"h": 8, "w": 8})
    p = network_of(build(h), 3, 1, False)
    lowering = Lowering(p, {}, Expectation())
    scalars = topological([lowering.z[p.outputs["q"].node]])
    assert sum(x.op == "dual" for x in scalars) == (4 if build(h).node.op == "fn" else 3)
    assert len(scalars) < 250


def test_a_convolution_at_finite_width():
    """z-scores of the covariances at two widths; wrong with probability below 1e-4 by chance, and the seed is fixed."""
    k = image(3, seed=5)
    h = tp.Vector("h", N, cov=k.reshape(9, 9), axes={"h": 3, "w": 3})
    p = network_of(tp.relu(h), 1, 1, False)
    c = tp.compare(p, widths=[64, 128], seeds=16)
    print(c)
    assert c.agrees
