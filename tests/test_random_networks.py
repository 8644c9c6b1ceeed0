"""`kernel_fn` of random networks against the limit of their programs, and against itself in other orders and pieces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import strategies
from marks import few
from random_networks import Builder

import tensorprog as tp
from tensorprog.arrays import cores as machine
from tensorprog.arrays.elementwise import kernel
from tensorprog.kernels import results
from tensorprog.language import algebra
from tensorprog.language.expression import Expression
from tensorprog.language.node import topological
from tensorprog.limits.pairs import pairs
from tensorprog.limits.simplify.diagonal import on_diagonals

n = tp.Width("n")
X = np.random.default_rng(3).standard_normal((5, 3))
CHOSEN = (1, 12, 14, 15, 16, 18)
"""Seeds of networks with closed forms; 12 has two outputs and one W forward and back."""


def mlp(phi: Any = tp.relu, several: bool = False) -> tp.Network:
    h = phi(tp.dense("W", phi(tp.dense("U", tp.Input("x"), n)), n))
    return tp.Network([tp.readout("v", h), tp.readout("v", h * h)] if several else tp.readout("v", h))


def turned(a: np.ndarray) -> np.ndarray:
    """K(x', x), outputs exchanged as well."""
    return a.swapaxes(0, 1).swapaxes(-1, -2) if a.ndim == 4 else a.T


@pytest.mark.parametrize("seed", few(CHOSEN, (1, 15, 16, 18)))
def test_kernels_of_random_networks(seed: int) -> None:
    built = Builder(seed, steps=2)
    net, data = built.network(), built.data(3)
    data = {x.key: data[x.key] for x in net.inputs}
    program = net.program(data)
    names = tuple(k for k in program.outputs if k != "f")
    kernel_fn, limit = tp.kernel_fn(net), tp.limit(program)
    found = kernel_fn(data, get=names)
    parts = kernel_fn(data, get=tuple([f"ntk_{k}" for k in sorted(net._parameters)]))
    low, high = ({k: v[rows] for k, v in data.items()} for rows in (slice(2), slice(1, 3)))
    block = kernel_fn(low, high, get=names)
    for k, a in zip(names, found, strict=True):
        assert (np.abs(a - limit[k].value) <= found.error[k] + limit[k].error).all()
        assert (np.abs(a - turned(a)) <= 2 * found.error[k]).all()
        matrix = a if a.ndim == 2 else a.transpose(0, 2, 1, 3).reshape(a.shape[0] * a.shape[2], -1)
        assert np.linalg.eigvalsh(matrix).min() > -1e-13 * np.abs(matrix).max() - len(matrix) * found.error[k]
        assert (np.abs(getattr(block, k) - a[:2, 1:]) <= block.error[k] + found.error[k]).all()
    assert (np.abs(sum(parts) - found.ntk) <= sum(parts.error.values()) + found.error["ntk"]).all()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [*CHOSEN, 11, 17, 19, 22, 24, 109, 301, 320, 345, 516])
def test_random_networks_approach_their_limit(seed: int) -> None:
    """Sixteen comparisons, each of which rejects a right limit with probability 1e-3 at most: 1.6e-2 together, seeds fixed."""
    built = Builder(seed, steps=2)
    net, data = built.network(), built.data(2)
    data = {x.key: data[x.key] for x in net.inputs}
    names = tuple(k for k in net.program(data).outputs if k != "f")
    c = tp.compare(net, data, of=names, widths=[32, 64, 128], seeds=24)
    assert c.agrees, c


def test_takes_of_a_stack_that_is_convolved() -> None:
    """Facts about picks see through a stack, and what takes picks off has to as well."""
    built = Builder(59, steps=2)
    net, data = built.network(), built.data(1)
    data = {x.key: data[x.key] for x in net.inputs}
    assert np.isfinite(tp.kernel_fn(net)(data, get="ntk")).all()


def test_functions_of_several_outputs() -> None:
    def build(x: Any) -> Any:
        h = tp.relu(tp.dense("U", x, n))
        return [tp.readout("v", h), tp.readout("w", h)]

    net = tp.Network(build)
    assert tp.kernel_fn(net)(X).ntk.shape == (5, 5, 2, 2)


