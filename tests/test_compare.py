"""Comparing finite widths with a limit: the statistics by simulation, the sweep with counted fake runs.

All seeds are fixed, so nothing here is flaky. Each statistical check would fail for a share of the seeds one might
have chosen; the share is stated beside it and at most 1e-3.
"""

from __future__ import annotations

import json
import multiprocessing
import pickle
import sys
import types
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from marks import few
from scipy import stats

import tensorprog as tp
from tensorprog.analysis.compare import Comparison, compare
from tensorprog.analysis.judge import judge, log_slope
from tensorprog.analysis.means import (
    FAMILY_ERROR,
    HEAVY,
    Contrasts,
    Spread,
    _heavy,
    _kurtosis_score,
    _skewness_score,
    p_values,
)
from tensorprog.analysis.sweep import run_block
from tensorprog.errors import TensorProgramError
from tensorprog.estimate import Estimate, Estimates
from tensorprog.progress import Interrupted

WIDTHS = (64, 128, 256, 512, 1024)
ZERO = Estimate(0, 0, "exact", "exact")


def nested(rng: np.random.Generator, shape: tuple[int, ...], widths: tuple[int, ...] = WIDTHS) -> dict[int, np.ndarray]:
    """Means of the first n of the same standard normal coordinates: as correlated between widths as runs can be."""
    out, total, last = {}, np.zeros(shape), 0
    for n in widths:
        total = total + rng.normal(size=shape) * np.sqrt(n - last)
        out[n], last = total / n, n
    return out


# --- the statistics -------------------------------------------------------------------------------------------------


def rejections(seeds: int, scalars: int, rng: np.random.Generator, bias: float, exact: bool = True) -> int:
    """How many of many independent scalar outputs, judged alone, are rejected with a right limit."""
    limit = np.full(scalars, 3.0)
    error = np.zeros(scalars)
    runs = nested(rng, (seeds, scalars))
    stacked = np.stack([3 + bias / n + runs[n] for n in WIDTHS])
    if not exact:  # a sampled limit that is off by as much as it says
        error = np.full(scalars, 0.02)
        limit = limit + error * rng.normal(size=scalars)
    contrasts = Contrasts(WIDTHS)
    kind = "exact" if exact else "standard error"
    spread = Spread(contrasts, WIDTHS, stacked, heavy=False)
    p = p_values(contrasts, spread, limit, error, kind, 0.0) * len(contrasts.rows)
    return int((p.min(axis=0) < FAMILY_ERROR).sum())


@pytest.mark.parametrize("seeds", few([2, 8, 32], [2, 8]))
@pytest.mark.parametrize("exact", [True, False])
def test_a_right_limit_is_rejected_no_more_often_than_stated(seeds: int, exact: bool) -> None:
    count = 20_000
    found = rejections(seeds, count, np.random.default_rng(5), bias=7.0, exact=exact)
    # At a rate of exactly 1e-3 more rejections than this have probability 1e-4.
    assert found <= stats.binom.isf(1e-4, count, FAMILY_ERROR)


def test_the_rate_is_not_far_below_what_is_stated_either() -> None:
    # Not a vacuous test: Bonferroni over correlated tests gives away less than a factor of three.
    assert rejections(16, 40_000, np.random.default_rng(6), bias=0.0) >= 40_000 * FAMILY_ERROR / 3


@pytest.mark.slow
def test_an_array_shares_the_error_probability_among_its_entries() -> None:
    rng = np.random.default_rng(7)
    limit = Estimate(np.ones((4, 5)), np.zeros((4, 5)), "quadrature", "bound")
    wrong = 0
    for _ in range(300):
        runs = {n: 1 + x for n, x in nested(rng, (8, 4, 5)).items()}
        wrong += judge("k", runs, limit, outputs=1).agrees is False
    # At 1e-3 each, four or more of 300 have probability 2.6e-4.
    assert wrong <= 3


