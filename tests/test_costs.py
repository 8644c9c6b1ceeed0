"""Costs as counts: a blow-up of the compiler stays correct, and only a count sees it.

The nodes of the Z-program and the scalar program, and the questions the rules asked each other, for five fixed
programs. A change that
lowers a count may lower its bound here; one that raises it has to say why.
"""

import itertools
from fractions import Fraction

import numpy as np
import pytest

import tensorprog as tp
from tensorprog.language.node import Node, topological
from tensorprog.limits.expect.lower import Lowering

N = tp.Width("n")


def mlp(depth):
    x = tp.Vector("x", N, axes=("b",), cov=[[2, 1], [1, 3]])
    for layer in range(depth):
        x = tp.relu(tp.Matrix(f"W{layer}", N, N, var=2) @ x)
    return tp.Program(kernel=tp.moment(x * tp.rename(x, b="c")))


def catalan(k):
    W, v = tp.Matrix("W", N, N), tp.Vector("v", N)
    x, outputs = v, {}
    for i in range(k):
        x = W @ (W.T @ x)
        outputs[f"m{i}"] = tp.moment(v * x)
    return tp.Program(outputs)


def semicircle(k):
    W, v = tp.Matrix("W", N, N, var=Fraction(1, 2)), tp.Vector("v", N)
    x = v
    for _ in range(k):
        x = W @ x + W.T @ x
    return tp.Program(m=tp.moment(v * x))


def tied(k):
    W, x = tp.Matrix("W", N, N), tp.Vector("x", N)
    for _ in range(k):
        x = W.T @ tp.tanh(W @ x)
    return tp.Program(m=tp.moment(x * x))


def rnn(steps):
    W, u = tp.Matrix("W", N, N), tp.Vector("u", N, axes=("t",), cov=np.eye(steps, dtype=int))
    s = tp.erf(tp.take(u, "t", 0))
    for t in range(1, steps):
        s = tp.erf(W @ s + tp.take(u, "t", t))
    return tp.Program(m=tp.moment(s * s))


def recurrent(steps):
    """The tangent kernel of an RNN on two examples: W has been used at all times; pairs of times are rows."""
    h = tp.rnn("R", tp.Input("x", axes=("t",)), N, phi=tp.erf, b_std=1)
    return tp.Network(tp.readout("v", tp.mean(h, "t"))).program(np.random.default_rng(0).standard_normal((2, steps, 3)))


def last_state(steps):
    """Only gradients at equal times are correlated: what multiplies the others is not asked for."""
    h = tp.rnn("R", tp.Input("x", axes=("t",)), N, phi=tp.erf, b_std=1)
    net = tp.Network(tp.readout("v", tp.take(h, "t", -1)))
    return net.program(np.random.default_rng(0).standard_normal((2, steps, 3)))


def residual(blocks):
    h = tp.dense("U", tp.Input("x"), N)
    for i in range(blocks):
        h = tp.residual(lambda y, i=i: tp.dense(f"V{i}", tp.relu(tp.dense(f"W{i}", y, N)), N), h)
    return tp.Network(tp.readout("v", h)).program(np.random.default_rng(0).standard_normal((2, 3)))


def ungated(blocks):
    """A block's function is not followed by a matrix: the state is a sum as long as the network is deep."""
    x = tp.Vector("x", N, axes=("a",), cov=[[2, 1], [1, 3]])
    for i in range(blocks):
        x = x + tp.relu(tp.Matrix(f"W{i}", N, N) @ x)
    return tp.Program(kernel=tp.moment(x * tp.rename(x, a="b")))


def ungated_tangent(blocks):
    h = tp.dense("U", tp.Input("x"), N)
    for i in range(blocks):
        h = tp.residual(lambda y, i=i: tp.relu(tp.dense(f"W{i}", y, N)), h)
    return tp.Network(tp.readout("v", h)).program(np.random.default_rng(0).standard_normal((2, 3)))


def calls(build, size):
    """How many nodes are made: that sees work that is done again and leaves nothing behind."""
    made = 0
    init = Node.__init__

    def counted(self, *args, **keywords):
        nonlocal made
        made += 1
        init(self, *args, **keywords)

    Node.__init__ = counted
    try:
        found = cost(build(size))
    finally:
        Node.__init__ = init
    return (*found, made)


def cost(program):
    lowering = Lowering(program, {})
    scalars = [lowering.z[o.node] for o in program.outputs.values()]
    return len(topological(lowering.z.values())), len(topological(scalars)), len(lowering.expectation.solver.memo)


@pytest.mark.parametrize(
    ("build", "size", "bounds"),
    [
        (mlp, 50, (208, 102, 504)),
        (catalan, 20, (157, 20, 215)),
        (semicircle, 16, (94, 1, 220)),
        (tied, 4, (181, 142, 281)),
        (rnn, 12, (85, 37, 113)),
    ],
    ids=["mlp", "catalan", "semicircle", "tied", "rnn"],
)
def test_node_counts(build, size, bounds):
    found = cost(build(size))
    assert all(f <= b for f, b in zip(found, bounds, strict=True)), f"{found} exceeds {bounds}"


@pytest.mark.parametrize(
    ("build", "sizes", "growth"),
    [
        (recurrent, (12, 24), 1.7),
        (last_state, (6, 12, 24), 2.0),
        (residual, (15, 30), 1.1),
        (ungated, (20, 40), 1.1),
        (ungated_tangent, (10, 20), 1.1),
    ],
    ids=["recurrent", "last state", "residual", "sums", "sums, tangent"],
)
def test_costs_of_tangent_kernels(build, sizes, growth):
    """Linear in the depth, less than quadratic in the time; nodes made count what is thrown away, too."""
    found = [calls(build, size) for size in sizes]
    for a, b in itertools.pairwise(found):
        exponents = [np.log2(y / x) for x, y in zip(a, b, strict=True)]
        assert max(exponents) < growth, f"{found}: {exponents}"


def test_the_cost_of_a_layer_does_not_grow_with_depth():
    small, large = cost(mlp(30)), cost(mlp(150))
    assert all(b <= 5 * a for a, b in zip(small, large, strict=True))
