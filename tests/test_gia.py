"""check_gia: the structural checks, the numerical answer, and the instructions it names."""

from __future__ import annotations

import ast
import inspect
import json
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import HealthCheck, event, given, settings
from marks import refused
from strategies import SMOOTH, programs

import tensorprog as tp
from tensorprog.analysis.gia_numbers import agree
from tensorprog.analysis.instructions import Instructions
from tensorprog.analysis.readouts import linearity, parity, search
from tensorprog.cli import main
from tensorprog.faces.files import load_model
from tensorprog.language.node import topological

FOLDER = Path(__file__).resolve().parent.parent / "programs"

n = tp.Width("n")
W, A = tp.Matrix("W", n, n), tp.Matrix("A", n, n)
x, v, u = tp.Vector("x", n), tp.Vector("v", n), tp.Vector("u", n)
one = tp.Vector("one", n, mean=1, var=0)
h = (W @ x).label("h")


def slope(y: tp.Expression) -> tp.Expression:
    return 1 - tp.tanh(y) ** 2


def about(g: tp.Expression, **more: tp.Expression) -> tp.Program:
    """Moments in which a Zdot would show."""
    return tp.Program(mean=tp.moment(g), square=tp.moment(g * g), overlap=tp.moment(g * x), **more)


def answers(report: tp.GIAReport) -> tuple[Any, Any, Any]:
    return report.simple, report.bp_like, report.holds


def here() -> int:
    """The line of the caller."""
    frame = inspect.currentframe()
    assert frame is not None and frame.f_back is not None
    return frame.f_back.f_lineno


# --- programs with known answers ------------------------------------------------------------------------------------


def test_the_counterexample() -> None:
    hidden = (W @ one).label("hidden")
    dx = (W.T @ (2 * hidden)).label("dx")
    line = here() - 1
    report = tp.check_gia(tp.Program(mean_dx=tp.moment(dx), h2=tp.moment(hidden**2)))
    assert answers(report) == (False, False, False)
    found = report.outputs["mean_dx"]
    assert (found.with_gia.value, found.without_gia.value, found.agrees) == (0, 2, False)
    assert report.outputs["h2"].agrees is True
    (offender,) = report.offenders
    assert offender.label == "dx" and offender.checks == ("simple", "bp_like") and offender.number == 3
    assert offender.source is not None and (offender.source.file, offender.source.line) == (__file__, line)
    assert offender.instruction == "instr 3: dx = W.T @ x2"
    for part in (f"(test_gia.py:{line}) reuses W", f"instr 1 (hidden), test_gia.py:{line - 1}", "one has mean 1"):
        assert part in offender.message
    assert str(offender) in str(report) and "DIFFERENT" in str(report)


def layer_norm_backward(dy: tp.Expression, z: tp.Expression) -> tp.Expression:
    """The gradient through z / sqrt(mean z^2 + 1)."""
    s = tp.sqrt(tp.moment(z * z) + 1)
    return (dy - z * tp.moment(z * dy) / s**2) / s


def two_layers() -> tp.Expression:
    h2 = A @ tp.tanh(h)
    return W.T @ (slope(h) * (A.T @ (v * tp.step(h2))))


GOOD = {
    "one layer": (lambda: W.T @ (v * slope(h)), True),
    "two layers": (two_layers, True),
    "two outputs": (lambda: W.T @ ((v + 2 * u) * slope(h)), True),
    "layer norm": (lambda: W.T @ (layer_norm_backward(v, tp.tanh(h)) * slope(h)), True),
    "a readout that is no Gaussian": (lambda: W.T @ (tp.Vector("r", n, distribution="rademacher") * slope(h)), True),
    "clipped gradients": (lambda: W.T @ (tp.tanh(v) * slope(h)), False),
    "a scalar odd in the readout": (lambda: W.T @ (v * (1 + tp.moment(v * tp.tanh(h))) * slope(h)), False),
    "a normalised gradient": (lambda: W.T @ (v * slope(h) / tp.sqrt(tp.moment(v * v) + 1)), False),
    "forward through a vanishing scalar": (lambda: W.T @ (v * slope(W @ (x + tp.moment(v) * v))), False),
}


@pytest.mark.parametrize("name", GOOD)
def test_programs_that_pass(name: str) -> None:
    build, simple = GOOD[name]
    report = tp.check_gia(about(build()))
    assert answers(report) == (simple, True, True), report
    assert {o.checks for o in report.offenders} == (set() if simple else {("simple",)})


def tied() -> tp.Program:
    k = W.T @ tp.tanh(h)
    du = slope(h) * (W @ (v * slope(k)))
    return about(W.T @ du)


