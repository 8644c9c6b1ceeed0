"""The errors of kernels are looked at before a number leaves: what is measured, what is chosen, what is said."""

import numpy as np
import pytest
from scipy.special import erfc

import tensorprog as tp
from tensorprog.limits.batched import Batched
from tensorprog.networks.accuracy import AccuracyWarning

N = tp.Width("n")
X = tp.Input("x")


def shallow(phi, **std):
    return tp.Network(tp.readout("v", phi(tp.dense("U", X, N, **std))))


def elu_variance(q):
    """E elu(u)^2 for variance q; E exp(b u) step(-u) = erfcx-like, written so that nothing overflows."""
    from scipy.special import erfcx

    half = lambda b: erfcx(b * np.sqrt(q / 2)) / 2  # noqa: E731
    return q / 2 + half(2) - 2 * half(1) + 0.5


def cancelling(x):
    """(1 - gaussian) of small arguments: the closed form subtracts numbers near 1, integrals see 1 - gaussian itself."""
    return 1e4 * (1 - tp.gaussian(1e-2 * x))


def counted(monkeypatch):
    """Counts evaluations of pairs."""
    counts = {"base": 0, "measured": 0}
    run = Batched.run

    def counting(self, block, *args, **keywords):
        measured = keywords.get("trace") is not None
        counts["measured" if measured else "base"] += block.rows * block.columns
        return run(self, block, *args, **keywords)

    monkeypatch.setattr(Batched, "run", counting)
    return counts


@pytest.mark.parametrize("x", [1e-8, 1e-3, 1.0, 4.0, 10.0, 12.65, 30.0, 1e3, 1e6])
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


def test_a_users_function_that_cancels():
    found = tp.kernel_fn(shallow(cancelling))([[1.0], [0.5], [-2.0]], get=("nngp",))
    assert found.method["nngp"] == "quadrature" and "cancels" in found.note["nngp"]
    assert found.error["nngp"] < 1e-6
    q, c = 4e-4 * np.array([0.25, 1 / 16, 1]), np.array([1.0, 0.25, 4.0])
    _, exact = q, [1e8 * _one_minus_gaussian(v, v, v) for v in c]
    assert np.abs(np.diag(found.nngp) - exact).max() <= found.error["nngp"] + 1e-8 * max(exact)


def _one_minus_gaussian(a, c, b):
    """E (1 - g(u/100)) (1 - g(v/100)), g(z) = exp(-z^2), in extended precision."""
    from mpmath import mp, mpf, sqrt

    with mp.workdps(40):
        a, c, b = [mpf(k) / 10**4 for k in (a, c, b)]
        return float(1 - 1 / sqrt(1 + 2 * a) - 1 / sqrt(1 + 2 * b) + 1 / sqrt((1 + 2 * a) * (1 + 2 * b) - 4 * c * c))


def test_what_no_route_knows_is_said_or_refused():
    """A sum that cancels in every route: warned of while digits are left, refused where none is."""
    noise = lambda size: shallow(lambda h: tp.sin(h) ** 2 + tp.cos(h) ** 2 - 1 + size * h)  # noqa: E731
    with pytest.warns(AccuracyWarning, match=r"nngp .* its error is up to"):
        tp.kernel_fn(noise(3e-8))([[1.0]], get="nngp")
    with pytest.raises(tp.TensorProgramError, match="no route knows a digit"):
        tp.kernel_fn(noise(1e-12))([[1.0]], get="nngp")
    assert abs(tp.kernel_fn(noise(1.0))([[1.0]], get="nngp")[0, 0] - 1) < 1e-14


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
    for n in (1, 3, 10, 400, 2000):
        counts.update(base=0, measured=0)
        f(rng.standard_normal((n, 3)))
        compiled.append(next(iter(f._compiled.values())))
        assert counts["base"] == n * n + n
        assert counts["measured"] <= 2 * (64 + min(n, 1100)), counts
    assert len(f._compiled) == 1 and all(c is compiled[0] for c in compiled)


def test_printing_says_how_and_how_far():
    text = repr(tp.kernel_fn(shallow(tp.relu))([[1.0, 2.0]]))
    assert text.startswith("nngp = array(1, 1) ± ") and "(closed form, rounding)" in text and "\nntk = " in text


@pytest.mark.parametrize("scale", [1e-8, 1e-4, 1.0, 1e4, 1e8])
@pytest.mark.parametrize("phi", [tp.relu, tp.abs, tp.erf, tp.gelu, tp.tanh, tp.sin, tp.sigmoid, tp.elu, tp.silu])
def test_errors_are_true_over_scales(phi, scale):
    """Against the same kernel by an integral over the two variables in other coordinates, at correlations up to 1."""
    angles = np.array([0.0, 1e-3, 1.0, 2.0, np.pi])
    data = scale * np.stack([np.cos(angles), np.sin(angles)], 1) * np.sqrt(2)
    found = tp.kernel_fn(shallow(phi))(data, get=("nngp",))
    assert found.error["nngp"] <= 1e-8 * np.max(np.abs(found.nngp))
    if scale > 10:  # brute force needs a scale of its own there
        return
    z, w = np.polynomial.hermite_e.hermegauss(150)
    r = np.sqrt(2 * np.pi)
    if phi in (tp.relu, tp.abs, tp.elu):  # kinks: by homogeneity and the diagonal alone
        return
    value = {"erf": lambda u: 1 - erfc(u), "gelu": lambda u: u * (1 - erfc(u / np.sqrt(2)) / 2), "tanh": np.tanh, "sin": np.sin,
             "sigmoid": lambda u: 1 / (1 + np.exp(-u)), "silu": lambda u: u / (1 + np.exp(-u))}[phi.__name__]  # fmt: skip
    u = scale * (np.cos(angles)[:, None, None] * z[:, None] + np.sin(angles)[:, None, None] * z)
    features = value(u).reshape(len(angles), -1)
    brute = (features * np.multiply.outer(w / r, w / r).ravel()) @ features.T
    assert np.abs(found.nngp - brute).max() <= found.error["nngp"] + 1e-9 * np.abs(brute).max()


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
        with pytest.raises(tp.TensorProgramError, match="gram="):
            f(gram=wrong)


def readouts(x=None):
    return tp.Network(_per_step, [tp.Input("s", axes=("t",))])


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
            with pytest.raises(tp.TensorProgramError, match="outputs, depending on the shape"):
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
    with pytest.raises(tp.TensorProgramError, match="no axis 't'"):
        tp.kernel_fn(tp.Network(tp.readout("v", tp.take(h, "t", 0))))(data)
