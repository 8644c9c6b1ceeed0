"""`limit`: the Master Theorem applied to a program."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tensorprog.errors import NotFinite, TensorProgramError
from tensorprog.estimate import Estimate, Estimates, note
from tensorprog.language.data import ArrayData, Embedding
from tensorprog.language.describe import describe
from tensorprog.language.functions import PRIMITIVES
from tensorprog.language.node import Node
from tensorprog.language.program import Program
from tensorprog.limits.budget import Budget
from tensorprog.limits.evaluate.alike import Alike
from tensorprog.limits.evaluate.moments import check_moments
from tensorprog.limits.evaluate.scalar import ScalarProgram, sampling_cost
from tensorprog.limits.expect.domain import check_domains, ranges
from tensorprog.limits.expect.expectation import Expectation
from tensorprog.limits.expect.floats import FloatArithmetic
from tensorprog.limits.expect.lower import Lowering
from tensorprog.limits.explain import Explanation, reasons
from tensorprog.limits.gauss.correlations import nearly_equal
from tensorprog.limits.jumps.check import check_jumps, suspects
from tensorprog.limits.pairs.estimates import estimates_by_pairs
from tensorprog.limits.pairs.pairs import SHARP
from tensorprog.limits.routes import FEWEST_POINTS, ROUGH, Exact, Search, better, checked_method, rough, worst
from tensorprog.limits.tasks import Declined, Exhausted
from tensorprog.transforms.decouple import program_for
from tensorprog.transforms.dispatch import of_networks
from tensorprog.transforms.written_out import written_out

__all__ = ["limit"]

FOLDED_RUNS = 3
"""Lowerings with moved floats, where these have lost digits."""
CHECKED = 1 / 16
"""Of the budget, what populations spend on looking for jumps that are met: zeros come out of closed forms, which are cheap."""


@of_networks()
def limit(
    program: Program,
    *,
    method: str = "auto",
    values: Mapping[str, Any] | None = None,
    gia: bool = False,
    samples: int | None = None,
    replicates: int = 16,
    rng: int | np.random.Generator | None = 0,
    tol: float | None = None,
    budget: float = 1,
) -> Estimates:
    """The infinite-width limit of every output, with its error.

    Args:
        program: The program, or a network: then its data X is the second argument, and all others are keywords,
            with `X2`, `of`, `parametrization` and `width` of `Network.program` among them.
        method: `"exact"`: lower the program by the Master Theorem and evaluate the closed forms and integrals that are left;
            `"population"`: sample it (M joint samples of every Z, independent replicates); `"auto"`: exact, and one
            population run for the outputs the exact route declines or knows poorly. Every `Estimate` says which.
        values: Numbers for the hyperparameters.
        gia: Take the limit under the gradient independence assumption: every `W.T` becomes an independent copy.
        samples: M, a power of two, for the population; by default 4096, and more where the error asks for it.
        replicates: Independent populations, at least 2; their spread is the standard error.
        rng: Seeds the population, and all else that is sampled.
        tol: The relative error wanted (of an output's largest entry). Samples are added to the route that gets there for fewer
            operations, up to a budget; what is beyond it keeps its error. By default 1%, and none where `samples` is given.
        budget: How many times the usual work an output may cost before a route declines: terms, evaluations of integrands and
            numbers sampled are counted (`limits/budget.py`, `limits/routes.py`), never seconds. `math.inf` lets it go on.

    Returns:
        A mapping from output names to `Estimate`.

    Raises:
        TensorProgramError: where a function has no value or a moment is infinite; where `method="exact"` and the exact route
            declines; where the replicates of the population disagree wildly.

    Example:
        >>> import tensorprog as tp
        >>> n = tp.Width("n")
        >>> W, x = tp.Matrix("W", n, n), tp.Vector("x", n, mean=1, var=0)
        >>> h = W @ x
        >>> tp.limit(tp.Program(mean_dx=tp.moment(W.T @ (2 * h)), h2=tp.moment(h * h)))
        mean_dx = 2 (exact)
        h2 = 1 (exact)

    Source: Master Theorem: Tensor Programs III, theorems 2.10 and E.15; ZHat and ZDot: Box 1 there.
    """
    program = program_for(program, gia)
    checked_method(method)
    bound = program.values(values)
    written = written_out(program)  # populations run the program as it is
    check_domains(written)
    rng, allowed = _seed(rng), Budget.of(budget)
    if method == "population" and suspects(written, bound):  # the Master Theorem decides there, too
        lowering = Lowering(written, bound, Expectation(budget=Budget(CHECKED * allowed.factor)))
        check_moments(lowering.expectation.unweighed)
        check_jumps(written, lowering)
    lost: dict[str, Any] = {}
    exact = lambda part, points, costs: _exact(written_out(part), bound, rng, points, costs, allowed, lost)  # noqa: E731
    search = Search(program, bound, samples, replicates, rng, tol, exact, allowed.factor)
    found = search.found
    if method == "population":
        search.sample_populations(list(program), dict.fromkeys(program, 'method="population" was asked for'))
    else:
        if samples is None:
            for name, estimate in estimates_by_pairs(written, bound, allowed, SHARP).items():
                search.offer(name, estimate)
        search.evaluate(
            [name for name in program if name not in found], search.operations if method == "exact" else None
        )
        if method == "exact":
            search.evaluate_late()
        dear = [name for name in program if name in search.reasons and name in search.costs]
        if dear and samples is None:  # a few pairs of examples have bounds, and speak for all
            part = written_out(search.part(dear))
            for name, estimate in estimates_by_pairs(part, bound, allowed, ROUGH, least=0).items():
                del search.reasons[name]
                search.offer(name, estimate)
        if search.reasons and method == "exact":
            name, reason = next(iter(search.reasons.items()))
            raise TensorProgramError(
                f"the exact route has no limit for output {name}: {reason}",
                why="it evaluates closed forms and Gaussian integrals in few variables",
                fix='use method="auto" or "population"',
                source=program.outputs[name].node.source,
            )
        if method == "auto":
            search.compare()
    search.refine(method)
    for name, error in lost.items():
        found[name] = _widened(found[name], error)
    for name, remark in _outside(written).items():
        found[name] = replace(found[name], note=note(found[name].note, remark))
    axes = {name: o.axes for name, o in program.outputs.items()}
    answers = {name: found[name] for name in program}

    def explain() -> Explanation:
        out = {}
        for name, o in program.outputs.items():
            alone = written_out(Program({name: o}))
            lowered = lambda rules, alone=alone: Lowering(alone, {k: bound[k] for k in alone.scalars}, rules)  # noqa: E731
            out[name] = reasons(lowered, alone.outputs[name].node, answers[name], search.record.of(name))
        return Explanation(out)

    return Estimates(answers, axes, search.record, explain)


def _seed(rng: Any) -> int:
    """A seed for all that is sampled; a generator is asked for one."""
    if isinstance(rng, np.random.Generator):
        return int(rng.integers(2**31))
    if rng is None:
        return 0
    if isinstance(rng, (int, np.integer)) and not isinstance(rng, bool) and rng >= 0:
        return int(rng)
    raise TensorProgramError(
        f"rng is {rng!r}", fix="give a seed (an integer of at least 0), a NumPy generator, or None"
    )


def _outside(program: Program) -> dict[str, str]:
    """A note for every output that contains exp of an unbounded vector, which no version of the Master Theorem covers."""
    known, reached = ranges(program), set()
    for x in program.nodes:
        growing = x.op == "fn" and x.width is not None and PRIMITIVES[x.attr.name].growth == "exponential"
        if (growing and known[x].degree > 0) or any(a in reached for a in x.args):
            reached.add(x)
    note = "exp of a Gaussian is outside the Master Theorem as proven"
    return {name: note for name, o in program.outputs.items() if o.node in reached}


def _exact(
    program: Program,
    values: Mapping[str, Any],
    rng: int,
    points: int,
    allowed: Mapping[str, float],
    budget: Budget,
    lost: dict[str, Any],
) -> Exact:
    """Closed forms and integrals; outputs whose sampled integrals cost more than is allowed are left out.

    `lost` takes what the rounding of floats that were folded while lowering makes of an output, whatever the route.
    """
    lowering = Lowering(program, values, Expectation(budget=budget.renewed()))
    check_moments(lowering.expectation.unweighed)
    check_jumps(program, lowering)
    uncertain = {name for name, o in program.outputs.items() if lowering.floats.reaches(o.node)}
    found, reasons, costs = _by_route(program, lowering, rng, points, allowed, budget)
    poor = [name for name, e in found.items() if e.kind in ("rounding", "bound") and rough(e, ROUGH)]
    if poor:  # closed forms inside an integral cancel, as those of rare events do: integrate them, too
        part = Program({name: program.outputs[name] for name in poor})
        lowering = Lowering(part, values, Expectation(budget.renewed(), reduce=False))
        check_moments(lowering.expectation.unweighed)
        again, _, _ = _by_route(part, lowering, rng, points, allowed, budget)
        found |= {name: e for name, e in again.items() if better(e, found[name])}
    if uncertain:
        part = Program({name: program.outputs[name] for name in program if name in uncertain})
        for moved in _moved(part, values, budget):
            for name, estimate in found.items():
                if estimate.kind != "exact" and name in uncertain:
                    with np.errstate(invalid="ignore"):  # what is not finite is refused below
                        there = np.abs(np.asarray(estimate.value, dtype=float) - moved.get(name, math.inf))
                    lost[name] = np.maximum(lost.get(name, 0.0), 2 * there)
    for name, estimate in list(found.items()):
        node = program.outputs[name].node
        if estimate.kind != "exact" and not np.all(np.isfinite(np.asarray(estimate.value, dtype=float))):
            if estimate.note and estimate.kind != "standard error":
                raise NotFinite(
                    f"the limit of output {name} is larger than floats go",
                    why=estimate.note,
                    fix="rescale the program: smaller standard deviations, or a normalization; tp.formula(..).evalf() has "
                    "numbers of any size",
                    source=node.source,
                    label=describe(node),
                )
            raise NotFinite(
                f"the limit of output {name} is not finite",
                why="a number is larger than 1e308, a moment is infinite, or a function met an argument without a value",
                fix="look for an exp of something large, a division by a Moment that tends to 0, a root of a negative one",
                source=node.source,
                label=describe(node),
            )
        if not np.isfinite(worst(estimate)):
            reasons[name] = "the integrals do not converge"
            del found[name]
    return Exact(found, reasons, costs)


def _moved(program: Program, values: Mapping[str, Any], budget: Budget) -> Iterator[dict[str, Any]]:
    """The outputs again, from lowerings whose floats are moved by their rounding errors; those that have a value then."""
    for seed in range(FOLDED_RUNS):
        floats = FloatArithmetic(np.random.default_rng([seed, 0x5EED]))
        try:
            z = Lowering(program, values, Expectation(budget=budget.renewed()), floats).z
            nodes = {name: z[o.node] for name, o in program.outputs.items() if o.node in z}
            scalars = ScalarProgram(list(nodes.values()), budget=budget.renewed())
            found = scalars.values() | {
                x: np.asarray(x.attr, dtype=float) for x in scalars.outputs if x.op == "constant"
            }
            yield {name: found[x] for name, x in zip(nodes, scalars.outputs, strict=True)}
        except (TensorProgramError, Declined, ValueError):  # what has a limit only by the grace of a last digit
            yield {}


def _widened(estimate: Estimate, lost: Any) -> Estimate:
    """An estimate with what rounding has made of numbers on the way in its error."""
    error = np.asarray(estimate.error, dtype=float) + np.broadcast_to(lost, np.shape(estimate.value))
    return replace(estimate, error=float(error) if error.ndim == 0 else error)


def _by_route(
    program: Program, lowering: Lowering, rng: int, points: int, allowed: Mapping[str, float], budget: Budget
) -> tuple[dict[str, Estimate], dict[str, str], dict[str, float]]:
    reasons = {name: lowering.declined[o.node] for name, o in program.outputs.items() if o.node in lowering.declined}
    costs = {
        name: sampling_cost(lowering.z[o.node], points) for name, o in program.outputs.items() if name not in reasons
    }
    names = [name for name, cost in costs.items() if cost <= allowed[name]]
    outputs = [lowering.z[program.outputs[name].node] for name in names]
    answers = _evaluated(outputs, rng, points, budget, _alike(program))
    found = {}
    for name, answer in zip(names, answers, strict=True):
        if isinstance(answer, str):
            reasons[name] = answer
        else:
            found[name] = Estimate(*answer)
    return found, reasons, costs


def _alike(program: Program) -> Alike:
    """What is known of the data: do examples differ that have one law in floats, or opposite ones; and which differ at all?"""
    vectors = [x.attr for x in program.nodes if x.op == "vector"]
    inputs = {v.data for v in vectors if isinstance(v, Embedding) and isinstance(v.data, ArrayData)}
    close = any(nearly_equal(data.rows) for data in inputs)
    plain = inputs and all(isinstance(v, Embedding) for v in vectors if v.shape)
    if not plain or len({data.shape for data in inputs}) > 1 or len(next(iter(inputs)).shape) != 1:
        return Alike(close)
    marks = []
    for sided in (True, False):
        columns = []
        for data in inputs:
            rows = np.asarray(data.rows, dtype=float)
            first = np.take_along_axis(rows, (rows != 0).argmax(1)[:, None], 1)
            columns.append(_numbered(rows if sided else np.where(first < 0, -rows, rows)))
        marks.append(_numbered(np.column_stack(columns)))
    return Alike(close, np.column_stack(marks))


def _numbered(rows: np.ndarray) -> np.ndarray:
    """Equal rows have one number."""
    return np.unique(rows + 0, axis=0, return_inverse=True)[1].reshape(-1)


def _evaluated(outputs: Sequence[Node], rng: int, points: int, budget: Budget, alike: Alike) -> list[Any]:
    """What `ScalarProgram.estimates` has for every output, or the reason why there is none."""
    from tensorprog.limits.gauss.integrate import Indefinite

    try:
        return list(ScalarProgram(outputs, rng, points, budget.renewed(), alike).estimates())
    except (Indefinite, Exhausted) as error:
        if len(outputs) > 1:  # the others may do without
            return [answer for x in outputs for answer in _evaluated([x], rng, points, budget, alike)]
        if isinstance(error, Exhausted):
            if points > FEWEST_POINTS and sampling_cost(outputs[0], points):  # a larger error is better than none
                return _evaluated(outputs, rng, max(points // 8, FEWEST_POINTS), budget, alike)
            return [error.reason]
        return [f"rounding or sampling makes a covariance that is indefinite ({error})"]
