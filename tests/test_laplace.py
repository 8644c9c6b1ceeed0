"""Batch normalisation in the exact limit: inverse powers of sums of squares (limits/expect/laplace.py, limits/gauss/tilt.py)."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from marks import few

import tensorprog as tp
from tensorprog.language import algebra
from tensorprog.language.expression import Expression
from tensorprog.limits.evaluate.moments import check_moments
from tensorprog.limits.expect.expectation import Expectation
from tensorprog.limits.expect.lower import Lowering

n = tp.Width("n")


def gram(batch: int, dimension: int = 9, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(batch, dimension))
    return x @ x.T / dimension


def normalised(h, axis, eps=0):
    c = h - tp.mean(h, axis)
    s = tp.sqrt(tp.mean(c * c, axis) + eps) if eps else tp.sqrt(tp.mean(c * c, axis))
    return c, s


def batch_norm(h, axis, eps=0):
    c, s = normalised(h, axis, eps)
    return c / s


def exact(**outputs):
    found = tp.limit(tp.Program(**outputs), method="exact")
    for name in found:
        assert found[name].method in ("quadrature", "closed form"), name
    return found


def two_batches(k: np.ndarray, first: int):
    """Two multi-vectors with axes b and c that are jointly Gaussian."""
    h = tp.Vector("h", n, axes=("all",), cov=k)
    chosen = np.eye(len(k), dtype=int)
    return tuple(
        tp.sum(h * tp.array(rows, (axis, "all")), "all")
        for rows, axis in ((chosen[:first], "b"), (chosen[first:], "c"))
    )


# ---- against formulas and independent quadrature ----


def test_chi_square_moments():
    """Of iid examples, B q is chi-square with B - 1 degrees of freedom; y_a^2 is then Beta."""
    for batch in (4, 5, 8):
        c, s = normalised(tp.Vector("h", n, axes=("e",), cov=np.eye(batch)), "e")
        y, r = c / s, batch - 1
        found = exact(one=1 * tp.moment(s**-1), two=tp.moment(1 / s**2), square=tp.moment(y**2), fourth=tp.moment(y**4))
        inverse = math.sqrt(batch) * math.exp(math.lgamma((r - 1) / 2) - math.lgamma(r / 2)) / math.sqrt(2)
        expected = {"one": inverse, "two": batch / (r - 2), "square": 1.0, "fourth": r**2 * 3 / (r * (r + 2))}
        for name, value in expected.items():
            assert np.allclose(found[name].value, value, rtol=1e-12), (batch, name)
            assert np.max(found[name].error) < 1e-11


def sphere(k: np.ndarray, f, points: int = 4001) -> float:
    """E f(c) for f of degree 0 and three examples: c lies in a plane, and only its direction counts."""
    batch = len(k)
    centre = np.eye(batch) - 1 / batch
    values, vectors = np.linalg.eigh(centre @ k @ centre)
    root = vectors[:, -2:] * np.sqrt(values[-2:])
    angles = np.linspace(0, 2 * np.pi, points)
    c = root @ np.stack([np.cos(angles), np.sin(angles)])
    return float(np.trapezoid(f(c), angles) / (2 * np.pi))


def test_three_examples_by_an_integral_over_the_circle():
    k = gram(3)
    y = batch_norm(tp.Vector("h", n, axes=("e",), cov=k), "e")
    x, step = tp.relu(y), tp.step(y)
    found = exact(
        relu=tp.moment(x * tp.rename(x, e="f")),
        cross=tp.moment(tp.rename(step, e="f") * x**2),
        leaky=tp.moment(tp.leaky_relu(y, 0.25) * tp.rename(tp.abs(y), e="f")),
    )

    def unit(c):
        return c / np.sqrt((c * c).mean(0))

    for a in range(3):
        for b in range(3):
            relu = sphere(k, lambda c, a=a, b=b: np.prod(np.maximum(unit(c)[[a, b]], 0), 0), 100001)
            assert abs(found["relu"].value[a, b] - relu) < 1e-8
            leaky = sphere(
                k, lambda c, a=a, b=b: np.where(unit(c)[a] > 0, 1, 0.25) * unit(c)[a] * np.abs(unit(c)[b]), 100001
            )
            assert abs(found["leaky"].value[a, b] - leaky) < 1e-8
            i, j = (a, b) if found.axes["cross"] == ("f", "e") else (b, a)
            cross = sphere(k, lambda c, i=i, j=j: (unit(c)[i] > 0) * np.maximum(unit(c)[j], 0) ** 2, 100001)
            assert abs(found["cross"].value[a, b] - cross) < 1e-4  # the trapezoid meets a jump


def direct(k: np.ndarray, k1: int, k2: int, first: int, u: int, v: int) -> float:
    """E relu(c_u) relu(c_v) q1^(-k1/2) q2^(-k2/2) by Gauss-Legendre in log s, with plain inverses and determinants."""
    bases = []
    for size in (first, len(k) - first):  # orthonormal coordinates of what is centred: a regular covariance
        bases.append(np.linalg.svd(np.eye(size) - 1 / size)[0][:, : size - 1])
    rows = np.zeros((len(k), len(k) - 2))
    rows[:first, : first - 1], rows[first:, first - 1 :] = bases
    precision = np.linalg.inv(rows.T @ k @ rows)
    t, w = np.polynomial.legendre.leggauss(120)
    t, w = 36 * t - 14, 36 * w
    d = np.zeros((120, 120, len(k) - 2))
    d[..., : first - 1] = np.exp(t)[:, None, None] / first
    d[..., first - 1 :] = np.exp(t)[None, :, None] / (len(k) - first)
    tilted = np.linalg.inv(precision + 2 * d[..., None] * np.eye(len(k) - 2))
    number = np.sqrt(np.linalg.det(tilted) * np.linalg.det(precision))
    uu, uv, vv = [np.einsum("i,stij,j->st", rows[i], tilted, rows[j]) for i, j in ((u, u), (u, v), (v, v))]
    rho = uv / np.sqrt(uu * vv)
    dual = np.sqrt(uu * vv) / (2 * np.pi) * (np.sqrt(1 - rho * rho) + rho * (np.pi - np.arccos(rho)))
    powers = np.exp(k1 / 2 * t)[:, None] * np.exp(k2 / 2 * t) / (math.gamma(k1 / 2) * math.gamma(k2 / 2))
    return float(w @ (powers * number * dual) @ w)


def test_two_batches_by_another_rule():
    k = gram(9)
    b, c = two_batches(k, 5)
    (cb, sb), (cc, sc) = normalised(b, "b"), normalised(c, "c")
    found = exact(x=tp.moment(tp.relu(cb) * tp.relu(cc) / (sb**3 * sc**2)))["x"]
    for i, j in ((1, 2), (4, 0)):
        assert abs(found.value[i, j] / direct(k, 3, 2, 5, i, 5 + j) - 1) < 1e-7
    assert np.max(found.error) < 1e-9


def test_taken_and_stacked_columns_are_the_same_program():
    k = gram(9)
    h = tp.Vector("h", n, axes=("all",), cov=k)
    stacked = [
        tp.stack([tp.take(h, "all", i) for i in rows], axis) for rows, axis in ((range(5), "b"), (range(5, 9), "c"))
    ]
    values = []
    for b, c in (stacked, two_batches(k, 5)):
        x, y = tp.relu(batch_norm(b, "b")), tp.relu(batch_norm(c, "c"))
        values.append(exact(k=tp.moment(x * y))["k"].value)
    assert np.allclose(values[0], values[1], rtol=1e-12)


# ---- against sampling ----


@pytest.mark.parametrize("eps", [0, 0.01, 1])
def test_against_samples(eps):
    """z-scores over 2^18 samples; P(|z| > 5) < 1e-6 each, some 70 of them."""
    k = gram(6)
    y = batch_norm(tp.Vector("h", n, axes=("e",), cov=k), "e", eps)
    x = tp.relu(y)
    found = exact(k=tp.moment(x * tp.rename(x, e="f")), p=tp.moment(tp.abs(y) * y**2))
    h = np.linalg.cholesky(k) @ np.random.default_rng(1).normal(size=(6, 2**18))
    c = h - h.mean(0)
    y = c / np.sqrt((c * c).mean(0) + eps)
    x = np.maximum(y, 0)
    draws = {"k": x[:, None] * x[None], "p": np.abs(y) ** 3}
    for name, sample in draws.items():
        z = (sample.mean(-1) - found[name].value) / (sample.std(-1) / math.sqrt(sample.shape[-1]))
        assert np.max(np.abs(z)) < 5, name
        assert np.max(found[name].error) < 1e-8


def test_two_forms_against_samples():
    """As above, with forms of two batches, and one of them twice the other's rows."""
    k = gram(9)
    b, c = two_batches(k, 5)
    x, y = tp.relu(batch_norm(b, "b")), tp.step(batch_norm(c, "c")) * batch_norm(c, "c") ** 2
    found = exact(k=tp.moment(x * y))["k"]
    h = np.linalg.cholesky(k) @ np.random.default_rng(2).normal(size=(9, 2**17))
    parts = []
    for rows in (h[:5], h[5:]):
        centred = rows - rows.mean(0)
        parts.append(np.maximum(centred / np.sqrt((centred * centred).mean(0)), 0))
    sample = parts[0][:, None] * parts[1][None] ** 2
    z = (sample.mean(-1) - found.value) / (sample.std(-1) / math.sqrt(2**17))
    assert np.max(np.abs(z)) < 5


