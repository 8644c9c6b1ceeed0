"""Sweeps over hyperparameters: minima and their errors, common random numbers, statuses, folders, published logs."""

import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
from marks import refused

import tensorprog as tp
from tensorprog.analysis.bests import next_value, valley
from tensorprog.progress import Interrupted

N = tp.Width("n")
RNG = np.random.default_rng(3)
X, Y = RNG.standard_normal((3, 4)), RNG.standard_normal(3)
GOLDEN = Path(__file__).parent / "golden"
INF = math.inf


def mlp(hidden, phi):
    h = tp.Input("x")
    for layer in range(hidden):
        h = phi(tp.dense(f"W{layer}", h, N))
    return tp.Network(tp.readout("v", h))


def linear(parametrization="mup", **options):
    """f of one example, one hidden layer, no activation."""
    options = {"steps": 4, "lr": 0.1, "parametrization": parametrization} | options
    return tp.sgd(mlp(1, lambda h: h), [[1]], [1], **options)


def small(**options):
    """A sampled limit that takes milliseconds, in `QUICK`."""
    options = {"steps": 2, "lr": 0.1, "parametrization": "mup"} | options
    return tp.sgd(mlp(1, tp.tanh), [[1], [2]], [1, -1], **options)


QUICK = {"samples": 64, "replicates": 2}


def descent(lr, steps=4):
    """The same limit by hand: Tensor Programs IV, corollary 6.2, in dual numbers (value, derivative in lr)."""
    a, b, c, d = np.array([1.0, 0]), np.zeros(2), np.zeros(2), np.array([1.0, 0])
    rate = np.array([lr, 1.0])
    times = lambda x, y: np.array([x[0] * y[0], x[0] * y[1] + x[1] * y[0]])  # noqa: E731
    for _ in range(steps):
        chi = times(rate, times(a, c) + times(b, d) - [1, 0])
        a, b, c, d = a - times(chi, c), b - times(chi, d), c - times(chi, a), d - times(chi, b)
    error = times(a, c) + times(b, d) - [1, 0]
    return times(error, error) / 2


# ---- minima ----


@pytest.mark.parametrize(("step", "refined"), [(0.05, 0), (0.35, 0), (0.7, 0), (0.35, 4), (0.7, 12)])
def test_minima_are_where_they_are_said_to_be(step, refined):
    """Losses of gradient descent, with their cliffs; every one within its error, which shrinks as values are added."""
    rng = np.random.default_rng(0)
    sizes = []
    for _ in range(40):
        lam, c, steps = np.exp(rng.normal(size=4)), rng.normal(size=4), rng.integers(1, 12)
        x = np.arange(-5, 5, step) + rng.uniform(0, step)

        def loss(x, lam=lam, c=c, steps=steps):
            return (c**2 * (1 - np.exp(np.atleast_1d(x))[:, None] * lam) ** (2 * steps)).sum(1)

        for _ in range(refined):
            more = next_value(np.exp(x), loss(x)[None])
            x = np.sort(np.append(x, np.log(more)))
        found = valley(np.exp(x), loss(x)[None]).best
        i = int(np.argmin(loss(x)))
        fine = np.linspace(x[i - 1], x[i + 1], 2001)
        truth = fine[int(np.argmin(loss(fine)))]
        sizes.append(found.error / found.value)
        assert abs(np.log(found.value) - truth) <= sizes[-1] + (fine[1] - fine[0])
    assert np.median(sizes) < 1.3 * step * 0.7**refined + 1e-3


def test_places_are_known_better_than_losses():
    """Curves (x - a)^2 + b with large b: the spread of b is no error of the place."""
    rng = np.random.default_rng(1)
    x = np.linspace(-1, 1, 41)
    a, b = 0.02 * rng.standard_normal(64), 100 + 10 * rng.standard_normal(64)
    found = valley(x, (x - a[:, None]) ** 2 + b[:, None]).best
    assert abs(found.value - a.mean()) < 1e-6 and 0.5 < found.error / (a.std(ddof=1) / 8) < 2


