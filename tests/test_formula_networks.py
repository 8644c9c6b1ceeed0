"""Formulas of networks in the inner products of their inputs: the numbers that `kernel_fn` has, and symbols explained."""

import numpy as np
import pytest
import sympy

import tensorprog as tp

n = tp.Width("n")


def mlp(phi, depth=2, **std):
    h = tp.Input("x")
    for layer in range(depth):
        h = phi(tp.dense(f"W{layer}", h, n, **std))
    return tp.Network(tp.readout("v", h))


@pytest.mark.parametrize("parametrization", ["ntk", "tp"])
@pytest.mark.parametrize("phi", [tp.relu, tp.erf, tp.gelu, tp.sin, tp.exp])
def test_numbers_of_a_pair(phi, parametrization):
    net = mlp(phi, depth=1 if phi is tp.exp else 2, W_std=1.25, b_std=0.5)
    f = tp.formula(net, parametrization=parametrization)
    X = np.array([[1.0, 2.0], [0.5, -1.0]])
    k = tp.kernel_fn(net, parametrization=parametrization)(X)
    G = X @ X.T / 2
    for i, j in ((0, 1), (1, 0), (0, 0)):
        found = f.evalf(15, values={"S11": G[i, i], "S12": G[i, j], "S22": G[j, j]})
        assert found["nngp"] == pytest.approx(k.nngp[i, j], rel=1e-12)
        assert float(found["ntk"]) == pytest.approx(k.ntk[i, j], rel=1e-12)


def test_positions_are_indices_of_inner_products():
    net = tp.Network(tp.readout("v", tp.global_avg_pool(tp.relu(tp.dense("U", tp.Input("x", axes=("h", "w")), n)))))
    f = tp.formula(net, (1, 2, 2, 3))
    X = np.random.default_rng(0).standard_normal((2, 2, 2, 3))
    S = {f"S{i + 1}{j + 1}": np.einsum("hwc,uvc->hwuv", X[i], X[j]) / 3 for i, j in ((0, 0), (0, 1), (1, 1))}
    k = tp.kernel_fn(net)(X)
    found = f.evalf(15, values=S)
    assert float(found["nngp"]) == pytest.approx(k.nngp[0, 1], rel=1e-12)
    assert float(found["ntk"]) == pytest.approx(k.ntk[0, 1], rel=1e-12)


def test_every_symbol_is_explained():
    x, q = tp.Input("x"), tp.Input("q")
    h = tp.relu(tp.dense("U", x, n)) * tp.sign(tp.dense("V", q, n, b_std=1)) + tp.Scalar("eta") * tp.dense("W", x, n)
    f = tp.formula(tp.Network([tp.readout("v", tp.erf(h)), tp.readout("w", h)]), of="nngp")
    used = set()
    for e in [*[e for _, e in f.lets], *f.values()]:
        used |= {str(s.base.label) if isinstance(s, sympy.Indexed) else str(s) for s in e.free_symbols}
    unexplained = {s for s in used if s not in f.legend and "[" not in s and not s.startswith("z")}
    assert not unexplained
    assert f.legend["S_x12"].endswith("x.x'/d") and f.legend["S_q22"].endswith("q'.q'/d")
    assert "S_x12: " in str(f)


def test_what_has_no_formula_without_data_says_so():
    with pytest.raises(tp.TensorProgramError, match="mixes the examples"):
        tp.formula(tp.Network(tp.readout("v", tp.batch_norm(tp.dense("U", tp.Input("x"), n)))))
    with pytest.raises(tp.TensorProgramError, match="without data"):
        tp.formula(mlp(tp.relu), of="f")
    with pytest.raises(tp.TensorProgramError, match="the shape"):
        tp.formula(tp.Network(tp.readout("v", tp.dense("U", tp.Input("x", axes=("t",)), n))), (2, 3))


