"""Networks in the functions of programs, and on the command line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from marks import refused

import tensorprog as tp
from tensorprog.cli import main

N = tp.Width("n")
X = np.random.default_rng(0).standard_normal((3, 4))
W = tp.Matrix("W", N, N, var=2)

FILE = """
import numpy as np
import tensorprog as tp


def build(depth=1, phi="relu", std=1):
    n, h = tp.Width("n"), tp.Input("x")
    for k in range(depth):
        h = getattr(tp, phi)(tp.dense(f"W{k}", h, n, W_std=std))
    return tp.Network(tp.readout("v", h))


def data(count=2, both=False):
    X = np.arange(1.0, 2 * count + 1).reshape(count, 2)
    return (X, X[:1]) if both else X
"""


def net() -> tp.Network:
    return tp.Network(tp.readout("v", tp.relu(W @ tp.relu(tp.dense("U", tp.Input("x"), N)))))


def average() -> tp.Network:
    return tp.Network(tp.moment(tp.dense("U", tp.Input("x"), N) ** 2))


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "net.py"
    path.write_text(FILE)
    return str(path)


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def failure(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 2
    captured = capsys.readouterr()
    assert not captured.out and "Traceback" not in captured.err
    return captured.err


# ---- functions ----


def test_run_has_outputs_and_both_kernels() -> None:
    r = tp.run(net(), X, n=64, seeds=3)
    assert {k: v.shape for k, v in r.items()} == {"f": (3, 3), "nngp": (3, 3, 3), "ntk": (3, 3, 3)}
    p = net().program(X, of="all")
    assert list(p) == ["f", "nngp", "ntk"] and np.array_equal(tp.run(p, 64, 3)["ntk"], r["ntk"])
    assert np.array_equal(tp.run(p, n=64, seeds=3)["f"], r["f"])


def test_limit_formula_and_compare() -> None:
    r = tp.limit(net(), X)
    assert list(r) == ["nngp", "ntk"] and r.axes["ntk"] == ("example", "example2")
    np.testing.assert_allclose(np.diag(r["nngp"].value), (X**2).mean(1) / 2, rtol=1e-12)
    assert "nngp" in str(tp.formula(net(), [[1, 1]]))
    c = tp.compare(net(), X, widths=[64, 128, 256], seeds=8)
    assert list(c.outputs) == ["nngp", "ntk"] and c.agrees


def test_an_average_readout_has_a_limit_of_its_own() -> None:
    r = tp.limit(average(), X)
    assert list(r) == ["f", "ntk"] and list(tp.run(average(), X, n=8)) == ["f", "ntk"]
    np.testing.assert_allclose(r["f"].value, (X**2).mean(1), rtol=1e-12)
    assert tp.compare(average(), X, widths=[64, 128, 256], seeds=8).agrees
    h = tp.dense("U", tp.Input("x"), N)
    mixed = tp.Network([tp.readout("v", h), tp.moment(h * h)])
    assert list(tp.limit(mixed, X)) == ["ntk"] and list(tp.run(mixed, X, n=8)) == ["f", "ntk"]


def test_options_of_the_program() -> None:
    a = tp.limit(net(), X, X2=X[:1], of="ntk", parametrization="standard", width=64)
    assert list(a) == ["ntk"] and a["ntk"].value.shape == (3, 1)
    b = net().program(X, X[:1], of="ntk", parametrization="standard", width=64)
    np.testing.assert_array_equal(a["ntk"].value, tp.limit(b)["ntk"].value)
    assert tp.limit(net(), X=X, of="nngp", method="exact")["nngp"].value.shape == (3, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tp.limit(net()), "a network without data"),
        (lambda: tp.run(net(), n=4), "a network without data"),
        (lambda: tp.limit(3), "int is not a Program, nor a Network"),
        (lambda: tp.run("net", 4), "str is not a Program, nor a Network"),
        (lambda: tp.compare(None, [2, 4], 2), "NoneType is not a Program"),
        (lambda: tp.run(net(), X, 64), "2 arguments without a name"),
        (lambda: tp.limit(net(), X, X=X), "X is given twice"),
        (lambda: tp.limit(net().program(X), X), "limit of a Program is given data"),
        (lambda: tp.run(net().program(X), X, n=4), "run of a Program is given data"),
        (lambda: tp.limit(net().program(X), of="ntk"), "limit of a Program is given of="),
        (lambda: tp.limit(net(), X, of="nnpg"), "has no 'nnpg'"),
        (lambda: tp.limit(average(), X, of="nngp"), "an average readout has no NNGP"),
    ],
)
def test_what_is_refused(call: Any, message: str) -> None:
    with refused(message) as caught:
        call()
    assert Path(__file__).name in str(caught.value)


# ---- the command line ----


def test_kernel(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = answer(capsys, "kernel", file)["outputs"]
    assert list(out) == ["nngp", "ntk"]
    assert set(out["ntk"]) >= {"value", "error", "method", "kind", "axes"}
    assert 0 < np.max(out["ntk"]["error"]) < 1e-12 and out["ntk"]["axes"] == ["example", "example2"]
    assert (out["ntk"]["method"], out["ntk"]["kind"]) == ("closed form", "rounding")
    np.testing.assert_allclose(np.diag(out["nngp"]["value"]), [5 / 4, 25 / 4], rtol=1e-12)  # relu: half of x.x/d
    out = answer(capsys, "kernel", file, "--set", "phi=tanh")["outputs"]
    assert (out["nngp"]["method"], out["nngp"]["kind"]) == ("quadrature", "bound")
    assert main(["kernel", file, "--of", "ntk_W0"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("ntk_W0") and "nngp" not in text
    assert "that is no kernel" in failure(capsys, "kernel", file, "--of", "f")


def test_kernel_takes_numbers_and_routes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.py"
    path.write_text(
        "import tensorprog as tp\n"
        "def build():\n"
        "    h = tp.dense('U', tp.Input('x'), tp.Width('n'), W_std=tp.Scalar('s'))\n"
        "    return tp.Network(tp.readout('v', tp.relu(h)))\n"
        "def data(): return [[1.0, 1.0]]\n"
    )
    file = str(path)
    assert answer(capsys, "kernel", file, "--values", "s=2")["outputs"]["nngp"]["value"] == [[pytest.approx(2.0)]]
    assert "s has no value" in failure(capsys, "kernel", file)
    sampled = answer(capsys, "kernel", file, "--values", "s=2", "--method", "population")["outputs"]["nngp"]
    assert sampled["kind"] == "standard error" and "asked for" in sampled["note"]
    assert "tol=-1.0" in failure(capsys, "kernel", file, "--values", "s=2", "--tol", "-1")


def test_parameters_reach_build_and_data(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = answer(capsys, "limit", file, "--set", "count=3", "phi=abs", "std=2")["outputs"]
    np.testing.assert_allclose(np.diag(out["nngp"]["value"]), [10, 50, 122], rtol=1e-12)
    out = answer(capsys, "limit", file, "--set", "both=True", "--of", "nngp")["outputs"]
    assert np.shape(out["nngp"]["value"]) == (2, 1)
    assert "it has depth=1, phi=relu, std=1, count=2, both=False" in failure(capsys, "show", file, "--set", "k=1")


def test_data_from_files(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "X.npy", [[2.0, 0.0]])
    np.savez(tmp_path / "X.npz", x=[[2.0, 0.0]])
    for name in ("X.npy", "X.npz"):
        out = answer(capsys, "kernel", file, "--data", str(tmp_path / name))["outputs"]
        assert out["nngp"]["value"] == [[pytest.approx(1.0)]]
    assert "--data none.npy" in failure(capsys, "kernel", file, "--data", "none.npy")
    np.save(tmp_path / "O.npy", np.array([{}]), allow_pickle=True)
    assert "O.npy" in failure(capsys, "kernel", file, "--data", str(tmp_path / "O.npy"))


def test_the_other_commands(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = answer(capsys, "run", file, "--n", "100", "--seeds", "2")
    assert list(out["outputs"]) == ["f", "nngp", "ntk"] and np.shape(out["runs"]["f"]) == (2, 2)
    out = answer(capsys, "compare", file, "--widths", "64,128,256", "--seeds", "8", "--of", "ntk")
    assert list(out["outputs"]) == ["ntk"] and out["agrees"] is True
    out = answer(capsys, "gia", file, "--set", "depth=2")
    assert (out["simple"], out["bp_like"], out["holds"]) == (True, True, True)
    assert main(["show", file]) == 0
    text = capsys.readouterr().out
    assert "data [[1.0, 2.0], [3.0, 4.0]]" in text and "trained" in text
    assert answer(capsys, "regularity", file)["covered"] is True
    a, b = (answer(capsys, "limit", file, "--parametrization", k)["outputs"]["ntk"]["value"] for k in ("ntk", "tp"))
    assert a == b  # at standard deviation 1
    assert "give width=64" in failure(capsys, "limit", file, "--parametrization", "standard")
    assert "leave out --readouts" in failure(capsys, "gia", file, "--readouts", "v")


def test_programs_take_no_data(tmp_path: Path, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "program.py"
    path.write_text(
        "import tensorprog as tp\ndef build(): return tp.Program(q=tp.moment(tp.Vector('x', tp.Width('n'))))"
    )
    assert "leave out --data" in failure(capsys, "limit", str(path), "--data", "X.npy")
    assert "is for networks" in failure(capsys, "limit", str(path), "--of", "ntk")
    assert "kernels are of networks" in failure(capsys, "kernel", str(path))
    path.write_text(Path(file).read_text().split("def data")[0])
    assert "let" in (text := failure(capsys, "kernel", str(path))) and "define data()" in text
    path.write_text("def build(): return 3")
    assert "must return a tensorprog.Program, Network or Trace" in failure(capsys, "kernel", str(path))


def test_a_picture_of_the_kernels(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "kernels.svg"
    assert main(["kernel", file, "--plot", str(path)]) == 0
    assert "picture" in capsys.readouterr().err and path.stat().st_size > 1000


# ---- text, checks, one call ----


def test_text_and_regularity_of_networks(tmp_path: Path) -> None:
    program = net().program(X, of="nngp")
    assert tp.latex(net(), X, of="nngp") == tp.latex(program)
    assert str(tp.check_regularity(net(), X)) == str(tp.check_regularity(net().program(X)))
    tp.save(net(), tmp_path / "net.tp", X=X, of="nngp")
    assert tp.load(tmp_path / "net.tp") == program
    for call in (
        lambda: tp.latex(net()),
        lambda: tp.check_regularity(net()),
        lambda: tp.save(net(), tmp_path / "a.tp"),
        lambda: tp.save(net(), X),  # type: ignore[arg-type]
    ):
        with refused("without data") as error:
            call()
        assert "X" in str(error.value)
    for call in (lambda: tp.latex(3), lambda: tp.check_regularity("p"), lambda: tp.save(3, tmp_path / "b.tp")):  # type: ignore[arg-type]
        with refused(r"tp\.Program"):
            call()
    with refused("of a Program is given X="):
        tp.save(program, tmp_path / "c.tp", X=X)


def test_one_call_finds_kernel_verdict_and_comparisons(monkeypatch: pytest.MonkeyPatch) -> None:
    """From one limit with and one without copies, and one set of runs."""
    import tensorprog.analysis.compare as comparing
    import tensorprog.limits.limit as limits

    counts = {"limit": 0, "sweep": 0}

    def counted(name: str, function: Any) -> Any:
        def wrapper(*args: Any, **options: Any) -> Any:
            counts[name] += 1
            return function(*args, **options)

        return wrapper

    monkeypatch.setattr(limits, "limit", counted("limit", limits.limit))
    monkeypatch.setattr(comparing, "sweep", counted("sweep", comparing.sweep))
    report = tp.check_gia(net(), X, of=("nngp", "ntk"), widths=[64, 128, 256], seeds=16)
    assert counts == {"limit": 2, "sweep": 1}
    want = tp.limit(net(), X)
    for name in ("nngp", "ntk"):
        assert np.array_equal(report.limit[name].value, want[name].value)
    assert report.holds and report.comparison is not None and report.finite is not None
    assert report.comparison.agrees and report.finite.agrees and "The same networks against the limit" in str(report)
    assert {"finite", "comparison"} <= set(report.to_json())
    wrong = tp.check_gia(
        tp.Network(tp.moment((W @ (tp.dense("U", tp.Input("x"), N) + 1)) ** 2)), X, widths=[64, 256], seeds=16
    )
    assert wrong.holds is False and wrong.comparison.agrees and not wrong.finite.agrees
