"""How large a unit is and where its shapes are, seen in a row that runs to the right; rows to the left are its mirror."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tensorprog.drawing.captions import caption
from tensorprog.drawing.glyphs import CAPTION, LABEL, SMALL, width
from tensorprog.drawing.scene import Shape, Text
from tensorprog.drawing.units import Unit
from tensorprog.language.node import Node

__all__ = ["RADIUS", "Measured", "measured"]

RADIUS, GATE, STUB = 5.0, 20.0, 9.0
"""Of circles; the width of a gate; the edge from a gate to what it makes."""
NARROW = 0.56
"""The narrow side of a gate over its wide side."""
PORT, TALLEST = 8.0, 150.0
"""Between the ends of edges at a gate; the height of a gate with very many."""
BOX = 44.0
BOLD = 1.12
"""How much wider bold letters are."""


@dataclass(frozen=True)
class Measured:
    """A unit and its size.

    Attributes:
        unit: The unit.
        text: What its gate says.
        height: Of its gate or box.
        width: Of all of it, the label included.
        up: How far it reaches above its middle line.
        down: How far below.
        label: What stands beside its last shape.
        style: The class of the label.
    """

    unit: Unit
    text: str
    height: float
    width: float
    up: float
    down: float
    label: str
    style: str

    @property
    def end(self) -> float:
        """Where the middle of its last shape is."""
        if self.unit.kind == "box":
            return self.width / 2
        return GATE + STUB + RADIUS if self.unit.gate else self.width / 2

    def port_in(self) -> float:
        """Where edges come in."""
        if self.unit.kind == "box" or self.unit.gate:
            return 0.0
        return self.end - RADIUS

    def port_out(self) -> float:
        """Where edges go out."""
        return self.width if self.unit.kind == "box" else self.end + RADIUS

    def ports(self, many: int) -> list[float]:
        """Heights of the ends of so many edges, from the middle line."""
        room = 0.8 * self.height if self.unit.gate or self.unit.kind == "box" else 0.0
        step = min(14.0, room / many) if many else 0.0
        return [(i - (many - 1) / 2) * step for i in range(many)]

    def drawn(
        self, x: float, y: float, mirrored: bool, marks: tuple[str, ...], above: bool
    ) -> tuple[list[Shape], list[Text]]:
        """Its shapes and texts, with the left end of its middle line at x, y; the label above its last shape or below."""

        def at(local: float) -> float:
            return x + (self.width - local if mirrored else local)

        u, shapes, texts = self.unit, [], []
        if u.kind == "box":
            half = self.height / 2
            corners = ((x, y - half), (x + self.width, y + half))
            shapes.append(Shape("box", corners, 0.0, u.title, marks))
            first, second = self.text.split("\n")
            texts += [
                Text("times", at(self.width / 2), y - 2, first),
                Text("remark", at(self.width / 2), y + 13, second),
            ]
            return shapes, texts
        if u.gate:
            wide, narrow = self.height / 2, self.height * NARROW / 2
            sides = ((at(0), y - wide), (at(GATE), y - narrow), (at(GATE), y + narrow), (at(0), y + wide))
            over = ((at(GATE), y - narrow - 5), (at(GATE), y + narrow + 5)) if u.gate == "bar-gate" else ()
            shapes.append(Shape(u.gate, sides, 0.0, u.title, marks, bar=over))
            texts.append(Text("caption", at(GATE / 2), y, self.text, turned=True))
        colour = u.name if u.kind == "matrix" else ""
        shapes.append(Shape(u.end, ((at(self.end), y),), RADIUS, u.title, marks, colour))
        if self.label:
            level = y - RADIUS - 5 if above else y + RADIUS + 13
            if u.gate:
                anchor = "end" if mirrored else "start"
                texts.append(Text(self.style, at(GATE + 5), level, self.label, anchor, colour=colour))
            else:
                texts.append(Text(self.style, at(self.end), level, self.label, colour=colour))
        return shapes, texts


def measured(units: Mapping[str, Unit], nodes: frozenset[Node]) -> dict[str, Measured]:
    """The sizes of units.

    Args:
        units: What is drawn.
        nodes: Those of all units of the program, drawn or not: the operands of gates.
    """
    return {name: _measure(u, nodes) for name, u in units.items()}


def _measure(u: Unit, nodes: frozenset[Node]) -> Measured:
    if u.kind == "box":
        many = len(u.inside)
        first = f"× {u.count}" if u.count > 1 else "…"
        second = f"{many} instruction{'s' if many > 1 else ''}"
        w = max(width(first, LABEL), width(second, SMALL)) + 20
        h = max(BOX, min(TALLEST, PORT * (len(u.operands) + 1)))
        return Measured(u, f"{first}\n{second}", h, w, h / 2, h / 2, "", "remark")
    style = "output" if u.outputs else "name" if u.label.partition("[")[0] else "auto"
    label = u.label if style != "auto" else _plain(u) + u.label
    size = SMALL if style == "auto" else BOLD * LABEL if style == "output" else LABEL
    down = RADIUS + (16 if label else 2)
    if not u.gate:
        w = max(2 * RADIUS, width(label, size))
        return Measured(u, "", 2 * RADIUS, w, RADIUS + 4, down, label, style)
    assert u.node is not None
    text = caption(u.node, nodes.__contains__)
    h = max(28.0, 1.2 * width(text, CAPTION) + 14, min(TALLEST, PORT * (len(u.operands) + 1)))
    w = max(GATE + STUB + 2 * RADIUS, GATE + 5 + width(label, size))
    return Measured(u, text, h, w, max(h / 2, down), max(h / 2, down), label, style)


def _plain(u: Unit) -> str:
    """The name of an instruction that the text made up."""
    return u.name if u.kind not in ("constant",) and not u.name.startswith("output ") else ""
