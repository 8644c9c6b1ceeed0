"""Verdicts in words: what is wrong with a size, and which mistake it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from tensorprog.coordinates.measure import Fit
from tensorprog.coordinates.program import ACTIVATION, CHANGE, DECAY, LOGITS, OUTPUT, UPDATE
from tensorprog.coordinates.setup import Case, Scale, known_exponents

__all__ = ["BEYOND", "FAIL", "GROWS", "PASS", "STILL", "TRANSIENT", "UNDECIDED", "Row", "causes", "judged", "power"]

PASS, TRANSIENT, STILL, FAIL, GROWS, UNDECIDED = "pass", "transient", "still", "FAIL", "FAIL (predicted)", "undecided"
HALFWAY = 0.25
"""Exponents are multiples of 1/2: a measured one belongs to the nearest."""
BEYOND = 4
"""A larger exponent is that of a run that diverges: a step feeds on what the one before made."""
SURE = 3.0
"""Standard errors by which a measured exponent must be away to fail."""
WHOSE = {"sgd": "gradient descent's", "adam": "Adam's", "muon": "Muon's"}
WORDS = {
    ACTIVATION: "the coordinates of {layer}",
    CHANGE: "the change of {layer} since initialization",
    UPDATE: "the updates of {layer}",
    DECAY: "the decay of {layer}",
}


@dataclass(frozen=True)
class Row:
    """A size against width.

    Attributes:
        layer: The parameter's name; "f" for the output, "logits" for what attention takes a softmax of.
        kind: "input", "hidden", "output" (a readout), "f", "logits".
        what: "activation", "change", "update" or "decay".
        step: After how many steps of training.
        exponent: As measured; -inf for what is 0.
        error: Its standard error, with the drift over widths.
        predicted: What the program of this set-up says, for widths that are large enough; None where it was not inferred.
        wanted: What a right parametrization has.
        limit: The size at infinite width of the right set-up; None where it is not known.
        distance: |size / limit - 1| at the widest network.
        verdict: "pass"; "transient" (passes: smaller than it will be, and known to be); "still" (passes: does not move at all);
            "FAIL"; "FAIL (predicted)": not yet seen at these widths, and inferred from the program; "undecided".
        reason: In words.
        widths: Of the networks.
        sizes: Root mean squares over coordinates, examples and seeds, one a width.
        errors: Their standard errors.
    """

    layer: str
    kind: str
    what: str
    step: int
    exponent: float
    error: float
    predicted: float | None
    wanted: float
    limit: float | None
    distance: float | None
    verdict: str
    reason: str
    widths: tuple[int, ...]
    sizes: tuple[float, ...]
    errors: tuple[float, ...]

    @property
    def passed(self) -> bool | None:
        """None where it is undecided."""
        return None if self.verdict == UNDECIDED else self.verdict in (PASS, TRANSIENT, STILL)

    def to_json(self) -> dict[str, Any]:
        """As a dictionary of numbers, lists and texts."""
        found = {name: list(v) if isinstance(v, tuple) else v for name, v in vars(self).items()}
        return found | {"passed": self.passed}


def power(p: float) -> str:
    """n^p, in words.

    Example:
        >>> power(0), power(0.5), power(-1)
        ('n^0', 'n^1/2', 'n^-1')
    """
    if not np.isfinite(float(p)):
        return "0" if p < 0 else "no number"
    return f"n^{Fraction(p).limit_denominator(8)}"


def judged(fit: Fit, predicted: float | None, wanted: float, least: float, layer: str, what: str) -> tuple[str, str]:
    """The verdict on a size, and the reason.

    Args:
        fit: What was measured.
        predicted: The exponent of this set-up; None for not known.
        wanted: The right one.
        least: The smallest that the right set-up has at any step of what this size is made of: a size may still be that small.
        layer: Its name.
        what: Is measured.
    """
    p, subject = fit.exponent, WORDS[what].format(layer=layer)
    if p == -np.inf:
        return STILL, f"{subject}: 0 at all widths"
    if np.isnan(p):
        return UNDECIDED, f"{subject}: 0 at some widths and not at others"
    away = p - wanted
    if predicted is not None and predicted > wanted + HALFWAY and away <= HALFWAY + SURE * fit.error:
        how = "without bound" if predicted > BEYOND else f"like {power(predicted)}"
        return GROWS, f"{subject}: not yet at these widths, but in wider networks {how}, should be {power(wanted)}"
    if abs(away) <= HALFWAY:
        if wanted < 0 and what in (ACTIVATION, CHANGE):
            return TRANSIENT, f"{subject}: vanishes like {power(wanted)}, as it should at this step"
        return PASS, f"{subject}: of order {power(wanted)}"
    if away < 0 and least < wanted and p >= least - HALFWAY - SURE * fit.error:
        rule = "smaller than it need be" if least == -np.inf else f"still ruled by what vanishes like {power(least)}"
        return TRANSIENT, f"{subject}: {rule}, on its way to order {power(max(wanted, 0))}"
    if fit.tends is not None and wanted == 0 and (predicted is None or predicted <= HALFWAY):
        return TRANSIENT, f"{subject}: approaches {fit.tends:.3g}, with a correction that vanishes"
    expected = predicted is not None and abs(predicted - wanted) > HALFWAY and abs(p - predicted) < abs(away)
    if abs(away) - SURE * fit.error <= HALFWAY and not expected:
        return (
            UNDECIDED,
            f"{subject}: measured n^({p:.2f} ± {fit.error:.2f}), should be {power(wanted)}: add widths or seeds",
        )
    how = "grow" if away > 0 else "vanish"
    return FAIL, f"{subject}: {how} like n^{p:.2f}, should be {power(wanted)}"


# ---- causes ----


def causes(rows: Sequence[Row], case: Case, rates: Mapping[str, float]) -> list[str]:
    """The mistakes that a set-up has, each with what to change.

    Args:
        rows: All that was measured.
        case: The set-up, and the right one.
        rates: The power of n that a rate given as `lr` has by itself.
    """
    found = [f"lr of {name} is {power(p)}, and should be a number" for name, p in rates.items() if p]
    found += _deviations(rows, case)
    bad = [r for r in rows if r.passed is False]
    found += [
        f"the weight decay of {name} is multiplied by n^{-p}, which falls with the rate: divide it by the rate, so that a step "
        f"leaves the same part at all widths (decay={{{name!r}: 0}})"
        for name, p in case.setup.decays.items()
        if p and any(r.layer == name and r.what == DECAY for r in bad)
    ]
    if found or not bad:
        return found
    grown = [r for r in bad if r.exponent > r.wanted or r.verdict == GROWS]
    if any(r.kind == OUTPUT and r.what == ACTIVATION and r.step == 0 and r.exponent > HALFWAY for r in grown):
        return [
            "the output grows at initialization: it is a sum over the width without its multiplier 1/n; of a readout that is "
            "tied to the embedding, multiply by 1/n"
        ]
    if any(r.kind == LOGITS for r in grown):
        return [
            "attention's logits q.k grow with the width: they are divided by sqrt(d), and once queries and keys are trained they "
            "are of order d: divide by d, as tp.attention does"
        ]
    return [
        f"all rates and first entries are those of {case.name}; the first size that is not right is that of {bad[0].layer}: is "
        "there a power of n in the network before it, or a sum over the width that is no mean?"
    ]


def _deviations(rows: Sequence[Row], case: Case) -> list[str]:
    """What is wrong with the exponents of parameters: of all of them together, or one by one in their order."""
    setup, target, kinds = case.setup, case.target, case.kinds
    order = {r.layer: i for i, r in reversed(list(enumerate(rows)))}

    def is_off(name: str) -> bool:
        """A readout may start smaller."""
        smaller = kinds[name] == "output" and setup.starts[name] > target.starts[name]
        return setup.rates[name] != target.rates[name] or (setup.starts[name] != target.starts[name] and not smaller)

    off = sorted([name for name in kinds if is_off(name)], key=lambda name: order.get(name, len(rows)))
    for title, fits in _known(case) if len(off) > 1 else []:
        if all(_same(case.given[name], fits[kind]) for name, kind in kinds.items()):
            return [title]
    return [_deviation(name, case) for name in off]


def _known(case: Case) -> list[tuple[str, dict[str, tuple[Any, ...]]]]:
    """Mistakes that concern all parameters: the name, and exponents a, b, c of every kind."""
    rules = case.setup.rules

    def table(name: str, rule: str | None = None) -> dict[str, tuple[Any, ...]]:
        return {kind: known_exponents(name, kind, rule or own) for kind, own in rules.items()}

    use = f'use parametrization="{case.name}"'
    needs = WHOSE[rules["hidden"]]
    return [
        (
            "the parametrization is not applied: multipliers, first entries and rates are those of a network without one "
            f"(fan-in initialization, one rate); {use}",
            table("pytorch"),
        ),
        (
            f"this is the standard parametrization (fan-in initialization, rates lr/n) under another name; {use}",
            table("standard"),
        ),
        (f"this is the NTK parametrization; {use}", table("ntk")),
        *[
            (
                f"the rates are {whose} rule, and the optimiser needs {needs}: leave out rule=, or use the other optimiser",
                table(case.name, rule),
            )
            for rule, whose in WHOSE.items()
        ],
    ]


def _same(scale: Scale, known: tuple[Any, ...]) -> bool:
    return (scale.a, scale.b, scale.c) == tuple(known)


def _deviation(name: str, case: Case) -> str:
    """What is wrong with one parameter."""
    parts, change, effect = [], [], []
    for letter, what in (("a", "multiplier"), ("b", "first entries"), ("c", "rate")):
        x, y = getattr(case.given[name], letter), getattr(case.right[name], letter)
        if x != y:
            parts.append(f"its {what} {'are' if letter == 'b' else 'is'} {power(-x)} and should be {power(-y)}")
            change.append(f"{letter}={{{name!r}: {y}}}")
    role = {"input": "an input layer, bias or gain", "hidden": "a hidden matrix", "output": "a readout"}
    for what, right, given in (
        ("first values", case.target.starts[name], case.setup.starts[name]),
        ("a step", case.target.rates[name], case.setup.rates[name]),
    ):
        off = float(right) - float(given)
        if off:
            effect.append(f"{what} too {'large' if off > 0 else 'small'} by {power(abs(off))}")
    return f"{name} ({role[case.kinds[name]]}): {'; '.join(parts)} ({', '.join(effect)}); use {', '.join(change)}"
