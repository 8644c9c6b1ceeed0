"""Training in function space (the issue on function space)."""

import json
from pathlib import Path

import numpy as np
import pytest

import tensorprog as tp

pytestmark = pytest.mark.slow  # what the default suite tests piece by piece
GOLDEN = Path(__file__).parent.parent / "golden"


def erf_net():
    n, h = tp.Width("n"), tp.Input("x")
    for layer in range(2):
        h = tp.erf(tp.dense(f"W{layer}", h, n, W_std=1.3, b_std=0.2))
    return tp.Network(tp.readout("v", h, W_std=1.3, b_std=0.2))


@pytest.mark.parametrize("get", ["ntk", "nngp"])
def test_ensembles_of_trained_networks(get):
    d = np.load(GOLDEN / "predict_mse_ensemble_erf_reg0.0.npz")
    lr = json.loads((GOLDEN / "predict_mse_ensemble_erf_reg0.0.json").read_text())["learning_rate"]
    pred = tp.predict(erf_net(), d["x_train"], d["y_train"], d["x_test"])
    for t in ("0.0", "1.0", "10.0", "1000.0", "None"):
        ours = np.inf if t == "None" else lr * float(t) / d["y_train"].shape[1]  # theirs divides by all entries of y
        m = pred(t=ours, get=get)
        np.testing.assert_allclose(m.mean, d[f"{get}_mean_t{t}"], atol=1e-7)
        np.testing.assert_allclose(m.cov, d[f"{get}_cov_t{t}"], atol=1e-7)
        np.testing.assert_allclose(m.train_mean, d[f"{get}_trainmean_t{t}"], atol=1e-7)


def test_flow_and_steps():
    rng = np.random.default_rng(0)
    X, y, Xt = rng.standard_normal((8, 5)), rng.standard_normal(8), rng.standard_normal((3, 5))
    net = erf_net()
    K = tp.kernel_fn(net)(np.concatenate([X, Xt]), X, get="ntk")
    pred, lr, f = tp.predict(net, X, y, Xt), 0.3, np.zeros(11)
    for step in range(1, 6):
        f = f - lr * K @ (f[:8] - y) / 8
        m = pred(steps=step, lr=lr, f0="zero")
        np.testing.assert_allclose(np.concatenate([m.train_mean, m.mean]), f, atol=1e-9)
    small = pred(steps=5000, lr=1e-3, f0="zero").mean
    np.testing.assert_allclose(small, pred(t=5.0, f0="zero").mean, atol=5e-3)
    top = np.linalg.eigvalsh(K[:8])[-1] / 8
    assert float(pred.max_learning_rate) == pytest.approx(2 / top, rel=1e-9)


def test_a_singular_kernel_is_never_silent():
    X = np.ones((4, 3))
    pred = tp.predict(erf_net(), X, np.array([0.0, 1, 0, 1]), X[:1])
    m = pred(t=np.inf, f0="zero")
    assert np.all(np.isfinite(m.mean)) and float(m.mean[0]) == pytest.approx(0.5, abs=1e-3)
    assert "diag" in repr(pred) or "regul" in repr(pred)
