"""Kernels by the limit of the program of all examples: of networks that mix examples, and where pairs have no exact route."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorprog.kernels.compile import known_values
from tensorprog.kernels.request import Request
from tensorprog.kernels.routes import How
from tensorprog.limits.limit import limit
from tensorprog.limits.pairs.accuracy import Measured
from tensorprog.networks.network import Network
from tensorprog.transforms.parametrization import Parametrization

__all__ = ["Whole", "by_program"]


@dataclass
class Whole:
    """Kernels of all examples together: arrays, their errors, how, why so, and what the errors mean."""

    arrays: list[np.ndarray]
    measured: Measured
    method: dict[str, str]
    kind: dict[str, str]
    note: dict[str, str]

    @property
    def share(self) -> float:
        """The largest relative error."""
        return max(self.measured.visible.values())

    def answered(self, ask: Request) -> Any:
        """As the user wants it."""
        arrays = [a.astype(ask.dtype) for a in self.arrays]
        return ask.answered(arrays, self.measured.error, self.method, self.kind, self.note)


def by_program(network: Network, scheme: Parametrization, gia: bool, how: How, ask: Request, why: str = "") -> Whole:
    """By `tp.limit`; sampled, where a reason says why nothing else will do."""
    method = "population" if why and how.method == "auto" else how.method
    program = network.program(ask.X1, ask.X2, ask.names, scheme.name, scheme.width, gia)
    numbers = known_values(program, network.bodies(ask.X1, ask.X2), ask.values)
    with np.errstate(over="ignore", invalid="ignore"):
        # samples that were not asked for only have to be better than what they replace
        tol = how.tol if how.method == "population" else None
        found = limit(program, method=method, rng=ask.rng, tol=tol, budget=how.budget, values=numbers)
    arrays = [np.asarray(found[k].value, dtype=float) for k in ask.names]
    errors = [
        np.broadcast_to(np.asarray(found[k].error, dtype=float), a.shape)
        for k, a in zip(ask.names, arrays, strict=True)
    ]
    if ask.X2 is None:  # sampled entries differ from their mirror images, within their errors
        arrays, errors = [[(a + _mirror_image(a)) / 2 for a in b] for b in (arrays, errors)]
    measured = Measured.nothing(ask.names)
    for name, a, e in zip(ask.names, arrays, errors, strict=True):
        measured.whole(name, a, e, symmetric=ask.X2 is None)
    notes = {k: "; ".join(filter(None, [why, found[k].note])) for k in ask.names}
    return Whole(
        arrays, measured, {k: found[k].method for k in ask.names}, {k: found[k].kind for k in ask.names}, notes
    )


def _mirror_image(a: np.ndarray) -> np.ndarray:
    return a.T if a.ndim == 2 else a.transpose(1, 0, 3, 2)
