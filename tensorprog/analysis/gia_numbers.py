"""Are two limits, with and without gradient independence, the same? Errors decide; where they cannot, differences do.

Two numbers that are equal within their errors may still differ by less. So where the errors leave it open,

1. the two *laws* are compared: where all Zdot turn out to be 0, exactly, and no matrix is used in one direction by both passes,
   the copies have the joint law of what they replace, and all limits are equal, whatever is known of their values;
2. the limit of the *difference* is taken: what the two have in common is the same node of one program and cancels, often to
   an exact 0, and the rest has an error of its own, not that of the two added up;
3. two populations are run on common random numbers, instruction by instruction the same: their difference is free of most
   of the noise. It is taken at two sizes, whose gap bounds what the finite size does to it.

An answer is `True` where the gap is at most RESOLUTION, `False` where it is larger than its error; else the report says how
large it can be.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.estimate import Estimate
from tensorprog.language import algebra
from tensorprog.language.algebra import is_backward
from tensorprog.language.attributes import Product
from tensorprog.language.node import Node, topological
from tensorprog.language.program import Output, Program
from tensorprog.transforms.decouple import backward_copy, program_for, with_copies
from tensorprog.transforms.rewrite import rewrite_nodes
from tensorprog.transforms.written_out import written_out

if TYPE_CHECKING:
    from tensorprog.analysis.compare import Comparison

__all__ = ["Verdict", "agree", "answer", "finite_runs"]

RESOLUTION = 1e-6
"""Limits are called equal if they are known to be, relative to their size (at least 1), within this."""
SIGMAS = 6
"""A standard error tells a difference from this many on."""
LEVELS = ((2**12, 2**14), (2**14, 2**16))
"""Sizes of the populations of a paired difference, the next pair where the first one leaves it open and its errors, about
four times smaller, could settle it."""
LARGE = 2**26
"""The second pair is run if the instructions' vectors have at most so many entries."""
REPLICATES = 16
FALSE_ALARM = 1e-6


class Verdict(NamedTuple):
    """The limit of one output under GIA and without it, and whether they are equal.

    Attributes:
        with_gia: The limit with independent copies.
        without_gia: The limit.
        agrees: True or False, None where the errors are too large to tell.
        difference: The first minus the second, where that had to be found by itself.
    """

    with_gia: Estimate
    without_gia: Estimate
    agrees: bool | None
    difference: Estimate | None = None

    @property
    def size(self) -> Any:
        """What errors are relative to: the larger of the two, entry by entry, at least 1."""
        x, y = (np.abs(np.asarray(e.value, dtype=float)) for e in self[:2])
        return np.maximum(np.maximum(x, y), 1)


def answer(
    program: Program, values: Mapping[str, Any] | None, rng: Any, is_loose: bool | None, method: str = "auto"
) -> tuple[dict[str, Verdict], bool | None, list[str], bool | None]:
    """Both limits, `holds`, remarks, and `is_loose` as far as the numbers do not contradict it."""
    outputs, holds, remarks = _compare_limits(program, values, rng, method)
    if holds is False and is_loose:
        remarks.append("the structural checks pass and the limits differ; one of them is wrong: please report this")
        is_loose = None
    elif holds is None and is_loose and not _has(outputs, False):
        holds = True
        remarks.append("the numbers are too uncertain to tell; GIA holds by the theorem on BP-like programs")
    elif holds and not is_loose:
        remarks.append("GIA is right here all the same: the checks are sufficient, not necessary")
    open_ones = [name for name, v in outputs.items() if v.agrees is None and v.difference is not None]
    for name in open_ones:
        difference = outputs[name].difference
        assert difference is not None
        largest = np.max(np.abs(difference.value) + np.asarray(difference.error))
        remarks.append(f"{name}: the limits differ by at most {largest:.1g} ({difference.method})")
    return outputs, holds, remarks, is_loose


def finite_runs(
    program: Program,
    outputs: Mapping[str, Verdict],
    widths: Sequence[int] | None,
    seeds: int | Sequence[int] | None,
    values: Mapping[str, Any] | None,
) -> tuple[Comparison | None, Comparison | None]:
    """Runs of the program as it is, once, beside the limit under GIA and beside the limit."""
    if widths is None or not outputs:
        return None, None
    from tensorprog.analysis.anomalies import anomalies
    from tensorprog.analysis.compare import Comparison, compare

    free, limit = ({name: v[k] for name, v in outputs.items()} for k in (0, 1))
    found = compare(program, widths, 32 if seeds is None else seeds, against=free, values=values)
    samples = {n: {name: item.samples[i] for name, item in found.outputs.items()} for i, n in enumerate(found.widths)}
    known = anomalies(program, n=min(found.widths), values=values)
    axes = {name: o.axes for name, o in program.outputs.items()}
    return found, Comparison.of(samples, limit, seeds=found.seeds, axes=axes, known=known)


