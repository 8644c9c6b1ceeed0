"""Gradient independence of networks: where it is right, where not, and what the report says."""

import copy
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorprog as tp
from tensorprog.language import algebra
from tensorprog.transforms.decouple import program_for
from tensorprog.transforms.rewrite import rewrite

HERE = Path(__file__).name
N = tp.Width("n")
X = np.array([[1.0, 1.0], [0.5, -1.0]])
W = tp.Matrix("W", N, N, var=1)
V = tp.Vector("v", N)


def hidden(name: str = "U") -> Any:
    return tp.dense(name, tp.Input("x"), N)


def average() -> tp.Network:
    """Tensor Programs II's counterexample: x = W1 xi + 1, f the mean of (W2 x)^2."""
    h = tp.Matrix("W2", N, N) @ (hidden("W1") + tp.Vector("one", N, mean=1, var=0))
    return tp.Network(tp.moment(h * h))


def tied() -> tp.Network:
    return tp.Network(tp.readout("v", W.T @ tp.tanh(W @ hidden())))


def branches() -> tp.Network:
    return tp.Network(tp.readout("v", tp.tanh(W @ hidden()) + tp.tanh(W.T @ hidden("U2"))))


# ---- the four architectures ----


def test_an_average_readout() -> None:
    """The W1 part is 8 s (1 + s), under GIA 4 s (1 + s), s = |xi|^2 / d; the W2 part 4 (1 + s)^2 in both."""
    s = (X**2).sum(1) / 2
    parts = ("ntk_W1", "ntk_W2")
    true, free = (tp.limit(average(), X, of=parts, gia=gia) for gia in (False, True))
    np.testing.assert_allclose(np.diag(true["ntk_W1"].value), 8 * s * (1 + s), rtol=1e-12)
    np.testing.assert_allclose(np.diag(free["ntk_W1"].value), 4 * s * (1 + s), rtol=1e-12)
    for found in (true, free):
        np.testing.assert_allclose(np.diag(found["ntk_W2"].value), 4 * (1 + s) ** 2, rtol=1e-12)
    report = tp.check_gia(average(), X, of=parts)
    assert (report.simple, report.bp_like, report.holds) == (False, False, False)
    assert {k: v.agrees for k, v in report.outputs.items()} == {"ntk_W1": False, "ntk_W2": True}
    assert "no readout vector" in str(report) and "one has mean 1" in str(report) and HERE in str(report)
    runs = tp.run(average(), X, n=10**5, seeds=[1], of=parts)["ntk_W1"][0]
    np.testing.assert_allclose(np.diag(runs), 8 * s * (1 + s), rtol=0.1)  # 8 standard deviations or more


INSIDE = [  # the report quotes these lines
    pytest.param(lambda h: W @ tp.erf(h), id="W inside", marks=pytest.mark.slow),
    pytest.param(lambda h: W.T @ tp.erf(h), id="W.T inside"),
]


@pytest.mark.parametrize("inside", INSIDE)
def test_a_readout_vector_that_is_used_inside(inside: Any) -> None:
    h = inside(hidden())
    reused = h + V
    report = tp.check_gia(tp.Network(tp.readout(V, tp.erf(reused))), X)
    assert (report.simple, report.bp_like, report.holds) == (False, False, False)
    first = report.offenders[0]
    assert first.checks == ("simple",) and first.source is not None
    assert first.source.text == "reused = h + V" and f"{HERE}:{first.source.line}" in str(report)
    assert "v is used inside the network" in first.reason
    assert first.number is not None and first.message.startswith(f"instr {first.number}: ")
    second = report.offenders[1]  # the product of the backward pass, at the line of the forward one
    assert second.checks == ("bp_like",) and second.source is not None and "inside" in second.source.text
    assert "neither odd nor even" in second.reason


def test_a_tied_autoencoder() -> None:
    report = tp.check_gia(tied(), X)
    assert (report.simple, report.bp_like, report.holds) == (False, False, False)
    (offender,) = report.offenders
    assert "W.T here and W at instr" in offender.reason and offender.checks == ("simple", "bp_like")
    assert "a copy for W and another for W.T" in str(report)
    true, free = (tp.limit(tied(), X, of="ntk_U", gia=gia)["ntk_U"].value for gia in (False, True))
    runs = tp.run(tied(), X, n=10**5, seeds=4, of="ntk_U")["ntk_U"].mean(0)
    assert np.abs(runs - true).max() < 0.02 * np.abs(true).max() < 0.4 * np.abs(true - free).max()


