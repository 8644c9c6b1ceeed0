"""The errors of kernels are looked at before a number leaves: what is measured, what is chosen, what is said."""

import copy
import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
from marks import refused
from scipy.special import erf, erfc

import tensorprog as tp
from tensorprog.limits.pairs.accuracy import AccuracyWarning
from tensorprog.limits.pairs.blocks import Batched
from tensorprog.limits.pairs.lanes import Lanes

N = tp.Width("n")
X = tp.Input("x")


def shallow(phi, **std):
    return tp.Network(tp.readout("v", phi(tp.dense("U", X, N, **std))))


def elu_variance(q):
    """E elu(u)^2 for variance q; E exp(b u) step(-u) = erfcx-like, written so that nothing overflows."""
    from scipy.special import erfcx

    half = lambda b: erfcx(b * np.sqrt(q / 2)) / 2  # noqa: E731
    return q / 2 + half(2) - 2 * half(1) + 0.5


def cancelling(size):
    """size * h, written so that closed forms lose it in numbers near 1; samples see it."""
    return shallow(lambda h: tp.sin(h) ** 2 + tp.cos(h) ** 2 - 1 + size * h)


def counted(monkeypatch):
    """Counts evaluations of pairs."""
    counts = {"base": 0, "measured": 0}
    run, looked_at = Batched.run, Lanes.run

    def counting(self, block, *args, **keywords):
        counts["base"] += block.rows * block.columns
        return run(self, block, *args, **keywords)

    def measuring(self, data, pairs, call, moved=None):
        counts["measured"] += pairs * (1 + len(moved.levels))
        return looked_at(self, data, pairs, call, moved)

    monkeypatch.setattr(Batched, "run", counting)
    monkeypatch.setattr(Lanes, "run", measuring)
    return counts


@pytest.mark.parametrize("x", [1e-8, 1e-3, 1.0, 4.0, 10.0, 12.65, 30.0, 1e3])
def test_a_form_that_cancels_is_replaced(x):
    """elu at pre-activation variances up to 10^12; the right value by scaled complementary error functions."""
    found = tp.kernel_fn(shallow(tp.elu))([[x]], get=("nngp",))
    right = elu_variance(x * x)
    if x < 1e-2:  # there the check itself cancels; elu is x there
        right = x * x * (1 - 1.5957691216057308 * x / 2)
        assert abs(found.nngp[0, 0] / right - 1) < 10 * x**2 + 1e-8
    else:
        assert abs(found.nngp[0, 0] - right) <= found.error["nngp"] + 1e-13 * right
        assert found.error["nngp"] <= 1e-9 * right
    assert tp.kernel_fn(shallow(tp.elu))([[x]], get="nngp") == found.nngp, "a bare array is the same number"


@pytest.mark.parametrize("size", [1.0, 3e-7, 3e-8])
def test_a_users_function_that_cancels(size):
    """Errors are true; where no digit is left another route answers, or, if it may not, the number is refused or warned of."""
    right = size * size
    found = tp.kernel_fn(cancelling(size))([[1.0], [0.5]], get=("nngp",))
    assert abs(found.nngp[0, 0] - right) <= 4 * found.error["nngp"] and found.error["nngp"] <= 0.01 * right
    exact = tp.kernel_fn(cancelling(size), method="exact")
    if size == 3e-8:
        assert found.method["nngp"] == "population" and "have an error of" in found.note["nngp"]
        with refused("no route knows a digit"):
            exact([[1.0], [0.5]], get="nngp")
    elif size == 3e-7:
        with pytest.warns(AccuracyWarning, match=r"nngp .* its error is up to"):
            exact([[1.0], [0.5]], get="nngp")
    else:
        assert abs(exact([[1.0], [0.5]], get="nngp")[0, 0] - right) <= found.error["nngp"]


def test_a_tolerance_is_kept_or_said():
    net = shallow(tp.relu)
    with pytest.warns(AccuracyWarning):
        tp.kernel_fn(net, tol=1e-20)([[1.0, 2.0]], get="nngp")
    assert tp.kernel_fn(net, tol=1e-12)([[1.0, 2.0]], get="nngp")[0, 0] == 1.25


