"""The demo, small: what it prints, what it says in JSON, its picture, and what it does without matplotlib."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensorprog.cli import main
from tensorprog.faces import demo
from tensorprog.limits.limit import limit

SMALL = ["--widths", "64", "256", "1024", "--seeds", "4"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TENSORPROG_SMALL", "1")
    return tmp_path


def test_it_tells_the_story(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert main(["demo"]) == 0
    out = capsys.readouterr().out
    assert "mean_dx = 2" in out and "mean_dx = 0" in out and "MatMul(W.T" in out
    assert "agree with the limit, 2" in out and "REJECT GIA's answer, 0" in out
    assert "100 images: The runs agree" in out and "10 images: The runs agree" in out
    assert "3. Training" in out and "infinite" in out
    for suffix in ("svg", "png"):
        assert (folder / f"tensorprog-demo.{suffix}").stat().st_size > 10_000


def test_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert main(["demo", *SMALL, "--json", "--plot", "here.png"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert out["outputs"]["mean_dx"]["value"] == 2 and out["outputs"]["mean_dx"]["kind"] == "exact"
    assert out["counterexample"]["limit"]["agrees"] is True and out["counterexample"]["gia"]["agrees"] is False
    assert out["digits"]["100 images"]["widths"] == [64, 256, 1024] and out["digits"]["10 images"]["agrees"] is True
    moved = {scheme: found["moved"] for scheme, found in out["training"].items()}
    assert moved["ntk"]["1024"] < 0.02 < moved["mup"]["1024"] and abs(moved["ntk"]["infinite"]) < 1e-12
    assert abs(moved["mup"]["1024"] / moved["mup"]["infinite"] - 1) < 0.2
    assert sorted(path.name for path in folder.iterdir()) == ["here.png"]


def test_widths_beyond_memory_for_all_images(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert main(["demo", "--widths", "20000", "40000", "--seeds", "2", "--plot", "wide.svg"]) == 0
    assert "10 images: The runs agree" in capsys.readouterr().out and Path("wide.svg").stat().st_size > 10_000


def test_without_matplotlib(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["demo", *SMALL]) == 0
    captured = capsys.readouterr()
    assert "tensorprog[plot]" in captured.err and "Done" in captured.out and not list(folder.iterdir())


def test_an_interrupt_keeps_the_first_part(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "_second", interrupted)
    assert main(["demo", *SMALL]) == 130
    captured = capsys.readouterr()
    assert "REJECT GIA" in captured.out and "interrupted" in captured.err


def test_one_seed_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--seeds", "1"]) == 2
    assert "seeds" in capsys.readouterr().err


def test_the_digits_are_sensibly_scaled() -> None:
    X, labels = demo.images()
    np.testing.assert_allclose((X**2).mean(axis=1), 1, rtol=1e-12)
    kernel = np.asarray(limit(demo.covariances(X[:20]))["cov"])
    np.testing.assert_allclose(np.diag(kernel), 1, rtol=1e-12)  # variance 2/fan-in preserves a relu network's scale
    same = labels[:20, None] == labels[None, :20]
    assert kernel[same].mean() > kernel[~same].mean()
