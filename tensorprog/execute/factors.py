"""Which instructions run a matrix of a program: factors where its values separate, entries where they do not.

W - eta * dh * h' is never an array: it is an initial matrix, as the space has it, and vectors. A product with it costs as
much as the products with its parts. What does not separate, Adam's m / (sqrt(v) + eps), is an array over rows and columns,
made by the same kernels as all else, each from the one before. Which it is depends on the program alone:

* a function of one coordinate separates; sums do; a product with at most one factor of two coordinates does, if that one does;
  and what is done to axes;
* everything else is an array, and so is all that it is made of, as far as that has two coordinates.

The instructions are nodes of their own, which no program has:

| op      | operands       | attr         | value                                                                    |
|---------|----------------|--------------|--------------------------------------------------------------------------|
| factors | left, right    |              | left_a right_b; each a vector, of the rows and of the columns, or a scalar |
| entries | x              |              | the array of x                                                           |
| combine | M1, ...        | coefficients | sum of c_i M_i                                                           |
| scaled  | M, left, right |              | left_a M_ab right_b                                                      |
| moved   | M1, ...        | (op, attr)   | a view, take, pick, sum or stack of M                                    |
"""

from __future__ import annotations

from tensorprog.language import algebra
from tensorprog.language.algebra import ONE
from tensorprog.language.describe import describe
from tensorprog.language.node import Node, topological
from tensorprog.language.symbols import MatrixSpec
from tensorprog.transforms.written_out import swapped

__all__ = ["OPERATIONS", "MatrixPlan", "is_stored", "rank"]

OPERATIONS = ("factors", "entries", "combine", "scaled", "moved")


class MatrixPlan:
    """The instructions for the matrices of a program."""

    def __init__(self) -> None:
        self._made: dict[Node, Node] = {}
        self._separate: dict[Node, bool] = {}
        self._swapped: dict[Node, Node] = {}
        self._initial: dict[Node, frozenset[MatrixSpec]] = {}

    def of(self, m: Node) -> Node:
        """The instruction whose value is the matrix m."""
        made = self._made
        for x in topological([m], lambda y: self._parts(y) if y not in made else ()):
            if x not in made:
                made[x] = self._build(x)
                if made[x] is not x:
                    made[x].source, made[x].label = x.source, describe(x)
        return made[m]

    def initial(self, m: Node) -> frozenset[MatrixSpec]:
        """The initial matrices in a matrix of the program."""
        known = self._initial
        for x in topological([m], lambda y: y.args if y.has_matrix and y not in known else ()):
            if x not in known:
                own = frozenset([x.attr]) if x.op == "matrix" else frozenset()
                known[x] = own.union(*[known[a] for a in x.args]) if x.has_matrix else own
        return known[m]

    def _separates(self, m: Node) -> bool:
        known = self._separate
        for x in topological([m], lambda y: [a for a in y.args if _both(a)] if y not in known else ()):
            if x not in known:
                mixed = [(i, a) for i, a in enumerate(x.args) if _both(a)]
                fine = all(known[a] for _, a in mixed)
                if x.op == "mul":
                    fine = fine and len(mixed) < 2 and all(x.attr[i] == 1 for i, _ in mixed)
                elif x.op == "fn":
                    fine = False
                known[x] = fine
        return known[m]

    def _parts(self, x: Node) -> list[Node]:
        """The operands that are matrices, too."""
        return [a for a in x.args if _both(a)] if x.has_matrix or self._separates(x) else []

    def _build(self, x: Node) -> Node:
        if x.op == "matrix":
            return x
        if not (x.has_matrix or self._separates(x)):
            return _node("entries", x, x)
        match x.op:
            case "constant":
                return self._single(x, x)
            case "add":
                return _node("combine", x, *[self._operand(a, x) for a in x.args], attr=x.attr)
            case "mul":
                mixed = [a for a in x.args if _both(a) and a.op != "constant"]
                left, right = self._sides([(a, k) for a, k in zip(x.args, x.attr, strict=True) if a not in mixed])
                return (
                    _node("scaled", x, self._made[mixed[0]], left, right) if mixed else _node("factors", x, left, right)
                )
            case _:
                return _node("moved", x, *[self._operand(a, x) for a in x.args], attr=(x.op, x.attr))

    def _operand(self, a: Node, x: Node) -> Node:
        return self._made[a] if a in self._made else self._single(a, x)

    def _single(self, a: Node, x: Node) -> Node:
        """What has one coordinate, or none, as a matrix."""
        left, right = self._sides([(a, 1)])
        return Node("factors", (left, right), None, a.shape, x.width, x.inner)

    def _sides(self, factors: list[tuple[Node, int]]) -> tuple[Node, Node]:
        """A product of functions of one coordinate, as one of the rows and scalars, and one of the columns."""
        left, right = [ONE], [ONE]
        for a, k in factors:
            if a.op == "constant":
                left.append(algebra.power(Node("constant", (), a.attr, a.shape), k))
            elif a.inner is None:
                left.append(algebra.power(a, k))
            else:
                right.append(algebra.power(swapped(a, self._swapped), k))
        return algebra.mul(left), algebra.mul(right)


def _both(x: Node) -> bool:
    return x.width is not None and x.inner is not None


def _node(op: str, x: Node, *args: Node, attr: object = None) -> Node:
    return Node(op, args, attr, x.shape, x.width, x.inner)


def rank(x: Node, known: dict[Node, int]) -> int:
    """How many pairs of vectors the value of an instruction has at most; those of its operands are known."""
    parts = [known.get(a, 0) for a in x.args]
    match x.op:
        case "factors":
            known[x] = 1
        case "combine":
            known[x] = sum(parts)
        case "moved":
            op, attr = x.attr
            known[x] = sum(parts) * (x.args[0].shape[attr] if op == "sum" else 1)
        case "scaled":
            known[x] = parts[0]
        case _:
            known[x] = 0
    return known[x]


def is_stored(x: Node, known: dict[Node, bool]) -> bool:
    """Has the value of an instruction an array over rows and columns of its own?"""
    known[x] = x.op in ("combine", "scaled", "moved") and any(a.op == "entries" or known.get(a, False) for a in x.args)
    return known[x]
