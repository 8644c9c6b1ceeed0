"""abc-parametrizations: how a run of training scales with the width, and what it tends to.

    W^l = sigma_l n^(-a_l) omega^l,   omega^l ~ N(0, n^(-2 b_l)) trained, with the rate lr n^(-c)

for l = 1 (input layer) .. L + 1 (output), n the reference width; sigma_l has the ratios of widths. With the output's scale
n^(-m), m = min(a_{L+1} + b_{L+1}, 2 a_{L+1} + c), all that a program needs are powers of n with a limit:

    f = n^(1 - m) theta,      theta = v.x / n, v of order one and n^(m - a - b) as large at first as its variance says;
    a step moves  input layers and biases by n^(-r_1),    r_1 = m + c + 2 a_1,
                  hidden matrices         by n^(-r_l),    r_l = m + c - 1 + 2 a_l,
                  v                       by n^(-r_v),    r_v = 2 a_{L+1} + c - m

times what they move by in the NTK parametrization, scaled to order one. r = min r_l; features are learned where r = 0.

Source: Yang and Hu, Tensor Programs IV (arXiv:2011.14522), sections 3 and H.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.language.symbols import number

__all__ = ["ABC", "HALF", "NAMES", "Classification", "Powers", "classify", "exponent", "named"]

HALF = Fraction(1, 2)
NAMES = ("mup", "ntk", "standard", "mean_field")


@dataclass(frozen=True, init=False)
class ABC:
    """A parametrization: W^l = sigma_l n^(-a_l) omega^l, omega^l ~ N(0, n^(-2 b_l)) trained with the rate lr n^(-c).

    Args:
        a: For every layer: the input layer, the hidden matrices in the order of their first use, the output. Biases, gains and
            other trained vectors go with the input layer, as vectors do, and a readout's bias with the readout.
        b: Likewise.
        c: One number.

    Example:
        >>> ABC(a=[-0.5, 0, 0.5], b=[0.5, 0.5, 0.5], c=0).r
        Fraction(0, 1)
    """

    a: tuple[Fraction, ...]
    b: tuple[Fraction, ...]
    c: Fraction

    def __init__(self, a: Sequence[Any], b: Sequence[Any], c: Any = 0) -> None:
        lists = []
        for name, given in (("a", a), ("b", b)):
            if not hasattr(given, "__len__") or len(given) < 2:
                raise TensorProgramError(
                    f"{name}={given!r} of a parametrization", fix="give a list: the input layer's, .., the output's"
                )
            lists.append(tuple([exponent(x, f"{name} of a parametrization") for x in given]))
        if len(lists[0]) != len(lists[1]):
            raise TensorProgramError(
                f"a parametrization with {len(lists[0])} numbers a and {len(lists[1])} numbers b",
                fix="give as many of each",
            )
        object.__setattr__(self, "a", lists[0])
        object.__setattr__(self, "b", lists[1])
        object.__setattr__(self, "c", exponent(c, "c of a parametrization"))

    @property
    def hidden_layers(self) -> int:
        """L."""
        return len(self.a) - 1

    @property
    def output(self) -> Fraction:
        """m: the output is n^(-m) times a sum of n terms of order one, once it is trained."""
        return min(self.a[-1] + self.b[-1], 2 * self.a[-1] + self.c)

    @property
    def rates(self) -> tuple[Fraction, ...]:
        """r_1, .., r_L: a step moves what layer l makes of its input by n^(-r_l)."""
        moved = self.output + self.c - 1
        return tuple([moved + 2 * a + (i == 0) for i, a in enumerate(self.a[:-1])])

    @property
    def r(self) -> Fraction:
        """A step moves the features by n^(-r)."""
        return min(self.rates)

    def shifted(self, t: Any) -> ABC:
        """Another one with the same runs: a + t, b - t, c - 2 t."""
        t = exponent(t, "a shift")
        return ABC([a + t for a in self.a], [b - t for b in self.b], self.c - 2 * t)

    def blow_ups(self) -> list[str]:
        """Why it is not stable: what has no limit at initialization, or after a step; none where it is stable."""
        out = self.a[-1] + self.b[-1]
        found = []
        for i, (a, b) in enumerate(zip(self.a[:-1], self.b[:-1], strict=True), 1):
            wanted = HALF if i > 1 else Fraction(0)
            if a + b != wanted:
                how = "grow like" if a + b < wanted else "vanish like"
                found.append(
                    f"the preactivations of layer {i} {how} n^{wanted - a - b} (a + b = {a + b}, and not {wanted})"
                )
        if out < HALF:
            found.append(
                f"the output grows like n^{HALF - out} at initialization (a + b = {out} < 1/2 in layer {len(self.a)})"
            )
        if self.r < 0:
            i = self.rates.index(self.r) + 1
            found.append(f"a step moves the features of layer {i} by n^{-self.r} (r = {self.r} < 0)")
        if 2 * self.a[-1] + self.c < 1:
            found.append(
                f"a step of layer {len(self.a)} moves the output by n^{1 - 2 * self.a[-1] - self.c} (2 a + c < 1)"
            )
        if out + self.r < 1:
            found.append(
                f"the features' motion moves the output by n^{1 - out - self.r} (a + b + r = {out + self.r} < 1)"
            )
        return found

    def __str__(self) -> str:
        def text(x: Sequence[Fraction]) -> str:
            return f"[{', '.join(map(str, x))}]"

        return f"ABC(a={text(self.a)}, b={text(self.b)}, c={self.c})"


def exponent(x: Any, what: str) -> Fraction:
    """An exponent that is given, as a fraction."""
    found = number(x, what)
    return Fraction(found).limit_denominator(1000) if isinstance(found, float) else Fraction(found)


def named(name: Any, hidden_layers: int) -> ABC:
    """A parametrization by its name, for a network with that many hidden layers.

    Args:
        name: `"mup"`, `"ntk"`, `"standard"` (with the rate lr / n), `"mean_field"` (one hidden layer); or an `ABC`.
        hidden_layers: L.

    Raises:
        TensorProgramError: An unknown name; the wrong number of layers.

    Example:
        >>> print(named("mup", 2))
        ABC(a=[-1/2, 0, 1/2], b=[1/2, 1/2, 1/2], c=0)
    """
    between = max(hidden_layers - 1, 0)
    match name if isinstance(name, (str, ABC)) else None:
        case ABC():
            if name.hidden_layers != hidden_layers:
                raise TensorProgramError(
                    f"{name} has {name.hidden_layers + 1} layers, and the network has {hidden_layers + 1}",
                    why="an input layer, matrices in the order of their first use, and the output have an a and a b each",
                    fix=f"give {hidden_layers + 1} of them",
                )
            return name
        case "mup":
            return ABC([-HALF, *[0] * between, HALF], [HALF] * (between + 2), 0)
        case "ntk":
            return ABC([0, *[HALF] * between, HALF], [0] * (between + 2), 0)
        case "standard":
            return ABC([0] * (between + 2), [0, *[HALF] * between, HALF], 1)
        case "mean_field":
            if hidden_layers > 1:
                raise TensorProgramError(
                    f'the parametrization "mean_field" of a network with {hidden_layers} hidden layers',
                    why="with more than one, outputs divided by n leave the layers below where they are",
                    fix='use "mup", which is the same with one hidden layer',
                )
            return ABC([0, 1], [0, 0], -1)
    raise TensorProgramError(
        f"parametrization {name!r}", fix=f"use tp.ABC(a=.., b=.., c=..) or one of {', '.join(NAMES)}"
    )


@dataclass(frozen=True)
class Powers:
    """What a run needs to know of its parametrization: exponents p of n^(-p), all of them at least 0.

    Attributes:
        initial: Of the readout vectors at the start.
        output: f = n^(1 - output) theta, in the feature-learning regime.
        rates: Of every parameter, by name.
        scale: How far anything moves: 0 where features are learned; then increments are not scaled.
    """

    initial: Fraction
    output: Fraction
    rates: dict[str, Fraction]
    scale: Fraction

    @classmethod
    def of(cls, abc: ABC, kinds: dict[str, str], matrices: Sequence[str]) -> Powers:
        """Those of a network.

        Args:
            abc: The parametrization.
            kinds: Name of every parameter to "input", "hidden" or "output".
            matrices: The hidden matrices, in the order of their first use.

        Raises:
            TensorProgramError: The parametrization is not stable, with the exponents and the layer.
        """
        wrong = abc.blow_ups()
        if wrong:
            raise TensorProgramError(
                f"training in the parametrization {abc}", why="; ".join(wrong), fix="tp.classify says what is stable"
            )
        m = abc.output
        readout = 2 * abc.a[-1] + abc.c - m
        layer = dict(zip(matrices, abc.rates[1:], strict=True))
        rates = {
            name: abc.rates[0] if kind == "input" else readout if kind == "output" else layer[name]
            for name, kind in kinds.items()
        }
        return cls(abc.a[-1] + abc.b[-1] - m, m, rates, min([*rates.values()], default=Fraction(0)))


@dataclass(frozen=True)
class Classification:
    """What a parametrization tends to; `print` says it in words.

    Attributes:
        abc: The parametrization.
        stable: Do features, outputs and their changes have a limit?
        nontrivial: Does the output change in training? None where it is not stable.
        feature_learning: Do the features change (r = 0)? If not, training follows a kernel. None where it is not stable.
        r: A step moves the features by n^(-r).
        rates: r_l of every hidden layer.
        maximal: The layers, counted from 1, that are updated as much as can be: r_l = 0, and 2 a + c = 1 of the output.
        reasons: Why it is not stable.
    """

    abc: ABC
    stable: bool
    nontrivial: bool | None
    feature_learning: bool | None
    r: Fraction
    rates: tuple[Fraction, ...]
    maximal: tuple[int, ...]
    reasons: tuple[str, ...]

    def family(self, t: Any) -> ABC:
        """The member of its shift family, all of which have the same runs: a + t, b - t, c - 2 t."""
        return self.abc.shifted(t)

    def __str__(self) -> str:
        lines = [f"{self.abc}, up to shifts a + t, b - t, c - 2 t"]
        if not self.stable:
            return "\n".join([*lines, "not stable:", *[f"  {reason}" for reason in self.reasons]])
        if not self.nontrivial:
            lines.append("stable and trivial: no step moves the output in the limit")
        elif self.feature_learning:
            lines.append("stable and nontrivial; features are learned: r = 0")
        else:
            lines.append(f"stable and nontrivial; features move by n^-{self.r} only: training follows a kernel")
        lines.append("r of each layer: " + ", ".join([f"{i}: {r}" for i, r in enumerate(self.rates, 1)]))
        count = len(self.abc.a)
        if len(self.maximal) == count:
            lines.append("all layers are updated maximally: this is muP")
        else:
            lines.append(f"layers updated maximally: {', '.join(map(str, self.maximal)) or 'none'} of {count}")
        return "\n".join(lines)

    __repr__ = __str__


def classify(parametrization: Any, hidden_layers: int = 2) -> Classification:
    """Whether training in a parametrization is stable, whether it does anything, and whether it learns features.

    The dynamical dichotomy (features are learned, or training follows a kernel, and never both) is a theorem for tanh and smooth
    gelu, and no theorem for linear networks.

    Args:
        parametrization: A `tp.ABC`, or a name: "mup", "ntk", "standard" (rate lr/n), "mean_field".
        hidden_layers: For a name: the number of hidden layers.

    Example:
        >>> k = classify("ntk")
        >>> k.stable, k.nontrivial, k.feature_learning, str(k.r)
        (True, True, False, '1/2')
        >>> print(classify(ABC(a=[0, 0, 0], b=[0, 0.5, 0.5], c=0)))
        ABC(a=[0, 0, 0], b=[0, 1/2, 1/2], c=0), up to shifts a + t, b - t, c - 2 t
        not stable:
          a step moves the features of layer 2 by n^1 (r = -1 < 0)
          a step of layer 3 moves the output by n^1 (2 a + c < 1)
          the features' motion moves the output by n^3/2 (a + b + r = -1/2 < 1)

    Source: Yang and Hu, Tensor Programs IV (arXiv:2011.14522), theorem 3.8 and corollary 3.9.
    """
    if isinstance(parametrization, str) and parametrization == "mean_field":
        hidden_layers = 1
    whole = isinstance(hidden_layers, (int, np.integer)) and not isinstance(hidden_layers, bool)
    if not whole or hidden_layers < 1:
        raise TensorProgramError(f"hidden_layers={hidden_layers!r}", fix="give a number of layers, 1 or more")
    abc = parametrization if isinstance(parametrization, ABC) else named(parametrization, hidden_layers)
    reasons = tuple(abc.blow_ups())
    out, learns = abc.a[-1] + abc.b[-1], 2 * abc.a[-1] + abc.c
    maximal = [i for i, r in enumerate(abc.rates, 1) if r == 0] + [len(abc.a)] * (learns == 1)
    stable = not reasons
    return Classification(
        abc,
        stable,
        (learns == 1 or out + abc.r == 1) if stable else None,
        abc.r == 0 if stable else None,
        abc.r,
        abc.rates,
        tuple(maximal),
        reasons,
    )
