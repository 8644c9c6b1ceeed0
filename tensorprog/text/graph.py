"""A program as a networkx graph, for graph questions and drawing; the program itself is the store."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tensorprog.language.algebra import is_backward
from tensorprog.language.node import Node
from tensorprog.text.show import listing

if TYPE_CHECKING:
    import networkx

    from tensorprog.language.program import Program

__all__ = ["graph"]


def graph(program: Program) -> networkx.DiGraph[str]:
    """The program's graph: a vertex for each line of its text, an edge from each operand.

    Vertices are named as in the text; an output q is the vertex `output q`. Their attributes: `op` (as in `node.py`, or
    "output"), `text` (the right-hand side), `label`, `width` (the name of a width, None for a scalar), `source` (the
    user's line), `matrix` (of a MatMul, as `W` or `W.T`, by the name of a line where it is a sum; else None), `backward` (is a
    MatMul one of back-propagation? else None) and `node`. An edge has the operand's `position`.

    Example:
        >>> import tensorprog as tp
        >>> x = tp.Vector("x", tp.Width("n"))
        >>> list(graph(tp.Program(q=tp.moment(x * x))).edges)
        [('x', 'c1'), ('c1', 'output q')]
    """
    import networkx

    parts = listing(program)
    out: networkx.DiGraph[str] = networkx.DiGraph()

    def vertex(name: str, op: str, text: str, node: Node, operands: Iterable[str]) -> None:
        matrix = backward = None
        operands = tuple(operands)
        if op in ("matmul", "apply"):
            own = operands[0] if op == "apply" else node.attr.matrix.name
            matrix, backward = f"{own}{'.T' if node.attr.transposed else ''}", is_backward(node)
        width = None if node.width is None else node.width.name
        out.add_node(
            name,
            op=op,
            text=text,
            label=node.label,
            width=width,
            source=node.source,
            matrix=matrix,
            backward=backward,
            node=node,
        )
        for i, operand in enumerate(operands):
            out.add_edge(operand, name, position=i)

    for name, node in parts.leaves.items():
        vertex(name, node.op, name, node, ())
    for line in parts.lines:
        vertex(line.name, line.node.op, line.text, line.node, line.operands)
    for line in parts.outputs:
        vertex(f"output {line.name}", "output", line.text, line.node, line.operands)
    return out
