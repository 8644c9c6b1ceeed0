"""A run of training: its program, which all functions of programs take, and what they need to know of f_0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from tensorprog.errors import NotFinite, TensorProgramError
from tensorprog.estimate import Estimates
from tensorprog.language.given import real_array
from tensorprog.language.program import Program
from tensorprog.networks.network import Network
from tensorprog.networks.samples import Batch
from tensorprog.training.divergence import finite
from tensorprog.training.powers import ABC, HALF, classify
from tensorprog.training.unroll import F0, Recipe, Unrolled

__all__ = ["Trace"]

PAIRED = 2**9
"""Samples of a population whose matrices are arrays, where none are asked for: seconds."""
TRIED = 1 / 6
"""Of the usual budget, what the exact limit of a linear network may cost where a population answers in a second."""


class Trace:
    """A network at every step of its training; made by `tp.sgd`.

    `tp.limit`, `tp.run`, `tp.compare`, `tp.latex`, `tp.save`, .. take it in place of a program. Outputs: `f`
    (steps + 1, examples), `f_test`, `loss` (steps + 1), the mean over the
    examples, and the probes.

    Where training follows a kernel, its outputs depend on f_0, the outputs before the first step, which have a law in the limit
    and no value: `tp.limit(trace, f0=...)` takes "zero" (the default), "draw" (from the law), or an array (training examples,
    then test examples); a run has its network's own, in the output `f0`; and `tp.compare` holds every network against the
    limit that starts at its own. Under weight decay, f_0 are the outputs of the first parameters, shrunk by as much as the
    parameters are at every step: (steps + 1, examples).

    Attributes:
        net: The network.
        abc: Its parametrization.
        learns_features: Do features move in the limit (r = 0)? If not, training follows a kernel.
    """

    options: ClassVar[tuple[str, ...]] = (F0,)
    needs_data = False

    def __init__(self, net: Network, train: Batch, test: Batch | None, recipe: Recipe, abc: ABC) -> None:
        self.net, self.abc, self.recipe = net, abc, recipe
        self._train, self._test = train, test
        self.learns_features = recipe.powers.scale == 0

    @cached_property
    def program(self) -> Program:
        """The run as a program, whose outputs have a limit; f_0 is its hyperparameter "f0" where they depend on it."""
        return self._unrolled(own=False)

    @cached_property
    def own_program(self) -> Program:
        """The same with f_0 what the network computes, for finite widths."""
        return self.program if self.learns_features else self._unrolled(own=True)

    def _unrolled(self, own: bool) -> Program:
        return Unrolled(self.net, self._train, self._test, self.recipe, own).program()

    @property
    def steps(self) -> int:
        """The number of steps."""
        return len(self.recipe.batches)

    def with_recipe(self, recipe: Recipe) -> Trace:
        """The same network and data, trained in another way."""
        return Trace(self.net, self._train, self._test, recipe, self.abc)

    def __repr__(self) -> str:
        if not classify(self.abc).nontrivial:
            what = "no step moves the output in the limit"
        else:
            what = "features are learned" if self.learns_features else "follows a kernel"
        return f"{self.steps} steps of training in {self.abc}: {what}"

    # ---- functions of programs ----
    def as_program(self, *, f0: Any = None, **_: Any) -> Program:
        """Its program; f0="own" for the one of finite widths."""
        return self.own_program if isinstance(f0, str) and f0 == "own" else self.program

    def own_run(
        self, n: int, seeds: int | Sequence[int] = 1, *, values: Mapping[str, Any] | None = None, **options: Any
    ) -> Any:
        """`tp.run`."""
        from tensorprog.execute.executor import run

        _without_f0("run", options)
        return finite(self.own_program, values, lambda program, v: run(program, n, seeds, values=v, **options))

    def own_limit(self, f0: Any = None, *, values: Mapping[str, Any] | None = None, **options: Any) -> Estimates:
        """`tp.limit`."""
        from tensorprog.limits.limit import limit

        options = self._asked(options)
        given = self.given(f0, values, options.get("rng", 0))
        return finite(self.program, given, lambda program, v: limit(program, values=v, **options))

    def _asked(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options of `tp.limit`: what is known to be sampled is not tried."""
        asked = dict(options)
        if asked.get("method", "auto") == "auto" and self.is_sampled:
            asked["method"] = "population"
            if self.pairs_samples and asked.get("tol") is None:
                asked.setdefault("samples", PAIRED)
        return asked

    @cached_property
    def is_sampled(self) -> bool:
        """Is its limit one of populations, known before anything is tried?

        Features that are learned make every vector a function of all gradients before it, as many variables as there are examples
        and steps; where the network is not linear that is beyond quadrature. So is a function of the entries of a matrix.
        """
        nonlinear = any(x.op in ("fn", "softmax") for x in self.program.nodes if x.width is not None)
        learned = self.learns_features and sum(map(len, self.recipe.batches)) > 1
        return (learned and nonlinear) or (self.pairs_samples and self.steps > 1)

    @property
    def pairs_samples(self) -> bool:
        """Is every pair of samples of a population an entry of a matrix, the step a function of them?"""
        optimizer = self.recipe.optimizer
        if optimizer.linear or hasattr(optimizer, "matrix_step"):
            return False
        return any(x.op == "apply" for x in self.program.nodes)

    def own_compare(
        self,
        widths: Sequence[int],
        seeds: int | Sequence[int],
        *,
        values: Mapping[str, Any] | None = None,
        gia: bool = False,
        rng: int = 0,
        weights: str = "auto",
        **options: Any,
    ) -> Any:
        """`tp.compare`; where training follows a kernel, every network is held against the limit that starts at its own f_0."""
        from tensorprog.analysis.anomalies import anomalies
        from tensorprog.analysis.compare import Comparison, compare
        from tensorprog.analysis.sweep import sweep
        from tensorprog.execute.executor import check_seeds
        from tensorprog.training.starts import limits_from

        _without_f0("compare", options)
        if self.learns_features or "against" in options:
            options.setdefault("against", self.own_limit(values=values, gia=gia, rng=rng))
            how: dict[str, Any] = {"values": values, "gia": gia, "weights": weights}
            try:
                return compare(self.own_program, widths, seeds, rng=rng, **how, **options)
            except NotFinite:
                for n in widths:
                    self.own_run(n, seeds, **how)
                raise
        numbers = check_seeds(seeds)
        rows = finite(
            self.own_program,
            values,
            lambda program, v: sweep(program, widths, numbers, weights=weights, values=v, gia=gia, **options),
        )
        known = anomalies(self.own_program, n=min(widths), values=values, gia=gia, weights=weights)
        runs = [(n, seed) for n in widths for seed in numbers]
        limits = limits_from(self.program, F0, [rows[run][F0] for run in runs], values, gia, rng, self._asked({}))
        reference = self.own_limit(values=values, gia=gia, rng=rng)
        moved = {}
        for run, there in zip(runs, limits, strict=True):  # as if all had started at 0: only the differences count
            moved[run] = {
                name: rows[run][name] - there[name] + np.asarray(e.value, float) for name, e in reference.items()
            }
        samples = {
            n: {name: np.stack([moved[n, seed][name] for seed in numbers]) for name in reference} for n in widths
        }
        return Comparison.of(samples, reference, seeds=numbers, known=known)

    def given(self, f0: Any, values: Mapping[str, Any] | None = None, rng: Any = 0) -> dict[str, Any] | None:
        """The hyperparameters' values, f_0 among them."""
        found = dict(values or {})
        if f0 is None or (isinstance(f0, str) and f0 == "zero"):
            return found or None
        if self.learns_features:
            raise TensorProgramError(
                f"f0={f0!r}"[:60] + " of a run that learns features", why="its outputs before the first step tend to 0",
                fix='leave it out, or use parametrization="ntk"',
            )  # fmt: skip
        shape = self.program.scalar_shapes[F0]
        if isinstance(f0, str):
            if f0 != "draw":
                raise TensorProgramError(f"f0={f0!r}", fix='use "zero", "draw" or an array')
            found[F0] = self._drawn(shape, values, rng)
            return found
        a = real_array(f0, "f0", "give one number for each output")
        decays = self.recipe.decay or self.recipe.coupled
        of = " of the first parameters, shrunk by weight decay as at every step," if decays else ""
        if a.shape != shape:
            raise TensorProgramError(
                f"f0 of shape {a.shape}", why=f"the outputs{of} have shape {shape}: training examples, then test examples",
                fix="give one number for each output",
            )  # fmt: skip
        found[F0] = a
        return found

    def _drawn(self, shape: tuple[int, ...], values: Mapping[str, Any] | None, rng: Any) -> np.ndarray:
        """A draw of f_0 from its law, the NNGP."""
        from tensorprog.training.prior import covariance

        powers = self.recipe.powers
        if powers.output + powers.initial > HALF:
            return np.zeros(shape)
        unrolled = Unrolled(self.net, self._train, self._test, self.recipe, own=False)
        unrolled.program()
        firsts = list(zip(unrolled.firsts, unrolled.left, strict=True))[: None if unrolled.decays else 1]
        batches = [b for b in (self._train, self._test) if b is not None]
        w, v = np.linalg.eigh(covariance(self.net, batches, firsts, values, rng))
        z = np.random.default_rng(rng).standard_normal(len(w))
        return np.asarray((v * np.sqrt(np.maximum(w, 0))) @ z).reshape(shape)


def _without_f0(function: str, options: Mapping[str, Any]) -> None:
    if F0 in options:
        raise TensorProgramError(
            f"{function} of a run of training is given f0=", why="a network has its own outputs before the first step",
            fix="leave it out: f0= is an option of tp.limit",
        )  # fmt: skip