@pytest.mark.parametrize("count", [8, 9, 40])
def test_scores_of_skewness_and_kurtosis_are_those_of_the_literature(count: int) -> None:
    """As SciPy has them; of no skewness the score is 0 (SciPy takes a tiny one for 1)."""
    rng = np.random.default_rng(15)
    x = np.concatenate([rng.normal(size=(count, 20)), rng.standard_cauchy((count, 20)), rng.random((count, 20))], 1)
    score, other = _skewness_score(stats.skew(x), count), _kurtosis_score(stats.kurtosis(x, fisher=False), count)
    np.testing.assert_allclose(score, stats.skewtest(x).statistic, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(other, stats.kurtosistest(x).statistic, rtol=1e-10, atol=1e-10)
    assert _skewness_score(np.zeros(1), count) == 0
    rows = np.stack([x - x.mean(0), np.zeros_like(x)])
    heavy = (np.abs(score) > HEAVY) | (other > HEAVY)
    assert np.array_equal(_heavy(rows), heavy) and not _heavy(rows[1:]).any()
    assert heavy[20:40].any() and not _heavy(rows[:, :7]).any()


def test_power_against_a_wrong_limit() -> None:
    rng = np.random.default_rng(8)
    found = [judge("m", {n: 2 + x for n, x in nested(rng, (32,)).items()}, ZERO).agrees for _ in range(20)]
    assert found == [False] * 20
    # Off by eight standard errors of the extrapolated mean, among 30 outputs: still seen. Missed with probability
    # P(|t_31| < 8 - q), q = 5.4 the quantile of 1e-3 / 180, about 7e-3 each.
    fit = float(judge("m", nested(rng, (32,)), ZERO).extrapolated.error)  # type: ignore[union-attr]
    shifted = [{n: 8 * fit + x for n, x in nested(rng, (32,)).items()} for _ in range(20)]
    assert sum(judge("m", runs, ZERO, outputs=30).agrees is False for runs in shifted) >= 17


def test_power_where_entries_are_many() -> None:
    # Every one of 10,000 entries is off by a third of its standard error: no single entry shows it, their mean does.
    rng = np.random.default_rng(9)
    limit = Estimate(np.ones((100, 100)), np.zeros((100, 100)), "quadrature", "bound")
    runs = {n: 1.01 + x for n, x in nested(rng, (16, 100, 100)).items()}
    assert judge("k", runs, limit).agrees is False


def test_the_limits_own_error_counts() -> None:
    rng = np.random.default_rng(10)
    runs = {n: 1 + 0.01 * x for n, x in nested(rng, (32,)).items()}
    for kind in ("bound", "standard error"):
        assert judge("m", runs, Estimate(1.01, 0.0, "given", kind)).agrees is False
        assert judge("m", runs, Estimate(1.01, 0.011, "given", kind)).agrees is True
    assert judge("m", runs, Estimate(1.1, 0.011, "given", "bound")).agrees is False


def test_a_bias_of_order_one_over_n_is_no_disagreement_and_a_constant_is() -> None:
    rng = np.random.default_rng(11)
    noise = {n: 1e-3 * x for n, x in nested(rng, (32,)).items()}
    assert judge("m", {n: 1 + 50 / n + x for n, x in noise.items()}, Estimate(1, 0, "exact", "exact")).agrees is True
    assert (
        judge("m", {n: 1 + 50 / n + 1e-3 + x for n, x in noise.items()}, Estimate(1, 0, "exact", "exact")).agrees
        is False
    )


def test_a_misfit_at_the_smallest_width_alone_is_named() -> None:
    rng = np.random.default_rng(12)
    runs = {n: x + (2.0 if n == 64 else 0.0) for n, x in nested(rng, (32,), (64, 4096, 8192, 16384)).items()}
    found = judge("m", runs, ZERO)
    assert found.agrees is False and "without n = 64 it agrees" in found.note


def test_slope_recovers_minus_one_half_within_its_standard_error() -> None:
    rng = np.random.default_rng(13)
    z = []
    for _ in range(400):
        runs = nested(rng, (32,))
        s = log_slope(WIDTHS, np.stack([runs[n] ** 2 for n in WIDTHS]))
        z.append((s.value + 0.5) / s.error)
    # Mean 0 within 4 of its standard errors (6e-5); spread near 1: the error is a good one, 15% either way.
    assert abs(np.mean(z)) < 4 / np.sqrt(400) and 0.85 < np.std(z) < 1.25


def test_slope_of_a_pure_bias_is_minus_one() -> None:
    found = judge("m", {n: np.full(4, 3 / n) for n in WIDTHS}, ZERO)
    assert float(found.slope) == pytest.approx(-1, abs=1e-12)  # type: ignore[arg-type]
    assert found.agrees is True  # a b/n without any spread is a b/n


def test_arrays_deviate_in_relative_frobenius_norm() -> None:
    limit = Estimate(np.array([[3.0, 0.0], [0.0, 4.0]]), np.zeros((2, 2)), "exact", "exact")
    runs = {n: np.stack([limit.value + 1 / n, limit.value - 1 / n]) for n in (10, 100)}
    found = judge("k", runs, limit, axes=("s", "t"))
    assert found.deviation == pytest.approx([2 / 10 / 5, 2 / 100 / 5])
    assert found.summary == pytest.approx([1, 1]) and found.axes == ("s", "t")


def test_an_exact_output_has_no_slope_and_agrees() -> None:
    found = judge("h2", {n: np.full(4, 0.1 + 0.2) for n in WIDTHS}, Estimate(0.3, 0, "exact", "exact"))
    assert found.slope is None and found.agrees is True and found.note == "exact at every width"
    assert judge("h2", {n: np.full(4, 1.0) for n in WIDTHS}, Estimate(1.001, 0, "exact", "exact")).agrees is False


def test_a_zero_array_limit_and_an_empty_output() -> None:
    rng = np.random.default_rng(14)
    found = judge("k", nested(rng, (16, 3)), Estimate(np.zeros(3), np.zeros(3), "exact", "exact"))
    assert found.agrees is True and np.all(found.deviation > 0)
    empty = judge("k", {n: np.zeros((4, 0)) for n in WIDTHS}, Estimate(np.zeros(0), np.zeros(0), "exact", "exact"))
    assert empty.agrees is True and empty.slope is None


def test_infinite_runs_are_rejected_and_named() -> None:
    runs = {n: np.array([1.0, np.inf if n == 128 else 1.0, 1.0]) for n in WIDTHS}
    c = Comparison.of({n: {"m": x} for n, x in runs.items()}, {"m": 1})
    assert c.agrees is False and c.slope["m"] is None and "n = 128" in str(c)
    json.dumps(c.to_json(), allow_nan=False)


def test_one_width_cannot_be_judged_and_one_seed_is_refused() -> None:
    c = Comparison.of({64: {"m": np.array([0.1, -0.1, 0.05])}}, {"m": 0})
    assert c.agrees is None and c.slope["m"] is None
    assert "no verdict" in str(c) and "not judged" in str(c)
    with pytest.raises(TensorProgramError, match="spread is measured"):
        compare(object(), [64, 128], 1)
    with pytest.raises(TensorProgramError, match="twice"):
        compare(object(), [64, 64], 4)
    with pytest.raises(TensorProgramError, match="at least 1"):
        compare(object(), [], 4)


# --- the sweep, with fakes in place of the executor and the limit -----------------------------------------------------


class Fake(tp.Program):
    """A program whose run at (n, seed) does not depend on what else is run, and counts its calls."""

    def __init__(self) -> None:
        super().__init__(m=1)
        self.ran: list[tuple[int, int]] = []
        self.stop_after: int | None = None

    def run(self, n: int, seeds: list[int], values: dict[str, float] | None) -> dict[str, np.ndarray]:
        if self.stop_after is not None and len(self.ran) >= self.stop_after:
            raise KeyboardInterrupt
        self.ran += [(n, seed) for seed in seeds]
        rngs = [np.random.default_rng((n, seed)) for seed in seeds]
        shift = (values or {}).get("shift", 0.0)
        return {
            "m": shift + np.array([2 + rng.normal() / np.sqrt(n) for rng in rngs]),
            "k": np.stack([np.eye(3) + rng.normal(size=(3, 3)) / np.sqrt(n) for rng in rngs]),
        }


def fake_run(program: Fake, *, n: int, seeds: list[int], weights: str, values: Any) -> dict[str, np.ndarray]:
    return program.run(n, seeds, values)


def fake_limit(program: Fake, *, values: Any = None, rng: Any = 0, gia: bool = False) -> Estimates:
    shift = (values or {}).get("shift", 0.0)
    found = {
        "m": Estimate(Fraction(0 if gia else 2 + shift), 0, "exact", "exact"),
        "k": Estimate(np.eye(3), np.full((3, 3), 1e-12), "quadrature", "bound"),
    }
    return Estimates(found, {"m": (), "k": ("s", "t")})


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    executor = types.ModuleType("tensorprog.execute.executor")
    executor.run = fake_run  # type: ignore[attr-defined]
    limit = types.ModuleType("tensorprog.limits.limit")
    limit.limit = fake_limit  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorprog.execute.executor", executor)
    monkeypatch.setitem(sys.modules, "tensorprog.limits.limit", limit)
    yield Fake()


def test_compare_prints_all_it_knows(program: Fake) -> None:
    c = compare(program, WIDTHS, 20)
    assert c.agrees is True and c.widths == WIDTHS and c.seeds == tuple(range(20))
    assert abs(float(c.slope["m"]) + 0.5) < 4 * c.slope["m"].error  # type: ignore[arg-type, union-attr]
    text = str(c)
    for part in ("m ", "2 (exact)", "3x3 array", "x limit", "1024", "agrees, p = ", "0.001", "20 seeds", "fitted b/n"):
        assert part in text
    assert max(map(len, text.splitlines())) < 160
    assert not compare(program, WIDTHS, 20, against=fake_limit(program, gia=True)).agrees


def test_against_takes_plain_numbers_and_refuses_unknown_names(program: Fake) -> None:
    c = compare(program, WIDTHS, 20, against={"m": 2.5})
    assert list(c.outputs) == ["m"] and c.agrees is False and "differs from the limit" in str(c)
    with pytest.raises(TensorProgramError, match="no output 'q'"):
        compare(program, [8, 16], 2, against={"q": 1})
    with pytest.raises(TensorProgramError, match="shape"):
        compare(program, [8, 16], 2, against={"k": np.eye(2)})


def test_values_reach_runs_and_limit(program: Fake) -> None:
    c = compare(program, WIDTHS, 20, values={"shift": 5.0})
    assert c.agrees is True and float(c.limit["m"]) == 7


def test_an_executor_gives_the_same_numbers(program: Fake) -> None:
    serial = compare(program, WIDTHS, 20)
    with ThreadPoolExecutor(2) as pool:
        pooled = compare(program, WIDTHS, 20, executor=pool)
    assert np.array_equal(serial.outputs["k"].samples, pooled.outputs["k"].samples)
    assert len(program.ran) == 2 * 5 * 20
    assert pickle.loads(pickle.dumps(run_block)) is run_block


def test_a_real_program_on_a_process_pool(tmp_path: Path) -> None:
    n = tp.Width("n")
    W, x = tp.Matrix("W", n, n, var=1), tp.Vector("x", n, mean=1, var=0)
    p = tp.Program(mean_dx=tp.moment(W.T @ (2 * (W @ x))))
    widths = [32, 64, 128, 256]
    serial = compare(p, widths, 24, against={"mean_dx": 2})  # the truth
    # Started afresh, not forked, so that the program and the task must travel as pickles on every system.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        pooled = compare(p, widths, 24, against={"mean_dx": 0}, executor=pool, resume=tmp_path)  # gradient independence
    assert serial.agrees is True and pooled.agrees is False
    assert np.array_equal(serial.outputs["mean_dx"].samples, pooled.outputs["mean_dx"].samples)
    again = compare(p, widths, 24, against={"mean_dx": 2}, resume=tmp_path)
    assert again.agrees is True and len(list(tmp_path.glob("*.npz"))) == 4 * 3


def test_resume_runs_nothing_twice(program: Fake, tmp_path: Path) -> None:
    folder = tmp_path / "sweeps" / "a"
    first = compare(program, [16, 32], 10, resume=folder)
    assert len(program.ran) == 20
    again = compare(program, [16, 32], 10, resume=str(folder))
    assert len(program.ran) == 20
    assert np.array_equal(first.outputs["k"].samples, again.outputs["k"].samples)
    compare(program, [16, 32, 64], 12, resume=folder)  # 2 more seeds at two widths, 12 at the third
    assert len(program.ran) == 20 + 2 * 2 + 12
    compare(program, [16, 32], 10, resume=folder, values={"shift": 1.0})  # other settings are another sweep
    compare(program, [16, 32], 10, resume=folder, weights="dense")
    assert len(program.ran) == 36 + 40
    assert len(program.ran) - len(set(program.ran)) == 40
    assert not list(folder.glob("*.part"))


def test_a_damaged_store_is_named(program: Fake, tmp_path: Path) -> None:
    compare(program, [16, 32], 2, resume=tmp_path)
    damaged = sorted(tmp_path.glob("*.npz"))[0]
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(TensorProgramError, match=damaged.name):
        compare(program, [16, 32], 2, resume=tmp_path)
    with pytest.raises(TensorProgramError, match="not a folder"):
        compare(program, [16, 32], 2, resume=damaged)


def test_an_interrupt_keeps_what_is_done(program: Fake, tmp_path: Path) -> None:
    program.stop_after = 50
    with pytest.raises(KeyboardInterrupt, match="the same call goes on from there") as caught:
        compare(program, WIDTHS, 20, resume=tmp_path)
    assert isinstance(caught.value, Interrupted)
    partial = caught.value.partial
    assert partial.widths == (64, 128) and partial.agrees is not None and "2 width(s)" in str(partial)
    done = len(program.ran)
    assert done >= 50 and len(caught.value.rows) == done
    program.stop_after = None
    c = compare(program, WIDTHS, 20, resume=tmp_path)
    assert len(program.ran) == 100 == len(set(program.ran))
    assert np.array_equal(c.outputs["m"].samples, compare(Fake(), WIDTHS, 20).outputs["m"].samples)


def test_no_progress_bar_without_a_terminal(
    program: Fake, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is what draws it imported."""
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "tqdm", None)
        compare(program, [16, 32], 2)
    assert capfd.readouterr().err == ""
    compare(program, [16, 32], 2, progress=True)
    assert "4/4" in capfd.readouterr().err


# --- what a comparison turns into -----------------------------------------------------------------------------------


def test_xarray_carries_the_labels(program: Fake) -> None:
    pytest.importorskip("xarray")
    data = compare(program, [16, 32, 64], [3, 5, 8]).to_xarray()
    assert data["k"].dims == ("width", "seed", "s", "t") and data["k_limit"].dims == ("s", "t")
    assert data["seed"].values.tolist() == [3, 5, 8] and data["width"].values.tolist() == [16, 32, 64]
    picked = data["k"].sel(width=32, seed=8).values
    assert np.array_equal(picked, fake_run(program, n=32, seeds=[8], weights="auto", values=None)["k"][0])
    assert data["m_deviation"].dims == ("width",)


def test_an_axis_with_two_sizes_gets_two_names() -> None:
    pytest.importorskip("xarray")
    runs = {n: {"a": np.zeros((2, 3)), "b": np.zeros((2, 4))} for n in (8, 16)}
    c = Comparison.of(runs, {"a": np.zeros(3), "b": np.zeros(4)}, axes={"a": ("x",), "b": ("x",)})
    assert c.to_xarray()["a"].dims == ("width", "seed", "a.x")


def test_json_is_plain(program: Fake) -> None:
    found = json.loads(json.dumps(compare(program, WIDTHS, 8).to_json(), allow_nan=False))
    assert found["widths"] == list(WIDTHS) and found["family_error"] == 1e-3 and found["agrees"] is True
    m = found["outputs"]["m"]
    assert m["value"] == 2 and m["kind"] == "exact" and len(m["deviation"]) == 5
    assert m["slope"]["kind"] == "standard error"


def test_plot_shows_every_output(program: Fake, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    c = compare(program, WIDTHS, 8)
    figure = c.plot(tmp_path / "c.svg")
    assert (tmp_path / "c.svg").stat().st_size > 1000
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert any("m (slope \N{MINUS SIGN}0." in label for label in labels) and any("guide" in label for label in labels)
    with pytest.raises(TensorProgramError, match="cannot save"):
        c.plot(tmp_path / "c.nosuchformat")


def test_plot_without_matplotlib_names_the_extra(program: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    c = compare(program, [16, 32], 4)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(TensorProgramError, match=r"tensorprog\[plot\]"):
        c.plot()
