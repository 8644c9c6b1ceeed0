"""Readouts: what they refuse, and the covariance of two outputs."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from marks import refused

import tensorprog as tp

N = tp.Width("n")
X = np.array([[1.0, 1.0], [2.0, 0.0]])


def hidden():
    return tp.tanh(tp.dense("U", tp.Input("x"), N))


def test_outputs_that_share_v_share_it_by_position():
    """f = sum v_ij x_ij and g = sum v_ij x_ji: their covariance is that of x with its transpose."""
    image = np.random.default_rng(0).standard_normal((1, 2, 2, 3))
    x = tp.relu(tp.dense("U", tp.Input("x", axes=("h", "w")), N))
    net = tp.Network([tp.readout("v", x, over=("h", "w")), tp.readout("v", x, over=("w", "h"))])
    flat = tp.Network(tp.readout("v", x, over=("h", "w")))
    kernel = tp.kernel_fn(net)(image, get="nngp")[0, 0]
    turned = tp.kernel_fn(flat)(image, image.swapaxes(1, 2), get="nngp")[0, 0]
    np.testing.assert_allclose(kernel[0, 1], turned, rtol=1e-12)
    f = tp.run(net, image, n=128, seeds=1500, of="f")["f"][:, 0]
    draws = f[:, 0] * f[:, 1]  # at 4.5 standard errors: false alarm 1e-5
    assert abs(draws.mean() - turned) < 4.5 * draws.std() / len(draws) ** 0.5 + 0.02 * turned


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tp.readout("v", hidden(), over="example"), "over the axes"),
        (lambda: tp.readout(tp.Vector("v", N), hidden(), W_std=5), "is given W_std"),
        (lambda: tp.readout("U", hidden()), "is the name of"),
        (lambda: tp.readout(tp.Vector("v", N, mean=1), hidden()), "whose mean is not 0"),
    ],
)
def test_readouts_refuse(make, message):
    with refused(message):
        tp.Network(make()).program(X, of="nngp")


def test_a_kernel_of_a_shape_is_refused():
    with refused("tuple of integers"):
        tp.kernel_fn(tp.Network(tp.readout("v", hidden())))((2, 3))


def test_fixed_data_may_share_weights():
    fixed = tp.Input("p", value=[1.0, 2.0])
    x = tp.dense("U", tp.Input("x"), N) + tp.dense("U", fixed, N)
    net = tp.Network(tp.readout("v", tp.relu(x)))
    want = tp.limit(net.program(X))
    for name, kernel in zip(("nngp", "ntk"), tp.kernel_fn(net)(X), strict=True):
        np.testing.assert_allclose(kernel, want[name].value, rtol=1e-12)
    with refused("gram="):
        tp.kernel_fn(net)(gram=X @ X.T / 2)


def test_a_network_may_be_used_by_several_threads():
    net, failed = tp.Network(tp.readout("v", hidden())), []

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(12):
            try:
                net.program(rng.standard_normal((2, 2)))
            except Exception as error:
                failed.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failed
