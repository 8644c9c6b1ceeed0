"""`tp.draw`: a program, a network on data, or a run of training as a picture."""

from __future__ import annotations

from typing import Any

from tensorprog.drawing.picture import Drawing, picture
from tensorprog.errors import TensorProgramError
from tensorprog.language.program import Program
from tensorprog.transforms.dispatch import of_networks

__all__ = ["draw"]


@of_networks()
def draw(program: Program, *, fold: bool | int = True, theme: str = "light", highlight: Any = None) -> Drawing:
    """A picture of a program in the graphical notation of Tensor Programs IIb (arXiv:2105.03703).

    Vectors are circles, filled where a Nonlin makes them; scalars are squares; a Nonlin is a gate, a Moment a gate with a bar; a
    MatMul is a dashed edge in its matrix's colour, the same in both passes. The backward pass runs below the forward pass, in
    the other direction. The pointer on a shape shows its line of `print(program)` and the user's line.

    Args:
        program: A Program; a Network, with its data X as the second argument; or a run of training.
        fold: Are repeated blocks drawn once? With a number, so many shapes at most where it can be: the rest is closed boxes.
        theme: "light" or "dark".
        highlight: A report of `tp.check_gia`, whose offenders are marked; names of instructions; or of matrices and initial
            vectors, for the paths of their part of the tangent kernel.

    Returns:
        The picture: `.svg`, `.text`, `.tikz`, `.html`, `.save("p.svg")`.

    Raises:
        TensorProgramError: for what is no program, and for options that do not exist.

    Example:
        >>> import tensorprog as tp
        >>> n = tp.Width("n")
        >>> W, x = tp.Matrix("W", n, n), tp.Vector("x", n)
        >>> print(tp.draw(tp.Program(q=tp.moment(tp.relu(W @ x) ** 2))).text)
          ○ x ╌╌ W ╌╌ ○ g1 ─▷ relu(∙)² |─ □ q
    """
    if not isinstance(program, Program):
        raise TensorProgramError(f"a picture of {type(program).__name__}", fix=_instead(program))
    return picture(program, fold, theme, highlight)


def _instead(what: Any) -> str:
    if hasattr(what, "offenders"):
        return "pass the program, and the report as highlight="
    return "pass a tp.Program, a tp.Network and its data, or what tp.sgd returns"
