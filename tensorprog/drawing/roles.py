"""Which pass a unit belongs to, and where in it: rows and columns before anything is measured.

Row 0 is the forward pass, row 1 back-propagation, row 2 the forward pass of the next step, and so on; the last row has the
Moments that no vector depends on. Passes face each other: even rows run to the right, odd rows to the left, and what uses
vectors of another row stands below them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tensorprog.drawing.units import Unit
from tensorprog.language.node import Node

__all__ = ["columns", "is_mirrored", "row_titles", "rows"]

LAST = 10**9
"""The row of outputs, before rows are numbered."""


def is_mirrored(row: int, last: int | None) -> bool:
    """Does the row run to the left?"""
    return row % 2 == 1 and row != last


def row_titles(many: int, last: int | None) -> tuple[str, ...]:
    """What rows are called; a single one has no name.

    Example:
        >>> row_titles(3, 2)
        ('forward →', '← backward', 'outputs')
    """
    if many == 1:
        return ("",)
    steps = many - (last is not None) > 2

    def title(row: int) -> str:
        number = f" {row // 2 + 1}" if steps else ""
        return f"← backward{number}" if is_mirrored(row, last) else f"forward{number} →"

    return tuple(["outputs" if row == last else title(row) for row in range(many)])


def rows(units: Mapping[str, Unit]) -> tuple[dict[str, int], int | None]:
    """The row of every unit, and the row of outputs, if there is one.

    A row has a product of back-propagation, or a product of the next forward pass, after one of the row before.
    """
    users: dict[str, list[str]] = {name: [] for name in units}
    for name, u in units.items():
        for o in u.operands:
            users[o].append(name)
    names = list(units)
    backwards = names[::-1]
    phase = _phases(units, {}, names)
    ends: set[str] = set()  # scalars that no vector depends on
    for name in backwards:
        if units[name].end == "scalar" and all(v in ends for v in users[name]):
            ends.add(name)
    if max(phase.values(), default=0) > 0:
        late = _postponed(units, users, phase, ends, backwards)
        phase = _phases(units, late, names)
        moved = {n for n in ends if not units[n].is_leaf}
    else:
        moved = set()
    placed: dict[str, int] = {n: LAST if n in moved else phase[n] for n in names}
    for name in names:  # what no instruction has made is where it is first used
        if units[name].is_leaf:
            placed[name] = min([placed[v] for v in users[name]], default=0)
    number = {r: k for k, r in enumerate(sorted(set(placed.values())))}
    return {n: number[r] for n, r in placed.items()}, number.get(LAST)


def _phases(units: Mapping[str, Unit], least: Mapping[str, int], names: Iterable[str]) -> dict[str, int]:
    phase: dict[str, int] = {}
    for name in names:
        u = units[name]
        p = max([phase[o] for o in u.operands], default=0)
        if u.kind == "matmul":
            p += (p % 2 == 1) != u.backward
        phase[name] = max(p, least.get(name, 0))
    return phase


def _postponed(
    units: Mapping[str, Unit],
    users: Mapping[str, list[str]],
    phase: Mapping[str, int],
    ends: set[str],
    backwards: Iterable[str],
) -> dict[str, int]:
    """What begins a later row: what is used there only, and depends on a readout's vector, or is multiplied, or is an update."""
    multiplied: set[str] = set()  # what a product of the first forward pass depends on
    for name in backwards:
        if any((units[v].kind == "matmul" and phase[v] == 0) or v in multiplied for v in users[name]):
            multiplied.add(name)
    seeded: set[str] = set()
    for name, u in units.items():
        if u.kind == "vector":
            if name not in multiplied and not all(_is_bias(name, units[v], units) for v in users[name]):
                seeded.add(name)
        elif any(o in seeded for o in u.operands):
            seeded.add(name)
    late: dict[str, int] = {}
    ended = {n for n in backwards if units[n].kind != "matmul" and users[n] and all(v in ends for v in users[n])}
    for name in backwards:
        u, p = units[name], phase[name]
        after = [v for v in users[name] if v not in ends and v not in ended]
        if u.is_leaf or u.kind == "matmul" or name in ends:
            continue
        if not after:
            if name in seeded and p % 2 == 0:
                late[name] = p + 1  # a gradient that is used in Moments alone
            continue
        least = min([late.get(v, phase[v]) for v in after])
        if least <= p:
            continue
        if p % 2 == 0 and (name in seeded or all(units[v].kind == "matmul" for v in after)):
            late[name] = least - (least % 2 == 0)
        elif p % 2 and u.kind != "matrix" and not any(units[o].kind == "matmul" and phase[o] == p for o in u.operands):
            late[name] = least  # an update
    return {n: p for n, p in late.items() if p > phase[n]}


