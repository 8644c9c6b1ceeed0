"""Numbers below 1e-308 and above 1e308, on the way to an answer and as answers."""

from __future__ import annotations

import numpy as np
import pytest
from marks import few

import tensorprog as tp
from tensorprog import TensorProgramError
from tensorprog.limits.evaluate.scalar import ScalarProgram
from tensorprog.limits.expect.expectation import Expectation
from tensorprog.limits.expect.lower import Lowering

x, n = tp.Input("x"), tp.Width("n")
X = [[1.0, 2.0], [0.5, -1.0]]
K = np.array(X) @ np.array(X).T / 2


def network(deviations, phi):
    h = tp.dense("U", x, n)
    for i, w in enumerate(deviations):
        h = tp.dense(f"W{i}", phi(h), n, W_std=w)
    return tp.Network(tp.readout("v", phi(h)))


def both_ways(net):
    """kernel_fn, and the limit of the program."""
    kernel, found = tp.kernel_fn(net)(X), tp.limit(net, X, of=("nngp", "ntk"))
    yield kernel.nngp, kernel.ntk, kernel.error["nngp"], kernel.error["ntk"]
    yield found["nngp"].value, found["ntk"].value, np.max(found["nngp"].error), np.max(found["ntk"].error)


@pytest.mark.parametrize("deviations", [[1e-150, 1e150], [1e100, 1e-100] * 2, [1e-60] * 4 + [1e60] * 4], ids=str)
def test_factors_that_cancel(deviations):
    """Of linear layers each term of the tangent kernel is the product of all factors; relu halves the diagonal in every layer."""
    depth, size = len(deviations), np.prod(np.array(deviations, dtype=np.longdouble) ** 2).astype(float)
    for nngp, ntk, error, tangent in both_ways(network(deviations, lambda u: u)):
        np.testing.assert_allclose(nngp, size * K, rtol=1e-12)
        np.testing.assert_allclose(ntk, (depth + 2) * size * K, rtol=1e-12)
        assert error <= 1e-11 and tangent <= 1e-10
    for nngp, ntk, _, _ in both_ways(network(deviations, tp.relu)):
        half = size * np.diag(K) / 2 ** (depth + 1)
        np.testing.assert_allclose(np.diag(nngp), half, rtol=1e-12)
        np.testing.assert_allclose(np.diag(ntk), (depth + 2) * half, rtol=1e-12)


@pytest.mark.parametrize(
    ("phi", "factor"),
    [(lambda u: u, 1), (tp.relu, 0.5), (tp.erf, None), (tp.tanh, None)],
    ids=["identity", "relu", "erf", "tanh"],
)
def test_answers_below_the_smallest_float(phi, factor):
    """Four layers of 1e-50: 1e-400. Not exactly 0, and no rounding error of 0."""
    net = network([1e-50] * 4, phi)
    kernel, found = tp.kernel_fn(net)(X), tp.limit(net, X, of=("nngp", "ntk"))
    for name, terms in (("nngp", 1), ("ntk", 6)):
        estimate = found[name]
        assert estimate.kind == kernel.kind[name] == "bound"
        assert (
            np.all(estimate.error >= 5e-324)
            and np.all(estimate.error <= 1e-300)
            and np.all(np.abs(estimate.value) <= estimate.error)
        )
        assert 5e-324 <= kernel.error[name] <= 1e-300 and "5e-324" in estimate.note and "5e-324" in kernel.note[name]
        if factor:
            digits, power = estimate.note.split("about ")[1].split("e-")
            size = terms * K[0, 0] * factor**5
            assert abs(float(digits) * 10.0 ** (400 - int(power)) - size) < 0.06 * 10.0 ** (400 - int(power))
        else:
            assert "about" not in estimate.note or float(estimate.note.split("about ")[1].split("e-")[1]) > 390


def test_answers_beyond_the_largest_float():
    net = network([1e40] * 4, tp.relu)
    with pytest.raises(
        TensorProgramError, match=r"output nngp is larger than floats go(.|\n)*about 7.8e\+318(.|\n)*rescale"
    ):
        tp.limit(net, X, of="nngp")
    with pytest.raises(TensorProgramError, match=r"about 7.8e\+318"):
        tp.kernel_fn(net)(X, get="nngp")