BAD = {
    "average readout": (lambda: about(W.T @ (2 * h)), "x also enters instr 1 (h)"),
    "even in the readout": (lambda: about(W.T @ (v**2 * h)), "is even in the readout v"),
    "neither": (lambda: about(W.T @ (tp.relu(v) * h)), "neither odd nor even in the readout v"),
    "readout with a mean": (lambda: about(W.T @ (tp.Vector("m", n, mean=1) * h)), "m has mean 1"),
    "readout in the forward pass": (lambda: about(W.T @ (v * slope(W @ tp.tanh(h + v)))), "v also enters instr 3"),
    "tied weights": (tied, "W and W.T both appear in the forward body"),
}


@pytest.mark.parametrize("name", BAD)
def test_programs_that_fail(name: str) -> None:
    build, says = BAD[name]
    report = tp.check_gia(build())
    assert report.simple is report.bp_like is False, report
    assert len(report.offenders) == 1 and says in report.offenders[0].message, report


def test_the_second_example_of_tied_weights() -> None:
    """k = W.T tanh(W h0), f = v.tanh(k)/sqrt n: one copy both ways is right, the bare program's meaning is wrong."""

    def square(back: tp.Matrix, again: tp.Matrix) -> float:
        k = W.T @ tp.tanh(h)
        dh = again.T @ (slope(h) * (back @ (v * slope(k))))
        return float(tp.limit(tp.Program(q=tp.moment(dh**2)))["q"])

    truth = square(W, W)
    assert truth == pytest.approx(0.42728, abs=1e-5)
    copy, other = W.renamed("W1"), W.renamed("W2")
    assert square(copy, copy) == pytest.approx(truth, abs=1e-9)
    assert square(copy, other) == pytest.approx(0.23870, abs=1e-5)
    report = tp.check_gia(tied(), readouts=[v])
    assert answers(report) == (False, False, False)
    assert float(report.outputs["square"].without_gia) == pytest.approx(truth, abs=1e-9)
    assert float(report.outputs["square"].with_gia) == pytest.approx(0.29561, abs=1e-5)


SUFFICIENT_ONLY = {
    "even activation: E dZy/dZhat = E (-sin) = 0": lambda: about(W.T @ tp.cos(h)),
    "W.T used alone": lambda: about(A.T @ tp.relu(h)),
    "Hermite polynomial of degree 3": lambda: about(W.T @ (h**3 - 3 * h)),
    "y independent of W x": lambda: about(W.T @ one, other=tp.moment(tp.tanh(h) * one)),
    "average readout, looked at where the Zdot is not": lambda: tp.Program(q=tp.moment((W.T @ tp.relu(h)) * v)),
    "readout in the forward pass, odd": lambda: about(W.T @ (v * (W @ tp.tanh(h + v)))),
}


@pytest.mark.parametrize("name", SUFFICIENT_ONLY)
def test_gia_is_right_though_the_checks_fail(name: str) -> None:
    report = tp.check_gia(SUFFICIENT_ONLY[name]())
    assert answers(report) == (False, False, True)
    assert any("not necessary" in note for note in report.notes)


def test_without_transposes() -> None:
    report = tp.check_gia(tp.Program(q=tp.moment(tp.relu(h) ** 2)))
    assert answers(report) == (True, True, True) and not report.offenders and report.readouts == ()
    refused = tp.check_gia(tp.Program(q=tp.moment(tp.log(h))))
    assert answers(refused) == (True, True, True) and not refused.outputs and "log" in refused.notes[0]


# --- readouts, offenders, options -----------------------------------------------------------------------------------


def test_given_readouts() -> None:
    p = about(W.T @ (v * u * h))
    assert tp.check_gia(p).readouts in (("u",), ("v",))  # odd in either, even in both
    assert tp.check_gia(p, readouts=[v]).simple and tp.check_gia(p, readouts="u").simple
    assert not tp.check_gia(p, readouts=[u, v]).bp_like
    for wrong in ("w", tp.Vector("v", n, var=2), h):
        with refused("no initial vector of the program"):
            tp.check_gia(p, readouts=[wrong])
    with refused(r"tp\.Program"):
        tp.check_gia(h)  # type: ignore[arg-type]


