"""The networks of programs/: their kernels are the equations of their docstrings, and finite networks agree with them.

Statistical checks: `compare` with the seeds 0..k-1, so nothing is flaky; each comparison of a right limit would fail for
at most a share 1e-3 of the seeds one might have chosen. The controls compare with GIA's answer where it is wrong.
"""

from __future__ import annotations

import ast
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorprog as tp
from tensorprog.cli import parser
from tensorprog.faces.arguments import spread
from tensorprog.faces.files import Model, load_model

FOLDER = Path(__file__).resolve().parent.parent / "programs"
NETWORKS = sorted(path.stem for path in FOLDER.glob("*.py") if "\ndef data(" in path.read_text(encoding="utf-8"))
PAGE = FOLDER.parent / "docs" / "programs.md"

SMALL: dict[str, dict[str, Any]] = {  # sizes at which the tests take seconds
    "batch_norm": {"batch": 4, "both": False},
    "bidirectional_rnn": {"steps": 2},
    "cnn": {"images": 1, "size": 2},
    "gated_product": {"gate": "relu"},
    "gated_cell": {"sequences": 1},
    "gru": {"sequences": 1},
    "lstm": {"sequences": 1},
    "rnn": {"lengths": (3, 2)},
}
SLOW = {"batch_norm", "gated_cell", "gru", "lstm"}  # integrals

YES, NO = (True, True, True), (False, False, False)
GIA = [  # name, parameters, check_gia: simple, bp_like, holds
    *[(name, SMALL.get(name, {}), YES) for name in (
        "batch_norm", "bidirectional_rnn", "causal_attention", "cnn", "cross_attention", "densenet",
        "gated_cell", "gated_product", "graph_convolution", "gru", "layer_norm", "lstm", "maxout", "mlp", "narrow_layer",
        "residual", "rnn", "self_attention", "several_outputs", "transformer",
    )],
    ("average_readout", {}, NO),
    ("reused_readout", {}, NO),
    ("autoencoder", {}, NO),
    ("transposed_weights", {}, NO),
    ("transposed_weights", {"arrangement": "parallel"}, (False, False, True)),
    ("reused_readout", {"reuse": False}, YES),
]  # fmt: skip
VARIANTS = [
    ("autoencoder", {"tied": False}, NO),
    ("cnn", {"head": "flatten", **SMALL["cnn"]}, YES),
    ("gated_product", {"gate": "sigmoid"}, YES),
    ("residual", {"order": "post", "depth": 1}, YES),
    ("rnn", {"head": "last", **SMALL["rnn"]}, YES),
    ("self_attention", {"tied": False}, YES),
    ("several_outputs", {"shared": True}, YES),
]
CASES = [
    pytest.param(name, given, checks, id="-".join([name, *map(str, given.values())]), marks=[pytest.mark.slow] * slow)
    for cases, variant in ((GIA, False), (VARIANTS, True))
    for name, given, checks in cases
    for slow in (variant or name in SLOW,)
]

FEW = {"average_readout", "layer_norm", "mlp", "residual", "reused_readout", "self_attention", "several_outputs"}
"""Networks of each kind whose finite widths are compared by default; `.ci/run` compares those of every file."""
FINITE = [
    pytest.param(*case.values, id=case.id, marks=[pytest.mark.slow] * bool(case.marks or case.values[0] not in FEW))
    for case in CASES
]


def model(name: str, **parameters: Any) -> Model:
    return load_model(str(FOLDER / f"{name}.py"), parameters)


def kernels(name: str, **parameters: Any) -> Any:
    m = model(name, **parameters)
    return tp.kernel_fn(m.what)(m.X, m.X2, get=("nngp", "ntk"))


def docstring(name: str) -> str:
    return ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))) or ""


