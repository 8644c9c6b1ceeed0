"""Kernels of recurrent networks: a recursion written out, the exact route against populations, width 10^5, golden values.

Statistical tests have fixed seeds; a bound of 6 stated errors (t quantiles of 15 degrees of freedom, some dozen entries) fails
for fewer than one choice of seeds in a thousand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from marks import few

import tensorprog as tp
from tensorprog.execute.population import Population
from tensorprog.language.data import ArrayData
from tensorprog.networks.inputs import Bound

N = tp.Width("n")
SEQUENCE = tp.Input("x", axes=("t",))
RNG = np.random.default_rng(3)
DATA = RNG.standard_normal((2, 5, 3))
CELLS = {"gru": tp.gru, "lstm": tp.lstm}


def network(cell: Any, readout: Any = lambda h: tp.take(h, "t", -1), **options: Any) -> tp.Network:
    return tp.Network(tp.readout("v", readout(cell("G", SEQUENCE, N, b_std=0.3, **options))))


def recursion(x: np.ndarray, weights: np.ndarray, var_w: float, var_u: float, var_b: float) -> tuple[Any, Any]:
    """NNGP and NTK of sum_t weights_t h_t, h_t = erf(W h_{t-1} + U x_t + b), x of shape (examples, T, d).

    Backwards, dg_t = (weights_t v + W.T dg_{t+1}) erf'(g_t), whose products are those of independent W.T.
    """
    count, steps, d = x.shape
    data = np.einsum("itd,jsd->tsij", x, x) / d
    states = np.zeros((steps + 1, steps + 1, count, count))  # states[t + 1, s + 1]: E h_t h'_s
    inputs = np.zeros((steps, steps, count, count))
    for t in range(steps):
        for s in range(steps):
            inputs[t, s] = var_w * states[t, s] + var_u * data[t, s] + var_b
            a, b = variances(x, t, var_w, var_u, var_b), variances(x, s, var_w, var_u, var_b)
            states[t + 1, s + 1] = 2 / np.pi * np.arcsin(2 * inputs[t, s] / np.sqrt(np.outer(1 + 2 * a, 1 + 2 * b)))
    nngp = np.einsum("t,s,tsij->ij", weights, weights, states[1:, 1:])
    ntk, back = nngp.copy(), np.zeros((steps + 1, steps + 1, count, count))
    for t in reversed(range(steps)):
        for s in reversed(range(steps)):
            a, b = variances(x, t, var_w, var_u, var_b), variances(x, s, var_w, var_u, var_b)
            slopes = 4 / np.pi / np.sqrt(np.outer(1 + 2 * a, 1 + 2 * b) - 4 * inputs[t, s] ** 2)
            back[t, s] = (weights[t] * weights[s] + var_w * back[t + 1, s + 1]) * slopes
            ntk += back[t, s] * inputs[t, s]
    return nngp, ntk


def variances(x: np.ndarray, t: int, var_w: float, var_u: float, var_b: float) -> np.ndarray:
    """Of g_t, for every example."""
    v = np.zeros(len(x))
    for s in range(t + 1):
        state = 2 / np.pi * np.arcsin(2 * v / (1 + 2 * v)) if s else 0
        v = var_w * state + var_u * (x[:, s] ** 2).mean(-1) + var_b
    return v


@pytest.mark.parametrize("last", few([True, False], [True]), ids=["last", "mean"])
def test_a_long_recurrence_is_its_recursion(last: bool) -> None:
    x = RNG.standard_normal((3, 12, 4))
    readout = (lambda h: tp.take(h, "t", -1)) if last else (lambda h: tp.mean(h, "t"))
    weights = np.eye(12)[-1] if last else np.full(12, 1 / 12)
    kernel = tp.kernel_fn(network(tp.rnn, readout, phi=tp.erf, W_std=1.5, U_std=1.25))(x)
    nngp, ntk = recursion(x, weights, 2.25, 1.5625, 0.09)
    np.testing.assert_allclose(kernel.nngp, nngp, rtol=1e-12)
    np.testing.assert_allclose(kernel.ntk, ntk, rtol=1e-12)


# ---- gated cells: the exact route, populations, a finite width ----


def agree(one: Any, other: Any, many: float = 6) -> None:
    """Within the stated errors of both."""
    for k in one:
        error = np.hypot(one[k].error, other[k].error)
        assert (np.abs(one[k].value - other[k].value) < many * error).all(), k


@pytest.mark.parametrize(
    ("cell", "steps", "of"),
    [
        ("gru", 1, "nngp"),
        ("gru", 2, "nngp"),
        ("lstm", 1, "nngp"),
        *[
            pytest.param(c, s, None, marks=pytest.mark.slow)
            for c, s in (("gru", 1), ("gru", 2), ("lstm", 1))  # three steps cost ten times as much
        ],
        pytest.param("lstm", 2, "nngp", marks=pytest.mark.slow),
    ],
)
def test_the_exact_route_and_the_population_agree(cell: str, steps: int, of: Any) -> None:
    """Integrals in few variables are more accurate than populations; in the ten of two steps of an LSTM they are not."""
    program = network(CELLS[cell]).program(DATA[: 2 if of is None else 1, :steps], of=of)
    exact = tp.limit(program, method="exact", budget=16)
    sampled = tp.limit(program, method="population")
    agree(exact, sampled)
    for k in program:
        assert exact[k].method in ("quadrature", "quasi-Monte-Carlo") and sampled[k].kind == "standard error"
        assert max(np.max(e[k].error) for e in (exact, sampled)) < 0.02 * np.max(np.abs(sampled[k].value))
        assert np.max(exact[k].error) < 0.2 * np.max(sampled[k].error) or (cell, steps) == ("lstm", 2)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [2, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_width_100_000(cell: str, steps: int) -> None:
    """The finite network with lazy weights, four seeds: their spread, with 3 degrees of freedom, pooled over the entries."""
    net = network(CELLS[cell])
    limit = tp.limit(net.program(DATA[:, :steps]), method="population", samples=2**13)
    runs = tp.run(net, DATA[:, :steps], n=10**5, weights="lazy", seeds=4)
    for k in limit:
        found = np.asarray(runs[k])
        error = np.hypot(np.sqrt((found.var(0, ddof=1) / len(found)).mean()), limit[k].error)
        assert (np.abs(found.mean(0) - limit[k].value) < 6 * error).all(), k
        assert np.max(error) < 0.02 * np.max(np.abs(limit[k].value))


@pytest.mark.slow
def test_kernel_fn_says_how_each_kernel_was_found() -> None:
    """Three steps of an LSTM have too many variables for integrals: both kernels are sampled."""
    net = network(tp.lstm)
    kernel = tp.kernel_fn(net)(DATA[:, :3], rng=4)
    assert kernel.method == {"nngp": "population", "ntk": "population"}
    reference = tp.limit(net.program(DATA[:, :3]), method="population", rng=5)
    for k in ("nngp", "ntk"):
        assert kernel.error[k] == pytest.approx(np.max(reference[k].error), rel=1)
        assert np.max(np.abs(getattr(kernel, k) - reference[k].value)) < 6 * kernel.error[k]


@pytest.mark.slow
def test_every_kernel_says_how_it_was_sampled() -> None:
    """Of two steps of an LSTM the NTK has no exact route; of the NNGP whichever of both is known better is taken."""
    kernel = tp.kernel_fn(network(tp.lstm))(DATA[:1, :2])
    assert kernel.method["ntk"] == "population"
    assert kernel.method["nngp"] in ("quasi-Monte-Carlo", "population")


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_standard_errors_of_populations_are_honest(cell: str) -> None:
    """Ten seeds against a population four times as large and twice as often: z of variance about 1.2 (t, 15 degrees)."""
    program = network(CELLS[cell]).program(DATA[:, :4])
    reference = tp.limit(program, method="population", samples=2**13, replicates=32, rng=10**6)
    runs = [tp.limit(program, method="population", rng=seed) for seed in range(10)]
    for k in program:
        z = [(r[k].value - reference[k].value) / np.hypot(r[k].error, reference[k].error) for r in runs]
        assert 0.4 < np.sqrt(np.mean(np.square(z))) < 1.8, k


# ---- golden values of a GRU, which are good to 1e-5 ----


def gated(steps: int | None = None) -> tuple[tp.Program, np.ndarray]:
    """The inner products of all states of two sequences of 7 and 9 words with 300 features, and their golden values."""
    with np.load(Path(__file__).parent / "golden" / "gp_gru_notebook.npz") as data:
        x, kernel = [data[k][:steps] for k in ("x0", "x1")], data["kernel"]
    states = [
        tp.gru("G", Bound(ArrayData(y), ("t",)), N, phi=tp.erf, gate=lambda y: (1 + tp.erf(y)) / 2, b_std=1) for y in x
    ]
    pairs = {
        f"k{i}{j}": tp.moment(tp.rename(states[i], t="r") * tp.rename(states[j], t="s"))
        for i, j in ((0, 0), (0, 1), (1, 1))
    }
    chosen = [*range(len(x[0])), *range(7, 7 + len(x[1]))]
    return tp.Program(pairs), kernel[np.ix_(chosen, chosen)]


def joined(limit: Any, what: str) -> np.ndarray:
    a, b, c = [np.asarray(getattr(limit[k], what)) for k in ("k00", "k01", "k11")]
    return np.block([[a, b], [b.T, c]])


@pytest.mark.parametrize(
    ("steps", "samples", "relative"),
    [(3, 2**11, 5e-3), pytest.param(None, 2**14, 1e-3, marks=pytest.mark.slow)],
)
def test_golden_gated_network_by_population(steps: int | None, samples: int, relative: float) -> None:
    """With one noise column for each of 300 features populations of 2^12 were biased by five times their stated error."""
    program, kernel = gated(steps)
    limit = tp.limit(program, method="population", samples=samples)
    found, error = joined(limit, "value"), joined(limit, "error")
    assert (np.abs(found - kernel) < 6 * error + 2e-5).all()
    assert np.linalg.norm(found - kernel) < relative * np.linalg.norm(kernel)


@pytest.mark.slow
def test_golden_gated_network_exactly() -> None:
    """Four steps are 157 integrals in up to eight variables; the fifth has 450 more."""
    program, kernel = gated(4)
    limit = tp.limit(program, method="exact")
    assert np.linalg.norm(joined(limit, "value") - kernel) < 1e-5 * np.linalg.norm(kernel)


# ---- the noise of populations ----


def test_data_uses_up_the_directions_it_spans() -> None:
    """Inner products of U x are exact, whatever is asked first; three rows of 300 features take three noise columns."""
    x = RNG.standard_normal((3, 300))
    x = np.concatenate([x, x[:2] + x[2]])
    space = Population(2**9, 1)
    u = [tp.dense("U", Bound(ArrayData(rows), ("t",)), N, W_std=2) for rows in (x[3:4], x)]
    a, b = (space.vector(h.node.attr) for h in u)
    np.testing.assert_allclose(
        np.concatenate([a, b]) @ b.T / 2**9, 4 * np.concatenate([x[3:4], x]) @ x.T / 300, rtol=1e-10
    )
    (population,) = space._populations.values()
    assert population._span.rank == 1 + 3
