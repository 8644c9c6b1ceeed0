"""The programs/ folder: every limit is the known answer its docstring states, and finite networks agree with it.

Statistical checks: `compare` with the default seeds 0..k-1, so nothing is flaky; each comparison of a right limit would
fail for at most a share 1e-3 of the seeds one might have chosen (so all of them for at most 1 %), the means at one
width for 1e-4 each.
"""

from __future__ import annotations

import ast
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import integrate

import tensorprog as tp
from tensorprog.cli import main
from tensorprog.faces.files import load_model

FOLDER = Path(__file__).resolve().parent.parent / "programs"
# Networks, which have data, are in test_network_programs.py; runs of training, which have a check of their own, in
# test_training_programs.py.
TEXTS = {path.stem: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.py")}
NAMES = sorted(name for name, text in TEXTS.items() if "\ndef data(" not in text and "check_gia: " in text)


def program(name: str, **parameters: Any) -> tp.Program:
    return load_model(str(FOLDER / f"{name}.py"), parameters).program()


def exact(p: tp.Program, **options: Any) -> dict[str, Any]:
    found = tp.limit(p, **options)
    assert all(item.kind == "exact" for item in found.values())
    return {name: item.value for name, item in found.items()}


def narayana(k: int, rho: Fraction) -> Fraction:
    return sum(Fraction(math.comb(k, i) * math.comb(k, i - 1), k) * rho ** (i - 1) for i in range(1, k + 1))


def test_the_folder_is_there() -> None:
    assert {"counterexample", "marchenko_pastur", "semicircle", "universality"} <= set(NAMES)


@pytest.mark.parametrize("mean, var", [(1, 0), (Fraction(2, 3), Fraction(1, 5))])
def test_counterexample(mean: Any, var: Any) -> None:
    p = program("counterexample", mean=mean, var=var)
    q = mean**2 + var
    assert exact(p) == {"mean_dx": 2 * mean, "dx2": 8 * q, "h2": q}
    assert exact(p, gia=True) == {"mean_dx": 0, "dx2": 4 * q, "h2": q}


@pytest.mark.parametrize("r, s", [(1, 1), (Fraction(1, 2), 2), (3, Fraction(2, 3)), (1, Fraction(2, 3))])
def test_tied_autoencoder(r: Any, s: Any) -> None:
    overlap, norm = Fraction(r * s) / 2, Fraction(r * s * s) / 2 + Fraction(r * r * s * s) / 4
    p = program("tied_autoencoder", ratio=r, var=s)
    assert exact(p) == {"overlap": overlap, "norm": norm, "loss": norm - 2 * overlap + 1}
    untied = Fraction(r * s * s) / 2
    assert exact(p, gia=True) == {"overlap": 0, "norm": untied, "loss": untied + 1}


def test_the_best_variance_of_the_tied_autoencoder() -> None:
    loss = [
        exact(program("tied_autoencoder", var=Fraction(2, 3) + e))["loss"] for e in (-Fraction(1, 9), 0, Fraction(1, 9))
    ]
    assert loss[1] == Fraction(2, 3) and loss[1] < min(loss[0], loss[2])


@pytest.mark.parametrize("rho", [Fraction(1), Fraction(1, 2), Fraction(3, 2)])
def test_marchenko_pastur(rho: Fraction) -> None:
    found = exact(program("marchenko_pastur", ratio=rho, order=6))
    assert list(found.values()) == [narayana(k, rho) for k in range(1, 7)]
    if rho == 1:
        assert list(found.values()) == [1, 2, 5, 14, 42, 132]


def test_semicircle() -> None:
    p = program("semicircle", order=10)
    assert list(exact(p).values()) == [0, 1, 0, 2, 0, 5, 0, 14, 0, 42]
    assert set(exact(p, gia=True).values()) == {0}


@pytest.mark.parametrize("power, moments", [(1, [1, 2, 5, 14]), (2, [1, 3, 12, 55]), (3, [1, 4, 22, 140])])
def test_ginibre_powers(power: int, moments: list[int]) -> None:
    found = exact(program("ginibre_powers", power=power, order=4))
    assert found.pop("trace") == 0 and list(found.values()) == moments
    assert moments == [math.comb(power * k + k, k) // (power * k + 1) for k in range(1, 5)]


def relu_recursion(c: np.ndarray, weight_var: float, bias_var: float) -> np.ndarray:
    """Cho and Saul's formula, written out independently of the package."""
    k = weight_var * c + bias_var
    size = np.sqrt(np.outer(np.diag(k), np.diag(k)))
    cosine = np.clip(k / size, -1, 1)
    angle = np.arccos(cosine)
    return size * (np.sin(angle) + cosine * (np.pi - angle)) / (2 * np.pi)


@pytest.mark.parametrize("weight_var, bias_var", [(1, 1), (2, 0), (1.5, 0.1)])
def test_mlp_covariances(weight_var: float, bias_var: float) -> None:
    X = np.random.default_rng(0).normal(size=(4, 6))
    p = program("mlp_covariances", data=X.tolist(), depth=3, weight_var=weight_var, bias_var=bias_var)
    found, c = tp.limit(p), X @ X.T / 6
    for layer in (1, 2, 3):
        c = relu_recursion(c, weight_var, bias_var)
        np.testing.assert_allclose(np.asarray(found[f"layer_{layer}"]), c, rtol=1e-11)


def test_mlp_covariances_of_the_worked_example(tmp_path: Path) -> None:
    X = np.array([[1.0, 2.0], [0.5, -0.25]])
    np.save(tmp_path / "X.npy", X)
    found, s = tp.limit(program("mlp_covariances", data=str(tmp_path / "X.npy"))), (X**2).mean(axis=1)
    np.testing.assert_allclose(np.diag(np.asarray(found["layer_1"])), s / 2 + 1 / 2, rtol=1e-12)
    np.testing.assert_allclose(np.diag(np.asarray(found["layer_2"])), s / 4 + 3 / 4, rtol=1e-12)


@pytest.mark.parametrize("lr", [0.5, 0.25])
def test_kernel_training(lr: float) -> None:
    """Against kernel gradient descent in the eigenvector y, with the tangent kernel of Jacot's recursion."""
    k0 = 1 / math.pi  # Sigma^1 = 2 I; E relu relu of independent variables of variance 2
    angle = math.acos(k0)
    sigma = (math.sin(angle) + (math.pi - angle) * k0) / math.pi
    slope = 1 - angle / math.pi
    k = k0 * slope + sigma  # the input layer adds nothing: x.x' = 0
    wanted = [1 - (1 - lr * (3 - k) / 2) ** t for t in range(4)]
    found = tp.limit(program("kernel_training", steps=3, lr=lr, examples=2))["f"]
    assert np.abs(found.value - np.outer(wanted, [1, -1])).max() <= np.max(found.error) + 1e-15
    alone = program("kernel_training", steps=3, lr=lr)
    for gia, kernel in ((False, 3), (True, 2)):
        there = tp.limit(alone, gia=gia)["f"].value.ravel()
        assert np.abs(there - [1 - (1 - lr * kernel) ** t for t in range(4)]).max() < 1e-14


def test_trained_weights() -> None:
    assert list(exact(program("trained_weights")).values()) == [Fraction(3, 4), Fraction(65345, 65536)]
    assert list(exact(program("trained_weights"), gia=True).values()) == [Fraction(1, 2), Fraction(3369, 4096)]


@pytest.mark.parametrize("eps", [0.5])
def test_adam(eps: float) -> None:
    """The operator of Tensor Programs IVb, of one example: an integral in one variable for each of two layers."""

    def moved(chi: list[float], b1: float = 0.9, b2: float = 0.999) -> float:
        def direction(z: float) -> float:
            m = s = 0.0
            for c in chi:
                m, s = b1 * m + (1 - b1) * c * z, b2 * s + (1 - b2) * (c * z) ** 2
            t = len(chi)
            return z * m / (1 - b1**t) / math.sqrt(s / (1 - b2**t) + eps**2)

        body = lambda z: direction(z) * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)  # noqa: E731
        return 2 * integrate.quad(body, 0, 12, epsabs=1e-13)[0]

    f: list[float] = [0.0]
    for _ in range(2):
        f.append(f[-1] - 0.25 * 2 * moved([x - 1 for x in f]))
    found = tp.limit(program("adam", steps=2, eps=eps))["f"]
    assert found.method != "population" and np.abs(found.value.ravel() - f).max() < 1e-11


def test_muon() -> None:
    """A singular value of 1, after five steps, is how far W moves; U and v are trained by gradient descent."""
    p = 1.0
    for _ in range(5):
        p = 3.4445 * p - 4.7750 * p**3 + 2.0315 * p**5
    for gia, known in ((False, 2), (True, 1)):
        f = tp.limit(program("muon"), gia=gia)["f"].value.ravel()
        assert np.abs(f - [0, 0.25 * (known + p)]).max() < 1e-11  # eps^2


@pytest.mark.parametrize("entries", ["rademacher", "uniform", None])
def test_universality(entries: str | None) -> None:
    found = tp.limit(program("universality", entries=entries))
    assert [found[name].value for name in ("h4", "mean_dx", "m2")] == [3, 2, 2]
    oracle = integrate.quad(lambda z: np.tanh(z) ** 2 * np.exp(-z * z / 2) / math.sqrt(2 * np.pi), -12, 12)[0]
    assert float(found["tanh2"]) == pytest.approx(oracle, abs=1e-9) == pytest.approx(0.394294, abs=1e-6)


def test_rademacher_weights_at_finite_width() -> None:
    """At width n the means of h4 and mean_dx are exactly 3 - 2/n and 2."""
    n, seeds = 16, 2000
    runs = tp.run(program("universality"), n=n, seeds=seeds)
    for name, truth in (("h4", 3 - 2 / n), ("mean_dx", 2.0)):
        error = runs[name].std(ddof=1) / math.sqrt(seeds)
        assert abs(runs[name].mean() - truth) < 3.9 * error  # a Gaussian leaves this with probability 1e-4
    assert abs(runs["h4"].mean() - 3) > 2 * runs["h4"].std(ddof=1) / math.sqrt(seeds)  # the check sees the 2/n


@pytest.mark.parametrize("name", NAMES)
def test_finite_networks_agree(name: str) -> None:
    small = {"mlp_covariances": {"images": 4}, "semicircle": {"order": 6}, "marchenko_pastur": {"order": 4}}
    c = tp.compare(program(name, **small.get(name, {})), widths=[64, 128, 256, 512], seeds=32)
    assert c.agrees, c
    for output, slope in c.slope.items():
        assert slope is not None and -0.8 < float(slope) < -0.2, output


@pytest.mark.parametrize("name", NAMES)
def test_text_round_trip(name: str, tmp_path: Path) -> None:
    p = program(name)
    assert tp.parse(str(p), arrays=p.arrays) == p
    tp.save(p, tmp_path / "p.tp")
    assert load_model(str(tmp_path / "p.tp"), {}).program() == p


@pytest.mark.parametrize("name", NAMES)
def test_the_docstring_says_how_to_run_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = FOLDER / f"{name}.py"
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    assert "Source:" in text and f"tensorprog limit programs/{name}.py" in text
    assert main(["show", str(path)]) == 0 and "output" in capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_the_formula_is_the_one_shown(name: str) -> None:
    said = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))) or ""
    shown = said.split("formula:\n")[1].split("\n\n")[0]
    assert [line.strip() for line in shown.split("\n")] == str(tp.formula(program(name))).split("\n")
