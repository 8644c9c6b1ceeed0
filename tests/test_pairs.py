"""Limits of batches by those of one pair of examples: the same numbers as entry by entry, and declined where examples meet."""

import numpy as np
import pytest

import tensorprog as tp
from tensorprog.language import algebra
from tensorprog.language.data import ArrayData, Embedding
from tensorprog.language.expression import Expression
from tensorprog.limits.budget import Budget
from tensorprog.limits.pairs import estimates
from tensorprog.limits.pairs.apart import pair_of

N = tp.Width("n")
RNG = np.random.default_rng(0)


def dense(phi=tp.relu, outputs=1):
    h = phi(tp.dense("W", phi(tp.dense("U", tp.Input("x"), N, b_std=0.1)), N))
    found = [tp.readout(f"v{k}", h) for k in range(outputs)]
    return tp.Network(found[0] if outputs == 1 else found)


def image(flat):
    h = tp.relu(tp.conv("b", tp.relu(tp.conv("a", tp.Input("x", axes=("h", "w")), N)), N))
    return tp.Network(tp.readout("v", h, over=("h", "w")) if flat else tp.readout("v", tp.global_avg_pool(h)))


CASES = {
    "relu": (dense(), (190, 3), None),
    "relu, two batches": (dense(), (200, 3), 180),
    "tanh": (dense(tp.tanh), (190, 3), None),
    "two outputs": (dense(outputs=2), (190, 3), 185),
    "flattened": (image(flat=True), (22, 3, 3, 2), None),
    "pooled": (image(flat=False), (22, 3, 3, 2), 21),
}
SLOW = ("tanh", "flattened", "pooled")
FEW = 3


def by_pairs(program):
    return estimates.estimates_by_pairs(program, {}, Budget(), 1e-10)


@pytest.mark.parametrize("case", [pytest.param(c, marks=[pytest.mark.slow] * (c in SLOW)) for c in CASES])
def test_one_pair_says_what_all_entries_do(case):
    """Few examples are computed entry by entry, many pair by pair."""
    net, shape, second = CASES[case]
    X, Y = RNG.standard_normal(shape), second and RNG.standard_normal((second, *shape[1:]))
    found = by_pairs(net.program(X, Y, of=("nngp", "ntk")))
    few = net.program(X[:FEW], None if second is None else Y[:FEW], of=("nngp", "ntk"))
    assert not by_pairs(few)
    for name, want in tp.limit(few).items():
        value, error = found[name].value, found[name].error
        assert np.all(np.abs(value[:FEW, :FEW] - want.value) <= error[:FEW, :FEW] + want.error)
        assert np.all(error <= 1e-10 * np.abs(value).max()) and error.shape == value.shape


def test_masks_are_data_of_an_example():
    x, mask = tp.Input("x", axes=("t",)), tp.Input("m", axes=("t",), features=False)
    net = tp.Network(tp.readout("v", tp.mean(mask * tp.relu(tp.dense("U", x, N)), "t")))
    given = {"x": RNG.standard_normal((190, 2, 3)), "m": RNG.integers(0, 3, (190, 2)).astype(float)}
    program = net.program(given, of="nngp")
    found = by_pairs(program)
    np.testing.assert_allclose(found["nngp"].value, tp.kernel_fn(net)(given, get="nngp"), rtol=1e-13)


@pytest.mark.parametrize("phi", [tp.relu, pytest.param(tp.tanh, marks=pytest.mark.slow)])
def test_covariances_that_are_given(phi):
    g = RNG.standard_normal((190, 5))

    def program(count):
        h = tp.Vector("x", N, axes=("b",), cov=g[:count] @ g[:count].T)
        for k in range(2):
            h = tp.Matrix(f"W{k}", N, N) @ phi(h)
        return tp.Program(q=tp.moment(phi(h) * phi(tp.rename(h, b="c"))))

    found, want = by_pairs(program(190))["q"], tp.limit(program(FEW))["q"]
    assert np.all(np.abs(found.value[:FEW, :FEW] - want.value) <= found.error[:FEW, :FEW] + want.error)
    assert np.all(found.error <= 1e-10 * np.abs(found.value).max())