def table(networks: bool) -> str:
    """A table of docs/programs.md, from the docstrings."""
    lines = ["| program | what | simple | BP-like | GIA holds |", "|---|---|---|---|---|"]
    for path in sorted(FOLDER.glob("*.py")):
        text = docstring(path.stem)
        if (
            path.stem in NETWORKS
        ) != networks or "check_gia: " not in text:  # runs of training: test_training_programs.py
            continue
        first = text.split("\n")[0].removesuffix(".")
        verdicts = text.split("check_gia: ")[1].replace(",", " ").split()[1:6:2]
        words = " | ".join({"True": "yes", "False": "no"}[v] for v in verdicts)
        lines.append(f"| `programs/{path.name}` | {first} | {words} |")
    return "\n".join(lines)


# ---- every file ----


def test_every_network_has_a_case() -> None:
    assert {name for name, _, _ in GIA} == set(NETWORKS)


@pytest.mark.parametrize(("name", "parameters", "checks"), CASES)
def test_gradient_independence(name: str, parameters: Any, checks: Any) -> None:
    m = model(name, **parameters)
    report = tp.check_gia(m.what, m.X, X2=m.X2)
    assert (report.simple, report.bp_like, report.holds) == checks
    assert bool(report.offenders) == (not report.simple)
    assert all(f"{name}.py:" in str(o) for o in report.offenders)


@pytest.mark.parametrize(("name", "parameters", "checks"), FINITE)
def test_finite_networks_agree(name: str, parameters: Any, checks: Any) -> None:
    m = model(name, **parameters)
    c = tp.compare(m.what, m.X, X2=m.X2, widths=[32, 64, 128], seeds=8)
    assert c.agrees, c
    found = tp.kernel_fn(m.what)(m.X, m.X2, get=[k for k in c.outputs if k != "f"])
    for k in found._fields:
        limit = c.outputs[k].limit
        assert np.max(np.abs(getattr(found, k) - limit.value)) <= 6 * (np.max(limit.error) + found.error[k]) + 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_deviations_fall_like_the_inverse_root_of_the_width(name: str) -> None:
    m = model(name, **SMALL.get(name, {}))
    c = tp.compare(m.what, m.X, X2=m.X2, widths=[64, 128, 256, 512, 1024], seeds=48)
    assert c.agrees, c
    for output, slope in c.slope.items():
        assert slope is not None and -0.85 < float(slope) < -0.25, (output, slope)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_docstring(name: str) -> None:
    """It has a source, says what check_gia says (which GIA above does), and its commands are commands."""
    text = docstring(name)
    assert "\nSource: " in text
    checks = next(checks for other, _, checks in GIA if other == name)  # the first has the default architecture
    assert "check_gia: simple {}, bp_like {}, holds {} (".format(*checks) in text
    commands = [line.split() for line in text.split("\nRun:\n")[1].split("\n")]
    assert {words[1] for words in commands} >= {"compare"} and {"kernel", "gia"} & {words[1] for words in commands}
    for words in commands:
        args = parser().parse_args(spread(words[1:]))
        assert words[0] == "tensorprog" and args.file == f"programs/{name}.py"
        load_model(str(FOLDER / f"{name}.py"), {}, args.set)


@pytest.mark.parametrize("name", NETWORKS)
def test_text_round_trip(name: str) -> None:
    p = model(name, **SMALL.get(name, {})).program(of="ntk")
    assert tp.parse(str(p), arrays=p.arrays) == p


@pytest.mark.parametrize("networks", [True, False])
def test_the_tables_of_programs(networks: bool) -> None:
    if not PAGE.exists():
        pytest.skip("a source distribution without the documentation")
    assert table(networks) in PAGE.read_text(encoding="utf-8"), f"put this into {PAGE.name}:\n{table(networks)}"


# ---- where gradient independence fails ----


@pytest.mark.parametrize(
    ("name", "of", "gap"),
    [
        ("average_readout", "ntk_W1", 0.49),
        ("reused_readout", "ntk_U", 0.05),
        ("autoencoder", "ntk", 0.4),
        ("transposed_weights", "ntk", 0.15),
    ],
)
def test_networks_decide_against_gradient_independence(name: str, of: str, gap: float) -> None:
    m = model(name)
    true, free = (tp.limit(m.what, m.X, of=of, gia=gia)[of] for gia in (False, True))
    scale = np.linalg.norm(true.value)
    assert np.linalg.norm(true.value - free.value) > gap * scale
    runs = tp.run(m.what, m.X, n=20_000, seeds=8, of=of)[of]
    mean, error = runs.mean(0), np.linalg.norm(runs.std(0, ddof=1)) / 8**0.5
    assert np.linalg.norm(mean - true.value) < 5 * error < np.linalg.norm(mean - free.value)


