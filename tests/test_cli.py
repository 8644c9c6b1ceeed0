"""The command line: answers, JSON, messages, exit statuses; mostly in this process, pipes and interrupts in another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorprog as tp
from tensorprog.analysis import sweep
from tensorprog.cli import main
from tensorprog.execute import executor
from tensorprog.faces.commands import COMMANDS
from tensorprog.faces.files import CommandError, assignments

SOURCE = """
import tensorprog as tp
print("noise")

def build(mean=1, *, var=0):
    n = tp.Width("n")
    W, x = tp.Matrix("W", n, n, var=1), tp.Vector("x", n, mean=mean, var=var)
    h = tp.Scalar("eta", 1) * (W @ x)
    return tp.Program(mean_dx=tp.moment(W.T @ (2 * h)), h2=tp.moment(h * h))
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "counter.py"
    path.write_text(SOURCE)
    return str(path)


def fails(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "Traceback" not in captured.err
    return captured.err


def answers(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


# --- answers --------------------------------------------------------------------------------------------------------


def test_limit(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["limit", file]) == 0
    captured = capsys.readouterr()
    assert captured.out == "mean_dx = 2 (exact)\nh2 = 1 (exact)\n"
    assert "noise" in captured.err  # what the user's file prints does not disturb the answer


def test_limit_as_json(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = answers(capsys, "limit", file, "--set", "mean=3", "var=1/3")["outputs"]
    assert out["mean_dx"]["value"] == 6 and out["mean_dx"]["kind"] == out["mean_dx"]["method"] == "exact"
    assert out["h2"]["exact"] == str(9 + Fraction(1, 3)) and out["h2"]["error"] == 0
    assert answers(capsys, "limit", file, "--gia")["outputs"]["mean_dx"]["value"] == 0
    assert answers(capsys, "limit", "--values", "eta=1/2", file)["outputs"]["h2"]["value"] == 0.25
    sampled = answers(capsys, "limit", file, "--method", "population", "--samples", "256")["outputs"]["mean_dx"]
    assert sampled["kind"] == "standard error" and abs(sampled["value"] - 2) <= max(5 * sampled["error"], 1e-9)


def test_show_and_a_program_as_text(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", file]) == 0
    text = capsys.readouterr().out
    assert "MatMul(W.T, " in text and "output mean_dx" in text
    (tmp_path / "again.tp").write_text(text)
    assert answers(capsys, "limit", str(tmp_path / "again.tp"))["outputs"]["mean_dx"]["value"] == 2
    assert answers(capsys, "show", file)["text"] + "\n" == text


def test_show_draws(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "p.svg"
    assert main(["show", file, "--svg", str(picture), "--theme", "dark"]) == 0
    assert 'class="matmul"' in picture.read_text(encoding="utf-8")
    assert str(picture) in capsys.readouterr().err
    assert main(["show", file, "--svg", str(tmp_path / "p.png")]) == 2
    assert ".svg, .html, .tex, .txt" in capsys.readouterr().err


def test_formula(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["formula", file]) == 0
    assert "eta**2" in capsys.readouterr().out
    out = answers(capsys, "formula", file, "--gia")["outputs"]
    assert out["mean_dx"]["value"] == 0 and out["h2"]["value"] is None and out["h2"]["latex"] == r"\eta^{2}"
    assert main(["show", file, "--latex"]) == 0
    assert r"\eta^{2}" in capsys.readouterr().out


def test_run(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = answers(capsys, "run", file, "--n", "1e2", "--seeds", "3", "--weights", "dense")
    direct = tp.run(tp.load(_saved(file)), n=100, seeds=3, weights="dense")
    assert out["runs"]["mean_dx"] == direct["mean_dx"].tolist() and out["seeds"] == [0, 1, 2] and out["n"] == 100
    assert out["outputs"]["mean_dx"]["value"] == pytest.approx(direct["mean_dx"].mean())
    assert answers(capsys, "run", file, "--n", "100", "--seeds", "2,", "--weights", "dense")["runs"]["h2"] == [
        direct["h2"][2]
    ]
    assert answers(capsys, "run", file, "--n", "100")["outputs"]["h2"]["error"] is None
    assert main(["run", file, "--n", "64", "--seeds", "2"]) == 0
    assert "2 runs at n = 64" in capsys.readouterr().out


def _saved(file: str) -> Path:
    from tensorprog.faces.files import load_model

    path = Path(file).with_suffix(".tp")
    tp.save(load_model(file, {}).program(), path)
    return path


def test_formulas_in_latex(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["formula", file, "--latex"]) == 0
    text = capsys.readouterr().out
    assert r"\begin{align" in text and "eta" in text
    assert answers(capsys, "formula", file, "--latex")["latex"] in text
    free = answers(capsys, "formula", file, "--latex", "--gia")
    assert free["gia"] is True and free["latex"] not in text


def test_compare_under_gia(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("compare", file, "--widths", "64,256,1024", "--seeds", "16")
    found = answers(capsys, *words, "--gia")
    assert found["agrees"] is True and found["gia"] is True and found["outputs"]["mean_dx"]["value"] == 0
    assert "give one of them" in fails(capsys, *words, "--gia", "--against-gia")


def test_compare(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "c.svg"
    widths = ["--widths", "64", "256", "1024", "--seeds", "16"]
    out = answers(capsys, "compare", *widths, file, "--plot", str(picture))
    assert out["agrees"] is True and out["widths"] == [64, 256, 1024] and picture.stat().st_size > 1000
    assert out["outputs"]["mean_dx"]["value"] == 2 and len(out["outputs"]["mean_dx"]["deviation"]) == 3
    assert (
        answers(capsys, "compare", file, "--against-gia", "--widths", "64,256,1024", "--seeds", "16")["agrees"] is False
    )
    assert main(["compare", file, *widths]) == 0
    assert "All agree" in capsys.readouterr().out


TRAINED = """
import tensorprog as tp

def build(scheme="ntk"):
    h = tp.dense("U", tp.Input("x"), tp.Width("n"))
    return tp.sgd(tp.Network(tp.readout("v", h)), [[1]], [1], steps=2, lr=0.25, parametrization=scheme)
"""


@pytest.mark.parametrize(
    ("scheme", "losses"), [("ntk", [1 / 2, 1 / 8, 1 / 32]), ("mup", [1 / 2, 1 / 8, 0.2265625**2 / 2])]
)
def test_training(scheme: str, losses: list[float], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "trained.py"
    path.write_text(TRAINED)
    words = [str(path), "--set", f"scheme={scheme}"]
    assert main(["train", *words, "--widths", "16,64", "--seeds", "3", "--plot", str(tmp_path / "loss.svg")]) == 0
    text = capsys.readouterr().out
    assert [float(line.split()[1]) for line in text.splitlines()[3:6]] == pytest.approx(losses, rel=1e-5)
    assert "<svg" in (tmp_path / "loss.svg").read_text() and "n = 64" in text
    runs = answers(capsys, "run", *words, "--n", "16", "--seeds", "2")["runs"]
    assert (np.array(runs["f"])[:, 0] != 0).all() and ("f0" in runs) == (scheme == "ntk")
    assert answers(capsys, "limit", *words)["outputs"]["loss"]["value"] == pytest.approx(losses)
    assert answers(capsys, "compare", *words, "--widths", "16,64", "--seeds", "2")["outputs"]


def test_training_of_what_is_not_trained(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no run of training" in fails(capsys, "train", file, "--widths", "16")


def test_every_command_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], *[[c.name, "--help"] for c in COMMANDS]):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert all(c.name in text and c.help in text for c in COMMANDS)


def test_literals() -> None:
    assert assignments("--set", ["a=-1/3", "b=[1, 2/4]", "c='x=y'", "d=None"]) == {
        "a": Fraction(-1, 3), "b": [1, Fraction(1, 2)], "c": "x=y", "d": None,
    }  # fmt: skip
    for bad in ("a", "=3", "a=b", "a=1/0", "a=__import__('os')", "a=0.5/2", "a=(", "1a=2"):
        with pytest.raises(CommandError):
            assignments("--set", [bad])
    with pytest.raises(CommandError, match="twice"):
        assignments("--set", ["a=1", "a=2"])


# --- messages -------------------------------------------------------------------------------------------------------


def test_parameters_are_checked(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no parameter 'men'; it has mean=1, var=0" in fails(capsys, "limit", file, "--set", "men=1")
    assert "'x' is no Python literal" in fails(capsys, "limit", file, "--set", "mean=x")
    assert "no hyperparameter 'beta'" in fails(capsys, "limit", file, "--values", "beta=1")
    _saved(file)
    assert "--values" in fails(capsys, "limit", str(Path(file).with_suffix(".tp")), "--set", "mean=1")


@pytest.mark.parametrize(
    "source, says",
    [
        ("x = 1\n", ["does not define build()"]),
        ("def build(:\n", ["bad.py:1", "SyntaxError"]),
        ("def build():\n    y = 0\n    return 1 / y\n", ["bad.py:3", "ZeroDivisionError", "return 1 / y"]),
        ("import no_such_module_\n", ["bad.py:1", "ModuleNotFoundError"]),
        ("def build():\n    pass\n", ["None", "return missing"]),
        ("def build(depth):\n    pass\n", ["needs depth"]),
        ("import sys\ndef build():\n    sys.exit(0)\n", ["bad.py:3", "SystemExit"]),
        (
            "import tensorprog as tp\ndef build():\n    n, m = tp.Width('n'), tp.Width('m', 2)\n"
            "    return tp.Program(a=tp.moment(tp.Vector('x', n) * tp.Vector('y', m)))\n",
            ["bad.py:4", "x has width n and y has width m", "why", "do:"],
        ),
    ],
)
def test_a_bad_file(source: str, says: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.py").write_text(source)
    message = fails(capsys, "limit", str(tmp_path / "bad.py"))
    assert all(part in message for part in says), message


def test_no_such_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "none.py" in fails(capsys, "limit", str(tmp_path / "none.py"))
    assert "folder" in fails(capsys, "limit", str(tmp_path))
    (tmp_path / "p.txt").write_text("width n")
    assert "neither" in fails(capsys, "limit", str(tmp_path / "p.txt"))
    (tmp_path / "p.tp").write_text("width n\noutput q = nonsense(\n")
    assert "p.tp" in fails(capsys, "limit", str(tmp_path / "p.tp"))


def test_bad_numbers(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = fails(capsys, "run", file, "--n", "0")
    assert "the width n is 0" in message and " at " not in message  # no line of whoever called main
    assert "at least 1" in fails(capsys, "run", file, "--n", "8", "--seeds", "0")
    assert "seeds" in fails(capsys, "compare", file, "--widths", "64", "128", "--seeds", "1")
    assert "no folder" in fails(capsys, "compare", file, "--widths", "64", "--plot", str(tmp_path / "no" / "c.svg"))
    assert "suffix" in fails(capsys, "compare", file, "--widths", "64", "--plot", str(tmp_path / "picture"))
    for words in (["run", file], ["run", file, "--n", "1.5"], ["nonsense", file], []):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 2


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    with pytest.raises(CommandError):
        main(["limit", str(tmp_path / "none.py"), "--debug"])


def test_our_own_errors_ask_for_a_report(
    file: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise KeyError("oops")

    monkeypatch.setattr("tensorprog.limits.limit.limit", broken)
    assert "report" in fails(capsys, "limit", file)


# --- interrupts and pipes -------------------------------------------------------------------------------------------


def test_an_interrupted_run_keeps_its_seeds(
    file: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, calls = executor._run_checked, []

    def interrupted(*args: Any, **options: Any) -> Any:
        calls.append(args)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return run(*args, **options)

    monkeypatch.setattr(executor, "_run_checked", interrupted)
    assert main(["run", file, "--n", "16", "--seeds", "5", "--json"]) == 130
    captured = capsys.readouterr()
    out = json.loads(captured.out)
    assert out["seeds"] == [0, 1] and len(out["runs"]["h2"]) == 2 and out["interrupted"] is True
    assert "interrupted after 2 of 5 seeds" in captured.err


def test_an_interrupted_comparison_keeps_its_widths(
    file: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    block = sweep.run_block

    def interrupted(program: Any, n: int, *rest: Any) -> Any:
        if n == 256:
            raise KeyboardInterrupt
        return block(program, n, *rest)

    monkeypatch.setattr(sweep, "run_block", interrupted)
    words = ["compare", file, "--seeds", "4", "--json", "--widths"]
    assert main([*words, "64", "128", "256"]) == 130
    captured = capsys.readouterr()
    assert json.loads(captured.out)["widths"] == [64, 128] and "after 8 runs" in captured.err
    assert main([*words, "256"]) == 130
    assert json.loads(capsys.readouterr().out)["outputs"] == {}


def test_as_a_process(file: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tensorprog", "limit", file, "--set", "mean=3", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, timeout=120)
    assert json.loads(done.stdout)["outputs"]["mean_dx"]["value"] == 6
    assert not (tmp_path / "__pycache__").exists()  # nothing is left beside the user's file


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX pipes and signals")
def test_a_closed_pipe_is_no_error(file: str, tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "tensorprog", "show", file], stdout=write, stderr=subprocess.PIPE, text=True, timeout=120
    )
    os.close(write)
    assert done.returncode == 0 and done.stderr.strip() == "noise"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX pipes and signals")
def test_a_real_interrupt(file: str, tmp_path: Path) -> None:
    """The file tells us that building has begun, so that the signal cannot come too early."""
    slow = tmp_path / "slow.py"
    slow.write_text("import sys, time\ndef build():\n    print('building', flush=True)\n    time.sleep(60)\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "tensorprog", "show", str(slow)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # also under nohup
    )
    assert process.stderr is not None
    assert process.stderr.readline().strip() == "building"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and out == "" and "interrupted" in err and "Traceback" not in err


def test_arrays_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = tp.Vector("x", tp.Width("n"), axes="t", cov=np.array([[2, 1], [1, 2]]))
    tp.save(tp.Program(c=tp.moment(x * tp.rename(x, t="s"))), tmp_path / "c.tp")
    out = answers(capsys, "limit", str(tmp_path / "c.tp"))["outputs"]["c"]
    assert out["value"] == [[2, 1], [1, 2]] and np.shape(out["error"]) in ((), (2, 2)) and out["axes"] == ["t", "s"]