def test_a_given_readout_in_the_forward_pass() -> None:
    late = W @ tp.tanh(h + v)
    line = here() - 1
    report = tp.check_gia(about(W.T @ (v * slope(late))), readouts=[v])
    (offender,) = report.offenders
    assert "depends on readout v" in offender.reason and offender.source is not None and offender.source.line == line
    assert report.holds  # Zhat of W tanh(h + v) is independent of v all the same
    (mean,) = tp.check_gia(about(W.T @ (one * h)), readouts=[one]).offenders
    assert mean.number is None and mean.reason == "one has mean 1" and mean.instruction == "vector one"


def test_a_skewed_readout_is_no_matter_where_it_enters_linearly() -> None:
    skewed = tp.Vector("r", n, distribution=scipy.stats.expon(loc=-1))
    p, q = about(W.T @ (skewed * slope(h))), about(W.T @ (skewed**3 * slope(h)))
    assert not linearity(p, [skewed.node]).faults
    (fault,) = parity(q, [skewed.node]).faults
    assert fault.kind == "law"


def test_offenders_are_the_smallest() -> None:
    g = W.T @ tp.relu(h)
    line = here() - 1
    for _ in range(3):
        g = W.T @ tp.relu(W @ g)
    (offender,) = tp.check_gia(tp.Program(q=tp.moment(A.T @ g))).offenders
    assert offender.source is not None and offender.source.line == line


def test_numbers_are_those_of_the_text() -> None:
    p = about((W.T @ (2 * h)).label("dx"))
    of = Instructions(p)
    lines = [line for line in str(p).splitlines() if " = " in line]
    for y in p.nodes:
        if y.op == "matmul":
            k = of.number(y)
            assert k is not None and lines[k - 1].startswith(f"{of.name(y)} = MatMul")
    again = tp.check_gia(tp.parse(str(p)))
    assert [o.number for o in again.offenders] == [o.number for o in tp.check_gia(p).offenders]


def test_hyperparameters_and_many_vectors() -> None:
    eta = tp.Scalar("eta")
    with refused("eta"):
        tp.check_gia(about(W.T @ (eta * h)))
    assert tp.check_gia(about(W.T @ (eta * h)), values={"eta": 0}).holds
    assert tp.check_gia(about(W.T @ (eta * h)), values={"eta": 1}).holds is False
    y = v**2
    for k in range(14):
        y = y * (1 + tp.Vector(f"v{k}", n) ** 2)
    report = tp.check_gia(tp.Program(q=tp.moment(tp.tanh(W.T @ tp.tanh(y * h)))))
    assert report.bp_like is None and "readouts=[...]" in str(report)


def test_a_standard_error_does_not_show_equality() -> None:
    odd = tp.tanh(v * tp.tanh(W @ tp.softplus(h) * u))
    report = tp.check_gia(tp.Program(q=tp.moment(tp.tanh(W.T @ odd) ** 2)))
    if report.outputs["q"].without_gia.kind == "standard error":  # the same sampled integral: their difference is 0
        assert report.outputs["q"].agrees is True
    same = tp.Estimate(1.0, 1e-2, "population", "standard error")
    assert agree(same, same) is None
    assert agree(same, tp.Estimate(1.1, 0, "exact", "exact")) is False
    sharp = tp.Estimate(1.0, 6e-10, "population", "standard error")
    assert agree(sharp, tp.Estimate(1.0 + 1e-9, 0, "exact", "exact")) is True
    assert agree(sharp, tp.Estimate(1.0 + 1e-8, 0, "exact", "exact")) is False
    loose = tp.Estimate(1.0, 1e-3, "quadrature", "bound")
    assert agree(loose, tp.Estimate(1.0005, 0.0, "exact", "exact")) is None
    assert agree(tp.Estimate(Fraction(1, 3), 0, "exact", "exact"), tp.Estimate(1 / 3, 1e-15, "closed", "rounding"))


def test_finite_widths() -> None:
    right, wrong = about(W.T @ (v * slope(h))), about(W.T @ (2 * h))
    found = tp.check_gia(right, widths=[32, 64, 128], seeds=16).finite
    assert found is not None and found.agrees and found.seeds == tuple(range(16))
    report = tp.check_gia(wrong, widths=[32, 64, 128], seeds=16)
    assert report.finite is not None and report.finite.agrees is False and "finite" in report.to_json()
    assert "Finite networks" in str(report)