# ---- the equations of the docstrings ----


def arc_cosine(c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """E relu(u) relu(u') and E step(u) step(u') for covariances c."""
    size = np.sqrt(np.outer(np.diag(c), np.diag(c)))
    cosine = np.clip(c / size, -1, 1)
    angle = np.arccos(cosine)
    return size * (np.sin(angle) + cosine * (np.pi - angle)) / (2 * np.pi), (np.pi - angle) / (2 * np.pi)


@pytest.mark.parametrize(("depth", "W_std", "b_std"), [(2, 1, 1), (3, 1.5, 0.1)])
def test_mlp(depth: int, W_std: float, b_std: float) -> None:
    """Jacot's recursion, written out."""
    X = model("mlp").X
    k = kernels("mlp", depth=depth, W_std=W_std, b_std=b_std)
    c = X @ X.T / X.shape[1]
    theta = np.zeros_like(c)
    for _ in range(depth):
        s = W_std**2 * c + b_std**2
        theta = theta + s if not theta.any() else s + W_std**2 * theta
        c, dot = arc_cosine(s)
        theta = theta * dot
    np.testing.assert_allclose(k.nngp, c, rtol=1e-11)
    np.testing.assert_allclose(k.ntk, c + theta, rtol=1e-11)
    if depth == 2:
        np.testing.assert_allclose(np.diag(k.ntk), 3 / 4 * (X**2).mean(1) + 7 / 4, rtol=1e-12)


def test_cnn_flattened_cannot_tell_which_pixels_are_neighbours() -> None:
    """With one layer of 1 x 1 patches by hand: the flattened kernel is the mean over pixels of that of the patches."""
    m = model("cnn", head="flatten", depth=1, size=4)
    padded = np.pad(m.X[..., 0], ((0, 0), (1, 1), (1, 1)))
    total = 0
    for i in range(4):
        for j in range(4):
            patch = padded[:, i : i + 3, j : j + 3].reshape(len(padded), 9)
            total = total + arc_cosine(2 * patch @ patch.T / 9 + 0.01)[0] / 16
    np.testing.assert_allclose(tp.kernel_fn(m.what)(m.X, get="nngp"), total, rtol=1e-11)


def test_residual() -> None:
    s = (model("residual").X ** 2).mean(1)
    for depth, scale in ((3, 1), (5, Fraction(1, 2))):
        k = kernels("residual", depth=depth, scale=scale)
        np.testing.assert_allclose(np.diag(k.nngp), s * float(1 + scale**2) ** depth, rtol=1e-12)
    np.testing.assert_allclose(np.diag(kernels("residual", order="post", depth=1).nngp), 3 / 2 * s, rtol=1e-12)


@pytest.mark.slow
def test_two_blocks_with_the_activation_last() -> None:
    """E relu(relu(x) + g)^2 for variances 3 and 3, in polar coordinates: 3 + 3/(2 pi)."""
    m = model("residual", order="post", depth=2)
    found = tp.limit(m.what, m.X, of="nngp")["nngp"]
    error = np.diag(found.value) - (m.X**2).mean(1) * (3 + 3 / (2 * np.pi))
    assert np.all(np.abs(error) <= 4 * np.diag(found.error))


def test_layer_norm() -> None:
    k = kernels("layer_norm", W_std=10)
    np.testing.assert_allclose(np.diag(k.nngp), 1 / 2, rtol=1e-12)
    X = model("layer_norm").X
    big, usual = (
        tp.kernel_fn(model("layer_norm", W_std=w).what, parametrization="tp")(X, get="ntk_W1") for w in (10, 1)
    )
    np.testing.assert_allclose(100 * big, usual, rtol=1e-11)


def test_self_attention() -> None:
    m = model("self_attention")
    for head in ("0", "1"):
        assert np.max(np.abs(tp.kernel_fn(m.what)(m.X, get=f"ntk_A_key_{head}"))) == 0
    for a, b in zip(kernels("self_attention"), kernels("self_attention", heads=5), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    mean = m.X.mean(1)
    plain = kernels("self_attention", tied=False).nngp
    np.testing.assert_allclose(plain, arc_cosine(mean @ mean.T / mean.shape[1])[0], rtol=1e-11)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


def test_transformer() -> None:
    """The four covariances of the docstring."""
    X = model("transformer").X
    B, T, d = X.shape
    flat = X.reshape(-1, d)
    c = flat @ flat.T / d
    A = np.zeros_like(c)
    for b in range(B):
        A[b * T : (b + 1) * T, b * T : (b + 1) * T] = softmax(X[b] @ X[b].T / d)
    A += np.eye(B * T)

    def corr(c: np.ndarray) -> np.ndarray:
        return np.asarray(c / np.sqrt(np.outer(np.diag(c), np.diag(c))))

    z = corr(A @ c @ A.T)
    x = corr(z + arc_cosine(z)[0])
    np.testing.assert_allclose(kernels("transformer").nngp, x.reshape(B, T, B, T).mean((1, 3)), rtol=1e-11)


def test_attention_with_masks_and_memories() -> None:
    m = model("cross_attention")
    q, k = m.X["x"], m.X["memory"]
    a = softmax(q @ k.swapaxes(1, 2) / q.shape[-1])
    flat, seen = q.reshape(-1, q.shape[-1]), (a @ k).reshape(-1, q.shape[-1])
    c = arc_cosine((flat @ flat.T + seen @ seen.T) / q.shape[-1])[0].reshape(*q.shape[:2], *q.shape[:2]).mean((1, 3))
    np.testing.assert_allclose(tp.kernel_fn(m.what)(m.X, get="nngp"), c, rtol=1e-11)
    full = kernels("causal_attention", P_std=0)  # the last token sees all: c = x.x' + a a' x.x'
    X = model("causal_attention").X
    own, d = X[:, -1], X.shape[-1]
    seen = np.einsum("bt,btd->bd", softmax(np.einsum("bd,btd->bt", own, X) / d), X)
    np.testing.assert_allclose(full.nngp, arc_cosine((own @ own.T + seen @ seen.T) / d)[0], rtol=1e-11)
    assert np.max(np.abs(full.nngp - kernels("causal_attention").nngp)) > 0.1


@pytest.mark.parametrize("head", ["average", "last"])
def test_rnn(head: str) -> None:
    """Both recursions of the docstring, for sequences of different lengths."""
    m = model("rnn", head=head)
    k = tp.kernel_fn(m.what, parametrization="tp")(m.X, get=("nngp", "ntk"))
    sw, su, sb = 1.0, 2.0, 0.2

    def phi(a: float, b: float, c: float) -> tuple[float, float]:
        e = (1 + 2 * a) * (1 + 2 * b)
        return 2 / np.pi * np.arcsin(2 * c / np.sqrt(e)), 4 / np.pi / np.sqrt(e - 4 * c * c)

    def forward(x: Any, y: Any) -> Any:
        C = np.zeros((len(x) + 1, len(y) + 1))
        S = np.zeros_like(C)
        own = [variances(z) for z in (x, y)]
        for t in range(1, len(x) + 1):
            for r in range(1, len(y) + 1):
                S[t, r] = sw * C[t - 1, r - 1] + su * x[t - 1] @ y[r - 1] / x.shape[1] + sb
                C[t, r] = phi(own[0][t], own[1][r], S[t, r])[0]
        return C, S, own

    def variances(x: Any) -> list[float]:
        q, out = 0.0, [0.0]
        for row in x:
            out.append(sw * q + su * row @ row / x.shape[1] + sb)
            q = phi(out[-1], out[-1], out[-1])[0]
        return out

    for i, x in enumerate(m.X):
        for j, y in enumerate(m.X):
            C, S, own = forward(x, y)
            T, R = len(x), len(y)
            theta, G = 0.0, np.zeros((T + 2, R + 2))
            for t in range(T, 0, -1):
                for r in range(R, 0, -1):
                    seed = 1 / (T * R) if head == "average" else float(t == T and r == R)
                    G[t, r] = (seed + sw * G[t + 1, r + 1]) * phi(own[0][t], own[1][r], S[t, r])[1]
                    theta += G[t, r] * (C[t - 1, r - 1] + x[t - 1] @ y[r - 1] / x.shape[1] + 1)
            nngp = C[1:, 1:].mean() if head == "average" else C[T, R]
            np.testing.assert_allclose([k.nngp[i, j], k.ntk[i, j]], [nngp, nngp + theta], rtol=1e-10)


def test_bidirectional_rnn() -> None:
    m = model("bidirectional_rnn")
    one = model("rnn", phi="relu", W_std=1, U_std=1, b_std=0.5).what
    for name in ("nngp", "ntk"):
        both = [tp.kernel_fn(one)(X, get=name) for X in (m.X, m.X[:, ::-1])]
        np.testing.assert_allclose(tp.kernel_fn(m.what)(m.X, get=name), (both[0] + both[1]) / 2, rtol=1e-11)


def test_graph_convolution() -> None:
    X, nodes = model("graph_convolution").X, 4
    ring = np.roll(np.eye(nodes), 1, axis=1)
    A = (ring + ring.T + np.eye(nodes)) / 3
    flat = X.reshape(-1, X.shape[-1])
    c, big = flat @ flat.T / X.shape[-1], np.kron(np.eye(len(X)), A)
    for _ in range(2):
        c = arc_cosine(2 * big @ c @ big.T)[0]
    c = c.reshape(len(X), nodes, len(X), nodes).mean((1, 3))
    np.testing.assert_allclose(kernels("graph_convolution").nngp, c, rtol=1e-11)


def test_gated_product_and_maxout() -> None:
    X = model("gated_product").X
    c = X @ X.T / X.shape[1]
    np.testing.assert_allclose(kernels("gated_product", gate="relu").nngp, c * arc_cosine(c)[0], rtol=1e-11)
    np.testing.assert_allclose(np.diag(kernels("maxout", depth=3).nngp), np.diag(c), rtol=1e-11)


def test_average_readout_and_autoencoder() -> None:
    m = model("average_readout")
    s = np.array([1, 5 / 8])
    np.testing.assert_allclose(tp.limit(m.what, m.X, of="f")["f"].value, 1 + s, rtol=1e-12)
    for gia, factor in ((False, 8), (True, 4)):
        parts = tp.kernel_fn(m.what, gia=gia)(m.X, get=("ntk_W1", "ntk_W2"))
        np.testing.assert_allclose(np.diag(parts.ntk_W1), factor * s * (1 + s), rtol=1e-12)
        np.testing.assert_allclose(np.diag(parts.ntk_W2), 4 * (1 + s) ** 2, rtol=1e-12)
    for tied, factor in ((True, 3 / 4), (False, 3 / 2)):
        m = model("autoencoder", tied=tied)
        f = tp.limit(m.what, m.X, of="f")["f"].value
        np.testing.assert_allclose(f, factor * (m.X**2).mean(1), rtol=1e-12)


def test_bottleneck_and_densenet() -> None:
    for a, b in zip(kernels("narrow_layer"), kernels("narrow_layer", ratio=4), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    X = model("densenet").X
    seen = [X @ X.T / X.shape[1]]
    for _ in range(3):
        seen.append(arc_cosine(2 * sum(seen) / len(seen) + 0.01)[0])
    np.testing.assert_allclose(kernels("densenet").nngp, sum(seen) / 4, rtol=1e-11)


def test_several_outputs() -> None:
    apart, shared = kernels("several_outputs").ntk, kernels("several_outputs", shared=True).ntk
    assert apart.shape == (2, 2, 2, 2) and not apart[:, :, 0, 1].any() and shared[:, :, 0, 1].all()
    for k in (apart, shared):
        np.testing.assert_allclose(k, k.transpose(1, 0, 3, 2), rtol=1e-12)
