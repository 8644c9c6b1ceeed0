"""Gradient independence: back-propagation with copies of the weights that are independent of the forward pass."""

from __future__ import annotations

from collections.abc import Sequence

from tensorprog.errors import TensorProgramError
from tensorprog.language import algebra
from tensorprog.language.node import Node
from tensorprog.language.program import Program
from tensorprog.language.symbols import Matrix
from tensorprog.transforms.rewrite import rewrite

__all__ = ["backward_copy", "copy_of", "program_for", "decouple"]


def copy_of(matrix: Matrix) -> Matrix:
    """The independent copy W~ of W: the same law under another name, always the same one; W~ is its own copy."""
    return matrix if matrix.name.endswith("~") else matrix.renamed(matrix.name + "~")


def backward_copy(matrix: Matrix, transposed: bool) -> Matrix:
    """The copy that a backward pass uses where the forward pass had W (`transposed`: it is W.T now), or W.T.

    The two are independent of each other, as Tensor Programs II counts W and W.T as different matrices (theorem A.6).
    """
    return copy_of(matrix if transposed else matrix.renamed(f"{matrix.name}_T"))


def program_for(program: Program, gia: bool) -> Program:
    """The program of a call; where it asks for gradient independence, the one with independent copies, made once.

    A program made by `Network.program` knows its network, which back-propagates again, with copies; in a bare program
    every W.T is back-propagation (`decouple`).

    Raises:
        TensorProgramError: It is no program.
    """
    if not isinstance(program, Program):
        raise TensorProgramError(
            f"{type(program).__name__} is not a Program, nor a Network",
            fix='make one: tp.Program(q=tp.moment(x * x)), tp.Network(tp.readout("v", h))',
        )
    if not gia:
        return program
    if "decoupled" not in program._derived:
        network = program._derived.get("network")
        program._derived["decoupled"] = network[0].decoupled(*network[1:]) if network else decouple(program)
    free: Program = program._derived["decoupled"]
    return free


def decouple(program: Program) -> Program:
    """The program under the gradient independence assumption (GIA).

    In a bare program nothing says which instructions are back-propagation, so every `W.T` becomes the transpose of one
    independent copy `W~`, the same copy wherever W.T is used. Forward uses of W are untouched: at finite width they
    have the same weights as before. Whether the limit stays right is another question (`analysis/gia.py`).

    Args:
        program: A program.

    Returns:
        A program with the same outputs; `decouple` of it changes nothing more.

    Source: Tensor Programs II, section 5 and Simple GIA Check.

    Example:
        >>> import tensorprog as tp
        >>> n = tp.Width("n")
        >>> W, x = tp.Matrix("W", n, n), tp.Vector("x", n, mean=1, var=0)
        >>> p = decouple(tp.Program(mean_dx=tp.moment(W.T @ (2 * (W @ x)))))
        >>> [m.name for m in p.matrices]
        ['W', 'W~']
    """

    def rule(x: Node, args: Sequence[Node]) -> Node:
        if x.op == "matmul" and x.attr[1]:
            return algebra.matmul(copy_of(x.attr[0]), True, args[0])
        return algebra.rebuild(x, args)

    return rewrite(program, rule)