def test_a_form_that_varies_along_another_axis():
    """Batch norm of two batches of one size, as one axis: the two forms coincide on the diagonal."""
    k = gram(10, 14)
    h = tp.Vector("h", n, axes={"batch": 2, "e": 5}, cov=k)
    x = tp.relu(batch_norm(h, "e"))
    both = exact(one=tp.moment(x * tp.rename(x, e="f")), two=tp.moment(x * tp.rename(x, batch="other", e="f")))
    one, two = both["one"].value, both["two"]
    axes = both.axes["two"]
    value = np.transpose(two.value, [axes.index(a) for a in ("batch", "e", "other", "f")])
    single = np.transpose(one, [both.axes["one"].index(a) for a in ("batch", "e", "f")])
    for i in range(2):
        assert np.max(np.abs(value[i, :, i] - single[i])) <= np.max(two.error) < 1e-6
    b, c = two_batches(k, 5)
    cross = exact(k=tp.moment(tp.relu(batch_norm(b, "b")) * tp.relu(batch_norm(c, "c"))))["k"].value
    assert np.allclose(value[0, :, 1], cross, rtol=1e-10)


# ---- singular covariances, infinite moments ----


def test_duplicate_examples():
    rows = [0, 1, 2, 3, 4, 4]
    y = batch_norm(tp.Vector("h", n, axes=("e",), cov=gram(5)[np.ix_(rows, rows)]), "e")
    x, step = tp.relu(y), tp.step(y)
    found = exact(
        k=tp.moment(x * tp.rename(x, e="f")), s=tp.moment(step * tp.rename(step, e="f") * y**2), trace=tp.moment(y**2)
    )
    assert np.allclose(found["k"].value[4], found["k"].value[5], rtol=1e-13)
    assert np.allclose(found["k"].value[4, 4], found["k"].value[4, 5], rtol=1e-13)
    assert np.isclose(found["trace"].value.sum(), 6, rtol=1e-13)
    assert max(np.max(found[name].error) for name in found) < 1e-9