@pytest.mark.parametrize("deviation", few([1e-12, 1e12], [1e-12]))
def test_layer_norm_at_any_scale(deviation):
    """K = 1/2 + K/2 a layer: the tangent kernel of an example with itself is (layers + 2)/2."""
    h = tp.dense("U", x, n, W_std=deviation)
    for i in range(28):
        h = tp.dense(f"W{i}", tp.relu(tp.layer_norm(h)), n, W_std=deviation)
    net = tp.Network(tp.readout("v", tp.relu(tp.layer_norm(h))))
    kernel, found = tp.kernel_fn(net)(X[:1]), tp.limit(net, X[:1], of="ntk")["ntk"]
    assert abs(kernel.ntk[0, 0] - 15) <= kernel.error["ntk"] < 1e-11
    assert abs(found.value[0, 0] - 15) <= found.error[0, 0] < 1e-11


def test_numbers_are_not_folded_where_digits_are_lost():
    z = tp.Vector("z", n, var=2.0)
    q = tp.moment(z * z)
    found = tp.limit(
        tp.Program(
            a=1e-200 * (1e-200 * (q * 1e300)) * 1e100,
            b=(q * 1e-160) ** 2 * 1e300 * 1e20,
            c=(q * 1e200) ** 2 * 1e-300 * 1e-100,
            d=tp.sqrt((q * 1e-100) ** 4) * 1e200,
        )
    )
    for name, want in {"a": 2, "b": 4, "c": 4, "d": 4}.items():
        assert abs(found[name].value - want) <= found[name].error + 1e-15 * want and found[name].error < 1e-13, name


NETWORKS = {
    "relu": lambda h: tp.relu(h),
    "leaky": lambda h: tp.leaky_relu(h + 1, 0.2),
    "erf": tp.erf,
    "gelu": tp.gelu,
    "elu": tp.elu,
    "sin": tp.sin,
    "sigmoid": tp.sigmoid,
    "batch norm": lambda h: tp.relu(tp.batch_norm(h, eps=0.5)),
    "layer norm": lambda h: tp.layer_norm(tp.relu(h), eps=0.1),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_wide_evaluation_is_the_ordinary_one(name):
    data = [[1.0, 2.0], [0.5, -1.0], [2.0, 0.3]]
    program = tp.Network(tp.readout("v", NETWORKS[name](tp.dense("U", x, n, b_std=0.3)))).program(
        data, of=("nngp", "ntk")
    )
    lowering = Lowering(program, {}, Expectation())
    outputs = [lowering.z[o.node] for o in program.outputs.values()]
    plain, wide = ScalarProgram(outputs), ScalarProgram(outputs)
    wide.wide = True
    one, two = plain.run(), wide.run()
    for y in plain.outputs:
        np.testing.assert_allclose(two[y], one[y], rtol=1e-14)
    moved = [p.run(noise=3) for p in (plain, wide)]
    for y in plain.outputs:
        assert np.any(moved[1][y] != two[y]) and np.allclose(moved[1][y], moved[0][y], rtol=1e-10)


def test_a_batch_and_its_copy():
    """What is remembered of one batch is not taken for what two equal ones need."""
    net = network([1.0], tp.relu)
    one = tp.limit(net, X, of="nngp")["nngp"].value
    two = tp.limit(net.program(X, np.array(X), of="nngp"))["nngp"].value
    np.testing.assert_allclose(one, two, rtol=1e-14)


def test_populations_of_numbers_below_floats_say_so():
    """Squares of 1e-200 are 0 in floats; the readout's variance of 1e300 would make numbers of them again."""
    n = tp.Width("n")
    h = tp.dense("U", tp.Input("x"), n, W_std=1e-100)
    net = tp.Network(tp.readout("v", tp.tanh(tp.dense("W", tp.tanh(h), n, W_std=1e-100)), W_std=1e150))
    found = tp.limit(net, [[1.0, 2.0]], method="population", samples=2**8)["nngp"]
    assert found.kind == "bound" and found.error[0, 0] >= 2.5e-100 and "less than floats go" in found.note
