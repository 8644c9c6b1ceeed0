"""The training runs of programs/: their limits are what their docstrings say, and networks tend to them."""

import ast
from pathlib import Path

import numpy as np
import pytest

import tensorprog as tp
from tensorprog.faces.files import load_model

FOLDER = Path(__file__).resolve().parent.parent / "programs"
KERNEL = ["training_one_layer", "training_two_layers", "training_rnn", "training_transformer"]


def trace(name, **parameters):
    return load_model(str(FOLDER / f"{name}.py"), parameters).trace


def descent(K, y, steps, lr, batches):
    f, found = np.zeros(len(y)), []
    for b in [[], *map(list, batches[:steps])]:
        chi = np.zeros(len(y))
        chi[b] = (f - y)[b] / max(len(b), 1)
        f = f - lr * K @ chi
        found.append(f)
    return np.array(found)


def erf_kernels(X, layers):
    """Of erf(.. erf(U x)): E phi phi' and E phi' phi' of every layer, by Williams' formulas."""
    c = X @ X.T / X.shape[1]
    found = [c]
    for _ in range(layers):
        v = 1 + 2 * np.diag(c)
        found += [4 / np.pi / np.sqrt(np.outer(v, v) - 4 * c**2)]
        c = 2 / np.pi * np.arcsin(2 * c / np.sqrt(np.outer(v, v)))
        found += [c]
    return found


@pytest.mark.parametrize("frozen", ["v", None])
def test_one_layer(frozen):
    run = trace("training_one_layer", steps=3, frozen=frozen)
    X, y = run._train.arrays["x"], run.recipe.loss.targets
    gram, slopes, top = erf_kernels(X, 1)
    wanted = descent(gram * slopes + (0 if frozen else top), y, 3, 1.0, run.recipe.batches)
    assert np.abs(tp.limit(run)["f"].value - wanted).max() < 1e-12


@pytest.mark.parametrize("gia", [False, True])
def test_two_layers(gia):
    run = trace("training_two_layers", steps=3)
    X, y = run._train.arrays["x"], run.recipe.loss.targets
    gram, first, z, second, _ = erf_kernels(X, 2)
    wanted = descent((0 if gia else gram * first * second) + z * second, y, 3, 1.0, run.recipe.batches)
    assert np.abs(tp.limit(run, gia=gia)["f"].value - wanted).max() < 1e-12


@pytest.mark.parametrize("name", ["training_rnn", "training_transformer"])
def test_architectures_follow_their_kernels(name):
    run = trace(name, steps=2)
    X, y = run._train.arrays["x"], run.recipe.loss.targets
    K = np.asarray(tp.kernel_fn(run.net)(X, get="ntk"))
    assert np.abs(tp.limit(run)["f"].value - descent(K, y, 2, 0.5, run.recipe.batches)).max() < 1e-10


def test_mup_of_linear_networks():
    run = trace("mup_mlp", phi="none", lr=0.25, steps=3, X=[[1]], Y=[1])
    assert np.abs(tp.limit(run)["f"].value.ravel() - [0, 0.75, 65345 / 65536, 1.000460]).max() < 1e-6


def test_features_move_in_mup_alone():
    still = tp.limit(trace("mup_mlp", scheme="ntk", steps=1))["features"].value
    moved = tp.limit(trace("mup_mlp", steps=1), samples=256)["features"].value
    assert np.abs(still[1] - still[0]).max() < 1e-12 < 1e-3 < np.abs(moved[1] - moved[0]).max()


@pytest.mark.slow
@pytest.mark.parametrize("name", [*KERNEL, "mup_mlp"])
def test_networks_tend_to_the_limit(name):
    found = tp.compare(trace(name, steps=2), widths=[64, 128, 256], seeds=16)
    assert found.agrees, found


@pytest.mark.parametrize("name", [*KERNEL, "mup_mlp"])
def test_the_docstring_says_how_to_run_it(name):
    text = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))) or ""
    assert "Source:" in text and f"tensorprog train programs/{name}.py" in text


def test_the_table_of_programs():
    page = FOLDER.parent / "docs" / "programs.md"
    if not page.exists():
        pytest.skip("a source distribution without the documentation")
    said = page.read_text(encoding="utf-8")
    for name in [*KERNEL, "mup_mlp"]:
        text = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))) or ""
        assert f"| `programs/{name}.py` | {text.splitlines()[0].removesuffix('.')} |" in said
