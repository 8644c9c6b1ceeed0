"""Training in function space by other losses, and from the command line."""

import json

import numpy as np
import pytest
from marks import refused

import tensorprog as tp
from tensorprog.cli import main

N = tp.Width("n")
RNG = np.random.default_rng(1)
X, XT, LABELS = RNG.standard_normal((6, 3)), RNG.standard_normal((2, 3)), np.array([1, -1, 1, 1, -1, 1])
CLASSES = np.array([0, 2, 1, 1, 0, 2])
HIDDEN = tp.erf(tp.dense("U", tp.Input("x"), N))
NET = tp.Network(tp.readout("v", HIDDEN))


def test_least_squares_by_the_solver_are_the_closed_form():
    solved = tp.predict(NET, X, LABELS, XT, loss=lambda f, y: (f - y) ** 2 / 2)(t=[0, 1, 100], f0="draw", rng=3)
    closed = tp.predict(NET, X, LABELS, XT)(t=[0, 1, 100], f0="draw", rng=3)
    assert (np.abs(solved.mean - closed.mean) <= solved.error + closed.error).all() and solved.error.max() < 1e-5
    assert solved.kind == "estimate" and closed.kind == "bound" and np.abs(solved.mean).max() > 0.1


def test_flow_by_the_logistic_loss_is_that_of_small_steps():
    pred = tp.predict(NET, X, LABELS, XT, loss="logistic")
    m = pred(steps=[0, 500, 1000], lr=0.02)
    K = tp.kernel_fn(NET)(np.concatenate([X, XT]), X, get="ntk")
    f = np.zeros(8)
    for _ in range(500):
        f = f + 0.02 * K @ (LABELS / (1 + np.exp(LABELS * f[:6]))) / 6
    assert np.abs(m.mean[1] - f[6:]).max() < 1e-12 and np.abs(m.gap).max() < 1e-2
    half = pred(steps=2000, lr=0.01)
    assert np.allclose(half.gap, m.gap[2] / 2, rtol=0.02)  # of first order in the rate


def test_steps_by_other_losses_are_those_of_a_trace():
    options = {"lr": 0.5, "X_test": XT, "optimizer": tp.SGD(momentum=0.5)}
    limit = tp.limit(tp.sgd(NET, X, LABELS, steps=3, loss="logistic", **options))
    m = tp.predict(NET, X, LABELS, XT, loss="logistic")(steps=range(4), lr=0.5, momentum=0.5)
    assert np.abs(m.mean - limit["f_test"].value).max() < 1e-12
    several = tp.Network([tp.readout(f"v{k}", HIDDEN) for k in range(3)])
    limit = tp.limit(tp.sgd(several, X, CLASSES, steps=2, loss="cross_entropy", **options))
    m = tp.predict(several, X, CLASSES, XT, loss="cross_entropy")(steps=range(3), lr=0.5, momentum=0.5)
    assert np.abs(m.mean - limit["f_test"].value).max() < 1e-12
    assert np.abs(m.train_mean - limit["f"].value).max() < 1e-12


def test_classes_share_a_kernel():
    m = tp.predict(NET, X, CLASSES, XT, loss="cross_entropy")(t=[1.0, 1e4])
    assert m.mean.shape == (2, 2, 3) and np.abs(m.mean.sum(axis=2)).max() < 1e-6
    assert (m.train_mean[1].argmax(axis=1) == CLASSES).all() and m.error.shape == (2, 2)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: tp.predict(NET, X, CLASSES, loss="cross_entropy", outputs=2), "integers from 0 to 1"),
        (lambda: tp.predict(NET, X, CLASSES - 1, loss="cross_entropy"), "classes"),
        (lambda: tp.predict(NET, X, CLASSES, loss="logistic"), "labels are 1 and -1"),
        (lambda: tp.predict(NET, X, LABELS, loss="hinge"), "hinge"),
        (lambda: tp.predict(NET, X, LABELS, loss="logistic")(), "t=inf"),
        (lambda: tp.predict(NET, X, LABELS, loss="logistic")(t=1, f0="prior"), "no closed form"),
        (lambda: tp.predict(NET, X, LABELS, loss="logistic")(t=-1), "t=-1"),
        (lambda: tp.predict(NET, X, LABELS, loss="logistic")(steps=3), "lr="),
        (lambda: tp.predict(NET, X, LABELS, loss="logistic").early_stopping(0.1), "least squares"),
    ],
)
def test_bad_input_is_refused(call, says):
    with refused(says):
        call()


def test_the_command(tmp_path, capsys):
    file = tmp_path / "net.py"
    file.write_text(
        "import tensorprog as tp\n"
        "def build(W_std=1):\n"
        "    h = tp.dense('U', tp.Input('x'), tp.Width('n'), W_std=W_std)\n"
        "    return tp.Network(tp.readout('v', tp.erf(h)))\n"
    )
    for name, a in (("X", X), ("y", LABELS), ("Xt", XT)):
        np.save(tmp_path / f"{name}.npy", a)
    words = ["predict", str(file), "--train", f"{tmp_path}/X.npy", "--targets", f"{tmp_path}/y.npy"]
    test = ["--test", f"{tmp_path}/Xt.npy"]
    assert main([*words, *test, "--times", "0,10,inf", "--noise", "0.1", "--plot", f"{tmp_path}/a.svg", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    m = tp.predict(NET, X, LABELS, XT)(t=[0, 10, np.inf])
    assert np.allclose(found["outputs"]["mean"]["value"], m.mean) and found["early_stopping"]["t"] > 0
    assert np.allclose(found["outputs"]["variance"]["value"], m.variance) and (tmp_path / "a.svg").exists()
    assert main([*words, "--steps", "0,5", "--lr", "0.1", "--set", "W_std=2"]) == 0
    assert "largest stable learning rate" in capsys.readouterr().out
    for more, says in ((["--times", "-1"], "t=-1"), (["--steps", "3"], "lr="), (["--targets", "none.npy"], "none.npy")):
        assert main([*words, *more]) == 2 and says in capsys.readouterr().err