def test_what_looking_costs(monkeypatch):
    """A small part of many pairs, few evaluations of few; and nothing is compiled again."""
    counts = counted(monkeypatch)
    rng = np.random.default_rng(0)
    f = tp.kernel_fn(shallow(tp.relu))
    compiled = []
    for n in (1, 3, 10, 400, 1000):
        counts.update(base=0, measured=0)
        f(rng.standard_normal((n, 3)))
        compiled.append(next(iter(f._compiled.values())))
        assert counts["base"] == (0 if n == 3 else n * n + n), "few pairs are computed while they are looked at"
        assert counts["measured"] <= 2 * (64 + min(n, 1100)), counts
    assert len(f._compiled) == 1 and all(c is compiled[0] for c in compiled)


def test_each_examples_integral_is_asked_once(monkeypatch):
    """Its variance is that of a row, of a column and of the example alone; telling examples are looked at first."""
    from tensorprog.limits.evaluate import integrals as evaluate

    asked = {}
    integrate = evaluate.integrate_arrays

    def counting(x, args, level, *rest, **named):
        if named.get("compared"):
            key = x.attr.body, x.attr.dimension
            asked[key] = asked.get(key, 0) + np.broadcast(*args).size
        return integrate(x, args, level, *rest, **named)

    monkeypatch.setattr(evaluate, "integrate_arrays", counting)
    tp.kernel_fn(shallow(tp.tanh))(np.random.default_rng(0).standard_normal((60, 3)))
    assert asked and all(count == 60 for count in asked.values()), asked


def test_what_is_replaced_is_not_integrated(monkeypatch):
    """The closed forms of elu cancel for an example with itself, which has a program of its own."""
    from tensorprog.limits.evaluate import integrals as evaluate

    asked = []
    integrate = evaluate.integrate_arrays
    monkeypatch.setattr(
        evaluate,
        "integrate_arrays",
        lambda x, args, *rest, **named: asked.append(x) or integrate(x, args, *rest, **named),
    )
    X = np.random.default_rng(0).standard_normal((12, 5))
    found = tp.kernel_fn(shallow(tp.elu))(X)
    assert not asked
    alone = [tp.kernel_fn(shallow(tp.elu))(X[[k]]).ntk[0, 0] for k in range(3)]
    assert np.allclose(np.diag(found.ntk)[:3], alone, rtol=1e-13)
    assert np.array_equal(found.ntk, found.ntk.T)


def test_printing_says_how_and_how_far():
    text = repr(tp.kernel_fn(shallow(tp.relu))([[1.0, 2.0]]))
    assert text.startswith("nngp = array(1, 1) ± ") and "(closed form, rounding)" in text and "\nntk = " in text


VALUES = {
    tp.erf: erf,
    tp.gelu: lambda u: u * erfc(-u / np.sqrt(2)) / 2,
    tp.tanh: np.tanh,
    tp.sin: np.sin,
    tp.sigmoid: lambda u: 1 / (1 + np.exp(-u)),
    tp.silu: lambda u: u / (1 + np.exp(-u)),
    tp.softplus: lambda u: np.log1p(np.exp(u)),
}


@pytest.mark.parametrize("scale", [1e-8, 1e-4, 1e-2, 1.0])
@pytest.mark.parametrize("phi", VALUES, ids=lambda phi: phi.__name__)
def test_errors_are_true_over_scales(phi, scale):
    """Against an integral by Gauss-Hermite in two independent variables, at correlations from 1 to -1."""
    angles = np.array([0.0, 1e-3, 1.0, 2.0, np.pi])
    data = scale * np.stack([np.cos(angles), np.sin(angles)], 1) * np.sqrt(2)
    found = tp.kernel_fn(shallow(phi))(data, get=("nngp",))
    z, w = np.polynomial.hermite_e.hermegauss(180)
    w /= np.sqrt(2 * np.pi)
    u = scale * (np.cos(angles)[:, None, None] * z[:, None] + np.sin(angles)[:, None, None] * z)
    features = VALUES[phi](u).reshape(len(angles), -1)
    brute = (features * np.multiply.outer(w, w).ravel()) @ features.T
    size = np.abs(brute).max()
    assert np.abs(found.nngp - brute).max() <= found.error["nngp"] + (1e-14 if scale < 1 else 1e-10) * size


