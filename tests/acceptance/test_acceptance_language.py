"""Programs, their exact limits, finite runs, gradient independence (the language issue)."""

import json
import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import sympy

import tensorprog as tp

pytestmark = pytest.mark.slow  # what the default suite tests piece by piece


def value(result, name):
    return np.asarray(result[name].value, dtype=float)


def counterexample():
    n = tp.Width("n")
    W = tp.Matrix("W", n, n, var=1)
    x = tp.Vector("x", n, mean=1, var=0)
    h = W @ x
    dx = W.T @ (2 * h)
    return tp.Program(mean_dx=tp.moment(dx), dx2=tp.moment(dx * dx), h2=tp.moment(h * h))


def test_the_counterexample_to_gradient_independence():
    p = counterexample()
    r = tp.limit(p)
    assert value(r, "mean_dx") == 2 and value(r, "dx2") == 8 and value(r, "h2") == 1
    assert r["mean_dx"].method == "exact"
    assert value(tp.limit(p, gia=True), "mean_dx") == 0
    assert value(tp.limit(p, gia=True), "dx2") == 4


def test_the_counterexample_at_finite_width():
    runs = np.asarray(tp.run(counterexample(), n=1000, seeds=40)["mean_dx"])
    assert runs.shape == (40,)
    assert abs(runs.mean() - 2) < 5 * runs.std(ddof=1) / math.sqrt(40)


def test_population_limit_agrees():
    r = tp.limit(counterexample(), method="population", samples=2**12, rng=0)
    assert abs(value(r, "mean_dx") - 2) <= max(5 * float(r["mean_dx"].error), 1e-9)
    assert abs(value(r, "dx2") - 8) <= max(5 * float(r["dx2"].error), 1e-9)


def test_catalan_numbers_come_out_exactly():
    n = tp.Width("n")
    W, v = tp.Matrix("W", n, n, var=1), tp.Vector("v", n, mean=0, var=1)
    x, outs = v, {}
    for k in range(1, 9):
        x = W @ (W.T @ x)
        outs[f"m{k}"] = tp.moment(v * x)
    r = tp.limit(tp.Program(**outs))
    for k in range(1, 9):
        assert isinstance(r[f"m{k}"].value, (int, Fraction, sympy.Rational)) and r[f"m{k}"].kind == "exact"
        assert r[f"m{k}"].value == math.comb(2 * k, k) // (k + 1)


def test_marchenko_pastur_with_a_width_ratio():
    n, m = tp.Width("n"), tp.Width("m", ratio=Fraction(1, 2))
    A, v = tp.Matrix("A", m, n, var=1), tp.Vector("v", m, mean=0, var=1)
    x, outs = v, {}
    for k in range(1, 6):
        x = A @ (A.T @ x)
        outs[f"m{k}"] = tp.moment(v * x)
    r = tp.limit(tp.Program(**outs))
    assert [float(r[f"m{k}"].value) for k in range(1, 6)] == [1, 1.5, 2.75, 5.625, 12.3125]


def test_rational_answers_stay_rational():
    n, m = tp.Width("n"), tp.Width("m", ratio=Fraction(1, 3))
    A, v = tp.Matrix("A", m, n, var=Fraction(2, 3)), tp.Vector("v", m, mean=0, var=1)
    u = A @ (A.T @ v)
    r = tp.limit(tp.Program(a=tp.moment(v * u), b=tp.moment(u * u)))
    assert r["a"].value == Fraction(2, 3) and r["b"].value == Fraction(16, 27)
    assert isinstance(r["b"].value, (Fraction, sympy.Rational))


def test_semicircle():
    n = tp.Width("n")
    W, v = tp.Matrix("W", n, n, var=Fraction(1, 2)), tp.Vector("v", n, mean=0, var=1)
    x, outs = v, {}
    for k in range(1, 9):
        x = W @ x + W.T @ x
        outs[f"m{k}"] = tp.moment(v * x)
    r = tp.limit(tp.Program(**outs))
    assert [float(r[f"m{k}"].value) for k in range(1, 9)] == [0, 1, 0, 2, 0, 5, 0, 14]


def test_zdot_of_a_step_function():
    n = tp.Width("n")
    W, y = tp.Matrix("W", n, n, var=1), tp.Vector("y", n, mean=0, var=1)
    r = tp.limit(tp.Program(c=tp.moment(y * (W @ tp.step(W.T @ y)))))
    assert value(r, "c") == pytest.approx(1 / math.sqrt(2 * math.pi), abs=1e-12)


def test_the_same_program_written_two_ways():
    n = tp.Width("n")
    W = tp.Matrix("W", n, n, var=1)
    y, z = tp.Vector("y", n, mean=0, var=1), tp.Vector("z", n, mean=Fraction(1, 2), var=2)
    a = W.T @ tp.tanh(W @ (y + z))
    b = W.T @ tp.tanh(W @ y + W @ z)
    r = tp.limit(tp.Program(a=tp.moment(a * y), b=tp.moment(b * y), a2=tp.moment(a * a), b2=tp.moment(b * b)))
    assert value(r, "a") == pytest.approx(value(r, "b"), abs=1e-9)
    assert value(r, "a2") == pytest.approx(value(r, "b2"), abs=1e-9)


