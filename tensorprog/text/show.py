"""Programs as text, the papers' way: declarations, numbered instructions, outputs. `parse.py` reads it.

    width n
    matrix W : n x n, var 1
    vector x : n, mean 1, var 0
    g1 = MatMul(W, x)
    x2 = Nonlin(2*g1)
    g3 = MatMul(W.T, x2)
    c4 = Moment(g3)
    output mean_dx = c4

An elementwise region is one `Nonlin`: what is used once is written inside its consumer; what is used twice, multiplied
by a matrix, labelled by the user, or nested too deep has a line. Functions of scalars alone stand without a `Nonlin`.
Arrays too large to read are named, `array K1 : float64, shape (100, 100), sha "..."`, and live beside the text
(`arrays`, `save`).

An input layer, the initial vectors that one matrix U makes of the rows of some data, has its data; the same U of other
data is declared under another name, and says whose it is. `coordinates` are the data in fewer dimensions, for runs
(`networks/samples.py:reduced`). `trained` marks a network's parameters: vectors by their own word, or by their learning rate,
`lr 1`; matrices always.

    vector U[i:2] : n, data [[1.0, 0.5], [0.0, 2.0]], var 2, trained
    vector U_2[i:100] : n, name U, data K1, var 2, trained

What a parametrization knows weights by is said, too: `share 1/9`, the part of its layer's fan-in that a matrix stands
for, and `std s`, the hyperparameter that the program multiplies the weights with, as their standard deviation.

A product of back-propagation is `MatMul(W.T, y)`, one of the forward pass `MatMul(W, x)`. Where it is the other way round, in
a network that uses W.T, the text says so: `MatMul(W.T, y, forward)`, `MatMul(W, x, backward)`. This is what gradient
independence replaces or leaves alone; runs and limits do not depend on it.

A matrix that is no initial one has a line of its own. What has an initial matrix in it is no Nonlin, as that is only added and
scaled; what has none is one, and `x'` is x over its columns.

    W1 = W - 1/4*dh*h'
    G2 = Nonlin(dh*h')
    g3 = MatMul(W1, x)
    g4 = MatMul(W1.T, y)

**Axes** have positions, called i, j, k, ... in the text (names attach to outputs only):

| text           | meaning                                                                                         |
|----------------|-------------------------------------------------------------------------------------------------|
| `z[j,i]`       | a view: axis 0 of z at position j of the result, axis 1 at position i (the transpose)           |
| `z[i,i]`       | a diagonal                                                                                      |
| `z[i; j:3]`    | a broadcast: the result has a further axis j of size 3                                          |
| `z[2,:]`       | position 2 of the first axis, which is dropped                                                  |
| `s[; i:3, n]`  | a scalar spread over an axis of size 3 and over the coordinates of width n                      |
| `pick(z, j, [2, 0, 0])` | positions 2, 0 and 0 of the second axis, which stays                                   |
| `sum(z, i)`, `softmax(s, i)`, `stack(i, a, b)` | along axis i                                                    |
| `y'`, `s[; m']` | y over the second coordinate of an OuterNonlin, `OuterNonlin(relu(x + y'))`; s spread over it   |
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.language.algebra import common_type
from tensorprog.language.data import ArrayData, Embedding
from tensorprog.language.node import Node, topological
from tensorprog.language.symbols import MatrixSpec, VectorSpec, Width, encode
from tensorprog.text.literals import axis_text, fingerprint, law_text, letter, literal, number_text

if TYPE_CHECKING:
    from tensorprog.language.program import Program

__all__ = ["Line", "Listing", "arrays", "listing", "show"]

COLUMNS = 110
"""Longer lines are wrapped; an indented line continues the one before."""

REGION, DEPTH = 88, 8
"""Characters and nesting of an elementwise region before it is split."""

SUM, PRODUCT, POWER, ATOM = range(4)  # precedences

LEAVES = frozenset({"constant", "scalar", "vector", "inverse_sqrt", "matrix"})
INSTRUCTIONS = frozenset({"matmul", "apply", "moment", "outer"})


@dataclass(frozen=True)
class Line:
    """An instruction of the text.

    Attributes:
        name: The name it assigns.
        node: What it computes.
        text: Its right-hand side.
        operands: The names it uses, in the order in which the text has them.
    """

    name: str
    node: Node
    text: str
    operands: tuple[str, ...]


@dataclass
class Listing:
    """A program's text in parts, for `show` and for views such as `graph`.

    Attributes:
        declarations: Widths, matrices, vectors, hyperparameters, arrays.
        leaves: Initial vectors, hyperparameters, and initial matrices that are parts of others, by the names the text gives them.
        vectors: The names the text gives to initial vectors.
        lines: The instructions, operands first.
        outputs: One line for each output: `name` is the output's.
        arrays: The arrays the text names but does not contain.
    """

    declarations: list[str] = field(default_factory=list)
    leaves: dict[str, Node] = field(default_factory=dict)
    vectors: dict[VectorSpec, str] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)
    outputs: list[Line] = field(default_factory=list)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Piece:
    """The text of a node inside its consumer."""

    text: str
    level: int = ATOM
    depth: int = 0
    refs: tuple[str, ...] = ()

    def at(self, level: int) -> str:
        """The text, in parentheses where it binds less tightly than asked."""
        return self.text if self.level >= level else f"({self.text})"


def show(program: Program) -> str:
    """The program as text that `tp.parse` reads back.

    Example:
        >>> import tensorprog as tp
        >>> n = tp.Width("n")
        >>> W, x = tp.Matrix("W", n, n), tp.Vector("x", n)
        >>> print(tp.Program(q=tp.moment(tp.relu(W @ x) ** 2)))
        width n
        matrix W : n x n, var 1
        vector x : n, mean 0, var 1
        g1 = MatMul(W, x)
        c2 = Moment(relu(g1)**2)
        output q = c2
    """
    parts = listing(program)
    lines = [*parts.declarations, *[f"{line.name} = {line.text}" for line in parts.lines]]
    for line in parts.outputs:
        axes = ", ".join(map(axis_text, program.outputs[line.name].axes))
        lines.append(f"output {line.name}{f'[{axes}]' if axes else ''} = {line.text}")
    return "\n".join([_wrap(line) for line in lines])


def arrays(program: Program) -> dict[str, np.ndarray]:
    """The arrays that the program's text names but does not contain, for `tp.parse(text, arrays=...)`.

    Example:
        >>> import tensorprog as tp
        >>> x = tp.Vector("x", tp.Width("n"), mean=np.linspace(0, 1, 100), axes="t")
        >>> p = tp.Program(m=tp.moment(x))
        >>> tp.parse(str(p), arrays=arrays(p)) == p
        True
    """
    return listing(program).arrays


def _wrap(line: str) -> str:
    if len(line) <= COLUMNS:
        return line
    rows = [""]
    for word in re.findall(r'(?:"(?:\\.|[^"\\])*"|[^\s"])+', line):  # never inside a quoted name
        if rows[-1].strip() and len(rows[-1]) + len(word) >= COLUMNS:
            rows.append("    ")
        rows[-1] += word if not rows[-1].strip() else f" {word}"
    return "\n".join(rows)


def listing(program: Program) -> Listing:
    """The program's text in parts."""
    return _Writer(program).out


