"""Repeated blocks as one: the layers of a deep network are drawn once, and said to be many.

A row of the picture is a sequence of columns. Two columns are alike when they have the same instructions of the same kinds of
operands, whatever these are called; a run of columns that repeats is a *plate*: its first copy is drawn, with the number of
copies. Where that is still too much, what is inside a plate, and what is between plates, is closed into a *box*.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace

from tensorprog.drawing.roles import columns, is_mirrored, row_titles, rows
from tensorprog.drawing.units import Unit
from tensorprog.language.node import Node

__all__ = ["LIMIT", "Folded", "Plate", "folded", "unfolded"]

LIMIT = 60
"""Shapes a folded picture has at most."""
TIDY, OPEN = 40, 200
"""Shapes a picture may have before blocks are folded; and after that, before any are closed."""
ROWS, MIDDLE = 8, "box of passes"
"""Passes that are drawn; what those in the middle are called."""
COPIES, SAVED = 3, 12
"""Of a block, before it is a plate; and units that are saved."""
LONGEST = 64
"""Columns of a block."""
SHOWN = 12
"""Lines in the title of a box."""


@dataclass(frozen=True)
class Plate:
    """A block that is drawn once.

    Attributes:
        members: The units that are drawn, by name.
        count: How many copies of it there are.
        row: Where it is.
    """

    members: tuple[str, ...]
    count: int
    row: int


@dataclass(frozen=True)
class Folded:
    """What is drawn of a program.

    Attributes:
        units: The units that are drawn, operands first; those of copies are mapped to the first.
        row: The row of each.
        column: The column of each.
        last: The row of outputs, if there is one.
        titles: What rows are called.
        plates: Blocks that are drawn once.
        hidden: Where every unit that is not drawn is: a unit of the first copy, or a box.
    """

    units: dict[str, Unit]
    row: dict[str, int]
    column: dict[str, int]
    last: int | None
    titles: tuple[str, ...]
    plates: tuple[Plate, ...]
    hidden: dict[str, str]


def unfolded(units: Mapping[str, Unit]) -> Folded:
    """Every unit, nothing folded."""
    row, last = rows(units)
    titles = row_titles(max(row.values(), default=0) + 1, last)
    return Folded(dict(units), row, columns(units, row, last), last, titles, (), {})


def folded(units: Mapping[str, Unit], nodes: Container[Node], limit: int = LIMIT) -> Folded:
    """Repeated blocks drawn once; where that leaves many shapes, so much of it closed that `limit` shapes are drawn.

    Args:
        units: What may be drawn.
        nodes: What has a unit, of the whole program.
        limit: Shapes.

    Example:
        >>> import tensorprog as tp
        >>> from tensorprog.drawing.units import units
        >>> n = tp.Width("n")
        >>> x = tp.Vector("x", n)
        >>> for i in range(50):
        ...     x = tp.tanh(tp.Matrix(f"W{i}", n, n) @ x)
        >>> whole = units(tp.Program(q=tp.moment(x)))
        >>> found = folded(whole, {u.node for u in whole.values()})
        >>> [plate.count for plate in found.plates], len(found.units)
        ([49], 5)
    """
    whole = unfolded(units)
    if sum([u.shapes for u in units.values()]) <= min(TIDY, limit):
        return whole
    seen = _seen_through(units)
    whole = unfolded({name: _of_others(u, seen) for name, u in units.items() if name not in seen})
    whole = _few_rows(whole)
    spans = _spans(whole, nodes)
    size = [sum([whole.units[n].shapes for n in span.drawn]) for span in spans]
    closed: set[int] = set()
    total = sum(size)
    for i in (
        [] if limit == LIMIT and total <= OPEN else sorted(range(len(spans)), key=lambda i: (-size[i], i))
    ):  # the largest first
        if total <= limit:
            break
        closed.add(i)
        total += 1 - size[i]
    found = _carried_out(whole, spans, closed)
    for more in (whole.hidden, seen):
        found.hidden.update({name: found.hidden.get(o, o) for name, o in more.items()})
    return found


def _seen_through(units: Mapping[str, Unit]) -> dict[str, str]:
    """Instructions that only place the axes of another: where it stands decides how a sum is written, layer by layer."""
    found: dict[str, str] = {}
    for name, u in units.items():
        if u.node is not None and u.node.op == "view" and len(u.operands) == 1 and not u.outputs:
            (o,) = u.operands
            if units[o].node == u.node.args[0]:
                found[name] = found.get(o, o)
    return found


def _of_others(u: Unit, seen: Mapping[str, str]) -> Unit:
    if not any(o in seen for o in u.operands):
        return u
    return replace(u, operands=tuple(dict.fromkeys([seen.get(o, o) for o in u.operands])))


def _few_rows(whole: Folded) -> Folded:
    """Many passes, those in the middle as one box: an odd number of rows, so that the directions of the others stay."""
    many = len(whole.titles)
    passes = many - (whole.last is not None)
    if passes <= ROWS:
        return whole
    low, high = 2, passes - 2 if passes % 2 else passes - 3
    inside = {name: u for name, u in whole.units.items() if low <= whole.row[name] < high}
    box = _box(tuple(inside.values()), 1, MIDDLE)
    hidden = dict.fromkeys(inside, box.name)
    units: dict[str, Unit] = {}
    for name in sorted(whole.units, key=lambda name: whole.row[name]):
        u = whole.units[name]
        if name not in inside:
            operands = tuple(dict.fromkeys([hidden.get(o, o) for o in u.operands]))
            units[name] = replace(u, operands=operands)
        elif box.name not in units:
            of = dict.fromkeys([o for v in inside.values() for o in v.operands if o not in inside])
            units[box.name] = replace(box, operands=tuple(of))
    down = high - low - 1
    row = {name: r - down if (r := whole.row.get(name, low)) >= high else r for name in units}
    last = None if whole.last is None else whole.last - down
    name = f"{whole.titles[low].removesuffix(' →')} … {whole.titles[high - 1].removesuffix(' →')} →"
    titles = (*whole.titles[:low], name, *whole.titles[high:])
    return Folded(units, row, columns(units, row, last), last, titles, (), hidden)


# ---- spans ----


@dataclass(frozen=True)
class _Span:
    """Columns of a row: several copies of a block, or what is between such."""

    row: int
    copies: tuple[tuple[str, ...], ...]

    @property
    def drawn(self) -> tuple[str, ...]:
        return self.copies[0]


def _spans(whole: Folded, nodes: Container[Node]) -> list[_Span]:
    """Every row cut into plates and the rest."""
    signature = _signatures(whole, nodes)
    place = {name: i for i, name in enumerate(whole.units)}
    out: list[_Span] = []
    for row in range(max(whole.row.values(), default=0) + 1):
        found: dict[int, list[str]] = {}
        for name, r in whole.row.items():
            if r == row:
                c = whole.column[name]
                found.setdefault(-c if is_mirrored(row, whole.last) else c, []).append(name)
        if not found:
            continue
        sequence = [
            sorted(found.get(c, []), key=lambda name: (signature[name], place[name]))
            for c in range(min(found), max(found) + 1)
        ]
        number: dict[tuple[str, ...], int] = {}
        keys = [number.setdefault(tuple([signature[n] for n in names]), len(number)) for names in sequence]
        at = 0
        for start, period, copies in _runs(keys, list(map(len, sequence))):
            _append(out, row, sequence[at:start])
            blocks = [
                tuple([n for names in sequence[start + k * period : start + (k + 1) * period] for n in names])
                for k in range(copies)
            ]
            out.append(_Span(row, tuple(blocks)))
            at = start + period * copies
        _append(out, row, sequence[at:])
    return out


def _append(out: list[_Span], row: int, sequence: list[list[str]]) -> None:
    names = tuple([n for column in sequence for n in column])
    if names:
        out.append(_Span(row, (names,)))


def _signatures(whole: Folded, nodes: Container[Node]) -> dict[str, str]:
    """What units do, whatever operands are called and however ordered: operations, and where operands stand."""
    found: dict[str, str] = {}
    for name, u in whole.units.items():
        row, column = whole.row[name], whole.column[name]
        words = _words(u.node, nodes) if u.node is not None else []
        where = []
        for o in u.operands:
            other = whole.row[o]
            near = column - whole.column[o] if other == row and not whole.units[o].is_leaf else ""
            where.append(f"{whole.units[o].end}:{row - other}:{near}")
        shape = u.node.shape if u.node else ""
        found[name] = f"{u.kind} {u.transposed} {shape} {len(u.outputs)} {' '.join(words)} {' '.join(sorted(where))}"
    return found


def _words(x: Node, units: Container[Node]) -> list[str]:
    """The operations of an instruction's text, sorted; those that only place axes are left out."""
    words: list[str] = []
    todo: list[tuple[Node, bool]] = [(x, True)]
    while todo:
        y, top = todo.pop()
        if not top and y in units:
            continue
        if y.op in ("add", "mul"):
            words.append(f"{y.op}{sorted(map(str, y.attr))}")
        elif y.op == "fn":
            words.append(f"{y.attr.name}")
        elif y.op != "view":
            words.append(y.op)
        todo += [(a, False) for a in y.args]
    return sorted(words)


