"""Scalar programs over all pairs of two batches of examples.

A kernel K(x, x') is compiled once, for one example of each batch (`language/data.py:SlotData`); only the inner products of
the data are left open. Here the scalar program is carried out for all pairs at once: what depends on the first example alone
is an array along the rows, what depends on the second along the columns, what depends on both is computed tile by tile, so
that intermediate results stay in the cache and no array larger than the result is ever made. Rows and columns take the part
that width and inner width have in the arrays of an executor (`arrays/elementwise.py`): axes first, then rows, then columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from math import inf, isqrt, prod
from typing import Any

import numpy as np

from tensorprog.arrays.cores import each
from tensorprog.arrays.elementwise import aligned
from tensorprog.arrays.plan import Step, schedule
from tensorprog.language import algebra
from tensorprog.language.node import Node, topological
from tensorprog.language.symbols import Width
from tensorprog.limits.budget import Budget
from tensorprog.limits.evaluate.alike import Trace
from tensorprog.limits.evaluate.perturb import Perturbation
from tensorprog.limits.evaluate.settle import settled_by
from tensorprog.limits.gauss.duals import CORRELATED, DUALS, JOINT, apart_by_rounding, unsnapped
from tensorprog.limits.gauss.pairseries import PairProduct
from tensorprog.limits.simplify.horner import factored
from tensorprog.limits.simplify.passes import simplified
from tensorprog.limits.simplify.stencil import with_stencils
from tensorprog.limits.simplify.sums import summed_early
from tensorprog.limits.simplify.transposition import with_transpositions_outside

__all__ = ["Batched", "Block", "Call", "Trace", "mirrored"]

Array = np.ndarray
ROWS, COLUMNS = Width("rows"), Width("columns")
TILE = 2**16
"""Entries of the largest array of a tile."""
FEW, LARGEST = 64, 2**18
"""Arrays with axes have this many pairs in a tile, up to so many entries: each instruction has a cost of its own."""
PARALLEL = 2**18
"""Threads wait for each other between instructions, which costs more than it brings where there are fewer entries."""
MIRROR = 64
"""Rows of a tile of a symmetric result: what is evaluated on both sides of the diagonal is little."""
INTEGRALS = ("gauss",)
KNOWN = ("data", "dual", "stencil", "guard", *INTEGRALS)
POINTS = {0: 1, 1: 2**8, 2: 2**13, 3: 2**18, 4: 2**18}
"""Values of an integrand that its integral takes, roughly, by dimension."""
SERIES = 2**6
"""Terms of a series in place of an integral."""


@dataclass(frozen=True)
class Block:
    """The inner products of the data of a block of pairs.

    Attributes:
        products: Attribute of each `data` node to its array (*axes, rows), (*axes, 1, columns) or (*axes, rows, columns).
        rows: Examples of the first batch.
        columns: Of the second.
        symmetric: Are both the same examples, so that the result is symmetric? (With axes, those of two outputs: it is
            symmetric in output and example together.)
        unwanted: Pairs (rows, columns) that nobody looks at: those of an example with itself, which have a program of their own,
            and where closed forms of two examples cancel. Not integrated.
    """

    products: Mapping[Any, Array]
    rows: int
    columns: int
    symmetric: bool = False
    unwanted: Array | None = None

    @cached_property
    def rough(self) -> bool:
        """Is the rounding that of float32, so that correlations may be a little above 1?"""
        return any(a.dtype == np.float32 for a in self.products.values())


class Batched:
    """Scalars that depend on one example of each of two batches, ready to be evaluated for all pairs.

    Args:
        outputs: Scalar programs whose data are `data` nodes, of any shape.

    Attributes:
        data: The `data` nodes.
        integrals: The integrals by quadrature or sampling.
        others: Operations that have no meaning here.
    """

    def __init__(self, outputs: Sequence[Node]) -> None:
        self.shapes = [x.shape for x in outputs]
        outputs = with_transpositions_outside(summed_early(simplified(with_transpositions_outside(outputs))))
        lifted = _lifted(outputs)
        self.outputs = factored(with_stencils([lifted[x] for x in outputs]))
        self.data = [x for x in topological(outputs) if x.op == "data"]
        steps = schedule(self.outputs, moments=False)
        self.once: dict[tuple[bool, bool], list[_Carried]] = {(r, c): [] for r in (0, 1) for c in (0, 1)}  # type: ignore[misc]
        for step in steps:
            x = step.node
            self.once[x.width is not None, x.inner is not None].append(_Carried(step))
        self.integrals = [s.node for s in steps if s.node.op in INTEGRALS]
        self.guards = {s.node for s in steps if s.node.op == "guard"}
        self.others = sorted({s.node.op for s in steps if s.compute is None and s.node.op not in KNOWN})
        self.pairs = _joined(self.once.pop((True, True)))
        self._plan()
        # the largest array of a pair decides how many pairs a tile has
        self.depth = max([prod(s.node.shape) for s in self.pairs if not s.is_data], default=1)

    def gave_way(self, call: Call) -> bool:
        """Has a closed form that cancels been replaced by its integral?"""
        return not self.guards.isdisjoint(call.integrated)

    def integrates(self, call: Call) -> bool:
        """Is anything integrated, as far as is known from what has been evaluated?"""
        return bool(self.integrals) or self.gave_way(call)

    def two_rules(self, call: Call) -> bool:
        """Are all integrals found by one rule, a series or one without bounds, and by another where numbers are moved?"""
        steps = [*self.pairs, *[s for part in self.once.values() for s in part]]
        return not self.gave_way(call) and all(
            s.product is not None or (s.node.attr.dimension == 1 and s.node.attr.bounded.analytic)
            for s in steps
            if s.node.op in INTEGRALS
        )

    def _plan(self) -> None:
        """Numbers what a tile holds: a lookup of a node costs as much as a small array's arithmetic, and threads wait for it."""
        slots: dict[Node, int] = {}
        inside = {s.node for s in self.pairs}
        self.given: list[tuple[int, Node]] = []
        for s in self.pairs:
            for a in s.operands:
                if a not in inside and a not in slots:  # along rows, along columns, or neither
                    slots[a] = len(slots)
                    self.given.append((slots[a], a))
        for s in self.pairs:
            slots[s.node] = len(slots)
        last: dict[Node, int] = {}
        for k, s in enumerate(self.pairs):
            for a in (*s.operands, s.node):
                last[a] = k
        wanted = set(self.outputs)
        for k, s in enumerate(self.pairs):
            s.target, s.sources = slots[s.node], [slots[a] for a in s.operands]
            s.partner_target = None if s.partner is None else slots[s.partner]
            dead = {*s.operands, s.node}
            s.frees = [slots[a] for a in dead if last[a] == k and a in inside and a not in wanted]
        self.results = [slots.get(x) if x in inside else None for x in self.outputs]
        by_node = {s.node: s for s in self.pairs}
        for s in self.pairs:
            if s.node.op != "dual" or s.node.attr not in CORRELATED:
                continue
            a, c, b = s.node.args[-3:]
            if c in by_node and a not in inside and b not in inside and c.shape == s.node.shape:
                by_node[c].edges.append(
                    (
                        slots[a],
                        slots[b],
                        aligned(apart_by_rounding, Node("dual", (a, c, b), "", c.shape, c.width, c.inner)),
                    )
                )
                s.edged = True
        self.count = len(slots)

    @property
    def weight(self) -> float:
        """Entries that are computed for a pair, or for an example if there are no pairs, where there are few of them.

        Of arrays, and of integrands.
        """
        steps = self.pairs or [s for part in self.once.values() for s in part]
        return 1.0 + sum([prod(s.node.shape) * _evaluations(s, few=True) for s in steps])

    def evaluations(self, pairs: int, examples: int) -> float:
        """Of integrands, for some pairs of examples and the examples themselves, roughly."""
        parts = [s for part in self.once.values() for s in part if s.node.op in INTEGRALS]
        once = sum([prod(s.node.shape) * _evaluations(s) for s in parts])
        return (
            pairs * sum([prod(s.node.shape) * _evaluations(s) for s in self.pairs if s.node.op in INTEGRALS])
            + examples * once
        )

    def run(
        self,
        block: Block,
        noise: Perturbation | None = None,
        level: int = 1,
        dtype: Any = float,
        trace: Trace | None = None,
        call: Call | None = None,
    ) -> list[Array]:
        """The outputs for a block of pairs, each of shape (*axes, rows, columns).

        Args:
            block: The data.
            noise: Moves every result by a rounding error; then integrals are quadrature with bounds, or nested.
            level: Resolution of integrals.
            dtype: float64, or float32 for speed.
            trace: Where correlations are 1; filled without noise, and with noise they stay so.
            call: What it belongs to.
        """
        call = call or Call()
        values: dict[Node, Array] = {}
        with np.errstate(over="call", under="call", divide="ignore", invalid="ignore", call=call.strain):
            for part in self.once.values():
                for s in part:
                    values[s.node] = s.value(values, block, noise, level, dtype, trace, call)
            n, m = block.rows, block.columns
            series = {
                s.node: s.series(values, block, level) for s in self.pairs if s.product is not None and noise is None
            }
            out = [np.empty((*shape, n, m), dtype) for shape in self.shapes]
            done = {s.node for s in self.pairs}
            for x, full in zip(self.outputs, out, strict=True):
                if x not in done:
                    known = np.asarray(values[x])
                    if x.inner is None:
                        known = known[..., None] if x.width is not None else known[..., None, None]
                    full[...] = known if x.width is not None or x.inner is None else known[..., None, :]
            symmetric = block.symmetric and noise is None
            pairs = max(1, TILE // self.depth, min(FEW, LARGEST // self.depth))
            tiles = list(_tiles(n, m, pairs, symmetric))
            total = n * m * self.depth // (2 if symmetric else 1)

            def tile(bounds: tuple[int, int, int, int]) -> None:
                self._tile(bounds, block, values, series, out, noise, level, dtype, trace, call)
                if symmetric:
                    _mirror(bounds, out)

            each(tile, tiles, noise is None and trace is None and total >= PARALLEL)
        return out

    def _tile(
        self,
        bounds: tuple[int, int, int, int],
        block: Block,
        known: dict[Node, Array],
        series: Mapping[Node, Any],
        out: list[Array],
        noise: Perturbation | None,
        level: int,
        dtype: Any,
        trace: Trace | None,
        call: Call,
    ) -> None:
        low, high, left, right = bounds
        rough = block.rough
        unwanted = None if block.unwanted is None else block.unwanted[low:high, left:right]
        local: list[Any] = [None] * self.count
        for slot, a in self.given:
            found = known[a]
            if a.inner is not None:
                found = found[..., left:right] if found.shape[-1] > 1 else found
            elif a.width is not None:
                found = found[..., low:high] if found.shape[-1] > 1 else found
            local[slot] = found
        with np.errstate(over="call", under="call", divide="ignore", invalid="ignore", call=call.strain):
            for s in self.pairs:
                if s.is_data:
                    given = np.asarray(block.products[s.node.attr][..., low:high, left:right], dtype)
                    local[s.target] = given if noise is None else noise.result(s.node, given)
                elif s.node in series:
                    cov = np.broadcast_to(local[s.sources[3]], (high - low, right - left))
                    local[s.target] = series[s.node](slice(low, high), slice(left, right), cov)
                elif s.partner_target is not None and noise is None and trace is None:
                    local[s.target], local[s.partner_target] = s.joint(*[local[k] for k in s.sources])
                elif local[s.target] is None:
                    arrays = [local[k] for k in s.sources]
                    if noise is None and trace is None and s.kernel is not None:
                        local[s.target] = s.kernel(*arrays)
                    else:
                        local[s.target] = s.compute(arrays, noise, level, rough, trace, call, bounds, unwanted)
                if noise is not None and noise.apart:
                    for one, other, move in s.edges:
                        local[s.target] = move(local[one], local[s.target], local[other])
                for k in s.frees:
                    local[k] = None
        for slot_of_result, full in zip(self.results, out, strict=True):
            if slot_of_result is not None:
                full[..., low:high, left:right] = local[slot_of_result]


class _Carried:
    """One step of a batched program."""

    def __init__(self, step: Step) -> None:
        self.node, self.operands = step.node, step.operands
        self.is_data = step.node.op == "data"
        self.target = 0  # slots, see `Batched._plan`
        self.sources: list[int] = []
        self.frees: list[int] = []
        self.partner_target: int | None = None
        self.edges: list[tuple[int, int, Any]] = []  # the variances that it is a covariance to, see `apart_by_rounding`
        self.edged = False
        self.partner: Node | None = None  # a closed form of the same operands that is cheaper together with this one
        self.joint: Callable[..., Any] = lambda *_: None
        x = step.node
        self.kernel: Callable[..., Any] | None = step.compute
        self.product = PairProduct.of(x.attr) if x.op in INTEGRALS and _separates(x) else None
        if x.op == "dual":
            self.kernel = aligned(DUALS[x.attr].array, x)
            self._unsnapped = aligned(partial(unsnapped, x.attr), x)
        elif x.op == "stencil":
            self.kernel = aligned(x.attr, x)

    def value(
        self,
        values: Mapping[Node, Array],
        block: Block,
        noise: Perturbation | None,
        level: int,
        dtype: Any,
        trace: Trace | None,
        call: Call,
    ) -> Array:
        """Its array along rows, along columns, or neither."""
        if self.is_data:
            given = np.asarray(block.products[self.node.attr], dtype)
            return given if noise is None else np.asarray(noise.result(self.node, given))
        result = np.asarray(
            self.compute(
                [values[a] for a in self.operands],
                noise,
                level,
                block.rough or noise is not None,
                trace,
                call,
                alone=noise is None,
            )
        )
        return result.astype(dtype, copy=False)

    def series(self, values: Mapping[Node, Array], block: Block, level: int) -> Any:
        """The integral's values tile by tile, from a series whose coefficients are computed along rows and columns."""
        assert self.product is not None
        first, second = [[values[self.node.args[i]].reshape(-1) for i in pair] for pair in ((0, 2), (1, 4))]
        turned = _reversed(self.node)  # the first variable is the columns'
        shape = (block.columns, block.rows) if turned else (block.rows, block.columns)
        tile = self.product.tiled(first, second, shape, level)
        rough = block.rough

        def of(i: slice, j: slice, cov: Array) -> Array:
            if rough:
                one, two = [np.sqrt(np.maximum(v, 0.0)) for v in (first[1], second[1])]
                most = np.multiply.outer(one[i] if len(one) > 1 else one, two[j] if len(two) > 1 else two)
                cov = np.clip(cov, -most, most)
            return np.asarray(tile(i, j, cov))

        return (lambda i, j, cov: of(j, i, cov.T).T) if turned else of

    def compute(
        self,
        arrays: Sequence[Array],
        noise: Perturbation | None,
        level: int,
        rough: bool,
        trace: Trace | None,
        call: Call,
        bounds: Any = None,
        unwanted: Array | None = None,
        alone: bool = False,
    ) -> Array:
        """Its array from its operands' arrays."""
        x = self.node
        if x.op in (*INTEGRALS, "guard"):
            from tensorprog.limits.evaluate.scalar import integrate_arrays

            full = [_with_axes(a, y, x) for a, y in zip(arrays, self.operands, strict=True)]
            if x.op == "guard":
                integrate = partial(integrate_arrays, level=level, rough=rough or noise is not None, budget=call.budget)
                result, integrated = settled_by(x, full, integrate, unwanted)
                if integrated:
                    call.integrated.add(x)
                return np.asarray(result if noise is None else noise.result(x, np.asarray(result)))
            if alone:
                return call.integral(x, full, level, rough)
            result = integrate_arrays(x, full, level, rough or noise is not None, budget=call.budget)
            if noise is not None:  # an integral that cancels has the rounding of what cancels
                size = None if trace is None else trace.sizes.get((x, bounds))
                if size is None:
                    size = integrate_arrays(x, full, 0, True, absolute=True, budget=call.budget)
                if trace is not None:
                    trace.sizes[x, bounds] = size
                result = result + (noise.result(x, size) - size)
            return np.asarray(result)
        assert self.kernel is not None, f"no scalar rule for {x.op}: please report this"
        given = arrays if noise is None else noise.operands(x, arrays)
        both = x.width is not None and x.inner is not None
        apart = x.op == "dual" and noise is not None and noise.apart and both
        kernel = self._unsnapped if apart and not self.edged else self.kernel
        if trace is not None and x.op == "dual" and not apart:
            kernel = aligned(partial(trace.value, x, bounds, noise is not None), x)
        result = kernel(*given)
        return np.asarray(result if noise is None else noise.result(x, np.asarray(result)))


class Call:
    """What evaluations that belong together find out; a compiled program itself stays as it is.

    Args:
        budget: Evaluations of integrands are counted there; those over it raise `Exhausted`.
        compared: Are integrals of analytic functions without bounds, as good as a comparison with bounds elsewhere says?

    Attributes:
        strained: Have numbers left the range of floats?
        integrated: Guarded closed forms that have turned to their integrals.
    """

    def __init__(self, budget: Budget | None = None, compared: bool = False) -> None:
        self.budget, self.compared = budget or Budget(inf), compared
        self.strained = False
        self.integrated: set[Node] = set()
        self._found: dict[Any, dict[bytes, float]] = {}

    @property
    def has_integrals(self) -> bool:
        """Are integrals of single examples known?"""
        return bool(self._found)

    def strain(self, *_: Any) -> None:
        """Called where a number leaves the range of floats."""
        self.strained = True

    def integral(self, x: Node, args: Sequence[Array], level: int, rough: bool) -> Array:
        """As `integrate_arrays`, of single examples; what is known is not integrated again.

        The variance of an example is asked for as that of a row, of a column and of the example alone.
        """
        from tensorprog.limits.evaluate.scalar import integrate_arrays

        shape = np.broadcast_shapes(*[np.shape(a) for a in args])
        flat = [np.broadcast_to(a, shape).reshape(-1).astype(float, copy=False) for a in args]
        keys = [row.tobytes() for row in np.stack(flat, -1)]
        known = self._found.setdefault((x.attr.body, x.attr.dimension, level, rough), {})
        new = list({k: i for i, k in enumerate(keys) if k not in known}.items())
        if new:
            places = [i for _, i in new]
            found = integrate_arrays(
                x, [a[places] for a in flat], level, rough, compared=self.compared, budget=self.budget
            )
            known.update(zip([k for k, _ in new], found.tolist(), strict=True))
        return np.array([known[k] for k in keys]).reshape(shape)


def _evaluations(s: _Carried, few: bool = False) -> int:
    """Of an integrand, for one integral of many, or of few; 1 of what is none."""
    if s.node.op not in INTEGRALS:
        return 1
    return SERIES if s.product is not None and not few else POINTS[min(s.node.attr.dimension, 4)]


def _separates(x: Node) -> bool:
    """Is it an integral over two variables, one that depends on the row and one that depends on the column?"""
    if x.shape or x.width is None or x.inner is None or x.attr.dimension != 2 or len(x.args) != 5:
        return False
    kinds = [(a.width is not None, a.inner is not None) for a in x.args]
    first, second = {kinds[0], kinds[2]}, {kinds[1], kinds[4]}
    none = (False, False)
    return any(
        a <= {none, one} and b <= {none, other}
        for a, b in ((first, second), (second, first))
        for one, other in (((True, False), (False, True)),)
    )


def _reversed(x: Node) -> bool:
    return any(x.args[i].inner is not None for i in (0, 2)) or any(x.args[i].width is not None for i in (1, 4))


def _with_axes(a: Array, y: Node, x: Node) -> Array:
    """An operand's array with all axes of the node, size 1 where it does not vary."""
    if x.inner is not None and y.inner is None:
        a = a[..., None]
    if x.width is not None and y.width is None:
        a = a[..., None] if x.inner is None else a[..., None, :] if y.inner is not None else a[..., None]
    missing = len(x.shape) - len(y.shape)
    return a.reshape((1,) * missing + a.shape) if missing else a


def _joined(steps: list[_Carried]) -> list[_Carried]:
    """The steps, pairs of closed forms that are cheaper together marked at the one that comes first."""
    by_operands: dict[tuple[Node, ...], list[_Carried]] = {}
    for s in steps:
        if s.node.op == "dual":
            by_operands.setdefault(s.node.args, []).append(s)
    for found in by_operands.values():
        for names, function in JOINT.items():
            both = [next((s for s in found if s.node.attr == name), None) for name in names]
            if None not in both:
                a, b = both
                first = next(s for s in steps if s is a or s is b)
                turned = first is b
                first.partner = (a if turned else b).node  # type: ignore[union-attr]
                joint: Any = partial(_turned, function) if turned else function
                first.joint = aligned(joint, first.node)
    return steps


def _turned(function: Any, *arrays: Any) -> Any:
    """The two results in the other order."""
    return function(*arrays)[::-1]


def _lifted(outputs: Sequence[Node]) -> dict[Node, Node]:
    """Every node below the outputs, as one along rows and columns."""
    new: dict[Node, Node] = {}
    for x in topological(outputs):
        args = [new[a] for a in x.args]
        if x.op == "data":
            slots = (x.attr.slot, x.attr.slot2)
            new[x] = Node("data", (), x.attr, x.shape, ROWS if 0 in slots else None, COLUMNS if 1 in slots else None)
            continue
        if not args or all(a is b for a, b in zip(args, x.args, strict=True)):
            new[x] = x
            continue
        width = ROWS if any(a.width for a in args) else None
        inner = COLUMNS if any(a.inner for a in args) else None
        if x.op in ("add", "mul"):
            out = algebra.applied(x, args)
            new[x] = algebra.typed(out, x.shape, width, inner)
        else:
            new[x] = Node(x.op, tuple(args), x.attr, x.shape, width, inner)
    return new


def _tiles(n: int, m: int, pairs: int, symmetric: bool) -> Iterator[tuple[int, int, int, int]]:
    """Tiles (rows from, to, columns from, to) of at most the given number of pairs; on and above the diagonal if symmetric."""
    # few rows and many columns: what is along rows is repeated over columns in the innermost loop
    height = min(n, max(1, min(isqrt(pairs) // 2, MIRROR) if symmetric else pairs // m))
    width = max(1, pairs // height)
    for low in range(0, n, height):
        high = min(n, low + height)
        start = low if symmetric else 0
        count = -(-(m - start) // width)  # of about equal widths
        step = -(-(m - start) // count)
        for left in range(start, m, step):
            yield low, high, left, min(m, left + step)


def _mirror(bounds: tuple[int, int, int, int], out: list[Array]) -> None:
    """Fills in what lies below the diagonal opposite to a tile, while the tile is in the cache.

    K(x', x) is the transpose of K(x, x'), which matters where a network has several outputs.
    """
    low, high, left, right = bounds
    for full in out:
        turned = full.T if full.ndim == 2 else full.swapaxes(0, 1).swapaxes(2, 3)
        if left < high:  # a tile on the diagonal
            i, j = _below(min(high, right) - left, left - low)
            full[..., low + i, low + j] = turned[..., low + i, low + j]
        start = max(left, high)
        if start < right:
            full[..., start:right, low:high] = turned[..., start:right, low:high]


def mirrored(out: list[Array]) -> None:
    """Fills in what lies below the diagonal of whole symmetric results."""
    size = out[0].shape[-1]
    _mirror((0, size, 0, size), out)


@cache
def _below(size: int, ahead: int) -> tuple[Array, Array]:
    """Positions (i, j), j < i, whose mirror image is in the columns ahead, .., ahead + size - 1."""
    i, j = np.tril_indices(size + ahead, -1)
    return i[i >= ahead], j[i >= ahead]
