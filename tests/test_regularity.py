"""check_regularity: which Master Theorem covers a program, and why not."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import HealthCheck, given, settings
from marks import refused
from strategies import programs

import tensorprog as tp
from tensorprog.cli import main
from tensorprog.language.functions import PRIMITIVES

FOLDER = Path(__file__).resolve().parent.parent / "programs"

n = tp.Width("n")
W, A = tp.Matrix("W", n, n), tp.Matrix("A", n, n)
R = tp.Matrix("R", n, n, entries="rademacher")
x, y = tp.Vector("x", n), tp.Vector("y", n, mean=1)
theta = tp.inverse_sqrt(n) ** 2  # 1/n
tiny = tp.exp(-1 / theta)  # e^-n
m = tp.moment


def check(q: tp.Expression, **options: Any) -> tp.RegularityReport:
    return tp.check_regularity(tp.Program(q=q), **options)


def normalised(eps: float) -> tp.Expression:
    centred = y - m(y)
    return centred / tp.sqrt(m(centred**2) + eps)


COVERED = {
    "III, theorem 2.10": {
        "relu and its derivative": lambda: m(tp.relu(W @ x) * (W.T @ tp.step(x))),
        "polynomials": lambda: m((W @ x) ** 5),
        "exp of what is bounded": lambda: m(tp.exp(tp.tanh(W.T @ (W @ x))) * (W @ x)),
        "a reciprocal away from 0": lambda: m(W.T @ ((W @ x) / (1 + x**2))),
        "a logarithm away from 0": lambda: m(tp.log(1 + (W.T @ (W @ x)) ** 2)),
        "a root": lambda: m(tp.sqrt(tp.abs(W.T @ x))),
        "a hyperparameter is a constant": lambda: m(tp.step(tp.Scalar("eta") * x)),
        "continuous functions of Moments": lambda: 1 / m(x**2) + tp.sqrt(m(x**2)),
    },
    "III, theorem E.15": {
        "tanh of a scaled vector": lambda: m(tp.tanh(m(x**2) * (W @ x))),
        "layer norm": lambda: m(tp.relu(W @ normalised(1))),
        "layer norm with eps = 0": lambda: m(tp.relu(W @ normalised(0))),
        "relu of a vector times 1/n": lambda: m(tp.relu(theta * x)),
        "relu of a vector times e^-n": lambda: m(tp.relu(tiny * (W @ x))),
    },
    "III, theorem E.11": {
        "a step, scalars elsewhere": lambda: m(tp.step(W @ x) * x * m(y)),
        "a step of a vector times a scalar away from 0": lambda: m(tp.step(m(x**2) * x)),
        "rank stable: independent limits": lambda: m(tp.step(A @ x) * (W @ (m(y) * x)) * (W @ y)),
    },
    "I, theorem 5.4": {"exp without transposes": lambda: m(tp.exp(W @ x) * tp.relu(A @ tp.exp(W @ x)))},
    "IVb, theorem 2.6.10": {
        "an OuterNonlin": lambda: m(tp.outer(lambda a, b: tp.tanh(a + b), x, W @ x)),
        "signs as weights, smooth functions": lambda: m(tp.tanh(R @ x) * (R.T @ x) ** 3),
    },
}


@pytest.mark.parametrize("theorem, name", [(t, name) for t, cases in COVERED.items() for name in cases])
def test_covered(theorem: str, name: str) -> None:
    report = check(COVERED[theorem][name]())
    assert report.covered is True and f"Tensor Programs {theorem}" in report.theorem, report
    assert report.rank_stable and {r.status for r in report.reasons} <= {"fine"}


OUTSIDE = {
    "exp with transposes": (lambda: m(tp.exp(W @ x) * (W.T @ x)), "outside", "faster than any polynomial"),
    "exp with scalars": (lambda: m(tp.exp(x) * m(x)), "outside", "there are scalars"),
    "a step that a scalar moves": (lambda: m(tp.step(x + m(x**2))), "outside", "where depends on a scalar"),
    "signs as weights and relu": (lambda: m(tp.relu(R @ x)), "outside", "not polynomially smooth"),
    "OuterNonlin and step": (lambda: m(tp.outer(lambda a, b: tp.tanh(a + b), tp.step(x), x)), "outside", "pseudo-Lip"),
    "a scalar that blows up": (lambda: m(x / theta), "open", "tends to infinity"),
    "1/sigmoid": (lambda: m(1 / tp.sigmoid(W @ x)), "open", "not known to be polynomially bounded"),
    "a heavy tail": (lambda: m(tp.Vector("t", n, distribution=scipy.stats.t(5))), "open", "its law"),
    "no value": (lambda: m(tp.step(m(tp.Scalar("eta") * x**2) * x)), "open", "limit that is not known"),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_outside_the_proof(name: str) -> None:
    build, status, says = OUTSIDE[name]
    report = check(build())
    assert report.covered is None, report
    assert report.reasons[-1].status == status and says in report.reasons[-1].text
    assert ("expected to hold" if status == "outside" else "open") in report.theorem


def test_if_rank_stable() -> None:
    report = check(m(tp.step(W @ x) * (W @ (m(y) * x))))  # W is applied to x and to a multiple of x
    assert report.covered is None and report.rank_stable is None and "if it is rank stable" in report.theorem
    assert "rank stability is not decided" in report.reasons[-1].text


DEGENERATE = {
    "step(x/n)": lambda: m(tp.step(theta * x)),
    "sign(W x/n)": lambda: m(tp.sign(theta * (W @ x)) ** 2),
    "sign(2 W x/n)": lambda: m(tp.sign(2 * theta * (W @ x))),
    "step(e^-n g)": lambda: m(tp.step(tiny * (W @ x))),
    "a Moment of limit 0": lambda: m(tp.step(m(x) * x)),
    "a jump of a scalar": lambda: tp.step(m(x)),
    "a vector that is 0 half of the time": lambda: m(tp.sign(tp.relu(y) * x + m(x)) ** 2),
    "a sum of such": lambda: m(tp.sign(m(x) * x + theta * y)),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_a_scalar_of_limit_0_inside_a_jump(name: str) -> None:
    report = check(DEGENERATE[name]())
    assert report.covered is False and report.reasons[-1].status == "fails", report
    assert "limit 0" in report.reasons[-1].text


def test_such_a_limit_is_wrong() -> None:
    p = tp.Program(q=m(tp.sign(theta * x) ** 2))
    assert tp.check_regularity(p).covered is False
    assert np.asarray(tp.run(p, n=100)["q"]) == 1
    with refused("undetermined"):
        tp.limit(p)


def test_refused() -> None:
    line = inspect.currentframe().f_lineno + 1  # type: ignore[union-attr]
    bad = tp.log(x)
    report = check(m(bad))
    (reason,) = report.reasons
    assert report.covered is False and reason.status == "refused" and "log" in reason.text
    assert reason.source is not None and (reason.source.file, reason.source.line) == (__file__, line)
    assert check(m(tp.exp(x**2))).covered is False


def test_hyperparameters() -> None:
    p = tp.Program(q=m(tp.step(m(tp.Scalar("eta") * x**2) * x)))
    assert tp.check_regularity(p, values={"eta": 2}).covered is True
    assert tp.check_regularity(p, values={"eta": 0}).covered is True  # 0 at every width
    with refused("beta"):
        tp.check_regularity(p, values={"beta": 0})
    with refused(r"tp\.Program"):
        tp.check_regularity(x)  # type: ignore[arg-type]


def test_reasons_name_instruction_and_line() -> None:
    line = inspect.currentframe().f_lineno + 1  # type: ignore[union-attr]
    jump = tp.step(theta * x).label("jump")
    p = tp.Program(q=m(jump * y))
    (reason,) = tp.check_regularity(p).reasons
    assert reason.number == 1 and reason.instruction.startswith("instr 1: jump = Nonlin(step(")
    assert reason.source is not None and reason.source.line == line
    assert f"(test_regularity.py:{line})" in str(tp.check_regularity(p))
    assert next(line for line in str(p).splitlines() if " = " in line).startswith("jump = ")


def test_json_and_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["regularity", str(FOLDER / "semicircle.py"), "--json"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert out["covered"] is True and "2.10" in out["theorem"] and out["reasons"] == []
    tp.save(tp.Program(q=m(tp.step(theta * x))), tmp_path / "p.tp")
    assert main(["regularity", str(tmp_path / "p.tp")]) == 0
    text = capsys.readouterr().out
    assert "NOT covered" in text and "p.tp, line 4" in text


@pytest.mark.parametrize("name", [row.name for row in PRIMITIVES.values() if row.domain is None])
def test_every_function_has_an_answer(name: str) -> None:
    from tensorprog.language import algebra
    from tensorprog.language.expression import Expression

    row = PRIMITIVES[name]
    parameters = [0.5] * len(row.parameters)
    plain = check(m(Expression(algebra.fn(name, (W @ x).node, *parameters)) * (W.T @ x)))
    scaled = check(m(Expression(algebra.fn(name, (m(y) * x).node, *parameters))))
    assert plain.covered is (None if row.growth == "exponential" else True)
    assert scaled.covered is (None if row.growth == "exponential" else True)
    assert ("E.15" in scaled.theorem) == (row.lipschitz or (name == "bump"))


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(programs(max_instructions=10))
def test_random_programs_have_an_answer(p: tp.Program) -> None:
    report = tp.check_regularity(p)
    worst = {r.status for r in report.reasons} - {"fine"}
    assert (report.covered is True) <= (not worst) and (report.covered is False) == bool(worst & {"fails", "refused"})
    str(report), json.dumps(report.to_json())
