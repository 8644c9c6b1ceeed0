r"""Programs in LaTeX, as the papers list them: declarations, then one MatMul, Nonlin or Moment a line.

The lines are those of `show.py`. Axes are written as indices, entry by entry: `g^{(1)}_{i}` is the vector at position
i; sums over
an axis are sums. (Not called `tensorprog.latex`: importing such a module would hide the function `tp.latex`.)
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.language.data import Embedding
from tensorprog.language.functions import PRIMITIVES
from tensorprog.language.node import Node
from tensorprog.language.program import Program
from tensorprog.language.symbols import MatrixSpec, VectorSpec, Width
from tensorprog.text.literals import letter
from tensorprog.text.names import latex_name
from tensorprog.text.show import ATOM, POWER, PRODUCT, SUM, listing

__all__ = ["latex"]

TOP = r"^\top"
_KINDS = {"matmul": "MatMul", "apply": "MatMul", "moment": "Moment", "outer": "OuterNonlin"}


def latex(program: Program) -> str:
    r"""The program as an `align*` environment: one line for each declaration, instruction and output.

    `tp.latex(net, X)` is that of a network's program on data, with the options of `Network.program`.

    Example:
        >>> import tensorprog as tp
        >>> n = tp.Width("n")
        >>> W, x = tp.Matrix("W", n, n), tp.Vector("x", n)
        >>> print(latex(tp.Program(q=tp.moment(tp.relu(W @ x) ** 2))))
        \begin{align*}
        W &\in \mathbb{R}^{n \times n},\ W_{\alpha\beta} \sim \mathcal{N}\left(0, 1/n\right) && \text{matrix} \\
        x &\in \mathbb{R}^{n},\ x_{\alpha} \sim \mathcal{N}\left(0, 1\right) && \text{vector} \\
        g_{1} &:= W x && \text{MatMul} \\
        c_{2} &:= \frac{1}{n} \sum_{\alpha} \left({\mathrm{relu}(g_{1})}^{2}\right)_{\alpha} && \text{Moment} \\
        q &:= c_{2} && \text{output}
        \end{align*}

    Raises:
        TensorProgramError: for what is no program.
    """
    if not isinstance(program, Program):
        raise TensorProgramError(f"the LaTeX of {type(program).__name__}", fix="pass a tp.Program")
    writer = _Writer(program)
    rows = [rf"{left} &{right} && \text{{{kind}}}" for left, right, kind in writer.rows()]
    return "\\begin{align*}\n" + " \\\\\n".join(rows) + "\n\\end{align*}"


class _Writer:
    def __init__(self, program: Program) -> None:
        self.program, self.parts = program, listing(program)
        self.names = {node: name for name, node in self.parts.leaves.items() if node.op != "matrix"}
        self.bound = 0

    def rows(self) -> list[tuple[str, str, str]]:
        p = self.program
        rows = [self._width(w) for w in p.widths if w.ratio != 1]
        rows += [self._matrix(m) for m in p.matrices] + [self._vector(v) for v in p.vectors]
        shapes = p.scalar_shapes
        for name, default in p.scalars.items():
            sizes = r" \times ".join(map(str, shapes[name]))
            space = rf"\mathbb{{R}}^{{{sizes}}}" if sizes else r"\mathbb{R}"
            known = "" if default is None or np.ndim(default) else rf"\quad (\text{{default }} {_number(default)[0]})"
            rows.append((latex_name(name), rf"\in {space}{known}", "scalar"))
        for line in self.parts.lines:
            x = line.node
            index = [letter(i) for i in range(len(x.shape))]
            kind = _KINDS.get(x.op, "matrix" if x.has_matrix else "scalar" if x.is_scalar else "Nonlin")
            if x.op in ("matmul", "apply") and x.attr.mark:
                kind += f", {x.attr.mark}"
            rows.append((latex_name(line.name, index), f":= {self._compute(x, index)[0]}", kind))
            self.names[x] = line.name
        for line in self.parts.outputs:
            axes = [latex_name(a) for a in p.outputs[line.name].axes]
            rows.append((latex_name(line.name, axes), f":= {self.entry(line.node, axes)[0]}", "output"))
        return rows

    # ---- declarations ----
    def _width(self, w: Width) -> tuple[str, str, str]:
        return latex_name(w.name), rf"= {_number(w.ratio)[0]} \cdot \text{{the reference width}}", "width"

    def _matrix(self, m: MatrixSpec) -> tuple[str, str, str]:
        rows, cols, name = latex_name(m.rows.name), latex_name(m.cols.name), latex_name(m.name)
        variance = (
            str(m.var) if isinstance(m.var, int) else f"({m.var})" if isinstance(m.var, Fraction) else repr(m.var)
        )
        law = rf"\mathcal{{N}}\left(0, {variance}/{cols}\right)"
        if m.entries is not None:
            kind = m.entries if isinstance(m.entries, str) else m.entries.dist.name
            law = rf"\text{{{kind}}},\ \mathrm{{Var}} = {variance}/{cols}"
        entry = _indexed(name, r"\alpha\beta")
        return name, rf"\in \mathbb{{R}}^{{{rows} \times {cols}}},\ {entry} \sim {law}", "matrix"

    def _vector(self, v: VectorSpec) -> tuple[str, str, str]:
        name, n = latex_name(self.parts.vectors[v]), latex_name(v.width.name)
        sizes = "".join([rf" \times {k}" for k in v.shape])
        mean = rf"\mu^{{{name}}}" if isinstance(v.mean, np.ndarray) else _number(v.mean)[0]
        if v.cov is not None or isinstance(v.var, np.ndarray):
            variance = rf"\Sigma^{{{name}}}"
        else:
            variance = _number(v.var)[0] + (" I" if v.shape else "")
        law = rf"\mathcal{{N}}\left({mean}, {variance}\right)"
        if v.distribution is not None:
            law = rf"\text{{{v.distribution if isinstance(v.distribution, str) else v.distribution.dist.name}}}"
        kind = "trained vector" if v.trainable else "vector"
        kind += "" if v.lr is None else f", learning rate ${_number(v.lr)[0]}$"
        entry = _indexed(name, r"\alpha")
        if isinstance(v, Embedding):
            scale = "" if v.var == 1 else rf"{_number(v.var)[0]}\, "
            law = rf"\mathcal{{N}}\left(0, {scale}\xi^{{{name}}} {{\xi^{{{name}}}}}{TOP} / {v.data.features}\right)"
            kind = rf"input layer ${latex_name(v.name)}$, data $\xi^{{{name}}}$"
        return name, rf"\in \mathbb{{R}}^{{{n}{sizes}}},\ {entry} \sim {law}", kind

    # ---- expressions ----
    def entry(self, x: Node, index: Sequence[str]) -> tuple[str, int]:
        """x at an index, with its precedence."""
        if x in self.names:
            return latex_name(self.names[x], index), ATOM
        return self._compute(x, index)

    def _compute(self, x: Node, index: Sequence[str]) -> tuple[str, int]:
        def at(a: Node, level: int) -> str:
            text, have = self.entry(a, index if a.shape else ())
            return text if have >= level else rf"\left({text}\right)"

        match x.op:
            case "constant":
                if not isinstance(x.attr, np.ndarray):
                    return _number(x.attr)
                if x.attr.ndim == len(index) and all(i.isdigit() for i in index):
                    return _number(x.attr[tuple(map(int, index))])
                return _indexed(r"\mathbf{A}", ",".join(index)), ATOM
            case "inverse_sqrt":
                return rf"{latex_name(x.attr.name)}^{{-1/2}}", POWER
            case "view":
                return self.entry(x.args[0], [index[p] for p in x.attr])
            case "take":
                axis, i = x.attr
                return self.entry(x.args[0], [*index[:axis], str(i), *index[axis:]])
            case "pick":
                axis, positions = x.attr
                return self.entry(x.args[0], [*index[:axis], _position(positions, index[axis]), *index[axis + 1 :]])
            case "stack":
                others = [*index[: x.attr], *index[x.attr + 1 :]]
                parts = [self.entry(a, others if a.shape else ())[0] for a in x.args]
                return rf"\left({', '.join(parts)}\right)_{{{index[x.attr]}}}", ATOM
            case "matmul":
                matrix, transposed, _ = x.attr
                return f"{latex_name(matrix.name)}{TOP if transposed else ''} {at(x.args[0], ATOM)}", PRODUCT
            case "matrix":  # lines with two coordinates are written times the number of their columns
                return rf"{latex_name(x.attr.cols.name)} {latex_name(x.attr.name)}", PRODUCT
            case "apply":
                cols = x.args[0].inner
                matrix = at(x.args[0], ATOM)
                matrix = f"{{{matrix}}}{TOP}" if x.attr.transposed else matrix
                return (
                    rf"\frac{{1}}{{{latex_name(cols.name) if cols else 'n'}}} {matrix} {at(x.args[1], ATOM)}",
                    PRODUCT,
                )
            case "moment" | "outer":
                body = x.args[0]
                width = body.width if x.op == "moment" else body.inner
                greek = r"\alpha" if x.op == "moment" else r"\beta"
                n = latex_name(width.name) if width is not None else "n"
                inside = at(body, SUM)
                return rf"\frac{{1}}{{{n}}} \sum_{{{greek}}} \left({inside}\right)_{{{greek}}}", PRODUCT
            case "inner":
                return f"{{{at(x.args[0], ATOM)}}}'", POWER
            case "sum" | "softmax":
                return self._contracted(x, index)
            case "fn":
                name, parameters = x.attr
                row = PRIMITIVES[name]
                given = dict(zip(row.parameters, [_number(c)[0] for c in parameters], strict=True))
                return row.latex.format(x=at(x.args[0], SUM), **given), POWER
            case "difference":
                name, parameters = x.attr
                row = PRIMITIVES[name]
                values = dict(zip(row.parameters, [_number(c)[0] for c in parameters], strict=True))
                y, d, eps = x.args
                moved = rf"{at(y, SUM)} + {at(eps, POWER)} {at(d, POWER)}"
                both = [row.latex.format(x=z, **values) for z in (moved, at(y, SUM))]
                return rf"\frac{{{both[0]} - {both[1]}}}{{{at(eps, SUM)}}}", PRODUCT
            case "add":
                out = ""
                for c, a in zip(x.attr, x.args, strict=True):
                    negative = c < 0
                    number, _ = _number(-c if negative else c)
                    one = number == "1"
                    term = at(a, PRODUCT)
                    if a.op == "constant" and term.startswith(r"\left(-"):
                        term, negative = _number(-a.attr)[0], not negative
                    sign = (" - " if negative else " + ") if out else ("-" if negative else "")
                    out += f"{sign}{term if one else f'{number} {term}'}"
                return out, SUM if len(x.args) > 1 or out.startswith("-") else PRODUCT
            case "mul":
                factors = [
                    at(a, POWER) if k == 1 else f"{{{at(a, POWER)}}}^{{{k}}}"
                    for a, k in zip(x.args, x.attr, strict=True)
                ]
                return r" \, ".join(factors), PRODUCT
        raise TensorProgramError(
            f"{x.op!r} has no LaTeX", why="it is no instruction of a program", fix="please report this"
        )

    def _contracted(self, x: Node, index: Sequence[str]) -> tuple[str, int]:
        self.bound += 1
        k = f"s_{{{self.bound}}}"
        axis, size = x.attr, x.args[0].shape[x.attr]
        others = [*index[:axis], k, *index[axis + (x.op == "softmax") :]]
        over = rf"\sum_{{{k}=0}}^{{{size - 1}}}"
        text, level = self.entry(x.args[0], others)
        if x.op == "sum":
            return (f"{over} {text}" if level >= PRODUCT else rf"{over} \left({text}\right)"), PRODUCT
        own = self.entry(x.args[0], index)[0]
        return rf"\frac{{\exp\left({own}\right)}}{{{over} \exp\left({text}\right)}}", PRODUCT


def _position(positions: Sequence[int], i: str) -> str:
    """The position that is picked at i: a number, i + 2, 2 i + 1, or an entry of the list."""
    if i.isdigit():
        return str(positions[int(i)])
    start, step = positions[0], positions[1] - positions[0] if len(positions) > 1 else 0
    if i.isalpha() and step > 0 and tuple(positions) == tuple(range(start, start + step * len(positions), step)):
        return f"{step if step > 1 else ''}{i}" + (f"+{start}" if start else "")
    return rf"\left({', '.join(map(str, positions))}\right)_{{{i}}}"


def _number(c: Any) -> tuple[str, int]:
    if isinstance(c, Fraction) and c.denominator != 1:
        text = rf"\tfrac{{{abs(c.numerator)}}}{{{c.denominator}}}"
        return (text, POWER) if c > 0 else (f"-{text}", SUM)
    text = repr(float(c)) if isinstance(c, (float, np.floating)) else str(c)
    if "e" in text:
        mantissa, exponent = text.split("e")
        text = rf"{mantissa} \cdot 10^{{{int(exponent)}}}"
    return text, SUM if c < 0 else ATOM


def _indexed(name: str, index: str) -> str:
    return f"({name})_{{{index}}}" if "_" in name else f"{name}_{{{index}}}"
