"""Limits by populations, as estimates: the spread of replicates, and what no replicate can have seen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.estimate import Estimate, note
from tensorprog.language.node import topological
from tensorprog.language.program import Program
from tensorprog.limits.evaluate.errors import student

__all__ = ["population_estimates"]


def population_estimates(
    program: Program, values: Mapping[str, Any], samples: int, replicates: int, rng: int, why: Mapping[str, str]
) -> dict[str, Estimate]:
    """Every output by independent populations.

    Args:
        program: The program.
        values: Numbers for hyperparameters.
        samples: M, a power of two.
        replicates: How many populations.
        rng: Seed.
        why: For every output, why the population was taken: for the note.

    Returns:
        `standard error` where the replicates' spread is the error; `bound` where what they cannot have seen may be larger.
    """
    from tensorprog.execute.executor import population
    from tensorprog.execute.tails import Tails

    if replicates < 2:
        raise TensorProgramError(
            f"{replicates} replicates", why="their spread is the standard error", fix="use at least 8"
        )
    values = {name: values[name] for name in program.scalars}  # of some outputs, which may not have all of them
    tails = Tails()
    runs = population(program, samples=samples, rng=rng, replicates=replicates, values=values, watch=tails)
    if tails.closer():
        population(program, samples=samples, rng=rng, replicates=replicates, values=values, watch=tails, checked=False)
    moved: dict[str, Any] = {}
    if tails.judge():  # one run more, with the Moments in doubt moved: the first replicate's again
        tails.applied = True
        moved = population(program, samples=samples, rng=rng, replicates=1, values=values, watch=tails, checked=False)
    found = {}
    for name in program:
        draws = np.asarray(runs[name], dtype=float)
        value = draws.mean(0)
        with np.errstate(over="ignore"):  # the square of a number beyond 1e154: an infinite error
            spread = draws.std(0, ddof=1) / math.sqrt(len(draws)) * student(len(draws) - 1)
        # orthonormal noise makes linear programs exact: then the spread is rounding alone, and this its floor
        error = spread + 64 * np.finfo(float).eps * np.abs(draws).max(0)
        kind, reasons = "standard error", []
        if moved:
            unseen = np.abs(np.asarray(moved[name][0], dtype=float) - draws[0])
            unseen = np.where(np.isnan(unseen), np.inf, unseen)
            if np.any(unseen > error):
                kind = "bound"
                below = topological([program.outputs[name].node])
                reasons = [tails.reasons[x] for x in below if x in tails.doubts]
            error = error + unseen
        text = note(f"{len(draws)} replicates of {samples} samples", why.get(name, ""), *dict.fromkeys(reasons))
        value, error = (float(value), float(error)) if value.ndim == 0 else (value, error)
        found[name] = Estimate(value, error, "population", kind, text, draws)
    return found
