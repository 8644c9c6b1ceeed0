"""Scalar programs as numbers, with errors.

A scalar program is evaluated several times: at two resolutions of its integrals (the difference bounds what quadrature
adds, correlated or not; series whose error is known are moved by it instead), with every instruction's result moved by
a few units in the last place (how far the answer moves is what rounding adds, cancellation included; stochastic
arithmetic, Vignes 1978), and, where it samples, with independent replicates.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorprog.arrays.plan import Step, schedule
from tensorprog.estimate import DEVIATIONS
from tensorprog.language.functions import NORMAL
from tensorprog.language.node import Node, topological
from tensorprog.limits.budget import Budget
from tensorprog.limits.evaluate.alike import Alike
from tensorprog.limits.evaluate.perturb import Perturbation
from tensorprog.limits.evaluate.settle import settled_by
from tensorprog.limits.evaluate.tiles import LARGE, Tiles, stages
from tensorprog.limits.evaluate.wide import Wide, out_of_range, run_wide, stated
from tensorprog.limits.gauss.duals import DUALS
from tensorprog.limits.gauss.integrand import MAX_QUADRATURE, POINTS, Integrand
from tensorprog.limits.gauss.nested import Indefinite
from tensorprog.limits.gauss.pairseries import SAFETY, PairProduct
from tensorprog.limits.gauss.rounding import NOISE
from tensorprog.limits.simplify.passes import simplified
from tensorprog.limits.tasks import Exhausted

if TYPE_CHECKING:
    from tensorprog.limits.gauss.sampling import Sampler

__all__ = ["ScalarProgram", "one_sampling_cost", "sampling_cost", "student"]

Array = np.ndarray

PERTURBED_RUNS = 8
"""Of programs without integrals; those with integrals get 3, large kernels 1."""
SAMPLED_REPLICATES = 16
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
LINES = 2**11
"""So many integrals at once in one variable have error bounds; more of them are compared at two resolutions."""
PLANES = 16
"""The same in two variables, where the integrand is rough inside or two resolutions do not agree."""
SHARP = 1e-13
"""Relative difference of two resolutions up to which nested rules are trusted."""
PAIRS_FROM = 8
"""Products of one function of each of two variables go to the series rule from this many entries."""


def student(degrees: int, probability: float = 0.6826894921370859) -> float:
    """Half-width of the t interval that covers like one standard deviation, over the standard error."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.5 + probability / 2))


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
        self.rough = False  # covariances have the rounding of float32
        self.compared = False  # errors of analytic integrands are found by comparing with bounds elsewhere
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
        self.coming: float | None = None  # evaluations that those at the coarse resolution announce
        self.magnitudes: dict[Node, Array] = {}
        self.samplers: dict[Node, Sampler] = {}
        self.products: dict[Node, PairProduct | None] = {}
        #: Integrals in few variables, few of them; those whose inner and outer integrals are to have bounds.
        self._few = {
            x for x in self.integrals if 2 <= x.attr.dimension <= MAX_QUADRATURE and math.prod(x.shape) <= PLANES
        }
        self.planar = {x for x in self._few if x.attr.curved}
        bounded = {x for x in self.planar if x.attr.dimension == 2}
        self.sampled = {x for x in self.integrals - bounded if not x.attr.by_quadrature}
        self.sampled_below = _downstream(self.floating, self.sampled)
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
        if x not in self.sampled:
            args = list(self.alike.operands(x, args, values, recorded, perturb is not None))
        if x.op == "guard":
            value, integrated = settled_by(x, args, lambda y, arrays: self._integral(y, arrays, level, replicate))
            if integrated:
                self.opened.add(x)
            return value
        small: list[str] = []

        def strain(kind: str, _: int) -> None:
            small.append(kind) if kind == "underflow" else self._strain()

        with np.errstate(call=strain):
            value = np.asarray(self._integral(x, args, level, replicate, noise=0 if noise is None else noise + 1))
        if small and np.any(np.abs(value) < NORMAL):  # the tails of every weight are small
            self._strain()
        if perturb is not None:  # an integral that cancels has the rounding of what cancels
            size = self._magnitude(x, args)
            value = value + (perturb.result(x, size) - size)
        return value

    def _product(self, x: Node) -> PairProduct | None:
        """The integrand as a product of one function of each of two variables, if it is one."""
        if x not in self.products:
            self.products[x] = PairProduct.of(x.attr)
        return self.products[x]

    def _sampler(self, x: Node, key: int) -> Sampler:
        from tensorprog.limits.gauss.sampling import Sampler

        if x not in self.samplers:
            self.samplers[x] = Sampler(x.attr, [self.rng, key], self.points)
        return self.samplers[x]

    def _magnitude(self, x: Node, args: Sequence[Array]) -> Array:
        """E |f| of an integral E f, roughly; the integral itself is enough for large batches and sampled ones."""
        if x not in self.magnitudes:
            size = int(np.prod(np.broadcast_shapes(*[a.shape for a in args])))
            small = x not in self.sampled and size < PAIRS_FROM
            self.magnitudes[x] = np.abs(self._integral(x, args, 0, 0, absolute=True)) if small else np.zeros(())
        return self.magnitudes[x]

    def _integral(
        self, x: Node, args: Sequence[Array], level: int, replicate: int, absolute: bool = False, noise: int = 0
    ) -> Array:
        integrand: Integrand = x.attr
        d = integrand.dimension
        product = None if absolute or x in self.sampled else self._product(x)
        if product is not None and math.prod(x.shape) >= PAIRS_FROM:
            known = product.outer(args, level)
            if known is not None:
                return known

        what = f"an integral in {d} variable{'s' * (d > 1)}"

        def evaluated(points: int) -> None:
            self.budget.evaluate(points, what)

        def foreseen(points: float) -> None:
            self.budget.foresee(points, what)

        values: Callable[..., Any] = integrand
        if noise and integrand.conditional:
            values = integrand.moved(np.random.default_rng([self.rng, noise]))

        def f(z: Sequence[Any], p: Sequence[Any]) -> Any:
            points = math.prod(np.broadcast_shapes(*[np.shape(a) for a in (*z, *p)]))
            evaluated(points)
            if self.coming is not None:
                self.coming += points * self._repeated(x)
                self.budget.foresee(self.coming, what)
            return np.abs(integrand(z, p)) if absolute else values(z, p)

        shape = np.broadcast_shapes(*[a.shape for a in args])
        flat = [
            np.broadcast_to(a, shape).reshape(-1).astype(float, copy=False) for a in args
        ]  # of float32 kernels, too
        if integrand.exchange is not None:  # one integral for (u, v) and (v, u)
            flat = _in_order(flat, integrand.exchange)
        unique, back = _distinct(flat)
        means, triangle, params = unique[:d], unique[d : d + d * (d + 1) // 2], unique[d + d * (d + 1) // 2 :]
        size = len(unique[0])
        mean = np.stack(means, -1)
        cov = np.empty((size, d, d))
        k = 0
        for i in range(d):
            for j in range(i + 1):
                cov[:, i, j] = cov[:, j, i] = triangle[k]
                k += 1
        if self.rough or any(a in self.sampled_below for a in x.args):
            cov = _semidefinite(cov)
        value, left = np.empty(size), np.ones(size, dtype=bool)
        ranks = 2 if x in self.planar else 1 if d <= MAX_QUADRATURE and size <= LINES else -1
        compared = self.compared and d == 1 and integrand.bounded.analytic
        if ranks > 0 and not compared and not integrand.conditional and not (d == 1 and x in self.sampled):
            value, done = integrand.bounded(mean, cov, params, ranks, level, noise, absolute, evaluated)
            left = ~(done & np.isfinite(value))  # bounds overflow before exp(-z) step(z) does
        if left.any() and x in self.sampled:
            key = int.from_bytes(hashlib.blake2b(x.digest, digest_size=8).digest(), "little")
            rng = np.random.default_rng([self.rng, replicate, key])
            value = np.where(left, self._sampler(x, key).expectation(f, mean, cov, params, rng, back), value)
        elif left.any():
            mean, cov, params = mean[left], cov[left], [p[left] for p in params]
            if product is not None and len(mean) >= PAIRS_FROM:
                value[left] = product.listed(mean, cov, level)
            else:
                value[left] = self._nested(integrand, f, mean, cov, params, level, evaluated, foreseen)
        return np.asarray(value)[back].reshape(shape)

    def _nested(
        self,
        integrand: Integrand,
        f: Any,
        mean: Array,
        cov: Array,
        params: Sequence[Array],
        level: int,
        count: Callable[[int], None],
        foresee: Callable[[float], None],
    ) -> Array:
        from tensorprog.limits.gauss.integrate import Curve, Feature, gaussian_expectation

        level += integrand.oblique  # no place to refine at: both resolutions finer
        curves = [Curve(*c) for c in integrand.curves or ()]
        deviations = np.sqrt(np.maximum(np.diagonal(cov, axis1=1, axis2=2), 0))
        if not any(turn.parametric for turn in integrand.turns):
            features = [Feature(*at) for at in integrand.located(mean, deviations, [])]
            return gaussian_expectation(f, mean, cov, params, features, level, curves, count, foresee)
        value = np.empty(len(mean))
        for k in range(len(mean)):  # at other places in every row
            row, mine = slice(k, k + 1), [p[k : k + 1] for p in params]
            features = [Feature(*at) for at in integrand.located(mean[row], deviations[row], [p[0] for p in mine])]
            value[k] = gaussian_expectation(f, mean[row], cov[row], mine, features, level, curves, count, foresee)[0]
        return value

    def values(self) -> dict[Node, Array]:
        """Values of the outputs at least, evaluated once, where floats end if need be."""
        found = self.run()
        if self.strained and not self.sampled and not self.wide:
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
        if self.strained and not self.sampled:
            self.wide = True
            found = self._estimates()
        return found

    def _estimates(self) -> list[tuple[Any, Any, str, str, str]]:
        answers = {x: _of_constant(x) for x in self.outputs if x.op == "constant"}
        if self.floating:
            if self.refined:
                self.coming = 0.0
                coarse = self.run(level=0)
                self.coming = None
                base = self.run()
            else:
                base = coarse = self.run()
            unresolved = {x for x in self._few - self.planar - self.sampled if not self._close(x, base, coarse, SHARP)}
            if unresolved:  # at two resolutions of nested rules: with bounds instead
                self.planar |= unresolved
                base, coarse = self.run(), self.run(level=0)
            if self.opened:  # found on the way
                self.refined |= self.opened
                coarse = self.run(level=0) if coarse is base else coarse
            self.integrated_below = _downstream(self.floating, self.refined)
            rough = {
                x
                for x in self.integrals - self.sampled
                if (x.attr.oblique or x.attr.dimension == 1 or x in self.planar)
                and not self._close(x, base, coarse, RESOLVED)
            }
            if rough:  # turns along curves that the quadrature does not resolve
                self.sampled |= rough
                self.planar -= rough
                self.sampled_below = _downstream(self.floating, self.sampled)
                base, coarse = self.run(), self.run(level=0)
            runs = self._perturbed_runs()
            rows = self._telling_rows(base) if self.large and self.tiles_are_last and not self.wide else None
            moved = []
            for i in range(runs):
                found = self.run(noise=i, rows=rows)
                moved.append({x: found[x] for x in self.floating})  # the rest may be large
            replicates = [base]
            if self.sampled_below:
                known = {x: v for x, v in base.items() if x not in self.sampled_below}
                replicates += [self.run(replicate=i, known=known) for i in range(1, SAMPLED_REPLICATES)]
            missed = None
            doubts = {x: s.missed for x, s in self.samplers.items() if s.missed.any()}
            if doubts:  # what was never hit, or too rarely for the replicates' spread, may be as large as this
                known = {x: v for x, v in base.items() if x not in self.sampled_below}
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
        if x not in self.sampled_below:
            return ""
        below = [y for y in topological([x]) if y in self.sampled]
        most = max([y.attr.dimension for y in below])
        text = f"{SAMPLED_REPLICATES} replicates of {self.points} points: integrals in up to {most} variables have no closed form"
        tilted = any(self.samplers[y].tilted for y in below if y in self.samplers)
        return text + ("; samples are drawn where the integrand is large" if tilted else "")

    def _close(self, x: Node, a: dict[Node, Array], b: dict[Node, Array], share: float) -> bool:
        """Do two resolutions agree as they do when the integrand is resolved?"""
        with np.errstate(all="ignore"):
            size = np.maximum(np.abs(a[x]), np.abs(b[x])).max(initial=0.0)
            apart = np.abs(a[x] - b[x]).max(initial=0.0)
            if apart <= share * size:
                return True
            args = [a[y] for y in x.args]  # the integral may be small because it cancels
            return bool(apart <= share * np.max(self._magnitude(x, args), initial=0.0))

    def _repeated(self, x: Node) -> float:
        """How many evaluations are to come for each one at the coarse resolution."""
        finer = 1 if x in self.sampled else FINER**x.attr.dimension
        runs = 1 + self._perturbed_runs()
        return finer * (runs + SAMPLED_REPLICATES - 1 if x in self.sampled_below else runs)

    def _perturbed_runs(self) -> int:
        if self.large or any(math.prod(x.shape) >= LARGE for x in self.floating):
            return 1
        return 3 if self.refined else PERTURBED_RUNS

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
        if rows is None or np.shape(moved[0][x]) == np.shape(base[x]):
            rounding = 2 * np.max([np.abs(m[x] - base[x]) for m in moved], axis=0) + NOISE * np.abs(value)
        else:  # some rows speak for all: their largest error, for every entry
            worst = max(float(np.abs(m[x] - base[x][rows]).max()) for m in moved)
            rounding = np.broadcast_to(4 * worst + NOISE * float(np.abs(value).max()), x.shape)
        if x in self.sampled_below:
            draws = np.stack([np.broadcast_to(r[x], x.shape) for r in replicates])
            value = draws.mean(0)
            spread = draws.std(0, ddof=1) / math.sqrt(len(draws)) * student(len(draws) - 1)
            error = spread + SAFETY * np.abs(base[x] - coarse[x])
            unseen = np.abs(missed[x] - base[x]) if missed is not None else np.zeros(())
            unhit = any(s.has_missed for y, s in self.samplers.items() if x in _downstream([x], {y}))
            kind = "bound" if unhit else "standard error"
            error = DEVIATIONS * error if unhit else error
            return _plain(value), _plain(np.hypot(error, unseen) + rounding), "quasi-Monte-Carlo", kind
        if x in self.integrated_below:
            error = SAFETY * np.abs(base[x] - coarse[x]) + rounding
            return _plain(value), _plain(np.broadcast_to(error, x.shape)), "quadrature", "bound"
        return _plain(value), _plain(np.broadcast_to(rounding, x.shape)), "closed form", "rounding"


def _semidefinite(cov: Array) -> Array:
    """Covariances that are sampled themselves, in reach of the nearest correlations that are possible.

    Entries that are equal in truth come from different samples: copies of one variable then have a negative eigenvalue of the
    size of the error. What changes is of that size too, and different in every replicate, whose spread is the error stated.
    """
    variance = np.diagonal(cov, axis1=1, axis2=2)
    if (variance < 0).any():  # a variance that is 0 in truth
        positive = variance > 0
        cov = np.where(positive[:, :, None] & positive[:, None, :], cov, 0.0)
    deviation = np.sqrt(np.maximum(variance, 0))
    if not np.isfinite(cov).all():
        return cov
    inverse = np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > 0)
    value, vector = np.linalg.eigh(cov * inverse[:, :, None] * inverse[:, None, :])
    if value.min(initial=0.0) >= -1e-12:
        return cov
    root = vector * np.sqrt(np.maximum(value, 0))[:, None, :] * deviation[:, :, None]
    return np.asarray(root @ root.swapaxes(1, 2))