@pytest.mark.parametrize("scale", [1e3, pytest.param(1e8, marks=pytest.mark.slow)])
@pytest.mark.parametrize("phi", [tp.relu, tp.abs, tp.elu, tp.softplus])
def test_large_arguments_are_homogeneous(phi, scale):
    """Far out elu and softplus are relu, up to terms of relative order 1/scale; relu and abs are to rounding."""
    angles = np.array([0.0, 0.5, 2.0])
    data = scale * np.stack([np.cos(angles), np.sin(angles)], 1) * np.sqrt(2)
    c = np.cos(angles[:, None] - angles)
    t = np.arccos(np.clip(c, -1, 1))
    relu = scale**2 * (np.sin(t) + (np.pi - t) * c) / (2 * np.pi)
    right = relu if phi is not tp.abs else 4 * relu - scale**2 * c
    found = tp.kernel_fn(shallow(phi))(data, get=("nngp",))
    slack = 1e-15 if phi in (tp.relu, tp.abs) else 4 / scale
    assert np.abs(found.nngp - right).max() <= found.error["nngp"] + slack * scale**2


def test_errors_are_not_overstated():
    """At correlation 1 that is no rounding (a position with itself), and where the coarse integral is poor."""
    rng = np.random.default_rng(0)
    h = tp.conv("C2", tp.relu(tp.conv("C1", tp.Input("z", axes=("h", "w")), N)), N)
    s = tp.Input("s", axes=("t",))
    block = tp.transformer_block("B", tp.dense("E", s, N), N, axis="t")
    tanh = tp.tanh(tp.dense("W", tp.tanh(tp.dense("U", X, N)), N))
    words = np.eye(5)[rng.integers(0, 5, (3, 4))]
    for body, data in (
        (tp.global_avg_pool(tp.relu(h)), rng.standard_normal((2, 4, 4, 2))),
        (tp.mean(block, "t"), words),
        (tp.mean(block, "t"), rng.standard_normal((3, 4, 3))),
        (tanh, rng.standard_normal((4, 3))),
    ):
        found = tp.kernel_fn(tp.Network(tp.readout("v", body)))(data)
        assert all(1e-17 < found.error[k] < 1e-12 for k in ("nngp", "ntk")), found.error


def test_diagonals_suffice_for_two_batches():
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((3, 4)), rng.standard_normal((5, 4))
    f = tp.kernel_fn(shallow(tp.relu))
    given = [a @ a.T / 4, a @ b.T / 4, b @ b.T / 4]
    right = f(a, b)
    for diagonals in ((0,), (2,), (0, 2)):
        gram = tuple([np.diag(g) if i in diagonals else g for i, g in enumerate(given)])
        for k in ("nngp", "ntk"):
            assert np.allclose(getattr(f(gram=gram), k), getattr(right, k), rtol=1e-13, atol=1e-15)
    for wrong in ((np.diag(given[2]), given[1], given[2]), (np.diag(given[0]) * 0, given[1], given[2]), np.ones(3)):
        with refused("gram="):
            f(gram=wrong)


def test_equal_examples_are_known_by_their_inner_products():
    """x.x' = x.x = x'.x' of equal examples alone: what turns within 1e-8 of the angle has all its digits there."""
    data = np.random.default_rng(0).standard_normal((4, 4)) * 1e8
    data[1], data[2] = data[0], -data[0]
    f = tp.kernel_fn(shallow(tp.erf))
    gram = data @ data.T / 4
    right = f(data)
    for given in (gram, (np.diag(gram), gram, np.diag(gram))):
        found = f(gram=given)
        for k in ("nngp", "ntk"):
            np.testing.assert_allclose(getattr(found, k)[:3, :3], getattr(right, k)[:3, :3], rtol=1e-13)
    # q = x.x: the slopes' correlation is (4 / pi) / sqrt(1 + 4 q), and an odd function has opposite values at opposite examples
    q = gram[0, 0]
    np.testing.assert_allclose(
        right.ntk[0, 2], -(2 / np.pi * np.arcsin(2 * q / (1 + 2 * q)) + q * 4 / np.pi / np.sqrt(1 + 4 * q)), rtol=1e-12
    )
    gram[0, 1] = gram[1, 0] = np.nextafter(gram[0, 1], 0)
    with refused("is known to"):
        f(gram=gram)


