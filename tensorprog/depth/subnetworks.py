"""The maximal functions of a network: what its largest subnetwork does to slopes, curvatures and correlations.

At variance 1, dense layers leave correlations as they are, an activation applies its local map C, and a sum with coefficients w_i
averages the maps of its terms with weights w_i^2. So slopes at correlation 1 multiply along a path, curvatures (where slopes are
1) add up, and both are averaged by sums. A subnetwork goes from one vector to another that depends on the network's input
through it alone.

Source: Martens et al. 2021 (arXiv:2110.01765), section 5; Zhang, Botev, Martens 2022 (arXiv:2203.08120), section 4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tensorprog.errors import TensorProgramError
from tensorprog.language.activations import tanh
from tensorprog.language.describe import describe
from tensorprog.language.expression import Expression
from tensorprog.language.leaves import Vector
from tensorprog.language.node import MOVES, Node, topological
from tensorprog.language.symbols import Width
from tensorprog.networks.network import Network
from tensorprog.networks.samples import batches

__all__ = ["Subnetworks"]

INPUT = "network_input"


class Subnetworks:
    """The graph of a network, as its local maps see it.

    Args:
        network: A `tp.Network`, whose functions of vectors are its activations; or a function of a vector and an activation.
        width: The width of the vector, for a function.

    Raises:
        TensorProgramError: it has other instructions than dense layers, sums and activations.
    """

    def __init__(self, network: Any, width: Width | None = None) -> None:
        if isinstance(network, Network):
            body = network.body(batches(network.inputs, None, network.source)[0].data)
            roots = [x.node for o in body.outputs for x in getattr(o, "expressions", ())[1:] if x.node.op != "vector"]
        elif callable(network):
            out = network(Vector(INPUT, width or Width("n")), tanh)
            if not isinstance(out, Expression):
                raise TensorProgramError(
                    f"a network returns {type(out).__name__}", fix="give a function of a vector and an activation"
                )
            roots = [out.node]
        else:
            raise TensorProgramError(
                f"a network is {type(network).__name__}", fix="give a tp.Network, or a function of h and phi"
            )
        self.steps = [_step(x) for x in topological(roots) if x.width is not None]
        place = {x: i for i, (x, *_) in enumerate(self.steps)}
        self.parts = [(kind, [place[a] for a in args], weights) for _, kind, args, weights in self.steps]
        if not any(kind == "phi" for kind, *_ in self.parts):
            raise TensorProgramError("a network without activations", fix="call its second argument")
        self._order()

    @property
    def activations(self) -> int:
        """How many there are."""
        return sum(kind == "phi" for kind, *_ in self.parts)

    def maximum(self, local: Callable[[float], float], start: float) -> float:
        """The largest value over all subnetworks.

        Args:
            local: What an activation does to it, nothing that makes it smaller.
            start: Its value for a subnetwork without activations.
        """
        best = start
        for entry, first in self.entries:
            values = {entry: start}
            for i in range(entry + 1 if first is None else first, len(self.parts)):
                kind, args, weights = self.parts[i]
                known = bool(args) and all(a in values and (first is None or a != entry) for a in args)
                if not known and i != first:
                    continue
                if kind == "phi":
                    values[i] = local(values[args[0]])
                elif kind == "same":
                    values[i] = values[args[0]]
                else:
                    values[i] = sum([w * values[a] for a, w in zip(args, weights, strict=True)]) / sum(weights)
            end: int | None = entry if first is None else first
            while end is not None and end in values:  # all that comes after goes through it
                best = max(best, values[end])
                end = self.after[end]
        return best

    def _order(self) -> None:
        """What comes after each vector on all ways out, and where branches begin."""
        count = len(self.parts)
        users: list[list[int]] = [[] for _ in range(count)]
        for i, (_, args, _) in enumerate(self.parts):
            for a in args:
                users[a].append(i)
        self.after: list[int | None] = [None] * count
        depth = [0] * count
        for i in reversed(range(count)):
            if not users[i]:
                continue
            meet: int | None = users[i][0]
            for other in users[i][1:]:
                one: int | None = other
                while meet != one and meet is not None and one is not None:
                    if depth[meet] >= depth[one]:
                        meet = self.after[meet]
                    else:
                        one = self.after[one]
                if meet is None or one is None:
                    meet = None
                    break
            self.after[i] = meet
            depth[i] = 1 + (depth[meet] if meet is not None else 0)
        begin = next(i for i, (_, args, _) in enumerate(self.parts) if not args and users[i])
        self.entries: list[tuple[int, int | None]] = [(begin, None)]
        for a in range(begin, count):
            self.entries += [(a, i) for i in users[a] if len(users[a]) > 1 and len(self.parts[i][1]) == 1]


def _step(x: Node) -> tuple[Node, str, list[Node], list[float]]:
    """A vector, what makes it of which vectors, and the squares of coefficients."""
    wide = [a for a in x.args if a.width is not None]
    if x.op == "vector":
        return x, "input", [], []
    if x.op == "fn":
        return x, "phi", wide, [1.0]
    if x.op == "matmul" or x.op in MOVES:
        return x, "same", wide, [1.0]
    if x.op == "add":
        terms = [
            (a, float(w) ** 2) for a, w in zip(x.args, x.attr, strict=True) if a.width is not None and not _bias(a)
        ]
        if len(terms) == 1:
            return x, "same", [terms[0][0]], [1.0]
        return x, "sum", [a for a, _ in terms], [w for _, w in terms]
    if x.op == "mul" and len(wide) == 1 and all(k == 1 for k in x.attr):
        return x, "same", wide, [1.0]
    raise TensorProgramError(
        f"a network with {describe(x)}",
        why="its maximal functions are known of dense layers, sums and activations",
        fix="shape the activations of a network of these",
        source=x.source,
    )


def _bias(x: Node) -> bool:
    return x.op == "vector" and x.attr.name != INPUT