def test_json_and_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(FOLDER / "counterexample.py")
    assert main(["gia", path, "--set", "mean=3", "--json"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert out["holds"] is False and out["outputs"]["mean_dx"]["value"] == 6
    assert out["outputs"]["mean_dx"]["gia"]["value"] == 0 and out["offenders"][0]["file"] == path
    text = Path(path).read_text().splitlines()[out["offenders"][0]["line"] - 1]
    assert text.strip().startswith("dx = ")
    assert main(["gia", "--readouts", "x", path]) == 0
    assert "x has mean 1" in capsys.readouterr().out
    assert main(["gia", path, "--readouts", "nope"]) == 2
    assert "nope" in capsys.readouterr().err


# --- the programs folder --------------------------------------------------------------------------------------------


TEXTS = {path: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.py"))}
BARE = [
    path for path, text in TEXTS.items() if "\ndef data(" not in text and "check_gia: " in text
]  # others: runs of training


@pytest.mark.parametrize("path", BARE, ids=lambda path: path.stem)  # networks: test_network_programs.py
def test_docstrings_say_what_the_checks_say(path: Path) -> None:
    small = {"mlp_covariances": {"images": 3}, "semicircle": {"order": 4}, "marchenko_pastur": {"order": 3}}
    p = load_model(str(path), small.get(path.stem, {})).program()
    report, cover = tp.check_gia(p), tp.check_regularity(p)
    doc = " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split())
    assert f"check_gia: simple {report.simple}, bp_like {report.bp_like}, holds {report.holds}" in doc
    assert f"check_regularity: covered {cover.covered}, {cover.theorem}" in doc


# --- random programs ------------------------------------------------------------------------------------------------


def check_any_kind(p: tp.Program) -> None:
    """Limits are taken of those alone for which they can refute the structural check: BP-like, with W and W.T."""
    simple, _ = search(p, linearity, symmetric=False)
    loose, _ = search(p, parity, symmetric=True)
    reused = {(y.attr[0].name, y.attr[1]) for y in p.nodes if y.op == "matmul"} >= {("W", True), ("W", False)}
    if simple.faults and loose.faults:
        below = [set(topological(f.node.args)) - {f.node} for f in loose.faults]
        assert not any(f.node in b for f in loose.faults for b in below)  # none is computed from another
    elif reused:
        report = tp.check_gia(p)
        event(f"simple {report.simple} holds {report.holds}")
        assert report.bp_like and report.holds, report
        json.dumps(report.to_json())


@settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(programs(max_instructions=8))
def test_bp_like_programs_of_any_kind_hold(p: tp.Program) -> None:
    check_any_kind(p)


@pytest.mark.slow
@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(programs(max_instructions=8))
def test_many_bp_like_programs_of_any_kind_hold(p: tp.Program) -> None:
    check_any_kind(p)


def backward_pass(seed: int) -> tp.Program:
    """Random forward and backward instructions on two matrices; about half of them BP-like."""
    rng = np.random.default_rng(seed)

    def pick(items: Sequence[Any]) -> Any:
        return items[rng.integers(len(items))]

    forward, backward = [x, one], [v, u]
    for _ in range(rng.integers(1, 4)):
        forward.append(pick([W, A]) @ pick([tp.relu, tp.step, tp.cos, *SMOOTH])(pick(forward)))
    for _ in range(rng.integers(1, 4)):
        y, z, f = pick(backward), pick(forward), pick([tp.relu, tp.step, tp.cos, *SMOOTH])
        how = pick(["product"] * 4 + ["sum", "odd", "scalar", "leak", "even"])
        new = {
            "product": y * f(z),
            "sum": y + pick(backward),
            "odd": tp.tanh(y),
            "scalar": y - tp.tanh(z) * tp.moment(y * z),
            "leak": y + z,
            "even": tp.cos(y),
        }[how]
        backward.append(pick([W.T, A.T]) @ new if rng.integers(2) else new)
    g = pick([W.T, A.T]) @ (backward[-1] * pick(forward))
    return tp.Program(mean=tp.moment(g), square=tp.moment(g**2), overlap=tp.moment(g * forward[-1]), x=tp.moment(g * x))


@pytest.mark.parametrize(("seeds", "least"), [(20, 1), pytest.param(60, 3, marks=pytest.mark.slow)])
def test_bp_like_backward_passes_hold(seeds: int, least: int) -> None:
    counts: Counter[Any] = Counter()
    for seed in range(seeds):
        report = tp.check_gia(backward_pass(seed))
        counts[answers(report)] += 1
        assert bool(report.offenders) == (not report.simple)
        assert not (report.simple and not report.bp_like)
        if report.bp_like:
            assert report.holds, (seed, report)
            for found in report.outputs.values():
                assert float(found.with_gia) == pytest.approx(float(found.without_gia), rel=0.1, abs=0.02), seed
    print(counts)
    for kind in ((True, True, True), (False, True, True), (False, False, True), (False, False, False)):
        assert counts[kind] >= least, counts