def _is_bias(name: str, user: Unit, units: Mapping[str, Unit]) -> bool:
    """Is the vector, or a part of it, added to others?"""
    seen = {units[o].node for o in user.operands}
    todo = [user.node] if user.node is not None else []
    while todo:
        x = todo.pop()
        if x.op == "add" and len(x.args) > 1 and any(_whole(a) == units[name].node for a in x.args):
            return True
        todo += [a for a in x.args if a not in seen]
        seen.update(x.args)
    return False


def _whole(x: Node) -> Node:
    while x.op in ("view", "take", "pick"):
        x = x.args[0]
    return x


def columns(
    units: Mapping[str, Unit], row: Mapping[str, int], last: int | None, block: Mapping[str, int] | None = None
) -> dict[str, int]:
    """The column of every unit, by longest paths inside rows, in the direction of each.

    Args:
        units: Operands first.
        row: Of every unit.
        last: The row of outputs.
        block: Where blocks must not share columns, which one a unit is in; units of a row come block by block.
    """
    place: dict[str, int] = {}
    floors = _Floors(units, block or {})
    far = 1  # the last column of the row before
    for r in sorted(set(row.values())):
        mirrored = is_mirrored(r, last)
        here = [name for name, u in units.items() if row[name] == r and not u.is_leaf]
        for name in here:
            operands = [o for o in units[name].operands if o in place]
            above = [place[o] + _shift(row[o], r, last) for o in operands if row[o] != r]
            own = floors.before(name, r, mirrored)
            if mirrored:
                own += [place[o] - 1 for o in operands if row[o] == r]
                place[name] = min([*own, *([max(above)] if above else [])], default=far)
            else:
                own += [place[o] + 1 for o in operands if row[o] == r]
                place[name] = max([*own, *above], default=1)
            floors.note(r, place[name], mirrored)
        far = max([place[name] for name in here], default=far)
    for name, u in units.items():
        mirrored = is_mirrored(row[name], last)
        for o in u.operands:
            if units[o].is_leaf and row[o] == row[name]:  # before the first that uses it
                c = place[name] + (1 if mirrored else -1)
                place[o] = c if o not in place else max(c, place[o]) if mirrored else min(c, place[o])
    for name in units:
        place.setdefault(name, 0)
    least = min(place.values(), default=0)
    return {name: place[name] - least for name in units}


def _shift(above: int, row: int, last: int | None) -> int:
    """A Moment stands where the edge from its vector comes down: to the right of it in rows that run to the right."""
    return int(row == last and not is_mirrored(above, last))


class _Floors:
    """The last column of all blocks before the current one of each row, a column more where vectors come in."""

    def __init__(self, units: Mapping[str, Unit], block: Mapping[str, int]) -> None:
        self.block = block
        self.with_leaves = {b for name, b in block.items() if units[name].is_leaf}
        self.current: dict[int, int] = {}
        self.floor: dict[int, int] = {}
        self.extreme: dict[int, int] = {}

    def before(self, name: str, row: int, mirrored: bool) -> list[int]:
        if name not in self.block:
            return []
        block = self.block[name]
        if self.current.get(row) != block:
            self.current[row] = block
            if row in self.extreme:
                more = 1 + (block in self.with_leaves)
                self.floor[row] = self.extreme[row] - more if mirrored else self.extreme[row] + more
        return [self.floor[row]] if row in self.floor else []

    def note(self, row: int, column: int, mirrored: bool) -> None:
        if row not in self.extreme or (column < self.extreme[row]) == mirrored:
            self.extreme[row] = column
