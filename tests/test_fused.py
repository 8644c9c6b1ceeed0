"""Kernels as generated source: the functions it calls, the source as plain Python, and compiled code, against NumPy's tiles."""

from __future__ import annotations

import numpy as np
import pytest

import tensorprog as tp
from tensorprog.arrays.plan import schedule
from tensorprog.errors import TensorProgramError
from tensorprog.limits.fused import compiled, functions
from tensorprog.limits.fused.code import as_code
from tensorprog.limits.fused.compiled import Fused, interpreted
from tensorprog.limits.pairs.call import Call
from tensorprog.limits.pairs.carried import Carried
from tensorprog.limits.pairs.inner_products import Products
from tensorprog.limits.tasks import Declined

n = tp.Width("n")
RNG = np.random.default_rng(0)


def mlp(phi, depth, **options):
    h = tp.Input("x")
    for k in range(depth):
        h = phi(tp.dense(f"W{k}", h, n, **options))
    return tp.Network(tp.readout("v", h))


def normalized():
    h = tp.Input("x")
    for k in range(2):
        h = tp.relu(tp.layer_norm(tp.dense(f"W{k}", h, n, b_std=0.1)))
    return tp.Network(tp.readout("v", h))


def residual():
    h = tp.dense("U", tp.Input("x"), n)
    for k in range(5):
        h = h + tp.dense(f"W{k}", tp.relu(h), n, b_std=0.3)
    return tp.Network(tp.readout("v", h))


NETWORKS = {
    "relu": lambda: mlp(tp.relu, 3, W_std=2**0.5),
    "leaky relu": lambda: mlp(lambda h: tp.leaky_relu(h, 0.1), 1, b_std=0.5),
    "erf": lambda: mlp(tp.erf, 4, W_std=1.5, b_std=0.1),
    "gelu": lambda: mlp(tp.gelu, 2, W_std=1.5, b_std=0.1),
    "identity": lambda: mlp(lambda h: h, 2),
    "sin": lambda: mlp(tp.sin, 2),
    "square": lambda: mlp(lambda h: h * h * h * h * h, 1),
    "layer norm": normalized,
    "residual": residual,
}


def programs(net, X):
    f = tp.kernel_fn(net)
    f(X[:2])
    (known,) = f._compiled.values()
    return [c.pair for c in known.values()]


def in_the_last_place(found, exact):
    return np.abs(np.asarray(found, np.longdouble) - exact) / np.spacing(np.abs(exact).astype(float))


@pytest.mark.parametrize("name", ["arccos", "arcsin"])
def test_inverse_functions_are_right_to_the_last_digits(name):
    near = np.concatenate([2.0 ** -np.arange(1.0, 53), RNG.uniform(0, 1, 4000) ** 4])
    x = np.concatenate([RNG.uniform(-1, 1, 4000), 1 - near, near - 1, near, -near, [0.0, 0.5, -0.5, 1.0, -1.0]])
    exact = getattr(np, name)(x.astype(np.longdouble))
    found = [getattr(functions, name)(float(v)) for v in x]
    assert np.finfo(np.longdouble).eps < 1e-18 or pytest.skip("no wider floats here")
    assert in_the_last_place(found, exact).max() < 2.5