def test_sharing_where_independence_happens_to_be_right() -> None:
    report = tp.check_gia(branches(), X)
    assert (report.simple, report.bp_like, report.holds) == (False, False, True)
    assert "sufficient, not necessary" in str(report)


@pytest.mark.parametrize("make", [tied, branches])
def test_one_copy_for_both_directions_is_right_with_a_centred_readout(make: Any) -> None:
    """What the note says: the assumption with one copy is another one."""
    p = make().program(X, of="ntk")

    def rule(x: Any, args: Any) -> Any:
        if x.op == "matmul" and x.attr[0].name == "W_T~":
            return algebra.matmul(x.attr[0].renamed("W~"), x.attr[1], args[0])
        return algebra.rebuild(x, args)

    shared = rewrite(program_for(p, True), rule)
    assert [m.name for m in shared.matrices] == ["W", "W~"]
    np.testing.assert_allclose(tp.limit(shared)["ntk"].value, tp.limit(p)["ntk"].value, rtol=1e-9)


# ---- networks that pass ----


def test_networks_that_pass() -> None:
    deep = W @ tp.tanh(hidden())
    for net in (
        tp.Network(tp.readout("v", tp.tanh(deep))),
        tp.Network(tp.readout("v", tp.tanh(W.T @ tp.tanh(hidden())))),  # a matrix used as W.T alone
        tp.Network([tp.readout("v", tp.tanh(deep)), tp.readout("w", tp.tanh(deep))]),
        tp.Network(tp.readout("v", hidden())),  # no matrix at all
    ):
        report = tp.check_gia(net, X[:1])
        assert report.simple and report.bp_like and report.holds and not report.offenders


def test_bp_like_where_simple_fails() -> None:
    """An average over v tanh(h): linear in a vector of zero mean that is no readout vector."""
    report = tp.check_gia(tp.Network(tp.moment(V * tp.tanh(W @ tp.tanh(hidden())))), X)
    assert (report.simple, report.bp_like, report.holds) == (False, True, True)
    assert report.readouts == ("v",)


def test_a_readout_with_a_mean() -> None:
    v = tp.Vector("v", N, mean=1)
    report = tp.check_gia(tp.Network(tp.readout(v, tp.tanh(W @ hidden() + 1))), X)
    assert (report.simple, report.bp_like, report.holds) == (False, False, False)
    assert report.offenders[0].reason == "the readout vector v has mean 1"


def test_without_data() -> None:
    report = tp.check_gia(tp.Network(tp.readout("v", tp.erf(W @ hidden()))))
    assert report.simple and report.holds and "generic input" in str(report)
    json = report.to_json()
    assert json["outputs"]["ntk"]["agrees"] is True and json["simple"] is True


def test_sequences_of_different_lengths() -> None:
    x = tp.Input("x", axes=("t",))

    @tp.layer
    def recurrent(u: Any) -> Any:
        s = tp.tanh(tp.take(u, "t", 0))
        for t in range(1, u.shape[u.axes.index("t")]):
            s = tp.tanh(W @ s + tp.take(u, "t", t))
        return s

    net = tp.Network(tp.readout(V, recurrent(tp.dense("U", x, N)) + V))
    report = tp.check_gia(net, [np.ones((1, 2)), np.ones((2, 2))])
    assert report.simple is False and len([o for o in report.offenders if "simple" in o.checks]) == 1


def test_runs_beside_the_report() -> None:
    report = tp.check_gia(tied(), X, widths=[128, 256, 512], seeds=16)
    assert report.finite is not None and report.finite.agrees is False  # against GIA's answer, off by half


def test_what_is_refused() -> None:
    with pytest.raises(tp.TensorProgramError, match="check_gia of a network is given gia="):
        tp.check_gia(tied(), X, gia=True)
    other = tp.Matrix("W_T", N, N)
    with pytest.raises(tp.TensorProgramError, match="W_T have one name"):
        tp.check_gia(tp.Network(tp.readout("v", tp.tanh(W.T @ tp.tanh(other @ hidden())))), X)
    with pytest.raises(tp.TensorProgramError, match="check_gia of int"):
        tp.check_gia(3)  # type: ignore[arg-type]
    with pytest.raises(tp.TensorProgramError, match="of a Program is given X="):
        tp.check_gia(tied().program(X), X=X)