def _in_order(flat: Sequence[Array], exchange: Sequence[int]) -> list[Array]:
    """Means, covariances (variance, covariance, variance) and parameters, with the variables exchanged where that is sorted.

    Args:
        flat: Arrays of one shape.
        exchange: Which parameter takes the place of each when the variables change places.
    """
    m, n, v, c, w, *params = flat
    other = [n, m, w, c, v, *[params[k] for k in exchange]]
    before, after = np.zeros(len(m), dtype=bool), np.zeros(len(m), dtype=bool)
    for a, b in zip(flat, other, strict=True):
        undecided = ~(before | after)
        before, after = before | (undecided & (a < b)), after | (undecided & (a > b))
    return [np.where(after, b, a) for a, b in zip(flat, other, strict=True)]


def _compute(step: Step) -> Callable[..., Any]:
    if step.compute is not None:
        return step.compute
    if step.node.op == "dual":
        return DUALS[step.node.attr].array
    raise AssertionError(f"no scalar rule for {step.node.op}: please report this")


def _distinct(flat: Sequence[Array]) -> tuple[list[Array], Array]:
    """The distinct entries of several arrays taken together, and where each went."""
    size = len(flat[0])
    if size == 1:
        return list(flat), np.zeros(1, dtype=int)
    # Sorting one hash of every entry is several times faster than sorting entries.
    bits = np.stack(flat, -1).view(np.uint64)
    key = np.zeros(size, dtype=np.uint64)
    for column in bits.T:
        key = (key ^ column) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(29)
    _, first, back = np.unique(key, return_index=True, return_inverse=True)
    order = np.argsort(first)  # as they come: nothing depends on the hash
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    first, back = first[order], rank[back.reshape(-1)]
    if not np.array_equal(bits[first[back]], bits):  # two entries of one hash
        _, first, back = np.unique(bits, axis=0, return_index=True, return_inverse=True)
    return [a[first] for a in flat], back.reshape(-1)


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


def integrate_arrays(
    x: Node,
    args: Sequence[Array],
    level: int,
    rough: bool = False,
    absolute: bool = False,
    compared: bool = False,
    *,
    budget: Budget,
) -> Array:
    """An integral by quadrature, for arrays of means, covariances (up to rounding, if `rough`) and parameters that broadcast.

    Of the integrand's absolute value if `absolute`; without bounds, which are dear, if it is `compared` with them elsewhere.

    Raises:
        Exhausted: It takes more evaluations than the budget has left.
    """
    program = ScalarProgram([], budget=budget)
    program.rough, program.compared = rough, compared
    try:
        return program._integral(x, args, level, 0, absolute)
    except Indefinite:  # the nearest covariance; how wrong that is shows when everything is moved
        program.rough = True
        return program._integral(x, args, level, 0, absolute)