def test_a_formula_is_of_as_many_outputs_on_both_sides():
    calls = []

    def forgetful(x):
        calls.append(x)
        return [tp.readout(f"v{k}", tp.dense("U", x, n)) for k in range(len(calls))]

    with pytest.raises(tp.TensorProgramError, match="1 or 2 outputs"):
        tp.formula(tp.Network(forgetful, [tp.Input("x")]), of="nngp")


def test_data_gives_numbers_as_before():
    f = tp.formula(mlp(tp.relu, depth=1), [[1.0, 1.0], [1.0, -1.0]])
    assert f.evalf(15)["nngp"].shape == (2, 2)


def test_the_command_line_writes_the_kernel_of_two_examples(capsys):
    import json

    from tensorprog.cli import main

    assert main(["formula", "programs/mlp.py", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "S12" in found["outputs"]["ntk"]["formula"] and found["legend"]["S12"].endswith("x.x'/d")


@pytest.mark.parametrize("name", ["m", "s"])
def test_coefficients_of_examples_are_symbols(name):
    """An index of a sum has no symbol's name."""
    x, m = tp.Input("x", axes=("t",)), tp.Input(name, axes=("t",), features=False)
    h = tp.relu(m * tp.dense("U", x, n, b_std=tp.Scalar("s3", 1)))
    net = tp.Network(tp.readout("v", tp.mean(h, "t")))
    f = tp.formula(net, {"x": (1, 3, 2), name: (1, 3)})
    rng = np.random.default_rng(0)
    X, M = rng.standard_normal((2, 3, 2)), rng.standard_normal((2, 3))
    S = {f"S_x{i + 1}{j + 1}": np.einsum("tc,uc->tu", X[i], X[j]) / 2 for i, j in ((0, 0), (0, 1), (1, 1))}
    k = tp.kernel_fn(net)({"x": X, name: M})
    found = f.evalf(15, values={**S, f"{name}1": M[0], f"{name}2": M[1], "s3": 1})
    for kernel in ("nngp", "ntk"):
        assert float(found[kernel]) == pytest.approx(getattr(k, kernel)[0, 1], rel=1e-12)
    assert "coefficients" in f.legend[f"{name}1"]
    dummies = {str(k) for e in [*[e for _, e in f.lets], *f.values()] for s in e.atoms(sympy.Sum) for k in s.variables}
    assert not dummies & {f"{name}1", f"{name}2", "s3"}


def test_a_graph_of_each_example_is_a_symbol():
    x, a = tp.Input("x", axes=("node",)), tp.Input("A", axes=("node", "node_in"), features=False)
    net = tp.Network(lambda x, a: tp.readout("v", tp.mean(tp.relu(tp.graph_conv("G", x, n, a)), "node")), [x, a])
    f = tp.formula(net, {"x": (1, 2, 2), "A": (1, 2, 2)}, of="nngp")
    X = np.random.default_rng(0).standard_normal((2, 2, 2))
    A = np.array([[[0.0, 1.0], [1.0, 0.0]], [[0.0, 0.5], [0.5, 0.0]]])
    S = {f"S_x{i + 1}{j + 1}": np.einsum("tc,uc->tu", X[i], X[j]) / 2 for i, j in ((0, 0), (0, 1), (1, 1))}
    found = f.evalf(15, values={**S, "A1": A[0], "A2": A[1]})
    assert float(found["nngp"]) == pytest.approx(tp.kernel_fn(net)({"x": X, "A": A}).nngp[0, 1], rel=1e-12)


@pytest.mark.parametrize("bad", ["1", 1j, np.ma.masked_array([1.0], [True])[0], np.datetime64("2020-01-01")])
def test_values_are_numbers(bad):
    with pytest.raises(tp.TensorProgramError, match="the value of S11"):
        tp.formula(mlp(tp.relu)).evalf(values={"S11": bad, "S12": 0, "S22": 1})
    assert tp.formula(mlp(tp.relu)).evalf(values={"S11": sympy.Rational(1, 2), "S12": 0, "S22": 1})["nngp"] > 0