def test_errors_of_places_are_those_of_other_draws():
    """Brackets that the golden section has made smaller than the spread: errors and spreads of 200 sets of curves."""
    rng = np.random.default_rng(2)
    found = []
    for _ in range(200):
        a, b = rng.normal(0.3, 0.2, (2, 8, 1))
        x = np.linspace(-2, 2, 9)
        curves = lambda x, a=a, b=b: np.cosh(x - a) + 0.3 * b * x  # noqa: E731
        for _ in range(14):
            x = np.sort(np.append(x, next_value(x, curves(x))))
        found.append(valley(x, curves(x)).best)
    spread = np.std([e.value for e in found], ddof=1)
    assert 0.8 < np.sqrt(np.mean([e.error**2 for e in found])) / spread < 1.6


def test_published_learning_rates():
    """Best rates by width, and their slopes, of other people's runs: see tests/golden/README.md."""
    stored = np.load(GOLDEN / "mup_mlp_demo.npz")
    found = {}
    for name in ("mup", "sp"):
        losses = dict(zip(stored["widths"].tolist(), stored[name], strict=True))
        found[name] = tp.Sweep.of_losses("lr", 2.0 ** stored["log2lr"], losses, ceiling=1)
        assert "diverged" in found[name].status[8192]
    octaves = {
        k: [None if e is None else round(math.log2(e.value), 2) for e in s.best.values()] for k, s in found.items()
    }
    assert octaves == {
        "mup": [-4.48, -4.96, -4.25, -3.96, -3.8, -3.79],
        "sp": [-4.48, -5.48, -5.96, -6.8, -7.47, None],  # the last lies beyond the smallest rate
    }
    x = np.log2(stored["widths"])
    assert round(float(np.polyfit(x, [*octaves["sp"][:-1], -8], 1)[0]), 2) == -0.70
    stable = {k: np.polyfit(x, np.log2(list(s.largest_stable.values())), 1)[0] for k, s in found.items()}
    assert {k: round(float(v), 2) for k, v in stable.items()} == {"mup": 0.25, "sp": -0.48}
    assert found["sp"].transfers is False and abs(float(found["sp"].slope) + 0.70) < 2 * found["sp"].slope.error
    assert found["mup"].transfers is not False
    assert "DOES NOT transfer" in str(found["sp"])


# ---- the limit as a function of the rate ----


@pytest.mark.parametrize("lr", [0.45])
def test_derivatives_of_the_limit_of_linear_networks(lr):
    """Against dual numbers: the population is exact, and smooth in the rate."""
    s = tp.sweep(linear(steps=2), lr=[lr - 1e-5, lr, lr + 1e-5], refine=0)
    low, here, high = s.loss[INF]
    value, slope = descent(lr, 2)
    assert abs(here - value) < 1e-12 and abs((high - low) / 2e-5 - slope) < 1e-6


def test_finite_differences_agree_with_common_random_numbers():
    trace = small(lr=tp.Scalar("lr"))

    def slopes(rng):
        steps = [1e-3, 1e-4, 1e-5]
        rates = [0.7 + k * h for h in steps for k in (-1, 1)]
        found = tp.sweep(trace, lr=rates, rng=rng, refine=0, **QUICK)
        at = dict(zip(found.values, found.loss[INF], strict=True))
        return np.array([(at[0.7 + h] - at[0.7 - h]) / (2 * h) for h in steps])

    first, other = slopes(0), slopes(1)
    assert np.ptp(first) < 1e-6 and np.ptp(other) < 1e-6
    assert abs(first[0] - other[0]) > 1e-6  # what other samples say of the slope itself


