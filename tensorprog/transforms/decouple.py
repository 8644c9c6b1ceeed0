"""Gradient independence: back-propagation with copies of the weights that are independent of the forward pass.

Which products are back-propagation is content of a program. A product `W.T y` is, and `W x` is not, unless it is marked:
`MatMul(W.T, y, forward)` where a network uses W.T, `MatMul(W, x, backward)` where its gradient comes back. A bare program
has no marks, so in it every `W.T` counts as back-propagation. Layers and `Network` mark what needs it, back-propagation
marks its own products, `tp.forward` and `tp.backward` mark those of a program that is written by hand, in which a mark is
about its instruction alone: the others are what they are without it. Text, files and pickles have the marks, equality and
digests know them; finite runs and limits do not depend on them, and do a product once that has both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tensorprog.errors import TensorProgramError
from tensorprog.language import algebra
from tensorprog.language.node import Node, topological
from tensorprog.language.program import Program
from tensorprog.language.symbols import MatrixSpec
from tensorprog.transforms.rewrite import Rule, rewrite, rewrite_nodes

__all__ = ["backward_copy", "copy_of", "decouple", "in_forward_pass", "program_for", "unmarked", "with_copies"]


def copy_of(matrix: MatrixSpec) -> MatrixSpec:
    """The independent copy W~ of W: the same law under another name, always the same one; W~ is its own copy."""
    return matrix if matrix.name.endswith("~") else matrix.renamed(matrix.name + "~")


def backward_copy(matrix: MatrixSpec, transposed: bool) -> MatrixSpec:
    """The copy that takes the place of W in back-propagation's `W.T y` (`transposed`), or in its `W x`.

    The two are independent of each other, as Tensor Programs II counts W and W.T as different matrices (theorem A.6).
    """
    own = matrix.name.endswith("~")
    return copy_of(matrix if transposed or own else matrix.renamed(f"{matrix.name}_T"))


def in_forward_pass(roots: Iterable[Node]) -> Mapping[Node, Node]:
    """The nodes below the roots to the same with every unmarked `W.T x` marked as a product of the forward pass."""
    roots = list(roots)
    if not any(_unmarked_transpose(x) for x in topological(roots)):
        return {x: x for x in roots}

    def rule(x: Node, args: Sequence[Node]) -> Node:
        if _unmarked_transpose(x):
            return _product(x, args, False)
        return algebra.rebuild(x, args)

    return rewrite_nodes(roots, rule)


def _unmarked_transpose(x: Node) -> bool:
    return x.op in ("matmul", "apply") and x.attr.transposed and not x.attr.mark


def _product(x: Node, args: Sequence[Node], backward: bool | None) -> Node:
    """A product of other operands with another mark."""
    if x.op == "matmul":
        return algebra.matmul(x.attr.matrix, x.attr.transposed, args[0], backward)
    return algebra.apply(args[0], x.attr.transposed, args[1], backward)


def unmarked(program: Program) -> Program:
    """The program without marks, for those who compute numbers: equal products are one."""
    if not any(x.op in ("matmul", "apply") and x.attr.mark for x in program.nodes):
        return program

    def rule(x: Node, args: Sequence[Node]) -> Node:
        return _product(x, args, None) if x.op in ("matmul", "apply") else algebra.rebuild(x, args)

    return rewrite(program, rule)


def program_for(program: Program, gia: bool) -> Program:
    """The program of a call; where it asks for gradient independence, `decouple` of it, made once.

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
        free = decouple(program)
        program._derived["decoupled"] = program if free == program else free
    free = program._derived["decoupled"]
    return free


def decouple(program: Program) -> Program:
    """The program under the gradient independence assumption (GIA).

    Every `W.T y` of back-propagation becomes one of an independent copy `W~`, the same copy wherever it is W.T; every `W x`
    of back-propagation, where the forward pass used W.T, one of another copy, `W_T~`. In a sum of matrices so does every
    initial one, and updates, made of data, stay. Forward products are untouched: at finite width they have the same weights as
    before. Whether the limit stays right is another question (`analysis/gia.py`).

    Args:
        program: A program. See this module's text for what in it is back-propagation: without marks, every `W.T`.

    Returns:
        A program with the same outputs; `decouple` of it changes nothing more.

    Raises:
        TensorProgramError: Two copies would have one name.

    Source: Tensor Programs II, section 5, Simple GIA Check, theorem A.6.

    Example:
        >>> import tensorprog as tp
        >>> n = tp.Width("n")
        >>> W, x = tp.Matrix("W", n, n), tp.Vector("x", n, mean=1, var=0)
        >>> p = decouple(tp.Program(mean_dx=tp.moment(W.T @ (2 * (W @ x)))))
        >>> [m.name for m in p.matrices]
        ['W', 'W~']
    """
    _check_copies(program)
    return rewrite(program, with_copies())


def with_copies() -> Rule:
    """The rule of `decouple`, for one call of `rewrite_nodes`."""
    known: dict[bool, dict[Node, Node]] = {False: {}, True: {}}

    def rule(x: Node, args: Sequence[Node]) -> Node:
        if x.op == "matmul" and algebra.is_backward(x):
            matrix, transposed, _ = x.attr
            return algebra.matmul(backward_copy(matrix, transposed), transposed, args[0], backward=True)
        if x.op == "apply" and algebra.is_backward(x):
            m, y = args
            done = known[x.attr.transposed]
            for z in topological([m], lambda z: z.args if z.has_matrix and z not in done else ()):
                if z.op == "matrix":
                    done[z] = algebra.matrix(backward_copy(z.attr, x.attr.transposed))
                elif z not in done:
                    done[z] = algebra.rebuild(z, [done[a] for a in z.args]) if z.has_matrix else z
            return algebra.apply(done[m], x.attr.transposed, y, backward=True)
        return algebra.rebuild(x, args)

    return rule


def _check_copies(program: Program) -> None:
    """The copy for back-propagation's W x is called W_T~: so is that of a matrix W_T."""
    uses = _copied(program)
    copied = {backward_copy(matrix, True).name for matrix, transposed, _ in uses if transposed}
    for matrix, transposed, x in uses:
        if not transposed and backward_copy(matrix, False).name in copied:
            name = matrix.name
            raise TensorProgramError(
                f"under gradient independence the copies of {name}.T and of {name}_T have one name",
                fix=f"call the matrix {name}_T otherwise",
                source=x.source,
            )


def _copied(program: Program) -> list[tuple[MatrixSpec, bool, Node]]:
    """The initial matrices that copies are made of: which, whether as W.T, and in which product."""
    found = []
    seen: dict[bool, set[Node]] = {False: set(), True: set()}
    for x in program.nodes:
        if x.op == "matmul" and algebra.is_backward(x):
            found.append((x.attr.matrix, x.attr.transposed, x))
        elif x.op == "apply" and algebra.is_backward(x):
            known = seen[x.attr.transposed]
            new = topological([x.args[0]], lambda y: y.args if y.has_matrix and y not in known else ())  # noqa: B023
            found += [(y.attr, x.attr.transposed, x) for y in new if y.op == "matrix" and y not in known]
            known.update(new)
    return [use for use in found if not use[0].name.endswith("~")]