def infinite(output) -> str:
    with pytest.raises(tp.TensorProgramError) as caught:
        tp.limit(tp.Program(x=output))
    return str(caught.value)


def test_infinite_moments_are_refused():
    for batch in (2, 3):
        c, s = normalised(tp.Vector("h", n, axes=("e",), cov=gram(batch)), "e")
        assert "infinite" in infinite(tp.moment(1 / s**2)), batch
        assert "rank" in infinite(tp.moment(tp.exp(-1 * s) / s**2)), (
            batch
        )  # nothing exact, and sampling would not notice
        assert np.isfinite(exact(x=tp.moment(tp.relu(c / s) ** 2))["x"].value).all()
    rows = [0, 1, 2, 2, 2]  # five examples, three different ones
    c, s = normalised(tp.Vector("h", n, axes=("e",), cov=gram(3)[np.ix_(rows, rows)]), "e")
    assert "rank 2" in infinite(tp.moment(1 / s**2))
    assert "division by" in infinite(
        tp.moment(tp.relu(batch_norm(tp.Vector("h", n, axes=("e",), cov=np.ones((3, 3))), "e")))
    )
    c, s = normalised(tp.Vector("h", n, axes=("e",), cov=gram(4)), "e")
    assert np.all(exact(x=tp.moment(1 / s**2))["x"].value > 0)  # rank 3: finite
    assert "infinite" in infinite(tp.moment(1 / s**3))
    exact(x=tp.moment(c**2 / s**4))  # the numerator helps
    c, s = normalised(tp.Vector("h", n, axes=("e",), cov=gram(3)), "e", 0.01)
    exact(x=tp.moment(1 / s**6))  # and so does eps


