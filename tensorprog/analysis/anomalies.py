"""Programs whose averages do not behave as averages usually do: found before they are compared with a limit.

A Moment differs from its limit by a Gaussian of size n**-1/2, and a smooth function of Moments has a bias of 1/n. The bias
is n**-1/2 where a power of `inverse_sqrt(n)` enters, and where a function has a kink at the limit of a Moment that it is
applied to: E |theta - theta_limit| is of order n**-1/2. The latter also for a kink of a vector that such a Moment
multiplies, relu(theta * x) with theta of limit 0. Whether a Moment is near a kink is seen in a few runs at the smallest
width: it falls on both sides, or on it.

Averages of polynomials of a high degree, or of exponentials, have tails that no run of a feasible width has met.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tensorprog.analysis.judge import Anomaly
from tensorprog.language.describe import describe
from tensorprog.language.functions import PRIMITIVES
from tensorprog.language.node import Node
from tensorprog.language.program import Output, Program
from tensorprog.limits.expect.domain import EXPONENTIAL, ranges
from tensorprog.transforms.decouple import program_for
from tensorprog.transforms.written_out import written_out

__all__ = ["anomalies"]

HEAVY_DEGREE = 6
"""The degree of a polynomial of Gaussians from which on an average of it is taken to have heavy tails."""
RUNS = 16
"""At the smallest width, to see on which side of a kink a Moment falls."""


def anomalies(
    program: Program, *, n: int, values: Mapping[str, Any] | None = None, gia: bool = False, weights: str = "auto"
) -> dict[str, Anomaly]:
    """What is unusual about the outputs of a program.

    Args:
        program: The program.
        n: The width at which kinks are looked for.
        values: Of its hyperparameters.
        gia: Under gradient independence.
        weights: As for `run`.

    Returns:
        Output to `Anomaly`, for those that have one.
    """
    program = written_out(program_for(program, gia))
    heavy = _heavy(program)
    half = {x: "a power of n**-1/2 enters" for x in program.nodes if x.op == "inverse_sqrt"}
    suspects = _suspects(program)
    if suspects:
        half |= _met(suspects, n, values, weights)
    found = {
        name: Anomaly(_first(program, o.node, half), _first(program, o.node, heavy))
        for name, o in program.outputs.items()
    }
    return {name: a for name, a in found.items() if a.half or a.heavy}


def _first(program: Program, x: Node, reasons: Mapping[Node, str]) -> str:
    """The reason of the first node, in the program's order, that a node depends on."""
    if not reasons:
        return ""
    below = {x}
    for y in reversed(program.nodes):
        if y in below:
            below.update(y.args)
    return next((reasons[y] for y in program.nodes if y in below and y in reasons), "")


def _heavy(program: Program) -> dict[Node, str]:
    found = {}
    known = ranges(program)
    for x in program.nodes:
        if x.op == "moment" and known[x.args[0]].degree >= HEAVY_DEGREE:
            degree = known[x.args[0]].degree
            how = "exponentially" if degree == EXPONENTIAL else f"like a polynomial of degree {degree:g}"
            found[x] = f"{describe(x)} averages what grows {how}"
    return found


def _suspects(program: Program) -> list[tuple[Node, Node, tuple[float, ...]]]:
    """Functions with kinks, the scalars that may meet them, and where these are."""
    found = []
    random: dict[Node, bool] = {}
    for x in program.nodes:
        random[x] = x.op == "moment" or any(random[a] for a in x.args if a.is_scalar)
        if x.op != "fn":
            continue
        kinks = PRIMITIVES[x.attr.name].kinks
        if not kinks:
            continue
        (u,) = x.args
        if u.is_scalar:
            found += [(x, u, kinks)] * random[u]
        elif 0.0 in kinks:  # of a vector, scaled by a scalar or shifted by one
            found += [(x, theta, (0.0,)) for theta in _scalars_in(u) if random[theta]]
    return found


def _scalars_in(u: Node) -> list[Node]:
    """Scalars that multiply a vector, or are added to one."""
    spread = [a.args[0] if a.op == "add" and len(a.args) == 1 else a for a in (u, *u.args)]
    inner = [b for a in spread if a.op in ("mul", "add") for b in a.args]
    return list(dict.fromkeys(a for a in (*spread, *inner) if a.is_scalar))


def _met(
    suspects: list[tuple[Node, Node, tuple[float, ...]]], n: int, values: Mapping[str, Any] | None, weights: str
) -> dict[Node, str]:
    """Which of the functions meet a kink, by runs at one width."""
    from tensorprog.execute.executor import run

    scalars = list(dict.fromkeys(theta for _, theta, _ in suspects))
    part = Program({f"s{i}": Output(x, tuple(f"a{k}" for k in range(len(x.shape)))) for i, x in enumerate(scalars)})
    needed = {name: v for name, v in (values or {}).items() if name in part.scalars}
    runs = run(part, n=n, seeds=RUNS, values=needed, weights=weights)
    sampled = {x: np.asarray(runs[f"s{i}"], dtype=float) for i, x in enumerate(scalars)}
    found = {}
    for x, theta, kinks in suspects:
        draws = sampled[theta]
        for k in kinks:
            above, below = (draws > k).any(axis=0), (draws < k).any(axis=0)
            if np.any(above & below):
                found[x] = f"{describe(x)} has a kink that {describe(theta)} meets"
    return found
