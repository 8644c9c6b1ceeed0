"""A picture as shapes with coordinates: what `svg.py` and `tikz.py` write."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Area", "Edge", "Point", "Scene", "Shape", "Text"]

Point = tuple[float, float]


@dataclass(frozen=True)
class Shape:
    """A shape of an instruction.

    Attributes:
        kind: Its class: "g-var", "x-var", "scalar", "gate", "bar-gate", "matrix", "box".
        points: The centre of a circle, square or diamond; the corners of all others.
        size: The radius, or half the side.
        title: What is shown where the pointer rests.
        marks: Further classes.
        colour: Of a matrix.
        bar: The ends of the bar of a bar-gate.
    """

    kind: str
    points: tuple[Point, ...]
    size: float
    title: str
    marks: tuple[str, ...] = ()
    colour: str = ""
    bar: tuple[Point, ...] = ()


@dataclass(frozen=True)
class Edge:
    """A line: "wire" from an operand, "matmul" dashed, "path" highlighted.

    Attributes:
        kind: Its class.
        steps: ("M", x, y), ("L", x, y) and ("C", x1, y1, x2, y2, x, y).
        title: What is shown where the pointer rests.
        colour: Of its matrix.
    """

    kind: str
    steps: tuple[tuple[str | float, ...], ...]
    title: str = ""
    colour: str = ""


@dataclass(frozen=True)
class Text:
    """A text; x, y is the middle of its base line, or an end of it.

    Attributes:
        kind: Its class: "name" (of the user), "auto" (of nobody), "output", "label" (of a matrix), "caption", "remark", "times".
        x: Where.
        y: Where.
        text: What.
        anchor: "start", "middle" or "end".
        turned: Is it written upwards?
        colour: Of its matrix.
    """

    kind: str
    x: float
    y: float
    text: str
    anchor: str = "middle"
    turned: bool = False
    colour: str = ""


@dataclass(frozen=True)
class Area:
    """A ground: of a row ("band"), of a repeated block ("folded").

    Attributes:
        kind: Its class.
        x: The left side.
        y: The upper side.
        width: To the right.
        height: Downwards.
        text: In its upper corner.
        tint: Which of the grounds.
        title: What is shown where the pointer rests.
    """

    kind: str
    x: float
    y: float
    width: float
    height: float
    text: str = ""
    tint: int = 0
    title: str = ""


@dataclass
class Scene:
    """All of a picture, what is behind first."""

    width: float = 0.0
    height: float = 0.0
    areas: list[Area] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    shapes: list[Shape] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)
