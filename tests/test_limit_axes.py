"""The exact limit along axes: kernels, attention, recurrent networks, batches.

Each program is also written without axes, one vector at a time; both must agree to their stated errors. No test is
statistical.
"""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from gauss import FUNCTIONS, pair

import tensorprog as tp

N = tp.Width("n")
W = tp.Matrix("W", N, N, var=Fraction(5, 4))
V = tp.Matrix("V", N, N, var=Fraction(1, 2))
MEAN, COV = [1, 0, Fraction(1, 2)], [[2, 1, 0], [1, 2, 1], [0, 1, 2]]
Y = tp.Vector("y", N)


def batch():
    """One multi-vector over the axis i, and the same as a list of vectors."""
    x = tp.Vector("x", N, mean=MEAN, cov=COV, axes=("i",))
    return x, [tp.take(x, "i", k) for k in range(3)]


def limit(**outputs):
    return tp.limit(tp.Program(outputs), method="exact")


def array(x):
    return np.asarray(limit(out=x)["out"].value, dtype=float)


def pairs(x, names, y=None):
    """E x_.. y_.. with y's axes renamed."""
    return tp.moment(x * tp.rename(x if y is None else y, **names))


def check_pairs(kernel, xs, ys=None, shape=None):
    """A kernel against the Moments of single vectors, in the order of its axes."""
    ys = xs if ys is None else ys
    singles = limit(
        **{f"p{a}_{b}": tp.moment(x * y) for (a, x), (b, y) in itertools.product(enumerate(xs), enumerate(ys))}
    )
    whole = limit(k=kernel)["k"]
    value, error = np.asarray(whole.value, dtype=float), float(np.max(whole.error))
    expected = np.array([float(e.value) for e in singles.values()]).reshape(shape or (len(xs), len(ys)))
    slack = error + max(float(e.error) for e in singles.values()) + 1e-12
    assert value.shape == expected.shape
    np.testing.assert_allclose(value, expected, rtol=0, atol=slack)
    assert slack < 1e-4


# ---- kernels ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", FUNCTIONS)
def test_kernels_of_every_function(name):
    theirs, ours = FUNCTIONS[name]
    x, _ = batch()
    kernel = array(pairs(theirs(x), {"i": "j"}))
    np.testing.assert_allclose(kernel, kernel.T, rtol=1e-12)
    assert kernel[0, 1] == pytest.approx(pair(ours, ours, (1, 0), (2, 2), 0.5), rel=1e-9)
    assert kernel[0, 2] == pytest.approx(pair(ours, ours, (1, 0.5), (2, 2), 0.0), rel=1e-9)


def network(x):
    return tp.relu(W @ tp.erf(V @ x + Y))


def backward(x):
    return W.T @ tp.gaussian(W @ tp.relu(x))


def tied(x):
    return tp.erf(W @ tp.relu(W @ x + x))


@pytest.mark.parametrize("build", [network, backward, tied])
def test_kernels_agree_with_single_vectors(build):
    x, singles = batch()
    check_pairs(pairs(build(x), {"i": "j"}), [build(s) for s in singles])
    check_pairs(pairs(x, {"i": "j"}, build(x)), singles, [build(s) for s in singles])
    check_pairs(tp.moment(build(x) * tp.take(x, "i", -1)), [build(s) for s in singles], singles[-1:], shape=(3,))


def test_the_diagonal():
    x, _ = batch()
    h = network(x)
    diagonal = array(tp.moment(h * h))
    np.testing.assert_allclose(diagonal, np.diag(array(pairs(h, {"i": "j"}))), rtol=1e-12)


def test_the_order_of_the_axes():
    """Axes come in the order in which they first appear."""
    x, _ = batch()
    c = tp.array([[1, 2, 3], [4, 5, 6]], ("z", "i"))
    p = tp.Program(a=tp.moment(c * x), b=tp.moment(x * c), c=pairs(tp.relu(x), {"i": "j"}, x * c))
    e = tp.limit(p, method="exact")
    numbers = np.array([[1, 2, 3], [4, 5, 6]])
    for name, estimate in e.items():
        assert np.shape(estimate.value) == tuple([{"i": 3, "j": 3, "z": 2}[a] for a in e.axes[name]])
    for name in "ab":
        found = np.asarray(e[name].value, dtype=float)
        np.testing.assert_array_equal(found if e.axes[name] == ("z", "i") else found.T, numbers * [1, 0, 0.5])


