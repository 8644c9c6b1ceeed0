"""How every parameter scales with the width: a parametrization by names, right or wrong, as a user sets one up.

    W = n^(-a) omega,   omega ~ N(0, n^(-2 b)) at first,   trained by the optimiser at the rate lr n^(-c)

for each parameter on its own, and for the optimiser as it is: gradients of omega, nothing else scaled. muP is written as the mup
package has it (Yang et al., Tensor Programs V, arXiv:2203.03466, table 8): only the readout has a multiplier, 1/n. A set-up is
the deviation from a right one: at the smallest width both are the same network, as with the base width of that package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.training.powers import ABC, NAMES, exponent, named

__all__ = [
    "KINDS", "RULES", "Case", "Exponents", "Scale", "Setup", "exponents", "known_exponents", "output_exponent", "rules_of",
]  # fmt: skip

HALF = Fraction(1, 2)
KINDS = ("input", "hidden", "output")
"""Input layers, biases, gains and other vectors; matrices; readouts."""
RULES = ("sgd", "adam", "muon")
"""How a step scales: with gradients; with no size of them, entry by entry (Adam, SignSGD); or as a matrix over its norm."""
TABLES: dict[str, dict[str, tuple[Any, Any, tuple[Any, Any, Any]]]] = {
    "mup": {"input": (0, 0, (-1, 0, 0)), "hidden": (0, HALF, (0, 1, 0)), "output": (1, 0, (-1, 0, 0))},
    "ntk": {"input": (0, 0, (0, HALF, 0)), "hidden": (HALF, 0, (0, 1, 0)), "output": (HALF, 0, (0, HALF, 0))},
    "standard": {"input": (0, 0, (1, 1, 1)), "hidden": (0, HALF, (1, 1, 1)), "output": (0, HALF, (1, 1, 1))},
    "mean_field": {"input": (0, 0, (-1, 0, 0)), "hidden": (0, HALF, (0, 1, 0)), "output": (1, 0, (-1, 0, 0))},
    "pytorch": {"input": (0, 0, (0, 0, 0)), "hidden": (0, HALF, (0, 0, 0)), "output": (0, HALF, (0, 0, 0))},
}
"""a, b, and c for every rule."""


def known_exponents(name: str, kind: str, rule: str) -> tuple[Any, Any, Any]:
    """a, b, c of a kind of parameters, in a parametrization by its name."""
    a, b, rates = TABLES[name][kind]
    return a, b, rates[RULES.index(rule)]


class Scale(NamedTuple):
    """The exponents of one parameter.

    Attributes:
        a: Of its multiplier.
        b: Of its first entries' size; inf where they are 0.
        c: Of its rate.
        decay: A step leaves 1 - lr weight_decay n^-decay of it.
    """

    a: Fraction
    b: Fraction | float
    c: Fraction
    decay: Fraction = Fraction(0)


@dataclass(frozen=True)
class Exponents:
    """A parametrization by the names of parameters: one that is known, and what is different about yours.

    Args:
        base: "mup" (as the mup package has it), "ntk", "standard" (one rate lr/n), "mean_field", "pytorch" (what comes without
            any parametrization: entries of size fan_in^(-1/2), one rate lr for all widths); or a `tp.ABC`.
        a: Of multipliers n^(-a): parameter to exponent. In place of a name, "input" (input layers, biases, gains), "hidden"
            (matrices) or "output" (readouts) means all of these; names win.
        b: Of first entries, of size n^(-b); likewise; `math.inf` for what starts at 0.
        c: Of rates lr n^(-c); likewise.
        decay: What a step leaves is 1 - lr weight_decay n^(-decay): 0 is right; a decay multiplied by a rate that falls like 1/n
            has 1. Likewise.
        rule: "sgd", "adam" or "muon": whose rates; by default those of the optimiser that is used.

    Example:
        >>> Exponents(c={"W": 0})  # with Adam: the rate of W is the same at all widths, and should be lr/n
        Exponents(base='mup', a={}, b={}, c={'W': 0}, decay={}, rule=None)
    """

    base: Any = "mup"
    a: Mapping[str, Any] = field(default_factory=dict)
    b: Mapping[str, Any] = field(default_factory=dict)
    c: Mapping[str, Any] = field(default_factory=dict)
    decay: Mapping[str, Any] = field(default_factory=dict)
    rule: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.base, ABC) and (not isinstance(self.base, str) or self.base not in TABLES):
            raise TensorProgramError(
                f"the parametrization {self.base!r}", fix=f"use one of {', '.join(TABLES)}, or a tp.ABC"
            )
        if self.rule not in (None, *RULES):
            raise TensorProgramError(f"rule={self.rule!r} of a parametrization", fix=f"use one of {', '.join(RULES)}")
        for letter in ("a", "b", "c", "decay"):
            given = getattr(self, letter)
            if not isinstance(given, Mapping):
                raise TensorProgramError(
                    f"{letter}={given!r} of a parametrization by names", fix=f'give a dictionary: {letter}={{"W": 0}}'
                )

    def scales(self, kinds: Mapping[str, str], matrices: Sequence[str], rules: Mapping[str, str]) -> dict[str, Scale]:
        """Those of a network's parameters.

        Args:
            kinds: Name of every parameter to "input", "hidden" or "output".
            matrices: The hidden ones, in the order of their first use.
            rules: That of every kind.

        Raises:
            TensorProgramError: Names that are none; a `tp.ABC` and an optimiser it says nothing about.
        """
        for letter in ("a", "b", "c", "decay"):
            for name in getattr(self, letter):
                if name not in kinds and name not in KINDS:
                    raise TensorProgramError(
                        f"{letter} of a parametrization has {name!r}",
                        fix=f"the parameters are {', '.join(sorted(kinds))}; or say {', '.join(KINDS)}",
                    )
        layers = {name: 1 + i for i, name in enumerate(matrices)}
        if self.base == "mean_field":
            named(self.base, len(layers) + 1)  # of one hidden layer
        return {name: self._scale(name, kind, layers, rules[kind]) for name, kind in kinds.items()}

    def _scale(self, name: str, kind: str, layers: Mapping[str, int], rule: str) -> Scale:
        if isinstance(self.base, ABC):
            if rule != "sgd":
                raise TensorProgramError(
                    f"{self.base} with an optimiser that divides gradients by their size",
                    why="an abc-parametrization has one rate for all layers, that of gradient descent",
                    fix="use tp.Exponents(c={..}), which has one for each",
                )
            if self.base.hidden_layers != len(layers) + 1:
                raise TensorProgramError(
                    f"{self.base} has {self.base.hidden_layers + 1} layers, and the network has {len(layers) + 2}",
                    fix="give as many",
                )
            i = 0 if kind == "input" else len(layers) + 1 if kind == "output" else layers[name]
            known = (self.base.a[i], self.base.b[i], self.base.c)
        else:
            known = known_exponents(self.base, kind, self.rule or rule)
        found: list[Any] = []
        for letter, value in zip(("a", "b", "c", "decay"), (*known, 0), strict=True):
            given = getattr(self, letter)
            p = given.get(name, given.get(kind, value))
            found.append(np.inf if letter == "b" and p == np.inf else exponent(p, f"{letter} of {name}"))
        return Scale(*found)


def exponents(parametrization: Any) -> Exponents:
    """A parametrization by names, of what users give.

    Raises:
        TensorProgramError: It is none.
    """
    return parametrization if isinstance(parametrization, Exponents) else Exponents(parametrization)


def rules_of(optimizer: Any) -> dict[str, str]:
    """The rule for every kind of parameters; Muon has two."""
    others = getattr(optimizer, "others", optimizer)
    rule = "sgd" if others.linear else "adam"
    return {"input": rule, "hidden": "muon" if hasattr(optimizer, "matrix_step") else rule, "output": rule}


@dataclass(frozen=True)
class Setup:
    """What a run needs of a set-up: exponents p of n^(-p), on vectors and outputs of order one.

    Attributes:
        output: m: f = n^(1 - m) theta, theta a Moment of a vector v = n^m W of the readout.
        starts: Of every parameter at first.
        rates: Of a step of every parameter, over that of the program.
        decays: Of the decay.
        rules: Of every kind.
    """

    output: Fraction
    starts: Mapping[str, Fraction | float]
    rates: Mapping[str, Fraction]
    decays: Mapping[str, Fraction]
    rules: Mapping[str, str]

    @classmethod
    def of(
        cls,
        scales: Mapping[str, Scale],
        kinds: Mapping[str, str],
        rules: Mapping[str, str],
        m: Fraction,
    ) -> Setup:
        """That of the exponents of parameters, with the output's m."""
        starts: dict[str, Fraction | float] = {}
        rates: dict[str, Fraction] = {}
        for name, s in scales.items():
            kind = kinds[name]
            size: Fraction = {"input": Fraction(0), "hidden": HALF, "output": m}[kind]
            starts[name] = s.a + s.b - size
            if rules[kind] == "sgd":  # a step is n^(-2a - c) dL/dW, and dL/dW is n^-m chi dh h'; of a readout, chi h'
                rates[name] = 2 * s.a + s.c + {"input": m, "hidden": m - 1, "output": -m}[kind]
            elif rules[kind] == "muon":  # has a spectral norm of one
                rates[name] = s.a + s.c
            else:
                rates[name] = s.a + s.c - {"input": Fraction(0), "hidden": Fraction(1), "output": m}[kind]
        return cls(m, starts, rates, {name: s.decay for name, s in scales.items()}, rules)


