"""`tp.classify`: what a parametrization does, of an MLP by its exponents, of any network by its program."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from tensorprog.coordinates.inference import NotInferred, inferred
from tensorprog.coordinates.program import ACTIVATION, CHANGE, OUTPUT, UPDATE, Coordinates, key
from tensorprog.coordinates.setup import Setup, exponents, output_exponent, rules_of
from tensorprog.coordinates.verdict import BEYOND, power
from tensorprog.errors import TensorProgramError
from tensorprog.networks.network import Network
from tensorprog.networks.samples import batches
from tensorprog.training.passes import Pass, parameter_kinds
from tensorprog.training.powers import Classification
from tensorprog.training.powers import classify as classify_exponents
from tensorprog.training.sgd import sgd

__all__ = ["NetworkClassification", "classify"]

STEPS = 3
"""A readout at 0 moves first, then all that is behind it, then what meets it."""


@dataclass(frozen=True)
class NetworkClassification:
    """What a parametrization does to a network; `print` says it in words.

    Attributes:
        stable: Are all activations of order one at first (outputs and logits: or less), and bounded in training?
        nontrivial: Does the output change? None where it is not stable.
        feature_learning: Do features? None where it is not stable.
        r: A step moves the features by n^(-r); None where they do not move at all.
        exponents: Layer to what is measured of it ("activation", "change", "update") to the exponents of n of every step.
        reasons: Why it is not stable.
    """

    stable: bool
    nontrivial: bool | None
    feature_learning: bool | None
    r: Fraction | None
    exponents: dict[str, dict[str, list[float]]]
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        if not self.stable:
            head = "\n".join(["not stable:", *[f"  {reason}" for reason in self.reasons]])
        elif not self.nontrivial:
            head = "stable and trivial: no step moves the output in the limit"
        elif self.feature_learning:
            head = "stable and nontrivial; features are learned: r = 0"
        else:
            head = (
                f"stable and nontrivial; features move by {power(-float(self.r or 0))} only: training follows a kernel"
            )
        lines = [head, "exponents of n, at first and after each step:"]
        for layer, found in self.exponents.items():
            cells = [f"{what} {', '.join(map(_short, p))}" for what, p in found.items()]
            lines.append(f"  {layer}: " + "; ".join(cells))
        return "\n".join(lines)

    __repr__ = __str__


def _short(p: float) -> str:
    return "-" if p == -np.inf else "diverges" if p > BEYOND else power(p).removeprefix("n^")


def classify(
    what: Any,
    hidden_layers: int = 2,
    *,
    parametrization: Any = "mup",
    X: Any = None,
    optimizer: Any = None,
) -> Classification | NetworkClassification:
    """Whether training in a parametrization is stable, whether it does anything, and whether it learns features.

    Of exponents alone, this is Tensor Programs IV's classification of MLPs. Of a network, `tp.classify(net,
    parametrization="mup")`, exponents are inferred from the program of its training: recurrent networks, attention, tied
    embeddings, convolutions, and any optimiser.

    The dynamical dichotomy (features are learned, or training follows a kernel, and never both) is a theorem for tanh and smooth
    gelu, and no theorem for linear networks.

    Args:
        what: A `tp.ABC`, or a name: "mup", "ntk", "standard" (rate lr/n), "mean_field"; or a `tp.Network`.
        hidden_layers: For a name: the number of hidden layers.
        parametrization: Of a network: one of these or a `tp.Exponents`.
        X: For a network: data, or its shape; generic by default.
        optimizer: For a network: as for `tp.sgd`.

    Example:
        >>> import tensorprog as tp
        >>> k = classify("ntk")
        >>> k.stable, k.nontrivial, k.feature_learning, str(k.r)
        (True, True, False, '1/2')
        >>> net = tp.Network(tp.readout("v", tp.tanh(tp.dense("U", tp.Input("x"), tp.Width("n")))))
        >>> print(classify(net, parametrization="mup"))
        stable and nontrivial; features are learned: r = 0
        exponents of n, at first and after each step:
          U: activation 0, 0, 0, 0; change -, 0, 0, 0; update -, 0, 0, 0
          v: update -, 0, 0, 0
          f: activation -1/2, 0, 0, 0; change -, 0, 0, 0

    Source: Yang and Hu, Tensor Programs IV (arXiv:2011.14522), theorem 3.8, corollary 3.9, and appendix H.
    """
    if not isinstance(what, Network):
        if X is not None or optimizer is not None or parametrization != "mup":
            raise TensorProgramError(
                "tp.classify of a parametrization is given X, an optimizer or another one",
                fix="give a network first: tp.classify(net, parametrization=..)",
            )
        return classify_exponents(what, hidden_layers)
    if hidden_layers != 2:
        raise TensorProgramError(
            f"tp.classify of a network is given {hidden_layers!r}, too",
            why="that is the number of hidden layers of a name, and a network has its own",
            fix="name what you mean: tp.classify(net, parametrization=..)",
        )
    data = batches(what.inputs, X, what.source)[0]
    whole = Pass(what, data)
    targets = np.resize([1.0, -1.0], whole.theta.shape)
    arrays = data.arrays if len(data.arrays) != 1 else next(iter(data.arrays.values()))
    trace = sgd(what, arrays, targets, steps=STEPS, lr=1, parametrization="mup", optimizer=optimizer)
    kinds, matrices = parameter_kinds(whole)
    rules = rules_of(trace.recipe.optimizer)
    scales = exponents(parametrization).scales(kinds, matrices, rules)
    setup = Setup.of(scales, kinds, rules, output_exponent(scales, kinds, rules))
    run = Coordinates(trace, setup, setup, 1)
    try:
        found = inferred(run)
    except NotInferred as why:
        raise TensorProgramError(f"the classification of a network with {why}", why="there is no rule for its exponents",
                                 fix="measure them: tp.coord_check") from None  # fmt: skip
    return _judged(run, found)


def _judged(run: Coordinates, found: dict[str, list[float]]) -> NetworkClassification:
    """Stable, nontrivial, learning features?"""
    reasons: list[str] = []
    features: list[float] = []
    output: list[float] = []
    table: dict[str, dict[str, list[float]]] = {}
    for layer in run.layers:
        here = {what: found[key(layer, what)] for what in (ACTIVATION, CHANGE, UPDATE) if key(layer, what) in found}
        table[layer.name] = here
        if not layer.nodes:
            continue
        first, change = here[ACTIVATION][0], max(here[CHANGE])
        if first > 0 or (first < 0 and layer.kind in ("input", "hidden")):
            reasons.append(f"{layer.name} {'grows' if first > 0 else 'vanishes'} like {power(first)} at initialization")
        if change > 0:
            how = (
                "without bound"
                if change > BEYOND
                else f"by {power(here[CHANGE][1] if here[CHANGE][1] > 0 else change)}"
            )
            reasons.append(f"training moves {layer.name} {how}")
        (output if layer.kind == OUTPUT else features if layer.kind in ("input", "hidden") else []).append(change)
    stable, moved = not reasons, max(features, default=-np.inf)
    r = None if moved == -np.inf else Fraction(-moved).limit_denominator(1000)
    nontrivial, learning = (max(output) == 0, moved == 0) if stable else (None, None)
    return NetworkClassification(stable, nontrivial, learning, r, table, tuple(reasons))
