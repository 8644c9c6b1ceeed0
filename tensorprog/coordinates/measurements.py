"""Sizes that users measured themselves, in any framework, held against the exponents of muP by the role of a layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tensorprog.coordinates.measure import fitted
from tensorprog.coordinates.program import ACTIVATION, CHANGE, OUTPUT, UPDATE
from tensorprog.coordinates.report import CoordCheck
from tensorprog.coordinates.verdict import Row, judged
from tensorprog.errors import TensorProgramError

__all__ = ["ROLES", "judged_measurements"]

ROLES = ("input", "hidden", "output", "logits")
"""An embedding or input layer; a layer inside; what the network returns; what attention takes a softmax of."""
COLUMNS = {"layer": "module", "width": "width", "step": "t", "size": "l1"}
"""What a table has, and what the mup package calls it in its coordinate checks."""
KEYS, WHAT = ("layer", "what", "step"), (ACTIVATION, CHANGE, UPDATE)
SMALL = ("output", "logits")
"""Roles that may start smaller, like n^(-1/2) or at 0."""


def judged_measurements(table: Any, roles: Mapping[str, str]) -> CoordCheck:
    """The verdict on a table, see `coord_check`.

    Raises:
        TensorProgramError: The table is no such table; a layer without a role, or a role that is none.
    """
    columns = _columns(table)
    layers = list(dict.fromkeys(columns["layer"]))
    for name in layers:
        if roles.get(name) not in ROLES:
            raise TensorProgramError(
                f"the layer {name!r} of the measurements has the role {roles.get(name)!r}",
                fix=f'say what it is: roles={{{name!r}: "hidden"}}, or {", ".join(ROLES)}',
            )
    widths = sorted(set(columns["width"]))
    if len(widths) < 3:
        raise TensorProgramError(f"measurements at {len(widths)} widths", fix="give three or more")
    cells: dict[tuple[str, str, int], dict[int, list[float]]] = {}
    for name, what, step, n, x in zip(*[columns[k] for k in (*KEYS, "width", "size")], strict=True):
        cells.setdefault((name, what, step), {}).setdefault(n, []).append(x)
    rows = [_row(*key, roles[key[0]], cells) for name in layers for what in WHAT for key in _asked(name, what, cells)]
    reasons = _causes(rows) if any(r.passed is False for r in rows) else []
    seeds = min([len(sizes) for cell in cells.values() for sizes in cell.values()])
    return CoordCheck(tuple(rows), tuple(reasons), "mup", tuple(widths), seeds)


_Cells = Mapping[tuple[str, str, int], Mapping[int, Sequence[float]]]
"""Layer, what is measured and step, to the sizes at every width."""


def _asked(name: str, what: str, cells: _Cells) -> list[tuple[str, str, int]]:
    """What is judged: activations at first and in the end, other sizes when they are first there, and in the end."""
    steps = sorted([s for a, w, s in cells if (a, w) == (name, what)])
    if what != ACTIVATION:
        steps = [s for s in steps if any(any(sizes) for sizes in cells[name, what, s].values())]
    return [(name, what, s) for s in sorted({*steps[:1], *steps[-1:]})]


def _columns(table: Any) -> dict[str, list[Any]]:
    if isinstance(table, Sequence) and not isinstance(table, str) and table and isinstance(table[0], Mapping):
        table = {k: [row.get(k) for row in table] for k in table[0]}
    names = list(table) if isinstance(table, Mapping) or hasattr(table, "columns") else []
    there = {k: k if k in names else other for k, other in COLUMNS.items()}
    missing = [k for k, name in there.items() if name not in names]
    if missing:
        raise TensorProgramError(
            f"measurements without {missing[0]!r}",
            why=f"a table has the columns {', '.join(COLUMNS)}, and may have seed and what",
            fix="give a dictionary of lists, a data frame, or a list of dictionaries",
        )
    found = {k: list(table[name]) for k, name in there.items()}
    found["what"] = list(table["what"]) if "what" in names else [ACTIVATION] * len(found["layer"])
    if len({len(column) for column in found.values()}) != 1 or not found["layer"]:
        raise TensorProgramError(
            "measurements whose columns have different lengths, or none", fix="give a size for each row"
        )
    try:
        found |= {"width": [int(x) for x in found["width"]], "step": [int(x) for x in found["step"]]}
        found["size"] = [float(x) for x in found["size"]]
    except (TypeError, ValueError):
        raise TensorProgramError(
            "measurements that are no numbers", fix="give numbers as widths, steps and sizes"
        ) from None
    if any(x < 0 for x in found["size"]) or set(found["what"]) - set(WHAT):
        raise TensorProgramError(
            "a negative size, or an unknown thing measured",
            fix='sizes are at least 0; what is "activation", "change" or "update"',
        )
    return found


def _row(name: str, what: str, step: int, role: str, cells: _Cells) -> Row:
    here = {n: np.square(sizes) for n, sizes in sorted(cells[name, what, step].items()) if np.isfinite(sizes).all()}
    if len(here) < 2:
        raise TensorProgramError(
            f"{name!r} is measured at {len(here)} widths after {step} steps", why="or its sizes are no numbers",
            fix="measure every layer at three widths or more",
        )  # fmt: skip
    fit = fitted(list(here), list(here.values()))
    first = what == ACTIVATION and step == min(s for a, w, s in cells if (a, w) == (name, what))
    least = 0.0 if role not in SMALL else -np.inf if first else -0.5
    verdict, reason = judged(fit, None, 0.0, least, name, what)
    kind = OUTPUT if role == "output" else role
    return Row(
        name, kind, what, step, fit.exponent, fit.error, None, 0.0, None, None, verdict, reason, tuple(here),
        tuple(map(float, fit.sizes)), tuple(map(float, fit.errors)),
    )  # fmt: skip


def _causes(rows: Sequence[Row]) -> list[str]:
    """What the pattern of exponents tells."""
    bad = [r for r in rows if r.passed is False]
    grows = [r for r in bad if r.exponent > r.wanted]
    last = max(r.step for r in rows)
    started = [r for r in bad if r.what == ACTIVATION and r.step < last]
    by_kind = {k: [r for r in grows if r.kind == k and r not in started] for k in ("input", "hidden", "logits", OUTPUT)}
    found = []
    for r in started:
        if r.kind == OUTPUT:
            found.append(
                f"{r.layer} grows before any step: the readout has no multiplier 1/n (a tied one needs it, too)"
            )
        else:
            how = "grows" if r.exponent > 0 else "vanishes"
            found.append(f"{r.layer} {how} before any step: its first entries must have the variance 1/fan_in")
    if by_kind["logits"] and not by_kind["hidden"]:
        found.append("attention's logits grow in training: divide q.k by d, not by sqrt(d)")
    if by_kind["hidden"] and by_kind[OUTPUT]:
        found.append(
            "hidden layers and the output grow in training: as if no parametrization were applied; are rates of hidden matrices "
            "divided by n under Adam, and the output by n? (Flags that are set after the model is built do nothing.)"
        )
    elif by_kind["hidden"]:
        found.append("hidden layers grow in training: under Adam the rate of hidden matrices must fall like 1/n")
    elif by_kind[OUTPUT] and not started:
        found.append(
            "only the output grows in training: the readout has no multiplier 1/n, or its rate grows (a readout that is no "
            "MuReadout, such as a convolution); if it is of order n^(1/2) or less, take more steps before the verdict"
        )
    shrinks = [r for r in bad if r.exponent < r.wanted and r not in started]
    found += [
        f"{r.layer} moves less in wide networks: its rate falls with the width, and must not" for r in shrinks[:1]
    ]
    return found or [
        f"the first layer that is not of order one is {bad[0].layer}: look at its multiplier, entries and rate"
    ]
