"""Training of many examples by Krylov spaces: bounds hold against eigenvectors, files go on where they stopped."""

import numpy as np
import pytest
from marks import refused

import tensorprog as tp
from tensorprog.function_space.tiles import ArrayKernel, TiledKernel

N = tp.Width("n")
RNG = np.random.default_rng(4)
X, XT = RNG.standard_normal((90, 4)), RNG.standard_normal((5, 4))
Y = np.stack([np.sin(X[:, 0]), X[:, 1] * X[:, 2]], axis=1) + 0.1 * RNG.standard_normal((90, 2))
NET = tp.Network(tp.readout("v", tp.relu(tp.dense("U", tp.Input("x"), N, W_std=2**0.5, b_std=0.1))))
TIMES = [0, 1, 100, 1e4, np.inf]


@pytest.mark.parametrize("get", ["ntk", "nngp"])
def test_bounds_hold(get):
    m = tp.predict(NET, X, Y, XT, method="krylov", diag_reg=1e-3, rank=40)(t=TIMES, get=get)
    exact = tp.predict(NET, X, Y, XT, diag_reg=1e-3)(t=TIMES, get=get)
    scale = np.abs(Y).max()
    assert (np.abs(m.mean - exact.mean).max(axis=2) <= m.error + exact.error).all() and m.error.max() < 1e-5 * scale
    assert (np.abs(m.train_mean - exact.train_mean).max(axis=(1, 2)) <= m.train_error + exact.train_error).all()
    assert (np.abs(m.variance - exact.variance) <= m.cov_error + exact.cov_error).all() and m.cov_error.max() < 1e-3
    assert m.method == "Krylov" and np.abs(m.mean[-1]).max() > 0.1


def test_bounds_hold_where_few_products_are_allowed():
    exact = tp.predict(NET, X, Y, XT, diag_reg=1e-6)(t=TIMES)
    for products in (2, 5, 15):
        m = tp.predict(NET, X, Y, XT, method="krylov", diag_reg=1e-6, rank=5, products=products)(t=TIMES)
        off = np.abs(m.mean - exact.mean).max(axis=2)
        assert (off <= m.error + exact.error).all() and off.max() > 1e-4


def test_steps_and_rates():
    large, small = (tp.predict(NET, X, Y, XT, diag_reg=1e-3, method=m) for m in ("krylov", "eigen"))
    top, exact = large.max_learning_rate, small.max_learning_rate
    assert abs(top.value - exact.value) <= top.error + exact.error
    for share, momentum in ((0.4, 0.0), (0.95, 0.0), (0.95, 0.5)):
        options = {"steps": [0, 3, 200], "lr": share * float(top), "momentum": momentum, "f0": "zero"}
        m, e = large(**options), small(**options)
        assert (np.abs(m.mean - e.mean).max(axis=2) <= m.error + e.error).all() and m.error.max() < 1e-2
        assert np.abs(m.flow.mean - e.flow.mean).max() < 1e-5


def test_arrays_and_memory_maps(tmp_path):
    K, both = tp.kernel_fn(NET)(X), tp.kernel_fn(NET)(XT)
    cross = tp.kernel_fn(NET)(XT, X)
    np.save(tmp_path / "K.npy", K.ntk.astype(np.float32))
    mapped = np.load(tmp_path / "K.npy", mmap_mode="r")
    exact = tp.predict(K.ntk, Y[:, 0], cross.ntk, both.ntk, diag_reg=0.1)(t=TIMES)
    m = tp.predict(mapped, Y[:, 0], cross.ntk, both.ntk, diag_reg=0.1, method="krylov")(t=TIMES)
    off = np.abs(m.mean - exact.mean)
    assert (off <= m.error + exact.error).all() and 0 < off.max() < 1e-4  # of single precision
    start = RNG.standard_normal(95)
    named = tp.predict(K, Y[:, 0], cross, both, diag_reg=0.1, method="krylov")(t=TIMES, f0=start)
    e = tp.predict(K, Y[:, 0], cross, both, diag_reg=0.1)(t=TIMES, f0=start)
    assert (np.abs(named.mean - e.mean) <= named.error + e.error).all() and not named.variance.any()