def test_examples_that_meet_are_left_together():
    X = RNG.standard_normal((190, 2))
    h = tp.dense("U", tp.Input("x"), N)
    mixing = tp.Network(tp.readout("v", tp.relu(h - tp.mean(h, "example"))))
    assert pair_of(mixing.program(X, of="nngp")) is None
    z = tp.Vector("z", N, axes="b", cov=np.eye(190))
    assert pair_of(tp.Program(q=tp.moment(z**2))) is None
    z = tp.relu(z - tp.mean(z, "b"))
    assert pair_of(tp.Program(q=tp.moment(z * tp.rename(z, b="c")))) is None


def test_what_is_not_symmetric_is_no_kernel():
    X = RNG.standard_normal((190, 3))
    h = Expression(algebra.initial(Embedding.of("U", N, 1, ArrayData(X))), ("b",))
    other = tp.rename(h, b="c")
    for phi, answered in ((tp.relu, True), (tp.step, False)):
        program = tp.Program(q=tp.moment(tp.relu(h) * phi(other)))
        assert pair_of(program) is not None
        assert bool(by_pairs(program)) == answered


def test_equal_programs_are_compiled_once(monkeypatch):
    asked = []
    compiled = estimates.Compiled._compiled
    monkeypatch.setattr(estimates.Compiled, "_compiled", lambda *a: asked.append(1) or compiled(*a))
    net = tp.Network(tp.readout("v", tp.erf(tp.dense("once", tp.Input("x"), N))))
    for _ in range(2):
        tp.limit(net.program(RNG.standard_normal((190, 3)), of="nngp"))
    assert len(asked) == 2  # of a pair, and of an example with itself


@pytest.mark.parametrize("second", [None, 2])
def test_inner_products_of_few_examples_are_found_in_constants(second):
    """They are folded into one array, which is seen to be those of the data: here with positions."""
    h = tp.relu(tp.dense("U", tp.Input("x", axes=("t",)), N, W_std=1.5, b_std=0.1))
    net = tp.Network(tp.readout("v", tp.mean(h, "t")))
    X, Y = RNG.standard_normal((3, 2, 4)), second and RNG.standard_normal((second, 2, 4))
    found = estimates.estimates_by_pairs(net.program(X, Y, of=("nngp", "ntk")), {}, Budget(), 1e-10, least=0)
    for name, want in tp.limit(net.program(X, Y, of=("nngp", "ntk"))).items():
        assert np.all(np.abs(found[name].value - want.value) <= found[name].error + want.error)
    K = Expression(algebra.constant(RNG.standard_normal((3, 3))), ("b", "c"))
    z = Expression(algebra.initial(Embedding.of("U", N, 1, ArrayData(X[:, 0]))), ("b",))
    assert pair_of(tp.Program(q=K * tp.moment(tp.relu(z) * tp.relu(tp.rename(z, b="c"))))) is None


@pytest.mark.slow
def test_what_is_too_dear_entry_by_entry_is_not_sampled():
    """silu of what is large is relu, whose tangent kernel has a closed form."""
    X = np.random.default_rng(0).standard_normal((2, 3)) * 1e6
    found, right = [tp.limit(dense(phi).program(X, of="ntk"))["ntk"] for phi in (tp.silu, tp.relu)]
    assert found.method == "quadrature"
    np.testing.assert_allclose(found.value, right.value, rtol=1e-5)


def test_kernels_come_in_the_order_in_which_they_are_asked_for():
    """Programs with the same outputs in another order are equal, and what is compiled for one is remembered."""
    f, X, Z = tp.kernel_fn(dense(tp.erf)), RNG.standard_normal((3, 2)), RNG.standard_normal((2, 2))
    for second in (None, Z):
        first, other = f(X, second, get=("nngp", "ntk")), f(X, second, get=("ntk", "nngp"))
        assert (first.ntk == other.ntk).all() and (first.nngp == other.nngp).all() and (first.ntk != first.nngp).all()