def test_a_vector_multiplied_twice_is_rank_deficient_and_fine():
    n = tp.Width("n")
    W, y = tp.Matrix("W", n, n, var=1), tp.Vector("y", n, mean=0, var=1)
    x = tp.relu(W.T @ y + W.T @ (2 * y) - W.T @ y)
    r = tp.limit(tp.Program(c=tp.moment(y * (W @ x))))
    assert value(r, "c") == pytest.approx(2 * 0.5, abs=1e-9)


def test_width_a_million():
    n = tp.Width("n")
    W, v = tp.Matrix("W", n, n, var=1), tp.Vector("v", n, mean=0, var=1)
    x = W.T @ tp.tanh(W @ tp.relu(W @ v))
    p = tp.Program(a=tp.moment(x * x), b=tp.moment(x * v))
    lim, run = tp.limit(p), tp.run(p, n=10**6, seeds=1)
    assert float(np.asarray(run["a"])[0]) == pytest.approx(float(value(lim, "a")), rel=0.01)


def test_symbolic():
    f = tp.formula(counterexample())
    assert sympy.sympify(f["mean_dx"]) == 2 and sympy.sympify(f["h2"]) == 1


def test_text_round_trip():
    p = counterexample()
    again = tp.parse(str(p))
    assert again == p and str(again) == str(p)
    assert value(tp.limit(again), "dx2") == 8 and np.asarray(tp.run(again, n=16, seeds=2)["h2"]).shape == (2,)
    assert "MatMul" in str(p) and "Nonlin" in str(p) and "Moment" in str(p)


def test_errors_say_what_where_and_why():
    n, m = tp.Width("n"), tp.Width("m", ratio=2)
    W, x = tp.Matrix("weights", n, n, var=1), tp.Vector("signal", m, mean=0, var=1)
    with pytest.raises(tp.TensorProgramError, match="weights") as caught:
        W @ x
    assert "signal" in str(caught.value) and "test_acceptance_language.py" in str(caught.value)
    with pytest.raises(tp.TensorProgramError, match="signal"):
        tp.Vector("a", n, mean=0, var=1) + x
    with pytest.raises(tp.TensorProgramError, match="-1"):
        tp.Vector("b", n, mean=0, var=-1)
    with pytest.raises(tp.TensorProgramError, match="weights"):
        other = tp.Matrix("weights", n, n, var=2)
        y = tp.Vector("y", n, mean=0, var=1)
        tp.Program(a=tp.moment((W @ y) * (other @ y)))
    assert issubclass(tp.TensorProgramError, ValueError)


def test_compare_reports_a_slope_and_a_verdict(tmp_path):
    c = tp.compare(counterexample(), widths=[64, 128, 256, 512, 1024], seeds=40)
    assert c.agrees and -0.7 < float(c.slope["mean_dx"]) < -0.3
    c.plot(str(tmp_path / "c.svg"))
    assert (tmp_path / "c.svg").stat().st_size > 1000


def test_compare_rejects_a_wrong_limit():
    p = counterexample()
    c = tp.compare(p, widths=[64, 128, 256, 512, 1024], seeds=40, against=tp.limit(p, gia=True))
    assert not c.agrees


def test_an_independent_copy_at_finite_width():
    runs = np.asarray(tp.run(counterexample(), n=1000, seeds=40, gia=True)["mean_dx"])
    assert abs(runs.mean()) < 5 * runs.std(ddof=1) / math.sqrt(40)


def test_error_bars_are_true():
    n = tp.Width("n")
    W, V = tp.Matrix("W", n, n, var=1), tp.Matrix("V", n, n, var=2)
    x = tp.Vector("x", n, mean=Fraction(1, 3), var=1)
    p = tp.Program(a=tp.moment(tp.tanh(3 * (W @ x)) * tp.sigmoid(V @ x) * tp.relu(W @ tp.tanh(x))))
    exact, sampled = tp.limit(p), tp.limit(p, method="population", samples=2**13, rng=1)
    assert exact["a"].kind in ("bound", "rounding", "exact") and float(exact["a"].error) < 1e-6
    assert sampled["a"].kind == "standard error"
    assert abs(value(exact, "a") - value(sampled, "a")) < 6 * float(sampled["a"].error) + float(exact["a"].error)


def test_command_line(tmp_path):
    source = tmp_path / "counter.py"
    source.write_text(
        "import tensorprog as tp\n"
        "def build(mean=1):\n"
        "    n = tp.Width('n'); W = tp.Matrix('W', n, n, var=1); x = tp.Vector('x', n, mean=mean, var=0)\n"
        "    return tp.Program(mean_dx=tp.moment(W.T @ (2 * (W @ x))))\n"
    )
    command = [sys.executable, "-m", "tensorprog", "limit", str(source), "--set", "mean=3", "--json"]
    out = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert out["outputs"]["mean_dx"]["value"] == 6
    bad = subprocess.run(
        [sys.executable, "-m", "tensorprog", "limit", str(tmp_path / "none.py")], capture_output=True, text=True
    )
    assert bad.returncode == 2 and "none.py" in bad.stderr and "Traceback" not in bad.stderr
