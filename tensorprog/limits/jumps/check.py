"""Jumps met exactly: where the limit of a jump is not the jump of the limit.

The Master Theorem asks of a discontinuous function that its argument is at the jump with probability 0 in the limit. A
scalar that tends to the jump breaks this: theta = moment(g z), of independent g and z, tends to 0, and at every width
step(theta h) is 0 or 1, by the sign of a fluctuation of size n^-1/2, where the limit has step(0). What is at the jump *at
every width* (a zero input, relu(x) scaled by something positive) is another matter: step(0) is 1/2 there and here.

The two are told apart by an experiment on the instructions between a jump and the products, scalars and initial vectors
that it is a function of. Their limits are drawn, from far into the tails; where the argument is at the jump, the scalars
are moved by a little, as every finite width moves them, and what vanishes because of a scalar with them. An argument
that leaves the jump has been there in the limit only.

Source: Tensor Programs III (arXiv:2009.10685), appendix E: parameter-controlled functions, and the counterexample sign(x/n).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.language import algebra
from tensorprog.language.describe import describe
from tensorprog.language.functions import PRIMITIVES
from tensorprog.language.node import MOVES, Node, topological
from tensorprog.language.program import Output, Program
from tensorprog.language.symbols import VectorSpec, Width
from tensorprog.limits.budget import Budget
from tensorprog.limits.evaluate.scalar import ScalarProgram, one_sampling_cost
from tensorprog.limits.expect.domain import jumps, ranges
from tensorprog.limits.expect.lower import Lowering
from tensorprog.limits.expect.powers import initial_scalars
from tensorprog.limits.gauss.integrand import POINTS
from tensorprog.limits.gauss.sampling import PILOT, ROUNDS
from tensorprog.limits.jumps.fixed import at_every_width, deviation, standing
from tensorprog.limits.jumps.stand_in import with_generic_data
from tensorprog.limits.tasks import Declined

__all__ = ["Met", "check_jumps", "jumps_met", "suspects"]

Array = np.ndarray
SCALES = (1.0, 6.0, 40.0)
"""Gaussian variables are drawn with these multiples of their deviation: events that are rare are seen too."""
DRAWS = 512
"""Of each scale."""
ENTRIES = 2**21
"""An array holds fewer draws where it has many positions."""
FEWEST = 16
MOVE = 1e-5
"""What finite widths move scalars by, here; more where their limits are known less well."""
ROUND = 64 * float(np.finfo(float).eps)
AGAINST_CHANCE = 16
"""An argument with a density is within 16 times a small distance of the jump 16 times as often."""
HITS = 4
EFFORT = 1 / 16
"""The budget of the scalars' values: roughly known ones do."""
SAMPLED = 2.0**24
"""Numbers computed for integrals by sampling, all scalars together, at most; where to sample costs more than the samples do."""
NEVER_FLAT = frozenset({"elu", *[name for name, row in PRIMITIVES.items() if not row.kinks and not row.jumps]})
"""Functions that are constant on no interval."""
_BOUNDARY = ("vector", "matmul", "outer", "moment", "inverse_sqrt")
_COMMON = Width("draws")


class Met(NamedTuple):
    """What became of the jumps that matter to some outputs.

    Attributes:
        met: Those whose argument tends to the jump, and is not there at finite width.
        unknown: Those of arguments that contain something without an exact limit.
        output: The name of an output that the first one matters to.
    """

    met: tuple[Node, ...]
    unknown: tuple[Node, ...]
    output: str


def check_jumps(program: Program, lowering: Lowering) -> None:
    """Refuses programs with an output that depends on a jump met exactly.

    Raises:
        TensorProgramError: naming the instruction and the user's line.
    """
    found = jumps_met(program, lowering)
    if not found.met:
        return
    x = found.met[0]
    name, argument = x.attr.name, describe(x.args[0])
    if jumps(x):
        raise TensorProgramError(
            f"the limit of output {found.output} is undetermined: {name} of {argument}, whose limit is exactly at the "
            "jump" + ("" if x.is_scalar else ", with positive probability"),
            why="at every finite width it is on one side or the other, by a fluctuation that vanishes; the Master Theorem "
            f"does not cover it, and {name}(0) is not the limit",
            fix="keep the scalars in its argument away from where it jumps, or use a continuous function such as tp.tanh",
            source=x.source,
            label=x.label,
        )
    raise TensorProgramError(
        f"{name} of {argument}, whose limit is {_edge(x):g}",
        why="at finite width it is on one side or the other, where the function has no value, or none that stays bounded",
        fix="add something positive to it, or take the absolute value",
        source=x.source,
        label=x.label,
    )


