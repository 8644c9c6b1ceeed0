"""Independent columns of different variances: as with a diagonal covariance matrix, without the matrix."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

import tensorprog as tp

n = tp.Width("n")
VAR = np.array([[1, 2], [0, 5], [4, 3]])
MEAN = np.array([[0, 1], [1, 0], [0, 0]])
W = tp.Matrix("W", n, n)
T_WEIGHTS, BOTH = tp.array([1, -2, 3], "t"), tp.array([[1, 2], [3, 4], [5, 6]], ("t", "s"))


def diagonal(shape, var):
    return np.diag(np.ravel(var)).reshape(*shape, *shape)


def pairs(x):
    """What is seen of the covariances: each pair, diagonals, sums over one axis and both, weights, picks."""
    y = tp.rename(x, t="i", s="j")
    part = tp.sum(x * T_WEIGHTS, "t")
    picked = tp.pick(x, "t", [2, 0])
    return tp.Program(
        all=tp.moment(x * y),
        own=tp.moment(x * x),
        sum=tp.moment(tp.sum(x) ** 2),
        over_t=tp.moment(tp.sum(x, "t") ** 2),
        weighted=tp.moment(part * tp.rename(part, s="j")),
        weighted_both=tp.moment(tp.sum(x * BOTH) * tp.sum(x, "t")),
        with_one=tp.moment(tp.sum(x * BOTH) * x),
        with_a_column=tp.moment(tp.sum(x * BOTH, "t") * tp.take(tp.take(x, "t", 2), "s", 1)),
        picked=tp.moment(tp.sum(picked * tp.array([2, 5], "t")) * x),
        picked_twice=tp.moment(tp.sum(tp.pick(x, "t", [0, 0, 1]), "t") * picked),
        unseen=tp.moment(tp.sum(picked) * tp.take(x, "t", 1)),
        matrix=tp.moment(tp.tanh(W @ x) * tp.erf(W @ y)),
        function=tp.moment(tp.relu(x) * tp.relu(y)),
    )


@pytest.mark.parametrize(
    "var", [VAR, Fraction(1, 3), *[pytest.param(var, marks=pytest.mark.slow) for var in (VAR / 7, 3)]]
)
def test_limits(var):
    full = np.broadcast_to(np.asarray(var, dtype=float if not isinstance(var, np.ndarray) else None), (3, 2))
    x = tp.Vector("x", n, MEAN, var, axes={"t": 3, "s": 2})
    y = tp.Vector("x", n, MEAN, axes=("t", "s"), cov=diagonal((3, 2), full))
    a, b = tp.limit(pairs(x)), tp.limit(pairs(y))
    for k in a:
        np.testing.assert_allclose(np.asarray(a[k].value, float), np.asarray(b[k].value, float), rtol=1e-13, atol=1e-14)
    assert a["sum"].kind == "exact" or var is not VAR
    program = pairs(x)
    assert tp.parse(str(program)) == program


def test_columns_of_large_axes():
    """Of a hundred thousand columns nothing as large as their pairs, 80 GB, is made."""
    v = np.linspace(0, 2, 10**5)
    for var, total in ((v, v.sum()), (2, 2 * 10**5)):
        x = tp.Vector("x", n, axes={"t": 10**5}, var=var)
        found = tp.limit(
            tp.Program(s=tp.moment(tp.sum(x, "t") ** 2), q=tp.moment(x * x), m=tp.moment(tp.mean(x, "t") * x))
        )
        np.testing.assert_allclose(float(found["s"].value), total, rtol=1e-12)
        np.testing.assert_allclose(np.asarray(found["q"].value, float), np.broadcast_to(var, v.shape))
        np.testing.assert_allclose(
            np.asarray(found["m"].value, float), np.broadcast_to(var, v.shape) / 10**5, rtol=1e-12
        )


@pytest.mark.parametrize("law", [None, "rademacher", "uniform"])
def test_runs_and_populations(law, tmp_path):
    """Means of 10^5 squares within 6 standard errors, for each of 6 columns: failure probability 1e-7."""
    var = np.arange(6) * 0.5
    x = tp.Vector("x", n, axes=("t",), var=var, distribution=law)
    program = tp.Program(q=tp.moment(x * x), e=tp.moment(tp.relu(x)))
    exact = tp.limit(program)
    np.testing.assert_allclose(np.asarray(exact["q"].value, float), var, rtol=1e-14)
    spread = 6 * np.sqrt(2 / 10**5) * var
    assert (np.abs(tp.run(program, n=10**5, seeds=[0])["q"][0] - var) <= spread).all()
    sampled = tp.limit(program, method="population", rng=0)
    for k in ("q", "e"):
        assert np.all(np.abs(np.asarray(sampled[k].value - exact[k].value, float)) <= 6 * sampled[k].error + 1e-15)
    tp.save(program, tmp_path / "p.tp")
    assert tp.load(tmp_path / "p.tp") == program


@pytest.mark.parametrize("scheme", ["ntk", "tp"])
@pytest.mark.parametrize("per", [True, False])
def test_trained(scheme, per):
    """In "ntk" var Moment(dv dv'), column by column; in "tp" the coordinates are trained."""
    x, X = tp.Input("x", axes=("t",)), np.random.default_rng(0).normal(size=(2, 3, 2))

    def net(**law):
        h = tp.erf(tp.dense("U", x, n) + tp.Vector("g", n, axes=("t",), trainable=True, **law))
        return tp.Network(tp.readout("v", h, per="t") if per else tp.readout("v", tp.mean(h, "t")))

    one, other = net(var=[1.0, 2.0, 0.5]), net(cov=np.diag([1.0, 2.0, 0.5]))
    for of in ("ntk", "ntk_g", "nngp"):
        a, b = tp.kernel_fn(one, scheme)(X, get=of), tp.kernel_fn(other, scheme)(X, get=of)
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(
    ("law", "words"),
    [
        ({"var": [1, -1]}, "variance -1"),
        ({"var": [1, 2, 3], "axes": {"t": 2}}, "shape"),
        ({"var": [1, np.nan]}, "not finite"),
        ({"var": [1, 2], "axes": ()}, "shape"),
        ({"var": [1, 2], "cov": np.eye(2)}, "both var and cov"),
    ],
)
def test_what_is_refused(law, words):
    with pytest.raises(tp.TensorProgramError, match=words):
        tp.Vector("x", n, **{"axes": ("t",), **law})
    with pytest.raises(tp.TensorProgramError):
        tp.parse("width n\nvector x[i:2] : n, data [[1, 2], [3, 4]], var [1, 2]\noutput q = Moment(x[0])")
