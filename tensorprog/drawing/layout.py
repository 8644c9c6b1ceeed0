"""From units with rows and columns to shapes with coordinates.

Heights first (`order.py`), row by row; then the edges between rows get tracks of their own in the channels between rows and in
the gutters between columns (`tracks.py`); then the widths follow, and everything is drawn.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import pairwise

from tensorprog.drawing.fold import Folded
from tensorprog.drawing.glyphs import LABEL, width
from tensorprog.drawing.measure import Measured, measured
from tensorprog.drawing.order import Item, heights, ordered
from tensorprog.drawing.roles import is_mirrored
from tensorprog.drawing.scene import Area, Edge, Scene, Text
from tensorprog.drawing.tracks import Tracks
from tensorprog.drawing.units import Unit
from tensorprog.language.node import Node

__all__ = ["laid_out"]

MARGIN, GAP, GUTTER, TRACK = 14.0, 10.0, 24.0, 6.0
"""Around all; between units of a column; between columns; between parallel edges."""
CHANNEL, HEAD, INNER = 10.0, 14.0, 8.0
"""Between rows; for what a row is called; around units of a row."""
PLATE = 12.0
"""Around a repeated block."""
FAR = 24
"""Columns an edge passes inside its row; a longer one goes between rows."""
BEND = 6.0

SIDES = (0.0, 3.2, -3.2)
"""Where edges to other rows leave a shape, from the middle: one that has a dashed edge to its side lets them out below."""

Step = tuple[str | float, ...]
Net = tuple[str, str]


def laid_out(
    picture: Folded, nodes: frozenset[Node], marked: Mapping[str, tuple[str, ...]], path: Collection[tuple[str, str]]
) -> Scene:
    """The picture with coordinates.

    Args:
        picture: What is drawn.
        nodes: What has a unit, drawn or not.
        marked: Further classes of units.
        path: Edges that are highlighted.
    """
    return _Layout(picture, nodes, marked, path).scene()


class _Layout:
    def __init__(
        self,
        picture: Folded,
        nodes: frozenset[Node],
        marked: Mapping[str, tuple[str, ...]],
        path: Collection[tuple[str, str]],
    ) -> None:
        self.picture, self.marked, self.path = picture, marked, path
        self.units = picture.units
        self.size: dict[str, Measured] = measured(picture.units, nodes)
        self.row, self.column, self.last = picture.row, picture.column, picture.last
        self.wires = [
            (o, name) for name, u in self.units.items() for o in (u.operands[:1] if u.kind == "matmul" else u.operands)
        ]
        self.chains: dict[tuple[str, str], list[Item]] = {}
        self.items: dict[str, Item] = {}
        self.y: dict[str, float] = {}
        self.out = Scene()

    def mirrored(self, name: str) -> bool:
        return is_mirrored(self.row[name], self.last)

    def net(self, a: str, b: str) -> Net:
        """Edges from one unit share their way, but for those of matrices."""
        return a, self.units[b].matrix

    def scene(self) -> Scene:
        self._columns()
        self._rows()
        self._widths()
        self._draw()
        return self.out

    # ---- heights ----
    def _is_inside(self, a: str, b: str) -> bool:
        """Does an edge stay in its row?"""
        return self.row[a] == self.row[b] and abs(self.column[a] - self.column[b]) <= FAR

    def _columns(self) -> None:
        self.layers: dict[int, dict[int, list[Item]]] = {r: {} for r in range(max(self.row.values()) + 1)}
        for name in self.units:
            m = self.size[name]
            item = self.items[name] = Item(name, self.column[name], m.up, m.down)
            self.layers[self.row[name]].setdefault(item.column, []).append(item)
        passing: dict[tuple[str, int], Item] = {}
        for a, b in self.wires:
            if not self._is_inside(a, b):
                continue
            step = 1 if self.column[b] > self.column[a] else -1
            chain = [self.items[a]]
            for c in range(self.column[a] + step, self.column[b], step):
                if (a, c) not in passing:  # edges from one unit share their way
                    passing[a, c] = Item(a, c, 2.0, 2.0, through=True)
                    self.layers[self.row[a]].setdefault(c, []).append(passing[a, c])
                chain.append(passing[a, c])
            chain.append(self.items[b])
            self.chains[a, b] = chain
            if self.units[b].kind == "matmul":
                chain[-1].source = chain[-2]
            for p, q in pairwise(chain):
                left, right = (p, q) if step > 0 else (q, p)
                if right not in left.after:
                    left.after.append(right)
                    right.before.append(left)
        for layer in self.layers.values():
            ordered(layer)
            heights(layer, GAP)

    def _rows(self) -> None:
        """Rows below each other, with channels between them as high as the edges in them need."""
        self.between = [(a, b) for a, b in self.wires if not self._is_inside(a, b)]
        self.channels = {r: Tracks() for r in self.layers}
        for a, b in self.between:
            g, h = self._gutters(a, b)
            if g != h:
                self.channels[self.row[a]].add(self.net(a, b), min(g, h), max(g, h))
        several = len(self.layers) > 1
        y = MARGIN
        self.top: dict[int, float] = {}
        self.bottom: dict[int, float] = {}
        self.channel: dict[int, float] = {}
        members = {name: plate for plate in self.picture.plates for name in plate.members}
        for r, layer in self.layers.items():
            items = [item for column in layer.values() for item in column]
            extra = PLATE if any(self.row[name] == r for name in members) else 0.0
            high = min([item.y - item.up for item in items]) - extra - (6 if extra else 0)
            low = max([item.y + item.down for item in items]) + extra
            matrices = any(self.units[i.name].kind == "matmul" for i in items)
            head = (HEAD if several else 0.0) + (8.0 if matrices else 0.0)
            self.top[r] = y
            shift = y + head + INNER - high
            for item in items:
                item.y = round(item.y + shift, 1)
            self.bottom[r] = y + head + INNER + (low - high) + INNER
            self.channel[r] = self.bottom[r] + CHANNEL / 2 + 2
            y = self.bottom[r] + CHANNEL + TRACK * self.channels[r].settled()
        self.y = {name: item.y for name, item in self.items.items()}
        self.out.height = round(y - CHANNEL + MARGIN, 1)

        self.sides: dict[Net, float] = {}
        dashed = {a for a, b in self.chains if self.units[b].kind == "matmul"}
        taken: dict[str, int] = {}
        for a, matrix in sorted({self.net(a, b) for a, b in self.between}, key=lambda net: net[1]):
            k = taken.get(a, 1 if a in dashed or matrix else 0)
            self.sides[a, matrix] = SIDES[min(k, 2)]
            taken[a] = k + 1

    def _gutters(self, a: str, b: str) -> tuple[int, int]:
        """The gutter an edge between rows leaves by, and the one it comes in by; gutter c is left of column c."""
        leaves = self.column[a] + (0 if self.mirrored(a) else 1)
        enters = self.column[b] + (1 if self.mirrored(b) else 0)
        return leaves, enters

    # ---- widths ----
    def _widths(self) -> None:
        self.ports = self._ports()
        columns = range(max(self.column.values()) + 1)
        wide = dict.fromkeys(columns, 0.0)
        for name, m in self.size.items():
            wide[self.column[name]] = max(wide[self.column[name]], m.width)
        labels: dict[int, float] = {}
        self.gutters = {c: Tracks() for c in range(len(columns) + 1)}
        for a, b in self.between:
            g, h = self._gutters(a, b)
            start, end = self.y[a], self.y[b] + self.ports[a, b]
            if g == h:
                self.gutters[g].add(self.net(a, b), start, end)
            else:
                level = self.channel[self.row[a]]
                self.gutters[g].add(self.net(a, b), min(start, level), max(start, level))
                self.gutters[h].add(self.net(a, b), min(end, level), max(end, level))
        for name, u in self.units.items():
            if u.kind == "matmul":
                g = self.column[name] + (1 if self.mirrored(name) else 0)
                labels[g] = max(labels.get(g, 0.0), width(_matrix_label(u), LABEL) + 26)
        plates = self.picture.plates
        left = {min([self.column[n] for n in p.members]) for p in plates}
        right = {max([self.column[n] for n in p.members]) + 1 for p in plates}
        x = MARGIN + (INNER if len(self.layers) > 1 else 0.0)
        self.left: dict[int, float] = {}
        self.right: dict[int, float] = {-1: x}
        self.lane: dict[int, float] = {}
        for c in [*columns, len(columns)]:
            many = self.gutters[c].settled()
            room = max(labels.get(c, 0.0), GUTTER if 0 < c < len(columns) else 6.0 if many or c in labels else 0.0)
            self.lane[c] = x + (PLATE if c in right else 0.0) + (room if c else room / 2)
            x += room + TRACK * many + (PLATE if c in left else 0.0) + (PLATE if c in right else 0.0)
            x += 8.0 if many else 0.0
            self.left[c] = x
            if c < len(columns):
                x += wide[c]
                self.right[c] = x
        self.out.width = round(x + MARGIN + (INNER if len(self.layers) > 1 else 0.0), 1)

    def _x(self, name: str) -> float:
        """The left end of a unit: to the side from which edges come, circles in the middle."""
        c, m = self.column[name], self.size[name]
        room = self.right[c] - self.left[c] - m.width
        if not m.unit.gate:
            return self.left[c] + room / 2
        return self.left[c] + (room if self.mirrored(name) else 0.0)

    def _ports(self) -> dict[tuple[str, str], float]:
        """Where edges end at a gate: those from rows above first, then by height."""
        into: dict[str, list[str]] = {}
        for a, b in self.wires:
            into.setdefault(b, []).append(a)
        found = {}
        for b, sources in into.items():

            def key(a: str, b: str = b) -> tuple[int, float]:
                return (1, self.chains[a, b][-2].y) if (a, b) in self.chains else (0, self.y[a])

            for a, dy in zip(sorted(sources, key=key), self.size[b].ports(len(sources)), strict=True):
                found[a, b] = round(dy, 1)
        return found

    def _ends(self, a: str, b: str) -> tuple[float, float, float, float]:
        m, x = self.size[a], self._x(a)
        x0 = x + (m.width - m.port_out() if self.mirrored(a) else m.port_out())
        m, x = self.size[b], self._x(b)
        x1 = x + (m.width - m.port_in() if self.mirrored(b) else m.port_in())
        return x0, self.y[a], x1, self.y[b] + self.ports[a, b]

    # ---- drawing ----
    def _draw(self) -> None:
        self._grounds()
        for a, b in self.wires:
            steps = self._inside(a, b) if (a, b) in self.chains else self._across(a, b)
            u = self.units[b]
            if u.kind == "matmul":
                self.out.edges.append(Edge("matmul", steps, u.title, u.matrix))
                self._label(u, a, b)
            else:
                self.out.edges.append(Edge("wire", steps))
            if (a, b) in self.path:
                self.out.edges.append(Edge("path", steps))
        for name, m in self.size.items():
            mirrored, x, y = self.mirrored(name), round(self._x(name), 1), self.y[name]
            if m.unit.gate:
                e = [x + (m.width - k if mirrored else k) for k in (20.0, m.end)]
                self.out.edges.append(Edge("wire", (("M", e[0], y), ("L", e[1], y))))
            shapes, texts = m.drawn(x, y, mirrored, self.marked.get(name, ()), self._goes_down(name))
            self.out.shapes += shapes
            self.out.texts += texts

    def _goes_down(self, name: str) -> bool:
        """Do edges leave it downwards, where the label would be?"""
        item = self.items[name]
        near = item.before if self.mirrored(name) else item.after
        return bool(self.units[name].gate and near and min([o.y for o in near]) > item.y + 3)

    def _inside(self, a: str, b: str) -> tuple[Step, ...]:
        x0, y0, x1, y1 = self._ends(a, b)
        steps: list[Step] = [("M", x0, y0)]
        forward = x1 > x0
        x, y = x0, y0
        for item in self.chains[a, b][1:-1]:
            near, far = self.left[item.column], self.right[item.column]
            near, far = (near, far) if forward else (far, near)
            steps += [_curve(x, y, near, item.y), ("L", far, item.y)]
            x, y = far, item.y
        steps.append(_curve(x, y, x1, y1))
        return tuple(steps)

    def _across(self, a: str, b: str) -> tuple[Step, ...]:
        x0, y0, x1, y1 = self._ends(a, b)
        g, h = self._gutters(a, b)
        net, side = self.net(a, b), self.sides[self.net(a, b)]
        x0, y0 = x0 + (1 if self.mirrored(a) else -1) * 0.11 * side * side, y0 + side
        xg = self.lane[g] + TRACK * self.gutters[g].track(net) + 4
        if g == h:
            corners = [(x0, y0), (xg, y0), (xg, y1), (x1, y1)]
        else:
            level = self.channel[self.row[a]] + TRACK * self.channels[self.row[a]].track(net)
            xh = self.lane[h] + TRACK * self.gutters[h].track(net) + 4
            corners = [(x0, y0), (xg, y0), (xg, level), (xh, level), (xh, y1), (x1, y1)]
        return _rounded(corners)

    def _label(self, u: Unit, a: str, b: str) -> None:
        """The matrix above its edge, near the vector it makes."""
        x0, y0, x1, y1 = self._ends(a, b)
        text = _matrix_label(u)
        if (a, b) in self.chains:
            item = self.chains[a, b][-2]
            if item.through:
                x0, y0 = self.right[item.column] if x1 > x0 else self.left[item.column], item.y
            if abs(y1 - y0) < 10:
                x = (x0 + x1) / 2
            else:  # where edges that fan out are apart
                x = x1 + min(width(text, LABEL) / 2 + 9, abs(x1 - x0) / 2) * _sign(x0 - x1)
            y = _height(x0, y0, x1, y1, x)
            self.out.texts.append(Text("label", x, y - 6, text, colour=u.matrix))
            return
        h, net = self._gutters(a, b)[1], self.net(a, b)
        x = self.lane[h] + TRACK * self.gutters[h].track(net) + 4
        self.out.texts.append(Text("label", x - 5, y1 - 7, text, "end", colour=u.matrix))

    def _grounds(self) -> None:
        if len(self.layers) > 1:
            for r in self.layers:
                tint = 2 if r == self.last else r % 2
                text = self.picture.titles[r]
                area = (MARGIN / 2, self.top[r], self.out.width - MARGIN, self.bottom[r] - self.top[r])
                self.out.areas.append(Area("band", *area, tint=tint))
                self.out.texts.append(Text("remark", MARGIN / 2 + 10, self.top[r] + 15, text, "start"))
        for plate in self.picture.plates:
            first, final = (f([self.column[n] for n in plate.members]) for f in (min, max))
            top = min([self.y[n] - self.size[n].up for n in plate.members]) - PLATE - 4
            low = max([self.y[n] + self.size[n].down for n in plate.members]) + PLATE - 2
            x, end = self.left[first] - PLATE, self.right[final] + PLATE
            title = f"{plate.count} blocks of {len(plate.members)} instructions"
            self.out.areas.append(Area("folded", x, top, end - x, low - top, f"× {plate.count}", title=title))


def _matrix_label(u: Unit) -> str:
    return u.matrix + ("ᵀ" if u.transposed else "")


def _curve(x: float, y: float, x1: float, y1: float) -> Step:
    if y == y1:
        return ("L", x1, y1)
    middle = (x + x1) / 2
    return ("C", middle, y, middle, y1, x1, y1)


def _height(x0: float, y0: float, x1: float, y1: float, x: float) -> float:
    """The height of such a curve."""
    low, high, t = 0.0, 1.0, 0.5
    for _ in range(20):
        at = x0 + (x1 - x0) * (1.5 * t * (1 - t) + t**3)
        low, high = (t, high) if (at - x) * (x1 - x0) < 0 else (low, t)
        t = (low + high) / 2
    return y0 + (y1 - y0) * t * t * (3 - 2 * t)


def _rounded(corners: list[tuple[float, float]]) -> tuple[Step, ...]:
    """A way along the axes, its corners rounded."""
    points = [corners[0]]
    for p in corners[1:]:
        if p != points[-1]:
            points.append(p)
    steps: list[Step] = [("M", *points[0])]
    for (x0, y0), (x1, y1), (x2, y2) in zip(points, points[1:], points[2:], strict=False):
        a = min(BEND, (abs(x1 - x0) + abs(y1 - y0)) / 2)
        b = min(BEND, (abs(x2 - x1) + abs(y2 - y1)) / 2)
        start = (x1 - a * _sign(x1 - x0), y1 - a * _sign(y1 - y0))
        end = (x1 + b * _sign(x2 - x1), y1 + b * _sign(y2 - y1))
        steps += [("L", *start), ("C", x1, y1, x1, y1, *end)]
    steps.append(("L", *points[-1]))
    return tuple(steps)


def _sign(x: float) -> int:
    return (x > 0) - (x < 0)
