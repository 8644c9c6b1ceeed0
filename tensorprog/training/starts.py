"""The limit of a run of training from many initial outputs f_0: what does not depend on f_0 is found once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.language.node import topological
from tensorprog.language.program import Program
from tensorprog.limits.evaluate.scalar import ScalarProgram
from tensorprog.limits.expect.lower import Lowering
from tensorprog.limits.limit import limit
from tensorprog.limits.tasks import Exhausted
from tensorprog.transforms.decouple import program_for
from tensorprog.transforms.written_out import written_out

__all__ = ["limits_from"]


def limits_from(
    program: Program,
    name: str,
    starts: Sequence[np.ndarray],
    values: Mapping[str, Any] | None,
    gia: bool,
    rng: Any,
    options: Mapping[str, Any] | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """The limits of a program's outputs for many values of one hyperparameter.

    Args:
        program: The program.
        name: The hyperparameter.
        starts: Its values.
        values: Those of the others.
        gia: Under gradient independence.
        rng: Seeds what has to be sampled.
        options: Of `limit`, for each start by itself; where they name a method nothing else is tried.
    """
    if "method" not in (options or {}):
        plain = written_out(program_for(program, gia))
        lowering = Lowering(plain)
        outputs = [lowering.z.get(o.node) for o in plain.outputs.values()]
        known = [x for x in outputs if x is not None]
        if len(known) == len(outputs):
            try:
                given = plain.values({**(values or {}), name: starts[0]})
                yield from _evaluated(plain, known, name, starts, given)
                return
            except (Exhausted, TensorProgramError):
                pass
    how = dict(options or {})
    for start in starts:
        answer = limit(program, values={**(values or {}), name: start}, gia=gia, rng=rng, **how)
        if all(e.method == "population" for e in answer.values()):
            how["method"] = "population"  # what declines once declines from any start
        yield {key: np.asarray(e.value, dtype=float) for key, e in answer.items()}


def _evaluated(
    program: Program, outputs: list[Any], name: str, starts: Sequence[np.ndarray], given: Mapping[str, Any]
) -> list[dict[str, np.ndarray]]:
    scalars = ScalarProgram(outputs)
    leaves = {x: x.attr.name for x in topological(scalars.outputs) if x.op == "scalar"}
    moving = {x for x, key in leaves.items() if key == name}
    known = {x: np.asarray(given[key], dtype=float) for x, key in leaves.items()}
    found = []
    for i, start in enumerate(starts):
        values = scalars.run(known=known | {x: np.asarray(start, dtype=float) for x in moving})
        if i == 0:
            below = set(moving)
            for x in topological(scalars.outputs):
                if any(a in below for a in x.args):
                    below.add(x)
            known = {x: a for x, a in values.items() if x not in below}
        row = {}
        for key, x in zip(program, scalars.outputs, strict=True):
            value = values[x] if x in values else np.asarray(x.attr, dtype=float)
            row[key] = np.array(np.broadcast_to(value, x.shape))
        found.append(row)
    return found