@pytest.mark.slow
def test_the_best_rate_of_a_kernel_is_that_of_its_eigenvalues():
    """The mean of (1 - lr lambda / N)^2T (u.y)^2 / 2."""
    net = mlp(2, tp.erf)
    lam, u = np.linalg.eigh(tp.kernel_fn(net)(X, get="ntk"))
    rates = np.geomspace(0.1, 10, 200_001)
    loss = sum((1 - rates * k / 3) ** 8 * c**2 for k, c in zip(lam, u.T @ Y, strict=True)) / 6
    best = tp.tune(tp.sgd(net, X, Y, steps=4, lr=1), lr=(0.1, 10), refine=8)
    assert abs(best.value - rates[np.argmin(loss)]) < best.error < 0.05
    assert "loss" in best.note and float(best) == best.value


def test_a_best_rate_at_an_end_is_refused():
    with refused("an end"):
        tp.tune(small(), lr=(0.001, 0.01), grid=3, **QUICK)
    with refused("give one with its range"):
        tp.tune(linear(), lr=0.1)


# ---- cells ----


def test_statuses_and_what_they_are_in_json():
    s = tp.sweep(small(), lr=[0.25, 16, 1e200], widths=[16], seeds=2, refine=0, **QUICK)
    for n in (16, INF):
        assert s.status[n] == ("stable", "unstable", "diverged")
        assert np.isinf(s.loss[n][2]) and not np.isnan(s.loss[n]).any() and s.largest_stable[n] == 0.25
    text = json.dumps(s.to_json(), allow_nan=False)
    assert "diverged at step" in text and json.loads(text)["rows"][-1]["loss"][2] is None
    assert "diverged at step 1" in str(s) and "(2 of 2 seeds)" in str(s)


def test_kernel_regime_networks_are_centred_and_tend_to_the_limit():
    s = tp.sweep(tp.sgd(mlp(1, tp.erf), X, Y, steps=1, lr=0.1), lr=[0.5], widths=[1024], seeds=8, refine=0)
    assert np.all(np.abs(s.loss[1024] - s.loss[INF]) < 5 * s.error[1024])


def test_functions_programs_and_other_hyperparameters():
    def momentum(mu):
        return linear(optimizer=tp.SGD(momentum=mu), lr=0.2, steps=2)

    s = tp.sweep(momentum, mu=[0.5, 0.0], refine=0)
    assert s.values == (0.0, 0.5) and abs(s.loss[INF][0] - descent(0.2, 2)[0]) < 1e-12
    shift = tp.Scalar("shift")
    x = tp.Vector("x", N, mean=3, var=0)
    p = tp.Program(loss=tp.moment((x - shift) ** 2))
    assert abs(tp.tune(p, shift=(-10, 20)).value - 3) < 1e-2
    s = tp.sweep(small(), lr=[0.1, 0.2], widths=[8], in_limit=False, refine=0)
    assert s.widths == (8,) and s.transfers is None


def test_schedules_of_a_hyperparameter():
    rate = tp.Scalar("lr")
    scheduled = linear(lr=lambda t: rate * 0.5**t, steps=2)
    known = tp.limit(linear(lr=[0.4, 0.2], steps=2))["loss"].value[-1]
    assert abs(tp.sweep(scheduled, lr=[0.4], refine=0).loss[INF][0] - known) < 1e-12


