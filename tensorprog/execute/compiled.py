"""A program as a list of instructions over slots, and the one loop that runs it in any space.

What depends on the program alone (kernels, fused contractions, constants, last uses) is settled once and reused over
seeds and widths. A space adds initial vectors, initial matrices, the mean over coordinates, sizes and ratios of widths.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from math import prod
from typing import Any, Protocol

import numpy as np

from tensorprog.arrays.contraction import Contraction
from tensorprog.arrays.elementwise import array_shape
from tensorprog.arrays.plan import last_uses, schedule
from tensorprog.errors import NotFinite, TensorProgramError
from tensorprog.execute.components import Components
from tensorprog.execute.factors import OPERATIONS, MatrixPlan, is_stored, rank
from tensorprog.execute.matrices import MatrixValue, matrix_rule
from tensorprog.execute.outer import Outer, boundary
from tensorprog.execute.random import Array
from tensorprog.language.describe import describe
from tensorprog.language.functions import PRIMITIVES
from tensorprog.language.node import Node
from tensorprog.language.program import Program
from tensorprog.language.symbols import MatrixSpec, VectorSpec, Width
from tensorprog.transforms.decouple import unmarked

__all__ = ["Compiled", "MatrixLike", "Space", "Watch", "compiled"]


class MatrixLike(Protocol):
    """A matrix in a space: it multiplies arrays of shape (*axes, size)."""

    def apply(self, x: Array) -> Array: ...  # noqa: D102
    def apply_transposed(self, y: Array) -> Array: ...  # noqa: D102


class Space(Protocol):
    """Where a program runs: `Dense`, `Lazy` or `Population`."""

    def size(self, width: Width) -> int: ...  # noqa: D102
    def ratio(self, rows: Width, cols: Width) -> float: ...  # noqa: D102
    def inverse_sqrt(self, width: Width) -> float: ...  # noqa: D102
    def vector(self, spec: VectorSpec) -> Array: ...  # noqa: D102
    def matrix(self, spec: MatrixSpec) -> MatrixLike: ...  # noqa: D102
    def mean(self, x: Array) -> Array: ...  # noqa: D102


@dataclass(slots=True)
class _Instruction:
    node: Node
    target: int
    sources: tuple[int, ...]
    compute: Callable[..., Any] | None  # None where it depends on the space
    matrix: MatrixSpec | None = None  # the instruction that makes a matrix, not one of the program's
    outer: Outer | None = None
    frees: list[int] = field(default_factory=list)


Watch = Callable[[Node, Callable[..., Any] | None, Sequence[Any], Any], Any]


class Compiled:
    """A program ready to run.

    Args:
        program: The program.
        pairs: Are Moments in large products instructions of their own? A population looks at each of them.

    Attributes:
        program: The same.
    """

    def __init__(self, program: Program, pairs: bool = False) -> None:
        self.program = program
        roots = [o.node for o in program.outputs.values()]
        slots: dict[Any, int] = {}
        self._preset: list[Any] = []
        self._code: list[_Instruction] = []
        self._plan = MatrixPlan()

        def operands(x: Node) -> tuple[Node, ...]:
            if x.op == "apply":
                return self._plan.of(x.args[0]), x.args[1]
            return boundary(x) if x.op == "outer" else x.args

        def slot(key: Any, value: Any = None) -> int:
            slots[key] = len(self._preset)
            self._preset.append(value)
            return slots[key]

        def made(matrix: MatrixSpec, x: Node) -> int:
            # A matrix is a value like any other: made before its first use, dropped after its last.
            if matrix.name not in slots:
                self._code.append(_Instruction(x, slot(matrix.name), (), None, matrix))
            return slots[matrix.name]

        for step in schedule(roots, operands=operands, pairs=pairs):
            x = step.node
            if x.op == "matrix":
                slots[x] = made(x.attr, x)
                continue
            if x.op == "constant":
                assert step.compute is not None
                slot(x, step.compute())
                continue
            sources = tuple([slots[a] for a in step.operands])
            if x.op == "matmul":
                sources = (made(x.attr.matrix, x), *sources)
            outer = Outer(x) if x.op == "outer" else None
            self._code.append(_Instruction(x, slot(x), sources, step.compute, outer=outer))
        self._outputs = {name: (slots[o.node], o.node.shape) for name, o in program.outputs.items()}
        kept = {i for i, _ in self._outputs.values()} | {i for i, v in enumerate(self._preset) if v is not None}
        code = [(instruction.target, instruction.sources) for instruction in self._code]
        for instruction, dead in zip(self._code, last_uses(code, kept), strict=True):
            instruction.frees = dead

    def __len__(self) -> int:
        return len(self._code)

    @property
    def stores_entries(self) -> bool:
        """Is there a matrix with an array over rows and columns?"""
        return any(x.node.op == "entries" for x in self._code)

    def pairs_of_coordinates(self) -> int:
        """How many arrays over rows and columns are made."""
        both = [
            x.node
            for x in self._code
            if x.node.width is not None and x.node.inner is not None and x.node.op != "factors"
        ]
        return sum([prod(x.shape) for x in both]) if self.stores_entries else 0

    def products(self) -> dict[str, int]:
        """Name of each matrix to the number of columns that it and its transpose multiply."""
        out: dict[str, int] = {}
        for instruction in self._code:
            x = instruction.node
            if x.op in ("matmul", "apply") and instruction.matrix is None:
                initial = [x.attr.matrix] if x.op == "matmul" else self._plan.initial(x.args[0])
                for matrix in initial:
                    out[matrix.name] = out.get(matrix.name, 0) + prod(x.args[-1].shape)
        return out

    @cached_property
    def components(self) -> Components:
        """Which vectors meet."""
        return Components(self.program)

    def noise(self) -> dict[str, int]:
        """Component of a width to the noise columns that a population of it takes at most."""
        out: dict[str, int] = {}
        inputs: dict[str, tuple[str, int, int]] = {}  # rows and features of the data that one input layer sees
        for instruction in self._code:
            x = instruction.node
            if instruction.matrix is not None or x.op not in ("vector", "matmul", "apply"):
                continue
            component = self.components.nodes[x]
            data = getattr(x.attr, "data", None)
            if x.op == "vector" and data is not None:
                seen = inputs.get(x.attr.name, ("", 0, 0))[1]
                inputs[x.attr.name] = component, seen + prod(x.shape), data.coordinates.shape[-1]
            else:
                out[component] = out.get(component, 0) + prod(x.args[-1].shape if x.args else x.shape)
        for component, rows, features in inputs.values():
            out[component] = out.get(component, 0) + min(rows, features)
        return out

    def peak_entries(self, size: Callable[[Width], int], kind: str = "dense") -> int:
        """The largest number of stored entries that exist at one time.

        A lazy matrix keeps, of each product, the vector and the result. Views of arrays cost nothing; of what is contracted, the
        largest array on the way counts.
        """
        columns = self.products()
        shapes: list[tuple[int, ...]] = [np.shape(v) for v in self._preset]
        held: dict[int, int] = {}
        ranks: dict[Node, int] = {}
        stored: dict[Node, bool] = {}
        total = peak = 0
        for instruction in self._code:
            x, matrix = instruction.node, instruction.matrix
            entries = inside = 0
            if matrix is not None:
                rows, cols = size(matrix.rows), size(matrix.cols)
                entries = rows * cols if kind == "dense" else min(columns[matrix.name], rows + cols) * (rows + cols)
            elif x.op in OPERATIONS:
                assert x.width is not None and x.inner is not None
                rows, cols = size(x.width), size(x.inner)
                vectors = min(rank(x, ranks), 2 * min(rows, cols)) * (rows + cols)  # of dependent ones some are dropped
                whole = rows * cols if is_stored(x, stored) else 0
                if kind == "dense" and vectors > rows * cols:
                    vectors, whole = 0, rows * cols
                entries = 0 if x.op == "factors" else prod(x.shape) * (vectors + whole)
            else:
                given = [shapes[i] for i in instruction.sources][x.op in ("matmul", "apply") :]
                shape, inside = self._made(instruction, given, size)
                shapes[instruction.target] = shape
                entries = 0 if x.op in ("view", "take") else prod(shape)
            held[instruction.target] = entries
            total += entries
            peak = max(peak, total + inside)
            for i in instruction.frees:
                total -= held.pop(i, 0)
        return peak

    @staticmethod
    def _made(
        instruction: _Instruction, given: list[tuple[int, ...]], size: Callable[[Width], int]
    ) -> tuple[tuple[int, ...], int]:
        """The shape of an instruction's array, and the entries of what is made on the way."""
        if isinstance(instruction.compute, Contraction):
            return instruction.compute.needs(tuple(given))
        return array_shape(instruction.node, given, size), 0

    @property
    def nodes(self) -> set[Node]:
        """Those whose arrays are made."""
        return {instruction.node for instruction in self._code}

    # ---- running ----
    def run(self, space: Space, values: Mapping[str, Any], watch: Watch | None = None) -> dict[str, Array]:
        """The outputs in a space, unchecked: name to array of shape (*axes,).

        Args:
            space: A new space: it remembers what has been drawn.
            values: A number for each hyperparameter.
            watch: Sees every instruction with its operands and result, which it may replace.
        """
        env = list(self._preset)
        with np.errstate(all="ignore"):  # what is not finite is found and explained by `explain`
            for instruction in self._code:
                compute = instruction.compute or _bind(instruction, space, values)
                arrays = [env[i] for i in instruction.sources]
                result = compute(*arrays)
                if watch is not None and instruction.matrix is None and not isinstance(result, MatrixValue):
                    result = watch(instruction.node, instruction.compute, arrays, result)
                env[instruction.target] = result
                del arrays, result
                for i in instruction.frees:
                    env[i] = None
        return self._collect(env)

    def _collect(self, env: list[Any]) -> dict[str, Array]:
        return {name: np.array(np.broadcast_to(env[i], shape)) for name, (i, shape) in self._outputs.items()}

    def explain(self, space: Space, values: Mapping[str, Any]) -> TensorProgramError | None:
        """Runs again and traces an output that is not finite back to the instruction where that began.

        Args:
            space: A new space that draws the same numbers as the one of the run.
            values: A number for each hyperparameter.

        Returns:
            The error to raise, or None where all outputs are finite.
        """
        env = list(self._preset)
        by_target = {instruction.target: instruction for instruction in self._code}
        bad: set[int] = set()
        reasons: dict[int, tuple[str, str]] = {}
        with np.errstate(all="ignore"):
            for instruction in self._code:
                compute = instruction.compute or _bind(instruction, space, values)
                arrays = [env[i] for i in instruction.sources]
                out = env[instruction.target] = compute(*arrays)
                if instruction.matrix is None and not _finite(out):
                    bad.add(instruction.target)
                    if not any(i in bad for i in instruction.sources):
                        reasons[instruction.target] = _reason(instruction.node, arrays)
                for i in instruction.frees:
                    env[i] = None
        for name, (i, _) in self._outputs.items():
            if i in bad:
                while i not in reasons:
                    i = next(j for j in by_target[i].sources if j in bad)
                node, (why, fix) = by_target[i].node, reasons[i]
                return NotFinite(
                    f"output {name} is not finite: that begins at {describe(node)}",
                    why=why, fix=fix, source=node.source, label=node.label,
                )  # fmt: skip
        return None