def _has(outputs: Mapping[str, Verdict], found: bool | None) -> bool:
    return any(v.agrees is found for v in outputs.values())


def _compare_limits(
    program: Program, values: Mapping[str, Any] | None, rng: Any, method: str
) -> tuple[dict[str, Verdict], bool | None, list[str]]:
    from tensorprog.limits.limit import limit

    free = program_for(program, gia=True)
    try:
        without = limit(program, values=values, rng=rng, method=method)
        coupled = without if free == program else limit(free, values=values, rng=rng, method=method)
    except TensorProgramError as error:
        return {}, True if free == program else None, [f"the limits were not compared: {error.what}"]
    outputs = {name: Verdict(coupled[name], without[name], agree(coupled[name], without[name])) for name in program}
    if free == program:
        outputs = {name: v._replace(agrees=True) for name, v in outputs.items()}
        return outputs, True, ["nothing is back-propagation here: there is nothing to assume"]
    exactly = method != "population"
    if exactly and _has(outputs, None) and not _has(outputs, False) and _one_law(program, values):
        outputs = {name: v._replace(agrees=True) for name, v in outputs.items()}
    for settle in (_by_difference, _by_populations) if exactly else (_by_populations,):
        if _has(outputs, None):
            outputs = settle(program, free, outputs, values, rng)
    if _has(outputs, False):
        return outputs, False, []
    return outputs, None if _has(outputs, None) else True, []


def agree(a: Estimate, b: Estimate) -> bool | None:
    """Equal within the stated errors? None where they are too large to tell."""
    x, y = np.asarray(a.value, dtype=float), np.asarray(b.value, dtype=float)
    error = np.asarray(a.error, dtype=float) + np.asarray(b.error, dtype=float)
    size = np.maximum(np.maximum(np.abs(x), np.abs(y)), 1)
    return _told(np.abs(x - y), error, size, "standard error" in (a.kind, b.kind))


def _told(gap: np.ndarray, error: np.ndarray, size: np.ndarray, sampled: bool) -> bool | None:
    if sampled:
        if np.any(gap > SIGMAS * error + 1e-9 * size):
            return False
        return True if np.all(SIGMAS * error <= RESOLUTION * size) else None
    if np.any(gap > 10 * error + 1e-12 * size):  # bounds are estimates themselves
        return False
    return True if np.all((gap <= error + 1e-12 * size) & (error <= RESOLUTION * size)) else None


# ---- laws ----


def _one_law(program: Program, values: Mapping[str, Any] | None) -> bool:
    """Have all products the same joint law with the copies as without them? False where that is not seen."""
    from tensorprog.limits.expect.lower import Lowering

    program = written_out(program)
    free = rewrite_nodes([o.node for o in program.outputs.values()], with_copies())
    products = [x for x in program.nodes if x.op == "matmul"]
    originals = {
        backward_copy(x.attr.matrix, x.attr.transposed).name: x.attr.matrix for x in products if is_backward(x)
    }
    other = program_for(program, gia=True)
    coupled, copied = (Lowering(p, p.values(values)).z for p in (program, other))
    if not all(x in coupled and free[x] in copied for x in products):
        return False
    used: set[tuple[str, bool, bool]] = set()  # matrix, direction, is it the copy's
    new: dict[Node, Node] = {}
    for z in topological([copied[free[x]] for x in products]):
        args = [new[a] for a in z.args]
        if z.op == "hat":
            matrix, transposed, _ = z.attr
            own = originals.get(matrix.name, matrix)
            used.add((own.name, transposed, own is not matrix))
            new[z] = Node("hat", tuple(args), Product(own, transposed), z.shape, z.width)
        elif z.op in ("dual", "gauss", "laplace", "data", "leaf"):
            new[z] = Node(z.op, tuple(args), z.attr, z.shape, z.width, z.inner)
        else:
            new[z] = algebra.rebuild(z, args)
    mixed = any((name, transposed, not copy) in used for name, transposed, copy in used)
    return not mixed and all(new[copied[free[x]]] == coupled[x] for x in products)


# ---- differences ----


def _by_difference(
    program: Program, free: Program, outputs: Mapping[str, Verdict], values: Mapping[str, Any] | None, rng: Any
) -> dict[str, Verdict]:
    """Settles what is open by the exact limit of the difference, where it has one."""
    from tensorprog.limits.limit import limit

    found = dict(outputs)
    for name in [name for name, v in outputs.items() if v.agrees is None]:
        o, other = program.outputs[name], free.outputs[name]
        node = algebra.sub(other.node, o.node)
        if node.op == "constant":
            continue
        try:
            difference = limit(Program({name: Output(node, o.axes)}), method="exact", values=values, rng=rng)[name]
        except TensorProgramError:
            continue
        v = outputs[name]
        gap, error = (np.abs(np.asarray(x, dtype=float)) for x in (difference.value, difference.error))
        told = True if not np.any(gap) and not np.any(error) else None
        told = _told(gap, error, v.size, difference.kind == "standard error") if told is None else told
        found[name] = v._replace(agrees=told, difference=difference)
    return found