class _Writer:
    def __init__(self, program: Program) -> None:
        self.out = Listing()
        self.program = program
        self.arrays: dict[bytes, str] = {}
        self.pieces: dict[Node, _Piece] = {}
        self.lines: set[Node] = set()
        labels = {x.label for x in program.nodes if x.label and x.op not in LEAVES}
        self.taken = labels | {v.name for v in program.vectors}
        # names of matrices are a table of their own, except where sums are matrices, too
        sums = any(x.op in ("apply", "matrix") for x in program.nodes)
        self.used = {m.name for m in program.matrices} if sums else set()
        self.taken |= self.used
        self.vectors = self.out.vectors
        for v in program.vectors:  # U of a second set of data is called U_2
            self.vectors[v] = self._free(v.name) if v.name in self.used else v.name
            self.used.add(self.vectors[v])
        self.scalars: dict[str, str] = {}
        for name in program.scalars:  # an initial vector of the same name has precedence
            self.scalars[name] = self._free(name) if name in self.used else name
            self.used.add(self.scalars[name])
            self.taken.add(self.scalars[name])
        self._declare()
        self._instructions()
        self.out.declarations[:0] = [  # first: vectors may refer to them
            f"array {name} : {'rational' if a.dtype == object else a.dtype}, shape ({', '.join(map(str, a.shape))}), "
            f'sha "{fingerprint(a)}"'
            for name, a in self.out.arrays.items()
        ]

    def _free(self, stem: str) -> str:
        stem = stem.removesuffix("~")
        k = 2
        while f"{stem}_{k}" in self.taken or f"{stem}_{k}" in self.used:
            k += 1
        return f"{stem}_{k}"

    def _array(self, a: np.ndarray) -> str:
        text = literal(a)
        if text is not None:
            return text
        key = encode(a)
        if key not in self.arrays:
            k = len(self.arrays) + 1
            while f"K{k}" in self.taken or f"K{k}" in self.used:
                k += 1
            self.arrays[key] = f"K{k}"
            self.used.add(f"K{k}")
            self.out.arrays[f"K{k}"] = a
        return self.arrays[key]

    def _declare(self) -> None:
        p, lines = self.program, self.out.declarations
        widths: dict[str, Width] = {}
        for w in [*p.widths, *[x.inner for x in p.nodes if x.inner is not None]]:
            if widths.setdefault(w.name, w) != w:
                raise TensorProgramError(f"two different widths are called {w.name!r}", fix="give them different names")
        for _, w in sorted(widths.items()):
            lines.append(
                f"width {w.name}" + ("" if encode(w.ratio) == encode(1) else f" : ratio {number_text(w.ratio)}")
            )
        scalars = []
        shapes = p.scalar_shapes
        for name, default in p.scalars.items():
            attributes = [f"name {name}"] if self.scalars[name] != name else []
            if default is not None:
                attributes.append(f"default {self._array(default) if np.ndim(default) else number_text(default)}")
            shape = ", ".join([f"{letter(i)}:{k}" for i, k in enumerate(shapes[name])])
            head = f"scalar {self.scalars[name]}{f'[{shape}]' if shape else ''}"
            scalars.append(head + (f" : {', '.join(attributes)}" if attributes else ""))
        weights = [*[self._matrix(m) for m in p.matrices], *[self._vector(v) for v in p.vectors]]
        specs: list[MatrixSpec | VectorSpec] = [*p.matrices, *p.vectors]
        named = any(spec.std is not None for spec in specs)
        lines += [*scalars, *weights] if named else [*weights, *scalars]

    def _matrix(self, m: MatrixSpec) -> str:
        parts = [f"{m.rows.name} x {m.cols.name}", f"var {number_text(m.var)}"]
        parts += [] if m.entries is None else [f"entries {law_text(m.entries, f'matrix {m.name}')}"]
        parts += [] if m.share == 1 else [f"share {number_text(m.share)}"]
        return f"matrix {m.name} : {', '.join([*parts, *self._std(m)])}"

    def _std(self, spec: MatrixSpec | VectorSpec) -> list[str]:
        """The hyperparameter that multiplies weights, as an attribute of them."""
        if spec.std is None:
            return []
        for x in topological([spec.std]):
            self.pieces[x] = self._piece(x)
        return [f"std {self.pieces[spec.std].text}"]

    def _vector(self, v: VectorSpec) -> str:
        def value(x: Any) -> str:
            return self._array(x) if isinstance(x, np.ndarray) else number_text(x)

        name, parts = self.vectors[v], [v.width.name]
        sizes = ", ".join([f"{letter(i)}:{k}" for i, k in enumerate(v.shape)])
        if name != v.name:
            parts.append(f"name {v.name}")
        if isinstance(v, Embedding):
            if not isinstance(v.data, ArrayData):
                raise TensorProgramError(f"the data of {v.name} is not known yet", fix="print the program of some data")
            parts.append(f"data {value(v.data.array)}")
            if v.data.coordinates is not v.data.array:
                parts.append(f"coordinates {value(v.data.coordinates)}")
            parts.append(f"var {value(v.var)}")
        else:
            if v.distribution is not None:
                parts.append(law_text(v.distribution, f"vector {v.name}"))
            if v.distribution is None or isinstance(v.distribution, str):
                parts += [f"mean {value(v.mean)}", f"var {value(v.var)}" if v.cov is None else f"cov {value(v.cov)}"]
        if v.trainable:
            parts.append("trained" if v.lr is None else f"lr {number_text(v.lr)}")
        parts += self._std(v)
        return f"vector {name}{f'[{sizes}]' if sizes else ''} : {', '.join(parts)}"

    # ---- instructions ----
    def _instructions(self) -> None:
        nodes, outputs = self.program.nodes, self.program.outputs
        uses = Counter([a for x in nodes for a in x.args] + [o.node for o in outputs.values()])
        multiplied = {a for x in nodes if x.op in ("matmul", "apply") for a in x.args}
        for x in nodes:
            piece = self._piece(x)
            if x.op in ("vector", "scalar", "matrix"):
                self.out.leaves[piece.text] = x
            elif x.op == "inner" and not x.label and (x.args[0] in self.lines or x.args[0].op == "vector"):
                pass  # y' is as short as a name
            elif x.op not in LEAVES and (
                x.op in INSTRUCTIONS or x.label or uses[x] > 1 or x in multiplied
                or piece.depth >= DEPTH or len(piece.text) > REGION
            ):  # fmt: skip
                name = self._name(x)
                plain = x.op in INSTRUCTIONS or x.is_scalar or x.has_matrix
                text = piece.text if plain else f"Nonlin({piece.text})"
                self.out.lines.append(Line(name, x, text, piece.refs))
                self.lines.add(x)
                piece = _Piece(name, refs=(name,))
            self.pieces[x] = piece
        for name, o in outputs.items():
            piece = self.pieces[o.node]
            self.out.outputs.append(Line(name, o.node, piece.text, piece.refs))

    def _name(self, x: Node) -> str:
        if x.label:
            name = x.label if x.label not in self.used else self._free(x.label)
        else:
            both = x.width is not None and x.inner is not None
            prefix = "g" if x.op in ("matmul", "apply") else "c" if x.is_scalar else "M" if both else "x"
            name = f"{prefix}{len(self.out.lines) + 1}"
            while name in self.used or name in self.taken:
                name += "_"
        self.used.add(name)
        return name

    def _piece(self, x: Node) -> _Piece:
        if x.op in LEAVES:
            return self._leaf(x)
        args = [self.pieces[a] for a in x.args]
        depth = 1 + max([a.depth for a in args])
        refs = tuple(dict.fromkeys([r for a in args for r in a.refs]))
        text, level = self._expression(x, args)
        return _Piece(text, level, depth, refs)

    def _leaf(self, x: Node) -> _Piece:
        if x.op == "vector":
            return _Piece(self.vectors[x.attr], refs=(self.vectors[x.attr],))
        if x.op == "scalar":
            return _Piece(self.scalars[x.attr.name], refs=(self.scalars[x.attr.name],))
        if x.op == "inverse_sqrt":
            return _Piece(f"inverse_sqrt({x.attr.name})")
        if x.op == "matrix":
            return _Piece(x.attr.name, refs=(x.attr.name,))
        if isinstance(x.attr, np.ndarray):
            return _Piece(self._array(x.attr) + _spread(x, (x.attr.shape, None, None)))
        level = SUM if x.attr < 0 else PRODUCT if isinstance(x.attr, Fraction) else ATOM
        piece = _Piece(number_text(x.attr), level)
        suffix = _spread(x, ((), None, None))
        return _Piece(piece.at(ATOM) + suffix) if suffix else piece

    def _expression(self, x: Node, args: list[_Piece]) -> tuple[str, int]:
        first = args[0]
        match x.op:
            case "add":
                return self._add(x, args)
            case "mul":
                return self._mul(x, args)
            case "fn":
                name, parameters = x.attr
                return f"{name}({', '.join([first.text, *map(number_text, parameters)])})", ATOM
            case "difference":
                name, parameters = x.attr
                return f"difference({', '.join([name, *[a.text for a in args], *map(number_text, parameters)])})", ATOM
            case "matmul":
                matrix, transposed, mark = x.attr
                operands = [matrix.name + ".T" * transposed, first.text, *filter(None, [mark])]
                return f"MatMul({', '.join(operands)})", ATOM
            case "apply":
                transposed, mark = x.attr
                return (
                    f"MatMul({', '.join([first.text + '.T' * transposed, args[1].text, *filter(None, [mark])])})",
                    ATOM,
                )
            case "moment":
                return f"Moment({first.text})", ATOM
            case "outer":
                return f"OuterNonlin({first.text})", ATOM
            case "inner":
                return f"{first.at(ATOM)}'", ATOM
            case "view":
                new = [f"{letter(p)}:{k}" for p, k in enumerate(x.shape) if p not in x.attr]
                index = ",".join(map(letter, x.attr))
                return f"{first.at(ATOM)}[{index}{'; ' if new else ''}{', '.join(new)}]", ATOM
            case "take":
                axis, index = x.attr
                positions = [":"] * len(x.args[0].shape)
                positions[axis] = str(index)
                return f"{first.at(ATOM)}[{','.join(positions)}]", ATOM
            case "pick":
                axis, positions = x.attr
                return f"pick({first.text}, {letter(axis)}, {self._array(np.array(positions))})", ATOM
            case "stack":
                return f"stack({', '.join([letter(x.attr), *[a.text for a in args]])})", ATOM
            case "sum" | "softmax":
                return f"{x.op}({first.text}, {letter(x.attr)})", ATOM
            case _:
                raise TensorProgramError(
                    f"{x.op!r} has no text", why="it is no instruction of a program", fix="please report this"
                )

    def _add(self, x: Node, args: list[_Piece]) -> tuple[str, int]:
        suffix = _spread(x, common_type(x.args))
        out = ""
        for i, (c, operand, piece) in enumerate(zip(x.attr, x.args, args, strict=True)):
            if i == 0 and suffix:
                piece = _Piece(piece.at(ATOM) + suffix)
            if operand.op == "constant" and piece.level == SUM:  # a negative number: its sign becomes the term's
                c, piece = -c, _Piece(piece.text[1:], PRODUCT)
            sign = "-" if c < 0 else "+"
            one = not isinstance(c, float) and abs(c) == 1
            term = piece.at(PRODUCT) if one else f"{number_text(abs(c))}*{piece.at(PRODUCT)}"
            out += f" {sign} {term}" if out else f"{'-' if c < 0 else ''}{term}"
        if len(args) > 1 or out.startswith("-"):
            return out, SUM
        return out, ATOM if one else PRODUCT

    def _mul(self, x: Node, args: list[_Piece]) -> tuple[str, int]:
        suffix = _spread(x, common_type(x.args))
        above: list[str] = []
        below: list[str] = []
        for i, (k, operand, piece) in enumerate(zip(x.attr, x.args, args, strict=True)):
            if i == 0 and suffix:  # the first operand is never a constant
                piece = _Piece(piece.at(ATOM) + suffix)
            divides = (
                operand.op == "fn"
                and operand.attr.name == "reciprocal"
                and k == 1
                and operand not in self.lines
                and not suffix
            )
            if divides and operand.args[0].op != "constant":
                below.append(self.pieces[operand.args[0]].at(POWER))
            else:
                above.append(piece.at(POWER) if k == 1 else f"{piece.at(ATOM)}**{k}")
        if not above:
            above.append(f"reciprocal({below.pop(0)})")
        text = "*".join(above) + "".join([f"/{b}" for b in below])
        return text, POWER if len(args) == 1 else PRODUCT


def _spread(x: Node, have: tuple[tuple[int, ...], Width | None, Width | None]) -> str:
    """What must be added to an operand of type `have` so that it has the type of x."""
    shape, width, inner = have
    parts = [f"{letter(i)}:{k}" for i, k in enumerate(x.shape)] if x.shape != shape else []
    parts += [x.width.name] if x.width is not None and x.width != width else []
    parts += [f"{x.inner.name}'"] if x.inner is not None and x.inner != inner else []
    return f"[; {', '.join(parts)}]" if parts else ""
