"""What is highlighted: instructions at which a check fails, and paths of the tangent kernel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from tensorprog.drawing.fold import Folded
from tensorprog.drawing.roles import rows
from tensorprog.drawing.units import Unit
from tensorprog.errors import TensorProgramError

__all__ = ["Highlighted", "highlighted"]


@dataclass(frozen=True)
class Highlighted:
    """Names of units.

    Attributes:
        offenders: At which a check fails.
        path: On a path.
    """

    offenders: frozenset[str] = frozenset()
    path: frozenset[str] = frozenset()

    def classes(self, picture: Folded) -> dict[str, tuple[str, ...]]:
        """Further classes of the units that are drawn."""
        found: dict[str, tuple[str, ...]] = {}
        for names, mark in ((self.path, "path-member"), (self.offenders, "offender")):
            for name in sorted({picture.hidden.get(n, n) for n in names}):
                found[name] = (*found.get(name, ()), mark)
        return found

    def edges(self, picture: Folded) -> set[tuple[str, str]]:
        """The edges between units of a path."""
        names = {picture.hidden.get(n, n) for n in self.path}
        return {(o, name) for name in names for o in picture.units[name].operands if o in names}


def highlighted(units: Mapping[str, Unit], what: Any) -> Highlighted:
    """What a user asks to be highlighted.

    Args:
        units: Of the program.
        what: A report of `tp.check_gia`; or names: of an instruction, as in `print(program)`; of a matrix or an initial vector,
            then the paths from its uses through the forward pass, those that its part of the tangent kernel is a sum over
            (Tensor Programs IIb, section 3 and appendix D); or None.

    Raises:
        TensorProgramError: for a name the program does not have, and for anything else.
    """
    if what is None:
        return Highlighted()
    offenders = getattr(what, "offenders", None)
    if offenders is not None:
        return Highlighted(offenders=frozenset([name for o in offenders for name in _matching(units, o)]))
    names = [what] if isinstance(what, str) else list(what) if isinstance(what, Iterable) else [what]
    if not all(isinstance(name, str) for name in names):
        raise TensorProgramError(
            f"highlight={what!r}"[:60],
            fix="give a report of tp.check_gia, or names as in print(program), a text or several",
        )
    marked: set[str] = set()
    for name in names:
        uses = {n for n, u in units.items() if u.matrix == name and not u.backward}
        if uses or (name in units and units[name].kind == "vector"):
            marked |= _paths(units, uses, {name} & set(units) if not uses else set())
        elif name in units:
            marked.add(name)
        else:
            known = [*units, *{u.matrix for u in units.values() if u.matrix}]
            near = get_close_matches(name, known)
            raise TensorProgramError(
                f"highlight={name!r}", why="no instruction, vector or matrix of the program has this name",
                fix=f"did you mean {' or '.join(near)}?" if near else "use the names of print(program)",
            )  # fmt: skip
    return Highlighted(path=frozenset(marked))


def _paths(units: Mapping[str, Unit], uses: set[str], begun: set[str]) -> set[str]:
    """What is multiplied in the first pass, and all vectors of the pass that depend on it there."""
    row, _ = rows(units)
    first = min([row[n] for n in uses | begun])
    reached = {n for n in uses | begun if row[n] == first or n in begun}
    for name, u in units.items():
        if row[name] == first and u.end in ("g-var", "x-var") and any(o in reached for o in u.operands):
            reached.add(name)
    return reached | {units[n].operands[0] for n in uses if n in reached}


def _matching(units: Mapping[str, Unit], offender: Any) -> list[str]:
    """The units an offender is: by its name, or, in a program made of other data, by the user's line."""
    u = units.get(offender.label)
    at = None if u is None or u.node is None else u.node.source
    if u is not None and (offender.source is None or at is None or at == offender.source):
        return [offender.label]
    same = [n for n, u in units.items() if u.node is not None and offender.source and u.node.source == offender.source]
    products = [n for n in same if units[n].kind == "matmul"]
    return products or same