ERRORS = {
    "two": (lambda: tp.sweep(linear(), lr=[1], mu=[1]), "one hyperparameter"),
    "none": (lambda: tp.sweep(linear()), "one hyperparameter"),
    "unknown": (lambda: tp.sweep(linear(), momentum=[0.1]), "a function that returns"),
    "a schedule": (lambda: tp.sweep(linear(lr=lambda t: 0.5**t), lr=[0.1]), "no number"),
    "an output": (lambda: tp.sweep(linear(), of="f", lr=[0.1]), "axes step, example"),
    "no output": (lambda: tp.sweep(linear(), of="g", lr=[0.1]), "no output 'g'"),
    "twice": (lambda: tp.sweep(linear(), lr=[0.1, 0.1]), "different numbers"),
    "words": (lambda: tp.sweep(linear(), lr=["a"]), "different numbers"),
    "no trace": (lambda: tp.sweep(3, lr=[0.1]), "a sweep of int"),
    "a function of something": (lambda: tp.sweep(lambda lr: lr, lr=[0.1]), "returned float"),
    "losses": (lambda: tp.Sweep.of_losses("lr", [1, 2], {8: [1]}), "for 2 values"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    make, says = ERRORS[name]
    with refused(says):
        make()


# ---- folders, pictures ----


def test_a_sweep_goes_on_from_its_folder(tmp_path, monkeypatch):
    from tensorprog.training import sweep as module

    trace, rates = small(), [0.25, 0.5, 1, 2, 4]
    options = {"widths": [8, 16], "seeds": 2, "refine": 2, **QUICK}
    fresh = tp.sweep(trace, lr=rates, **options)
    total = 2 * sum(len(fresh.rows[n].values) for n in (8, 16))
    options["out"] = tmp_path / "here"
    calls = []
    run = module.run

    def counted(*args, **keywords):
        calls.append(args)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return run(*args, **keywords)

    monkeypatch.setattr(module, "run", counted)
    with pytest.raises(Interrupted) as caught:
        tp.sweep(trace, lr=rates, **options)
    partial = caught.value.partial
    assert partial.widths[0] == 8 and "not run" in partial.status[8] + partial.status.get(16, ("not run",))
    for _ in range(2):
        assert tp.sweep(trace, lr=rates, **options).to_json() == fresh.to_json() and len(calls) == total + 1
    next((tmp_path / "here").glob("*.json")).write_text("{")
    with refused("delete it"):
        tp.sweep(trace, lr=rates, **options)


def test_the_picture_and_labelled_arrays(tmp_path):
    pytest.importorskip("matplotlib")
    xarray = pytest.importorskip("xarray")
    s = tp.sweep(small(), lr=[0.25, 0.5, 2, 16, 1e200], widths=[16, 32], seeds=2, **QUICK)
    s.plot(tmp_path / "sweep.svg")
    assert "limit" in (tmp_path / "sweep.svg").read_text() and "the slope" not in s.verdict
    data = s.to_xarray()
    assert isinstance(data, xarray.Dataset) and data["loss"].dims == ("width", "lr")
    assert str(data["status"].sel(width=INF, lr=1e200).values) == "diverged"


def test_the_command(tmp_path, capsys):
    """A rate that is a number, a hyperparameter, and a parameter of build()."""
    from tensorprog.cli import main

    path = tmp_path / "model.py"
    path.write_text(
        "import tensorprog as tp\n"
        "def build(std=1.0):\n"
        "    h = tp.tanh(tp.dense('U', tp.Input('x'), tp.Width('n'), W_std=std))\n"
        "    net = tp.Network(tp.readout('v', h))\n"
        "    return tp.sgd(net, [[1.0], [2.0]], [1, -1], steps=1, lr=0.5, parametrization='mup')\n"
    )
    quick = ["--samples", "64", "--seeds", "2", "--refine", "0"]
    assert main(["sweep", str(path), "--over", "lr=[0.25,1,4]", "--widths", "8", *quick]) == 0
    assert "largest stable" in capsys.readouterr().out
    assert main(["sweep", str(path), "--over", "std=[0.5,1]", "--json", *quick]) == 0
    assert json.loads(capsys.readouterr().out)["hyperparameter"] == "std"


def test_traces_with_a_nameless_loss_say_why_they_are_not_pickled():
    with refused("by its name"):
        pickle.dumps(small(loss=lambda f, y: (f - y) ** 2))


@pytest.mark.slow
def test_divergence_names_the_step_with_hyperparameters_too():
    trace = tp.sgd(mlp(1, tp.relu), X, Y, steps=3, lr=tp.Scalar("lr"))
    with refused("diverged at step 1 of 3"):
        tp.compare(trace, widths=[8, 16], seeds=2, values={"lr": 1e160})
    with refused("diverged at step 1 of 2"):
        tp.limit(tp.sgd(mlp(1, tp.relu), X, Y, steps=2, lr=1e160, parametrization="mup"))
