"""Kernels and fused contractions against a second interpreter that broadcasts everything in full."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction

import numpy as np
import pytest

import tensorprog as tp
from tensorprog.arrays import contraction as contraction_module
from tensorprog.arrays.contraction import Contraction, contraction
from tensorprog.arrays.elementwise import kernel, rank
from tensorprog.arrays.plan import schedule
from tensorprog.language import algebra
from tensorprog.language.functions import PRIMITIVES
from tensorprog.language.node import Node, topological

N, M = 5, 4  # coordinates of the widths n and m
WIDTH, OTHER = tp.Width("n"), tp.Width("m")


def full_shape(x: Node) -> tuple[int, ...]:
    return (*x.shape, *[N] * (x.width is not None), *[M] * (x.inner is not None))


def oracle(root: Node, leaves: dict[str, np.ndarray]) -> np.ndarray:
    """Every array in full, every instruction as plainly as NumPy says it."""
    env: dict[Node, np.ndarray] = {}

    def spread(a: Node, x: Node) -> np.ndarray:
        axes = a.shape if a.shape else (1,) * len(x.shape)
        trailing = [N if a.width else 1] * (x.width is not None) + [M if a.inner else 1] * (x.inner is not None)
        return np.broadcast_to(env[a].reshape((*axes, *trailing)), full_shape(x))

    for x in topological([root]):
        match x.op:
            case "constant":
                a = np.asarray(x.attr, dtype=float)
                out = np.broadcast_to(a.reshape((*a.shape, *[1] * (rank(x) - len(x.shape)))), full_shape(x))
            case "vector":
                out = leaves[x.attr.name]
            case "moment":
                out = env[x.args[0]].mean(axis=-1)
            case "add":
                out = sum(float(c) * spread(a, x) for c, a in zip(x.attr, x.args, strict=True))
            case "mul":
                out = np.prod([spread(a, x) ** k for a, k in zip(x.args, x.attr, strict=True)], axis=0)
            case "fn":
                out = PRIMITIVES[x.attr[0]].array(spread(x.args[0], x), *x.attr[1])
            case "view":
                out = np.empty(full_shape(x))
                for i in np.ndindex(*x.shape):
                    out[i] = env[x.args[0]][tuple(i[p] for p in x.attr)]
            case "take":
                out = np.take(env[x.args[0]], x.attr[1], axis=x.attr[0])
            case "pick":
                out = np.take(env[x.args[0]], x.attr[1], axis=x.attr[0])
            case "stack":
                parts = []
                for a in x.args:
                    like = Node("add", (a,), (1,), a.shape, x.width, x.inner)
                    parts.append(spread(a, like))
                out = np.stack(parts, axis=x.attr)
            case "sum":
                out = env[x.args[0]].sum(axis=x.attr)
            case "softmax":
                e = np.exp(env[x.args[0]])
                out = e / e.sum(axis=x.attr, keepdims=True)
            case "inner":
                out = env[x.args[0]]
        env[x] = np.asarray(out)
    return env[root]


def evaluate(root: Node, leaves: dict[str, np.ndarray]) -> np.ndarray:
    env: dict[Node, np.ndarray] = {}
    for step in schedule([root]):
        x, arrays = step.node, [env[a] for a in step.operands]
        before = [np.array(a) for a in arrays]
        if x.op == "vector":
            env[x] = leaves[x.attr.name]
        elif step.compute is None:
            assert x.op == "moment"
            env[x] = np.asarray(arrays[0].mean(axis=-1))
        else:
            env[x] = step.compute(*arrays)
        assert np.ndim(env[x]) == rank(x), x
        assert all(np.array_equal(a, b) for a, b in zip(arrays, before, strict=True)), "an operand was written to"
    return np.broadcast_to(env[root], full_shape(root))


def agree(root: Node, leaves: dict[str, np.ndarray]) -> None:
    expected = oracle(root, leaves)
    rounding = 1e-12 * np.abs(expected).max(initial=1)
    np.testing.assert_allclose(evaluate(root, leaves), expected, rtol=1e-11, atol=rounding)


def vectors(rng: np.random.Generator) -> tuple[list[tp.Expression], dict[str, np.ndarray]]:
    sizes = {"x": {}, "y": {"a": 2}, "z": {"a": 2, "b": 3}, "u": {"c": 3, "b": 3}, "o": {"e": 1, "a": 2}}
    xs = [tp.Vector(name, WIDTH, axes=axes) for name, axes in sizes.items()]
    return xs, {name: rng.normal(size=(*axes.values(), N)) for name, axes in sizes.items()}


def random_expression(rng: np.random.Generator, pool: list[tp.Expression]) -> tp.Expression:
    x, y = (pool[int(rng.integers(len(pool)))] for _ in range(2))
    match int(rng.integers(9)):
        case 0:
            return x * y
        case 1:
            return x * Fraction(1, 2) - y + int(rng.integers(3))
        case 2:
            return tp.tanh(x) * y**2
        case 3:
            return tp.moment(x * y)
        case 4 if x.axes:
            return tp.sum(x * y, str(rng.choice(x.axes)))
        case 5 if x.axes:
            axis = str(rng.choice(x.axes))
            return tp.take(x, axis, int(rng.integers(x.shape[x.axes.index(axis)])))
        case 6 if "c" in x.axes and "b" in x.axes:  # the diagonal
            return tp.sum(x * tp.array(np.eye(3), ("b", "c")), "c") * y
        case 7 if x.axes and x.width is None:
            return tp.softmax(x, str(rng.choice(x.axes))) * y
        case 8 if "k" not in x.axes + y.axes:
            return tp.stack([x, y, tp.array([1.0, 2.0], "a")], "k")
    return x + y


@pytest.mark.parametrize("seed", range(60))
def test_random_expressions(seed, monkeypatch):
    if seed % 2:
        monkeypatch.setattr(
            contraction_module, "_SMALL", 0
        )  # batches of matrix products too, which are for larger arrays
    rng = np.random.default_rng(seed)
    pool, leaves = vectors(rng)
    for _ in range(7):
        new = random_expression(rng, pool)
        if np.prod(new.shape) <= 200:
            pool.append(new)
    agree(pool[-1].node, leaves)
    if pool[-1].width is not None:
        agree(tp.moment(pool[-1] * pool[-2]).node, leaves)


def body(x: tp.Expression) -> tp.Expression:
    return tp.Expression(algebra.inner(x.node), x.names, x.axes)


@pytest.mark.parametrize(
    "make",
    [
        lambda s, x, y, i, j: x * i,
        lambda s, x, y, i, j: i + x,
        lambda s, x, y, i, j: y * i + 1,
        lambda s, x, y, i, j: x * j - s,
        lambda s, x, y, i, j: y * j * s,
        lambda s, x, y, i, j: tp.tanh(y + j) * s + x,
        lambda s, x, y, i, j: tp.sum(y * j, "a") * i,
        lambda s, x, y, i, j: s + i,
        lambda s, x, y, i, j: s * j,
        lambda s, x, y, i, j: tp.sum(s * tp.rename(j, a="d") * y, "a"),
    ],
)
def test_width_and_inner_width_meet(make):
    rng = np.random.default_rng(0)
    x, y = tp.Vector("x", WIDTH), tp.Vector("y", WIDTH, axes={"a": 2})
    i, j = body(tp.Vector("i", OTHER)), body(tp.Vector("j", OTHER, axes={"a": 2}))
    s = tp.array([0.5, 2.0], "a") + tp.moment(x)
    shapes = {"x": (N,), "y": (2, N), "i": (M,), "j": (2, M)}
    leaves = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    agree(make(s, x, y, i, j).node, leaves)


def test_a_scalar_spread_over_width_and_axes_has_all_its_axes():
    theta = tp.moment(tp.Vector("x", WIDTH)).node
    for shape in ((), (2, 3)):
        spread = algebra.typed(theta, shape, WIDTH, OTHER)
        assert kernel(spread)(np.float64(2)).shape == (1,) * (len(shape) + 2)


def test_size_one_axes_stand_for_the_whole_axis():
    x = tp.Vector("x", WIDTH, axes={"a": 4})
    one = np.full((1, N), 3.0)
    assert np.array_equal(kernel(algebra.take(x.node, 0, 2))(one), one[0])
    assert np.array_equal(kernel(algebra.sum_axis(x.node, 0))(one), 4 * one[0])
    theta = tp.moment(x)
    assert np.array_equal(kernel(tp.softmax(theta, "a").node)(np.ones(1)), [0.25])
    assert kernel(tp.stack([x, 2 * x], "b").node)(one, np.ones((4, N))).shape == (2, 4, N)
    fused = contraction(tp.moment(tp.sum(x * tp.Vector("y", WIDTH, axes={"a": 4}), "a")).node)
    assert fused is not None and fused(one, np.ones((1, N))) == 12 and fused(one, np.ones((4, 1))) == 12


def test_softmax_does_not_overflow():
    theta = tp.moment(tp.Vector("x", WIDTH, axes={"a": 2}))
    assert np.array_equal(kernel(tp.softmax(theta, "a").node)(np.array([1e4, -1e4])), [1, 0])


def test_constants_are_float64_whatever_they_were():
    c = kernel(algebra.constant(np.array([Fraction(1, 3), 2], dtype=object), (2,), WIDTH))()
    assert c.dtype == np.float64 and c.shape == (2, 1) and c[0, 0] == 1 / 3


def test_diagonals_by_renaming():
    rng = np.random.default_rng(1)
    u = tp.Vector("u", WIDTH, axes={"b": 3, "c": 3})
    diagonal = tp.Expression(algebra.view(u.node, (0, 0), (3,)), ("b",))
    array = rng.normal(size=(3, 3, N))
    agree(tp.moment(diagonal * u).node, {"u": array})
    np.testing.assert_allclose(evaluate(diagonal.node, {"u": array}), array[range(3), range(3)])


def test_products_needed_elsewhere_are_kept_and_the_others_fused():
    x, y = tp.Vector("x", WIDTH, axes={"a": 2}), tp.Vector("y", WIDTH)
    product = x * y
    fused = [s for s in schedule([tp.moment(tp.sum(product, "a")).node, tp.moment(product).node])
             if isinstance(s.compute, Contraction)]  # fmt: skip
    assert len(fused) == 2  # both are sums of the product, which is never made
    steps = schedule([tp.moment(product).node, tp.moment(tp.tanh(product)).node])
    assert [s.node.op for s in steps].count("mul") == 1 and not any(isinstance(s.compute, Contraction) for s in steps)
    assert all(s.compute is None for s in schedule([tp.moment(product).node], moments=False) if s.node.op == "moment")


def test_a_gram_matrix_is_made_without_the_array_of_products():
    z = tp.Vector("z", WIDTH, axes={"b": 300})
    array = np.random.default_rng(0).normal(size=(300, 2000))
    weights = tp.array(np.full((300, 300), 1 / 300), ("b", "c"))
    gram, attention = tp.moment(z * tp.rename(z, b="c")), tp.sum(weights * tp.rename(z, b="c"), "c")
    tracemalloc.start()
    got = {}
    for name, root in (("gram", gram.node), ("attention", attention.node)):
        env: dict[Node, np.ndarray] = {}
        for step in schedule([root]):
            env[step.node] = array if step.compute is None else step.compute(*[env[a] for a in step.operands])
        got[name] = env[root]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * array.nbytes  # the products would take 300 times the array
    np.testing.assert_allclose(got["gram"], array @ array.T / 2000, atol=1e-13)
    np.testing.assert_allclose(got["attention"], np.broadcast_to(array.mean(axis=0), (300, 2000)), atol=1e-13)


def test_products_take_plain_numbers() -> None:
    """Parameters of integrands are floats, and so may be all that is there."""
    body = algebra.mul(
        [(Node("var", (), 0), 2), (Node("param", (), 0), 1), (Node("var", (), 1), 1), (Node("param", (), 1), 1)]
    )
    run, z = kernel(body), np.array([1.0, 2.0])
    given = {("var", 0): z, ("var", 1): 3.0, ("param", 0): 0.5, ("param", 1): 7.0}
    found = run(*[given[a.op, a.attr] for a in body.args])
    np.testing.assert_array_equal(found, z**2 * 0.5 * 3 * 7)
    assert run(*[2.0 for _ in body.args]) == 2.0 ** sum(body.attr)