def test_several_outputs_are_mirrored_with_their_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    net = mlp(several=True)
    whole, limit = tp.kernel_fn(net)(X), tp.limit(net.program(X))
    for k in ("nngp", "ntk"):
        np.testing.assert_allclose(getattr(whole, k), limit[k].value, rtol=1e-12)
    monkeypatch.setattr(pairs, "BLOCK", 4)
    pieces = tp.kernel_fn(net)(X)
    np.testing.assert_allclose(pieces.ntk, whole.ntk, rtol=1e-13)


@pytest.mark.parametrize("phi", few([tp.relu, tp.tanh], [tp.relu]))
def test_results_do_not_depend_on_threads(phi: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.random.default_rng(0).standard_normal((300, 4))
    found = []
    for cores in (1, 5):
        monkeypatch.setattr(machine, "cores", lambda cores=cores: cores)
        found.append(tp.kernel_fn(mlp(phi))(data))
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))


def truth(x: np.ndarray, y: np.ndarray) -> float:
    """The tangent kernel of `mlp()`, in 50 digits: Jacot's recursion."""
    import mpmath as mp

    with mp.workdps(50):
        a, c, b = (mp.fsum([mp.mpf(float(p)) * mp.mpf(float(q)) for p, q in zip(u, v, strict=True)]) / len(u)
                   for u, v in ((x, x), (x, y), (y, y)))  # fmt: skip
        theta = c
        for _ in range(2):
            rho = c / mp.sqrt(a * b)
            slope = (mp.pi - mp.acos(rho)) / (2 * mp.pi)
            c = mp.sqrt(a * b) / (2 * mp.pi) * mp.sqrt(1 - rho**2) + c * slope
            a, b, theta = a / 2, b / 2, c + theta * slope
        return float(theta)


@pytest.mark.parametrize("d", [3, 50])
@pytest.mark.parametrize("distance", [1e-3, 1e-5, 1e-7, 3e-8, 1e-8, 1e-9])
def test_errors_of_nearly_equal_examples(d: int, distance: float) -> None:
    """A correlation of 1 - 1e-16 has an angle of 1e-8, and none of it is in the products x.x'."""
    x, z = np.random.default_rng(1).standard_normal((2, d))
    y = x + distance * z
    found = tp.kernel_fn(mlp())([x, y])
    assert abs(found.ntk[0, 1] - truth(x, y)) <= found.error["ntk"] <= 1e-6


def test_equal_examples_have_no_such_error() -> None:
    found = tp.kernel_fn(mlp())([X[0], X[0], -X[1], X[1]])
    assert found.ntk[0, 0] == pytest.approx(found.ntk[0, 1], abs=1e-15) and found.error["ntk"] < 1e-13
    assert 0 < tp.kernel_fn(mlp())(X[:1]).error["ntk"] < 1e-13


@pytest.mark.parametrize("phi", [tp.relu, tp.erf, tp.tanh])
def test_single_precision(phi: Any) -> None:
    exact, rough = tp.kernel_fn(mlp(phi))(X), tp.kernel_fn(mlp(phi))(X, dtype=np.float32)
    for k in ("nngp", "ntk"):
        difference = np.abs(getattr(exact, k) - getattr(rough, k))
        assert getattr(rough, k).dtype == np.float32
        assert (difference <= 1e-5 * np.abs(getattr(exact, k)).max()).all()
        assert difference.max() <= rough.error[k] <= 1e-4


@pytest.mark.parametrize("seed", few([516, 538], [516]))
def test_errors_of_equal_examples(seed: int) -> None:
    """In float32, too, equal examples have correlations below 1; moved covariances may be indefinite."""
    built = Builder(seed, steps=2)
    net, data = built.network(), built.data(2)
    data = {x.key: np.repeat(data[x.key][:1], 2, 0) for x in net.inputs}
    exact = tp.kernel_fn(net)(data, get=("nngp",))
    rough = tp.kernel_fn(net)(data, get=("nngp",), dtype=np.float32)
    assert exact.error["nngp"] < 1e-6
    assert np.abs(exact.nngp - rough.nngp).max() <= rough.error["nngp"]


