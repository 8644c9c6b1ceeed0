"""How often right limits are rejected where averages are not as averages usually are; what would have been found.

Seeds are fixed. Each statistical check states the share of seeds for which it would fail.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

import tensorprog as tp
from tensorprog.analysis.anomalies import anomalies
from tensorprog.analysis.compare import Comparison
from tensorprog.analysis.judge import Anomaly, judge
from tensorprog.analysis.means import FAMILY_ERROR
from tensorprog.estimate import Estimate

n = tp.Width("n")
u, v, x = tp.Vector("u", n), tp.Vector("v", n), tp.Vector("x", n)


def exact(value) -> Estimate:
    return Estimate(value, np.zeros(np.shape(value))[()], "exact", "exact")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_limit_that_is_no_number_is_refused(bad):
    rng = np.random.default_rng(0)
    runs = {k: {"q": rng.normal(size=8)} for k in (64, 128)}
    with pytest.raises(tp.TensorProgramError, match="value is not a finite number"):
        Comparison.of(runs, {"q": bad})
    with pytest.raises(tp.TensorProgramError, match="error is not a finite number"):
        Comparison.of(runs, {"q": Estimate(0.0, abs(bad), "given", "bound")})
    with pytest.raises(tp.TensorProgramError, match="finite number"):
        Comparison.of({k: {"q": np.zeros((8, 2)) + k} for k in (64, 128)}, {"q": np.array([1.0, bad])})
    with pytest.raises(tp.TensorProgramError, match="finite number"):
        tp.compare(tp.Program(q=tp.moment(u * u)), [8, 16], 4, against={"q": bad})


# ---- what is known beforehand ----


@pytest.mark.parametrize(
    "bad", [{"q": "0.5"}, {"q": 1j}, {"q": np.ma.masked_array([0.5], [True])[0]}, {"q": None}, 0.5, [0.5]]
)
def test_what_is_compared_with_no_numbers_is_refused(bad):
    with pytest.raises(tp.TensorProgramError, match="compared with"):
        tp.compare(tp.Program(q=tp.moment(tp.Vector("x", tp.Width("n")) ** 2)), [8, 16], 4, against=bad)


@pytest.mark.parametrize(
    "scalar",
    [
        abs(tp.moment(u**4) - 3),
        tp.relu(tp.moment(u * v)),
        tp.moment(tp.relu(tp.moment(u * v) * x)),
        tp.moment(tp.tanh(u + tp.inverse_sqrt(n))),
        tp.moment(tp.tanh(u) + abs(tp.moment(u * v))),
        tp.sqrt(1 + tp.leaky_relu(tp.moment(u**2) - 1)),
    ],
)
def test_biases_of_half_orders_are_found(scalar):
    known = anomalies(tp.Program(q=scalar, plain=tp.moment(u * u)), n=64)
    assert known["q"].half and "plain" not in known


@pytest.mark.parametrize(
    "scalar",
    [
        abs(tp.moment(u**4)),  # far from the kink
        tp.relu(tp.moment(u * u) + 1),
        tp.moment(tp.relu(u) * abs(v)),  # kinks of vectors are smoothed out
        tp.tanh(tp.moment(u * v)),
        tp.moment(tp.relu(tp.moment(u * u) * x)),
    ],
)
def test_and_are_not_where_they_are_not(scalar):
    assert not anomalies(tp.Program(q=scalar), n=64)


def test_tails_are_known_by_their_degree():
    outputs = {"x8": u**8, "exp": tp.exp(u), "deep": tp.exp(tp.relu(u)) * v, "x4": u**4, "tame": tp.exp(-tp.relu(u))}
    known = anomalies(tp.Program({k: tp.moment(y) for k, y in outputs.items()}), n=8)
    assert {k for k, a in known.items() if a.heavy} == {"x8", "exp", "deep"}


def test_kernels_of_networks_have_none():
    h = tp.layer_norm(tp.relu(tp.dense("W", tp.relu(tp.dense("U", tp.Input("x"), n)), n)))
    program = tp.Network(tp.readout("v", h)).program(np.eye(3))
    assert not anomalies(program, n=16)


# ---- rates ----


def rejected(draw, limit, anomaly, widths, seeds, count, rng):
    wrong = 0
    for _ in range(count):
        runs = {k: draw(rng, (seeds, k)) for k in widths}
        wrong += judge("q", runs, exact(limit), anomaly=anomaly).agrees is False
    return wrong


def average(f):
    return lambda rng, shape: f(rng.standard_normal(shape)).mean(axis=1)


KINKED, TAILS = Anomaly(half="a kink"), Anomaly(heavy="a high power")
KINDS = {
    "kink": (lambda rng, s: np.abs(average(lambda z: z**4)(rng, s) - 3), 0, KINKED, (64, 256, 1024)),
    "kink, many widths": (lambda rng, s: np.abs(average(np.square)(rng, s) - 1), 0, KINKED, (32, 64, 128, 256, 512)),
    "kink near": (lambda rng, s: np.abs(average(np.square)(rng, s) - 1.02), 0.02, KINKED, (64, 256, 1024)),
    "power of n": (lambda rng, s: average(lambda z: np.tanh(z + s[1] ** -0.5))(rng, s), 0, KINKED, (64, 256, 1024)),
    "x^4": (average(lambda z: z**4), 3, Anomaly(), (64, 256, 1024)),
    "x^8": (average(lambda z: z**8), 105, TAILS, (64, 256, 1024)),
    "x^10": (average(lambda z: z**10), 945, TAILS, (64, 256, 1024)),
    "exp(x)": (average(np.exp), math.exp(0.5), TAILS, (64, 256)),
    "exp(3x)": (average(lambda z: np.exp(3 * z)), math.exp(4.5), TAILS, (64, 256, 1024)),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_right_limits_are_rejected_no_more_often_than_stated(kind):
    draw, limit, anomaly, widths = KINDS[kind]
    count, seeds = 400, 12
    found = rejected(draw, limit, anomaly, widths, seeds, count, np.random.default_rng(3))
    # At a rate of exactly 1e-3 more rejections than this have probability 1e-4.
    assert found <= stats.binom.isf(1e-4, count, FAMILY_ERROR)


def test_without_what_is_known_the_same_limits_are_rejected():
    """The control: a bias of n**-1/2 that is fitted as b/n."""
    draw, limit, _, widths = KINDS["power of n"]
    assert rejected(draw, limit, Anomaly(), widths, 64, 4, np.random.default_rng(4)) == 4


def test_what_is_wrong_is_still_found():
    rng = np.random.default_rng(5)
    kinked = {k: np.abs(average(np.square)(rng, (32, k)) - 1) for k in (64, 256, 1024, 4096)}
    assert judge("q", kinked, exact(0), anomaly=KINKED).agrees is True
    assert judge("q", kinked, exact(0.15), anomaly=KINKED).agrees is False
    tails = {k: average(lambda z: z**8)(rng, (64, k)) for k in (256, 1024, 4096)}
    assert judge("q", tails, exact(105), anomaly=TAILS).agrees is True
    assert judge("q", tails, exact(210), anomaly=TAILS).agrees is False


def test_two_widths_do_not_tell_a_half_order_from_a_wrong_limit():
    rng = np.random.default_rng(6)
    found = judge("q", {k: rng.normal(size=8) / k for k in (64, 256)}, exact(0), anomaly=KINKED)
    assert found.agrees is None and "three or more" in found.note


# ---- power ----


def test_what_is_said_to_be_found_is_found():
    """A scalar and one entry of a kernel, wrong by as much as is said to be detectable: found in 99 of 100."""
    rng = np.random.default_rng(7)
    missed = {"scalar": 0, "entry": 0, "all": 0}
    count = 40
    for _ in range(count):
        runs = {k: 1 + rng.normal(size=(16, 20)) / k**0.5 for k in (64, 256, 1024)}
        known = judge("k", runs, exact(np.ones(20)))
        assert known.agrees is True and known.found_entry is not None and known.found_all is not None
        off = np.ones(20)
        off[3] += known.found_entry
        missed["entry"] += judge("k", runs, exact(off)).agrees is True
        missed["all"] += judge("k", runs, exact(np.ones(20) / (1 + known.found_all))).agrees is True
        one = {k: a[:, 0] for k, a in runs.items()}
        scalar = judge("k", one, exact(1.0))
        assert scalar.found_entry is not None
        missed["scalar"] += judge("k", one, exact(1 - scalar.found_entry)).agrees is True
    # At a rate of 0.01 each, five or more of 40 have probability 5e-5.
    assert max(missed.values()) <= 4, missed


def test_a_comparison_says_how_little_it_could_have_found():
    rng = np.random.default_rng(8)
    kernel = np.ones((20, 20))
    noise = {k: rng.normal(size=(16, 20, 20)) for k in (64, 128, 256)}
    runs = {k: 1 + (a + a.swapaxes(1, 2)) / 2 / k**0.5 for k, a in noise.items()}
    c = Comparison.of({k: {"ntk": a} for k, a in runs.items()}, {"ntk": kernel})
    item = c.outputs["ntk"]
    assert item.found_entry > 0.2  # one entry wrong by 20% is not found here, and the table says so
    assert "one entry wrong by" in str(c) and f"{item.found_all:.1%}" in str(c)
    assert c.to_json()["outputs"]["ntk"]["found_entry"] == pytest.approx(item.found_entry)
    wrong = kernel.copy()
    wrong[2, 5] = wrong[5, 2] = 1 + 1.5 * item.found_entry
    assert Comparison.of({k: {"ntk": a} for k, a in runs.items()}, {"ntk": wrong}).agrees is False


def test_equal_entries_are_tested_once():
    """A symmetric kernel, and one of which every entry is there twice, have the power of their different entries."""
    rng = np.random.default_rng(9)
    runs = {k: rng.normal(size=(16, 10)) / k**0.5 for k in (64, 256)}
    twice = {k: np.repeat(a, 2, axis=1) for k, a in runs.items()}
    a, b = judge("k", runs, exact(np.ones(10))), judge("k", twice, exact(np.ones(20)))
    assert a.found_entry == b.found_entry