def _runs(keys: list[int], sizes: list[int]) -> Iterator[tuple[int, int, int]]:
    """The runs of columns that repeat, in order: where, the period, how often. What saves most is taken first."""
    todo, runs = [(0, len(keys))], []
    while todo:
        a, b = todo.pop()
        best = _longest(keys, sizes, a, b)
        if best is None:
            continue
        start, period, copies = best
        runs.append(best)
        todo += [(a, start), (start + period * copies, b)]
    yield from sorted(runs)


def _longest(keys: list[int], sizes: list[int], low: int, high: int) -> tuple[int, int, int] | None:
    """The run that saves most units, of those the one with the shortest period."""
    best, most = None, SAVED - 1
    for period in range(1, min(LONGEST, (high - low) // COPIES) + 1):
        i = low
        while i + period < high:
            if keys[i] != keys[i + period]:
                i += 1
                continue
            j = i
            while j + period < high and keys[j] == keys[j + period]:
                j += 1
            copies = (j - i) // period + 1
            if copies >= COPIES:
                saved = sum(sizes[i : i + period]) * (copies - 1)
                if saved > most:
                    best, most = (i, period, copies), saved
            i = j
    return best


# ---- what is left ----


def _carried_out(whole: Folded, spans: list[_Span], closed: set[int]) -> Folded:
    """The units that are drawn, with boxes for closed spans, and operands that follow."""
    hidden: dict[str, str] = {}
    order: list[tuple[str, Unit, int]] = []
    plates: list[Plate] = []
    boxes: dict[str, int] = {}
    within: dict[str, tuple[int, int]] = {}  # the span and the copy of what is in a plate
    for i, span in enumerate(spans):
        for k, block in enumerate(span.copies):
            for name in block:
                within[name] = (i, k)
        if i in closed:
            box = _box(tuple([whole.units[n] for n in span.drawn]), len(span.copies), f"box {i}")
            order.append((box.name, box, span.row))
            boxes[box.name] = i
            hidden.update({name: box.name for block in span.copies for name in block})
            continue
        if len(span.copies) > 1:
            plates.append(Plate(span.drawn, len(span.copies), span.row))
            for block in span.copies[1:]:
                hidden.update(zip(block, span.drawn, strict=True))
        order += [(name, whole.units[name], span.row) for name in span.drawn]
    users: dict[str, list[str]] = {}
    for name in whole.units:
        to = hidden.get(name, name)
        i, k = within[name]
        for o in whole.units[name].operands:
            j, m = within[o]
            if not (i == j and (k != m or i in closed)):  # not from one copy of a block to another
                users.setdefault(to, []).append(hidden.get(o, o))
    units: dict[str, Unit] = {}
    for name, u, _ in order:
        own = [hidden.get(o, o) for o in u.operands if _is_shown(name, o, within, closed)]
        more = [o for o in users.get(name, []) if u.kind != "matmul" or o not in own]
        keep = own[:1] if u.kind == "matmul" else own
        operands = tuple(dict.fromkeys([o for o in [*keep, *more] if o != name]))
        units[name] = replace(u, operands=operands)
    row = {name: r for name, _, r in order}
    blocks = {name: i for name, i in [*[(n, i) for n, (i, _) in within.items()], *boxes.items()] if name in units}
    return Folded(units, row, columns(units, row, whole.last, blocks), whole.last, whole.titles, tuple(plates), hidden)


def _is_shown(name: str, operand: str, within: Mapping[str, tuple[int, int]], closed: set[int]) -> bool:
    return name not in within or within[name] == within[operand] or within[name][0] != within[operand][0]


def _box(units: tuple[Unit, ...], count: int, name: str) -> Unit:
    inside = tuple([v for u in units for v in (u.inside or (u,))])  # a box in a box is opened
    lines = [u.head for u in inside]
    few = [*lines[:SHOWN], *([f".. {len(lines) - SHOWN} more"] if len(lines) > SHOWN else [])]
    head = f"{len(inside)} instructions, {count} times:" if count > 1 else f"{len(inside)} instructions:"
    return Unit(name, "box", (), "\n".join([head, *few]), "", None, inside=inside, count=count)