def suspects(program: Program, values: Mapping[str, Any]) -> list[Node]:
    """The functions whose argument depends on what fluctuates at finite width, and is not one number at every width.

    Jumps; and roots, logarithms and reciprocals of scalars whose sign is not known.
    """
    found = [x for x in program.nodes if jumps(x) or (x.op == "fn" and x.is_scalar and PRIMITIVES[x.attr.name].domain)]
    if not found:
        return []
    if not all(map(jumps, found)):
        known = ranges(program)
        found = [x for x in found if jumps(x) or known[x.args[0]].low < _edge(x) < known[x.args[0]].high]
    fixed = at_every_width(topological(found), values)
    settled = initial_scalars(program.nodes)  # known to the end, jumps and all
    traced: set[Node] = set()
    for x in program.nodes:
        fluctuates = x.op in ("moment", "inverse_sqrt", "outer") and np.isnan(fixed.get(x, np.nan)).any()
        if fluctuates or any(a in traced for a in x.args):
            traced.add(x)
    return [x for x in found if x not in settled and x.args[0] in traced and np.isnan(fixed[x.args[0]]).any()]


def jumps_met(program: Program, lowering: Lowering) -> Met:
    """The jumps that are met exactly, of those that matter to an output."""
    values = lowering.values or {}
    suspected = suspects(program, values)
    live = _reaching(program, lowering, suspected)
    candidates = [x for x in suspected if x in live]
    if not candidates:
        return Met((), (), "")
    experiment = _Experiment(program, lowering, candidates, values)
    met = [x for x in candidates if experiment.meets(x)]
    live = _reaching(program, lowering, met)
    names = [name for name, o in program.outputs.items() if o.node in live]
    names = [name for name in names if _matters(program, lowering, [x for x in met if jumps(x)], name)]
    live = _reaching(Program({name: program.outputs[name] for name in names}), lowering, met) if names else set()
    met = [x for x in met if x in live]
    unknown = tuple([x for x in candidates if x in experiment.unknown])
    return Met(tuple(met), unknown, names[0] if names else "")


def _matters(program: Program, lowering: Lowering, met: Sequence[Node], name: str) -> bool:
    """Has an output another limit if these jumps have other values?

    The gradient of relu(theta h) is an example where it has not: step(theta h) is multiplied by an independent readout, whose
    mean is 0 whatever a step is.
    """
    output = program.outputs[name]
    if not met or output.node not in lowering.z:
        return True
    changed = _changed(output.node, set(met))
    try:
        other = Lowering(Program({name: Output(changed, output.axes)}), lowering.values)
    except TensorProgramError:
        return True
    return other.z.get(changed) != lowering.z[output.node]


def _changed(output: Node, met: set[Node]) -> Node:
    """The output with some other function in place of some jumps, of the same variables: their scalars do not vanish."""
    order = topological([output])
    traced, initial = _traced(order), initial_scalars(order)
    done: dict[Node, Node] = {}

    def moved(x: Node) -> Node:
        if x.width is not None:
            spec = VectorSpec("moved_" + x.digest.hex(), x.width, x.shape)
            return algebra.add([(1, done[x]), (1, algebra.initial(spec))])
        return algebra.add([(1, done[x]), (1, algebra.constant(Fraction(1 + int(8 * _mark(x)), 2), x.shape))])

    for x in order:
        done[x] = algebra.rebuild(x, [done[a] for a in x.args]) if x.args else x
        if x not in met:
            continue
        again: dict[Node, Node] = {}
        for y in topological(x.args, lambda y: () if y.op in _BOUNDARY or y in initial else y.args):
            if y.op in _BOUNDARY or y in initial:
                again[y] = moved(y) if y in traced and y.op != "vector" else done[y]
            else:
                again[y] = algebra.rebuild(y, [again[a] for a in y.args]) if y.args else y
        u = again[x.args[0]]
        shift = algebra.constant(Fraction(1, 3), u.shape, u.width, u.inner)
        done[x] = algebra.fn("tanh", algebra.add([(1, u), (1, shift)]))
    return done[output]


