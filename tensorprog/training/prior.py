"""The law of f_0 where training follows a kernel: Gaussian, with the covariance NNGP, under weight decay one for all steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tensorprog.language.expression import Expression
from tensorprog.language.node import Node
from tensorprog.language.program import Output, Program
from tensorprog.limits.limit import limit
from tensorprog.networks.network import Network
from tensorprog.networks.outputs import Body, of_outputs
from tensorprog.networks.samples import Batch
from tensorprog.training.points import Moved, Weights
from tensorprog.transforms.parametrization import parametrization

__all__ = ["covariance"]


def covariance(
    net: Network,
    batches: Sequence[Batch],
    firsts: Sequence[tuple[Weights, Mapping[str, Node]]],
    values: Mapping[str, Any] | None,
    rng: Any,
) -> np.ndarray:
    """The covariance of the outputs of the first parameters, shrunk as much as they are at every step.

    Args:
        net: The network.
        batches: Training data and test data.
        firsts: Of every step: the parameters, and what is left of each, by name.
        values: Of hyperparameters.
        rng: Seeds what has to be sampled.

    Returns:
        (outputs, outputs), an output for each step, example and output of the network, the last fastest.
    """
    plain = [net.body(b.data) for b in batches]
    bodies = [[_at(body, *first) for body in plain] for first in firsts]
    scheme = parametrization("ntk")
    outputs: dict[str, Output] = {}
    flat = [(t, p) for t in range(len(firsts)) for p in range(len(batches))]
    for k, (t, p) in enumerate(flat):
        for m, (s, q) in enumerate(flat[: k + 1]):
            a, b = bodies[t][p], bodies[s][q]
            node = of_outputs(lambda i, j, a=a, b=b: net.block("nngp", a, b, i, j, scheme), a, b, 2)  # type: ignore[misc]
            outputs[f"k{k}_{m}"] = Output(node, tuple([f"axis{i}" for i in range(len(node.shape))]))
    found = limit(Program(outputs), values=values, rng=rng)
    rows = []
    for k in range(len(flat)):
        row = []
        for m in range(len(flat)):
            block = np.asarray(found[f"k{max(k, m)}_{min(k, m)}"].value, float)
            block = block if m <= k else block.swapaxes(0, 1)
            if block.ndim > 2:
                block = block.transpose(0, 2, 1, 3) if m <= k else block.transpose(0, 3, 1, 2)
                block = block.reshape(block.shape[0] * block.shape[1], -1)
            row.append(block)
        rows.append(np.concatenate(row, axis=1))
    return np.concatenate(rows)


def _at(body: Body, first: Weights, left: Mapping[str, Node]) -> Body:
    """The network with the first parameters, shrunk."""
    if not left:
        return body
    moved = Moved(first, {})

    def rule(x: Expression) -> Expression:
        return Expression(moved.now(x.node), x.names, x.axes)

    outputs = []
    for o in body.outputs:
        parts = [
            replace(p, factor=p.factor * Expression(left[p.name], ())) if p.name in left else p
            for p in o.marked(rule).parts
        ]
        outputs.append(replace(o.marked(rule), parts=tuple(parts)))
    return replace(body, outputs=tuple(outputs))
