"""Layers: kernels computed by others to 1e-9, limits against finite widths, properties, and what is refused.

All seeds are fixed. A comparison fails for at most one in a thousand of the seeds one might have chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from marks import few, refused

import tensorprog as tp
from tensorprog.language.data import ArrayData
from tensorprog.networks.convolution import places
from tensorprog.networks.inputs import Bound

GOLDEN = Path(__file__).resolve().parent / "golden"
N = tp.Width("n")
DENSE = {"W_std": 1.3, "b_std": 0.2}
VECTOR, SEQUENCE = tp.Input("x"), tp.Input("x", axes=("t",))
IMAGE, GRAPH = tp.Input("x", axes=("h", "w")), tp.Input("x", axes=("node",))
RNG = np.random.default_rng(7)
WORDS, PIXELS = RNG.standard_normal((2, 3, 4)), RNG.standard_normal((1, 4, 5, 2))
PATH = [[0, 1, 0], [1, 0, 1], [0, 1, 0]]


def golden(name: str) -> dict[str, np.ndarray]:
    return dict(np.load(GOLDEN / f"{name}.npz"))


def net(x: Any, **options: Any) -> tp.Network:
    return tp.Network(tp.readout("v", x, **options))


# ---- kernels computed by others ----


def residual_network() -> Any:
    h = tp.dense("U", VECTOR, N, **DENSE)
    for i in range(3):

        def block(y: Any, i: int = i) -> Any:
            return tp.dense(f"B{i}", tp.relu(tp.dense(f"A{i}", tp.relu(y), N, **DENSE)), N, **DENSE)

        h = tp.residual(block, h)
    return tp.relu(h)


def normalized_network() -> Any:
    h = tp.relu(tp.layer_norm(tp.dense("U", VECTOR, N, **DENSE)))
    return tp.relu(tp.layer_norm(tp.dense("W", h, N, **DENSE)))


def attending_network(heads: int = 8) -> Any:
    h = tp.relu(tp.dense("U", SEQUENCE, N, **DENSE))
    stds = {"W_key_std": 1.1, "W_query_std": 0.9, "W_value_std": 1.2, "b_std": 0.1}
    return tp.global_avg_pool(tp.relu(tp.self_attention("A", h, N, heads=heads, tied=True, **stds)))


def convolutional_network() -> Any:
    return tp.relu(tp.conv("W", tp.relu(tp.conv("U", IMAGE, N, **DENSE)), N, **DENSE))


NEURAL_TANGENTS: dict[str, Callable[[], Any]] = {
    "seq_dense_relu_gap": lambda: net(tp.mean(tp.relu(tp.dense("U", SEQUENCE, N, **DENSE)), "t"), **DENSE),
    "resmlp_relu_3blocks": lambda: net(residual_network(), **DENSE),
    "layernorm_relu": lambda: net(normalized_network(), **DENSE),
    "fanin_concat": lambda: net([tp.relu(tp.dense("A", VECTOR, N, **DENSE)), tp.erf(tp.dense("B", VECTOR, N, **DENSE))],
                                **DENSE),
    "attn_lin_softmax": lambda: net(attending_network(), **DENSE),
    "cnn_relu_gap": lambda: net(tp.global_avg_pool(convolutional_network()), **DENSE),
    "cnn_relu_flatten": lambda: net(convolutional_network(), over=("h", "w"), **DENSE),
}  # fmt: skip


@pytest.mark.parametrize("name", NEURAL_TANGENTS)
def test_kernels_of_neural_tangents(name: str) -> None:
    data, kernel_fn = golden(name), tp.kernel_fn(NEURAL_TANGENTS[name]())
    same, cross = kernel_fn(data["x1"]), kernel_fn(data["x1"], data["x2"])
    assert cross.method == {"nngp": "closed form", "ntk": "closed form"}
    for kernel in ("nngp", "ntk"):
        ours, want = getattr(same, kernel), data[f"{kernel}11"]
        scale = np.abs(want).max(1, keepdims=True)
        tolerance = np.full(want.shape, 1e-9)
        if kernel == "ntk":
            np.fill_diagonal(tolerance, 2e-7)  # theirs is off by 4e-8 there, at kinks
        assert (np.abs(ours - want) < tolerance * scale).all()
        assert (np.abs(getattr(cross, kernel) - data[f"{kernel}12"]) < 1e-9 * scale).all()


@pytest.mark.parametrize(("heads", "ratio"), [(1, 1), (2, Fraction(1, 2))])
def test_the_number_of_heads_does_not_matter_in_the_limit(heads: int, ratio: Any) -> None:
    X = golden("attn_lin_softmax")["x1"][:2]
    width = tp.Width("m", ratio)
    x = tp.relu(tp.dense("U", SEQUENCE, N))
    few = tp.self_attention("A", x, N, heads=heads, tied=True, b_std=0.3, head_width=width)
    many = tp.self_attention("A", x, N, heads=3, tied=True, b_std=0.3)
    a, b = (tp.limit(net(tp.mean(tp.relu(y), "t")).program(X)) for y in (few, many))
    for kernel in ("nngp", "ntk"):
        np.testing.assert_allclose(a[kernel].value, b[kernel].value, rtol=1e-11)


def gram(body: Callable[[Any], Any], *sequences: np.ndarray) -> np.ndarray:
    """The inner products of the states of all times of several sequences, as one matrix."""
    states = [body(Bound(ArrayData(x), ("t",))) for x in sequences]
    outputs = {
        f"k{i}_{j}": tp.moment(tp.rename(a, t="r") * tp.rename(b, t="s"))
        for i, a in enumerate(states)
        for j, b in enumerate(states[i:], i)
    }
    limit = {name: np.asarray(e.value) for name, e in tp.limit(tp.Program(outputs), method="exact").items()}
    k = range(len(states))
    return np.block([[limit[f"k{i}_{j}"] if i <= j else limit[f"k{j}_{i}"].T for j in k] for i in k])


def test_states_of_a_recurrent_network() -> None:
    data = golden("gp_rnn_notebook")
    ours = gram(lambda x: tp.rnn("R", x, N, phi=tp.erf), data["x0"], data["x1"])
    np.testing.assert_allclose(ours, data["kernel"], atol=1e-12)


def test_states_of_a_masked_transformer() -> None:
    data = golden("gp_transformer_notebook")

    def body(x: Any) -> Any:
        for name in ("A", "B"):
            stds = {"U_std": 2**0.5, "W_std": 3**0.5, "b_std": 0.1**0.5}
            x = tp.transformer_block(name, x, N, mask="causal", **stds)
        return x

    np.testing.assert_allclose(gram(body, data["x0"], data["x1"]), data["kernel"], atol=1e-12)


def test_states_of_a_gated_network() -> None:
    """Two steps: more are integrals in many variables. The golden values are good to 1e-5."""
    data = golden("gp_gru_notebook")

    def body(x: Any) -> Any:
        return tp.gru("G", x, N, phi=tp.erf, gate=lambda y: (1 + tp.erf(y)) / 2, b_std=1)

    chosen = np.ix_([0, 1, 7, 8], [0, 1, 7, 8])
    np.testing.assert_allclose(gram(body, data["x0"][:2], data["x1"][:2]), data["kernel"][chosen], atol=1e-5)


def test_tangent_kernels_of_tensor_programs_ii() -> None:
    """The recurrent network has variances 1, 2, 0.2 of W, U, b."""
    data = golden("rnn_ntk_notebook")
    h = tp.rnn("R", SEQUENCE, N, phi=tp.erf, U_std=2**0.5, b_std=0.2**0.5)
    p = net(tp.global_avg_pool(h)).program(np.stack([data["x0"], data["x1"]]), of="ntk", parametrization="tp")
    np.testing.assert_allclose(tp.limit(p)["ntk"].value, data["ntk"], rtol=1e-10)
    data = golden("transformer_ntk_notebook")
    p = net(tp.mean(tp.transformer_block("T", SEQUENCE, N), "t")).program(data["x"], of="ntk", parametrization="tp")
    np.testing.assert_allclose(tp.limit(p)["ntk"].value, data["ntk"], rtol=1e-10)


def test_batch_norm_at_finite_width() -> None:
    """Of width 4096, 24 seeds, within 6 standard errors of the limits: fails for one in ten thousand choices of seeds."""
    data, network = golden("batchnorm_ntk"), net(tp.relu(tp.batch_norm(tp.dense("U", VECTOR, N))))
    for X2, columns in ((None, slice(7)), (data["x2"], slice(7, 12))):
        runs = tp.run(network.program(data["x1"], X2, parametrization="tp"), n=4096, seeds=24)
        for kernel in ("nngp", "ntk"):
            found, want = np.asarray(runs[kernel]), data[kernel][:7, columns]
            error = found.std(0, ddof=1) / 24**0.5
            assert (np.abs(found.mean(0) - want) < 6 * error).all()
            assert np.linalg.norm(found.mean(0) - want) < 0.03 * np.linalg.norm(want)


@pytest.mark.parametrize("two", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_batch_norm_has_an_exact_limit(two: bool) -> None:
    """The golden values are accurate to 3e-8."""
    data, network = golden("batchnorm_ntk"), net(tp.relu(tp.batch_norm(tp.dense("U", VECTOR, N))))
    kernel = tp.kernel_fn(network, parametrization="tp")(data["x1"], data["x2"] if two else None)
    for found, name in ((kernel.nngp, "nngp"), (kernel.ntk, "ntk")):
        want = data[name][:7, 7:] if two else data[name][:7, :7]
        assert np.linalg.norm(found - want) < 3e-8 * np.linalg.norm(want)


# ---- against finite widths ----


def decoder() -> Any:
    e = tp.relu(tp.dense("E", tp.Input("y", axes=("s",)), N))
    q, k, v = tp.relu(tp.dense("Q", SEQUENCE, N)), tp.relu(tp.dense("K", e, N)), tp.dense("V", e, N)
    attended = tp.attention(q, k, v, keys="s", mask=np.tri(3, 5, 2), scale=2)
    return tp.mean(tp.relu(tp.dense("O", q + attended, N)), "t")


def positions() -> Any:
    p = tp.dense("P", tp.Input("p", axes=("t",), value=np.eye(3)), N)
    h = tp.relu(tp.dense("U", SEQUENCE, N) + p)
    return tp.mean(tp.relu(tp.self_attention("A", h, N, heads=2, b_std=0.2)), "t")


def pooled(hs: list[Any]) -> list[Any]:
    return [tp.mean(h, "t") for h in hs]


def convolved(padding: str, strides: int) -> Any:
    h = tp.relu(tp.conv("U", IMAGE, N, padding="CIRCULAR"))
    return tp.global_avg_pool(tp.relu(tp.conv("W", h, N, filter=(2, 3), padding=padding, strides=strides, b_std=0.1)))


BOTH = tp.bidirectional(tp.rnn, "B", SEQUENCE, N, phi=tp.erf, b_std=0.1)
U = tp.dense("U", SEQUENCE, N, b_std=0.3)
FINITE: dict[str, tuple[Any, Any]] = {
    "mask": (tp.mean(tp.relu(tp.attention(U, U, U, mask=[[1, 0, 1], [1, 1, 0], [0, 0, 1]], scale=3)), "t"), WORDS),
    "cross-attention": (decoder(), {"x": WORDS, "y": RNG.standard_normal((2, 5, 3))}),
    "positions": (positions(), WORDS),
    "states of states": (
        tp.take(tp.rnn("S", tp.rnn("R", SEQUENCE, N, phi=tp.erf), N, phi=tp.erf, reverse=True, state=tp.Vector("s", N)),
                "t", 0), WORDS),
    "bidirectional": (tp.mean(tp.relu(tp.dense("O", BOTH, N)), "t"), WORDS[:1]),
    "bidirectional readout": (tp.layer(pooled)(BOTH), WORDS),
    "graph": (tp.mean(tp.relu(tp.graph_conv("W", tp.relu(tp.graph_conv("U", GRAPH, N, PATH)), N, PATH, b_std=0.2)),
                      "node"), WORDS),
    "SAME 2": (convolved("SAME", 2), PIXELS),
    "VALID 1": (convolved("VALID", 1), PIXELS),
    "CIRCULAR 2": (convolved("CIRCULAR", 2), PIXELS),
    "average pooling": (tp.global_avg_pool(
        tp.relu(tp.conv("W", tp.avg_pool(tp.relu(tp.conv("U", IMAGE, N)), 2), N, b_std=0.1))), PIXELS[:, :3, :4]),
    "maximum": (tp.max_over([tp.take(U, "t", i) for i in range(2)]), WORDS),
}  # fmt: skip


@pytest.mark.parametrize("name", few(FINITE, list(FINITE)[::2]))
def test_networks_approach_their_limit(name: str) -> None:
    x, X = FINITE[name]
    assert tp.compare(net(x).program(X), widths=[64, 128, 256], seeds=12).agrees


@pytest.mark.parametrize("cell", few([tp.gru, tp.lstm], [tp.gru]))
def test_gated_networks_approach_their_limit(cell: Any) -> None:
    """Of the LSTM, covariances are sampled, and those of copies of one variable were once refused as indefinite."""
    p = net(tp.take(cell("G", SEQUENCE, N, b_std=0.3), "t", -1)).program(WORDS[:1, :2], of="nngp")
    assert tp.limit(p)["nngp"].kind == "standard error"
    assert tp.compare(p, widths=[64, 128, 256], seeds=12).agrees


@pytest.mark.slow
@pytest.mark.parametrize("cell", [tp.gru, tp.lstm])
def test_tangent_kernels_of_gated_networks(cell: Any) -> None:
    p = net(tp.mean(cell("G", SEQUENCE, N, b_std=0.3), "t")).program(WORDS[:, :2])
    assert tp.compare(p, widths=[128, 256, 512], seeds=16).agrees


# ---- another formula ----


@pytest.mark.parametrize(
    ("padding", "strides", "window"),
    [*product(["SAME", "VALID", "CIRCULAR"], [1, 2, 3], [(2, 3)]), ("SAME", 1, (5, 7)), ("SAME", 2, (1, 1))],
)
def test_a_convolution_is_a_product_with_patches(padding: str, strides: int, window: tuple[int, int]) -> None:
    """Of data, and of vectors, whose covariance is that of the data they are made of."""
    X = PIXELS[0]
    rows = []
    sizes = []
    for size, k in zip(X.shape[:2], window, strict=True):
        count = (size - k) // strides + 1 if padding == "VALID" else -(-size // strides)
        before = 0 if padding == "VALID" else max((count - 1) * strides + k - size, 0) // 2
        sizes.append((count, before))
    mode = "wrap" if padding == "CIRCULAR" else "constant"
    padded = np.pad(X, [(before, 9) for _, before in sizes] + [(0, 0)], mode=mode)
    for i, j in product(range(sizes[0][0]), range(sizes[1][0])):
        i, j = i * strides, j * strides
        rows.append(padded[i : i + window[0], j : j + window[1]].ravel())
    want = np.array(rows) @ np.array(rows).T / len(rows[0])
    data = Bound(ArrayData(X), ("h", "w"))
    options = {"filter": window, "padding": padding, "strides": strides}
    for h in (tp.conv("U", data, N, **options), tp.conv("W", tp.dense("U", data, N), N, **options)):
        p = tp.Program(k=tp.moment(h * tp.rename(h, h="i", w="j")))
        ours = np.asarray(tp.limit(p, method="exact")["k"].value).reshape(want.shape)
        np.testing.assert_allclose(ours, want, atol=1e-13)


def test_a_convolution_keeps_other_axes_and_counts_its_filter() -> None:
    x = tp.Input("x", axes=("t", "c"))
    h = tp.relu(tp.conv("W", tp.relu(tp.conv("U", x, N, axes="t")), N, axes=["t"], padding="VALID"))
    X = RNG.standard_normal((2, 4, 2, 3))
    network = net(tp.global_avg_pool(h))
    a, b = (tp.limit(network.program(X, parametrization=name))["ntk"].value for name in ("ntk", "tp"))
    np.testing.assert_allclose(a, b, rtol=1e-12)  # all standard deviations are 1
    one_hot = tp.limit(network.program(X[:, :, :1].repeat(2, 2)))  # equal along c: as without that axis
    y = tp.Input("x", axes=("t",))
    h = tp.relu(tp.conv("W", tp.relu(tp.conv("U", y, N, axes="t")), N, axes="t", padding="VALID"))
    alone = tp.limit(net(tp.mean(h, "t")).program(X[:, :, 0]))
    np.testing.assert_allclose(one_hot["ntk"].value, alone["ntk"].value, rtol=1e-7)


def test_attention_weights_are_those_of_a_masked_softmax() -> None:
    """Also where logits are large: nothing overflows, and what is masked has weight 0."""
    cov = np.array([[900.0, 30, 0], [30, 2, -800], [0, -800, 1e6]])
    x = tp.Vector("x", N, axes={"t": 3}, cov=cov)
    v = tp.Vector("v", N, axes={"t": 3}, cov=np.eye(3))
    for mask in (np.tri(3), [[0, 1, 1], [1, 0, 0], [1, 1, 1]], np.eye(3, dtype=bool), None):
        seen = np.ones((3, 3)) if mask is None else np.asarray(mask, dtype=float)
        logits = np.where(seen > 0, cov, -np.inf)
        want = np.exp(logits - logits.max(1, keepdims=True))
        want /= want.sum(1, keepdims=True)
        y = tp.attention(x, x, v, mask=mask)
        p = tp.Program(a=tp.moment(y * tp.rename(v, t="s")))
        np.testing.assert_allclose(tp.limit(p, method="exact")["a"].value, want, atol=1e-13)
    causal, array = (tp.attention(x, x, v, mask=m) for m in ("causal", np.tri(3)))
    assert causal.node is array.node or causal.node.digest == array.node.digest
    one = tp.attention(tp.take(x, "t", 0), x, v, mask=[1, 1, 0], scale=Fraction(1, 100))
    weight = tp.limit(tp.Program(a=tp.moment(one * tp.take(v, "t", 0))))["a"].value
    np.testing.assert_allclose(weight, 1 / (1 + np.exp(-8.7)), rtol=1e-13)


def test_recurrent_layers_run_in_both_directions() -> None:
    """Backward on a sequence is forward on the reversed one; an LSTM starts from a state."""
    X = WORDS[0]
    data, turned = (Bound(ArrayData(a), ("t",)) for a in (X, X[::-1]))
    for cell in (tp.rnn, tp.gru, tp.lstm):
        a, b = cell("R", data, N, reverse=True, b_std=0.1), cell("R", turned, N, b_std=0.1)
        runs = tp.run(tp.Program(a=tp.moment(a * a), b=tp.moment(b * b)), n=16, seeds=1)
        np.testing.assert_allclose(np.asarray(runs["a"])[0], np.asarray(runs["b"])[0][::-1], rtol=1e-12)
        zero = 0 * tp.Vector("zero", N)
        c = cell("R", data, N, b_std=0.1, reverse=True, state=(zero, zero) if cell is tp.lstm else zero)
        runs = tp.run(tp.Program(a=tp.moment((a - c) ** 2)), n=16, seeds=1)
        assert np.abs(np.asarray(runs["a"])).max() < 1e-28


def test_a_cell_is_its_equations() -> None:
    """One step of each from a given state, written out."""
    x, h, c = (tp.Vector(k, N) for k in "xhc")
    X = tp.stack([x], "t")

    def gate(name: str, state: Any) -> Any:
        return tp.Matrix(f"R_{name}_U", N, N) @ x + tp.Matrix(f"R_{name}_W", N, N) @ state

    z, r = tp.sigmoid(gate("z", h)), tp.sigmoid(gate("r", h))
    i, f, o = (tp.sigmoid(gate(k, h)) for k in "ifo")
    memory = f * c + i * tp.tanh(gate("g", h))
    W = tp.Matrix("R_W", N, N)
    pairs = [
        (tp.gru("R", X, N, state=h), (1 - z) * h + z * tp.tanh(gate("c", r * h))),
        (tp.lstm("R", X, N, state=(h, c)), o * tp.tanh(memory)),
        (tp.rnn("R", X, N, state=h), tp.tanh(W @ h + tp.Matrix("R_U", N, N) @ x)),
    ]
    for layer, written in pairs:
        runs = tp.run(tp.Program(d=tp.moment((tp.take(layer, "t", 0) - written) ** 2)), n=32, seeds=1)
        assert np.abs(np.asarray(runs["d"])).max() < 1e-28


def test_normalization_normalizes() -> None:
    x = tp.Vector("x", N, axes={"example": 4, "t": 3}, mean=RNG.standard_normal((4, 3)))
    y, z, w = tp.layer_norm(x), tp.batch_norm(x), tp.batch_norm(x, axes="t")
    soft = tp.batch_norm(x, eps=0.5)
    outputs = {
        "mean": tp.moment(y), "square": tp.moment(y * y) - 1,
        "batch_mean": tp.moment(tp.mean(z, "example") ** 2), "batch_square": tp.moment((tp.mean(z * z, "example") - 1) ** 2),
        "both_mean": tp.moment(tp.mean(w, ("example", "t")) ** 2),
        "both_square": tp.moment((tp.mean(w * w, ("example", "t")) - 1) ** 2),
        "affine": tp.moment((tp.batch_norm(3 * x + 2) - z) ** 2), "layer_affine": tp.moment((tp.layer_norm(3 * x + 2) - y) ** 2),
        "eps": tp.moment((tp.mean(soft * soft, "example") * (1 + 0.5 / (tp.mean(x * x, "example") - tp.mean(x, "example") ** 2))
                          - 1) ** 2),
    }  # fmt: skip
    runs = tp.run(tp.Program(outputs), n=50, seeds=2)
    for name in outputs:
        assert np.abs(np.asarray(runs[name])).max() < 1e-12, name


def test_pooling() -> None:
    x = tp.Vector("x", N, axes={"h": 4, "w": 3}, mean=np.arange(12).reshape(4, 3), var=0)

    def value(y: Any) -> np.ndarray:
        return np.asarray(tp.limit(tp.Program(m=tp.moment(y)))["m"].value, dtype=float)

    np.testing.assert_allclose(value(tp.avg_pool(x, (2, 3))), [[2.5], [8.5]])
    np.testing.assert_allclose(value(tp.avg_pool(x, 2, axes="h", strides=1)), np.arange(9).reshape(3, 3) + 1.5)
    np.testing.assert_allclose(value(tp.avg_pool(x, 2, axes="h", strides=1, padding="SAME"))[-1], [4.5, 5, 5.5])
    np.testing.assert_allclose(value(tp.avg_pool(x, 3, axes="w", strides=3, padding="CIRCULAR"))[:, 0], [1, 4, 7, 10])
    np.testing.assert_allclose(value(tp.global_avg_pool(x)), 5.5)
    np.testing.assert_allclose(value(tp.global_avg_pool(x, "h")), [4.5, 5.5, 6.5])
    np.testing.assert_allclose(value(tp.max_over([tp.take(x, "h", i) for i in (1, 3, 0)])), [9, 10, 11])
    assert places(5, 2, 2, "SAME", "") == ((0, 2, 4), (1, 3, -1))


def test_a_graph_convolution_averages_neighbours() -> None:
    x = tp.Vector("x", N, axes={"node": 3}, cov=np.eye(3))
    W = tp.Matrix("W", N, N)
    a = np.array(PATH) + np.eye(3)
    a = a / np.sqrt(np.outer(a.sum(1), a.sum(1)))
    for weights, want in ((tp.graph_conv("W", x, N, PATH), a), (tp.graph_conv("W", x, N, PATH, normalize=False), PATH)):
        p = tp.Program(c=tp.moment(weights * tp.rename(W @ x, node="m")))
        np.testing.assert_allclose(tp.limit(p)["c"].value, want, atol=1e-15)


# ---- what is refused ----

T = tp.Vector("x", N, axes={"t": 3})
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "scalar": (lambda: tp.layer_norm(tp.moment(T)), "scalar"),
    "data": (lambda: net(tp.layer_norm(VECTOR)).program([[1.0]]), "data"),
    "list": (lambda: tp.layer_norm([T, T]), "a list where it needs one vector"),
    "eps": (lambda: tp.layer_norm(T, eps=-1), "eps is -1"),
    "no examples": (lambda: tp.batch_norm(T), "over the axis 'example'"),
    "one example": (lambda: tp.batch_norm(tp.Vector("y", N, axes={"example": 1})), "a batch of one"),
    "keys without positions": (lambda: tp.attention(T, tp.Vector("z", N), T), "the keys z have none"),
    "other values": (lambda: tp.attention(T, T, tp.Vector("w", N, axes={"t": 4})), "3 keys and 4 values"),
    "mask's shape": (lambda: tp.attention(T, T, T, mask=[[1, 0], [0, 1]]), r"shape \(2, 2\)"),
    "mask's entries": (lambda: tp.attention(T, T, T, mask=2 * np.eye(3)), "ones and zeros"),
    "mask's name": (lambda: tp.attention(T, T, T, mask="casual"), "'casual'"),
    "blind": (lambda: tp.attention(T, T, T, mask=np.diag([1, 0, 1])), "hides all keys from query 1"),
    "heads": (lambda: tp.self_attention("A", T, N, heads=0), "0 heads"),
    "negative": (lambda: tp.self_attention("A", T, N, tied=True, W_key_std=-1), "W_key_std of A is -1"),
    "no time": (lambda: tp.gru("R", tp.Vector("w", N), N), "along the axis 't'"),
    "no pair": (lambda: tp.lstm("R", T, N, state=tp.Vector("w", N)), "no pair"),
    "no cell": (lambda: tp.bidirectional("rnn", "R", T, N), "bidirectional R"),
    "no nodes": (lambda: tp.graph_conv("G", T, N, PATH), "over the axis 'node'"),
    "adjacency": (lambda: tp.graph_conv("G", T, N, np.eye(2), axis="t"), r"shape \(2, 2\), for 3 nodes"),
    "degree": (lambda: tp.graph_conv("G", T, N, -np.ones((3, 3)), axis="t"), "degree -2"),
    "no image": (lambda: tp.conv("C", T, N), "over the axis 'h'"),
    "no image, data": (lambda: net(tp.conv("C", VECTOR, N)).program([[1.0]]), "over the axis 'h'"),
    "filter": (lambda: tp.conv("C", T, N, filter=(3, 3), axes="t"), "the filter of C"),
    "too large": (lambda: tp.conv("C", T, N, filter=4, axes="t", padding="VALID"), "has size 4, and its axis 3"),
    "padding": (lambda: tp.conv("C", T, N, axes="t", padding="same"), "padding 'same'"),
    "strides": (lambda: tp.conv("C", T, N, axes="t", strides=0), "the strides of C"),
    "width": (lambda: tp.conv("C", T, "n", axes="t"), "'n' as its width"),
    "no axis to pool": (lambda: tp.avg_pool(T), "over the axis 'h'"),
    "nothing to choose from": (lambda: tp.max_over([]), "no list of vectors"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str) -> None:
    call, message = REFUSED[name]
    with refused(message) as error:
        call()
    assert "test_layers.py" in str(error.value)