def _by_populations(
    program: Program, free: Program, outputs: Mapping[str, Verdict], values: Mapping[str, Any] | None, rng: Any
) -> dict[str, Verdict]:
    """Settles what is open by populations on common random numbers."""
    found = dict(outputs)
    entries = sum([prod(x.shape) for x in program.nodes if x.width is not None])
    names = [name for name, v in found.items() if v.agrees is None]
    for k, sizes in enumerate(LEVELS):
        if not names or (k and entries * sizes[1] > LARGE):
            break
        part = Program({name: program.outputs[name] for name in names})
        try:
            small, large = (_paired(part, m, values, rng) for m in sizes)
        except (TensorProgramError, Warning):  # too few samples for so many vectors, say
            break
        near = []
        for name in names:
            v = found[name]
            difference = _extrapolated(small[name], large[name], sizes)
            gap, error = np.abs(np.asarray(difference.value)), np.asarray(difference.error)
            told = False if np.any(gap > error + 1e-12 * v.size) else None
            if told is None and np.all(gap + error <= RESOLUTION * v.size):
                told = True
            if told is None and (np.any(gap > error / 4) or np.all(gap + error <= 4 * RESOLUTION * v.size)):
                near.append(name)
            known = v.difference
            if told is None and known is not None and np.max(known.error) <= np.max(error):
                difference = known
            found[name] = v._replace(agrees=told, difference=difference)
        names = near
    return found


def _extrapolated(small: np.ndarray, large: np.ndarray, sizes: tuple[int, int]) -> Estimate:
    """The difference at infinite size, from replicates (replicates, *axes) at two; a finite size shifts it like 1/size."""
    from scipy.stats import t

    ratio = sizes[1] / sizes[0]
    (a, s), (b, u) = [(d.mean(0), d.std(0, ddof=1) / len(d) ** 0.5) for d in (small, large)]
    quantile = t.isf(FALSE_ALARM / 2 / max(a.size, 1), len(small) - 1)
    value = (ratio * b - a) / (ratio - 1)
    error = quantile * np.hypot(ratio * u, s) / (ratio - 1) + np.abs(b - a)
    note = f"{REPLICATES} pairs of populations of {sizes[0]} and {sizes[1]} samples on common random numbers"
    value, error = (float(value), float(error)) if value.ndim == 0 else (value, error)
    return Estimate(value, error, "paired populations", "standard error", note)


def _paired(program: Program, samples: int, values: Mapping[str, Any] | None, rng: Any) -> dict[str, np.ndarray]:
    """GIA's answer minus the limit, replicate by replicate, shape (replicates, *axes).

    Raises:
        TensorProgramError: The population is too small.
        PopulationWarning: It is so small that it is biased.
    """
    from tensorprog.execute.executor import population
    from tensorprog.execute.population import PopulationWarning

    with warnings.catch_warnings():
        warnings.simplefilter("error", PopulationWarning)
        coupled, free = (
            population(_verbatim(program, gia), samples, rng=rng, replicates=REPLICATES, values=values)
            for gia in (False, True)
        )
    return {name: free[name] - coupled[name] for name in program}


def _verbatim(program: Program, gia: bool) -> Program:
    """The program without marks, with or without copies, its instructions in one order: both draw the same noise for the same.

    Not in normal form, in which operands are ordered by what they are.
    """
    new: dict[Node, Node] = {}
    copies: dict[bool, dict[Node, Node]] = {
        False: {},
        True: {},
    }  # of matrices, by what back-propagation applies them as
    for x in program.nodes:
        attr, args = x.attr, [new[a] for a in x.args]
        if x.op == "matmul":
            matrix, transposed, _ = x.attr
            attr = Product(backward_copy(matrix, transposed) if gia and is_backward(x) else matrix, transposed)
        elif x.op == "apply":
            attr = x.attr._replace(mark="")
            args[0] = copies[x.attr.transposed][x.args[0]] if gia and is_backward(x) else args[0]
        new[x] = Node(x.op, tuple(args), attr, x.shape, x.width, x.inner)
        for transposed, known in copies.items():
            known[x] = new[x]
            if x.has_matrix:
                own = backward_copy(attr, transposed) if x.op == "matrix" else attr
                known[x] = Node(x.op, tuple([known[a] for a in x.args]), own, x.shape, x.width, x.inner)
    return Program({name: replace(o, node=new[o.node]) for name, o in program.outputs.items()})
