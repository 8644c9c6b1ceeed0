"""Scalar programs over a list of pairs of examples, evaluated several times at once: as they are, and moved.

Every pair is a lane of all arrays, and so is every evaluation of it. That is the layout in which errors are measured
(`limits/pairs/accuracy.py`): one pass over the instructions, of which each costs as much for few numbers as for one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tensorprog.arrays.plan import Plan, schedule
from tensorprog.language.node import Node
from tensorprog.limits.evaluate.alike import Trace
from tensorprog.limits.evaluate.perturb import Perturbation, is_given, size_of
from tensorprog.limits.gauss.duals import CORRELATED, SNAPPED, apart_by_rounding
from tensorprog.limits.pairs.call import Call
from tensorprog.limits.pairs.carried import INTEGRATED, Carried, joined
from tensorprog.limits.pairs.layout import in_lanes, is_shared

__all__ = ["Lanes", "Moved"]

Array = np.ndarray


class Moved:
    """Evaluations in which every result is moved by a rounding error.

    Args:
        pairs: How many pairs there are.
        levels: The resolution of integrals in each of the evaluations.
        apart: Is the correlation of variables of two examples never 1 because they are the same?
        close: May variables at different positions differ that have the same variances and covariance, up to rounding?
    """

    def __init__(self, pairs: int, levels: Sequence[int], apart: bool, close: bool) -> None:
        self.levels, self.apart = levels, apart
        self.noise = Perturbation([0], range(pairs, pairs * (1 + len(levels))))
        self.inside = Perturbation([1])  # of integrals, each evaluation by itself
        self.trace = Trace(close, pairs)


class Lanes:
    """Scalars that depend on two examples, ready to be evaluated for a list of pairs.

    Args:
        outputs: Scalars of a grid (`limits/pairs/layout.py`).
    """

    def __init__(self, outputs: Sequence[Node]) -> None:
        found = in_lanes(outputs)
        origin = {y: x for x, y in found.items()}
        self.outputs = [found[x] for x in outputs]
        self.shared = {y for x, y in found.items() if is_shared(x)}
        steps = [Carried(s, origin[s.node]) for s in schedule(self.outputs, moments=False)]
        self.steps = joined(sorted(steps, key=lambda s: s.node in self.shared))  # variances before covariances
        self.plan = Plan(self.steps, set(self.outputs))
        sizes = {s.node: (size_of(s.node), is_given(s.node)) for s in self.steps}
        self.moves = {x: (size, given) for x, (size, given) in sizes.items() if size is not None}
        #: Of a covariance, the variances it is one to; closed forms all of whose covariances have such.
        self.edges: dict[Node, list[tuple[int, int]]] = {}
        self.edged: set[Node] = set()
        for x in [s.node for s in self.steps if s.node.op == "dual" and s.node.attr in CORRELATED]:
            a, c, b = x.args[-3:]
            if c in self.shared and not {a, b} & self.shared and c.shape == x.shape:
                self.edges.setdefault(c, []).append((self.plan.slots[a], self.plan.slots[b]))
                self.edged.add(x)

    def run(self, data: Mapping[Any, Array], pairs: int, call: Call, moved: Moved | None = None) -> list[Array]:
        """The outputs, each of shape (*axes, evaluations times pairs): as they are, and then moved.

        Args:
            data: Attribute of each `data` node to its array (*axes, pairs).
            pairs: How many.
            call: What it belongs to.
            moved: More evaluations than one.
        """
        copies = 1 if moved is None else 1 + len(moved.levels)
        local: list[Any] = [None] * len(self.plan.slots)
        with np.errstate(over="call", under="call", divide="ignore", invalid="ignore", call=call.strain):
            for s, place in zip(self.steps, self.plan.places, strict=True):
                x = s.node
                if local[place.target] is None:
                    arrays = [local[k] for k in place.sources]
                    if x.op in INTEGRATED:
                        local[place.target] = self._integrated(s, arrays, pairs, call, moved)
                    elif x.op == "dual" and moved is not None:
                        self._closed_form(s, place.target, arrays, pairs, moved, local)
                    else:
                        if x.op == "data":
                            local[place.target] = np.concatenate([data[x.attr]] * copies, axis=-1)
                        else:
                            self._plain(s, place.target, arrays, local)
                        if moved is not None and x in self.moves:
                            local[place.target] = moved.noise.moved(local[place.target], *self.moves[x], arrays)
                if moved is not None and moved.apart and x in self.edges:
                    for one, other in self.edges[x]:
                        local[place.target] = _apart(local[one], local[place.target], local[other], pairs)
                for k in place.frees:
                    local[k] = None
        lanes = copies * pairs
        found = [local[self.plan.slots[x]] for x in self.outputs]
        return [a if a.shape[-1] == lanes else np.broadcast_to(a, (*a.shape[:-1], lanes)) for a in found]

    def _plain(self, s: Carried, target: int, arrays: Sequence[Array], local: list[Any]) -> None:
        if s.partner is not None:
            local[target], local[self.plan.slots[s.partner]] = s.joint(*arrays)
        else:
            assert s.kernel is not None, f"no scalar rule for {s.node.op}: please report this"
            local[target] = s.kernel(*arrays)

    def _closed_form(
        self, s: Carried, target: int, arrays: Sequence[Array], pairs: int, moved: Moved, local: list[Any]
    ) -> None:
        """A closed form of operands that are moved, but for correlations of 1 that are known to be such."""
        x, noise, partner = s.node, moved.noise, s.partner
        given = list(noise.operands(x, arrays))
        if moved.apart and x in self.shared:
            if x not in self.edged:  # the covariance is not set apart by itself, and not for all closed forms of it
                partner = None
                if x.attr in SNAPPED:
                    a, c, b = given[-3:]
                    given[-2] = _apart(a, c, b, pairs)
        else:
            given = list(moved.trace.operands(x, given))
        if partner is not None:
            both = s.joint(*given)
            for y, value in zip((x, partner), both, strict=True):
                local[self.plan.slots[y]] = noise.moved(value, *self.moves[y], given)
            return
        assert s.kernel is not None
        value = s.kernel(*given)
        if not (moved.apart and x in self.shared):
            value = moved.trace.result(x, given, value)
        local[target] = noise.moved(value, *self.moves[x], given)

    def _integrated(self, s: Carried, arrays: Sequence[Array], pairs: int, call: Call, moved: Moved | None) -> Array:
        """An integral, or a guarded closed form, at the resolution of each evaluation."""
        x = s.node
        shape = np.broadcast_shapes((*x.shape, pairs), *[(*a.shape[:-1], 1) for a in arrays])
        alone = x not in self.shared
        found, size = [], None
        for k, level in enumerate((1, *(moved.levels if moved else ()))):
            given = [a[..., k * pairs : (k + 1) * pairs] if a.shape[-1] > 1 else a for a in arrays]
            if not k and s.product is not None:
                value = s.product.listed(*_of_two(given, pairs), level)
            else:
                value = s.integrated(given, call, level, alone=alone and not k, rough=k > 0)
            if k and moved is not None:
                if x.op == "guard":
                    value = moved.inside.result(x, value)
                else:  # an integral that cancels has the rounding of what cancels
                    size = s.integrated(given, call, 0, rough=True, absolute=True) if size is None else size
                    value = value + (moved.inside.result(x, size) - size)
            found.append(np.broadcast_to(value, shape))
        return np.concatenate(found, axis=-1)


def _of_two(args: Sequence[Array], pairs: int) -> tuple[Array, Array]:
    """Means (pairs, 2) and covariances (pairs, 2, 2) of two variables, of an integral's operands."""
    one, two, a, c, b = [np.broadcast_to(x, pairs) for x in args]
    return np.stack([one, two], -1), np.stack([np.stack([a, c], -1), np.stack([c, b], -1)], -1)


def _apart(a: Array, c: Array, b: Array, pairs: int) -> Array:
    """Covariances, those in evaluations that are moved as far from those of one variable as rounding may have moved them."""
    tails = [x[..., pairs:] if x.shape[-1] > 1 else x for x in (a, c, b)]
    found = apart_by_rounding(*tails)
    return np.concatenate([np.broadcast_to(c[..., :pairs], (*found.shape[:-1], pairs)), found], axis=-1)