def _per_step(s):
    h = tp.relu(tp.dense("U", s, N))
    return [tp.readout("v", tp.take(h, "t", t)) for t in range(dict(zip(h.axes, h.shape, strict=True))["t"])]


def _bare_or_list(s):
    found = _per_step(s)
    return found if len(found) > 1 else found[0]


@pytest.mark.parametrize("body", [_per_step, _bare_or_list])
def test_outputs_do_not_depend_on_shapes(body):
    net = tp.Network(body, [tp.Input("s", axes=("t",))])
    long, short = np.ones((3, 2)), np.ones((1, 2))
    for wrong in ([long, short], [short, long, short]):
        for call in (
            lambda d: tp.kernel_fn(net)(d), lambda d: tp.limit(net, d), net.program,
            lambda d: tp.run(net, d, n=8, seeds=1), lambda d: tp.kernel_fn(net)(d[:1], d[1:]),
        ):  # fmt: skip
            with refused("outputs, depending on the shape"):
                call(wrong)
    f = tp.kernel_fn(net)
    assert f([long])[0].shape == (1, 1, 3, 3)
    assert f([short])[0].shape == ((1, 1, 1, 1) if body is _per_step else (1, 1))
    assert f([long])[0].shape == (1, 1, 3, 3)


def test_layers_over_the_examples():
    """Attention, graphs, averages and recurrences along the axis of the examples, as the limit of the program has them."""
    h = tp.dense("U", X, N)
    data = np.random.default_rng(0).standard_normal((3, 2))
    ring = np.roll(np.eye(3), 1, 1) + np.roll(np.eye(3), -1, 1)
    for body in (
        tp.self_attention("A", tp.relu(h), N, axis="example"),
        tp.graph_conv("G", tp.relu(h), N, ring, axis="example"),
        tp.relu(h) - tp.mean(tp.relu(h), "example"),
        tp.rnn("R", X, N, axis="example", phi=tp.erf),
    ):
        net = tp.Network(tp.readout("v", body))
        found, right = tp.kernel_fn(net)(data), tp.limit(net, data)
        for k in ("nngp", "ntk"):
            assert np.allclose(getattr(found, k), right[k].value, rtol=1e-12)
    with refused("no axis 't'"):
        tp.kernel_fn(tp.Network(tp.readout("v", tp.take(h, "t", 0))))(data)


def test_methods_and_budgets():
    """A recurrence with gates: integrals in several variables where few are needed, samples where they cost more than those."""
    s = tp.Input("s", axes=("t",))
    net = tp.Network(tp.readout("v", tp.take(tp.gru("G", s, N), "t", -1)))
    data = np.random.default_rng(0).standard_normal((1, 2, 3))
    usual = tp.kernel_fn(net)(data, get=("nngp",))
    sampled = tp.kernel_fn(net, method="population")(data, get=("nngp",))
    small = tp.kernel_fn(net, budget=1e-3)(data, get=("nngp",))
    assert (
        usual.method["nngp"] == "quasi-Monte-Carlo" and sampled.method["nngp"] == small.method["nngp"] == "population"
    )
    assert "budget=" in small.note["nngp"] and "budget=" not in sampled.note["nngp"]
    for found in (sampled, small):
        assert abs(found.nngp - usual.nngp)[0, 0] < 6 * found.error["nngp"]
    with refused("budget="):
        tp.kernel_fn(shallow(tp.tanh), method="exact", budget=1e-6)(np.eye(3))
    for wrong in ({"method": "best"}, {"tol": 0}, {"tol": "x"}, {"tol": float("nan")}, {"budget": 0}, {"budget": None}):
        with pytest.raises(tp.TensorProgramError, match=next(iter(wrong))):
            tp.kernel_fn(net, **wrong)


