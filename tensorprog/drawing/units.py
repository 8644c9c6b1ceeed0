"""What is drawn of a program: one unit for each initial vector, hyperparameter, instruction and output of its text.

| unit     | shapes                          | of                                                     |
|----------|---------------------------------|--------------------------------------------------------|
| vector   | an empty circle                 | an initial vector                                      |
| matmul   | a dashed edge, an empty circle  | MatMul                                                 |
| nonlin   | a gate, a filled circle         | Nonlin                                                 |
| constant | a filled circle                 | the same number in every coordinate, as a matrix's operand |
| outer    | a bar-gate, a filled circle     | OuterNonlin                                            |
| moment   | a bar-gate, a square            | Moment                                                 |
| function | a gate, a square                | a function of scalars                                  |
| scalar   | a square                        | a hyperparameter, a number                             |
| matrix   | a gate, a diamond               | a matrix that is no initial one                        |
| box      | a box                           | instructions that are folded and closed (`fold.py`)    |
"""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from tensorprog.language.algebra import is_backward
from tensorprog.language.node import Node
from tensorprog.text.literals import axis_text, number_text
from tensorprog.text.show import Line, listing

if TYPE_CHECKING:
    from tensorprog.language.program import Program

__all__ = ["ENDS", "GATES", "Unit", "units"]

ENDS = {
    "vector": "g-var", "matmul": "g-var", "nonlin": "x-var", "constant": "x-var", "outer": "x-var",
    "moment": "scalar", "function": "scalar", "scalar": "scalar", "matrix": "matrix",
}  # fmt: skip
"""The class of the shape a unit ends in."""
GATES = {"nonlin": "gate", "function": "gate", "matrix": "gate", "outer": "bar-gate", "moment": "bar-gate"}
"""The class of its gate, if it has one."""


@dataclass(frozen=True)
class Unit:
    """An instruction to be drawn.

    Attributes:
        name: As in the text.
        kind: A row of the table above.
        operands: The names of the units it is made of, in the order of the text; of a matmul the vector, and the matrix if it
            is drawn.
        head: Its line in `print(program)`.
        text: The line's right-hand side.
        node: What it computes; None for a box.
        label: What stands beside its last shape.
        outputs: The program's outputs that it is.
        also: Their lines, where these are not its own.
        matrix: Of a matmul: the matrix's name.
        transposed: Is it the matrix's transpose?
        backward: Is it a product of back-propagation?
        inside: Of a box: what it hides.
        count: Of a box: how often that is repeated.
    """

    name: str
    kind: str
    operands: tuple[str, ...]
    head: str
    text: str
    node: Node | None
    label: str = ""
    outputs: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    matrix: str = ""
    transposed: bool = False
    backward: bool = False
    inside: tuple[Unit, ...] = field(default=(), repr=False)
    count: int = 1

    @property
    def title(self) -> str:
        """Its line in `print(program)`, the user's line, and the outputs that it is."""
        source = self.node.source if self.node is not None else None
        return "\n".join([self.head, *([str(source)] if source is not None else []), *self.also])

    @property
    def end(self) -> str:
        """The class of its last shape."""
        return ENDS.get(self.kind, "box")

    @property
    def gate(self) -> str | None:
        """The class of its gate."""
        return GATES.get(self.kind)

    @property
    def shapes(self) -> int:
        """How many shapes it has, edges not counted."""
        return 1 + (self.kind in GATES)

    @property
    def is_leaf(self) -> bool:
        """Is it made of nothing?"""
        return not self.operands

    def within(self, names: Container[str]) -> Unit:
        """The same without operands that are not among these."""
        return replace(self, operands=tuple([o for o in self.operands if o in names]))


def units(program: Program) -> dict[str, Unit]:
    """The units of a program by name, operands first, in an order that depends on its content only."""
    parts = listing(program)
    heads = _declarations(parts.declarations)
    found: dict[str, Unit] = {}
    for name, node in parts.leaves.items():
        if node.op == "matrix":
            continue
        kind = "vector" if node.op == "vector" else "scalar"
        found[name] = Unit(name, kind, (), heads.get((kind, name), name), "", node, label=name + _axes(node))
    for line in parts.lines:
        for unit in _of_line(line, found):
            found[unit.name] = unit
    for line in parts.outputs:
        axes = ", ".join(map(axis_text, program.outputs[line.name].axes))
        head = f"output {line.name}{f'[{axes}]' if axes else ''} = {line.text}"
        if line.text in found:  # an instruction, or a hyperparameter, is the output
            unit = found[line.text]
            outputs = (*unit.outputs, line.name)
            label = ", ".join(outputs) + _axes(line.node)
            found[line.text] = replace(unit, outputs=outputs, also=(*unit.also, head), label=label)
        else:
            operands = tuple([o for o in line.operands if o in found])
            kind = "function" if operands else "scalar"
            name = f"output {line.name}"
            label = line.name + _axes(line.node)
            found[name] = Unit(name, kind, operands, head, line.text, line.node, label, (line.name,))
    return found


def _of_line(line: Line, found: dict[str, Unit]) -> list[Unit]:
    x, head = line.node, f"{line.name} = {line.text}"
    label = (line.name if x.label else "") + _axes(x)
    operands = tuple([o for o in line.operands if o in found])
    if x.op in ("matmul", "apply"):
        made = []
        own = x.attr.matrix.name if x.op == "matmul" else line.operands[0]
        vector = x.args[-1]
        multiplied = [o for o in operands if o != own or x.op == "matmul"]
        if not multiplied:  # a constant has no line of its own
            constant = f"operand of {line.name}"
            value = "K" if isinstance(vector.attr, np.ndarray) else number_text(vector.attr)
            made.append(Unit(constant, "constant", (), head, "", vector, value))
            multiplied = [constant]
        of = (*multiplied, own) if x.op == "apply" and own in found else (*multiplied,)
        made.append(Unit(line.name, "matmul", of, head, line.text, x, label, matrix=own,
                         transposed=x.attr.transposed, backward=is_backward(x)))  # fmt: skip
        return made
    if x.has_matrix or (x.width is not None and x.inner is not None):
        kind = "matrix"
    elif x.op in ("moment", "outer"):
        kind = x.op
    elif x.is_scalar:
        kind = "function" if operands else "scalar"
    else:
        kind = "nonlin" if operands else "constant"
    return [Unit(line.name, kind, operands, head, line.text, x, line.name if kind == "matrix" else label)]


def _declarations(lines: list[str]) -> dict[tuple[str, str], str]:
    """The declarations of vectors and hyperparameters, by kind and name."""
    return {
        (kind, re.split(r"[\[ ]", rest, maxsplit=1)[0]): line
        for line in lines
        for kind, _, rest in [line.partition(" ")]
    }


def _axes(x: Node) -> str:
    """The sizes of a multi-vector's axes."""
    return f"[{'×'.join(map(str, x.shape))}]" if x.shape else ""
