"""Lowering where the data's covariances and means stay symbols."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tensorprog.language import algebra
from tensorprog.language.node import Node
from tensorprog.language.symbols import VectorSpec
from tensorprog.limits.expect.columns import covariance_at
from tensorprog.limits.expect.expectation import Expectation
from tensorprog.limits.expect.lower import Lowering
from tensorprog.limits.expect.moves import root
from tensorprog.limits.tasks import Task

__all__ = ["SymbolicExpectation", "SymbolicLowering"]


class Known(NamedTuple):
    """Of `array`: what it is called, as its kind and what it belongs to; and its numbers."""

    called: tuple[str, str]
    value: np.ndarray


def symbolic(kind: str, of: str, value: np.ndarray) -> Node:
    """An array of the data, which the constructors do not fold."""
    return Node("array", (), Known((kind, of), value), value.shape)


class SymbolicExpectation(Expectation):
    """The rules of the limit, over symbols for the covariances of multi-vectors."""

    def _covariance_of_leaves(self, u: Node, v: Node) -> Task:
        value = yield from super()._covariance_of_leaves(u, v)
        spec = root(u).attr
        if root(u).op != "leaf" or root(u) != root(v) or spec.cov is None or not value.shape:
            return value
        known = spec.cov.reshape(*spec.shape, *spec.shape)
        return covariance_at(symbolic("Sigma", spec.name, known), u, v)


class SymbolicLowering(Lowering):
    """Initial vectors have symbols for their means."""

    def _initial(self, spec: VectorSpec) -> Node:
        if not isinstance(spec.mean, np.ndarray) or spec.distribution is not None:
            return super()._initial(spec)
        centred = super()._initial(VectorSpec(spec.name, spec.width, spec.shape, 0, spec.var, spec.cov))
        mean = algebra.typed(symbolic("mu", spec.name, spec.mean), spec.shape, spec.width, None)
        return algebra.add([(1, mean), (1, centred)])
