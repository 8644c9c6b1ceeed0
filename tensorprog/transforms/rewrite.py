"""Programs rebuilt bottom-up by a rule: what every transformation from programs to programs is made with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tensorprog.language import algebra
from tensorprog.language.node import Node, topological
from tensorprog.language.program import Output, Program

__all__ = ["rewrite", "rewrite_nodes"]

Rule = Callable[[Node, Sequence[Node]], Node]
"""A node and its operands, already rewritten, to the node that takes its place; of the same shape and widths."""


def rewrite_nodes(roots: Sequence[Node], rule: Rule = algebra.rebuild) -> Mapping[Node, Node]:
    """Every node below the roots, the roots included, to what takes its place.

    A new node keeps the source line and the label of the one it replaces.

    Args:
        roots: Nodes.
        rule: Called once for each node, operands first; `algebra.rebuild` does nothing but restore the normal form.
    """
    new: dict[Node, Node] = {}
    for x in topological(roots):
        args = [new[a] for a in x.args]
        unchanged = rule is algebra.rebuild and all(a is b for a, b in zip(args, x.args, strict=True))
        y = x if unchanged else rule(x, args)
        if y is not x and y.source is None:  # made just now: nodes that users hold have a source
            y.source, y.label = x.source, x.label
        new[x] = y
    return new


def rewrite(program: Program, rule: Rule) -> Program:
    """The program with every instruction replaced by a rule; outputs keep their names and axes.

    Args:
        program: A program.
        rule: See `rewrite_nodes`; for what it leaves alone it returns `algebra.rebuild(node, args)`.

    Raises:
        TensorProgramError: The result is no legal program (see `Program`).

    Example:
        >>> import tensorprog as tp
        >>> n = tp.Width("n")
        >>> p = tp.Program(q=tp.moment(tp.tanh(tp.Vector("x", n)) ** 2))
        >>> def linear(x, args):
        ...     return args[0] if x.op == "fn" else algebra.rebuild(x, args)
        >>> rewrite(p, linear) == tp.Program(q=tp.moment(tp.Vector("x", n) ** 2))
        True
    """
    new = rewrite_nodes([o.node for o in program.outputs.values()], rule)
    return Program({name: Output(new[o.node], o.axes) for name, o in program.outputs.items()})