@pytest.mark.parametrize(
    ("phi", "scale"),
    [(tp.relu, 1e-150), (tp.relu, 1e-100), (tp.relu, 1e150), (tp.gelu, 1e70), (tp.erf, 1e100), (tp.erf, 1e150)],
)
def test_variances_whose_products_are_out_of_range(phi: Any, scale: float) -> None:
    """relu has degree 1; so has gelu of large numbers; erf becomes sign: degree 1, 0 off the diagonal."""
    known = 1.0 if scale < 1 else 2.0**40
    power = 1 if phi is tp.erf else 2
    small, found = (tp.kernel_fn(mlp(phi))(s * X, get="ntk") / s**power for s in (known, scale))
    rows = np.eye(5, dtype=bool) if phi is tp.erf else np.ones((5, 5), dtype=bool)
    np.testing.assert_allclose(found[rows], small[rows], rtol=1e-9)


def test_numbers_at_the_end_of_the_range() -> None:
    """gelu of large numbers is relu; larger ones have no squares."""
    found, relu = (np.asarray(tp.kernel_fn(mlp(phi))(1e150 * X, get="ntk")) for phi in (tp.gelu, tp.relu))
    np.testing.assert_allclose(found, relu, rtol=1e-12)
    with pytest.raises(tp.TensorProgramError, match="not finite"):
        tp.kernel_fn(mlp(tp.gelu))(1e160 * X, get="ntk")