def test_rational_arrays_are_rational():
    x, _ = batch()
    e = limit(k=pairs(W @ x, {"i": "j"}), c=tp.array([1, Fraction(1, 3)], "z"), r=tp.moment(tp.relu(x - x) + x * x))
    expected = [[Fraction(5, 4) * (COV[i][j] + MEAN[i] * MEAN[j]) for j in range(3)] for i in range(3)]
    assert all(v.kind == "exact" for v in e.values())
    assert np.asarray(e["k"].value).tolist() == expected and np.asarray(e["c"].value).tolist() == [1, Fraction(1, 3)]
    assert np.asarray(e["r"].value).tolist() == [3, 2, Fraction(9, 4)]


# ---- axis operations -------------------------------------------------------------------------------------------------
def test_sums_means_stacks_and_takes():
    x, (a, b, c) = batch()
    h = tp.relu(W @ x)
    ha, hb, hc = [tp.relu(W @ s) for s in (a, b, c)]
    total, average = ha + hb + hc, (ha + hb + hc) / 3
    check_pairs(tp.moment(tp.sum(h, "i") * h), [total], [ha, hb, hc], shape=(3,))
    check_pairs(tp.moment((W @ tp.mean(h, "i")) * (W @ h)), [W @ average], [W @ s for s in (ha, hb, hc)], shape=(3,))
    check_pairs(tp.moment(tp.tanh(tp.sum(x, "i")) * x), [tp.tanh(a + b + c)], [a, b, c], shape=(3,))
    both = tp.stack([h, x], "s")
    check_pairs(pairs(both, {"s": "t", "i": "j"}), [ha, hb, hc, a, b, c], shape=(2, 3, 2, 3))
    check_pairs(
        tp.moment(tp.tanh(tp.take(both, "s", -1)) * h),
        [tp.tanh(a) * ha, tp.tanh(b) * hb, tp.tanh(c) * hc],
        [Y * 0 + 1],
        (3,),
    )


def test_vectors_that_are_iid_along_axes():
    b = tp.Vector("b", N, axes={"b": 3, "t": 2}, mean=1, var=Fraction(1, 2))
    same = np.einsum("bc,ts->btcs", np.eye(3), np.eye(2))
    np.testing.assert_array_equal(array(pairs(b, {"b": "c", "t": "s"})), 1 + same / 2)
    crossed = array(pairs(b, {"b": "c", "t": "s"}, W.T @ tp.relu(W @ b)))
    q = 1.25 * 1.5  # Zdot^{W.T relu(W b)} = 5/4 b/2
    np.testing.assert_allclose(crossed, 1.25 / 2 * (1 + same / 2), rtol=1e-12)
    square = array(pairs(tp.relu(W @ b), {"b": "c", "t": "s"}))
    np.testing.assert_allclose(np.einsum("btbt->bt", square), q / 2, rtol=1e-12)


# ---- architectures ---------------------------------------------------------------------------------------------------
def test_attention():
    x, singles = batch()
    out = tp.sum(tp.softmax(tp.moment((W @ x) * tp.rename(W @ x + x, i="j")), "j") * tp.rename(V @ x, i="j"), "j")
    logits = 1.25 * (np.array(COV) + np.outer(*[[float(m) for m in MEAN]] * 2))
    weights = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    v = [V @ s for s in singles]
    mixed = [float(row[0]) * v[0] + float(row[1]) * v[1] + float(row[2]) * v[2] for row in weights]
    check_pairs(pairs(out, {"i": "l"}), mixed)
    check_pairs(pairs(tp.relu(W @ out + out), {"i": "l"}), [tp.relu(W @ z + z) for z in mixed])


def test_layer_norm_for_each_example():
    x, singles = batch()

    def norm(z):
        m = tp.moment(z)
        return (z - m) / tp.sqrt(tp.moment((z - m) ** 2) + Fraction(1, 10))

    h = norm(tp.relu(V @ x) + x)
    check_pairs(pairs(h, {"i": "j"}), [norm(tp.relu(V @ s) + s) for s in singles])


