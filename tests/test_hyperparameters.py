"""Standard deviations of layers as hyperparameters: symbols in formulas, numbers in `values=`, the same kernels as numbers."""

import pickle
from fractions import Fraction

import numpy as np
import pytest
import sympy
from marks import few, refused

import tensorprog as tp

n = tp.Width("n")
VALUES = {"s": 1.5, "t": 0.5}


def mlp(s, t):
    h = tp.erf(tp.dense("U", tp.Input("x"), n, W_std=s, b_std=t))
    return tp.Network(tp.readout("v", tp.relu(tp.dense("W", h, n, W_std=t, b_std=s)), W_std=s, b_std=t))


def lists(s, t):
    x = tp.Input("x")
    h = tp.dense("L", [tp.relu(tp.dense("U", x, n)), tp.erf(tp.dense("V", x, n))], n, W_std=s)
    return tp.Network([tp.readout("v", [h, tp.relu(h)], W_std=t), tp.readout("w", h, W_std=s * t)])


def recurrent(s, t):
    h = tp.rnn("R", tp.Input("x", axes=("t",)), n, phi=tp.relu, W_std=s, U_std=t, b_std=s)
    return tp.Network(tp.readout("v", tp.mean(h, "t")))


def convolution(s, t):
    h = tp.relu(tp.conv("C", tp.Input("x", axes=("t",)), n, filter=3, axes="t", W_std=s, b_std=t))
    return tp.Network(tp.readout("v", tp.conv("D", h, n, filter=3, axes="t", W_std=t), over="t", W_std=s))


def attention(s, t):
    h = tp.dense("U", tp.Input("x", axes=("t",)), n, W_std=s)
    return tp.Network(
        tp.readout("v", tp.mean(tp.self_attention("A", h, n, W_key_std=s, W_query_std=t, tied=True), "t"))
    )


def average(s, t):
    return tp.Network(tp.moment(tp.relu(tp.dense("U", tp.Input("x"), n, W_std=s, b_std=t)) ** 2))


NETWORKS = [mlp, lists, recurrent, convolution, attention, average]


def data(net):
    axes = net.inputs[0].axis_names
    return np.random.default_rng(0).standard_normal((2, *([3] * len(axes or ())), 2))


@pytest.mark.parametrize("parametrization", few(["ntk", "tp", "standard"], ["standard"]))
@pytest.mark.parametrize("build", NETWORKS)
def test_kernels_are_those_of_the_numbers(build, parametrization):
    options = {"parametrization": parametrization} | ({"width": 64} if parametrization == "standard" else {})
    net, plain = build(tp.Scalar("s"), tp.Scalar("t")), build(*VALUES.values())
    X = data(net)
    found = tp.limit(net, X, values=VALUES, **options)
    right = tp.limit(plain, X, **options)
    for name in right:
        assert np.allclose(np.array(found[name]), np.array(right[name]), rtol=1e-11, atol=0), name


@pytest.mark.parametrize("build", NETWORKS)
def test_finite_networks_have_the_limit_too(build):
    net = build(tp.Scalar("s"), tp.Scalar("t"))
    names = [k for k in net.program(data(net)).outputs if k != "f"]
    c = tp.compare(net, data(net), widths=[64, 128, 256], seeds=12, values=VALUES, of=names)
    assert c.agrees, c  # right limits fail with probability 1e-3


def test_rational_values_stay_exact():
    x = tp.Vector("x", n)
    h = tp.dense("W", tp.relu(x), n, W_std=tp.Scalar("s"), b_std=tp.Scalar("t"))
    found = tp.limit(tp.Program(q=tp.moment(h * h)), values={"s": Fraction(2, 3), "t": 1})
    assert found["q"].value == Fraction(11, 9) and found["q"].method == "exact"


