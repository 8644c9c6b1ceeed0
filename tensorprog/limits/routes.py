"""Which route answers: the choice by error for its cost, and a record of what was tried.

A route is a way to a number: closed forms and quadrature, sampled integrals, a population. What each costs is a count of numbers
computed, known before it is taken and never a time, so that the same route answers on every machine. Of two answers the one with
the smaller error is kept; where neither is good enough, samples are added to the one that needs fewer operations to get there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.estimate import Estimate, note
from tensorprog.execute.compiled import compiled
from tensorprog.language.program import Program
from tensorprog.limits.budget import is_positive
from tensorprog.limits.gauss.integrand import POINTS
from tensorprog.limits.populations import population_estimates

__all__ = [
    "FEWEST_POINTS",
    "GOOD",
    "GROWTH",
    "METHODS",
    "OPERATIONS",
    "ROUGH",
    "Attempt",
    "Exact",
    "Record",
    "Search",
    "better",
    "checked_method",
    "checked_tolerance",
    "population_cost",
    "relative",
    "worst",
]

METHODS = ("auto", "exact", "population")
ROUGH = 1e-4
"""Relative error beyond which another route is tried."""
GOOD = 1e-2
"""Relative error that samples are added for, where the user asks for none."""
OPERATIONS = 2**31
"""Numbers computed for samples of one output, with a budget of 1: seconds."""
SAMPLES = 2**12
"""Samples of a population, at first."""
FEWEST_SAMPLES = 2**8
"""The same where more are over budget, and four for every direction that the program needs."""
FIRST = 2**33
"""Numbers computed for the first population of an output, with a budget of 1: a minute."""
FUSED = 1 / 32
"""What a number costs that is made inside a matrix product, next to others, as measured."""
DRAWN = 4
"""What a number costs that is drawn, next to others, as measured."""
GROWTH = 4
"""Samples are added by this factor."""
UNASKED = 2**26
"""The same where no error was asked for, and what is added then."""
CHEAP = 2**27
"""Sampled integrals that cost less are evaluated without asking what a population costs."""
DEARER = 30
"""Those that cost more than this many populations come after it, and only where it is not good enough."""
MOST_POINTS = 2**20
"""Points of a replicate of a sampled integral, at most: they are in memory together."""
FEWEST_POINTS = 2**8
"""Points of a replicate, at least, where the usual number is over budget."""
RATE = 0.75
"""Errors are promised to fall with this power of the cost: between plain sampling, 1/2, and smooth integrands, 1."""
NEGLIGIBLE = 1e-13
"""An error that no sampling would lower, whatever the value: what is 0 up to rounding."""


@dataclass(frozen=True)
class Attempt:
    """One route, tried or not, for one output.

    Attributes:
        output: The output's name.
        route: `exact` (closed forms, quadrature), `sampled integrals` or `population`.
        cost: Numbers computed: nodes of integrands times points; instructions times samples. 0 where it is not counted.
        error: The largest error of an entry; nan where there is no answer.
        outcome: `kept`, `declined`, `worse` or `too costly`.
        why: The reason, in a sentence fragment.
    """

    output: str
    route: str
    cost: float
    error: float
    outcome: str
    why: str = ""


class Record:
    """What was tried for every output, in order.

    Example:
        >>> record = Record()
        >>> record.add(Attempt("q", "population", 4096.0, 1e-3, "kept"))
        >>> record
        q: population: error 0.001, 4.1e+03 operations: kept
    """

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []

    def add(self, attempt: Attempt) -> None:
        """One more."""
        self.attempts.append(attempt)

    def of(self, output: str) -> list[Attempt]:
        """What was tried for one output."""
        return [a for a in self.attempts if a.output == output]

    def __iter__(self) -> Iterator[Attempt]:
        return iter(self.attempts)

    def __len__(self) -> int:
        return len(self.attempts)

    def __repr__(self) -> str:
        lines = []
        for a in self.attempts:
            error = "no answer" if np.isnan(a.error) else f"error {a.error:.1g}"
            cost = f", {a.cost:.2g} operations" if a.cost else ""
            lines.append(f"{a.output}: {a.route}: {error}{cost}: {a.outcome}" + (f" ({a.why})" if a.why else ""))
        return "\n".join(lines)


def worst(estimate: Estimate) -> float:
    """The largest error of an entry; infinite where a value is not finite."""
    if estimate.kind == "exact":
        return 0.0
    error = float(np.max(estimate.error, initial=0.0))
    return error if np.all(np.isfinite(np.asarray(estimate.value, dtype=float))) and not np.isnan(error) else np.inf


def relative(estimate: Estimate) -> float:
    """The largest error over the largest value."""
    error = worst(estimate)
    size = float(np.max(np.abs(np.asarray(estimate.value, dtype=float)), initial=0.0))
    return error / size if size > 0 else np.inf if error > 0 else 0.0


def better(new: Estimate, old: Estimate) -> bool:
    """Is the new one to be kept? A standard error is one deviation, a bound is not exceeded: it counts as three."""
    return _deviations(new) < _deviations(old)


def _deviations(estimate: Estimate) -> float:
    return worst(estimate) * (3 if estimate.kind == "standard error" else 1)


def rough(estimate: Estimate, tol: float) -> bool:
    """Is the error worth another route?"""
    sampled = estimate.kind == "standard error"
    return relative(estimate) > tol and (sampled or worst(estimate) > NEGLIGIBLE)


def population_cost(program: Program, samples: int, replicates: int) -> float:
    """Numbers that a run of the population computes: noise, entries of all instructions, products with the bases of matrices."""
    code = compiled(program, pairs=True)
    made = code.nodes
    entries = sum(
        [
            float(math.prod(x.shape)) * (1 if x in made else FUSED)
            for x in code.program.nodes
            if x.width is not None and x.op not in ("view", "take")
        ]
    )
    directions = sum([float(k) ** 2 for k in code.products().values()])
    drawn = DRAWN * sum(code.noise().values())
    pairs = float(samples) * code.pairs_of_coordinates()
    return float(samples) * replicates * (drawn + entries + directions + pairs)


def fewest_samples(program: Program) -> int:
    """With fewer samples than this a population has no room for the program's directions, or next to none."""
    columns = 2 * sum(compiled(program, pairs=True).products().values())
    columns += sum([math.prod(x.shape) for x in program.nodes if x.op == "vector"])
    return min(SAMPLES, max(FEWEST_SAMPLES, 1 << (4 * columns - 1).bit_length()))


