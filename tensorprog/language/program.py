"""A Tensor Program: named outputs and everything they are computed from, checked and merged."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorprog.errors import Source, TensorProgramError
from tensorprog.language.describe import describe
from tensorprog.language.expression import Expression, as_expression
from tensorprog.language.matrix import Matrix
from tensorprog.language.node import Node, topological
from tensorprog.language.symbols import Number, VectorSpec, Width, check_name, encode, numbers

if TYPE_CHECKING:
    import networkx

__all__ = ["Output", "Program", "checked_values", "value_of"]


@dataclass(frozen=True)
class Output:
    """A scalar of the program under a name, with the names of its axes."""

    node: Node
    axes: tuple[str, ...]


class Program:
    """A straight-line program of MatMul, Nonlin, Moment and OuterNonlin instructions with named scalar outputs.

    Args:
        outputs: Scalars (Moments and functions of them) under their names; or keyword arguments.

    Attributes:
        outputs: `Output` by name, in the order given.
        nodes: All nodes, operands first, equal ones merged, in an order that depends on their content only.
        digest: Hexadecimal digest of the content. Equal programs have equal digests.

    Raises:
        TensorProgramError: on an output that is a vector, and when one name stands for two different matrices,
            vectors, widths or
            hyperparameters.

    Example:
        >>> import tensorprog as tp
        >>> n = tp.Width("n")
        >>> W, x = tp.Matrix("W", n, n), tp.Vector("x", n, mean=1, var=0)
        >>> p = tp.Program(q=tp.moment((W @ x) ** 2))
        >>> list(p), p == tp.Program(q=tp.moment((W @ x) * (W @ x)))
        (['q'], True)
    """

    def __init__(self, outputs: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        given = {**(outputs or {}), **more}
        if not given:
            raise TensorProgramError(
                "a program without outputs", fix="name at least one: tp.Program(q=tp.moment(x * x))"
            )
        self.outputs: dict[str, Output] = {}
        for name, value in given.items():
            check_name(name, "an output's name")
            x = as_expression(value) if not isinstance(value, Output) else Expression(value.node, value.axes)
            if x.is_matrix:
                raise TensorProgramError(
                    f"output {name} is the matrix {describe(x.node)}",
                    why="a matrix has no limit of its own; the Master Theorem is about Moments",
                    fix="multiply a vector by it and take a Moment: tp.moment(y * (M @ x))",
                )
            if x.width is not None or x.node.inner is not None:
                raise TensorProgramError(
                    f"output {name} is the vector {describe(x.node)}",
                    why="a vector has no limit of its own; the Master Theorem is about Moments",
                    fix="take a Moment: tp.moment(phi(x)), or tp.moment(x * y)",
                )
            self.outputs[name] = Output(x.aligned_node(), x.axes)
        roots = sorted([o.node for o in self.outputs.values()], key=lambda x: x.digest)
        self.nodes: list[Node] = topological(roots)
        self._derived: dict[str, Any] = {}  # what others make of its content, once: a memory, which nothing depends on
        self._check()

    # ---- checks ----
    def _check(self) -> None:
        seen: dict[tuple[str, str], tuple[Any, Node]] = {}

        def unique(kind: str, name: str, value: Any, node: Node) -> None:
            other, first = seen.setdefault((kind, name), (value, node))
            if encode(other) != encode(value):
                # nodes come in the order of their digests; people read in the order of lines
                given = [(_place(other, first), _attributes(other)), (_place(value, node), _attributes(value))]
                given.sort(key=lambda item: (item[0].file, item[0].line) if item[0] else ("", 0))
                places = " and ".join([f"{text} at {at}" if at else text for at, text in given])
                raise TensorProgramError(
                    f"two different {kind} are called {name!r}: {places}",
                    why="in a program a name with its attributes is the object: that is how weights are shared",
                    fix="give them different names, or the same attributes",
                    source=given[1][0],
                )

        for x in self.nodes:
            if x.op in ("matmul", "matrix"):
                of = x.attr if x.op == "matrix" else x.attr.matrix
                unique("matrices", of.name, of, x)
                for w in (of.rows, of.cols):
                    unique("widths", w.name, w, x)
            elif x.op == "vector":
                unique("vectors", x.attr.name, getattr(x.attr, "weights", x.attr), x)
                unique("widths", x.attr.width.name, x.attr.width, x)
            elif x.op == "scalar":
                unique("hyperparameters", x.attr.name, x.attr, x)
            elif x.op == "inverse_sqrt":
                unique("widths", x.attr.name, x.attr, x)

    # ---- contents ----
    @property
    def matrices(self) -> list[Matrix]:
        """The initial matrices, by name."""
        of = [x.attr if x.op == "matrix" else x.attr.matrix for x in self.nodes if x.op in ("matmul", "matrix")]
        found = {m.name: m for m in of}
        return [found[name] for name in sorted(found)]

    @property
    def vectors(self) -> list[VectorSpec]:
        """Its initial vectors, by name; of one name several, where an input layer is applied to several sets of data."""
        found = dict.fromkeys([x.attr for x in self.nodes if x.op == "vector"])
        return sorted(found, key=lambda v: v.name)

    @property
    def widths(self) -> list[Width]:
        """Its widths, by name."""
        found: dict[str, Width] = {}
        for m in self.matrices:
            found |= {m.rows.name: m.rows, m.cols.name: m.cols}
        found |= {v.width.name: v.width for v in self.vectors}
        found |= {x.attr.name: x.attr for x in self.nodes if x.op == "inverse_sqrt"}
        found |= {x.width.name: x.width for x in self.nodes if x.width is not None}
        return [found[name] for name in sorted(found)]

    @property
    def scalars(self) -> dict[str, Any]:
        """Its hyperparameters and their defaults (None: no default), by name."""
        found = {x.attr.name: x.attr.default for x in self.nodes if x.op == "scalar"}
        return {name: found[name] for name in sorted(found)}

    @property
    def scalar_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of its hyperparameters, by name: () for a number."""
        return {x.attr.name: x.shape for x in self.nodes if x.op == "scalar"}

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The large arrays that its text names and does not contain: `tp.parse(str(p), arrays=p.arrays) == p`."""
        from tensorprog.text.show import arrays

        return arrays(self)

    @property
    def digest(self) -> str:
        """Hexadecimal digest of outputs and their content."""
        items = [(name, o.axes, o.node.digest.hex()) for name, o in sorted(self.outputs.items())]
        return hashlib.blake2b(encode(tuple(items)), digest_size=16).hexdigest()

    def values(self, given: Mapping[str, Any] | None) -> dict[str, Any]:
        """Numbers for the hyperparameters: those given, else the defaults.

        Raises:
            TensorProgramError: for a name the program does not have, and for one without a value.
        """
        scalars = self.scalars
        given = checked_values(given, scalars, "the program")
        shapes = self.scalar_shapes
        out = {name: value_of(name, given.get(name, default), shapes[name]) for name, default in scalars.items()
               if given.get(name, default) is not None}  # fmt: skip
        missing = [name for name in scalars if name not in out]
        if missing:
            raise TensorProgramError(
                f"hyperparameter {missing[0]} has no value",
                fix=f'pass values={{"{missing[0]}": ...}}; on the command line --values {missing[0]}=...',
                source=next(x.source for x in self.nodes if x.op == "scalar" and x.attr.name == missing[0]),
            )
        return out

    def __reduce__(self) -> tuple[Any, ...]:
        """As a flat list of instructions: a deep program crosses a process boundary, too."""
        slots = {x: i for i, x in enumerate(self.nodes)}
        rows = [
            (x.op, [slots[a] for a in x.args], x.attr, x.shape, x.width, x.inner, x.source, x.label) for x in self.nodes
        ]
        outputs = {name: (slots[o.node], o.axes) for name, o in self.outputs.items()}
        return _restored, (rows, outputs)

    def __iter__(self) -> Iterator[str]:
        return iter(self.outputs)

    def __len__(self) -> int:
        return len(self.outputs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Program) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __str__(self) -> str:
        from tensorprog.text.show import show

        return show(self)

    def __repr__(self) -> str:
        return str(self)

    def _repr_svg_(self) -> str:
        """The picture that a notebook shows."""
        from tensorprog.drawing.picture import picture

        return picture(self).svg

    def graph(self) -> networkx.DiGraph[str]:
        """The program as a networkx graph: one vertex for each node, edges from operands."""
        from tensorprog.text.graph import graph

        return graph(self)


def _restored(rows: list[tuple[Any, ...]], outputs: dict[str, tuple[int, tuple[str, ...]]]) -> Program:
    nodes: list[Node] = []
    for op, args, attr, shape, width, inner, source, label in rows:
        x = Node(op, tuple([nodes[i] for i in args]), attr, shape, width, inner)
        x.source, x.label = source, label
        nodes.append(x)
    return Program({name: Output(nodes[i], axes) for name, (i, axes) in outputs.items()})


def _place(x: Any, node: Node) -> Source | None:
    """Where a matrix, or what a node brings into a program, is defined."""
    return x.source if isinstance(x, Matrix) else node.source


def _attributes(x: Any) -> str:
    if isinstance(x, Matrix):
        share = "" if x.share == 1 else f", share {x.share}"
        return f"{x.rows.name} x {x.cols.name}, var {x.var}{share}{_std(x)}"
    if isinstance(x, Width):
        return f"ratio {x.ratio}"
    if isinstance(x, VectorSpec):
        law = f"var {_short(x.var)}" if x.cov is None else f"cov {_short(x.cov)}"
        trained = "" if not x.trainable else ", trained" if x.lr is None else f", lr {x.lr}"
        return f"width {x.width.name}, mean {_short(x.mean)}, {law}{trained}{_std(x)}"
    return str(x)


def _std(x: Matrix | VectorSpec) -> str:
    return "" if x.std is None else f", std {describe(x.std)}"


def checked_values(given: Any, names: Collection[str], whose: str) -> dict[str, Any]:
    """What a user gives for hyperparameters, as a dictionary.

    Args:
        given: What may be one, or None.
        names: Of the hyperparameters there are.
        whose: They are, for the message.

    Raises:
        TensorProgramError: It is no dictionary, or has a name that there is not.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise TensorProgramError(f"values={given!r}", fix='give a dictionary: values={"s": 2}')
    for name in given:
        if name not in names:
            raise TensorProgramError(
                f"{whose} has no hyperparameter {name!r}",
                why=f"it has {', '.join(names) or 'none'}",
                fix="check the name",
            )
    return dict(given)


def value_of(name: str, given: Any, shape: tuple[int, ...]) -> Number | np.ndarray:
    """The value of a hyperparameter: a number, or an array of its shape.

    Raises:
        TensorProgramError: It has another shape.
    """
    value: Any = numbers(given, f"hyperparameter {name}")
    if np.shape(value) not in ((), shape):
        raise TensorProgramError(
            f"hyperparameter {name} is given an array of shape {np.shape(value)}",
            fix=f"give one of shape {shape}, or one number for all" if shape else "give one number",
        )
    if shape and not np.shape(value):
        value = np.full(shape, value, dtype=object if isinstance(value, Fraction) else None)
        value.setflags(write=False)
    return value


def _short(x: Any) -> str:
    return str(x) if not hasattr(x, "shape") else f"array {x.shape}"