def test_tiles_are_the_kernel_and_go_on(tmp_path):
    A = RNG.standard_normal((50, 50))
    A, done = A + A.T, []

    def compute(rows, columns):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append((rows.start, columns.start))
        return A[rows, columns], 1e-15

    with pytest.raises(KeyboardInterrupt):
        TiledKernel(tmp_path, 50, compute, "A", tile=16, progress=False)
    first, done = done, []
    with pytest.raises(KeyboardInterrupt):
        TiledKernel(tmp_path, 50, compute, "A", tile=16, progress=False)
    assert not set(first) & set(done)
    done.clear()
    K = TiledKernel(tmp_path, 50, compute, "A", tile=16, progress=False)
    x, at = RNG.standard_normal((50, 3)), np.array([3, 17, 49])
    for own in (K, ArrayKernel(A, 0.0)):
        assert np.allclose(own.dot(x), A @ x, atol=1e-13) and (own.columns(at) == A[:, at]).all()
        assert (own.diagonal() == np.diagonal(A)).all()
    with refused("something else"):
        TiledKernel(tmp_path, 50, compute, "B", tile=16, progress=False)


def test_an_interrupted_call_goes_on(tmp_path, monkeypatch):
    whole = tp.predict(NET, X, Y, XT, method="krylov", diag_reg=1e-4, rank=10)(t=[100.0, np.inf])
    products = []
    dot = TiledKernel.dot

    def counted(self, x):
        products.append(1)
        if len(products) == stop:
            raise KeyboardInterrupt
        return dot(self, x)

    monkeypatch.setattr(TiledKernel, "dot", counted)
    for stop in (25, 10**9):
        pred = tp.predict(NET, X, Y, XT, method="krylov", diag_reg=1e-4, rank=10, out=tmp_path, progress=False)
        products.clear()
        if stop == 25:
            with pytest.raises(KeyboardInterrupt):
                pred(t=[100.0, np.inf]).mean
        else:
            m = pred(t=[100.0, np.inf])
            assert (np.abs(m.mean - whole.mean).max(axis=2) <= m.error + whole.error).all()
    resumed = len(products)
    products.clear()
    again = tp.predict(NET, X, Y, XT, method="krylov", diag_reg=1e-4, rank=10, out=tmp_path, progress=False)
    assert again(t=[100.0, np.inf]).mean.shape == (2, 5, 2) and len(products) < resumed  # all of it is there


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: tp.predict(NET, X, Y, method="eigen", memory=1e5), "GB are free"),
        (lambda: tp.predict(NET, X, Y, method="krylov", memory=1e5, rank=10), "out="),
        (lambda: tp.predict(NET, X, Y, method="krylov", memory=1e3), "basis"),
        (lambda: tp.predict(NET, X, Y, method="lu"), "lu"),
        (lambda: tp.predict(NET, X, Y, tol=0), "tol"),
        (lambda: tp.predict(NET, X, Y, method="krylov", loss="logistic"), "another loss"),
        (lambda: tp.predict(NET, X, Y, method="krylov", diag_reg=0)(), "without a regulariser"),
        (lambda: tp.predict(NET, X, Y, method="krylov")(t=-1), "t=-1"),
        (lambda: tp.predict(NET, X, Y, method="krylov")(steps=200, lr=1e9).train_mean, "diverges"),
        (lambda: tp.predict(NET, X, Y[:5], method="krylov"), "5 targets"),
        (lambda: tp.predict(np.full((9, 9), np.nan), np.ones(9), method="krylov")(t=1).train_mean, "not finite"),
        (lambda: tp.predict(np.ones((9, 8)), np.ones(9), method="krylov"), "shape"),
    ],
)
def test_bad_input_is_refused(call, says):
    with refused(says):
        call()
