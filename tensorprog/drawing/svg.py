"""A scene as SVG: one element for each shape, with its class and its title; nothing from outside, the same bytes each time."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from tensorprog.drawing.colours import Theme
from tensorprog.drawing.glyphs import CAPTION, LABEL, SMALL
from tensorprog.drawing.scene import Area, Edge, Point, Scene, Shape, Text

__all__ = ["escaped", "svg"]

SANS = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
SERIF = "'STIX Two Text', 'Times New Roman', Times, 'Liberation Serif', 'DejaVu Serif', serif"


def escaped(text: str) -> str:
    r"""A text inside XML; characters that XML does not have are shown by their code.

    Example:
        >>> escaped('a < "b"'), escaped(chr(1))
        ('a &lt; &quot;b&quot;', '\\x01')
    """
    plain = "".join([c if c in "\t\n" or (c >= " " and c not in "\x7f\ufffe\uffff" and not "\ud800" <= c <= "\udfff")
                     else f"\\x{ord(c):02x}" for c in text])  # fmt: skip
    return plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def svg(scene: Scene, theme: Theme, colours: Mapping[str, str], description: str) -> str:
    """The picture.

    Args:
        scene: What is drawn.
        theme: Its colours.
        colours: Those of matrices.
        description: For those who do not see it.
    """
    body = [_area(a) for a in scene.areas]
    body += [_edge(e, colours) for e in sorted(scene.edges, key=lambda e: _DEPTH[e.kind])]
    body += [_shape(s, colours) for s in scene.shapes]
    body += [_text(t, colours) for t in scene.texts]
    inside = "\n".join(body)
    w, h = _number(scene.width), _number(scene.height)
    key = "tp" + hashlib.blake2b((theme.name + inside).encode(), digest_size=5).hexdigest()
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" id="{key}" width="{w}" height="{h}" viewBox="0 0 {w} {h}" role="img">\n'
        f"<desc>{escaped(description)}</desc>\n<style>\n{_style(key, theme)}\n</style>\n"
        f'<rect class="paper" width="{w}" height="{h}"/>\n{inside}\n</svg>\n'
    )


_DEPTH = {"path": 0, "wire": 1, "matmul": 2}


def _style(key: str, t: Theme) -> str:
    rows = {
        ".paper": f"fill: {t.paper}",
        "text": f"font-family: {SANS}; font-size: 12px; fill: {t.ink}",
        ".band0": f"fill: {t.bands[0]}",
        ".band1": f"fill: {t.bands[1]}",
        ".band2": f"fill: {t.bands[2]}",
        ".folded rect": f"fill: {t.plate}; fill-opacity: 0.75; stroke: {t.quiet}; stroke-width: 0.8",
        ".box": f"fill: {t.plate}; stroke: {t.ink}; stroke-width: 1.1",
        ".wire": f"fill: none; stroke: {t.wire}; stroke-width: 1",
        ".matmul": "fill: none; stroke-width: 1.7; stroke-dasharray: 5 3.2",
        ".path": f"fill: none; stroke: {t.mark}; stroke-width: 6; stroke-opacity: 0.35; stroke-linejoin: round",
        ".g-var": f"fill: {t.paper}; stroke: {t.ink}; stroke-width: 1.4",
        ".x-var": f"fill: {t.ink}; stroke: {t.ink}; stroke-width: 1.4",
        ".scalar": f"fill: {t.paper}; stroke: {t.ink}; stroke-width: 1.4",
        ".matrix": f"fill: {t.paper}; stroke-width: 1.8",
        ".gate": f"fill: {t.gate}; stroke: {t.ink}; stroke-width: 1.1; stroke-linejoin: round",
        ".bar-gate": f"fill: {t.gate}; stroke: {t.ink}; stroke-width: 1.1; stroke-linejoin: round",
        ".path-member": f"stroke: {t.mark}; stroke-width: 2.6",
        ".offender": f"stroke: {t.offender}; stroke-width: 3",
        ".name": f"font-family: {SERIF}; font-style: italic; font-size: {_number(LABEL)}px",
        ".auto": f"font-family: {SERIF}; font-style: italic; fill: {t.quiet}; font-size: {_number(SMALL)}px",
        ".output": f"font-family: {SERIF}; font-style: italic; font-weight: bold; font-size: {_number(LABEL)}px",
        ".label": f"font-family: {SERIF}; font-style: italic; font-size: {_number(LABEL)}px",
        ".caption": f"font-size: {_number(CAPTION)}px",
        ".remark": f"fill: {t.quiet}; font-size: {_number(SMALL)}px",
        ".times": "font-weight: bold",
        ".halo": f"paint-order: stroke; stroke: {t.paper}; stroke-width: 3px; stroke-linejoin: round; stroke-opacity: 0.85",
    }
    return "\n".join([f"#{key} {selector} {{ {rules} }}" for selector, rules in rows.items()])


def _area(a: Area) -> str:
    x, y, w, h = map(_number, (a.x, a.y, a.width, a.height))
    if a.kind == "band":
        return f'<rect class="band{a.tint}" x="{x}" y="{y}" width="{w}" height="{h}" rx="8"/>'
    x1, y1 = _number(a.x + a.width - 8), _number(a.y + 14)
    times = f'<text class="times" x="{x1}" y="{y1}" text-anchor="end">{escaped(a.text)}</text>'
    return (
        f'<g class="folded"><title>{escaped(a.title)}</title>'
        f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="6"/>{times}</g>'
    )


def _edge(e: Edge, colours: Mapping[str, str]) -> str:
    steps = " ".join([str(s[0]) + " ".join([_number(c) for c in s[1:]]) for s in e.steps])
    colour = f' stroke="{colours[e.colour]}"' if e.colour else ""
    if not e.title:
        return f'<path class="{e.kind}" d="{steps}"{colour}/>'
    return f'<path class="{e.kind}" d="{steps}"{colour}><title>{escaped(e.title)}</title></path>'


def _shape(s: Shape, colours: Mapping[str, str]) -> str:
    names = " ".join([s.kind, *s.marks])
    colour = f' stroke="{colours[s.colour]}"' if s.colour in colours else ""
    head, title = f'class="{names}"', f"<title>{escaped(s.title)}</title>"
    (x, y), r = s.points[0], s.size
    if s.kind in ("g-var", "x-var"):
        return f'<circle {head} cx="{_number(x)}" cy="{_number(y)}" r="{_number(r)}">{title}</circle>'
    if s.kind == "scalar":
        box = f'x="{_number(x - r)}" y="{_number(y - r)}" width="{_number(2 * r)}" height="{_number(2 * r)}"'
        return f"<rect {head} {box}>{title}</rect>"
    if s.kind == "box":
        (x1, y1) = s.points[1]
        box = f'x="{_number(x)}" y="{_number(y)}" width="{_number(x1 - x)}" height="{_number(y1 - y)}" rx="6"'
        return f"<rect {head} {box}>{title}</rect>"
    if s.kind == "matrix":
        corners = [(x - r - 2, y), (x, y - r - 2), (x + r + 2, y), (x, y + r + 2)]
        return f'<path {head}{colour} d="{_polygon(corners)}">{title}</path>'
    bar = f" {_line(s.bar)}" if s.bar else ""
    return f'<path {head} d="{_polygon(s.points)}{bar}">{title}</path>'


def _polygon(points: Sequence[Point]) -> str:
    return f"{_line(points)}Z"


def _line(points: Sequence[Point]) -> str:
    return "M" + "L".join([f"{_number(x)} {_number(y)}" for x, y in points])


def _text(t: Text, colours: Mapping[str, str]) -> str:
    place = f'x="{_number(t.x)}" y="{_number(t.y)}"'
    halo = "" if t.kind in ("caption", "times") else " halo"
    colour = f' style="fill: {colours[t.colour]}"' if t.colour in colours else ""
    if t.turned:
        place = f'transform="translate({_number(t.x + CAPTION * 0.36)} {_number(t.y)}) rotate(-90)"'
    return f'<text class="{t.kind}{halo}" {place} text-anchor="{t.anchor}"{colour}>{escaped(t.text)}</text>'


def _number(c: float | str) -> str:
    """A coordinate with one digit after the point."""
    text = f"{float(c):.1f}"
    return "0" if text in ("-0.0", "0.0") else text.removesuffix(".0")
