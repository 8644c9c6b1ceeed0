"""What a coordinate check finds, as a table and in words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tensorprog.coordinates.program import ACTIVATION, CHANGE, UPDATE
from tensorprog.coordinates.verdict import BEYOND, STILL, Row, power
from tensorprog.errors import TensorProgramError

__all__ = ["CoordCheck"]


@dataclass(frozen=True)
class CoordCheck:
    """What `coord_check` finds; `print` shows the table, and what to change.

    Attributes:
        rows: One a layer and what was measured of it.
        reasons: The mistakes, in words.
        target: The parametrization it is held against.
        widths: Of the networks.
        seeds: How many networks a width.
        diverged: The width at which outputs were no longer numbers; None for none.
    """

    rows: tuple[Row, ...]
    reasons: tuple[str, ...]
    target: str
    widths: tuple[int, ...]
    seeds: int
    diverged: int | None = None

    @property
    def passed(self) -> bool | None:
        """Are all sizes of the right order? None where some are undecided and none is wrong, or nothing moves."""
        verdicts = [r.passed for r in self.rows] + [None] * self.stands
        if self.diverged is not None or False in verdicts:
            return False
        return None if None in verdicts else True

    @property
    def stands(self) -> bool:
        """Is all that training should move where it was, at all widths? Then nothing is known of its steps."""
        moves = [r for r in self.rows if r.what in (CHANGE, UPDATE)] or self.rows
        return all(r.verdict == STILL for r in moves)

    @property
    def failed(self) -> tuple[Row, ...]:
        """The rows that are not of the right order."""
        return tuple([r for r in self.rows if r.passed is False])

    def __getitem__(self, name: tuple[str, str] | str) -> Row:
        """The last row of a layer and what is measured, `c["W", "update"]`; of a layer alone, that of its activation."""
        layer, what = (name, ACTIVATION) if isinstance(name, str) else name
        found = [r for r in self.rows if (r.layer, r.what) == (layer, what)]
        if not found:
            known = ", ".join(dict.fromkeys([f"{r.layer} {r.what}" for r in self.rows]))
            raise TensorProgramError(f"no row {layer!r} {what!r}", fix=f"there are {known}")
        return found[-1]

    def to_json(self) -> dict[str, Any]:
        """As a dictionary of numbers, lists and texts."""
        return {
            "passed": self.passed,
            "target": self.target,
            "widths": list(self.widths),
            "seeds": self.seeds,
            "diverged": self.diverged,
            "reasons": list(self.reasons),
            "rows": [r.to_json() for r in self.rows],
        }

    def plot(self, path: str | Path | None = None) -> Any:
        """Sizes against width, a panel for each of activations, changes and updates; saved where a path is given."""
        from tensorprog.coordinates.picture import plot_coordinates

        return plot_coordinates(self, path)

    def __str__(self) -> str:
        heads = ("layer", "what", "step", "measured", "predicted", "right", "from limit", "verdict")
        table = [heads]
        for r in self.rows:
            measured = "0" if r.exponent == -np.inf else f"{r.exponent:.2f} ± {r.error:.2f}"
            table.append(
                (
                    r.layer,
                    r.what,
                    str(r.step),
                    measured,
                    "?" if r.predicted is None else _exponent(r.predicted),
                    _exponent(r.wanted),
                    "" if r.distance is None else f"{100 * r.distance:.2g} %",
                    r.verdict,
                )
            )
        sizes = [max(len(row[i]) for row in table) for i in range(len(heads))]
        lines = ["  ".join([c.ljust(k) for c, k in zip(row, sizes, strict=True)]).rstrip() for row in table]
        says = {True: "passed", False: "FAILED", None: "undecided"}[self.passed]
        sizes_are = f"exponents of n, widths {self.widths[0]} to {self.widths[-1]}, {self.seeds} seeds"
        title = f"Coordinate check against {self.target}: {says} ({sizes_are})"
        below = [f"- {reason}" for reason in self.reasons]
        if self.diverged is not None:
            below.insert(0, f"- at width {self.diverged} training diverged: outputs are no longer numbers")
        if self.stands and self.diverged is None:
            below.append(
                "  training moves nothing, so that nothing is known of it: is the rate 0, or y what comes out?"
            )
        below += [f"  {r.reason}" for r in self.rows if r.passed is not True]
        return "\n".join([title, "", *lines, *([""] if below else []), *below])

    __repr__ = __str__


def _exponent(p: float) -> str:
    return "diverges" if p > BEYOND else power(p).removeprefix("n^")
