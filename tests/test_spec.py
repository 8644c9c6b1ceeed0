"""The table of operations: every stage makes legal graphs only, on random programs and on networks of many kinds."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from marks import few
from strategies import programs

import tensorprog as tp
from tensorprog.execute.factors import MatrixPlan
from tensorprog.kernels.compile import compile_pair
from tensorprog.language.algebra import ZERO, constant, fn, moment
from tensorprog.language.attributes import Call, Product, Take
from tensorprog.language.node import Node, topological
from tensorprog.language.spec import SPEC, Dialect, IllegalNode, check
from tensorprog.limits.expect.expectation import Expectation
from tensorprog.limits.expect.lower import Lowering
from tensorprog.transforms.parametrization import parametrization

N = tp.Width("n")
X = tp.Vector("x", N).node


def stages(p):
    """A program, its Z-program, its scalar program, its integrands."""
    check([o.node for o in p.outputs.values()], Dialect.PROGRAM)
    lowering = Lowering(p, p.values(None), Expectation())
    scalars = []
    for x, z in lowering.z.items():
        if x.width is None and x.inner is None:
            scalars.append(z)
    vectors = [z for x, z in lowering.z.items() if x.width is not None]
    known = check(scalars, Dialect.SCALAR)
    for x in known:
        if hasattr(x.attr, "body"):
            check([x.attr.body], Dialect.INTEGRAND)
    # scalars of the limit stand in a Z-program as what they are
    for x in topological(vectors):
        assert any(d in SPEC[x.op].dialects for d in (Dialect.Z, Dialect.SCALAR)), x
    return lowering


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs(max_instructions=10))
def test_stages_of_random_programs(p):
    stages(p)


def dense(x):
    return tp.dense("U", x, N, W_std=1.5, b_std=0.5)


def image(strides):
    h = tp.conv("C", tp.tanh(tp.dense("U", tp.Input("x", axes=("h", "w")), N)), N, 3, strides=strides)
    return tp.Network(tp.readout("v", tp.relu(h), over=("h", "w")))


x, t = tp.Input("x"), tp.Input("x", axes=("t",))
NETWORKS = {
    "mlp": (lambda: tp.Network(tp.readout("v", tp.elu(tp.dense("W", tp.relu(dense(x)), N)))), (3,)),
    "layer norm": (lambda: tp.Network(tp.readout("v", tp.gelu(tp.layer_norm(dense(x))), b_std=1)), (3,)),
    "tanh, several outputs": (
        lambda: tp.Network([tp.readout("v", tp.tanh(dense(x))), tp.readout("w", dense(x))]),
        (3,),
    ),
    "hyperparameters": (
        lambda: tp.Network(tp.readout("v", tp.relu(tp.dense("U", x, N, W_std=tp.Scalar("s", 2))))),
        (3,),
    ),
    "convolution": (lambda: image(1), (4, 4, 2)),
    "strided convolution": (lambda: image(2), (4, 4, 2)),
    "attention": (lambda: tp.Network(tp.readout("v", tp.mean(tp.transformer_block("b", dense(t), N), "t"))), (3, 2)),
    "rnn": (lambda: tp.Network(tp.readout("v", tp.mean(tp.rnn("r", t, N, phi=tp.relu), "t"))), (3, 2)),
}


@pytest.mark.parametrize("name", few(NETWORKS, [name for name in NETWORKS if name != "convolution"]))
def test_stages_of_networks(name):
    build, shape = NETWORKS[name]
    net = build()
    compiled = compile_pair(net, {"x": shape}, {"x": shape}, ("nngp", "ntk"), parametrization("ntk"))
    assert not compiled.declined
    for batched, p in zip((compiled.pair, compiled.same), compiled.programs, strict=True):
        stages(p)
        check(batched.outputs, Dialect.BLOCKS)
    stages(net.program(np.arange(2 * np.prod(shape)).reshape(2, *shape) / 10.0))


def test_matrices_of_a_run():
    h, d = tp.Vector("h", N, axes={"b": 2}), tp.Vector("d", N, axes={"b": 2})
    W = tp.Matrix("W", N, N)
    g = tp.sum(tp.matrix(lambda a, b: a * b, d, h), "b")
    for m in (W - 2 * g, W - g / (tp.abs(g) + 1), tp.take(tp.matrix(lambda a, b: tp.tanh(a) * b, d, h), "b", 1) + W):
        plan = MatrixPlan().of(m.node)
        assert {x.op for x in check([plan], Dialect.RUN)} & {"factors", "entries"}
        p = tp.Program(q=tp.moment((m @ (m.T @ tp.Vector("x", N))) ** 2))
        check([o.node for o in p.outputs.values()], Dialect.PROGRAM)


def test_the_table_is_complete():
    """Every operation that some module makes has a row, and every row is documented."""
    made = set()
    for file in Path(tp.__file__).parent.rglob("*.py"):
        made |= set(re.findall(r'[Nn]ode\(\s*"(\w+)"', file.read_text(encoding="utf-8")))
    assert made == set(SPEC)
    assert all(row.meaning and row.dialects for row in SPEC.values())


ILLEGAL = {
    "no such operation": Node("nothing", (X,)),
    "an operand too many": Node("moment", (X, X), None, ()),
    "an operand too few": Node("add", (), ()),
    "a coefficient too many": Node("add", (X,), (1, 2), (), N),
    "an exponent of 0": Node("mul", (X,), (0,), (), N),
    "a Moment that is a vector": Node("moment", (X,), None, (), N),
    "a Moment of a scalar": Node("moment", (constant(2),), None, ()),
    "a function that is none": Node("fn", (X,), Call("nothing", ()), (), N),
    "a parameter too many": Node("fn", (X,), Call("relu", (1,)), (), N),
    "a vector of another width": Node("vector", (), X.attr, (), tp.Width("m")),
    "a position that is none": Node("take", (constant(np.arange(3)),), Take(0, 3), ()),
    "a view of another size": Node("view", (constant(np.arange(3)),), (0,), (4,)),
    "a sum over no axis": Node("sum", (X,), 0, (), N),
    "a product with the width of a vector": Node(
        "matmul", (X,), Product(tp.Matrix("W", N, tp.Width("m")), False), (), N
    ),
    "an array of another shape": Node("constant", (), np.arange(3), (4,)),
}


@pytest.mark.parametrize("name", ILLEGAL)
def test_what_is_illegal_is_found(name):
    with pytest.raises(IllegalNode):
        check([ILLEGAL[name]], Dialect.PROGRAM)


def test_what_belongs_elsewhere_is_found():
    check([moment(X)], Dialect.PROGRAM)
    for dialect in (Dialect.SCALAR, Dialect.INTEGRAND, Dialect.BLOCKS):
        with pytest.raises(IllegalNode, match=f"no operation of the dialect {dialect.value}"):
            check([moment(X)], dialect)
    with pytest.raises(IllegalNode):
        check([fn("relu", Node("var", (), 0))], Dialect.PROGRAM)
    check([fn("relu", Node("var", (), 0)), ZERO], Dialect.INTEGRAND)