class Exact(NamedTuple):
    """What closed forms, quadrature and sampled integrals have found.

    Attributes:
        found: Output to estimate.
        reasons: Why others have none; those that are in neither were too costly.
        costs: Numbers that sampled integrals compute, for every output that has a scalar program.
    """

    found: dict[str, Estimate]
    reasons: dict[str, str]
    costs: dict[str, float]


class Search:
    """The choice of a route for every output of a program.

    Args:
        program: The program.
        values: Numbers for its hyperparameters.
        samples: M of the population, if the user has said it: it then stays what it is.
        replicates: Of the population.
        rng: Seed.
        tol: Relative error wanted, if the user has said it.
        exact: Evaluates outputs of a program without a population: called with the program, the points of a sampled integral and
            what the sampled integrals of each output may cost.
        factor: How many times the usual number of operations is allowed.

    Attributes:
        found: The best estimate of every output so far.
        reasons: Why outputs have no exact limit.
        record: All that was tried.
    """

    def __init__(
        self,
        program: Program,
        values: Mapping[str, Any],
        samples: int | None,
        replicates: int,
        rng: int,
        tol: float | None,
        exact: Callable[[Program, int, Mapping[str, float]], Exact],
        factor: float = 1.0,
    ) -> None:
        self.program, self.values, self.replicates, self.rng, self.exact = program, values, replicates, rng, exact
        self.fixed = samples is not None
        self.samples = dict.fromkeys(program, SAMPLES if samples is None else samples)
        self.tol, self.operations = checked_tolerance(tol), OPERATIONS * factor
        self.first, self.factor = FIRST * factor, factor
        self.added = self.operations if tol is not None else UNASKED * factor
        self.points = dict.fromkeys(program, POINTS)
        self.found: dict[str, Estimate] = {}
        self.reasons: dict[str, str] = {}
        self.costs: dict[str, float] = {}
        self.sampled: set[str] = set()  # outputs that a population has answered
        self.why: dict[str, str] = {}  # why populations were taken
        self.failed: set[str] = set()  # outputs whose populations get no more samples
        self.closed: set[str] = set()  # outputs whose sampled integrals get no more points
        self.record = Record()

    def part(self, names: Sequence[str]) -> Program:
        """The program of some of the outputs."""
        return Program({name: self.program.outputs[name] for name in names})

    # ---- the routes ----
    def evaluate(self, names: Sequence[str] | None = None, allowed: float | None = None) -> None:
        """Closed forms, quadrature, and sampled integrals that cost no more than is allowed."""
        names = list(self.program) if names is None else names
        if not names:
            return
        limits = {name: self._affordable(name) if allowed is None else allowed for name in names}
        points = self.points[names[0]] if names else POINTS
        found, reasons, costs = self.exact(self.part(names), points, limits)
        self.costs |= costs
        for name in names:
            if name in reasons:
                if name not in self.found:
                    self.reasons[name] = reasons[name]
                self._log(name, "exact", 0.0, None, "declined", reasons[name])
            elif name in found:
                self.offer(name, found[name], costs[name])
            else:
                why = f"its sampled integrals take {costs[name]:.1g} operations"
                self._log(name, "sampled integrals", costs[name], None, "too costly", why)

    def evaluate_late(self, names: Sequence[str] | None = None) -> None:
        """Sampled integrals that were too costly before, with as many points as the budget has room for.

        Args:
            names: By default those that have no answer yet; where the budget has room for none, they get a reason.
        """
        waiting = [name for name in self.costs if name not in self.found and name not in self.reasons]
        for name in waiting if names is None else names:
            while self.costs[name] > self.operations and self.points[name] > FEWEST_POINTS:
                self.points[name] //= 2
                self.costs[name] /= 2
            if self.costs[name] <= self.operations:
                self.evaluate([name], self.operations)
            elif names is None:
                why = f"its sampled integrals take {self.costs[name]:.1g} operations (budget= allows more)"
                self.reasons[name] = why

    def sample_populations(self, names: Sequence[str], why: Mapping[str, str]) -> None:
        """Populations for some outputs, those that need the same number of samples in one run."""
        self.why |= why
        names = [name for name in names if name in self.sampled or self._fits(name)]
        for samples in sorted({self.samples[name] for name in names}):
            group = [name for name in names if self.samples[name] == samples]
            part = self.part(group)
            cost = population_cost(part, samples, self.replicates)
            try:
                found = population_estimates(part, self.values, samples, self.replicates, self.rng, self.why)
            except TensorProgramError as error:
                if any(name not in self.found for name in group):
                    raise
                self.failed |= set(group)
                for name in group:
                    self._log(name, "population", cost, None, "declined", str(error.args[0]).split("\n")[0])
                continue
            for name in group:
                self.sampled.add(name)
                self.offer(name, found[name], cost)

    def _fits(self, name: str) -> bool:
        """Is the first population within its budget, with fewer samples if need be? The user's number stays.

        Raises:
            TensorProgramError: It is not, and there is no other answer.
        """
        part = self.part([name])
        cost = population_cost(part, self.samples[name], self.replicates)
        if self.fixed or cost <= self.first:
            return True
        why = f"a population of {self.samples[name]} samples takes {cost:.1g} operations, more than {self.first:.1g}"
        why += " (budget= allows more)"
        fewest = fewest_samples(part)
        while cost > self.first and self.samples[name] > fewest:
            self.samples[name] //= 2
            cost /= 2
        if cost <= self.first:
            self.why[name] = note(self.why.get(name, ""), why)
            return True
        self._log(name, "population", cost, None, "too costly", why)
        if name not in self.found:
            raise TensorProgramError(
                f"no route has a limit of output {name} within the budget",
                why=note(self.reasons.get(name, ""), f"{why}; with {self.samples[name]} samples {cost:.1g}"),
                fix=f"raise budget= (to {math.ceil(cost / self.first * self.factor)}, say), or ask for fewer outputs",
                source=self.program.outputs[name].node.source,
            )
        return False

    # ---- the choice ----
    def compare(self) -> None:
        """Populations where there is no answer yet, or a poor one; then what was too costly before."""
        late = [name for name in self.program if name not in self.found and name not in self.reasons]
        why = {name: f"the exact route declined: {reason}" for name, reason in self.reasons.items()}
        why |= {name: f"sampled integrals would take {self.costs[name]:.1g} operations" for name in late}
        missing = [name for name in self.program if name not in self.found]
        if missing:
            self.sample_populations(missing, why)
        self.evaluate_late([name for name in late if rough(self.found[name], self._goal(ROUGH))])
        poor = [n for n in self.program if n not in self.sampled and rough(self.found[n], self._goal(ROUGH))]
        if poor:
            why = {name: f"{self.found[name].method} has an error of {worst(self.found[name]):.1g}" for name in poor}
            self.sample_populations(poor, why)

    def refine(self, method: str) -> None:
        """More samples for what is not good enough, on the route that promises to get there for less."""
        goal = self._goal(GOOD)
        while True:
            poor = [n for n, e in self.found.items() if e.kind != "exact" and rough(e, goal)]
            populations: list[str] = []
            integrals: list[str] = []
            for name in poor:
                routes = self._promises(name, goal, method)
                if routes:
                    (populations if min(routes)[1] == "population" else integrals).append(name)
            if not populations and not integrals:
                return
            for name in populations:
                self.samples[name] *= GROWTH
            self.sample_populations(populations, {name: self.why.get(name, "") for name in populations})
            for name in integrals:
                self.points[name] *= GROWTH
                before = len(self.record)
                self.evaluate([name], np.inf)
                if all(np.isnan(a.error) for a in self.record.attempts[before:]) or self.points[name] >= MOST_POINTS:
                    self.closed.add(name)

    def _promises(self, name: str, goal: float, method: str) -> list[tuple[float, str]]:
        """(cost to reach the goal, route) of what is to be tried: the cheapest route, or another that will get there."""
        last = {a.route: a for a in self.record.of(name) if not np.isnan(a.error)}
        open_to = {
            "population": not self.fixed and name not in self.failed,
            "sampled integrals": method != "population" and name not in self.closed,
        }
        routes = [(self._promise(name, last[r], goal), r) for r in open_to if r in last]
        cheapest = min(routes, default=(0.0, ""))[1]
        return [
            (cost, route)
            for cost, route in routes
            if open_to[route] and GROWTH * last[route].cost <= self.added and (route == cheapest or cost <= self.added)
        ]

    def _promise(self, name: str, tried: Attempt, goal: float) -> float:
        size = float(np.max(np.abs(np.asarray(self.found[name].value, dtype=float)), initial=0.0))
        ratio = tried.error / (goal * size) if size > 0 else np.inf
        with np.errstate(over="ignore"):
            return float(tried.cost * np.power(max(1.0, ratio), 1 / RATE))

    def _goal(self, default: float) -> float:
        return default if self.tol is None else self.tol

    def _affordable(self, name: str) -> float:
        population = population_cost(self.part([name]), self.samples[name], self.replicates)
        return min(self.operations, max(CHEAP, DEARER * population))

    def offer(self, name: str, estimate: Estimate, cost: float = 0.0) -> None:
        """One more estimate; the better one stays."""
        route = "population" if estimate.method == "population" else "sampled integrals" if cost else "exact"
        kept = name not in self.found or better(estimate, self.found[name])
        if kept:
            self.found[name] = estimate
        elif route == "population":
            old = self.found[name]
            remark = f"a population of {self.samples[name]} samples had an error of {worst(estimate):.1g}"
            if remark not in old.note:
                self.found[name] = replace(old, note=note(old.note, remark))
        self._log(name, route, cost, estimate, "kept" if kept else "worse")

    def _log(self, name: str, route: str, cost: float, estimate: Estimate | None, outcome: str, why: str = "") -> None:
        error = np.nan if estimate is None else worst(estimate)
        self.record.add(Attempt(name, route, cost, error, outcome, why or ("" if estimate is None else estimate.note)))


def checked_method(method: Any) -> str:
    """A method as users give it.

    Raises:
        TensorProgramError: There is none of that name.
    """
    if method not in METHODS:
        raise TensorProgramError(f"method {method!r}", fix=f"use one of {', '.join(METHODS)}")
    return str(method)


def checked_tolerance(tol: Any) -> float | None:
    """The relative error wanted, as users give it; None for what is usual.

    Raises:
        TensorProgramError: It is no number above 0.
    """
    if tol is None:
        return None
    if not is_positive(tol):
        raise TensorProgramError(
            f"tol={tol!r}",
            why="it is a relative error",
            fix="give a number above 0 (1e-3, say), or None for what is usual",
        )
    return float(tol)