def _bind(instruction: _Instruction, space: Space, values: Mapping[str, Any]) -> Callable[..., Any]:
    """What an instruction does in a space."""
    x = instruction.node
    if instruction.matrix is not None:
        return partial(space.matrix, instruction.matrix)
    match x.op:
        case "matmul":
            matrix, transposed, _ = x.attr
            size = space.size(matrix.rows if transposed else matrix.cols)
            return partial(_multiply, size=size, transposed=transposed)
        case "apply":
            wanted = x.args[1].width
            assert wanted is not None
            return partial(_multiply, size=space.size(wanted), transposed=x.attr.transposed)
        case "moment":
            return partial(_moment, space)
        case "vector":
            return partial(space.vector, x.attr)
        case "scalar":
            value = np.asarray(values[x.attr.name], dtype=float)
            return lambda: value if value.ndim else np.float64(value)
        case "inverse_sqrt":
            return lambda: np.float64(space.inverse_sqrt(x.attr))
        case "outer":
            inner = x.args[0].inner
            assert instruction.outer is not None and x.width is not None and inner is not None
            return partial(instruction.outer, size=space.size(x.width), inner_size=space.size(inner))
        case _ if x.op in OPERATIONS:
            return matrix_rule(x, space)
        case _:
            raise TensorProgramError(f"no rule executes {x.op!r}", fix="please report this", source=x.source)


