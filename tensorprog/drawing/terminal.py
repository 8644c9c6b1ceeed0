"""A picture in characters: every pass as chains of shapes.

○ x  an initial vector or a product    ● y  what a Nonlin makes    □ c  a scalar    ◇ M  a matrix
╌╌ W ╌╌  a product with a matrix       ─▷ tanh(∙) ─  a gate        ─▷ ∙² |─  a bar-gate, the mean over the width
"""

from __future__ import annotations

from tensorprog.drawing.captions import caption
from tensorprog.drawing.fold import Folded
from tensorprog.drawing.units import Unit
from tensorprog.language.node import Node

__all__ = ["terminal"]

_GLYPHS = {"g-var": "○", "x-var": "●", "scalar": "□", "matrix": "◇", "box": "▣"}


def terminal(picture: Folded, nodes: frozenset[Node]) -> str:
    """The picture as text.

    Args:
        picture: What is drawn.
        nodes: What has a unit, drawn or not.
    """
    order = sorted(picture.units, key=lambda name: picture.row[name])
    users: dict[str, list[str]] = {name: [] for name in order}
    for name in order:
        u = picture.units[name]
        for o in u.operands[:1] if u.kind == "matmul" else u.operands:
            users[o].append(name)
    plates = {name: f"  (× {plate.count})" for plate in picture.plates for name in plate.members}
    many = max(picture.row.values()) + 1
    done: set[str] = set()
    out: list[str] = []
    for row in range(many):
        if many > 1:
            out.append(picture.titles[row])
        for start in [name for name in order if picture.row[name] == row]:
            u = picture.units[start]
            if start in done or (u.is_leaf and any(picture.row[v] == row for v in users[start]) and u.kind != "box"):
                continue  # a vector stands where it is used
            text, name, times = "", start, ""
            while True:
                u = picture.units[name]
                text += _step(u, text == "", picture, nodes)
                times = plates.get(name, times)
                done.add(name)
                after = [v for v in users[name] if v not in done and picture.row[v] == row]
                if not after:
                    break
                name = after[0]
            out.append(f"  {text}{times}")
    return "\n".join(out)


def _step(u: Unit, first: bool, picture: Folded, nodes: frozenset[Node]) -> str:
    """The edge to a unit and the unit; at the beginning of a chain, what it is made of."""
    names = [_name(picture.units[o]) for o in (u.operands[:1] if u.kind == "matmul" else u.operands)]
    head = " " + _GLYPHS[u.end] + " " + _name(u)
    start = ""
    if first and names:
        of = [_GLYPHS[picture.units[o].end] + " " + n for o, n in zip(u.operands, names, strict=False)]
        start = ", ".join(of[:4]) + (f", .. {len(of) - 4} more" if len(of) > 4 else "") + " "
    if u.kind == "matmul":
        return f"{start}{' ' if not first else ''}╌╌ {u.matrix}{'ᵀ' if u.transposed else ''} ╌╌{head}"
    if u.gate and u.node is not None:
        text = caption(u.node, nodes.__contains__)
        more = f" of {', '.join(names[:6])}{', ..' if len(names) > 6 else ''}" if not first and len(names) > 1 else ""
        return f"{start}{' ' if not first else ''}─▷ {text}{more} {'|' if u.gate == 'bar-gate' else ''}─{head}"
    return f"{start}{' ─' if not first else ''}{head}".strip() if first else f" ─{head}"


def _name(u: Unit) -> str:
    if u.kind == "box":
        return f"{len(u.inside)} instructions" + (f" × {u.count}" if u.count > 1 else "")
    return u.label if u.label and not u.label.startswith("[") else u.name + u.label