def test_two_forms_of_one_batch_are_counted_together():
    """1/s of a batch and of the same batch with a duplicate vanish at the same place."""
    k = gram(3)
    h = tp.Vector("h", n, axes=("e",), cov=k)
    again = tp.sum(h * tp.array(np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]]), ("b", "e")), "e")
    (_, s), (_, other) = normalised(h, "e"), normalised(again, "b")
    assert "infinite" in infinite(tp.moment(1 / (s * other)))
    exact(x=tp.moment(1 / s), y=tp.moment(1 / other))


def test_homogeneous_functions_let_positive_factors_out():
    c, s = normalised(tp.Vector("h", n, axes=("e",), cov=gram(5)), "e")
    found = exact(
        a=tp.moment(tp.relu(c / s)), b=tp.moment(tp.relu(c) / s), p=tp.moment(tp.step(-2 * c / s) * tp.abs(c)),
        q=tp.moment(tp.step(-1 * c) * tp.abs(c)),
    )  # fmt: skip
    assert np.allclose(found["a"].value, found["b"].value, rtol=1e-14)
    assert np.allclose(found["p"].value, found["q"].value, rtol=1e-14)


def test_formula_says_what_it_does_not_know():
    y = batch_norm(tp.Vector("h", n, axes=("e",), cov=gram(5)), "e")
    with pytest.raises(tp.TensorProgramError, match="batch normalisation"):
        str(tp.formula(tp.Program(x=tp.moment(tp.relu(y)))))


# ---- networks ----

GOLDEN = Path(__file__).parent / "golden"
"""Independent infinite-width values by Gauss-Laguerre quadrature; the accuracy of each is stated where it is used."""


def distance(value: np.ndarray, golden: np.ndarray) -> float:
    return float(np.linalg.norm(value - golden) / np.linalg.norm(golden))


