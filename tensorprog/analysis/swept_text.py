"""A sweep as a table and as JSON."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tensorprog.analysis.compare import plus_minus
from tensorprog.analysis.row import UNSTABLE, Row

if TYPE_CHECKING:
    from tensorprog.analysis.swept import Sweep

__all__ = ["as_json", "table"]


def table(s: Sweep) -> str:
    """One row a value, one column a width; then the best values, and the verdict."""
    heads = [s.name, *[_width(n) for n in s.rows]]
    rows = [row.on(s.values) for row in s.rows.values()]
    lines = [[f"{v:.6g}", *[_cell(row, i) for row in rows]] for i, v in enumerate(s.values)]
    best = [_best(s, n) for n in s.rows]
    least = [_number_text(row.valley.least, 0) if row.known.any() else "none" for row in s.rows.values()]
    stable = ["none" if v is None else f"{v:.6g}" for v in s.largest_stable.values()]
    feet = [[f"best {s.name}", *best], [f"least {s.of}", *least], ["largest stable", *stable]]
    sizes = [max(map(len, column)) for column in zip(heads, *lines, *feet, strict=True)]

    def text(cells: list[str]) -> str:
        first, *rest = cells
        return "  ".join([first.ljust(sizes[0]), *[c.rjust(k) for c, k in zip(rest, sizes[1:], strict=True)]]).rstrip()

    rule = text(["-" * k for k in sizes])
    notes = dict.fromkeys(
        [
            f"{_width(n)}, {s.name} = {v:.6g}: {t}"
            for n, r in s.rows.items()
            for v, t in zip(r.values, r.notes, strict=True)
            if t
        ]
    )
    parts = [text(heads), rule, *map(text, lines), rule, *map(text, feet), "", s.verdict]
    if any(UNSTABLE in row.status for row in rows):
        parts += ["", f"!: unstable: the {s.of} ends above where it began."]
    if notes:
        parts += ["", *notes]
    return "\n".join(parts)


def as_json(s: Sweep) -> dict[str, Any]:
    """See `Sweep.to_json`."""
    slope = s.slope
    return {
        "outputs": {},
        "hyperparameter": s.name,
        "values": list(s.values),
        "of": s.of,
        "seeds": list(s.seeds),
        "rows": [
            {
                "width": None if math.isinf(n) else n,
                "limit": math.isinf(n),
                "method": row.method,
                "values": list(row.values),
                "loss": [_number(x) for x in row.loss],
                "error": [_number(x) for x in row.error],
                "status": list(row.status),
                "notes": list(row.notes),
                "best": None if (e := s.best[n]) is None else e.to_json(),
                "least": _number(row.valley.least),
                "largest_stable": s.largest_stable[n],
            }
            for n, row in s.rows.items()
        ],
        "slope": None if slope is None else slope.to_json(),
        "transfers": s.transfers,
        "verdict": s.verdict,
    }


def _number(x: float) -> float | None:
    return float(x) if math.isfinite(x) else None


def _width(n: float) -> str:
    return "limit" if math.isinf(n) else f"n = {n}"


def _cell(row: Row, i: int) -> str:
    if not row.known[i]:
        return row.status[i]
    text = _number_text(float(row.loss[i]), float(row.error[i]))
    return text + (" !" if row.status[i] == UNSTABLE else "")


def _number_text(value: float, error: float) -> str:
    """Six digits where the error is smaller."""
    return f"{value:.6g}" if error < 1e-6 * abs(value) else plus_minus(value, error)


def _best(s: Sweep, n: float) -> str:
    best = s.best[n]
    if best is None:
        return "beyond" if s.rows[n].known.any() else "none"
    return plus_minus(float(best.value), float(best.error))
