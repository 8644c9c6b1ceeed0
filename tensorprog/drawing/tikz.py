"""A scene as a TikZ picture: the shapes of the SVG, names in mathematics."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tensorprog.drawing.colours import Theme
from tensorprog.drawing.scene import Edge, Scene, Shape, Text
from tensorprog.text.names import latex_name

__all__ = ["document", "tikz"]

_CHARACTERS = {
    "∙": r"\cdot ", "×": r"\times ", "−": "-", "√": r"\surd ", "…": r"\ldots ", "⋯": r"\cdots ", "Σ": r"\Sigma ", "Δ": r"\Delta ",
    "′": "'", "|": r"\vert ", "→": r"\rightarrow ", "←": r"\leftarrow ", "ᵀ": r"^\top ",
    "{": r"\{", "}": r"\}", "\\": r"\backslash ", "^": r"\hat{\ }", "~": r"\sim ", "#": r"\#", "%": r"\%", "&": r"\&", "$": r"\$",
    "_": r"\_", " ": r"\ ",
}  # fmt: skip
_SUPER = "⁰¹²³⁴⁵⁶⁷⁸⁹"


def tikz(scene: Scene, theme: Theme, colours: Mapping[str, str]) -> str:
    r"""The picture as a `tikzpicture`; it needs `\usepackage{tikz}`.

    Args:
        scene: What is drawn.
        theme: Its colours.
        colours: Those of matrices.
    """
    named = {"ink": theme.ink, "quiet": theme.quiet, "wire": theme.wire, "paper": theme.paper, "plate": theme.plate,
             "mark": theme.mark, "offender": theme.offender} | {f"band{i}": c for i, c in enumerate(theme.bands)}  # fmt: skip
    used = sorted({e.colour for e in scene.edges if e.colour} | {s.colour for s in scene.shapes if s.colour in colours})
    matrices = {name: f"m{i}" for i, name in enumerate(used)}
    named |= {key: colours[name] for name, key in matrices.items()}
    rows = [rf"\definecolor{{tp{key}}}{{HTML}}{{{c[1:].upper()}}}" for key, c in named.items()]
    rows.append(
        r"\begin{tikzpicture}[x=1pt, y=-1pt, line width=0.7pt, line join=round, every node/.style={inner sep=0pt}]"
    )
    rows.append(rf"\path[use as bounding box, fill=tppaper] (0,0) rectangle ({_n(scene.width)},{_n(scene.height)});")
    for a in scene.areas:
        corners = f"({_n(a.x)},{_n(a.y)}) rectangle ({_n(a.x + a.width)},{_n(a.y + a.height)})"
        if a.kind == "band":
            rows.append(rf"\fill[tpband{a.tint}, rounded corners=4pt] {corners};")
        else:
            rows.append(rf"\draw[draw=tpquiet, fill=tpplate, rounded corners=3pt] {corners};")
            x, text = a.x + a.width - 8, f"${_mathematics(a.text)}$"
            rows.append(_node(x, a.y + 14, text, "base east", r"\footnotesize", "tpink"))
    order = {"path": 0, "wire": 1, "matmul": 2}
    rows += [_edge(e, matrices) for e in sorted(scene.edges, key=lambda e: order[e.kind])]
    rows += [_shape(s, matrices) for s in scene.shapes]
    rows += [_text(t, matrices) for t in scene.texts]
    rows.append(r"\end{tikzpicture}")
    return "\n".join(rows)


def document(picture: str) -> str:
    """A file that a TeX engine makes a picture of."""
    head = "\\documentclass[border=2pt]{standalone}\n\\usepackage{amsmath}\n\\usepackage{amssymb}\n\\usepackage{tikz}\n"
    return f"{head}\\begin{{document}}\n{picture}\n\\end{{document}}\n"


def _edge(e: Edge, matrices: Mapping[str, str]) -> str:
    way = ""
    for s in e.steps:
        points = [f"({_n(s[i])},{_n(s[i + 1])})" for i in range(1, len(s), 2)]
        if s[0] == "C":
            way += f" .. controls {points[0]} and {points[1]} .. {points[2]}"
        else:
            way += points[0] if s[0] == "M" else f" -- {points[0]}"
    if e.kind == "matmul":
        return rf"\draw[tp{matrices[e.colour]}, line width=1.1pt, dash pattern=on 3.4pt off 2.2pt] {way};"
    return rf"\draw[tpmark, line width=5pt, opacity=0.35] {way};" if e.kind == "path" else rf"\draw[tpwire] {way};"


def _shape(s: Shape, matrices: Mapping[str, str]) -> str:
    mark = "tpoffender, line width=2pt" if "offender" in s.marks else "tpmark, line width=1.7pt" if s.marks else "tpink"
    (x, y), r = s.points[0], s.size
    if s.kind in ("g-var", "x-var"):
        return rf"\draw[draw={mark}, fill=tp{'ink' if s.kind == 'x-var' else 'paper'}] ({_n(x)},{_n(y)}) circle ({_n(r)}pt);"
    if s.kind == "scalar":
        return rf"\draw[draw={mark}, fill=tppaper] ({_n(x - r)},{_n(y - r)}) rectangle ({_n(x + r)},{_n(y + r)});"
    if s.kind == "box":
        x1, y1 = s.points[1]
        return (
            rf"\draw[draw={mark}, fill=tpplate, rounded corners=3pt] ({_n(x)},{_n(y)}) rectangle ({_n(x1)},{_n(y1)});"
        )
    points = s.points
    if s.kind == "matrix":
        points = ((x - r - 2, y), (x, y - r - 2), (x + r + 2, y), (x, y + r + 2))
        mark = f"tp{matrices[s.colour]}" if s.colour in matrices else mark
    bar = f" {_line(s.bar)}" if s.bar else ""
    return rf"\draw[draw={mark}, fill=tppaper] {_line(points)} -- cycle{bar};"


def _line(points: tuple[tuple[float, float], ...]) -> str:
    return " -- ".join([f"({_n(x)},{_n(y)})" for x, y in points])


def _text(t: Text, matrices: Mapping[str, str]) -> str:
    size = r"\scriptsize" if t.kind in ("auto", "remark", "caption") else r"\footnotesize"
    colour = (
        f"tp{matrices[t.colour]}" if t.colour in matrices else "tpquiet" if t.kind in ("auto", "remark") else "tpink"
    )
    if t.kind in ("name", "auto", "label", "output"):
        text = f"${', '.join([_label(part) for part in t.text.split(', ')])}$"
        text = rf"\boldmath {text}" if t.kind == "output" else text
    else:
        text = f"${_mathematics(t.text)}$"
    anchor = {"start": "base west", "middle": "base", "end": "base east"}[t.anchor]
    return _node(t.x, t.y, text, "center" if t.turned else anchor, size, colour, ", rotate=90" if t.turned else "")


def _node(x: float, y: float, text: str, anchor: str, size: str, colour: str, more: str = "") -> str:
    return rf"\node[anchor={anchor}, text={colour}, font={size}{more}] at ({_n(x)},{_n(y)}) {{{text}}};"


def _label(label: str) -> str:
    """A name with sizes of axes, or a matrix and its transpose."""
    name, bracket, sizes = label.partition("[")
    transposed = name.endswith("ᵀ")
    text = latex_name(name.removesuffix("ᵀ")) if name else ""
    text = f"{{{text}}}^\\top" if transposed else text
    return text + (rf"\,[{sizes[:-1].replace('×', chr(92) + 'times ')}]" if bracket else "")


def _mathematics(text: str) -> str:
    out = ""
    for part in re.findall(rf"[{_SUPER}]+|[^\W\d_ΣΔ]{{2,}}|.", text):
        if part[0] in _SUPER:
            out += f"^{{{''.join([str(_SUPER.index(c)) for c in part])}}}"
        elif len(part) > 1:
            out += rf"\mathrm{{{part}}}"
        else:
            out += _CHARACTERS.get(part, part)
    return out.strip()


def _n(c: float | str) -> str:
    text = f"{float(c):.1f}"
    return "0" if text in ("-0.0", "0.0") else text.removesuffix(".0")
