"""The one data structure: an immutable instruction that knows its operands, its type and a digest of its content.

A program, its limit's Z-program and the scalar program are all graphs of these nodes. A node's type is

    shape   the sizes of its axes, by position (names attach at the user's end only),
    width   the width its coordinates run over; None for a scalar,
    inner   the second width of a matrix, and inside an OuterNonlin's body; None elsewhere.

| op         | operands        | attr                     | meaning                                                      |
|------------|-----------------|--------------------------|--------------------------------------------------------------|
| constant   |                 | number or array          | the same number in every coordinate                          |
| scalar     |                 | Hyperparameter           | a hyperparameter: a number, or an array of them              |
| inverse_sqrt |               | Width                    | width**-1/2, an initial scalar with limit 0                  |
| vector     |                 | VectorSpec               | an initial vector                                            |
| matrix     |                 | MatrixSpec               | an initial matrix as a part of one: cols times its entries   |
| matmul     | x               | Product                  | W x or W.T x, perhaps marked "backward" or "forward"         |
| apply      | M, x            | Applied                  | M x or M.T x of what has two coordinates; marks as of matmul |
| moment     | x               |                          | the mean over the width                                      |
| add        | x1, ...         | coefficients             | sum of c_i x_i                                               |
| mul        | x1, ...         | exponents (ints >= 1)    | product of x_i ** k_i                                        |
| fn         | x               | Call                     | a primitive of `functions.py`, elementwise                   |
| difference | x, d, eps       | Call                     | (phi(x + eps d) - phi(x)) / eps, elementwise                 |
| view       | x               | position of each axis    | axes of x placed in a larger shape; a repeat is a diagonal   |
| take       | x               | Take                     | one position of an axis, which is dropped                    |
| pick       | x               | Pick                     | positions of an axis in any order, with repeats              |
| stack      | x1, ...         | axis                     | a new axis                                                   |
| sum        | x               | axis                     | contraction of one axis                                      |
| softmax    | scalar          | axis                     | exp(x) / sum exp(x) along an axis                            |
| inner      | y               |                          | y indexed by the second coordinate of an OuterNonlin         |
| outer      | body            |                          | OuterNonlin: the mean of the body over its second coordinate |

Attributes of several parts are in `attributes.py`.

What has two coordinates, over `width` and `inner`, is a matrix: M multiplies by its values divided by the number of its
columns, so that W - eta * dh * h' is the sum of an initial matrix and an update. An initial matrix in it is only added and
scaled (`has_matrix`); what has none is any function.

The limit adds `hat` (a Gaussian leaf), `family` (a stack that nothing looks through, `limits/expect/families.py`), and closed
forms and integrals of the scalar program (`limits/`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any

from tensorprog.errors import Source
from tensorprog.language.symbols import Width, encode

__all__ = ["MOVES", "Node", "topological"]

MOVES = ("view", "take", "pick")
"""What moves positions, and commutes with everything elementwise."""


class Node:
    """One instruction. Equality is equality of content: build order, axis names and labels play no part."""

    __slots__ = (
        "_hash",
        "args",
        "attr",
        "digest",
        "has_matrix",
        "height",
        "inner",
        "label",
        "op",
        "shape",
        "source",
        "width",
    )

    op: str
    args: tuple[Node, ...]
    attr: Any
    shape: tuple[int, ...]
    width: Width | None
    inner: Width | None
    digest: bytes
    height: int
    source: Source | None
    label: str
    has_matrix: bool
    """Is it a sum of initial matrices and what has two coordinates?"""

    def __init__(
        self,
        op: str,
        args: tuple[Node, ...] = (),
        attr: Any = None,
        shape: tuple[int, ...] = (),
        width: Width | None = None,
        inner: Width | None = None,
    ) -> None:
        self.op, self.args, self.attr, self.shape, self.width, self.inner = op, args, attr, shape, width, inner
        # encode((op, attr, shape, width, inner)), written out: it is most of what it takes to make a node
        wide = b"None" if width is None else width.encoded()
        deep = b"None" if inner is None else inner.encoded()
        head = b"(%b,%b,%b,%b,%b)" % (repr(op).encode(), encode(attr), repr(shape).encode(), wide, deep)
        self.digest = blake2b(head + b"".join([a.digest for a in args]), digest_size=16).digest()
        self._hash = int.from_bytes(self.digest[:8], "little", signed=True)
        self.height = 1 + (max([a.height for a in args]) if args else 0)
        self.source, self.label = None, ""
        self.has_matrix = inner is not None and (op == "matrix" or any([a.has_matrix for a in args]))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Node) and self.digest == other.digest)

    def __reduce__(self) -> tuple[Any, ...]:
        """As a list of instructions: graphs are deeper than the stack of pickle and deepcopy."""
        nodes = topological([self])
        place = {x: i for i, x in enumerate(nodes)}
        rows = [(x.op, [place[a] for a in x.args], x.attr, x.shape, x.width, x.inner, x.source, x.label) for x in nodes]
        return _restored, (rows,)

    @property
    def is_scalar(self) -> bool:
        """Does it have no coordinates?"""
        return self.width is None and self.inner is None

    @property
    def is_zero(self) -> bool:
        """Is it the constant 0?"""
        return self.op == "constant" and isinstance(self.attr, (int, float)) and self.attr == 0

    def __repr__(self) -> str:
        kind = "scalar" if self.width is None else f"vector({self.width.name})"
        kind = kind if self.width is None or self.inner is None else f"matrix({self.width.name}, {self.inner.name})"
        return f"<{kind} {self.op} {self.shape if self.shape else ''}{self.digest.hex()[:6]}>"


def _restored(rows: list[tuple[Any, ...]]) -> Node:
    nodes: list[Node] = []
    for op, args, attr, shape, width, inner, source, label in rows:
        x = Node(op, tuple([nodes[i] for i in args]), attr, shape, width, inner)
        x.source, x.label = source, label
        nodes.append(x)
    return nodes[-1]


def topological(outputs: Iterable[Node], operands: Callable[[Node], Iterable[Node]] = lambda x: x.args) -> list[Node]:
    """Every node the outputs are made of, operands first, equal nodes merged; depth first, hence in a canonical order."""
    order: list[Node] = []
    done: set[Node] = set()
    for output in outputs:
        stack: list[tuple[Node, bool]] = [(output, False)]
        while stack:
            x, expanded = stack.pop()
            if expanded:
                order.append(x)
            elif x not in done:
                done.add(x)
                stack.append((x, True))
                stack.extend([(a, False) for a in reversed(tuple(operands(x))) if a not in done])
    return order