def test_formulas_have_symbols():
    s = sympy.Symbol("s", real=True)
    net = tp.Network(tp.readout("v", tp.dense("U", tp.Input("x"), n), W_std=tp.Scalar("s")))
    assert sympy.simplify(tp.formula(net)["ntk"] - 2 * s**2 * sympy.Symbol("S12", real=True)) == 0
    assert (
        sympy.simplify(tp.formula(net, parametrization="tp")["ntk"] - (1 + s**2) * sympy.Symbol("S12", real=True)) == 0
    )


def test_what_is_no_hyperparameter_is_refused():
    x = tp.Vector("x", n)
    for bad in (x, tp.moment(x * x), tp.inverse_sqrt(n)):
        with refused("W_std of layer W"):
            tp.dense("W", x, n, W_std=bad)
    s, t = tp.Scalar("s"), tp.Scalar("t")

    def twice(x):
        h = tp.dense("U", x, n)
        return tp.readout("v", tp.relu(tp.dense("W", h, n, W_std=s)) + tp.dense("W", h, n, W_std=t))

    with refused(r"two different matrices are called 'W'.* std [st] .* std [st] "):
        tp.limit(tp.Network(twice), [[1.0]], values=VALUES)


@pytest.mark.parametrize("build", NETWORKS)
def test_kernel_fn_takes_numbers(build):
    net, plain = build(tp.Scalar("s"), tp.Scalar("t", 0.5)), build(*VALUES.values())
    X = data(net)
    assert np.allclose(
        tp.kernel_fn(net)(X, get="ntk", values={"s": 1.5}), tp.kernel_fn(plain)(X, get="ntk"), rtol=1e-12
    )


def test_kernel_fn_compiles_once_for_each_set_of_numbers(monkeypatch):
    from tensorprog.kernels import function as kernels

    count, compile_pair = [], kernels.compile_pair
    monkeypatch.setattr(kernels, "compile_pair", lambda *a, **k: count.append(1) or compile_pair(*a, **k))
    f = tp.kernel_fn(mlp(tp.Scalar("s"), 0.5))
    for s in (1, 2, 1, 2, 1.5):
        f([[1.0]], values={"s": s})
    assert len(count) == 3
    for k in range(2 * kernels.REMEMBERED):
        f([[1.0]], get="nngp", values={"s": k})
    assert len(f._compiled) == kernels.REMEMBERED


def test_values_are_a_dictionary_everywhere():
    p = tp.Program(q=tp.Scalar("s") * tp.moment(tp.Vector("x", n) ** 2))
    for call in (
        lambda v: tp.limit(p, values=v),
        lambda v: tp.run(p, n=4, values=v),
        lambda v: tp.formula(p).evalf(15, values=v),
    ):
        for wrong in (3, [1], "s"):
            with refused("give a dictionary"):
                call(wrong)
        with refused("no hyperparameter 'q'"):
            call({"s": 1, "q": 2})


def test_kernel_fn_asks_for_the_numbers_it_needs(tmp_path):
    f = tp.kernel_fn(mlp(tp.Scalar("s"), tp.Scalar("t", 0.5)))
    h = tp.batch_norm(tp.dense("U", tp.Input("x"), n, W_std=tp.Scalar("s")))
    for g in (f, tp.kernel_fn(tp.Network(tp.readout("v", tp.relu(h))))):
        for values, message in (
            (None, "s has no value"),
            ({"t": 1}, "s|t"),
            ({"s": 1, "q": 2}, "no hyperparameter 'q'"),
        ):
            with refused(message):
                g([[1.0, 2.0], [1.0, 3.0], [2.0, 1.0]], values=values)
    with refused("s has no value"):
        f([[1.0]], out=tmp_path)
    with refused("values="):
        f([[1.0]], values=[2])
    first = f([[1.0]], values={"s": 2}, out=tmp_path).ntk[0, 0]
    assert f([[1.0]], values={"s": 2}, out=tmp_path).ntk[0, 0] == first
    with refused("something else"):
        f([[1.0]], values={"s": 3}, out=tmp_path)