@dataclass(frozen=True)
class Case:
    """A set-up, held against the right one.

    Attributes:
        name: Of the right one.
        kinds: Name of every parameter to its kind.
        given: The exponents of the set-up.
        right: Those of the right one.
        setup: What runs need of the former.
        target: Of the latter.
    """

    name: str
    kinds: Mapping[str, str]
    given: Mapping[str, Scale]
    right: Mapping[str, Scale]
    setup: Setup
    target: Setup

    @classmethod
    def of(
        cls, scheme: Exponents, name: str, kinds: Mapping[str, str], matrices: Sequence[str], rules: Mapping[str, str]
    ) -> Case:
        """That of a parametrization, and one by its name."""
        right = Exponents(name).scales(kinds, matrices, rules)
        given = scheme.scales(kinds, matrices, rules)
        m = output_exponent(right, kinds, rules)
        return cls(name, kinds, given, right, Setup.of(given, kinds, rules, m), Setup.of(right, kinds, rules, m))


def output_exponent(scales: Mapping[str, Scale], kinds: Mapping[str, str], rules: Mapping[str, str]) -> Fraction:
    """m, with which readouts of a right parametrization are of order one: 1 where no readout is trained."""
    found: list[Any] = []
    for name, s in scales.items():
        if kinds[name] == "output":
            found.append(min(s.a + s.b, (2 if rules["output"] == "sgd" else 1) * s.a + s.c))
    return Fraction(min(found, default=1))


assert set(NAMES) < set(TABLES)
