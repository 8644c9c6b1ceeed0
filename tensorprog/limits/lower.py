"""Lowering: a tensor program becomes a Z-program, its Moments become scalar programs (the Master Theorem as a compiler pass)."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from tensorprog.language import algebra
from tensorprog.language.algebra import ZERO, _typed
from tensorprog.language.node import Node
from tensorprog.language.program import Program
from tensorprog.language.symbols import Matrix, VectorSpec
from tensorprog.limits.domain import check_value
from tensorprog.limits.expectation import Expectation, variance_factor
from tensorprog.limits.structure import opened, scalar_version
from tensorprog.limits.tasks import Declined
from tensorprog.limits.zdot import Zdot, combined

__all__ = ["Lowering"]


class Lowering:
    """The limit of every node of a program.

    Attributes:
        z: Z of a vector, the limit of a scalar.
        declined: Why the exact route has no limit for a node, where it has none.
        expectation: The rules, with what they remember.
        zdot: The rules of Zdot.
    """

    def __init__(
        self, program: Program, values: Mapping[str, Any] | None = None, expectation: Expectation | None = None
    ) -> None:
        self.program = program
        self.values = values
        self.expectation = expectation or Expectation()
        self.zdot = Zdot(self.expectation)
        self.z: dict[Node, Node] = {}
        self.declined: dict[Node, str] = {}
        for x in program.nodes:
            reason = next((self.declined[a] for a in x.args if a in self.declined), None)
            if reason is None:
                try:
                    self.z[x] = self._lower(x, [self.z[a] for a in x.args])
                except Declined as declined:
                    reason = declined.reason
            if reason is not None:
                self.declined[x] = reason

    def _lower(self, x: Node, args: list[Node]) -> Node:
        match x.op:
            case "constant":
                return x
            case "scalar":
                if self.values is None:
                    return x
                return algebra.constant(self.values[x.attr[0]])
            case "inverse_sqrt":
                return ZERO
            case "vector":
                return self._initial(x.attr)
            case "matmul":
                return self._matmul(x.attr[0], x.attr[1], args[0])
            case "moment":
                return _typed(self.expectation.solver.solve(self.expectation.mean, args[0]), x.shape, None, None)
            case "inner":
                return algebra.inner(args[0]) if args[0].width is not None else args[0]
            case "outer":
                return self._outer(x, args[0])
            case "view" | "take":
                z = algebra.rebuild(x, args)
                while (
                    z.op in ("view", "take")
                    and z.width is not None
                    and z.args[0].op in ("add", "mul", "fn", "sum", "stack")
                ):
                    z = opened(z)
                return z
            case "fn":
                check_value(x, args[0])
                return algebra.rebuild(x, args)
            case "sum":
                z = args[0]
                if (
                    z.width is not None
                    and self.expectation.structure.facts(z).stacked
                    and self.expectation.stack_axis(z) == x.attr
                ):
                    return algebra.add([(1, algebra.take(z, x.attr, i)) for i in range(z.shape[x.attr])])
                return algebra.rebuild(x, args)
            case _:
                return algebra.rebuild(x, args)

    def _initial(self, spec: VectorSpec) -> Node:
        mean = algebra.constant(spec.mean, spec.shape, spec.width)
        if isinstance(spec.mean, np.ndarray):
            mean = Node("constant", (), spec.mean, spec.shape, spec.width)
        if (spec.cov is not None and not np.any(spec.cov)) or (spec.cov is None and spec.var == 0):
            return mean
        if spec.distribution is None:
            return algebra.add([(1, mean), (1, Node("leaf", (), spec, spec.shape, spec.width))])
        standard = VectorSpec(spec.name, spec.width, spec.shape, 0, 1)
        g = Node("leaf", (), standard, spec.shape, spec.width)
        if spec.distribution == "rademacher":  # the sign of a Gaussian
            return algebra.add(
                [(1, mean), (1, algebra.mul([algebra.fn("sqrt", algebra.constant(spec.var)), algebra.fn("sign", g)]))]
            )
        if spec.distribution == "uniform":  # 2 Phi(g) - 1 is uniform on (-1, 1), of variance 1/3
            spread = algebra.fn(
                "sqrt", algebra.constant(3 * Fraction(spec.var) if not isinstance(spec.var, float) else 3 * spec.var)
            )
            return algebra.add([(1, mean), (1, algebra.mul([spread, algebra.fn("smooth_sign", g, 1)]))])
        raise Declined(f"the initial vector {spec.name} has the distribution {spec.distribution.dist.name}")

    def _matmul(self, matrix: Matrix, transposed: bool, z: Node) -> Node:
        """Z^{Wx} = Zhat + Zdot; numbers and deterministic factors of x are pulled out of both."""
        width = matrix.cols if transposed else matrix.rows
        if z.is_zero or matrix.var == 0:
            return algebra.constant(0, z.shape, width)
        structure = self.expectation.structure
        if z.width is None or (z.op == "constant" and not isinstance(z.attr, np.ndarray)):
            one = Node(
                "hat",
                (algebra.constant(1, (), matrix.rows if transposed else matrix.cols),),
                (matrix, transposed),
                (),
                width,
            )
            return _typed(algebra.mul([scalar_version(z), one]), z.shape, width, None)
        if z.op == "add" and len(z.args) == 1:
            inside = self._matmul(matrix, transposed, z.args[0])
            return _typed(algebra.scale(z.attr[0], inside), z.shape, width, None)
        if z.op == "mul":
            scalars = [(a, k) for a, k in zip(z.args, z.attr, strict=True) if not structure.facts(a).families]
            if scalars:
                rest = algebra.mul([(a, k) for a, k in zip(z.args, z.attr, strict=True) if structure.facts(a).families])
                inside = self._matmul(matrix, transposed, rest)
                return _typed(
                    algebra.mul([*[(scalar_version(a), k) for a, k in scalars], inside]), z.shape, width, None
                )
        if z.op == "stack":
            return algebra.stack([self._matmul(matrix, transposed, a) for a in z.args], z.attr)
        hat = Node("hat", (z,), (matrix, transposed), z.shape, width)
        found = self.expectation.solver.solve(self.zdot.zdot, matrix.name, transposed, z)
        if not found:
            return hat
        return _typed(
            algebra.add([(1, hat), (variance_factor(matrix, transposed), combined(found))]), z.shape, width, None
        )

    def _outer(self, x: Node, body: Node) -> Node:
        """E over the second block, where the body is a sum of products of one function of each block."""
        return _typed(_separated(self.expectation, body), x.shape, x.width, None)


def _separated(expectation: Expectation, body: Node) -> Node:
    if body.inner is None:
        return body
    if body.op == "inner":
        return expectation.solver.solve(expectation.mean, body.args[0])
    if body.op == "add":
        return algebra.add([(c, _separated(expectation, a)) for c, a in zip(body.attr, body.args, strict=True)])
    factors = list(zip(body.args, body.attr, strict=True)) if body.op == "mul" else [(body, 1)]
    for a, k in factors:
        if a.op == "add" and a.inner is not None and a.width is not None:
            if k > 8:
                break
            rest = [(b, j) for b, j in factors if b is not a] + ([(a, k - 1)] if k > 1 else [])
            return algebra.add(
                [(c, _separated(expectation, algebra.mul([b, *rest]))) for c, b in zip(a.attr, a.args, strict=True)]
            )
    outside = [(a, k) for a, k in factors if a.inner is None]
    inside = [(_uncopied(a), k) for a, k in factors if a.inner is not None]
    value = expectation.solver.solve(expectation.mean, algebra.mul(inside))
    return algebra.mul([*outside, value])


def _uncopied(x: Node) -> Node:
    """A function of the second block alone, as a function of the vectors themselves."""
    from tensorprog.language.node import topological

    done: dict[Node, Node] = {}
    for y in topological([x], lambda y: () if y.op == "inner" or y.inner is None else y.args):
        if y.op == "inner":
            done[y] = y.args[0]
        elif y.inner is None:
            if y.width is not None:
                raise Declined("an OuterNonlin whose body does not separate into functions of each block")
            done[y] = y
        elif y.op in ("vector", "matmul", "moment"):
            raise Declined(f"a {y.op} inside an OuterNonlin")
        elif y.op == "constant":
            done[y] = algebra.constant(y.attr, y.shape)
        else:
            args = [done[a] for a in y.args]
            _, width, _ = algebra._common(args)
            plain = Node(y.op, tuple(args), y.attr, y.shape, width) if y.op not in ("add", "mul", "fn") else None
            done[y] = (
                plain
                or {
                    "add": lambda: algebra.add(list(zip(y.attr, args, strict=True))),  # noqa: B023
                    "mul": lambda: algebra.mul(list(zip(args, y.attr, strict=True))),  # noqa: B023
                    "fn": lambda: algebra.fn(y.attr[0], args[0], *y.attr[1]),  # noqa: B023
                }[y.op]()
            )
    return done[x]
