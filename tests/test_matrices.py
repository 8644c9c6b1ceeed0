"""Matrices as values: sums of initial matrices and updates, in every meaning of a program; traces of training by hand."""

import pickle
import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from marks import said
from strategies import programs

import tensorprog as tp
from tensorprog.execute.compiled import compiled
from tensorprog.execute.executor import population
from tensorprog.execute.matrices import MatrixValue
from tensorprog.language.node import topological
from tensorprog.limits.expect.lower import Lowering
from tensorprog.transforms.decouple import decouple
from tensorprog.transforms.written_out import written_out

N, M = tp.Width("n"), tp.Width("m", 2)
W, V, S = tp.Matrix("W", M, N, var=2), tp.Matrix("V", M, N), tp.Matrix("S", N, N)
X, D = tp.Vector("x", N, mean=1), tp.Vector("d", M, mean=Fraction(1, 2))
XB, DB = tp.Vector("xb", N, axes={"b": 3}, mean=[1, 0, 2]), tp.Vector("db", M, axes={"b": 3})
XS, DS = tp.rename(XB, b="s"), tp.rename(DB, b="s")
ETA = tp.Scalar("eta", Fraction(1, 4))


def outer_product(d, x):
    return tp.matrix(lambda a, b: a * b, d, x)


def matrices():
    """Every kind of matrix: name to (matrix, does its limit have a closed form?)."""
    g, batch = outer_product(D, X), outer_product(DB, XB)
    each = W + batch
    own = outer_product(V @ X, S @ tp.tanh(X))
    twice = W - ETA * g
    return {
        "an update": (W - Fraction(1, 3) * g, True),
        "a coefficient that is a scalar": ((1 - ETA) * W + ETA * g, True),
        "weight decay, twice": ((1 - ETA) * twice - Fraction(1, 2) * own, True),
        "two initial matrices": (2 * W - V / 2 + g, True),
        "no initial matrix": (g - 2 * own, True),
        "a multiple of an initial matrix": (3 * W, True),
        "a batch": (W - tp.sum(batch, "b"), True),
        "a mean over a batch": (V + tp.mean(tp.matrix(lambda a, b: tp.tanh(a) * b + b, DB, XB), "b"), True),
        "axes": (each, True),
        "a position": (tp.take(each, "b", 1), True),
        "positions": (tp.pick(each, "b", [2, 0, 0]), True),
        "the sum over an axis": (tp.sum(each, "b"), True),
        "a renamed axis": (tp.rename(each, b="s"), True),
        "a stack": (tp.stack([W + g, V - g, 2 * W], "b"), True),
        "rows and columns scaled": (V + tp.matrix(lambda a, b: a * (g * b + g), D, X), True),
        "functions of one coordinate": (V + tp.matrix(lambda a, b: tp.tanh(a) + tp.relu(b) + 1, D, X), True),
        "a square": (W + g**2, True),
        "the square of a batch": (W + tp.sum(batch, "b") ** 2, False),
        "Adam's": (W - ETA * g / (tp.sqrt(g**2) + 1), False),
        "a function of both": (W + tp.matrix(lambda a, b: tp.tanh(a * b + 1), D, X), False),
        "a function of a batch": (W + tp.tanh(batch), False),
        "momentum of Adam's": ((1 - ETA) * (W + tp.tanh(g)) - outer_product(DB, XB), False),
    }


NAMES = list(matrices())