def _multiply(matrix: MatrixLike, x: Array, *, size: int, transposed: bool) -> Array:
    if x.shape[-1] != size:  # the same number in every coordinate
        x = np.broadcast_to(x, (*x.shape[:-1], size))
    return matrix.apply_transposed(x) if transposed else matrix.apply(x)


def _finite(value: Any) -> bool:
    return value.is_finite() if isinstance(value, MatrixValue) else bool(np.isfinite(value).all())


def _moment(space: Space, x: Array) -> Array:
    return x[..., 0] if x.shape[-1] == 1 else space.mean(x)


def compiled(program: Program, pairs: bool = False) -> Compiled:
    """The program ready to run; it is compiled once, and kept with it.

    What is marked as one pass's product, and is the other's as well, is one instruction here (`transforms/decouple.py`).
    """
    key = "compiled pairs" if pairs else "compiled"
    if key not in program._derived:
        program._derived[key] = Compiled(unmarked(program), pairs)
    return program._derived[key]


# ---- why something is not finite ----


def _reason(node: Node, arrays: list[Any]) -> tuple[str, str]:
    """Why an instruction with finite operands has a result that is not, and what to do."""
    smaller = "scale the program down (variances, learning rate), or run fewer steps"
    if node.op == "fn":
        row, x = PRIMITIVES[node.attr.name], np.asarray(arrays[0])
        operand = describe(node.args[0])
        if row.name == "reciprocal":
            return f"{operand} is 0 (or so small that 1/x overflows) somewhere", "keep the denominator away from 0"
        if row.domain is not None:
            low, included = row.domain
            outside = x[x < low] if included else x[x <= low]
            if outside.size:
                sign = ">=" if included else ">"
                return (
                    f"{row.name}(x) needs x {sign} {low:g}, but {operand} reaches {outside.min():.6g}",
                    f"keep the argument of {row.name} in its domain",
                )
        return f"{row.name} overflows: {operand} reaches {x.min():.6g} to {x.max():.6g}", smaller
    largest = max([float(np.abs(a).max()) for a in arrays if isinstance(a, (np.ndarray, np.floating))], default=0.0)
    return f"numbers beyond 1.8e308: its operands reach {largest:.3g}", smaller
