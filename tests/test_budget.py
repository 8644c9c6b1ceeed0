"""Budgets: counts that stop an answer which would take too long, and what is answered in its place."""

import math
from fractions import Fraction

import numpy as np
import pytest
from marks import refused

import tensorprog as tp
from tensorprog.limits import budget as budgets
from tensorprog.limits.budget import Budget
from tensorprog.limits.expect.expectation import Expectation
from tensorprog.limits.expect.lower import Lowering
from tensorprog.limits.tasks import Exhausted

N = tp.Width("n")
W, X = tp.Matrix("W", N, N), tp.Vector("x", N, mean=1)


def easy():
    return tp.moment(tp.relu(W @ X) ** 2)


def hard(depth=2):
    x = X
    for _ in range(depth):
        x = W.T @ tp.tanh(W @ x)
    return tp.moment(x * x)


def test_what_is_over_budget_goes_to_the_population_and_the_others_do_not():
    both = tp.Program(hard=hard(), easy=easy())
    found = tp.limit(both, budget=1e-3, samples=2**8, replicates=4)
    assert found["easy"].value == 1 and found["easy"].method == "exact"
    assert found["hard"].method == "population"
    note = found["hard"].note
    assert "declined: expanding" in note and "terms (budget= allows more)" in note


def test_an_output_has_the_budget_that_it_has_alone():
    """Whatever comes first: content orders the instructions, and each counts what those below it have cost."""
    many = tp.Program({f"m{k}": tp.moment(tp.tanh((k + 1) * (W @ X)) ** 2) for k in range(30)})
    cost = Lowering(tp.Program(m=many.outputs["m0"]), {}).expectation.budget.expansions
    lowering = Lowering(many, {}, Expectation(budget=Budget(1.5 * cost / budgets.EXPANSIONS)))
    assert lowering.expectation.budget.expansions > 5 * cost and not lowering.declined


def test_budgets_allow_more():
    p = tp.Program(m=hard())
    with refused("budget="):
        tp.limit(p, method="exact", budget=5e-4)
    for factor in (2.5, math.inf):
        assert tp.limit(p, method="exact", budget=factor)["m"].kind == "bound"


@pytest.mark.parametrize("wrong", [0, -1, math.nan, "1", None, True, [1]])
def test_what_is_no_budget(wrong):
    with refused("budget="):
        tp.limit(tp.Program(m=easy()), budget=wrong)


def test_evaluations_are_counted(monkeypatch):
    p = tp.Program(m=tp.moment(tp.tanh(W @ X) * tp.cos(tp.sigmoid(X + (W @ X) ** 3))), easy=tp.moment(X))
    assert tp.limit(p)["m"].method == "quadrature"
    monkeypatch.setattr(budgets, "EVALUATIONS", 100)
    found = tp.limit(p, samples=2**8, replicates=4)
    assert found["easy"].method == "exact"
    assert "an integral in 2 variables takes more than 100 evaluations (budget= allows more)" in found["m"].note


def test_what_was_not_answered_is_not_remembered():
    lowering = Lowering(tp.Program(m=hard()), {}, Expectation(budget=Budget(1e-3)))
    assert lowering.declined
    assert not any(isinstance(v, Exhausted) for v in lowering.expectation.solver.memo.values())


def logistic(start, steps):
    c = tp.moment(tp.Vector("z", N, var=start) ** 2)
    for _ in range(steps):
        c = 4 * c * (1 - c)
    return c


def test_rational_numbers_do_not_grow_without_end():
    """The digits of a scalar that is squared double in every step."""
    short = tp.limit(tp.Program(c=logistic(Fraction(3, 10), 8)))["c"]
    assert short.kind == "exact" and "/" in repr(short)
    c = Fraction(3, 10)
    for _ in range(8):
        c = 4 * c * (1 - c)
    assert short.value == c
    found = tp.limit(tp.Program(c=logistic(Fraction(3, 10), 60), easy=tp.moment(X)), samples=2**8, replicates=4)
    assert found["c"].method == "population" and "more than 4200 digits" in found["c"].note
    assert found["easy"].kind == "exact"