def program_with(m: tp.Expression) -> tp.Program:
    """Products with a matrix, with and without axes, both ways, and one of what the product made."""
    y, back = m @ X, m.T @ D
    many, backs = m @ XB, m.T @ DS
    again = m.T @ tp.tanh(y)
    return tp.Program(
        y=tp.moment(y * D), back=tp.moment(back * X), many=tp.moment(many * D), backs=tp.moment(backs * X),
        norm=tp.moment(y * y), again=tp.moment(again * X), coupled=tp.moment((m.T @ y) * X),
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_runs_are_those_of_the_program_written_out(name):
    p = program_with(matrices()[name][0])
    plain = written_out(p)
    assert not any(x.op in ("apply", "matrix") for x in plain.nodes)
    runs, other = (tp.run(q, n=6, seeds=2, weights="dense") for q in (p, plain))
    for output in p:
        size = np.abs(other[output]).max()
        assert np.abs(runs[output] - other[output]).max() <= 1e-13 * (1 + size), output


@pytest.mark.parametrize("name", NAMES)
def test_transposes_are_transposes(name):
    """In every space <y, M x> rows = <M.T y, x> cols, with the limit of rows / cols in a population."""
    p = program_with(matrices()[name][0])
    for runs in (tp.run(p, n=8, seeds=2, weights="lazy"), population(p, 64, replicates=2)):
        y, back = 2 * runs["y"], runs["back"]
        assert np.abs(y - back).max() <= 1e-12 * (1 + np.abs(y).max())


CLOSED = [name for name in NAMES if matrices()[name][1]]


def check_limits(p, samples):
    """The exact route and the population, which runs the program as it is."""
    exact = tp.limit(p, method="exact")
    there = tp.limit(p, method="population", samples=samples, replicates=8)
    for output, e in exact.items():
        assert e.method != "population"
        gap, error = np.abs(e.value - there[output].value), there[output].error + e.error
        assert np.all(gap <= 4 * error + 1e-9), (output, e, there[output])  # four times what 95 in 100 keep


@pytest.mark.parametrize("name", [name for name in CLOSED if "batch" not in name and "functions" not in name])
def test_exact_limits(name):
    p = program_with(matrices()[name][0])
    check_limits(tp.Program({k: p.outputs[k] for k in ("y", "back")}), 256)


@pytest.mark.slow
@pytest.mark.parametrize("name", CLOSED)
def test_all_exact_limits(name):
    check_limits(program_with(matrices()[name][0]), 512)


def test_what_does_not_separate_is_sampled():
    p = program_with(matrices()["Adam's"][0])
    found = tp.limit(tp.Program(y=p.outputs["y"]), samples=64, replicates=4)["y"]
    assert found.method == "population" and "separate" in found.note


@pytest.mark.parametrize("name", NAMES)
def test_text_pickles_and_digests(name):
    p = program_with(matrices()[name][0])
    again = tp.parse(str(p), arrays=p.arrays)
    assert again == p and str(again) == str(p)
    assert pickle.loads(pickle.dumps(p)) == p
    assert program_with(matrices()[name][0]).digest == p.digest
    products = [m for _, m in p.graph().nodes(data="matrix") if m is not None]
    assert tp.latex(p).count("MatMul") == len(products)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_independence_replaces_initial_matrices(name):
    m = matrices()[name][0]
    p = program_with(m)
    free = decouple(p)
    assert decouple(free) == free
    assert written_out(free) == decouple(written_out(p))
    used = {x.attr.name for x in topological([m.node]) if x.op == "matrix"}
    copied = {x.name for x in free.matrices} - {x.name for x in p.matrices}
    assert copied == {f"{name}~" for name in used}


def test_pythons_sum():
    assert sum([W, V, outer_product(D, X)]).node == (W + V + outer_product(D, X)).node


def test_products_are_normal_forms():
    g = outer_product(D, X)
    assert ((2 * W) @ X).node == (2 * (W @ X)).node
    assert ((ETA * W).T @ D).node == (ETA * (W.T @ D)).node
    assert ((W - W) @ X).node.is_zero
    assert ((W + g) @ X).node == ((g + W) @ X).node != ((W - g) @ X).node
    assert ((2 * (W + g)) @ X).node == (2 * ((W + g) @ X)).node
    assert (W + g).T.T.node == (W + g).node
    zero = tp.Matrix("Z", M, N, var=0)
    assert ((zero + g) @ X).node == (g @ X).node


ERRORS = {
    "a function of an initial matrix": (lambda: tp.tanh(W + outer_product(D, X)), "single entries"),
    "a power": (lambda: (W + outer_product(D, X)) ** 2, "single entries"),
    "a product of matrices": (lambda: (W + V) * outer_product(D, X), "single entries"),
    "in a body": (lambda: tp.outer(lambda a, b: (W + V) * b, D, X), "single entries"),
    "as a body": (lambda: tp.outer(lambda a, b: W + V, D, X), "body of an OuterNonlin"),
    "an output": (lambda: tp.Program(q=W + V), r"tp\.moment\(y \* \(M @ x\)\)"),
    "in a Moment": (lambda: tp.moment(W + V), "M @ x"),
    "with a vector": (lambda: outer_product(D, X) * X, "one coordinate and a matrix two"),
    "plus a vector": (lambda: (W + V) + X, "one coordinate and a matrix two"),
    "an initial one plus a vector": (lambda: W + D, "one coordinate and a matrix two"),
    "the wrong width": (lambda: (W + V) @ D, r"multiply by \(V \+ W\)\.T|multiply by \(W \+ V\)\.T"),
    "matrices of two shapes": (lambda: W + S, "width n"),
    "a matrix times a matrix": (lambda: W @ (W + V), r"A @ \(B @ x\)"),
    "a sum times a matrix": (lambda: (W + V) @ S, r"A @ \(B @ x\)"),
    "a transpose in a sum": (lambda: (W + V).T + 1, r"\(2 \* W\)\.T @ y"),
    "a number added to an initial matrix": (lambda: W + 1, "divided by the number of columns"),
    "a fraction added to an initial matrix": (lambda: Fraction(1, 2) + W, "divided by the number of columns"),
    "a NumPy number added to an initial matrix": (lambda: np.float64(2) - W, "divided by the number of columns"),
    "a scalar added to an initial matrix": (lambda: ETA - (W + V), "divided by the number of columns"),
    "scalars": (lambda: tp.matrix(lambda a, b: a, ETA, X), r"tp\.matrix takes vectors"),
    "two widths": (lambda: tp.matrix(lambda a, c, b: a * b, [D, X], X), "different widths"),
    "of one axis, and of another size": (lambda: (W + outer_product(DB, XB)) @ tp.Vector("z", N, axes={"b": 2}), "size"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_what_matrices_cannot_do_is_said(name):
    build, message = ERRORS[name]
    with pytest.raises(tp.TensorProgramError) as caught:
        build()
    assert re.search(message, said(caught.value))
    assert "test_matrices.py" in str(caught.value)


BAD = {
    "no matrix": ("h = MatMul(x, x)", "is no matrix"),
    "axes that differ": ("M = Nonlin(z*z')\nh = MatMul(M, w)", "shape"),
    "a function": ("M = tanh(W + x*x')\nh = MatMul(M, x)", "single entries"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_in_a_text_is_refused(name):
    lines, message = BAD[name]
    head = "width n\nmatrix W : n x n, var 1\nvector x : n, mean 0, var 1\n"
    head += "vector z[i:2] : n, mean 0, var 1\nvector w[i:3] : n, mean 0, var 1\n"
    with pytest.raises(tp.TensorProgramError, match=message):
        tp.parse(f"{head}{lines}\noutput q = Moment(h)")


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(programs(max_instructions=12, updates=True))
def test_random_programs(p):
    """Run as they are and written out, decoupled before and after."""
    plain = written_out(p)
    assert written_out(decouple(p)) == decouple(plain)
    assert pickle.loads(pickle.dumps(p)) == p
    runs, other = (tp.run(q, n=6, weights="dense") for q in (p, plain))
    for name in p:
        size = np.abs(other[name]).max()
        assert np.abs(runs[name] - other[name]).max() <= 1e-11 * (1 + size), name
    population(p, 16, replicates=1)


# ---- training by hand ----


def sgd(steps, batch=3, wd=0.0, mu=0.0):
    """Two hidden layers of two widths, muP, trained on one batch: outputs f_0, ..., and what NumPy needs to do the same.

    h1 = U x, h2 = W tanh(h1), f = v.tanh(h2)/m; loss sum (f - y)^2 / 2.
    """
    gram = np.array([[2.0, 0.5, -0.3], [0.5, 1.0, 0.2], [-0.3, 0.2, 1.5]])[:batch, :batch]
    y = np.array([1.0, -1.0, 0.5])[:batch]
    targets, lr = tp.array(y, "b"), 0.5
    u = tp.Vector("u", N, axes="b", cov=gram)
    v, w, m = tp.Vector("v", M), W, None
    outputs = {}
    for t in range(steps):
        h1, x1 = u, tp.tanh(u)
        h2 = w @ x1
        x2 = tp.tanh(h2)
        f = tp.moment(v * x2)
        outputs[f"f{t}"] = f
        chi = f - targets
        dh2 = chi * v * (1 - x2**2)  # m df/dh2, times chi
        dh1 = (w.T @ dh2) * (1 - x1**2)  # n df/dh1 = n/m ... : the body of W.T is over n columns
        g = tp.sum(tp.matrix(lambda d, x: d * x, dh2, x1), "b")
        if mu:
            g = m = g if m is None else mu * m + g
        w = (1 - wd) * w - lr * g if wd else w - lr * g
        v = v - lr * tp.sum(chi * x2, "b")
        k = tp.array(gram, ("b", "s"))
        u = h1 - lr * tp.sum(k * tp.rename(dh1, b="s"), "s")
    return tp.Program(outputs)


def sgd_numpy(steps, w, u, v, gram, y, lr=0.5, wd=0.0, mu=0.0):
    """The same with arrays: w (m, n), u (batch, n), v (m,)."""
    rows, n = w.shape
    moved = np.zeros_like(w)
    found = []
    for _ in range(steps):
        x1 = np.tanh(u)
        x2 = np.tanh(x1 @ w.T)
        f = x2 @ v / rows
        found.append(f)
        chi = f - y
        dh2 = chi[:, None] * v * (1 - x2**2)
        dh1 = (dh2 @ w) * (1 - x1**2)
        moved = mu * moved + dh2.T @ x1
        w = (1 - wd) * w - lr * moved / n
        v = v - lr * (chi[:, None] * x2).sum(0)
        u = u - lr * gram @ dh1
    return found


GRAM = np.array([[2.0, 0.5, -0.3], [0.5, 1.0, 0.2], [-0.3, 0.2, 1.5]])
TARGETS = np.array([1.0, -1.0, 0.5])


def drawn(n, seed):
    rng = np.random.default_rng(seed)
    w = rng.standard_normal((2 * n, n)) * np.sqrt(2 / n)
    return w, np.linalg.cholesky(GRAM) @ rng.standard_normal((3, n)), rng.standard_normal(2 * n)


@pytest.mark.parametrize(
    ("n", "wd", "mu"), [(12, 0.0, 0.0), (12, 0.125, 0.0), (12, 0.125, 0.5), (128, 0.0, 0.75), (128, 0.125, 0.5)]
)
def test_twenty_steps_of_sgd_are_those_of_numpy(n, wd, mu):
    """Wide enough, the pairs of vectors of the weights and of their momentum stay pairs all the way."""
    w, u, v = drawn(n, 1)
    runs = tp.run(sgd(20, wd=wd, mu=mu), n=n, parameters={"W": w, "u": u, "v": v})
    wanted = sgd_numpy(20, w, u, v, GRAM, TARGETS, wd=wd, mu=mu)
    for t in range(20):
        assert np.abs(runs[f"f{t}"][0] - wanted[t]).max() <= 1e-12, t


def test_a_step_of_training_costs_what_the_one_before_did():
    for build in (sgd, adam):
        counts = [len(build(t).nodes) for t in (3, 4, 5, 6, 7)]
        assert not np.any(np.diff(counts, 2)), build
        code = [len(compiled(build(t))) for t in (3, 4, 5, 6, 7)]
        assert not np.any(np.diff(code, 2)), build
        plain = [len(written_out(build(t)).nodes) for t in (3, 4, 5, 6, 7)]
        assert not np.any(np.diff(plain, 2)), build


def adam(steps, eps=0.5, lr=0.25, b1=0.75, b2=0.5):
    """A linear first layer u, W trained by Adam with bias correction on one example, v fixed; f = v.tanh(W u)/m."""
    u, v, w = tp.Vector("u", N), tp.Vector("v", M), W
    m = s = None
    outputs = {}
    for t in range(1, steps + 1):
        h = w @ u
        x = tp.tanh(h)
        f = tp.moment(v * x)
        outputs[f"f{t}"] = f
        g = tp.matrix(lambda d, x: d * x, (f - 1) * v * (1 - x**2), u)
        m = (1 - b1) * g if m is None else b1 * m + (1 - b1) * g
        s = (1 - b2) * g**2 if s is None else b2 * s + (1 - b2) * g**2
        w = w - lr / (1 - b1**t) * m / (tp.sqrt(s / (1 - b2**t)) + eps)
    outputs["end"] = tp.moment((w @ u) * v)
    outputs["back"] = tp.moment((w.T @ v) * u)
    return tp.Program(outputs)


def adam_numpy(steps, w, u, v, eps=0.5, lr=0.25, b1=0.75, b2=0.5):
    rows, n = w.shape
    m, s = np.zeros_like(w), np.zeros_like(w)
    found = []
    for t in range(1, steps + 1):
        x = np.tanh(w @ u)
        f = v @ x / rows
        found.append(f)
        g = np.outer((f - 1) * v * (1 - x**2), u)
        m = b1 * m + (1 - b1) * g
        s = b2 * s + (1 - b2) * g**2
        w = w - lr / (1 - b1**t) * m / (np.sqrt(s / (1 - b2**t)) + eps) / n
    return [*found, v @ w @ u / rows, v @ w @ u / n]


def test_five_steps_of_adam_are_those_of_numpy():
    w, u, v = drawn(12, 2)
    u = u[0]
    runs = tp.run(adam(5), n=12, parameters={"W": w, "u": u, "v": v})
    for got, wanted in zip(runs.values(), adam_numpy(5, w, u, v), strict=True):
        assert abs(got[0] - wanted) <= 1e-12


def test_the_values_of_matrices_are_small():
    """Vectors stay vectors; an array over rows and columns is made where values do not separate, one a step."""
    sizes = {}
    for build in (sgd, adam):
        code = compiled(build(6))
        sizes[build] = code.peak_entries(lambda w: round(10**4 * w.ratio), "lazy")
    assert sizes[sgd] < 10**4 * 400 and sizes[adam] < 8 * 2 * 10**8
    with pytest.raises(tp.TensorProgramError, match="GB"):
        tp.run(adam(3), n=10**6, weights="lazy")


def test_pairs_of_vectors_that_depend_on_each_other_are_dropped(monkeypatch):
    """Sixty steps on one example move the weights along few directions."""
    ranks = []
    settled = MatrixValue.settled
    monkeypatch.setattr(MatrixValue, "settled", lambda self: ranks.append(settled(self).rank) or settled(self))
    tp.run(sgd(60, batch=1), n=100, weights="lazy")
    assert len(ranks) > 60 and max(ranks) < 40


def apart(a, b):
    """The largest deviation of the means of two sets of runs, in standard errors."""
    scores = []
    for name in a:
        gap = a[name].mean(0) - b[name].mean(0)
        error = np.hypot(*[np.std(x[name], axis=0, ddof=1) / len(x[name]) ** 0.5 for x in (a, b)])
        scores.append(np.max(np.abs(gap) / (error + 1e-12)))
    return max(scores)


def test_three_spaces_train_alike():
    """Means over 16 runs and 8 populations, six standard errors: less than 0.001 for right code, all outputs together."""
    p = sgd(4)
    limit = population(p, 512, replicates=8)
    assert apart(tp.run(p, n=2048, seeds=16, weights="lazy"), limit) < 6
    assert apart(tp.run(p, n=256, seeds=64, weights="dense"), limit) < 6
    free = population(p, 512, replicates=8, gia=True)
    assert apart(free, limit) > 6  # without the copies: features are learned


def test_adam_at_finite_width_tends_to_the_population():
    p = adam(5)
    assert apart(tp.run(p, n=128, seeds=32, weights="dense"), population(p, 128, replicates=8)) < 6


def linear(steps, lr):
    """A linear network with two hidden layers in muP, trained on xi = 1, y = 1."""
    u, v, w = tp.Vector("u", N), tp.Vector("v", N), S
    outputs = {}
    for t in range(steps + 1):
        h = w @ u
        f = outputs[f"f{t}"] = tp.moment(v * h)
        dh = (f - 1) * v
        u, w, v = u - lr * (w.T @ dh), w - lr * outer_product(dh, u), v - lr * (f - 1) * h
    return tp.Program(outputs)


@pytest.mark.parametrize(
    ("gia", "golden"),
    [(False, [0, 0.75, 0.997086, 1.000460, 0.999926]), (True, [0, 0.5, 0.822510, 0.973350, 0.998746])],
)
def test_known_traces_of_linear_networks(gia, golden):
    """Rational numbers, against those of an independent solver of muP linear networks, to its six digits."""
    found = tp.limit(linear(4, Fraction(1, 4)), gia=gia, method="exact")
    assert all(e.kind == "exact" for e in found.values())
    assert np.abs([float(e.value) for e in found.values()] - np.array(golden)).max() < 6e-7
    sampled = population(linear(4, 0.25), 64, replicates=2, gia=gia)
    assert np.abs([sampled[k].mean() for k in sampled] - np.array(golden)).max() < 6e-7


def test_a_long_trace_asks_as_many_questions_as_pairs_of_steps():
    asked = []
    for steps in (6, 12):
        lowering = Lowering(written_out(linear(steps, 0.25)), {})
        assert not lowering.declined
        asked.append(lowering.expectation.budget.expansions)
    assert asked[1] < 4 * asked[0]