def test_closed_forms_at_their_ends():
    assert functions.correlation(2.0, 2.0, 2.0) == 1 and functions.correlation(2.0, -2.0, 2.0) == -1
    assert functions.correlation(0.0, 0.0, 1.0) == functions.correlation(1.0, 0.0, -1e-300) == 0
    for size in (1e-300, 1e300):  # whose products are no floats
        assert abs(functions.correlation(size, size / 2, size) - 0.5) < 1e-15
    assert functions.relu_kernel(1.0, 3.0) == 1.5 and functions.relu_kernel(-1.0, 3.0) == 0
    assert functions.sign_kernel(1.0) == 1 and functions.sign_kernel(-1.0) == -1 and functions.sign_kernel(0.0) == 0
    assert functions.residual(1.0, 1.0, 1.0 + 2**-52, 1.0) == 0 and functions.residual(3.0, 2.0, 2.0, 0.0) == 3
    assert functions.pinv(0.0) == 0 and functions.density(0.0) == 0
    assert abs(functions.density(2.0) - 1 / (4 * np.pi) ** 0.5) < 1e-16


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("scale", [1e-8, 1, 1e4])
def test_the_source_computes_what_arrays_do(name, scale):
    X = RNG.standard_normal((5, 3)) * scale
    X[1], X[2], X[3] = X[0], -X[0], 0  # all ends of correlation
    Z = np.concatenate([X[:2], RNG.standard_normal((2, 3)) * scale])
    stated = tp.kernel_fn(NETWORKS[name](), fast=False)(X, Z).error  # near correlation 1 slopes know half of the digits
    for program in programs(NETWORKS[name](), X):
        products = Products({"x": X}, {"x": Z}, np.float64)
        block = products.block(program.data, slice(0, 5), slice(0, 4))
        wanted = program.run(block, call=Call(fast=False))
        code = as_code(program.outputs)
        fused, tile = Fused(code), interpreted(code)
        values = {}
        for step in schedule(fused.needs, moments=False):
            s = Carried(step)
            arrays = [values[a] for a in s.operands]
            values[s.node] = block.products[s.node.attr] if s.node.op == "data" else s.compute(arrays, Call(), 1)
        if not fused.fits(values):  # noise that is lost in a variance
            assert scale == 1e4 and name != "relu"
            continue
        out = {x: np.full((5, 4), np.nan) for x in code.outputs}
        arguments = fused.arguments(values, block.products, out, 5, 4)
        tile(0, 2, 0, 4, *arguments)
        tile(2, 5, 0, 3, *arguments)
        tile(2, 5, 3, 4, *arguments)
        for x, full, error in zip(program.outputs, wanted, stated.values(), strict=True):
            if x in out:
                assert np.abs(out[x] - full).max() <= error + 1e-14 * np.abs(full).max()


def test_what_has_no_source_is_declined():
    (program,) = programs(mlp(tp.tanh, 1), np.eye(3))
    with pytest.raises(Declined, match="gauss"):
        as_code(program.outputs)


@pytest.mark.parametrize("depth", [5, 15])
def test_source_and_workspace_grow_with_depth_alone(depth):
    (program,) = programs(mlp(tp.relu, depth, W_std=2**0.5), np.eye(3))
    code = as_code(program.outputs)
    lines = code.source.split("\n")
    assert len(lines) < 30 * depth
    assert max(map(len, lines)) < 1000
    assert code.work == sum([16 if s.node.op == "dual" else 2 for s in program.pairs])


def test_it_is_compiled_where_that_pays(monkeypatch):
    (program,) = programs(mlp(tp.relu, 2), np.eye(3))
    fused = Fused(as_code(program.outputs))
    made = []
    monkeypatch.setattr(Fused, "_compiled", lambda self: made.append(1) or (lambda *_: None))
    monkeypatch.setattr(Fused, "is_kept", False)
    pairs = compiled.COMPILED // fused.code.work // 2
    assert not fused.ready(pairs, None) and not made
    assert not fused.ready(10 * pairs, False) and not made
    assert fused.ready(pairs, None) and made == [1]
    assert fused.ready(1, None) and not fused.ready(1, False) and made == [1]


def test_options_are_looked_at(monkeypatch):
    with pytest.raises(TensorProgramError, match="fast='yes'"):
        tp.kernel_fn(mlp(tp.relu, 1), fast="yes")
    monkeypatch.setattr("tensorprog.kernels.routes.available", lambda: False)
    with pytest.raises(TensorProgramError, match="without a compiler"):
        tp.kernel_fn(mlp(tp.relu, 1), fast=True)
    tp.kernel_fn(mlp(tp.relu, 1), fast=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["relu", "erf", "gelu", "layer norm", "residual"])
def test_compiled_kernels_are_the_same(name, tmp_path, monkeypatch):
    pytest.importorskip("numba")
    monkeypatch.setenv("TENSORPROG_CACHE", str(tmp_path))
    net = NETWORKS[name]()
    X, Z = RNG.standard_normal((300, 5)), RNG.standard_normal((70, 5)) * np.geomspace(1e-8, 1e2, 70)[:, None]
    X[7], X[8], X[9] = X[6], -X[6], 0
    plain, fast = tp.kernel_fn(net, fast=False), tp.kernel_fn(net, fast=True)
    for data in ((X,), (X, Z), (Z, X)):
        slow, quick = plain(*data), fast(*data)
        for k in ("nngp", "ntk"):
            a, b = getattr(slow, k), getattr(quick, k)
            assert np.abs(a - b).max() <= slow.error[k] + 1e-14 * np.abs(a).max()
            if len(data) == 1:
                assert np.array_equal(b, b.T)
                assert np.array_equal(np.diag(a), np.diag(b))
    assert any(tmp_path.rglob("*.py"))
    for c in programs(net, X):
        assert c.fused is not None and c.fused.ready(1, None)