def _edge(x: Node) -> float:
    """Where a function jumps, or where its domain ends."""
    row = PRIMITIVES[x.attr.name]
    return 0.0 if row.domain is None else row.domain[0]


def _reaching(program: Program, lowering: Lowering, starts: Sequence[Node]) -> set[Node]:
    """Nodes on the ways from some functions to the outputs: what is multiplied by something else of limit 0 is on none."""
    tainted = set(starts)
    singular = {x for x in starts if not jumps(x)}
    for x in program.nodes:
        if any(a in tainted for a in x.args):
            if any(a in singular for a in x.args):
                singular.add(x)
            elif x.op == "mul" and any(a not in tainted and a in lowering.z and lowering.z[a].is_zero for a in x.args):
                continue
            tainted.add(x)
    live = {o.node for o in program.outputs.values()} & tainted
    for x in reversed(program.nodes):
        if x in live:
            live |= tainted.intersection(x.args)
    return live


# ---- the experiment ----


class _Experiment:
    """Draws of everything the arguments of some jumps are functions of, in the limit and moved."""

    def __init__(
        self, program: Program, lowering: Lowering, candidates: Sequence[Node], values: Mapping[str, Any]
    ) -> None:
        self.lowering, self.values = lowering, values
        self.initial = initial_scalars(program.nodes)
        self.order = topological([x.args[0] for x in candidates], self._inside)
        self.fixed = at_every_width(topological(self.order), values)
        self.unknown: set[Node] = set()
        hidden: set[Node] = set()
        for x in topological(candidates, self._inside):
            if (x in lowering.declined and self._ends(x)) or any(a in hidden for a in self._inside(x)):
                hidden.add(x)
        self.unknown = hidden & set(candidates)
        entries = max([math.prod(x.shape) for x in self.order], default=1)
        self.draws = min(DRAWS, max(FEWEST, ENTRIES // (entries * len(SCALES))))
        self.traced = _traced(self.order)
        self.known_ranges = ranges(program)
        self._drawn()
        self._runs()

    def _ends(self, x: Node) -> bool:
        """Has it a limit of its own?"""
        return x.op in _BOUNDARY or x in self.initial

    def _inside(self, x: Node) -> tuple[Node, ...]:
        """Down to what has a limit of its own; the bodies of OuterNonlins are gone into."""
        return x.args if x.op == "outer" or not self._ends(x) else ()

    def _drawn(self) -> None:
        """The limits of what is at the boundary."""
        boundary = [x for x in self.order if self._ends(x)]
        limits = {x: self.lowering.z[x] for x in boundary if x in self.lowering.z}
        vectors = topological(limits.values(), lambda y: () if y.width is None else y.args)
        scalars = [y for y in vectors if y.width is None]
        vectors = [y for y in vectors if y.width is not None]
        self.scalars = _numbers(scalars)
        self.samples: dict[Node, list[Array]] = {}
        for x in vectors:
            self.samples[x] = [self._limit(x, k) for k in (0, 1)]
        self.limits: dict[Node, list[Array]] = {}
        for x in boundary:
            if x in limits:
                z = limits[x]
                known = self.scalars if z.width is None else self.samples
                self.limits[x] = [_lifted(v, len(x.shape)) for v in known[z]]
            else:  # what has no limit, or was not needed: some number
                self.limits[x] = [np.full((1,) * (len(x.shape) + 1), 1 + _mark(x))] * 2
        self.samples.clear()

    def _limit(self, z: Node, variant: int) -> Array:
        """Draws of an instruction of the Z-program, with the scalars at one of two resolutions."""

        def operand(a: Node) -> Array:
            return _lifted((self.scalars if a.width is None else self.samples)[a][variant], len(a.shape))

        match z.op:
            case "leaf":
                return deviation(z)[..., None] * self._gaussians(z)
            case "hat":
                inside = operand(z.args[0])
                first = inside[..., : self.draws] if inside.shape[-1] > 1 else inside
                finite = np.where(np.isfinite(first), first, 0.0)
                with np.errstate(all="ignore"):
                    size = np.sqrt(np.square(finite).mean(-1, keepdims=True) * float(z.attr.matrix.var))
                    return size * self._gaussians(z)
            case "constant":
                value = np.asarray(z.attr, dtype=float)
                return _lifted(value.reshape((1,) * (len(z.shape) - value.ndim) + value.shape), len(z.shape))
        with np.errstate(all="ignore"):
            return np.asarray(standing(z, _COMMON)(*map(operand, z.args)))

    def _gaussians(self, x: Node) -> Array:
        rng = np.random.default_rng(int.from_bytes(x.digest[:8], "little"))
        return rng.standard_normal((*x.shape, self.draws * len(SCALES))) * np.repeat(SCALES, self.draws)

    # ---- the arguments ----
    def _run(self, limits: Mapping[Node, Array]) -> tuple[dict[Node, Array], dict[Node, Array]]:
        """Values of all instructions, and the sizes of what they are sums of."""
        value: dict[Node, Array] = {}
        size: dict[Node, Array] = {}
        with np.errstate(all="ignore"):
            for x in self.order:
                if self._ends(x):
                    value[x] = limits[x]
                    size[x] = np.abs(limits[x])
                    continue
                if x.op in ("constant", "scalar"):
                    known = self.fixed[x]
                    value[x] = _lifted(np.where(np.isnan(known), 1 + _mark(x), known), len(x.shape))
                    size[x] = np.abs(value[x])
                    continue
                if x.op == "inner":
                    value[x], size[x] = [np.roll(of[x.args[0]], self.draws // 3, -1) for of in (value, size)]
                    continue
                value[x] = self._told_apart(x, standing(x, _COMMON), [value[a] for a in x.args])
                sizes = [size[a] for a in x.args]
                if x.op == "add":
                    absolute = Node("add", x.args, tuple([abs(c) for c in x.attr]), x.shape, x.width, x.inner)
                    size[x] = np.asarray(standing(absolute, _COMMON)(*sizes))
                elif x.op in ("mul", *MOVES, "stack", "sum"):
                    size[x] = np.asarray(standing(x, _COMMON)(*sizes))
                else:
                    linear = x.op == "fn" and PRIMITIVES[x.attr.name].homogeneity == 1
                    size[x] = np.maximum(np.abs(value[x]), sizes[0]) if linear else np.abs(value[x])
        return value, size

    def _told_apart(self, x: Node, f: Callable[..., Any], args: Sequence[Array]) -> Array:
        """An instruction's values; nan for draws so far out that floats do not tell them apart, and functions do.

        tanh(40) - tanh(50) is no zero.
        """
        value = np.asarray(f(*args))
        if x.op != "fn" or x.attr.name not in NEVER_FLAT or value.shape[-1] == 1:
            return value
        (u,) = args
        flat = (np.abs(u) > 1) & (value == f(u * (1 - 2.0**-6)))
        return np.where(flat & np.isnan(_lifted(self.fixed[x], len(x.shape))), np.nan, value)

    def _runs(self) -> None:
        base, self.size = self._run({x: v[0] for x, v in self.limits.items()})
        other, _ = self._run({x: v[1] for x, v in self.limits.items()})
        with np.errstate(all="ignore"):
            self.base, self.spread = base, {x: np.abs(other[x] - base[x]) for x in base}
        self.moved = [self._run(self._perturbed(base, sign)) for sign in (1, -1)]

    def _perturbed(self, base: Mapping[Node, Array], sign: int) -> dict[Node, Array]:
        """What finite width makes of the limits."""
        out = {}
        self.reach = MOVE
        for x, (value, other) in self.limits.items():
            fixed = ~np.isnan(_lifted(self.fixed[x], len(x.shape)))
            mark = 0.5 + _mark(x)
            if x.op == "vector" or (x.op == "matmul" and x not in self.traced):
                out[x] = value
                continue
            if x.op == "outer":
                change = MOVE * mark * (base[x.args[0]] - value)
            elif x.op == "matmul":
                gone = (value == 0).all(-1, keepdims=True)
                noise = np.random.default_rng(int.from_bytes(x.digest[8:16], "little")).standard_normal(
                    (*value.shape[:-1], self.draws * len(SCALES))
                )
                with np.errstate(invalid="ignore"):  # what is out of range has left no jump
                    change = MOVE * np.where(gone, noise, value * np.sin(1e3 * value + 10 * mark))
            else:
                with np.errstate(invalid="ignore"):
                    step = np.maximum(MOVE * np.maximum(1.0, np.abs(value)), 100 * np.abs(other - value))
                self.reach = max(self.reach, float(np.nanmax(step / np.maximum(1.0, np.abs(value)), initial=0.0)))
                low = self.known_ranges[x].low if x in self.known_ranges else -math.inf
                change = step * mark * np.where(value - step < low, 1, sign)
            out[x] = np.where(fixed, value, value + change)
        return out

    def meets(self, x: Node) -> bool:
        """Is the argument at the jump in the limit, with positive probability, and not at finite width?"""
        u = x.args[0]
        near = 10 * self.spread[u] + ROUND * self.size[u]
        edge = _edge(x)
        near = near + ROUND * abs(edge)
        value = np.abs(self.base[u] - edge)
        fixed = ~np.isnan(_lifted(self.fixed[u], len(u.shape)))
        at = (value <= near) & ~fixed
        wide = (value <= AGAINST_CHANCE * near) & ~fixed
        if value.shape[-1] > 1:
            enough = (at.sum(-1) >= HITS) & (2 * at.sum(-1) >= wide.sum(-1))
            at = at & enough[..., None]
        if not at.any() or not (jumps(x) or x.attr.name == "sqrt"):
            return bool(at.any())
        for moved, size in self.moved:
            away = np.abs(moved[u] - edge) > 10 * self.spread[u] + ROUND * size[u]
            left = at & away
            # a boundary that has moved, such as that of relu(h - theta), is crossed by few
            enough = max(HITS - 1, HITS * self.reach * value.shape[-1]) if value.shape[-1] > 1 else 1
            if (left.sum(-1) >= enough).any():
                return True
        return False


def _traced(nodes: Sequence[Node]) -> set[Node]:
    out: set[Node] = set()
    for x in topological(nodes):
        if x.op in ("moment", "inverse_sqrt", "outer") or any(a in out for a in x.args):
            out.add(x)
    return out


def _lifted(value: Any, axes: int) -> Array:
    """With all axes and one of draws."""
    value = np.asarray(value, dtype=float)
    if value.ndim > axes:
        return value
    return value.reshape((1,) * (axes - value.ndim) + value.shape)[..., None]


def _mark(x: Node) -> float:
    """A number in [0, 1) that depends on what x is."""
    return int.from_bytes(x.digest[:4], "little") / 2**32


def _numbers(scalars: Sequence[Node]) -> dict[Node, list[Array]]:
    """Scalars of the limit at two resolutions; of generic data, where data is still open; some numbers for hyperparameters.

    And for integrals that cost too much: exact zeros are found without them.
    """
    from tensorprog.limits.gauss.integrate import Indefinite

    out: dict[Node, list[Array]] = {}
    open_ends: set[Node] = set()
    generic = with_generic_data(scalars)
    sampled = 0.0
    for x in topological(generic):
        costly = False
        if x.op == "gauss" and not any(a in open_ends for a in x.args):
            sampled += one_sampling_cost(x, POINTS + PILOT * ROUNDS)
            costly = sampled > SAMPLED
        if costly or x.op in ("data", "scalar") or any(a in open_ends for a in x.args):
            open_ends.add(x)
    wanted: list[Node] = []
    meant: dict[Node, list[Node]] = {}
    for asked, x in zip(scalars, generic, strict=True):
        meant.setdefault(x, []).append(asked)
    for x in meant:
        if x.op == "constant":
            value = np.asarray(x.attr, dtype=float)
            out[x] = [value.reshape((1,) * (len(x.shape) - value.ndim) + value.shape)] * 2
        elif x in open_ends:
            out[x] = [np.full((1,) * len(x.shape), 1 + _mark(x))] * 2
        else:
            wanted.append(x)
    if wanted:
        program = ScalarProgram(wanted, budget=Budget(EFFORT))
        try:
            runs = [program.run(), program.run(level=0, replicate=1, noise=0)]
        except (Indefinite, Declined):
            runs = []
        for x, y in zip(wanted, program.outputs, strict=True):
            if y.op == "constant":
                out[x] = [np.asarray(y.attr, dtype=float)] * 2
            elif runs:
                out[x] = [np.asarray(run[y]) for run in runs]
            else:
                out[x] = [np.full((1,) * len(x.shape), 1 + _mark(x))] * 2
    return {asked: out[x] for x, several in meant.items() for asked in several}
