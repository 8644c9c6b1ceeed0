"""Lowering: a tensor program becomes a Z-program, its Moments become scalar programs (the Master Theorem as a compiler pass)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.language import algebra
from tensorprog.language.algebra import ZERO, typed
from tensorprog.language.attributes import Product
from tensorprog.language.describe import describe
from tensorprog.language.functions import PRIMITIVES
from tensorprog.language.node import MOVES, Node, topological
from tensorprog.language.program import Program
from tensorprog.language.symbols import LongNumber, MatrixSpec, VectorSpec
from tensorprog.limits.expect.cases import by_cases
from tensorprog.limits.expect.domain import check_value, jumps, range_of
from tensorprog.limits.expect.expectation import Expectation
from tensorprog.limits.expect.exponentials import logarithm, saturated
from tensorprog.limits.expect.factors import variance_factor
from tensorprog.limits.expect.floats import FloatArithmetic
from tensorprog.limits.expect.laplace import homogeneous
from tensorprog.limits.expect.moves import PASSED, opened, root, scalar_version, settled
from tensorprog.limits.expect.outer import Separation
from tensorprog.limits.expect.polynomials import root_of_square
from tensorprog.limits.expect.powers import initial_scalars, limit_node
from tensorprog.limits.expect.zdot import Zdot, combined
from tensorprog.limits.tasks import Declined

__all__ = ["Lowering"]


class Lowering:
    """The limit of every node of a program.

    Attributes:
        z: Z of a vector, the limit of a scalar; not of Moments that only multiply 0.
        declined: Why the exact route has no limit for a node, where it has none.
        expectation: The rules, with what they remember.
        zdot: The rules of Zdot.
        separation: What bodies of OuterNonlins separate into.
        floats: What rounding may have done to the numbers on the way.
    """

    def __init__(
        self,
        program: Program,
        values: Mapping[str, Any] | None = None,
        expectation: Expectation | None = None,
        floats: FloatArithmetic | None = None,
    ) -> None:
        self.program = program
        self.floats = floats or FloatArithmetic()
        self.values = values
        self.expectation = expectation or Expectation()
        self.zdot = Zdot(self.expectation)
        self.separation = Separation(self.expectation)
        self.z: dict[Node, Node] = {}
        self.declined: dict[Node, str] = {}
        self._first: dict[tuple[MatrixSpec, bool, Node], Node] = {}
        self._costs: dict[Node, int] = {}
        self._picks = any(x.op == "pick" for x in program.nodes)
        self._waiting = _factors(program)
        self._initial_scalars = initial_scalars(program.nodes)
        self._without_limit: dict[Node, TensorProgramError] = {}  # initial scalars: 1/n^-1/2, as a part of exp(-n)
        for x in program.nodes:
            if x not in self._waiting:
                self._add(x)
        for x in (o.node for o in program.outputs.values()):
            if x in self._without_limit:
                raise self._without_limit[x]

    def _add(self, x: Node) -> None:
        """The limit of a node, those of its operands known but for Moments that wait."""
        if x in self._initial_scalars:
            self._add_initial(x)
            return
        if any(a in self._without_limit for a in x.args):
            self._add_with_powers(x)
            return
        reason = next((self.declined[a] for a in x.args if a in self.declined), None)
        if reason is None and x.op == "mul":
            if self._vanishes(x):
                self.z[x] = algebra.constant(0, x.shape, x.width, x.inner)
                return
            reason = next((self.declined[a] for a in x.args if a in self.declined), None)
        if reason is None:
            budget = self.expectation.budget
            before = budget.expansions
            try:
                with budget.share(x.height - 1, lambda: self._below(x), lambda: f"expanding {describe(x)}"):
                    known = [self.z[a] for a in x.args]
                    self.z[x] = self.floats.seen(x, self._lower(x, known), known)
                    if self._picks and x.op in ("add", "mul", "fn", "sum"):
                        self.z[x] = self._picked_last(self.z[x])
            except Declined as declined:
                reason = declined.reason
            except LongNumber as error:
                reason = error.what
            if budget.expansions > before:
                self._costs[x] = budget.expansions - before
        if reason is not None:
            self.declined[x] = reason

    def _add_initial(self, x: Node) -> None:
        """The limit of a function of n: that of its parts, or what it tends to as a whole where they have none."""
        error = next((self._without_limit[a] for a in x.args if a in self._without_limit), None)
        if error is None and not jumps(x):
            try:
                self.z[x] = self._lower(x, [self.z[a] for a in x.args])
                self._check_initial(x)
                return
            except TensorProgramError as refused:
                error = refused
        found = limit_node(x, self.values or {})
        if found is not None:
            self.z[x] = found
        elif error is not None:
            self._without_limit[x] = error
        else:
            self.z[x] = self._lower(x, [self.z[a] for a in x.args])

    def _check_initial(self, x: Node) -> None:
        """Refuses a function that has a value in the limit and none before: sqrt(-n**-1/2).

        Raises:
            TensorProgramError: naming the instruction.
        """
        known = self.values is not None and x.op == "fn" and PRIMITIVES[x.attr.name].domain is not None
        if known and limit_node(x, self.values or {}) is None:
            raise TensorProgramError(
                f"{describe(x)} has no value at finite widths",
                why="its argument tends to the edge of where the function has one, from outside",
                fix="change its sign, or leave it out",
                source=x.source,
                label=x.label,
            )

    def _add_with_powers(self, x: Node) -> None:
        """A product with powers of n that have a limit together: n^-1/2 of one width over that of another, times a Moment."""
        error = next(self._without_limit[a] for a in x.args if a in self._without_limit)
        if x.op != "mul":
            raise error
        factors = list(zip(x.args, x.attr, strict=True))
        powers = algebra.mul([(a, k) for a, k in factors if a in self._initial_scalars])
        rest = algebra.mul([(a, k) for a, k in factors if a not in self._initial_scalars])
        below = topological([powers])
        self._initial_scalars |= initial_scalars(below)
        for y in below:
            if y not in self.z and y not in self._without_limit:
                self._add(y)
        if powers in self._without_limit:
            raise error
        for y in (*(rest.args if rest.op == "mul" else ()), rest):
            if y not in self.z and y not in self.declined:
                self._add(y)
        if rest in self.declined:
            self.declined[x] = self.declined[rest]
        else:
            self.z[x] = typed(algebra.mul([self.z[powers], self.z[rest]]), x.shape, x.width, x.inner)

    def _below(self, x: Node) -> tuple[int, int]:
        """How many instructions x is made of, and what their limits have cost: an output has one budget for all of them."""
        below = topological(x.args)
        return len(below), sum([self._costs.get(y, 0) for y in below])

    def _vanishes(self, x: Node) -> bool:
        """Is a factor of the product 0? Moments that wait are found on the way, the latest in the program first.

        A tangent kernel multiplies Moments of gradients, many of which vanish, by Moments of the forward pass.
        """
        if any(a in self.z and self.z[a].is_zero for a in x.args):
            return True
        for a in sorted([a for a in x.args if a in self._waiting], key=lambda a: -a.height):
            if a not in self.z and a not in self.declined:
                self._add(a)
            if a in self.z and self.z[a].is_zero:
                return True
        return False

    def _lower(self, x: Node, args: list[Node]) -> Node:
        match x.op:
            case "constant":
                return x
            case "scalar":
                if self.values is None:
                    return x
                return algebra.typed(algebra.constant(self.values[x.attr.name]), x.shape, None, None)
            case "inverse_sqrt":
                return ZERO
            case "vector":
                return self._initial(x.attr)
            case "matmul":
                return self._matmul(x.attr.matrix, x.attr.transposed, args[0])
            case "moment":
                return typed(self.expectation.solver.solve(self.expectation.mean, args[0]), x.shape, None, None)
            case "inner":
                return algebra.inner(args[0]) if args[0].width is not None else args[0]
            case "outer":
                return self._outer(x, args[0])
            case "view" | "take" | "pick":
                z = algebra.rebuild(x, args)
                if z.inner is None:
                    return settled(z)
                while z.op in MOVES and root(z).op in PASSED:
                    z = opened(z)
                return z
            case "fn":
                check_value(x, args[0])
                rule = {"log": logarithm, "sqrt": root_of_square}.get(x.attr.name)
                if rule is not None and x.width is not None and x.inner is None:
                    rewritten = rule(args[0])
                    if rewritten is not None:
                        return typed(rewritten, x.shape, x.width, None)
                if args[0].shape and not self.expectation.structure.facts(args[0]).affine:
                    cases = by_cases(args[0])
                    if cases:
                        apart = [algebra.mul([mask, self._lower(x, [z])]) for mask, z in cases]
                        return typed(algebra.add([(1, z) for z in apart]), x.shape, x.width, None)
                if x.attr.name in ("step", "sign") and (one_sided := _side(args[0])):
                    value = one_sided if x.attr.name == "sign" else max(one_sided, 0)
                    return algebra.constant(value, x.shape, x.width, x.inner)
                pulled = homogeneous(self.expectation.structure, x, args[0])
                return algebra.rebuild(x, args) if pulled is None else pulled
            case "stack":
                gathered = _gathered(x, args)
                return algebra.rebuild(x, args) if gathered is None else gathered
            case "sum":
                z = args[0]
                if (
                    z.width is not None
                    and self.expectation.structure.facts(z).stacked
                    and self.expectation.stack_axis(z) == x.attr
                ):
                    return algebra.add([(1, algebra.take(z, x.attr, i)) for i in range(z.shape[x.attr])])
                return algebra.rebuild(x, args)
            case "add":
                z = algebra.rebuild(x, args)
                return saturated(z) or z
            case _:
                return algebra.rebuild(x, args)

    def _picked_last(self, z: Node) -> Node:
        """relu(pick(h)) as pick(relu(h)), so that all that is made of relu(h) finds the same one."""
        if z.width is None or z.inner is not None:
            return z
        picks = self.expectation.structure.facts(z).picks
        for axis, (size, _) in sorted(picks.items()):
            z = self.expectation.structure.unpicked(z, axis, size)
        for axis, (_, index) in sorted(picks.items()):
            z = settled(algebra.pick(z, axis, index))
        return z

    def _initial(self, spec: VectorSpec) -> Node:
        mean = algebra.constant(spec.mean, spec.shape, spec.width)
        if isinstance(spec.mean, np.ndarray):
            mean = Node("constant", (), spec.mean, spec.shape, spec.width)
        if (spec.cov is not None and not np.any(spec.cov)) or (spec.cov is None and not np.any(spec.var)):
            return mean
        if spec.distribution is None:
            return algebra.add([(1, mean), (1, Node("leaf", (), spec, spec.shape, spec.width))])
        standard = VectorSpec(spec.name, spec.width, spec.shape, 0, 1)
        g = Node("leaf", (), standard, spec.shape, spec.width)
        variance = algebra.constant(spec.var)
        if spec.distribution == "rademacher":  # the sign of a Gaussian
            return algebra.add([(1, mean), (1, algebra.mul([algebra.fn("sqrt", variance), algebra.fn("sign", g)]))])
        if spec.distribution == "uniform":  # 2 Phi(g) - 1 is uniform on (-1, 1), of variance 1/3
            spread = algebra.fn("sqrt", algebra.scale(3, variance))
            return algebra.add([(1, mean), (1, algebra.mul([spread, algebra.fn("smooth_sign", g, 1)]))])
        raise Declined(f"the initial vector {spec.name} has the distribution {spec.distribution.dist.name}")

    def _matmul(self, matrix: MatrixSpec, transposed: bool, z: Node) -> Node:
        """Z^{Wx} = Zhat + Zdot; numbers and deterministic factors of x are pulled out of both."""
        width = matrix.cols if transposed else matrix.rows
        if z.is_zero or matrix.var == 0:
            return algebra.constant(0, z.shape, width)
        structure = self.expectation.structure
        if z.width is None or (z.op == "constant" and not isinstance(z.attr, np.ndarray)):
            one = Node(
                "hat",
                (algebra.constant(1, (), matrix.rows if transposed else matrix.cols),),
                Product(matrix, transposed),
                (),
                width,
            )
            return typed(algebra.mul([scalar_version(z), one]), z.shape, width, None)
        if z.op == "add" and len(z.args) == 1:
            inside = self._matmul(matrix, transposed, z.args[0])
            return typed(algebra.scale(z.attr[0], inside), z.shape, width, None)
        if z.op == "mul":
            scalars = [(a, k) for a, k in zip(z.args, z.attr, strict=True) if not structure.facts(a).families]
            rest = algebra.mul([(a, k) for a, k in zip(z.args, z.attr, strict=True) if structure.facts(a).families])
            # The first one stays what it is: pulled out of every layer, factors such as 1/sigma overflow before they cancel.
            if scalars and self._first.setdefault((matrix, transposed, rest), z) != z:
                inside = self._matmul(matrix, transposed, rest)
                return typed(algebra.mul([*[(scalar_version(a), k) for a, k in scalars], inside]), z.shape, width, None)
        picks = structure.facts(z).picks
        if picks:  # W is applied to every position alike
            for axis, (size, _) in picks.items():
                z = structure.unpicked(z, axis, size)
            y = self._matmul(matrix, transposed, z)
            for axis, (_, index) in picks.items():
                y = algebra.pick(y, axis, index) if y.shape else y
            return settled(y)
        if z.op == "stack":
            return algebra.stack([self._matmul(matrix, transposed, a) for a in z.args], z.attr)
        hat = Node("hat", (z,), Product(matrix, transposed), z.shape, width)
        found = self.expectation.solver.solve(self.zdot.zdot, matrix.name, transposed, z)
        if not found:
            return hat
        return typed(
            algebra.add([(1, hat), (variance_factor(matrix, transposed), combined(found, z.shape))]),
            z.shape,
            width,
            None,
        )

    def _outer(self, x: Node, body: Node) -> Node:
        """E over the second block, where the body is a sum of products of one function of each block."""
        return typed(self.separation.mean(body), x.shape, x.width, None)


def _factors(program: Program) -> set[Node]:
    """The Moments that are factors of products and nothing else: not needed where another factor is 0."""
    needed = {o.node for o in program.outputs.values()}
    needed |= {a for x in program.nodes if x.op != "mul" for a in x.args}
    return {x for x in program.nodes if x.op == "moment" and x not in needed}


def _side(z: Node) -> int:
    """1 or -1 where z has one sign everywhere, also where floats make it 0: exp(-1000), gaussian(30); else 0."""
    known = range_of(z)
    return 1 if known.low > 0 else -1 if known.high < 0 else 0


def _gathered(x: Node, args: list[Node]) -> Node | None:
    """Positions of one Gaussian multi-vector, taken and stacked: a contraction with a selection, which stays one array."""
    if not all(a.op == "take" and a.args == args[0].args and a.attr.axis == args[0].attr.axis for a in args):
        return None
    (z,), source = args[0].args, args[0].attr.axis
    chosen = np.zeros((len(args), z.shape[source]), dtype=np.int64)
    chosen[range(len(args)), [a.attr.position for a in args]] = 1
    shape = (*z.shape, len(args))
    selection = algebra.view(algebra.constant(chosen, chosen.shape), [len(z.shape), source], shape)
    spread = algebra.view(z, range(len(z.shape)), shape)
    summed = algebra.sum_axis(typed(algebra.mul([selection, spread]), shape, z.width, None), source)
    order = list(range(len(summed.shape) - 1))
    order.insert(x.attr, len(summed.shape) - 1)
    return algebra.transpose(summed, order)
