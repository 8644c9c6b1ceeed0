"""Instructions as reports call them: the number and name that `print(program)` gives them, and the user's line."""

from __future__ import annotations

from typing import Any

from tensorprog.errors import Source
from tensorprog.language.describe import describe
from tensorprog.language.node import Node
from tensorprog.language.program import Program
from tensorprog.text.show import LEAVES, listing

__all__ = ["Instructions", "place"]


def place(source: Source | None) -> dict[str, Any]:
    """A user's line for JSON.

    Example:
        >>> place(Source("program.py", 31)), place(None)
        ({'file': 'program.py', 'line': 31}, {'file': None, 'line': None})
    """
    return {"file": None, "line": None} if source is None else {"file": source.file, "line": source.line}


class Instructions:
    """Numbers, names and lines of a program's instructions.

    The k-th instruction is the k-th line of the program's text after its declarations. A node that is written inside
    another line's expression has that line's number.

    Args:
        program: The program.

    Example:
        >>> import tensorprog as tp
        >>> n = tp.Width("n")
        >>> W, x = tp.Matrix("W", n, n), tp.Vector("x", n)
        >>> p = tp.Program(q=tp.moment(tp.relu(W @ tp.tanh(x)) ** 2))
        >>> of = Instructions(p)
        >>> [of.heading(y) for y in p.nodes if y.op == "matmul"]
        ['instr 2: g2 = W @ x1']
    """

    def __init__(self, program: Program) -> None:
        parts = listing(program)
        self._number: dict[Node, int] = {}
        self._name: dict[Node, str] = {leaf: name for name, leaf in parts.leaves.items()}
        self._text: dict[Node, str] = {}
        self._names: dict[int, str] = {}
        self._sources: dict[int, Source | None] = {}
        for k, line in enumerate(parts.lines, 1):
            self._number[line.node], self._name[line.node], self._text[line.node] = k, line.name, line.text
            self._names[k], self._sources[k] = line.name, line.node.source
        for k, line in enumerate(parts.lines, 1):
            todo = list(line.node.args)
            while todo:
                x = todo.pop()
                if x not in self._number and x.op not in LEAVES:
                    self._number[x] = k
                    todo.extend(x.args)

    def number(self, x: Node) -> int | None:
        """The number of the instruction that computes x; None for an initial vector or a part of an output."""
        return self._number.get(x)

    def name(self, x: Node) -> str:
        """What the text calls x, or a description where it has no name of its own."""
        return self._name.get(x) or describe(x)

    def source(self, x: Node) -> Source | None:
        """The user's line: of x, or of the instruction it is inside of where the package built x by itself."""
        k = self._number.get(x)
        return x.source if x.source is not None or k is None else self._sources[k]

    def formula(self, x: Node) -> str:
        """`W.T @ dh` for a MatMul, the text of any other instruction."""
        if x.op == "matmul":
            matrix, transposed, _ = x.attr
            return f"{matrix.name}{'.T' if transposed else ''} @ {self.name(x.args[0])}"
        return self._text.get(x) or describe(x)

    def heading(self, x: Node) -> str:
        """`instr 7: g1 = W.T @ dh2`; for what is inside an instruction, its description and that instruction's number."""
        k = self.number(x)
        if k is None:
            return f"{'vector ' if x.op == 'vector' else ''}{self.name(x)}"
        if x not in self._name:
            return f"instr {k}: {describe(x)} in {self._names[k]}"
        return f"instr {k}: {self.name(x)} = {self.formula(x)}"

    def short(self, x: Node) -> str:
        """`instr 3 (h2), program.py:31`, for a mention in passing."""
        k = self.number(x)
        where = f", {self.source(x)}" if self.source(x) is not None else ""
        if k is None:
            return f"{self.name(x)}{where}"
        return f"instr {k} ({self._names[k]}){where}"
