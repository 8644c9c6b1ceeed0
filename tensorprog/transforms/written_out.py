"""Products with sums of matrices, written out: what reasons about a program knows initial matrices and OuterNonlins alone.

A matrix of a program is a sum of multiples of initial matrices and of an update with two coordinates. So

    M x   = sum_W c_W W x   + OuterNonlin(update(a, b) x_b)
    M.T y = sum_W c_W W.T y + rho OuterNonlin(update(b, a) y_b),     rho = rows / cols,

where the mean over the rows, times rho, is the sum over them divided by the number of columns. The matrix after t steps of
training has its update from the one before and one term more, so that a trace stays linear in the number of steps. Runs do not
write anything out (`execute/matrices.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tensorprog.language import algebra
from tensorprog.language.algebra import ONE, ZERO, typed
from tensorprog.language.calculus import partial
from tensorprog.language.node import Node, topological
from tensorprog.language.program import Output, Program
from tensorprog.language.symbols import MatrixSpec, ratio
from tensorprog.transforms.rewrite import rewrite_nodes

__all__ = ["swapped", "written_out", "written_out_nodes"]

_WRITTEN = ("apply", "difference")

Form = tuple[dict[MatrixSpec, Node], Node]
"""A matrix as the coefficients of initial matrices, scalars of its axes, and the update."""


def written_out(program: Program) -> Program:
    """The program with its products with sums of matrices written out; made once, and kept with it.

    Example:
        >>> import tensorprog as tp
        >>> n = tp.Width("n")
        >>> W, x, d = tp.Matrix("W", n, n), tp.Vector("x", n), tp.Vector("d", n)
        >>> W1 = W - tp.matrix(lambda d, h: d * h, d, x) / 2
        >>> print(written_out(tp.Program(q=tp.moment((W1 @ x) ** 2))))
        width n
        matrix W : n x n, var 1
        vector d : n, mean 0, var 1
        vector x : n, mean 0, var 1
        x1 = OuterNonlin(-1/2*x'**2*d)
        g2 = MatMul(W, x)
        c3 = Moment((x1 + g2)**2)
        output q = c3
    """
    if not any(x.op in _WRITTEN for x in program.nodes):
        return program
    if "written out" not in program._derived:
        new = written_out_nodes([o.node for o in program.outputs.values()])
        outputs = {name: Output(new[o.node], o.axes) for name, o in program.outputs.items()}
        program._derived["written out"] = Program(outputs)
    out: Program = program._derived["written out"]
    return out


def written_out_nodes(roots: Sequence[Node]) -> Mapping[Node, Node]:
    """Every node below the roots, the roots included, to what takes its place."""
    if not any(x.op in _WRITTEN for x in topological(roots)):
        return {x: x for x in roots}
    return rewrite_nodes(roots, _Writer().rule)


class _Writer:
    def __init__(self) -> None:
        self.forms: dict[Node, Form] = {}
        self.swapped: dict[Node, Node] = {}

    def rule(self, x: Node, args: Sequence[Node]) -> Node:
        if x.op == "difference":
            return typed(_difference(x, args), x.shape, x.width, x.inner)
        if x.op != "apply":
            return algebra.rebuild(x, args)
        m, y = args
        transposed = x.attr.transposed
        coefficients, update = self.form(m)
        parts = [
            algebra.mul([c, algebra.matmul(of, transposed, y, algebra.is_backward(x))])
            for of, c in coefficients.items()
        ]
        if not update.is_zero:
            assert m.width is not None and m.inner is not None
            rho = ratio(m.width, m.inner) if transposed else 1
            body = algebra.mul([swapped(update, self.swapped) if transposed else update, algebra.inner(y)])
            body = typed(body, x.shape, x.width, m.width if transposed else m.inner)
            parts.append(algebra.scale(rho, algebra.outer(body)))
        for part in parts:
            part.source = part.source or x.source
        return typed(algebra.add([(1, p) for p in parts]), x.shape, x.width, None)

    def form(self, m: Node) -> Form:
        """A matrix as initial matrices and the rest; that of what it is made of is known."""
        known = self.forms
        for x in topological([m], lambda y: y.args if y.has_matrix and y not in known else ()):
            if x in known:
                continue
            if x.op == "matrix":
                known[x] = {x.attr: ONE}, ZERO
            elif not x.has_matrix:
                known[x] = {}, x
            else:
                parts = [known[a] if a.has_matrix else ({}, a) for a in x.args]
                known[x] = self._built(x, parts)
        return known[m]

    def _built(self, x: Node, parts: Sequence[Form]) -> Form:
        found = dict.fromkeys([of for coefficients, _ in parts for of in coefficients])
        match x.op:
            case "add":
                pairs = list(zip(x.attr, parts, strict=True))
                update = algebra.add([(c, rest) for c, (_, rest) in pairs])
                sums = {of: algebra.add([(c, given[of]) for c, (given, _) in pairs if of in given]) for of in found}
            case "mul":
                scalars = [(a, k) for a, k in zip(x.args, x.attr, strict=True) if not a.has_matrix]
                ((given, rest),) = [p for a, p in zip(x.args, parts, strict=True) if a.has_matrix]
                update = algebra.mul([*scalars, rest])
                sums = {of: algebra.mul([*scalars, c]) for of, c in given.items()}
            case _:  # axes are moved in all parts alike
                full = [typed(rest, a.shape, a.width, a.inner) for a, (_, rest) in zip(x.args, parts, strict=True)]
                update = ZERO if all(rest.is_zero for _, rest in parts) else algebra.applied(x, full)
                sums = {}
                for of in found:
                    mine = [typed(p[0].get(of, ZERO), a.shape, None, None) for a, p in zip(x.args, parts, strict=True)]
                    sums[of] = algebra.applied(x, mine)
        if not update.is_zero:
            update = typed(update, x.shape, x.width, x.inner)
        return {of: c for of, c in sums.items() if not c.is_zero}, update


def _difference(x: Node, args: Sequence[Node]) -> Node:
    """A divided difference: phi'(y) d where its step tends to 0, else what it says."""
    y, d, eps = args
    phi = algebra.fn(x.attr.name, y, *x.attr.parameters)
    if _vanishes(eps):
        slope = partial(phi, 0) if phi.op == "fn" else ZERO  # of a number, folded: the same everywhere
        assert slope is not None
        return algebra.mul([d, slope])
    step = algebra.add([(1, y), (1, algebra.mul([eps, d]))])
    return algebra.mul(
        [algebra.sub(algebra.fn(x.attr.name, step, *x.attr.parameters), phi), algebra.fn("reciprocal", eps)]
    )


def _vanishes(eps: Node) -> bool:
    """Does a scalar tend to 0 with n: is it a power of n**-1/2 or its root, or this times numbers and hyperparameters?"""
    if eps.op == "add":
        return all(map(_vanishes, eps.args))
    if eps.op == "mul":
        return any(map(_vanishes, eps.args)) and all(
            a.op in ("inverse_sqrt", "scalar", "constant") or _vanishes(a) for a in eps.args
        )
    if eps.op == "fn":
        return eps.attr.name == "sqrt" and _vanishes(eps.args[0])
    return eps.op == "inverse_sqrt"


def swapped(body: Node, known: dict[Node, Node] | None = None) -> Node:
    """What has two coordinates, with these exchanged.

    Args:
        body: Its width becomes its inner width.
        known: What is known of the nodes it is made of; it grows.
    """
    done = {} if known is None else known

    def inside(y: Node) -> tuple[Node, ...]:
        return y.args if y.inner is not None and y.op != "inner" and y not in done else ()

    for y in topological([body], inside):
        if y in done:
            continue
        if y.op == "inner":
            done[y] = y.args[0]
        elif y.inner is None:
            done[y] = y if y.width is None else algebra.inner(y)
        elif y.op == "constant":
            done[y] = Node("constant", (), y.attr, y.shape, y.inner, y.width)
        else:
            args: Sequence[Node] = [done[a] for a in y.args]
            done[y] = typed(algebra.applied(y, args), y.shape, y.inner, y.width)
    return done[body]