# ---- the program that gia=True means ----


def test_gia_of_a_networks_program_is_the_networks() -> None:
    p = tied().program(X, of="ntk")
    free = tied().program(X, of="ntk", gia=True)
    assert [m.name for m in free.matrices] == ["W", "W_T~", "W~"]
    assert program_for(p, True) == free and program_for(free, True) is free
    assert any(x.op == "matmul" and x.attr == (W, True, "forward") for x in free.nodes), "a forward W.T stays"


def through_a_file(p: tp.Program, folder: Path) -> tp.Program:
    tp.save(p, folder / "p.tp")
    return tp.load(folder / "p.tp")


WAYS = {
    "pickle": lambda p, _: pickle.loads(pickle.dumps(p)),
    "deepcopy": lambda p, _: copy.deepcopy(p),
    "text": lambda p, _: tp.parse(str(p), arrays=p.arrays),
    "file": through_a_file,
    "outputs": lambda p, _: tp.Program(p.outputs),
    "rewritten": lambda p, _: rewrite(p, algebra.rebuild),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("make", [tied, branches, average])
def test_what_gia_means_is_content(make: Any, way: str, tmp_path: Path) -> None:
    p = make().program(X, of="ntk")
    q = WAYS[way](p, tmp_path)
    assert q == p and hash(q) == hash(p) and str(q) == str(p)
    assert program_for(q, True) == program_for(p, True)
    free = WAYS[way](program_for(p, True), tmp_path)
    assert program_for(free, True) == free == make().program(X, of="ntk", gia=True)
    if way == "file":
        one, two = (tp.limit(r, gia=True)["ntk"].value for r in (p, q))
        assert np.array_equal(one, two)
        assert (np.abs(one - tp.limit(p)["ntk"].value).max() > 1e-6) == (make is not branches)
        one, two = (tp.check_gia(r) for r in (p, q))
        assert one.to_json() | {"offenders": []} == two.to_json() | {"offenders": []}


def test_a_forward_pass_without_gradients_has_nothing_to_replace() -> None:
    """Its W.T are the forward pass's, though no product of a backward pass is in sight."""
    p = tied().program(X, of="nngp")
    assert program_for(p, True) == p and program_for(tp.parse(str(p), arrays=p.arrays), True) == p


def test_networks_that_use_no_transpose_have_no_marks() -> None:
    text = str(average().program(X))
    assert "MatMul(W2.T" in text and "backward" not in text and "forward" not in text
    text = str(tied().program(X))
    assert "MatMul(W.T, x" in text and ", forward)" in text and ", backward)" in text


def test_kernel_fn_under_gia_is_the_limit_under_gia() -> None:
    for make in (tied, branches):
        kernel = tp.kernel_fn(make(), gia=True)(X, get="ntk")
        np.testing.assert_allclose(kernel, tp.limit(make(), X, gia=True, of="ntk")["ntk"].value, rtol=1e-6)


def test_the_forward_pass_stays_under_gia() -> None:
    a, b = (tp.run(tied(), X, n=50, seeds=2, of=("f", "nngp"), gia=gia) for gia in (False, True))
    assert np.array_equal(a["f"], b["f"]) and np.array_equal(a["nngp"], b["nngp"])


def test_sweeps_run_the_right_program(tmp_path: Path) -> None:
    widths = {"widths": [16, 32], "seeds": 4, "of": "ntk"}
    here = tp.compare(tied(), X, gia=True, **widths)
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        there = tp.compare(tied(), X, gia=True, executor=pool, resume=tmp_path, **widths)
    assert np.array_equal(here.outputs["ntk"].samples, there.outputs["ntk"].samples)
    coupled = tp.compare(tied(), X, resume=tmp_path, **widths)  # another sweep in the same folder
    assert not np.array_equal(here.outputs["ntk"].samples, coupled.outputs["ntk"].samples)
    free = tied().program(X, of="ntk", gia=True)
    direct = tp.run(free, 16, 4)["ntk"]
    np.testing.assert_array_equal(direct, here.outputs["ntk"].samples[0])