# ---- files ----
def test_results_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "BLOCK", 4)
    kernel_fn, want = tp.kernel_fn(mlp()), tp.kernel_fn(mlp())(X)
    done: list[Any] = []
    put = results.Results.put

    def interrupted(self: Any, *args: Any) -> None:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(args)
        put(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(results.Results, "put", interrupted)
        with pytest.raises(KeyboardInterrupt):
            kernel_fn(X, X, out=tmp_path)
    # X against itself fills both halves with one block; what two batches left behind is something else
    with pytest.raises(tp.TensorProgramError, match="something else"):
        kernel_fn(X, out=tmp_path)
    with pytest.raises(tp.TensorProgramError, match="something else"):
        tp.kernel_fn(mlp(tp.erf))(X, X, out=tmp_path)
    assert np.array_equal(kernel_fn(X, X, out=tmp_path).ntk, kernel_fn(X, X).ntk)
    np.testing.assert_allclose(np.load(tmp_path / "ntk.npy"), want.ntk, rtol=0, atol=1e-7)  # no exact diagonal
    (tmp_path / "ntk.npy").write_bytes((tmp_path / "ntk.npy").read_bytes()[:-8])
    with pytest.raises(tp.TensorProgramError, match="damaged"):
        kernel_fn(X, X, out=tmp_path)
    (tmp_path / "done.json").write_text("{")
    with pytest.raises(tp.TensorProgramError, match="damaged"):
        kernel_fn(X, X, out=tmp_path)
    gram = kernel_fn(gram=X @ X.T / 3, out=tmp_path / "gram")
    np.testing.assert_allclose(np.load(tmp_path / "gram" / "ntk.npy"), want.ntk, rtol=1e-12)
    np.testing.assert_allclose(gram.nngp, want.nngp, rtol=1e-12)


def test_networks_that_mix_examples_have_no_files(tmp_path: Path) -> None:
    net = tp.Network(tp.readout("v", tp.relu(tp.batch_norm(tp.dense("U", tp.Input("x"), n)))))
    with pytest.raises(tp.TensorProgramError, match="mixes the examples"):
        tp.kernel_fn(net)(X, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert tp.kernel_fn(net)(X, get="nngp", dtype=np.float32).dtype == np.float32


# ---- what users get wrong ----
WRONG: dict[str, dict[str, Any]] = {
    "no data": {"X1": None},
    "no names": {"get": ()}, "a name twice": {"get": ("ntk", "ntk")}, "no name": {"get": 3}, "None": {"get": None},
    "no examples": {"X1": []}, "a number too large": {"X1": [[10**400]]}, "other features": {"X2": X[:, :2]},
    "no type": {"dtype": "foo"}, "no folder": {"out": 3},
    "text": {"X1": None, "gram": "a"}, "imaginary": {"X1": None, "gram": 1j * np.eye(2)},
    "nothing": {"X1": None, "gram": np.zeros((0, 0))}, "two matrices": {"X1": None, "gram": (np.eye(2), np.eye(2))},
    "correlation 2": {"X1": None, "gram": [[1, 2], [2, 1]]}, "negative": {"X1": None, "gram": -np.eye(2)},
    "correlation 18": {"X1": None, "gram": (np.eye(2) / 2, 9 * np.eye(2), np.eye(2))},
    "uneven": {"X1": None, "gram": [[1, 0.1], [0.2, 1]]},
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_calls_that_make_no_sense(what: str) -> None:
    with pytest.raises(tp.TensorProgramError, match=Path(__file__).name):
        tp.kernel_fn(mlp())(**{"X1": X, **WRONG[what]})


def test_inner_products_of_orthogonal_examples_need_not_be_symmetric_to_the_last_bit() -> None:
    gram = np.array([[1, 1e-17], [-2e-17, 1]])
    assert tp.kernel_fn(mlp())(gram=gram, get="nngp")[0, 1] == tp.kernel_fn(mlp())(gram=np.eye(2), get="nngp")[0, 1]


def test_correlation_one_is_a_multiple() -> None:
    """x' = 2x, -x, 0."""
    found = tp.kernel_fn(mlp())([X[0], 2 * X[0], -X[0], 0 * X[0]], get="nngp")
    s = X[0] @ X[0] / 3 / 4
    np.testing.assert_allclose(found[0, :2], [s, 2 * s], rtol=1e-14)
    assert np.abs(found[3]).max() == 0 and found[0, 2] == pytest.approx(s / np.pi, rel=1e-12)


# ---- scalars that vanish off a diagonal ----
def scalars(rng: np.random.Generator, sparse: bool = False) -> list[Any]:
    """Random contractions of arrays, some diagonal or with other zeros, under sums, products, functions, picks and views."""

    def any_of(items: Any) -> Any:
        return items[int(rng.integers(len(items)))]

    def leaf() -> Any:
        names = tuple(rng.permutation(list("ijkl"))[: int(rng.integers(1, 4))].tolist())
        a = rng.standard_normal((3,) * len(names))
        a = np.diag(rng.standard_normal(3)) if len(names) == 2 and rng.random() < 0.6 else a
        a = a * (rng.random(a.shape) < 0.5) if sparse else a
        return tp.array(a, axes=names) * (unknown if rng.random() < 0.7 else 1)

    unknown = Expression(strategies.X)
    pool = [leaf() for _ in range(5)]
    for _ in range(8):
        a, b = any_of(pool), any_of(pool)
        names = list(a.axes)
        kind = any_of(
            ["mul", "mul", "add", "fn", "sum", "pick", "exchange", "diagonal"] if len(names) > 1 else ["mul", "add"]
        )
        p, q = sorted(rng.permutation(len(names))[:2].tolist()) if len(names) > 1 else (0, 0)
        match kind:
            case "mul":
                y = a * b
            case "add":
                y = a + b
            case "fn":
                y = tp.cos(a) * tp.tanh(b)
            case "sum":
                y = tp.sum(a, names[p])
            case "pick":
                y = tp.pick(a, names[p], rng.integers(0, 3, 3).tolist())
            case "exchange":
                y = tp.rename(a, **{names[p]: names[q], names[q]: names[p]})
            case _:
                index = [i if i < q else p if i == q else i - 1 for i in range(len(names))]
                y = Expression(
                    algebra.view(a.aligned_node(), index, (3,) * (len(names) - 1)), names[:q] + names[q + 1 :]
                )
        pool.append(y if len(y.axes) < 5 else a)
    return [(tp.sum(y) if y.axes else y).node for y in pool[5:]] + [y.aligned_node() for y in pool[-2:]]


def test_diagonals_of_random_scalars() -> None:
    for seed in range(90):
        outputs = scalars(np.random.default_rng(seed), sparse=seed % 3 == 2)
        for x, y in zip(outputs, on_diagonals(outputs), strict=True):
            a, b = dense(x), dense(y)
            assert x.shape == y.shape and (np.abs(a - b) <= 1e-12 * (1 + np.abs(a).max())).all(), seed


def dense(node: Any) -> np.ndarray:
    values: dict[Any, np.ndarray] = {}
    for y in topological([node]):
        values[y] = np.asarray(0.7 if y == strategies.X else kernel(y)(*[values[a] for a in y.args]))
    return np.broadcast_to(values[node], node.shape)
