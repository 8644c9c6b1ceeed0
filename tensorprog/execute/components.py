"""Which vectors of a width ever meet, coordinate by coordinate: the layers of a network without skip connections do not.

In the limit, coordinates of vectors that never meet have no joint law that anything depends on. A population for each
component then needs fewer directions than one for the whole width: noise is made orthogonal to less, is drawn in fewer Sobol
dimensions, and leaves more of the samples' directions free.
"""

from __future__ import annotations

from tensorprog.language.node import Node
from tensorprog.language.program import Program

__all__ = ["Components"]

ROWS, COLS = "rows", "cols"
Key = tuple[Node | str, str]
"""A node or the name of an initial matrix, and which of its coordinates; or the name of an initial vector."""


class Components:
    """The components of the widths of a program, named for their width, the second one "n 2", and so on, in the program's order.

    Args:
        program: The program.

    Attributes:
        vectors: Name of an initial vector to its component.
        matrices: Name of an initial matrix to those of its rows and its columns.
        nodes: What makes noise, products and initial vectors, to its component.
    """

    def __init__(self, program: Program) -> None:
        self._above: dict[Key, Key] = {}
        self.vectors: dict[str, str] = {}
        self.matrices: dict[str, tuple[str, str]] = {}
        self.nodes: dict[Node, str] = {}
        nodes = program.nodes
        self._fixed: set[Node] = set()  # the same number in every coordinate: it meets nothing
        for x in nodes:
            if x.op not in ("vector", "matrix", "matmul", "apply", "outer") and self._fixed.issuperset(_wide(x)):
                self._fixed.add(x)
            else:
                self._meet(x)
        names: dict[Key, str] = {}
        count: dict[str, int] = {}

        def name(key: Key, width: str) -> str:
            root = self._root(key)
            if root not in names:
                k = count[width] = count.get(width, 0) + 1
                names[root] = width if k == 1 else f"{width} {k}"
            return names[root]

        for x in nodes:
            if x.op in ("vector", "matmul", "apply"):
                assert x.width is not None
                self.nodes[x] = name((x, ROWS), x.width.name)
            if x.op == "vector":
                self.vectors[x.attr.name] = self.nodes[x]
            elif x.op in ("matmul", "matrix"):
                spec = x.attr.matrix if x.op == "matmul" else x.attr
                rows, cols = name((spec.name, ROWS), spec.rows.name), name((spec.name, COLS), spec.cols.name)
                self.matrices[spec.name] = rows, cols

    def _meet(self, x: Node) -> None:
        match x.op:
            case "vector":
                self._join((x, ROWS), (x.attr.name, "vector"))
            case "matrix":
                self._join((x, ROWS), (x.attr.name, ROWS))
                self._join((x, COLS), (x.attr.name, COLS))
            case "matmul":
                spec, transposed, _ = x.attr
                self._join((x, ROWS), (spec.name, COLS if transposed else ROWS))
                self._join((x.args[0], ROWS), (spec.name, ROWS if transposed else COLS))
            case "apply":
                m, y = x.args
                self._join((x, ROWS), (m, COLS if x.attr.transposed else ROWS))
                self._join((y, ROWS), (m, ROWS if x.attr.transposed else COLS))
            case "inner":
                self._join((x, COLS), (x.args[0], ROWS))
            case _ if x.op != "moment":
                for a in _wide(x):
                    if a.width is not None:
                        self._join((x, ROWS), (a, ROWS))
                    if a.inner is not None and x.op != "outer":
                        self._join((x, COLS), (a, COLS))

    def _root(self, key: Key) -> Key:
        above = self._above
        while above.setdefault(key, key) != key:
            above[key] = above[above[key]]
            key = above[key]
        return key

    def _join(self, a: Key, b: Key) -> None:
        if not self._fixed.intersection((a[0], b[0])):
            self._above[self._root(a)] = self._root(b)


def _wide(x: Node) -> list[Node]:
    """The operands that have coordinates."""
    return [a for a in x.args if a.width is not None or a.inner is not None]
