"""The command `depth`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tensorprog.cli import main

SOURCE = """
import tensorprog as tp

def build(phi="relu", block=False, family=False):
    n = tp.Width("n")
    if family:
        return lambda h, W_std, b_std: 0.5 * h + tp.dense("W", tp.erf(h), n, W_std=W_std, b_std=b_std)
    if block:
        return lambda h: h + tp.dense("W", tp.relu(h), n)
    return getattr(tp, phi)
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "deep.py"
    path.write_text(SOURCE)
    return str(path)


def test_an_activation(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["depth", file, "--edge", "--depth", "10,1e6", "--c0", "0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["phase"] == "edge" and abs(found["edge"]["W_std"]["value"] ** 2 - 2) < 1e-13
    ntk = found["outputs"]["ntk"]
    assert abs(ntk["value"][1][0] / 250005.9033 - 1) < 1e-9 and 0 < ntk["error"][1][0] < 1e-6
    assert abs(found["rate"]["remainder"]["value"] - 0.375) < 1e-9


@pytest.mark.slow
def test_a_block(file: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "map.svg"
    assert main(["depth", file, "--set", "block=True", "--relative", "--plot", str(picture)]) == 0
    captured = capsys.readouterr()
    assert "multiplies it by 1.5" in captured.out and "correlation after one layer" in picture.read_text()


@pytest.mark.slow
def test_a_family_is_given_its_weights(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["depth", file, "--set", "family=True", "--W-std", "0.8", "--b-std", "0.1", "--depth", "10"]) == 0
    assert "ordered" in capsys.readouterr().out
    assert main(["depth", file, "--set", "family=True"]) == 2
    assert "needs --W-std" in capsys.readouterr().err


def test_messages(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words, says in (
        (["--W-std", "2", "--b-std", "0.1"], "grows without a bound"),
        (["--W-std", "1", "--edge"], "leave out --W-std"),
        (["--set", "phi=x"], "has no attribute"),
        ([], "not Gaussian"),
    ):
        assert main(["depth", file, *words]) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and says in captured.err and "Traceback" not in captured.err
    assert main(["depth", "missing.py"]) == 2