def test_kernel_of_two_layers():
    """A MLP with batch norm and relu, two batches of 32: the second layer's covariance is itself a Laplace integral."""
    golden = np.load(GOLDEN / "gp_batchnorm.npz")
    matrix = tp.Matrix("W", n, n)
    x, y = [tp.relu(batch_norm(h, axis)) for h, axis in zip(two_batches(golden["input_gram"], 32), "bc", strict=True)]
    x, y = tp.relu(batch_norm(matrix @ x, "b")), tp.relu(batch_norm(matrix @ y, "c"))
    found = exact(xx=tp.moment(x * tp.rename(x, b="d")), yy=tp.moment(y * tp.rename(y, c="d")), xy=tp.moment(x * y))
    kernel = golden["kernel"]
    assert distance(found["xx"].value, kernel[:32, :32]) < 1e-9
    assert distance(found["yy"].value, kernel[32:, 32:]) < 1e-9
    assert distance(found["xy"].value, kernel[:32, 32:]) < 1e-5  # two resolutions of the golden one differ by 1.2e-5
    assert max(np.max(found[name].error) for name in found) < 1e-10


def backward(h, dx, axis: str):
    """dh from dx, for x = relu(batch norm of h) over an axis; and x."""
    c, s = normalised(h, axis)
    y = c / s
    dy = dx * tp.step(y)
    dc = (dy - y * tp.mean(dy * y, axis)) / s
    return dc - tp.mean(dc, axis), tp.relu(y)


def tangent(k: np.ndarray, rows, others, axes: str):
    """The readout's part and the input layer's part of the NTK block between two batches; axes: b o, c p."""
    b, o, c, p = axes
    h, v = tp.Vector("h", n, axes=("all",), cov=k), tp.Vector("v", n)
    eye, parts = np.eye(len(k), dtype=int), []
    for chosen, axis, output in ((rows, b, o), (others, c, p)):
        g = tp.sum(h * tp.array(eye[list(chosen)], (axis, "all")), "all")
        dh, x = backward(g, v * tp.array(np.eye(len(chosen), dtype=int), (output, axis)), axis)
        parts.append((dh, tp.rename(x, **{axis: output})))
    (dh, x), (other, z) = parts
    gram = tp.array(k[np.ix_(list(rows), list(others))], (b, c))
    return tp.moment(x * z), tp.sum(tp.moment(dh * other) * gram, (b, c))


def ntk_blocks(k: np.ndarray, blocks: dict) -> dict:
    outputs = {}
    for name, (rows, others) in blocks.items():
        readout, weights = tangent(k, rows, others, "bocp")
        outputs |= {f"ntk_{name}": readout + weights, f"nngp_{name}": readout}
    found = exact(**outputs)
    return {
        name: (np.transpose(found[name].value, [found.axes[name].index(a) for a in "op"]), found[name].error)
        for name in found
    }


@pytest.mark.parametrize("blocks", [("22",), pytest.param(("11", "12"), marks=pytest.mark.slow)])
def test_tangent_kernel(blocks):
    """Batches of 7 and 5, backward pass written out; the golden values are accurate to 3e-8."""
    golden = np.load(GOLDEN / "batchnorm_ntk.npz")
    x = np.concatenate([golden["x1"], golden["x2"]])
    parts = {"1": range(7), "2": range(7, 12)}
    found = ntk_blocks(x @ x.T / x.shape[1], {name: (parts[name[0]], parts[name[1]]) for name in blocks})
    for name in blocks:
        index = np.ix_(list(parts[name[0]]), list(parts[name[1]]))
        assert distance(found[f"ntk_{name}"][0], golden["ntk"][index]) < 3e-8
        assert distance(found[f"nngp_{name}"][0], golden["nngp"][index]) < 3e-8
        assert np.max(found[f"ntk_{name}"][1]) < 1e-9


def test_tangent_kernel_of_a_batch_of_three_is_infinite():
    with pytest.raises(tp.TensorProgramError, match="infinite"):
        ntk_blocks(gram(3), {"11": (range(3), range(3))})
    assert np.isfinite(ntk_blocks(gram(4), {"11": (range(4), range(4))})["ntk_11"][0]).all()