def states(x, steps=3):
    out = [tp.erf(x)]
    for _ in range(steps):
        out.append(tp.erf(W @ out[-1] + Y))
    return out


def test_recurrent_networks_with_batch_and_time_axes():
    x, singles = batch()
    over_time = tp.stack(states(x), "t")
    each = [states(s) for s in singles]
    flat = [each[i][t] for t in range(4) for i in range(3)]
    check_pairs(pairs(over_time, {"i": "j", "t": "u"}), flat, shape=(4, 3, 4, 3))
    check_pairs(pairs(W @ over_time, {"i": "j", "t": "u"}), [W @ s for s in flat], shape=(4, 3, 4, 3))
    check_pairs(pairs(tp.sum(over_time, "t"), {"i": "j"}), [e[0] + e[1] + e[2] + e[3] for e in each])


def test_functions_of_contracted_stacks():
    x, singles = batch()
    time, each = tp.stack(states(x, 2), "t"), [states(s, 2) for s in singles]
    check_pairs(pairs(W @ tp.mean(time, "t"), {"i": "j"}), [W @ ((e[0] + e[1] + e[2]) / 3) for e in each])
    hidden = tp.stack([W @ s for s in states(x, 2)], "t")
    check_pairs(
        pairs(tp.relu(tp.mean(hidden, "t")), {"i": "j"}), [tp.relu((W @ e[0] + W @ e[1] + W @ e[2]) / 3) for e in each]
    )


def test_a_transposed_matrix_of_a_stack():
    x, singles = batch()
    h = [W @ x, V @ x]
    back = W.T @ tp.relu(tp.stack(h, "s"))
    each = [[W.T @ tp.relu(m @ s) for s in singles] for m in (W, V)]
    check_pairs(tp.moment(back * tp.rename(x, i="j")), [*each[0], *each[1]], singles, shape=(2, 3, 3))


def test_fifty_inputs_of_a_deep_relu_network_are_the_arc_cosine_kernel():
    data = np.random.default_rng(0).normal(size=(50, 5))
    gram = data @ data.T / 5
    h = tp.Vector("x", N, cov=gram, axes=("i",))
    expected = gram
    for k in range(3):
        h = tp.relu(tp.Matrix(f"M{k}", N, N, var=2) @ h)
        d = np.sqrt(np.diag(2 * expected if k else 2 * gram))
        rho = np.clip(2 * expected / np.outer(d, d), -1, 1)
        expected = np.outer(d, d) / (2 * math.pi) * (np.sqrt(1 - rho**2) + rho * (math.pi - np.arccos(rho)))
    np.testing.assert_allclose(array(pairs(h, {"i": "j"})), expected, rtol=1e-7)


@pytest.mark.parametrize("phi", [tp.elu, tp.gelu, tp.tanh], ids=lambda f: f.__name__)
def test_kernels_of_fifty_inputs_are_accurate(phi):
    data = np.random.default_rng(1).normal(size=(50, 5))
    h = tp.Vector("x", N, cov=data @ data.T / 5, axes=("i",))
    for k in range(2):
        h = phi(tp.Matrix(f"M{k}", N, N, var=2) @ h)
    found = limit(k=pairs(h, {"i": "j"}))["k"]
    assert np.max(found.error) < 1e-6


def test_long_axes_of_independent_columns_have_no_covariance_matrix():
    """A matrix of all pairs of 10^5 positions would have 80 GB; what needs one is refused with the numbers."""
    x = tp.Vector("x", tp.Width("n"), axes={"t": 10**5}, var=3)
    found = tp.limit(
        tp.Program(m=tp.moment(x * x), shifted=tp.moment(tp.pick(x, "t", range(1, 5)) * tp.pick(x, "t", range(4))))
    )
    assert found["m"].value.shape == (10**5,) and set(found["m"].value.tolist()) == {3}
    assert found["shifted"].value.tolist() == [0, 0, 0, 0]
    with pytest.raises(tp.TensorProgramError, match="GB"):
        tp.limit(tp.Program(m=tp.moment(x * tp.rename(x, t="s"))))
    with pytest.raises(tp.TensorProgramError, match="GB"):
        tp.limit(tp.Program(m=tp.moment(tp.Vector("y", tp.Width("n"), axes={"t": 10**12}) ** 2)))
