"""What `check_gia` reports: the answers, and the instructions at which a check fails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorprog.analysis.gia_numbers import Verdict
from tensorprog.analysis.instructions import place
from tensorprog.errors import Source
from tensorprog.estimate import Estimate, Estimates

if TYPE_CHECKING:
    from tensorprog.analysis.compare import Comparison

__all__ = ["BARE", "BP_LIKE", "MARKED", "SIMPLE", "GIAReport", "Offender"]

SIMPLE = "Simple GIA Check, Tensor Programs II, Condition 1"
BARE, MARKED = "every W.T an independent copy", "independent copies of the weights in back-propagation"
BP_LIKE = "BP-like, Tensor Programs II, Definition A.3"


@dataclass(frozen=True)
class Offender:
    """An instruction at which a check fails, none of whose operands fails already.

    Attributes:
        instruction: Its text, `instr 7: g1 = W.T @ dh2`, numbered as in `print(program)`; or `vector v`.
        number: Its number; None for an initial vector.
        label: Its name in the text: the user's label, where there is one.
        source: The user's line, `program.py:31` as text; None if it is not known.
        checks: Which checks fail here: "simple", "bp_like" or both.
        reason: Which hypothesis fails.
        message: All of this as a sentence, with what else is involved.
    """

    instruction: str
    number: int | None
    label: str
    source: Source | None
    checks: tuple[str, ...]
    reason: str
    message: str

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True, eq=False)
class GIAReport:
    """What `check_gia` found; `print` shows all of it.

    Attributes:
        simple: Does the program pass the Simple GIA Check? None: not decided (too many sets of readouts to try).
        bp_like: Is it BP-like? None as before.
        holds: Is the limit under GIA the limit? None: the errors are too large to tell.
        readouts: The names of the readout vectors the checks were made with.
        outputs: Output name to `Verdict`: (with GIA, without it, equal?).
        offenders: The smallest offending instructions.
        finite: Where widths were given: runs of the program, W and W.T coupled, against the limit under GIA.
        comparison: The same runs against the limit.
        notes: Remarks.
        meaning: What GIA replaces here.
    """

    simple: bool | None
    bp_like: bool | None
    holds: bool | None
    readouts: tuple[str, ...]
    outputs: Mapping[str, Verdict]
    offenders: tuple[Offender, ...]
    finite: Comparison | None = None
    notes: tuple[str, ...] = field(default=())
    meaning: str = BARE
    comparison: Comparison | None = None

    @property
    def limit(self) -> Estimates:
        """The limits of the outputs, without GIA: of a network its kernels. Empty where they were not found."""
        return Estimates({name: v.without_gia for name, v in self.outputs.items()})

    def __str__(self) -> str:
        found = ", ".join(self.readouts) or "none"
        lines = [
            f"Gradient independence assumption (GIA): {self.meaning}",
            f"  simple   {_word(self.simple)}  {SIMPLE}",
            f"  bp_like  {_word(self.bp_like)}  {BP_LIKE}",
            f"  holds    {_word(self.holds)}  are the limits with and without GIA the same?",
            f"  readouts: {found}",
        ]
        if self.outputs:
            rows = [("output", "limit", "under GIA", "")]
            words = {True: "equal", False: "DIFFERENT", None: "too uncertain to tell"}
            rows += [
                (k, _short(v.without_gia), _short(v.with_gia), words[v.agrees] + _gap(v))
                for k, v in self.outputs.items()
            ]
            sizes = [max(map(len, column)) for column in zip(*rows, strict=True)]
            lines.append("")
            lines += ["  ".join([c.ljust(k) for c, k in zip(row, sizes, strict=True)]).rstrip() for row in rows]
        if self.offenders:
            lines += ["", "Offending instructions (the smallest):", *[f"  {o}" for o in self.offenders]]
        if self.notes:
            lines += ["", *[f"Note: {note}" for note in self.notes]]
        if self.finite is not None:
            lines += ["", "Finite networks against the limit under GIA:", str(self.finite)]
        if self.comparison is not None:
            lines += ["", "The same networks against the limit:", str(self.comparison)]
        return "\n".join(lines)

    __repr__ = __str__

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON types; `outputs` have the limit's value and error, and GIA's under `gia`."""
        outputs = {
            name: v.without_gia.to_json()
            | {"gia": v.with_gia.to_json(), "agrees": v.agrees}
            | ({} if v.difference is None else {"difference": v.difference.to_json()})
            for name, v in self.outputs.items()
        }
        offenders: list[dict[str, Any]] = [
            {
                "instruction": o.instruction,
                "number": o.number,
                "label": o.label,
                "checks": list(o.checks),
                "reason": o.reason,
                "message": o.message,
            }
            | place(o.source)
            for o in self.offenders
        ]
        return {
            "simple": self.simple,
            "bp_like": self.bp_like,
            "holds": self.holds,
            "readouts": list(self.readouts),
            "outputs": outputs,
            "offenders": offenders,
            "notes": list(self.notes),
        } | {
            name: item.to_json()
            for name, item in (("finite", self.finite), ("comparison", self.comparison))
            if item is not None
        }


def _word(x: bool | None) -> str:
    return {True: "True ", False: "False", None: "None "}[x]


def _short(x: Estimate) -> str:
    if np.ndim(x.value):
        return f"array {np.shape(x.value)}"
    return str(x.value) if x.kind == "exact" else f"{float(x.value):.9g}"


def _gap(v: Verdict) -> str:
    """Of arrays that differ, by how much."""
    if v.agrees is not False or not np.ndim(v.without_gia.value):
        return ""
    right, wrong = (np.asarray(e.value, dtype=float) for e in (v.without_gia, v.with_gia))
    return f" by up to {np.max(np.abs(right - wrong)) / np.max(np.abs(right)):.2g} of the largest entry"