@pytest.mark.slow
def test_tangent_kernel_of_two_layers_against_finite_width():
    """Gradients through batch norm twice, width 4096, 32 seeds: |z| < 5.5 for 72 numbers (P < 1e-3: t with 31 degrees)."""
    k, matrix, v = gram(8), tp.Matrix("W", n, n), tp.Vector("v", n)
    h = tp.Vector("h", n, axes=("b",), cov=k)
    x = tp.relu(batch_norm(h, "b"))
    dg, _ = backward(matrix @ x, v * tp.array(np.eye(8, dtype=int), ("o", "b")), "b")
    dh, _ = backward(h, matrix.T @ dg, "b")

    def tangent_of(dh, gram):
        return tp.sum(tp.moment(dh * tp.rename(dh, o="p", b="c")) * gram, ("b", "c"))

    second = tangent_of(dg, tp.moment(x * tp.rename(x, b="c")))
    found = exact(first=tangent_of(dh, tp.array(k, ("b", "c"))), second=second)
    program = tp.Program(first=tangent_of(dh, tp.array(k, ("b", "c"))), second=second)
    runs = tp.run(program, 4096, seeds=32)
    for name in found:
        sample = np.asarray(runs[name])
        z = (sample.mean(0) - found[name].value) / (sample.std(0, ddof=1) / np.sqrt(len(sample)))
        assert np.max(np.abs(z)) < 5.5, name
        assert distance(sample.mean(0), found[name].value) < 0.05


# ---- functions that are not homogeneous ----


def tangent_kernel(phi, batch: int, eps: float = 0) -> tuple[tp.Program, np.ndarray]:
    X = np.random.default_rng(0).standard_normal((batch, 64))
    net = tp.Network(tp.readout("v", phi(tp.batch_norm(tp.dense("U", tp.Input("x"), n), eps=eps))))
    return tp.Program(ntk=net.program(X).outputs["ntk"]), X @ X.T / 64


@pytest.mark.parametrize("eps", [0, 0.1])
@pytest.mark.parametrize("phi", few([tp.tanh, tp.erf, tp.gelu], [tp.tanh]))
def test_tangent_kernels_of_other_functions_are_finite_and_cost_little(phi, eps):
    """Powers of the numerator count: E q^-3 c_1 c_2 c_3 c_4 f(c/sqrt(q)) is like E q^-1. Stein's lemma would raise them."""
    lowering = Lowering(tangent_kernel(phi, 4, eps)[0], {}, Expectation())
    assert not lowering.declined and lowering.expectation.budget.expansions < 4000
    with pytest.raises(tp.TensorProgramError, match="infinite") if not eps else nullcontext():
        check_moments(
            Lowering(tangent_kernel(phi, 3, eps)[0], {}, Expectation()).expectation.unweighed
        )  # rank 2, power 2


@pytest.mark.slow
def test_tangent_kernel_of_tanh():
    """Against samples whose radius, which is independent of their direction, is integrated out: E r^-2 = 1 for rank 3."""
    program, k = tangent_kernel(tp.tanh, 4)
    node = program.outputs["ntk"].node
    entry = Expression(algebra.take(algebra.take(node, 0, 0), 0, 1), ())
    found = tp.limit(tp.Program(q=entry), budget=16)["q"]  # the population does not see the tails
    centre = np.eye(4) - 1 / 4
    values, vectors = np.linalg.eigh(centre @ k @ centre)
    g = np.random.default_rng(1).standard_normal((2**19, 3))
    c = g @ (vectors[:, 1:] * np.sqrt(values[1:])).T
    s = np.sqrt((c * c).mean(1, keepdims=True))
    y = c / s

    def jacobian(a):
        return (1 - np.tanh(y[:, [a]]) ** 2) * (centre[a] - y * y[:, [a]] / 4) / s

    backward = np.einsum("si,ij,sj->s", jacobian(0), k, jacobian(1)) * (g * g).sum(1)
    draws = np.tanh(y[:, 0]) * np.tanh(y[:, 1]) + backward
    error = math.hypot(found.error, draws.std() / len(draws) ** 0.5)
    assert found.error < 1e-3 and abs(found.value - draws.mean()) < 5 * error  # probability 6e-7