def test_standard_deviations_and_shares_are_content():
    """What a parametrization knows a weight by is printed, parsed and hashed."""
    s = tp.Scalar("s")
    h = tp.dense("U", tp.Input("x", axes=("t",)), n, W_std=s)
    h = tp.conv("C", tp.relu(h), n, 3, axes=("t",), W_std=2 * s, b_std=s)
    net = tp.Network(tp.readout("v", tp.mean(tp.relu(h), "t"), W_std=s))
    p = net.program(np.eye(3)[None], parametrization="tp")
    text = str(p)
    assert "share 1/3, std 2*s" in text and "trained, std s" in text
    again = tp.parse(text, arrays=p.arrays)
    assert again == p and hash(again) == hash(p)
    plain = tp.Program(q=tp.moment((tp.Matrix("W", n, n) @ tp.Vector("x", n)) ** 2))
    other = tp.Program(q=tp.moment((tp.Matrix("W", n, n, std=s.node) @ tp.Vector("x", n)) ** 2))
    assert plain != other
    for bad in ("matrix W : n x n, var 1, std x", "matrix W : n x n, share 2"):
        with pytest.raises(tp.TensorProgramError):
            tp.parse(f"width n\nvector x : n\n{bad}\noutput q = Moment(MatMul(W, x))")


# ---- hyperparameters with axes ----


def arrays_of_numbers():
    y = tp.Scalar("y", axes={"b": 3})
    r = tp.Scalar("r", [1, Fraction(1, 2), 2], axes="b")
    x = tp.Vector("x", n, axes="b", cov=2 * np.eye(3, dtype=int))
    return tp.Program(
        total=tp.moment(tp.sum(y * r * x, "b") ** 2),
        kept=y * tp.moment(x * x),
        curved=tp.tanh(y),
        one=tp.take(r, "b", 1),
    )


def test_hyperparameters_with_axes():
    p = arrays_of_numbers()
    assert tp.parse(str(p)) == p and pickle.loads(pickle.dumps(p)) == p and "y_{b}" in tp.latex(p)
    values = {"y": [1, 2, 3]}
    found = tp.limit(p, values=values)
    assert found["total"].value == 76 and found["kept"].value.tolist() == [2, 4, 6]
    assert found["one"].value == Fraction(1, 2)
    np.testing.assert_allclose(found["curved"].value, np.tanh([1, 2, 3]), rtol=1e-15)
    assert tp.limit(p, values={"y": Fraction(1, 2)})["total"].value == Fraction(21, 8)  # one number for all
    assert tp.limit(p, values={**values, "r": [1, 1, 1]})["total"].value == 28
    exact = tp.formula(p).evalf(values=values)
    assert exact["total"] == 76 and list(exact["kept"]) == [2, 4, 6]
    runs = tp.run(p, n=4096, seeds=4, values=values)
    assert np.array_equal(runs["curved"][0], np.tanh([1.0, 2.0, 3.0])) and abs(runs["total"].mean() - 76) < 6
    assert str(tp.formula(p)["kept"]) == "Sigma[b, b]*y[b]"


@pytest.mark.parametrize("wrong", [{"y": [1, 2]}, {}, {"y": [[1, 2, 3]]}, {"y": [1, 2, np.nan]}, {"y": "abc"}])
def test_arrays_of_another_shape_are_refused(wrong):
    p = arrays_of_numbers()
    for meaning in (lambda: tp.limit(p, values=wrong), lambda: tp.formula(p).evalf(values=wrong)):
        with pytest.raises(tp.TensorProgramError):
            meaning()
    with refused("its axes have"):
        tp.Scalar("y", [1, 2], axes={"b": 3})
    with pytest.raises(tp.TensorProgramError):
        tp.parse("width n\nvector x[i:3] : n\nscalar y[i:3] : default [1, 2]\noutput q = Moment(sum(x*y, i)**2)")
