"""Random programs: the exact limit, the population limit and a lazy run at width 10^5 agree.

Hypothesis draws the programs, derandomised, and every run has a fixed seed, so that the tests pass or fail alike
everywhere. Were all of it drawn anew, a correct package would fail with probability below `FAMILY` = 1e-3 (a Bonferroni
bound with t quantiles over `COMPARISONS` entries). The scalar n**-1/2 of a program is 0 in the limit: a finite width is
given 12 n**-1/2 for it, in units of the outputs' size.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from scipy import stats
from strategies import M, N, V, programs

import tensorprog as tp

FAMILY = 1e-3
COMPARISONS = 20_000
REPLICATES = 16
LEVEL = FAMILY / COMPARISONS
BAR = float(stats.t.isf(LEVEL / 2, REPLICATES - 1))
WIDTH, SEEDS = 10**5, 16
FINITE_BAR = float(stats.t.isf(LEVEL / 2, SEEDS - 1))

options = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


def difference(name, a, b, error, p):
    """The entry that disagrees most, as a message."""
    gap = np.abs(a - b)
    worst = np.unravel_index(np.argmax(gap / error), gap.shape)
    return f"{name}{list(worst)}: {a[worst]!r} and {b[worst]!r}, allowed {error[worst]:.2e}\n{p}"


def routes(p: tp.Program) -> tuple[Mapping[str, tp.Estimate], Mapping[str, tp.Estimate]]:
    samples = 2**9 if any(x.op == "outer" for x in p.nodes) else 2**11  # an OuterNonlin takes all pairs of samples
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the population's warnings about Sobol dimensions
        return tp.limit(p, samples=2**9, replicates=REPLICATES), tp.limit(
            p, method="population", samples=samples, replicates=REPLICATES, rng=1
        )


def check_limits(p: tp.Program) -> Mapping[str, tp.Estimate]:
    exact, sampled = routes(p)
    for name in p:
        a, b = [np.asarray(r[name].value, dtype=float) for r in (exact, sampled)]
        assert a.shape == b.shape == p.outputs[name].node.shape
        if exact[name].method == "population":
            assert "declined" in exact[name].note
            continue
        error = (
            BAR * np.asarray(sampled[name].error)
            + 3 * np.asarray(exact[name].error, dtype=float)
            + 1e-10 * (1 + np.abs(a))
        )
        assert np.all(np.abs(a - b) <= error), difference(name, a, b, error, p)
    return exact


def check_width(p: tp.Program, limits: Mapping[str, tp.Estimate]) -> None:
    n = 1000 if any(x.op == "outer" for x in p.nodes) else WIDTH  # an OuterNonlin costs n^2
    runs = tp.run(p, n=n, seeds=SEEDS, weights="lazy")
    for name in p:
        a, draws = np.asarray(limits[name].value, dtype=float), np.asarray(runs[name], dtype=float)
        spread = draws.std(0, ddof=1) / np.sqrt(SEEDS)
        # n**-1/2 itself converges to 0 as slowly as this, and the seeds may have a small spread by chance
        size = 1 + np.abs(a)
        error = np.minimum(FINITE_BAR * spread, 60 * size / np.sqrt(n * SEEDS)) + 12 * size / np.sqrt(n)
        error = error + 5 * np.asarray(limits[name].error, dtype=float)
        assert np.all(np.abs(draws.mean(0) - a) <= error), difference(name, draws.mean(0), a, error, p)


def check_order(p: tp.Program) -> None:
    names = list(p)
    again = tp.Program({name: p.outputs[name] for name in reversed(names)})
    both, alone = [tp.limit(q, samples=2**9, replicates=2) for q in (p, again)]
    one = tp.limit(tp.Program({names[0]: p.outputs[names[0]]}), samples=2**9, replicates=2)
    for name in names:
        for other in (alone, one) if name == names[0] else (alone,):
            if both[name].method != "population":
                np.testing.assert_array_equal(np.asarray(both[name].value, float), np.asarray(other[name].value, float))


def check_adjointness(p: tp.Program) -> None:
    """rho E[Z^u Z^{A v}] = E[Z^{A.T u} Z^v] for A of m rows, rho = m/n, after any program that used A too."""
    inside = [tp.Vector("left", M, var=1), tp.Vector("right", N, mean=1)]
    c = tp.tanh(tp.Expression(p.outputs["last"].node, ()))
    u = tp.tanh(V @ tp.relu(V.T @ inside[0] + inside[1])) + inside[0]
    v = tp.erf(V.T @ (c * u)) + inside[1]
    found = tp.limit(
        tp.Program(a=tp.moment(u * (V @ v)), b=tp.moment((V.T @ u) * v)), method="auto", samples=2**9, replicates=2
    )
    a, b = [float(found[k].value) for k in "ab"]
    assert a / 2 == pytest.approx(b, abs=3 * float(found["a"].error + found["b"].error) + 1e-10)


# ---- a few programs of each kind, and many ----

ordered = programs(max_instructions=6, floats=False, kinked=False)
plain = programs(max_instructions=6, axes=False, scalars=False)


@settings(options, max_examples=12)
@given(programs(max_instructions=9))
def test_the_exact_limit_is_the_populations(p):
    check_limits(p)


@settings(options, max_examples=6)
@given(programs(max_instructions=8, updates=True))
def test_the_exact_limit_with_updated_matrices_is_the_populations(p):
    check_limits(p)


@settings(options, max_examples=8)
@given(programs(max_instructions=6))
def test_the_exact_limit_is_that_of_wide_networks(p):
    check_width(p, tp.limit(p, samples=2**11, replicates=REPLICATES))


@settings(options, max_examples=8)
@given(ordered)
def test_dead_code_and_the_order_of_outputs_change_nothing(p):
    check_order(p)


@settings(options, max_examples=8)
@given(plain)
def test_adjointness(p):
    check_adjointness(p)


@pytest.mark.slow
@pytest.mark.timeout(600)
@settings(options, max_examples=80)
@given(programs(updates=True))
def test_many_more_with_updated_matrices(p):
    check_limits(p)


@pytest.mark.slow
@pytest.mark.timeout(600)
@settings(options, max_examples=150)
@given(programs())
def test_many_more_random_programs(p):
    check_limits(p)


@pytest.mark.slow
@settings(options, max_examples=30)
@given(programs(max_instructions=8))
def test_many_more_wide_networks(p):
    check_width(p, tp.limit(p, samples=2**11, replicates=REPLICATES))


@pytest.mark.slow
@settings(options, max_examples=25)
@given(ordered)
def test_more_dead_code_and_orders_of_outputs(p):
    check_order(p)


@pytest.mark.slow
@settings(options, max_examples=30)
@given(plain)
def test_more_adjointness(p):
    check_adjointness(p)