@pytest.mark.parametrize("depth", [2, pytest.param(100, marks=pytest.mark.slow)])
def test_used_kernel_functions_cross_processes(depth):
    """Networks are deeper than the stack of pickle and deepcopy; what is compiled does not travel."""
    h = tp.dense("U", X, N)
    for i in range(depth):
        h = tp.dense(f"W{i}", tp.relu(h), N, W_std=2**0.5)
    net = tp.Network([tp.readout("v", h), tp.readout("w", tp.relu(h))])
    f, data = tp.kernel_fn(net), [[1.0, 2.0], [0.5, -1.0]]
    right = f(data)
    for copied in (pickle.loads(pickle.dumps(f)), copy.deepcopy(f), tp.kernel_fn(copy.deepcopy(net))):
        found = copied(data)
        assert all(np.array_equal(a, b) for a, b in zip(found, right, strict=True))
    again = pickle.loads(pickle.dumps(right))
    assert again.error == right.error and again.method == right.method and repr(again) == repr(right)


@pytest.mark.slow
def test_memory_is_known_before():
    """The exact tangent kernel of batch normalisation has arrays over pairs of pairs of examples: 25 of them take 5 GB."""
    net = tp.Network(tp.readout("v", tp.relu(tp.batch_norm(tp.dense("U", X, N)))))
    found = tp.kernel_fn(net)(np.random.default_rng(0).standard_normal((25, 50)), get=("ntk",))
    assert found.method["ntk"] == "population" and "GB of memory" in found.note["ntk"]


def test_answers_do_not_depend_on_earlier_calls():
    net = tp.Network(tp.readout("v", tp.elu(tp.dense("U", tp.Input("x"), N))))
    f, large, small = tp.kernel_fn(net), [[5.0, 1.0], [1.0, 3.0]], [[1e-4, 1e-4]]
    before = f(large)
    f(small)
    after = f(large)
    assert (before.method, before.error) == (after.method, after.error)


@pytest.mark.slow
def test_a_tolerance_holds_for_samples_too():
    net = tp.Network(tp.readout("v", tp.tanh(tp.dense("U", tp.Input("x"), N))))
    rough, fine = [tp.kernel_fn(net, method="population", tol=t)([[1.0, 1.0]]) for t in (1e-2, 1.6e-5)]
    assert fine.error["nngp"] < rough.error["nngp"] / 2


def test_the_worst_pair_of_ragged_data_is_named_as_the_user_counts():
    from tensorprog.kernels.routes import Part

    seen = []
    measure = Part.measure
    net = tp.Network(tp.readout("v", tp.mean(tp.tanh(tp.dense("U", tp.Input("x", axes=("t",)), N)), "t")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Part, "measure", lambda self, *given: (measure(self, *given), seen.append(self))[0])
        tp.kernel_fn(net)([[[1.0]], [[1.0], [2.0]], [[3.0]], [[1.0], [0.5]]])
    for part in seen:
        for i, j in part.measured.worst.values():
            assert i in part.rows.places and j in part.columns.places


@pytest.mark.slow
@pytest.mark.parametrize("power", [Fraction(1, 2), Fraction(3, 2)])
def test_a_root_of_relu_is_rough_where_relu_begins(power):
    """It is 0 on an interval: none of its points is a place to refine at, and the end is."""
    found = tp.kernel_fn(shallow(lambda h: tp.relu(h) ** power))([[2.0, 0.0]], [[0.0, 2.0]], get=("nngp",))
    right = (2 ** (power / 2) * math.gamma((power + 1) / 2) / (2 * math.sqrt(math.pi)) * 2 ** (power / 2)) ** 2
    assert abs(found.nngp[0, 0] - right) <= found.error["nngp"] < 1e-12
