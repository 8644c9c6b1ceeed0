"""Scalar programs as numbers, with errors.

A scalar program is evaluated several times: at two resolutions of its integrals (the difference bounds what quadrature
adds, correlated or not; series whose error is known are moved by it instead), with every instruction's result moved by
a few units in the last place (how far the answer moves is what rounding adds, cancellation included; stochastic
arithmetic, Vignes 1978), and, where it samples, with independent replicates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorprog.arrays.plan import Step, schedule
from tensorprog.language.functions import NORMAL
from tensorprog.language.node import Node, topological
from tensorprog.limits.budget import Budget
from tensorprog.limits.evaluate.alike import Alike
from tensorprog.limits.evaluate.errors import (
    PERTURBED_RUNS,
    REFINED_RUNS,
    SAMPLED_REPLICATES,
    of_resolution,
    of_rounding,
    of_samples,
)
from tensorprog.limits.evaluate.integrals import PLANES, Integrals
from tensorprog.limits.evaluate.perturb import Perturbation
from tensorprog.limits.evaluate.settle import settled_by
from tensorprog.limits.evaluate.tiles import LARGE, Tiles, stages
from tensorprog.limits.evaluate.wide import Wide, out_of_range, run_wide, stated
from tensorprog.limits.gauss.duals import DUALS
from tensorprog.limits.gauss.integrand import MAX_QUADRATURE, POINTS
from tensorprog.limits.gauss.rounding import NOISE
from tensorprog.limits.simplify.passes import simplified
from tensorprog.limits.tasks import Exhausted

if TYPE_CHECKING:
    pass

__all__ = ["ScalarProgram", "one_sampling_cost", "sampling_cost"]

Array = np.ndarray

FINER = 1.9
"""How many times as many nodes for each variable the fine resolution has, about."""
RESOLVED = 1e-5
"""Relative difference of two resolutions up to which a smooth integrand counts as resolved."""
HELD = 16
"""Arrays of the largest size that are in memory together where there are integrals over inverse powers, as measured."""
MEMORY = 4e9
"""Bytes they may take."""
SAMPLED_ROWS = 16
"""Rounding errors of tiled arrays are measured on this many rows."""
SHARP = 1e-13
"""Relative difference of two resolutions up to which nested rules are trusted."""


def sampling_cost(x: Node, points: int) -> float:
    """Numbers computed for the sampled integrals of a scalar: nodes of their integrands, at all points of all replicates."""
    return SAMPLED_REPLICATES * sum([one_sampling_cost(y, points) for y in topological([x])])


def one_sampling_cost(x: Node, points: int) -> float:
    """The same of one instruction in one replicate: 0 for all but sampled integrals."""
    if x.op != "gauss" or x.attr.by_quadrature:
        return 0.0
    return float(math.prod(x.shape)) * len(topological([x.attr.body])) * points


class ScalarProgram:
    """Scalars (constants, arithmetic, closed forms, integrals) ready to be evaluated.

    Args:
        outputs: The scalars wanted.
        rng: Seeds what is sampled.
        points: Points of one replicate of a sampled integral.
        budget: Evaluations of integrands are counted there.
        alike: What is known of variables that are the same; their numbers by default.
    """

    def __init__(
        self,
        outputs: Sequence[Node],
        rng: int = 0,
        points: int = POINTS,
        budget: Budget | None = None,
        alike: Alike | None = None,
    ) -> None:
        self.alike = alike or Alike(close=False)
        self.budget = budget or Budget()
        self.outputs = simplified(outputs)
        self.floating = [x for x in self.outputs if x.op != "constant"]
        self.rng, self.points = rng, points
        self.by = Integrals(rng, points, self.budget)
        self.by.repeated = self._repeated
        self.steps: list[Step] = schedule(self.floating, moments=False)
        nodes = [step.node for step in self.steps]
        by_node = {step.node: step for step in self.steps}
        inside: dict[Node, tuple[int, tuple[int, ...]]] = {}
        order = stages(nodes, lambda x: by_node[x].operands)
        for i, (_, groups) in enumerate(order):
            inside |= {x: (i, x.shape) for group in groups for x in group}
        wanted = set(self.floating)
        for step in self.steps:
            wanted |= {a for a in step.operands if a in inside and inside.get(step.node) != inside[a]}
        self.stages = [
            ([by_node[x] for x in single], [Tiles(g, wanted, lambda x: _compute(by_node[x])) for g in groups])
            for single, groups in order
        ]
        self.large = bool(inside)
        self.tiles_are_last = len({t.shape for _, groups in self.stages for t in groups}) == 1 and not any(
            a in inside for step in self.steps if step.node not in inside for a in step.operands
        )
        self.integrals = {x for x in nodes if x.op == "gauss"}
        #: Integrals in few variables, few of them; those whose inner and outer integrals are to have bounds.
        self._few = {
            x for x in self.integrals if 2 <= x.attr.dimension <= MAX_QUADRATURE and math.prod(x.shape) <= PLANES
        }
        self.by.planar = {x for x in self._few if x.attr.curved}
        bounded = {x for x in self.by.planar if x.attr.dimension == 2}
        self.by.sampled = {x for x in self.integrals - bounded if not x.attr.by_quadrature}
        self.by.uncertain = _downstream(self.floating, self.by.sampled)
        self.refined = self.integrals | {x for x in nodes if x.op == "laplace"}
        self.opened: set[Node] = set()  # guarded closed forms that had to be integrated
        self.strained = False  # have numbers left the range of floats?
        self.wide = False  # evaluated by `wide.py`, since they have
        self.outside: dict[Node, Wide] = {}  # outputs as they are then

    # ---- one evaluation ----
    def run(
        self,
        level: int = 1,
        replicate: int = 0,
        noise: int | None = None,
        known: dict[Node, Array] | None = None,
        rows: np.ndarray | None = None,
    ) -> dict[Node, Array]:
        """Values of all nodes but those inside tiles.

        Args:
            level: Resolution of the integrals.
            replicate: Which sample, for sampled integrals.
            noise: Perturb every instruction, with this seed.
            known: Values that need not be computed again.
            rows: Compute only these rows of tiled arrays.
        """
        values: dict[Node, Array] = dict(known or {})
        recorded = noise is None and not known and rows is None
        perturb = None if noise is None else Perturbation([self.rng, noise])
        if self.wide:
            with np.errstate(all="ignore"):  # what is not finite is looked at in the end
                values, wide = run_wide(self, level, noise)
            self.outside = wide if noise is None else self.outside
            return values
        with np.errstate(over="call", under="call", divide="ignore", invalid="ignore", call=self._strain):
            for single, groups in self.stages:
                for step in single:
                    x = step.node
                    if x in values:
                        continue
                    args = [values[a] for a in step.operands]
                    if x.op in ("gauss", "guard", "laplace"):
                        value = self.carried_out(x, args, values, level, replicate, noise, perturb, recorded)
                    else:
                        given = args if perturb is None else perturb.operands(x, args)
                        given = self.alike.operands(x, given, values, recorded, perturb is not None)
                        value = np.asarray(_compute(step)(*given))
                        if x.op == "dual" and x.attr == "residual":
                            value = self.alike.left(x, given, value, values, recorded)
                    values[x] = value if perturb is None else perturb.result(x, value)
                for tiles in groups:
                    values |= tiles.run(values, perturb, rows, self._strain)
        return values

    def _strain(self, *_: Any) -> None:
        """Called where a number leaves the range of floats, in arithmetic and closed forms."""
        self.strained = True

    def carried_out(
        self,
        x: Node,
        args: Sequence[Array],
        values: Mapping[Node, Array],
        level: int,
        replicate: int,
        noise: int | None,
        perturb: Perturbation | None,
        recorded: bool,
    ) -> Array:
        """The values of an integral, a guarded closed form, or a part of a tilted law.

        Args:
            x: The instruction.
            args: Arrays of its operands.
            values: Of all before it.
            level: Resolution of integrals.
            replicate: Which sample.
            noise: The seed of what is moved, inside integrands too.
            perturb: What moves results.
            recorded: Is this evaluation the one to look at for variables that are the same?
        """
        if x.op == "laplace":
            return np.asarray(x.attr(args, level))
        if x not in self.by.sampled:
            args = list(self.alike.operands(x, args, values, recorded, perturb is not None))
        if x.op == "guard":
            value, integrated = settled_by(x, args, lambda y, arrays: self.by.value(y, arrays, level, replicate))
            if integrated:
                self.opened.add(x)
            return value
        small: list[str] = []

        def strain(kind: str, _: int) -> None:
            small.append(kind) if kind == "underflow" else self._strain()

        with np.errstate(call=strain):
            value = np.asarray(self.by.value(x, args, level, replicate, noise=0 if noise is None else noise + 1))
        if small and np.any(np.abs(value) < NORMAL):  # the tails of every weight are small
            self._strain()
        if perturb is not None:  # an integral that cancels has the rounding of what cancels
            size = self.by.magnitude(x, args)
            value = value + (perturb.result(x, size) - size)
        return value

    def values(self) -> dict[Node, Array]:
        """Values of the outputs at least, evaluated once, where floats end if need be."""
        found = self.run()
        if self.strained and not self.by.sampled and not self.wide:
            self.wide = True
            found = self.run()
        return found

    # ---- with errors ----
    def _check_memory(self) -> None:
        """Refuses arrays over pairs of pairs of examples and the nodes of an integral that would not fit.

        Raises:
            Exhausted: they need more than the budget allows.
        """
        if not any(step.node.op == "laplace" for step in self.steps):
            return
        sizes = [
            math.prod(step.node.shape) for step in self.steps if step.node.op in ("add", "mul", "fn", "dual", "sum")
        ]
        need, allowed = 8 * HELD * max(sizes, default=0), MEMORY * self.budget.factor
        if need > allowed:
            raise Exhausted(
                f"its arrays take about {need / 1e9:.1f} GB of memory, more than {allowed / 1e9:.1f} GB (budget= allows more)"
            )

    def estimates(self) -> list[tuple[Any, Any, str, str, str]]:
        """(value, error, method, kind, note) of every output."""
        self._check_memory()
        found = self._estimates()
        if self.strained and not self.by.sampled:
            self.wide = True
            found = self._estimates()
        return found

    def _estimates(self) -> list[tuple[Any, Any, str, str, str]]:
        answers = {x: _of_constant(x) for x in self.outputs if x.op == "constant"}
        if self.floating:
            if self.refined:
                self.by.coming = 0.0
                coarse = self.run(level=0)
                self.by.coming = None
                base = self.run()
            else:
                base = coarse = self.run()
            unresolved = {
                x for x in self._few - self.by.planar - self.by.sampled if not self._close(x, base, coarse, SHARP)
            }
            if unresolved:  # at two resolutions of nested rules: with bounds instead
                self.by.planar |= unresolved
                base, coarse = self.run(), self.run(level=0)
            if self.opened:  # found on the way
                self.refined |= self.opened
                coarse = self.run(level=0) if coarse is base else coarse
            self.integrated_below = _downstream(self.floating, self.refined)
            rough = {
                x
                for x in self.integrals - self.by.sampled
                if (x.attr.oblique or x.attr.dimension == 1 or x in self.by.planar)
                and not self._close(x, base, coarse, RESOLVED)
            }
            if rough:  # turns along curves that the quadrature does not resolve
                self.by.sampled |= rough
                self.by.planar -= rough
                self.by.uncertain = _downstream(self.floating, self.by.sampled)
                base, coarse = self.run(), self.run(level=0)
            runs = self._perturbed_runs()
            rows = self._telling_rows(base) if self.large and self.tiles_are_last and not self.wide else None
            moved = []
            for i in range(runs):
                found = self.run(noise=i, rows=rows)
                moved.append({x: found[x] for x in self.floating})  # the rest may be large
            replicates = [base]
            if self.by.uncertain:
                known = {x: v for x, v in base.items() if x not in self.by.uncertain}
                replicates += [self.run(replicate=i, known=known) for i in range(1, SAMPLED_REPLICATES)]
            missed = None
            doubts = {x: s.missed for x, s in self.by.samplers.items() if s.missed.any()}
            if doubts:  # what was never hit, or too rarely for the replicates' spread, may be as large as this
                known = {x: v for x, v in base.items() if x not in self.by.uncertain}
                known |= {x: base[x] + np.reshape(d, np.shape(base[x])) for x, d in doubts.items()}
                missed = self.run(known=known)
            for x in self.floating:
                with np.errstate(all="ignore"):
                    answers[x] = self._judge(x, base, coarse, moved, replicates, rows, missed)
                    if x in self.outside:
                        answers[x] = stated(answers[x], self.outside[x])
        return [(*answers[x], self._note(x)) for x in self.outputs]

    def _note(self, x: Node) -> str:
        """Why and how an output is sampled; how large it is, where that is no float."""
        if x in self.outside:
            return out_of_range(self.outside[x])
        if x not in self.by.uncertain:
            return ""
        below = [y for y in topological([x]) if y in self.by.sampled]
        most = max([y.attr.dimension for y in below])
        text = f"{SAMPLED_REPLICATES} replicates of {self.points} points: integrals in up to {most} variables have no closed form"
        tilted = any(self.by.samplers[y].tilted for y in below if y in self.by.samplers)
        return text + ("; samples are drawn where the integrand is large" if tilted else "")

    def _close(self, x: Node, a: dict[Node, Array], b: dict[Node, Array], share: float) -> bool:
        """Do two resolutions agree as they do when the integrand is resolved?"""
        with np.errstate(all="ignore"):
            size = np.maximum(np.abs(a[x]), np.abs(b[x])).max(initial=0.0)
            apart = np.abs(a[x] - b[x]).max(initial=0.0)
            if apart <= share * size:
                return True
            args = [a[y] for y in x.args]  # the integral may be small because it cancels
            return bool(apart <= share * np.max(self.by.magnitude(x, args), initial=0.0))

    def _repeated(self, x: Node) -> float:
        """How many evaluations are to come for each one at the coarse resolution."""
        finer = 1 if x in self.by.sampled else FINER**x.attr.dimension
        runs = 1 + self._perturbed_runs()
        return finer * (runs + SAMPLED_REPLICATES - 1 if x in self.by.uncertain else runs)

    def _perturbed_runs(self) -> int:
        if self.large or any(math.prod(x.shape) >= LARGE for x in self.floating):
            return 1
        return REFINED_RUNS if self.refined else PERTURBED_RUNS

    def _telling_rows(self, base: dict[Node, Array]) -> np.ndarray:
        """Rows of the tiled outputs to measure rounding on: some all over, and those of the largest operands and values."""
        tiles = [t for _, groups in self.stages for t in groups]
        rows = tiles[0].shape[0]
        chosen = [np.linspace(0, rows - 1, SAMPLED_ROWS).astype(int)]
        for t in tiles:
            for x in (*t.inputs, *t.wanted):
                a = np.abs(np.asarray(base[x]))
                if a.ndim and a.shape[0] == rows:
                    chosen.append(np.argsort(a.reshape(rows, -1).max(1))[-2:])
        return np.unique(np.concatenate(chosen))

    def _judge(
        self,
        x: Node,
        base: dict[Node, Array],
        coarse: dict[Node, Array],
        moved: list[dict[Node, Array]],
        replicates: list[dict[Node, Array]],
        rows: np.ndarray | None,
        missed: dict[Node, Array] | None,
    ) -> tuple[Any, Any, str, str]:
        value = np.broadcast_to(base[x], x.shape)
        some = rows if np.shape(moved[0][x]) != np.shape(base[x]) else None
        error = of_rounding(base[x], [m[x] for m in moved], x.shape, some)
        method, kind = "closed form", "rounding"
        if x in self.by.uncertain:
            unhit = any(s.has_missed for y, s in self.by.samplers.items() if x in _downstream([x], {y}))
            unseen = np.abs(missed[x] - base[x]) if missed is not None else np.zeros(())
            draws = np.stack([np.broadcast_to(r[x], x.shape) for r in replicates])
            value, spread = of_samples(draws, of_resolution(base[x], coarse[x]), unseen, unhit)
            error, method, kind = spread + error, "quasi-Monte-Carlo", "bound" if unhit else "standard error"
        elif x in self.integrated_below:
            error, method, kind = of_resolution(base[x], coarse[x]) + error, "quadrature", "bound"
        return _plain(value), _plain(np.broadcast_to(error, x.shape)), method, kind


def _compute(step: Step) -> Callable[..., Any]:
    if step.compute is not None:
        return step.compute
    if step.node.op == "dual":
        return DUALS[step.node.attr].array
    raise AssertionError(f"no scalar rule for {step.node.op}: please report this")


def _downstream(outputs: Sequence[Node], sources: set[Node]) -> set[Node]:
    reached: set[Node] = set()
    if sources:
        for x in topological(outputs):
            if x in sources or any(a in reached for a in x.args):
                reached.add(x)
    return reached


def _of_constant(x: Node) -> tuple[Any, Any, str, str]:
    from tensorprog.language.symbols import is_exact, number

    if is_exact(x.attr):
        if not x.shape:
            return number(x.attr), 0, "exact", "exact"
        if isinstance(x.attr, np.ndarray) and x.attr.dtype.kind == "i":
            return np.array(np.broadcast_to(x.attr, x.shape)), np.zeros(x.shape), "exact", "exact"
        value = np.array(np.broadcast_to(np.asarray(x.attr, dtype=object), x.shape))
        if all(isinstance(v, (int, np.integer)) for v in value.ravel()):
            value = value.astype(np.int64) if all(abs(int(v)) < 2**62 for v in value.ravel()) else value
        return value, np.zeros(x.shape), "exact", "exact"
    value = np.array(np.broadcast_to(np.asarray(x.attr, dtype=float), x.shape))
    return _plain(value), _plain(16 * NOISE * np.abs(value)), "closed form", "rounding"


def _plain(value: Any) -> Any:
    return float(value) if np.ndim(value) == 0 else np.asarray(value)