@pytest.mark.parametrize("base", [3, Fraction(2, 3)])
def test_numbers_of_too_many_digits_are_refused_before_they_are_made(base):
    c = tp.moment(X) * base**200
    with refused("4200 digits"):
        (c**200) ** 200 if isinstance(base, int) else c**190


def test_the_first_population_is_counted_before_it_is_run(monkeypatch):
    """Fewer samples where the usual ones are over budget; refused where the fewest are; the user's own number stays."""
    from tensorprog.limits import routes

    p, n = tp.Program(hard=hard()), 2**12 * 16
    cost = routes.population_cost(p, 2**12, 16)
    monkeypatch.setattr(routes, "FIRST", cost / 4)
    found = tp.limit(p, method="population")["hard"]
    assert "replicates of 1024 samples" in found.note and "budget=" in found.note
    monkeypatch.setattr(routes, "FIRST", cost / n)
    with refused(r"within the budget") as error:
        tp.limit(p, method="population")
    assert "budget=" in str(error.value) and "256 samples" in str(error.value)
    assert "of 512 samples" in tp.limit(p, method="population", samples=512, replicates=2)["hard"].note


def test_products_with_all_others_cost_what_they_cost_as_matrix_products():
    """Their entries count for the population, and less than those of arrays that are made."""
    from tensorprog.limits.routes import FUSED, population_cost

    n = tp.Width("n")
    x = tp.Vector("x", n, axes={"t": 64})
    h = tp.tanh(x)
    gram, one = tp.Program(k=tp.moment(h * tp.rename(h, t="s"))), tp.Program(k=tp.moment(h))
    assert population_cost(gram, 1, 1) - population_cost(one, 1, 1) == 64 * 64 * FUSED


def test_enclosures_and_panels_count_as_evaluations():
    """An integral with many turns takes panels by the thousand: over budget the population answers, and the note says why."""
    p = tp.Program(q=tp.moment(tp.cos(1e9 * X * X)))
    with refused("an integral in 1 variable takes more than"):
        tp.limit(p, method="exact", budget=0.01)
    found = tp.limit(p, budget=0.01, samples=2**8, replicates=4)["q"]
    assert found.method == "population" and "evaluations (budget= allows more)" in found.note


def test_what_kernels_really_cost_is_counted(monkeypatch):
    """Whether it shows when errors are measured or when all pairs are done: the population answers, or it is refused."""
    from tensorprog.kernels import function as kernels

    x, n = tp.Input("x"), tp.Width("n")
    net = tp.Network(tp.readout("v", tp.tanh(tp.relu(tp.dense("U", x, n)) - 0.3)))
    data = np.random.default_rng(0).standard_normal((3, 4))
    spent = []
    evaluate = Budget.evaluate
    monkeypatch.setattr(
        Budget, "evaluate", lambda self, points, what: (spent.append(points), evaluate(self, points, what))
    )
    assert tp.kernel_fn(net)(data, get=("nngp",)).method == {"nngp": "quadrature"}
    total, last = sum(spent), spent[-1]
    for allowed in (total / 2, total - last / 2):
        monkeypatch.setattr(kernels, "COUNTED", allowed / budgets.EVALUATIONS)
        found = tp.kernel_fn(net)(data, get=("nngp",))
        assert found.method == {"nngp": "population"} and "evaluations" in found.note["nngp"]
        with refused("exact route"):
            tp.kernel_fn(net, method="exact")(data)


def test_long_programs_do_not_look_below_every_instruction():
    """All that was spent before, 100 times the first allowance, is no reason to walk the graph: heights bound it."""
    asked = []
    budget = Budget()
    for height in range(1, 40_000):
        with budget.share(height, lambda: asked.append(1) or (0, 0), lambda: "a sum"):
            budget.expand(3 * budgets.EACH // 4)  # less than every instruction is allowed
    assert budget.expansions > 90 * budgets.EXPANSIONS and not asked
    with pytest.raises(Exhausted, match="a sum takes"), budget.share(5, lambda: (7, 0), lambda: "a sum"):
        budget.expand(2 * budgets.EXPANSIONS)
    with budget.share(5, lambda: (10_000, 0), lambda: "a sum"):
        budget.expand(2 * budgets.EXPANSIONS)
