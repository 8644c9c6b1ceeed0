"""`limit`: the Master Theorem applied to a program."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.estimate import Estimate, Estimates
from tensorprog.language.data import ArrayData, Embedding
from tensorprog.language.describe import describe
from tensorprog.language.functions import PRIMITIVES
from tensorprog.language.node import Node
from tensorprog.language.program import Program
from tensorprog.limits.budget import Budget
from tensorprog.limits.correlations import SNAP
from tensorprog.limits.domain import check_domains, ranges
from tensorprog.limits.evaluate import ScalarProgram, student
from tensorprog.limits.expectation import Expectation
from tensorprog.limits.jumps import check_jumps, suspects
from tensorprog.limits.lower import Lowering
from tensorprog.limits.tasks import Exhausted
from tensorprog.transforms.decouple import program_for
from tensorprog.transforms.dispatch import of_networks

__all__ = ["limit"]

METHODS = ("auto", "exact", "population")
ROUGH = 1e-4
"""A sampled integral whose standard error is relatively larger than this is compared with the population."""


@of_networks()
def limit(
    program: Program,
    *,
    method: str = "auto",
    values: Mapping[str, Any] | None = None,
    gia: bool = False,
    samples: int = 2**12,
    replicates: int = 16,
    rng: int | np.random.Generator | None = 0,
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
        samples: M, a power of two, for the population.
        replicates: Independent populations, at least 2; their spread is the standard error.
        rng: Seeds the population.
        budget: How many times the usual work the exact route may do for an output before it declines: terms and evaluations of
            integrands are counted (`limits/budget.py`), never seconds. `math.inf` lets it go on.

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
    if method not in METHODS:
        raise TensorProgramError(f"method {method!r}", fix=f"use one of {', '.join(METHODS)}")
    bound = program.values(values)
    check_domains(program)
    rng, allowed = _seed(rng), Budget.of(budget)
    if method == "population" and suspects(program, bound):  # the Master Theorem decides there, too
        check_jumps(program, Lowering(program, bound, Expectation(budget=allowed.renewed())))
    exact: dict[str, Estimate] = {}
    reasons: dict[str, str] = {}
    if method != "population":
        exact, reasons = _exact(program, bound, rng, allowed)
        if reasons and method == "exact":
            name, reason = next(iter(reasons.items()))
            raise TensorProgramError(
                f"the exact route has no limit for output {name}: {reason}",
                why="it evaluates closed forms and Gaussian integrals in few variables",
                fix='use method="auto" or "population"',
                source=program.outputs[name].node.source,
            )
    sampled = [name for name in program if name not in exact]
    found: dict[str, Estimate] = dict(exact)
    if sampled:
        part = Program({name: program.outputs[name] for name in sampled})
        found |= _population(part, bound, samples, replicates, rng, reasons)
    rough = [name for name, e in exact.items() if e.kind == "standard error" and not _accurate(e, ROUGH)]
    if rough and method == "auto":  # integrals in many variables were sampled, poorly: the population may do better
        part = Program({name: program.outputs[name] for name in rough})
        other = _population(part, bound, samples, replicates, rng, {})
        found |= {name: e for name, e in other.items() if _worst(e) < _worst(exact[name])}
    for name, note in _outside(program).items():
        found[name] = replace(found[name], note="; ".join(filter(None, (found[name].note, note))))
    return Estimates({name: found[name] for name in program}, {name: o.axes for name, o in program.outputs.items()})


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
        growing = x.op == "fn" and x.width is not None and PRIMITIVES[x.attr[0]].growth == "exponential"
        if (growing and known[x].degree > 0) or any(a in reached for a in x.args):
            reached.add(x)
    note = "exp of a Gaussian is outside the Master Theorem as proven"
    return {name: note for name, o in program.outputs.items() if o.node in reached}


def _exact(
    program: Program, values: Mapping[str, Any], rng: int, budget: Budget
) -> tuple[dict[str, Estimate], dict[str, str]]:
    lowering = Lowering(program, values, Expectation(budget=budget.renewed()))
    check_jumps(program, lowering)
    found, reasons = _by_route(program, lowering, rng, budget)
    for name, estimate in list(found.items()):
        node = program.outputs[name].node
        if estimate.kind != "exact" and not np.all(np.isfinite(np.asarray(estimate.value, dtype=float))):
            raise TensorProgramError(
                f"the limit of output {name} is not finite",
                why="a number is larger than 1e308, a moment is infinite, or a function met an argument without a value",
                fix="look for an exp of something large, a division by a Moment that tends to 0, a root of a negative one",
                source=node.source,
                label=describe(node),
            )
        if not np.isfinite(_worst(estimate)):
            reasons[name] = "the integrals do not converge"
            del found[name]
    return found, reasons


def _by_route(
    program: Program, lowering: Lowering, rng: int, budget: Budget
) -> tuple[dict[str, Estimate], dict[str, str]]:
    reasons = {name: lowering.declined[o.node] for name, o in program.outputs.items() if o.node in lowering.declined}
    names = [name for name in program if name not in reasons]
    outputs = [lowering.z[program.outputs[name].node] for name in names]
    answers = _evaluated(outputs, rng, budget, _nearly_equal(program))
    found = {}
    for name, answer in zip(names, answers, strict=True):
        if isinstance(answer, str):
            reasons[name] = answer
        else:
            found[name] = Estimate(*answer)
    return found, reasons


def _nearly_equal(program: Program) -> bool:
    """Do inputs differ that have the same inner products in floating point, or opposite ones?"""
    for data in {x.attr.data for x in program.nodes if x.op == "vector" and isinstance(x.attr, Embedding)}:
        if not isinstance(data, ArrayData) or len(data.rows) < 2:
            continue
        rows = np.asarray(data.rows, dtype=float)
        rows = np.unique(np.concatenate([rows, -rows]), axis=0)  # equal and opposite ones are known to be so
        gram = rows @ rows.T
        size = np.sqrt(np.diag(gram))
        if np.count_nonzero(gram >= (1 - SNAP) * np.outer(size, size)) > len(rows):
            return True
    return False


def _evaluated(outputs: Sequence[Node], rng: int, budget: Budget, close: bool) -> list[Any]:
    """What `ScalarProgram.estimates` has for every output, or the reason why there is none."""
    from tensorprog.limits.integrate import Indefinite

    try:
        return list(ScalarProgram(outputs, rng, budget.renewed(), close).estimates())
    except (Indefinite, Exhausted) as error:
        if len(outputs) > 1:  # the others may do without
            return [answer for x in outputs for answer in _evaluated([x], rng, budget, close)]
        if isinstance(error, Exhausted):
            return [error.reason]
        return [f"sampled integrals make a covariance that is indefinite ({error})"]


def _accurate(estimate: Estimate, share: float) -> bool:
    size = float(np.max(np.abs(np.asarray(estimate.value, dtype=float)), initial=0.0))
    return _worst(estimate) <= share * size


def _worst(estimate: Estimate) -> float:
    if estimate.kind == "exact":
        return 0.0
    worst = float(np.max(estimate.error, initial=0.0))
    return worst if np.all(np.isfinite(np.asarray(estimate.value, dtype=float))) and not np.isnan(worst) else np.inf


def _population(
    program: Program, values: Mapping[str, Any], samples: int, replicates: int, rng: Any, reasons: Mapping[str, str]
) -> dict[str, Estimate]:
    from tensorprog.execute.executor import population

    if replicates < 2:
        raise TensorProgramError(
            f"{replicates} replicates", why="their spread is the standard error", fix="use at least 8"
        )
    runs = population(program, samples=samples, rng=rng, replicates=replicates, values=values)
    found = {}
    for name in program:
        draws = np.asarray(runs[name], dtype=float)
        value = draws.mean(0)
        spread = draws.std(0, ddof=1) / math.sqrt(len(draws)) * student(len(draws) - 1)
        # orthonormal noise makes linear programs exact: then the spread is rounding alone, and this its floor
        error = spread + 64 * np.finfo(float).eps * np.abs(draws).max(0)
        note = f"{len(draws)} replicates of {samples} samples" + (
            f"; the exact route declined: {reasons[name]}" if name in reasons else ""
        )
        value, error = (float(value), float(error)) if value.ndim == 0 else (value, error)
        found[name] = Estimate(value, error, "population", "standard error", note)
    return found
