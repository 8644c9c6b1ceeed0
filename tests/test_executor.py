"""Programs at finite width and in the population, against NumPy by hand, known limits, and what users get wrong."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
import warnings
from fractions import Fraction

import numpy as np
import pytest
from marks import refused

import tensorprog as tp
from tensorprog.execute import outer
from tensorprog.execute.compiled import compiled
from tensorprog.execute.dense import Dense
from tensorprog.execute.executor import Runs, choose_weights, execute, population, run
from tensorprog.execute.lazy import Lazy

n, m = tp.Width("n"), tp.Width("m", ratio=Fraction(1, 2))
W, A = tp.Matrix("W", n, n, var=2), tp.Matrix("A", m, n, var=1)
FIVE_SIGMA = 5  # two-sided 6e-7 for a Gaussian: with some thirty such checks the file fails by chance once in 50,000


def counterexample() -> tp.Program:
    w, x = tp.Matrix("W", n, n, var=1), tp.Vector("x", n, mean=1, var=0)
    h = w @ x
    dx = w.T @ (2 * h)
    return tp.Program(mean_dx=tp.moment(dx), dx2=tp.moment(dx * dx), h2=tp.moment(h * h))


def near(runs: np.ndarray, expected: float, allowance: float = 0.0) -> bool:
    return abs(runs.mean() - expected) < FIVE_SIGMA * runs.std(ddof=1) / math.sqrt(len(runs)) + allowance


class Fixed(Dense):
    """Dense, with initial vectors given by name."""

    def __init__(self, n: int, vectors: dict[str, np.ndarray], **more) -> None:
        super().__init__(n, **more)
        self.vectors = vectors

    def vector(self, spec):
        return self.vectors[spec.name]


# ---- against NumPy by hand ------------------------------------------------------------------------------------------


def test_a_network_forward_and_back_on_a_batch():
    rng, k = np.random.default_rng(0), 3
    x, v = tp.Vector("x", n, axes={"b": k}), tp.Vector("v", m)
    h = tp.relu(W @ x)
    y = tp.tanh(A @ h) + v
    back = (W.T @ ((A.T @ (y * v)) * tp.step(h))) * 2 - 1
    p = tp.Program(
        kernel=tp.moment(y * tp.rename(y, b="c")), back=tp.moment(back * x), mixed=tp.sum(tp.moment(back) ** 2, "b")
    )
    size = 8
    ws, a = rng.normal(size=(size, size)), rng.normal(size=(size // 2, size))
    xs, vs = rng.normal(size=(k, size)), rng.normal(size=size // 2)
    got = execute(p, Fixed(size, {"x": xs, "v": vs}, weights={"W": ws, "A": a}))
    hs = np.maximum(xs @ ws.T, 0)
    ys = np.tanh(hs @ a.T) + vs
    backs = (((ys * vs) @ a) * np.heaviside(hs, 0.5)) @ ws * 2 - 1
    np.testing.assert_allclose(got["kernel"], ys @ ys.T / (size // 2), atol=1e-13)
    np.testing.assert_allclose(got["back"], (backs * xs).mean(axis=1), atol=1e-13)
    np.testing.assert_allclose(got["mixed"], (backs.mean(axis=1) ** 2).sum(), atol=1e-13)


def test_attention_by_hand():
    rng, size, steps = np.random.default_rng(1), 6, 4
    q, k, v = (tp.Vector(name, n, axes={"t": steps}) for name in "qkv")
    a = tp.softmax(tp.moment(q * tp.rename(k, t="s")), "s")
    y = tp.sum(a * tp.rename(v, t="s"), "s")
    p = tp.Program(out=tp.moment(tp.relu(y)), a=a, last=tp.moment(tp.take(y, "t", -1) * q))
    arrays = {name: rng.normal(size=(steps, size)) for name in "qkv"}
    got = execute(p, Fixed(size, arrays))
    e = np.exp(arrays["q"] @ arrays["k"].T / size)
    weights = e / e.sum(axis=1, keepdims=True)
    ys = weights @ arrays["v"]
    np.testing.assert_allclose(got["a"], weights, atol=1e-14)
    np.testing.assert_allclose(got["out"], np.maximum(ys, 0).mean(axis=1), atol=1e-14)
    np.testing.assert_allclose(got["last"], arrays["q"] @ ys[-1] / size, atol=1e-14)


def test_outputs_have_all_their_axes_in_the_users_order():
    z, x = tp.Vector("z", n, axes={"b": 2, "t": 3}), tp.Vector("x", n)
    p = tp.Program(
        k=tp.moment(z * tp.rename(z, b="c")),
        s=tp.stack([tp.moment(z), tp.array([1, 2, 3], "t")], "kind"),
        spread=tp.moment(x) + tp.array([0, 0], "b"),
        number=tp.array([1, 2], "b") * Fraction(1, 2),
    )
    runs = run(p, n=10, seeds=3)
    assert runs.axes == {"k": ("b", "t", "c"), "s": ("kind", "b", "t"), "spread": ("b",), "number": ("b",)}
    assert {name: a.shape for name, a in runs.items()} == {
        "k": (3, 2, 3, 2), "s": (3, 2, 2, 3), "spread": (3, 2), "number": (3, 2)
    }  # fmt: skip
    assert np.array_equal(runs["s"][0, 1], [[1, 2, 3]] * 2) and np.array_equal(runs["number"][2], [0.5, 1])
    assert all(a.flags.writeable and a.dtype == np.float64 for a in runs.values())


def test_scalars_spread_over_a_width_are_multiplied():
    x = tp.Vector("x", n, mean=1, var=1)
    constant = tp.relu(tp.moment(x) + 0 * x)  # one number in every coordinate
    ws = np.arange(16.0).reshape(4, 4)
    got = execute(tp.Program(a=tp.moment(W @ constant), b=tp.moment(W.T @ constant)), Fixed(
        4, {"x": np.full(4, 2.0)}, weights={"W": ws}))  # fmt: skip
    assert got["a"] == pytest.approx(2 * ws.sum() / 4) and got["b"] == pytest.approx(2 * ws.sum() / 4)


def test_widths_of_other_ratios_and_their_roots():
    x = tp.Vector("x", m, mean=3, var=0)
    p = tp.Program(a=tp.inverse_sqrt(m) * tp.moment(x), b=tp.inverse_sqrt(n) * 1)
    runs = run(p, n=100)
    assert runs["a"][0] == pytest.approx(3 / math.sqrt(50)) and runs["b"][0] == pytest.approx(0.1)


def test_hyperparameters():
    eta = tp.Scalar("eta", 0.5)
    p = tp.Program(a=eta * tp.moment(tp.Vector("x", n, mean=1, var=0) * eta))
    assert run(p, n=3)["a"] == 0.25 and run(p, n=3, values={"eta": 2})["a"] == 4
    with refused("zeta"):
        run(p, n=3, values={"zeta": 2})
    with refused("eta has no value"):
        run(tp.Program(a=tp.Scalar("eta") * 1), n=3)


def test_given_matrices():
    p, w = counterexample(), np.random.default_rng(0).normal(size=(6, 6))
    runs = run(p, n=6, seeds=2, matrices={"W": w})
    assert runs.weights == "dense"
    np.testing.assert_allclose(runs["mean_dx"], (w.T @ (2 * w.sum(axis=1))).mean(), rtol=1e-13)
    with refused(r"shape \(6, 6\)"):
        run(p, n=7, matrices={"W": w})
    with refused("'V'"):
        run(p, n=6, matrices={"V": w})
    with refused("lazy"):
        run(p, n=6, matrices={"W": w}, weights="lazy")


# ---- OuterNonlin ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [1, 7, 1 << 19])
def test_outer_by_hand(block, monkeypatch):
    monkeypatch.setattr(outer, "BLOCK", block)
    rng, size, t = np.random.default_rng(2), 10, 2
    x, u, y = tp.Vector("x", n, axes={"t": t}), tp.Vector("u", n), tp.Vector("y", m, axes={"t": t})
    c = tp.moment(u)
    p = tp.Program(
        two=tp.moment(tp.outer(lambda x, u, y: tp.tanh(x * y + c) * u + y, [x, u], y) * u),
        same=tp.moment(tp.outer(lambda x, y: (x - y) ** 2, u, u) * u),
        only_y=tp.moment(tp.outer(lambda x, y: y * y, u, y) * u),
        only_x=tp.moment(tp.outer(lambda x, y: x * x, u, y) * u),
        inside=tp.moment(tp.outer(lambda x, y: tp.relu(tp.sum(x * y, "t")), x, y) * u),
    )
    xs, us, ys = rng.normal(size=(t, size)), rng.normal(size=size), rng.normal(size=(t, size // 2))
    got = execute(p, Fixed(size, {"x": xs, "u": us, "y": ys}))
    pairs = np.tanh(xs[:, :, None] * ys[:, None, :] + us.mean()) * us[:, None] + ys[:, None, :]
    np.testing.assert_allclose(got["two"], (pairs.mean(axis=-1) * us).mean(axis=-1), atol=1e-14)
    np.testing.assert_allclose(got["same"], (((us[:, None] - us) ** 2).mean(axis=1) * us).mean(), atol=1e-14)
    np.testing.assert_allclose(got["only_y"], (ys**2).mean(axis=1) * us.mean(), atol=1e-14)
    np.testing.assert_allclose(got["only_x"], (us**3).mean(), atol=1e-14)
    inside = np.maximum(np.einsum("ta,tb->ab", xs, ys), 0).mean(axis=1)
    np.testing.assert_allclose(got["inside"], (inside * us).mean(), atol=1e-14)


def test_outer_in_the_population_averages_over_an_independent_copy():
    x = tp.Vector("x", n)
    p = tp.Program(
        same=tp.moment(tp.outer(lambda x, y: tp.exp(-((x - y) ** 2)), x, x)),
        copy=tp.moment(tp.outer(lambda x, y: tp.exp(-((x - y) ** 2)), x, tp.Vector("y", m))),
        linear=tp.moment(tp.outer(lambda x, y: (x + y) ** 2, x, x)),
    )
    got = population(p, 128, replicates=64)
    exact = 1 / math.sqrt(5)  # E exp(-u^2), u ~ N(0, 2); without the pairs (a, a) the first would be 0.005 smaller
    assert abs(got["same"].mean() - exact) < 2e-3 and abs(got["copy"].mean() - exact) < 2e-3
    np.testing.assert_allclose(got["linear"], 2, atol=1e-12)


def test_outer_beyond_its_budget_is_refused():
    x = tp.Vector("x", n)
    p = tp.Program(a=tp.moment(tp.outer(lambda x, y: tp.tanh(x + y), x, x).label("pairs")))
    with pytest.raises(tp.TensorProgramError, match=r"pairs needs.*\n.*test_executor.py(.|\n)*smaller n"):
        run(p, n=10**6)


# ---- randomness -----------------------------------------------------------------------------------------------------


def test_a_seed_gives_the_same_weights_in_every_program():
    x = tp.Vector("x", n)
    first = run(tp.Program(a=tp.moment((W @ x) * x)), n=30, seeds=[5, 2], weights="dense")
    more = tp.Program(z=tp.moment(A @ tp.Vector("y", n)), a=tp.moment((W @ x) * x), b=tp.moment(W.T @ x))
    second = run(more, n=30, seeds=[2, 5, 7], weights="dense")
    np.testing.assert_allclose(first["a"], second["a"][[1, 0]], rtol=1e-12)
    assert first["a"][0] != first["a"][1] and first.seeds == (5, 2)
    assert np.array_equal(run(more, n=30, seeds=3)["a"], run(more, n=30, seeds=[0, 1, 2])["a"])


@pytest.mark.parametrize("weights", ["dense", "lazy"])
def test_the_counterexample_in_the_mean(weights):
    runs = run(counterexample(), n=200, seeds=60, weights=weights)
    assert near(runs["mean_dx"], 2) and near(runs["h2"], 1)
    assert near(runs["dx2"], 8 + 4 / 200)  # 4 |W.T W 1|^2 / n has mean 4 (2 + 1/n)


@pytest.mark.slow
def test_dense_and_lazy_agree_in_the_mean_at_small_width():
    x = tp.Vector("x", n, mean=Fraction(1, 2))
    y = A.T @ tp.relu(A @ (W.T @ tp.tanh(W @ x)))
    p = tp.Program(a=tp.moment(y * x), b=tp.moment(y * y))
    dense, lazy = (run(p, n=8, seeds=1500, weights=kind) for kind in ("dense", "lazy"))
    for name in p:
        spread = math.hypot(dense[name].std(), lazy[name].std()) / math.sqrt(1500)
        assert abs(dense[name].mean() - lazy[name].mean()) < FIVE_SIGMA * spread


def test_entries_that_are_not_gaussian():
    r = tp.Matrix("R", n, n, entries="rademacher")
    x = tp.Vector("x", n, mean=1, var=0)
    p = tp.Program(a=tp.moment((r @ x) ** 2))
    assert choose_weights(p, 2000) == "dense" and run(p, n=2000).weights == "dense"
    with refused(r"R has 'rademacher' entries(.|\n)*dense"):
        run(p, n=10, weights="lazy")


def test_auto_takes_what_is_cheaper():
    x = tp.Vector("x", n, axes={"b": 1})
    p, wide = tp.Program(a=tp.moment(W @ x)), tp.Program(a=tp.moment(W @ tp.Vector("x", n, axes={"b": 4000})))
    assert [choose_weights(p, size) for size in (64, 4096, 10**7)] == ["dense", "lazy", "lazy"]
    assert choose_weights(wide, 4096) == "dense"
    assert run(p, n=3000).weights == "lazy"


def test_width_a_million():
    v = tp.Vector("v", n)
    x = W.T @ tp.tanh(W @ v)
    runs = run(tp.Program(a=tp.moment(x * v)), n=10**6)
    g = np.polynomial.hermite_e.hermegauss(60)
    slope = (g[1] * (1 - np.tanh(math.sqrt(2) * g[0]) ** 2)).sum() / math.sqrt(2 * math.pi)
    assert runs["a"][0] == pytest.approx(2 * slope, rel=0.01)


# ---- the population -------------------------------------------------------------------------------------------------


def test_known_limits_in_the_population():
    got = population(counterexample(), 128, replicates=3)
    for name, value in {"mean_dx": 2, "dx2": 8, "h2": 1}.items():
        np.testing.assert_allclose(got[name], value, atol=1e-12)
    v, b = tp.Vector("v", m), tp.Matrix("B", m, n, var=1)
    x, outputs = v, {}
    for k in range(1, 6):
        x = b @ (b.T @ x)
        outputs[f"m{k}"] = tp.moment(v * x)
    got = population(tp.Program(**outputs), 128, replicates=2)
    for k, value in enumerate([1, 1.5, 2.75, 5.625, 12.3125], 1):  # Marchenko-Pastur with ratio 1/2
        np.testing.assert_allclose(got[f"m{k}"], value, rtol=1e-10)


def test_a_matrix_and_its_transpose_are_adjoint_in_the_population():
    x, y = tp.Vector("x", n), tp.Vector("y", m, mean=1)
    f, g = tp.tanh(A.T @ y) + x, tp.relu(A @ x) * y
    p = tp.Program(forward=tp.moment(g * (A @ f)), back=tp.moment((A.T @ g) * f))
    got = population(p, 256, replicates=4)
    np.testing.assert_allclose(got["forward"] * 0.5, got["back"], rtol=1e-10)  # rho <y, W x> = <W.T y, x>
    assert np.ptp(got["back"]) > 0  # replicates are independent


def test_population_seeds():
    x = tp.Vector("x", n)
    p = tp.Program(a=tp.moment(tp.sigmoid(W @ tp.relu(x)) * tp.relu(x)))
    base = population(p, 64, replicates=4)["a"]
    assert np.array_equal(base, population(p, 64, rng=0, replicates=4)["a"])
    assert np.array_equal(base[:2], population(p, 64, rng=0, replicates=2)["a"])
    assert not np.array_equal(base, population(p, 64, rng=1, replicates=4)["a"])
    a, b = (population(p, 64, rng=np.random.default_rng(3), replicates=2)["a"] for _ in range(2))
    assert np.array_equal(a, b)
    with refused("replicates"):
        population(p, 64, replicates=0)


def test_inverse_roots_of_a_width_vanish_in_the_population():
    x = tp.Vector("x", n, mean=1, var=0)
    assert population(tp.Program(a=tp.moment(x) + tp.inverse_sqrt(n)), 16, replicates=1)["a"] == 1


# ---- memory and reuse -----------------------------------------------------------------------------------------------


class Counting(Dense):
    """Dense, counting the matrices that exist."""

    def __init__(self, n: int) -> None:
        super().__init__(n)
        self.alive = self.most = self.made = 0

    def matrix(self, spec):
        space, out = self, super().matrix(spec)

        class Watched(type(out)):
            def __del__(self):
                space.alive -= 1

        out.__class__ = Watched
        self.alive, self.made = self.alive + 1, self.made + 1
        self.most = max(self.most, self.alive)
        return out


def test_matrices_live_from_first_to_last_use():
    x = tp.Vector("x", n)
    for i in range(6):
        x = tp.tanh(tp.Matrix(f"W{i}", n, n) @ x)
    p, space = tp.Program(a=tp.moment(x)), Counting(16)
    execute(p, space)
    assert space.made == 6 and space.most <= 2  # the old one goes with the product in which it was last used
    assert compiled(p).peak_entries(space.size) == 16 * 16 + 2 * 16  # and the vectors of a product


def test_a_program_is_compiled_once():
    p = counterexample()
    assert compiled(p) is compiled(p) and compiled(p).products() == {"W": 2}


def test_thousands_of_instructions():
    x = tp.Vector("x", n)
    y = x
    for _ in range(1500):
        y = tp.tanh(y) + Fraction(1, 2) * x
    a, expected = run(tp.Program(a=tp.moment(y)), n=5)["a"][0], Dense(5).vector(x.node.attr)
    b = expected
    for _ in range(1500):
        b = np.tanh(b) + 0.5 * expected
    assert a == pytest.approx(b.mean(), rel=1e-12)


# ---- results --------------------------------------------------------------------------------------------------------


def test_runs_read_well():
    z = tp.Vector("z", n, axes={"b": 2}, mean=[1, 2], cov=np.zeros((2, 2)))
    p = tp.Program(k=tp.moment(z * tp.rename(z, b="c")), one=tp.moment(tp.take(z, "b", 0)))
    runs = run(p, n=4, seeds=2)
    text = repr(runs)
    assert "2 runs at n = 4, dense weights" in text and "one = 1 ± 0" in text and "k (b: 2, c: 2)" in text
    assert repr(run(p, n=4)).startswith("1 run at n = 4, dense weights\n") and "±" not in repr(run(p, n=4))
    assert isinstance(runs, Runs) and list(runs) == ["k", "one"] and runs.n == 4
    with pytest.raises(KeyError, match="there are k, one"):
        runs["x"]
    again = pickle.loads(pickle.dumps(runs))
    assert np.array_equal(again["k"], runs["k"]) and again.axes == runs.axes


def test_runs_as_xarray():
    xarray = pytest.importorskip("xarray")
    z = tp.Vector("z", n, axes={"b": 2})
    runs = run(tp.Program(k=tp.moment(z), q=tp.moment(tp.sum(z))), n=4, seeds=[3, 4])
    data = runs.to_xarray()
    assert isinstance(data, xarray.Dataset) and data["k"].dims == ("seed", "b") and data.attrs["n"] == 4
    assert list(data["seed"].values) == [3, 4] and float(data["q"].sel(seed=4)) == runs["q"][1]


def test_without_xarray(monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with refused(r"tensorprog\[xarray\]"):
        run(counterexample(), n=3).to_xarray()


def test_importing_is_light():
    code = "import sys, tensorprog; print([x for x in ('scipy.stats', 'sympy', 'matplotlib') if x in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


# ---- what users get wrong -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "width n is 0"),
        ({"n": 2.5}, "width n is 2.5"),
        ({"n": True}, "width n is True"),
        ({"n": "8"}, "width n is '8'"),
        ({"n": 8, "seeds": 0}, "0 seeds"),
        ({"n": 8, "seeds": []}, r"seeds is \[\]"),
        ({"n": 8, "seeds": [0, 1.5]}, "1.5"),
        ({"n": 8, "seeds": "abc"}, "'abc'"),
        ({"n": 8, "seeds": None}, "None"),
        ({"n": 8, "weights": "sparse"}, "'sparse'"),
        ({"n": 10**6, "weights": "dense"}, r"need [\d.e+]+ GB(.|\n)*lazy"),
    ],
)
def test_bad_arguments(arguments, message):
    with refused(message):
        run(counterexample(), **arguments)


def test_something_else_than_a_program():
    with refused("Expression is not a Program"):
        run(tp.moment(tp.Vector("x", n)), n=4)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda x: tp.sqrt(x - 3), r"sqrt\(x\) needs x >= 0"),
        (lambda x: tp.log(x), r"log\(x\) needs x > 0, but x reaches -"),
        (lambda x: tp.log1p(x * 5), "log1p"),
        (lambda x: 1 / (tp.step(x) * 0.0 + tp.relu(x)), "is 0 .*somewhere"),
        (lambda x: tp.exp(1000 * x + 1), "exp overflows"),
        (lambda x: (W @ (1e200 * x + 1)) ** 2, "beyond 1.8e308"),
        (lambda x: tp.moment((1e200 * x + 1) ** 2) + tp.tanh(x), "beyond 1.8e308"),
    ],
)
def test_what_is_not_finite_is_traced_to_where_it_begins(bad, message):
    x = tp.Vector("x", n)
    y = tp.tanh(bad(x) * 0.5) * bad(x)
    p = tp.Program(fine=tp.moment(x), b=tp.moment(W @ y) + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # NumPy's warnings must not leak
        with refused(message) as caught:
            run(p, n=50)
    assert "output b" in str(caught.value) and "test_executor.py" in str(caught.value)


def test_the_label_of_the_culprit_is_named():
    x = tp.Vector("x", n)
    p = tp.Program(a=tp.moment(tp.tanh(W @ tp.log(x).label("logarithm")) + x))
    with refused("logarithm"):
        population(p, 64, replicates=1)
    with refused("again="):
        execute(p, Lazy(20))
    with refused("logarithm"):
        execute(p, Lazy(20), again=lambda: Lazy(20))


def test_infinities_that_do_no_harm_are_allowed():
    x = tp.Vector("x", n)
    p = tp.Program(a=tp.moment(1 / (1 + tp.exp(2000 * x + 1))))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert 0 <= run(p, n=50)["a"][0] <= 1
