"""Networks: functions of data with random weights, and the programs of their kernels."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from tensorprog.errors import Source, TensorProgramError, caller
from tensorprog.language import algebra
from tensorprog.language.axes import flatten
from tensorprog.language.data import ArrayData, Data, Embedding, Values
from tensorprog.language.deferred import Deferred, carry_out
from tensorprog.language.describe import describe
from tensorprog.language.expression import Expression
from tensorprog.language.leaves import inverse_sqrt
from tensorprog.language.node import Node, topological
from tensorprog.language.program import Output, Program
from tensorprog.networks.generic import generic_pair, is_generic
from tensorprog.networks.identity import content, summary
from tensorprog.networks.inputs import EXAMPLE, Bound, Input
from tensorprog.networks.outputs import (
    OTHER,
    OUTPUTS,
    Body,
    concatenated,
    has_positions,
    joined,
    joined_blocks,
    of_outputs,
    seen,
)
from tensorprog.networks.readouts import Readout, axis_names, check_law, fan_ins, positions
from tensorprog.networks.samples import Batch, batches, reduced, same_features
from tensorprog.transforms.backprop import backprop
from tensorprog.transforms.decouple import in_forward_pass, program_for
from tensorprog.transforms.parametrization import Parametrization
from tensorprog.transforms.parametrization import parametrization as named
from tensorprog.transforms.tangent import parameters, tangent
from tensorprog.transforms.written_out import written_out_nodes

__all__ = ["Network"]

_MEMORIES = ("_bodies", "_programs", "_coordinates")


class Network:
    """A network: one or several outputs as functions of data.

    Args:
        outputs: A `tp.readout`, or a scalar (a Moment: an average readout); a list of them; or a function of the Inputs that
            returns such, called once for every shape of an example, with weights shared by name.
        inputs: The Inputs a function is called with; by default one for each of its parameters, with the parameter's name
            (a parameter's default value may be an Input, which gives it axes).
        per: Axes that Moments may keep: an average readout at each position. (For a readout, see its `per`.)

    Raises:
        TensorProgramError: what is no output.

    Example:
        >>> import tensorprog as tp
        >>> n = tp.Width("n")
        >>> h = tp.dense("U", tp.Input("x"), n)
        >>> net = tp.Network(tp.readout("v", tp.relu(tp.dense("W", tp.relu(h), n, W_std=2**0.5))))
        >>> limit = tp.limit(net.program([[1.0, 2.0], [2.0, -1.0]]))
        >>> limit["nngp"].value.round(4).tolist(), limit["ntk"].value.round(4).tolist()
        ([[1.25, 0.6172], [0.6172, 1.25]], [[3.75, 0.8571], [0.8571, 3.75]])

    Source: Tensor Programs II (arXiv:2006.14548), section 2: programs of networks of any architecture.
    """

    def __init__(self, outputs: Any, inputs: Sequence[Input] | None = None, per: str | Sequence[str] = ()) -> None:
        self.source: Source | None = caller()
        self.per = axis_names(per, "a network's per")
        self.function: Callable[..., Any] | None = None
        self.several = isinstance(outputs, (list, tuple))
        self._known_content: tuple[Any, ...] | None = None
        self._bodies: dict[Any, Body] = {}
        self._parameters: set[str] = set()
        self._programs: dict[Any, Program] = {}
        self._coordinates: dict[Any, list[dict[str, np.ndarray] | None]] = {}
        if callable(outputs) and not isinstance(outputs, (Expression, Deferred)):
            self.function = outputs
            self.inputs = tuple(inputs) if inputs is not None else _inputs_of(outputs)
            return
        self.outputs = tuple(outputs) if self.several else (outputs,)
        places = _places(list(self.outputs))
        found = {x.key: x for x in places}
        for x in places:  # two of one name are one, and get the same data
            other = found[x.key]
            if x.axis_names != other.axis_names or not _same(x.value, other.value):
                raise TensorProgramError(
                    f"two different inputs are called {x.key!r}: {x!r} and {other!r}",
                    fix="give them different names",
                    source=max(x.source, other.source, key=str) if x.source and other.source else None,
                )
        self.inputs = tuple(found[k] for k in sorted(found)) if inputs is None else tuple(inputs)
        for o in self.outputs:
            if not isinstance(o, (Deferred, Readout, Expression)):
                raise TensorProgramError(
                    f"an output of a network is {type(o).__name__}",
                    fix='give tp.readout("v", x), or a scalar such as tp.moment(x * x)',
                )

    def __getstate__(self) -> dict[str, Any]:
        """Without what is remembered; outputs and inputs as one recorded call, so that they keep what they share."""
        forgotten = {k: type(v)() for k, v in self.__dict__.items() if k in _MEMORIES}
        state = {k: v for k, v in self.__dict__.items() if k not in ("outputs", "inputs")} | {"_known_content": None}
        return {**state, **forgotten, "recorded": Deferred(None, (getattr(self, "outputs", None), self.inputs))}

    def __setstate__(self, state: dict[str, Any]) -> None:
        outputs, self.inputs = state.pop("recorded").args
        if outputs is not None:
            self.outputs = outputs
        self.__dict__.update(state)

    def _content(self) -> tuple[Any, ...]:
        if self._known_content is None:
            self._known_content = (self.per, *content(self.function, getattr(self, "outputs", None), self.inputs))
        return self._known_content

    def __eq__(self, other: object) -> bool:
        """Have they the same recorded calls, numbers and inputs; or, networks that are functions, the same function?"""
        return isinstance(other, Network) and (self is other or self._content() == other._content())

    def __hash__(self) -> int:
        return hash(self._content())

    def __repr__(self) -> str:
        return summary(self.function, getattr(self, "outputs", None), self.inputs)

    # ---- building ----
    def body(self, data: Mapping[str, tuple[Data, tuple[str, ...]]]) -> Body:
        """The network on data.

        Args:
            data: Name of an Input to its data and the names of the data's axes.
        """
        key = tuple(sorted((k, d.encoded(), a) for k, (d, a) in data.items()))
        found = self._bodies.get(key)  # kept in hand: another thread may clear the memory
        if found is None:
            bound = {k: Expression(d.node, a) if isinstance(d, Values) else Bound(d, a) for k, (d, a) in data.items()}
            outputs = _forward(self._outputs(bound))
            thetas = [o.theta if isinstance(o, Readout) else o for o in outputs]
            _check_names(thetas, self.source)
            backward = tuple([backprop(seen(t, data), has_positions(t)) for t in thetas])
            if len(self._bodies) > 8:
                self._bodies.clear()
            found = self._bodies[key] = Body(tuple(outputs), backward, self.several or any(map(has_positions, thetas)))
            self._parameters.update(parameters(backward))
        return found

    def _outputs(self, bound: Mapping[str, Any]) -> list[Any]:
        given: dict[str, Any] = {}
        for x in self.inputs:
            given[x.key] = Bound(ArrayData(x.value), x.axis_names) if x.value is not None else bound[x.key]
        if self.function is not None:
            found = self.function(*[given[x.key] for x in self.inputs])
            self.several = isinstance(found, (list, tuple))
        else:
            places = {id(x): given[x.key] for x in _places(list(self.outputs))}
            found = carry_out(list(self.outputs), places)
        outputs = list(found) if isinstance(found, (list, tuple)) else [found]
        if not outputs:
            raise TensorProgramError(
                "the network has no outputs", fix="return a readout, a Moment, or a list of them", source=self.source
            )
        for o in outputs:
            theta = o.theta if isinstance(o, Readout) else o
            if not isinstance(theta, Expression) or theta.width is not None or theta.node.inner is not None:
                what = describe(theta.node) if isinstance(theta, Expression) else repr(theta)
                raise TensorProgramError(
                    f"an output of the network is {what}",
                    why="an output is a readout or a Moment",
                    fix='use tp.readout("v", x), or tp.moment(x * x)',
                    source=(isinstance(theta, Expression) and theta.node.source) or self.source,
                )
            kept = (o.per,) if isinstance(o, Readout) else self.per
            extra = [a for a in theta.axes if a != EXAMPLE and a not in kept]
            if extra:
                a, whose = extra[0], "readout" if isinstance(o, Readout) else "Network"
                raise TensorProgramError(
                    f"an output of the network has the axis {a!r}",
                    why="an output is one number for each example",
                    fix=f'sum or average: tp.mean(x, "{a}"); tp.readout(.., over="{a}") for one v a position; '
                    f'or tp.{whose}(.., per="{a}") for an output at each position',
                    source=theta.node.source or self.source,
                )
        averages = [o for o in outputs if not isinstance(o, Readout)]
        unknown = [a for a in self.per if not any(a in o.axes for o in averages)]
        if unknown or len(set(self.per)) < len(self.per) or EXAMPLE in self.per:
            raise TensorProgramError(
                f"a network per {', '.join(self.per)}",
                why=f"no Moment has the axis {unknown[0]!r}" if unknown else "these are axes of one example, each once",
                fix='give the axes of an average readout; of a readout, tp.readout(.., per="node")',
                source=self.source,
            )
        together = positions(self.per)
        for i, o in enumerate(outputs):
            here = [] if isinstance(o, Readout) else [a for a in self.per if a in o.axes]
            if len(here) > 1:
                outputs[i] = flatten(o, here, together)
        return outputs

    # ---- programs ----
    options: ClassVar[tuple[str, ...]] = ("X", "X2", "of", "parametrization", "width")
    """What `program` takes; gradient independence is an option of the functions of programs, too."""

    @property
    def needs_data(self) -> bool:
        """Has it an Input without a value of its own?"""
        return any(x.value is None for x in self.inputs)

    def as_program(self, X: Any = None, *, generic: bool = False, **options: Any) -> Program:
        """The program that a function of programs gets in place of a network.

        Args:
            X: As for `program`.
            generic: Without data, or with a shape in place of it, the kernels of a generic pair of examples, whose inner
                products are symbols.
            options: As for `program`.

        Raises:
            TensorProgramError: there is no data.
        """
        if generic and self.needs_data and "X2" not in options and is_generic(X):
            return generic_pair(self, X, **options)
        if X is None and self.needs_data:
            raise TensorProgramError(
                "a network without data",
                why="what it computes depends on X",
                fix="pass X as the second argument: an array (examples, ..., features), or a shape for generic data",
            )
        return self.program(X, **options)

    def program(
        self,
        X: Any = None,
        X2: Any = None,
        of: str | Sequence[str] | None = None,
        parametrization: str = "ntk",
        width: int | None = None,
        gia: bool = False,
    ) -> Program:
        """The program of the network's kernels on data: print it, take its limit, run it at finite width, compare.

        Args:
            X: Data: an array (examples, *axes, features); a list of arrays (*axes, features) of different sizes; a dictionary
                of such for several Inputs; or a shape, for seeded generic data. X is one batch.
            X2: Data of a second batch, for the columns of the kernels; X itself by default.
            of: `"nngp"` (or `"f0_cov"`: the covariance of the outputs given the body, W_std^2 x.x'/n + b_std^2; where v
                occurs in the body as well, that of another, independent v), `"ntk"`, `"ntk_NAME"` for the part of one
                parameter, `"f"` for the outputs themselves, which have no limit: at finite width only.
                An average readout has no NNGP; its NTK is N Theta, and its `"f"` has a limit. By default
                `("nngp", "ntk")`, of an average readout `("f", "ntk")`; `"all"` is `"f"` and the kernels there are.
            parametrization: `"ntk"`, `"tp"` or `"standard"` (with a width), see `transforms/parametrization.py`.
            width: For `"standard"`.
            gia: With independent copies of the matrices in back-propagation (gradient independence): `decouple` of the program.

        Returns:
            A Program with outputs of the shape (examples, examples of X2), for several outputs with two more axes.
        """
        scheme = named(parametrization, width)
        first, second, data = self._batches(X, X2)
        wanted = self.wanted(of, first)
        key = (*data, wanted, scheme.name, width)
        program = self._programs.get(key)
        if program is None:
            if len(self._programs) > 8:
                self._programs.clear()
            program = self._programs[key] = self.program_of(first, second, wanted, scheme)
        return program_for(program, gia)

    def bodies(self, X: Any = None, X2: Any = None) -> list[Body]:
        """The forward passes, with their gradients, that `program` makes the kernels of."""
        first, second, _ = self._batches(X, X2)
        return [self.body(b.data) for b in {id(b): b for b in (*first, *second)}.values()]

    def _batches(self, X: Any, X2: Any) -> tuple[list[Batch], list[Batch], tuple[Any, ...]]:
        """The batches of the rows and of the columns, and what they are, for memories."""
        first = batches(self.inputs, X, self.source)
        second = first if X2 is None else batches(self.inputs, X2, self.source)
        same_features(first, second)
        data = (tuple([b.key for b in first]), tuple([b.key for b in second]))
        every = [*first, *([] if second is first else second)]
        known_as = (*data, second is first)
        coordinates = self._coordinates.get(known_as)
        if coordinates is None:  # they cost a factorisation, more than a short run of the program
            reduced(every, self.inputs)
            if len(self._coordinates) > 8:
                self._coordinates.clear()
            coordinates = self._coordinates[known_as] = [b.coordinates for b in every]
        for b, known in zip(every, coordinates, strict=True):
            b.coordinates = known
        return first, second, data

    def wanted(self, of: str | Sequence[str] | None, first: list[Batch]) -> tuple[str, ...]:
        """The outputs that `of` means, of `program`."""
        if of is not None and of != "all":
            return (of,) if isinstance(of, str) else tuple([str(name) for name in of])
        body = self.body(first[0].data)
        kernels = self.kernels(body)
        return ("f", *kernels) if of == "all" or not any(isinstance(o, Readout) for o in body.outputs) else kernels

    def kernels(self, body: Body) -> tuple[str, ...]:
        """The kernels that all outputs have: an average readout has no NNGP."""
        return ("nngp", "ntk") if all(isinstance(o, Readout) for o in body.outputs) else ("ntk",)

    def program_of(
        self, first: list[Batch], second: list[Batch], wanted: tuple[str, ...], scheme: Parametrization
    ) -> Program:
        """The program of batches, see `program`."""
        left = [self.body(b.data) for b in first]
        right = [self.body(b.data) for b in second]
        self.same_outputs([*left, *right])
        outputs: dict[str, Output] = {}
        for name in wanted:
            if name == "f":
                node, axes = self._f(left, first)
            else:
                node, axes = self._kernel(name, left, right, first, second, scheme)
            outputs[name] = Output(node, axes)
        return Program(outputs)

    def same_outputs(self, bodies: Sequence[Body]) -> None:
        """Refuses outputs whose number depends on the shape of an example: a kernel has a row for each of them.

        Raises:
            TensorProgramError: there are different numbers.
        """
        counts = sorted({b.count for b in bodies})
        if len(counts) > 1 or len({b.several for b in bodies}) > 1:
            raise TensorProgramError(
                f"the network has {' or '.join(map(str, counts))} outputs, depending on the shape of an example"
                if len(counts) > 1
                else "the network returns an output or a list of one, depending on the shape of an example",
                why="the kernels of all pairs of examples are one array, with axes for the outputs",
                fix="return as many outputs for every shape; or call once for each shape",
                source=self.source,
            )

    def _f(self, bodies: list[Body], parts: list[Batch]) -> tuple[Any, tuple[str, ...]]:
        columns = []
        for k in range(len(bodies[0].outputs)):
            groups = []
            for body, batch in zip(bodies, parts, strict=True):
                o = body.outputs[k]
                groups.append(seen(o.theta * _root_of_reference(o) if isinstance(o, Readout) else o, batch.data))
            columns.append(joined(groups, [b.places for b in parts]))
        if not bodies[0].several:
            return columns[0], (EXAMPLE,)
        return concatenated(columns, 1, [b.positions for b in bodies[0].backward]), (EXAMPLE, OUTPUTS[0])

    def _kernel(
        self,
        name: str,
        left: list[Body],
        right: list[Body],
        first: list[Batch],
        second: list[Batch],
        scheme: Parametrization,
    ) -> tuple[Any, tuple[str, ...]]:
        def block(i: int, j: int) -> Node:
            blocks = [[self.block(name, a, b, i, j, scheme) for b in right] for a in left]
            return joined_blocks(blocks, [b.places for b in first], [b.places for b in second])

        node = of_outputs(block, left[0], right[0], 2)
        return node, (EXAMPLE, OTHER, *(OUTPUTS if left[0].several else ()))

    def program_of_pair(self, names: Sequence[str], a: Body, b: Body, scheme: Parametrization) -> Program:
        """The kernels of two examples; with two axes where there are several outputs.

        Raises:
            TensorProgramError: the examples have different numbers of outputs.
        """
        self.same_outputs([a, b])
        return Program({name: self._kernel_of_pair(name, a, b, scheme) for name in names})

    def _kernel_of_pair(self, name: str, a: Body, b: Body, scheme: Parametrization) -> Output:
        node = of_outputs(lambda i, j: self.block(name, a, b, i, j, scheme), a, b, 0)
        return Output(node, OUTPUTS if a.several else ())

    def block(self, name: str, a: Body, b: Body, i: int, j: int, scheme: Parametrization) -> Node:
        """One kernel of output i on one batch and output j on another.

        Returns:
            A scalar whose axes are the examples of both, and then the positions of both, where there are such.
        """
        p, q = a.backward[i], b.backward[j]
        sizes = [(side.output.shape, side.positions) for side in (p, q)]
        there = [bool(k) for s, at in sizes for k in (len(s) - at, at)]  # examples, positions, and those of the other
        order = [sum(there[:k]) for k in (0, 2, 1, 3) if there[k]]
        shape = [(*p.output.shape, *q.output.shape)[k] for k in order]
        if name in ("nngp", "f0_cov"):
            f, g = a.outputs[i], b.outputs[j]
            if not isinstance(f, Readout) or not isinstance(g, Readout):
                raise TensorProgramError(
                    "an average readout has no NNGP", why="it has a limit, not a law", fix='ask for "ntk" or "f"',
                    source=self.source,
                )  # fmt: skip
            if not (f.centred and g.centred):
                raise TensorProgramError(
                    f"the NNGP of a readout by {f.vectors[0]}, whose mean is not 0",
                    why="such an output grows like sqrt(n): it has no law in the limit",
                    fix='ask for "ntk"; or average: tp.Network(tp.moment(..))',
                    source=self.source,
                )
            for o in (f, g):
                check_law(o, self.source)
            known = {x for o in (f, g) for y in o.expressions for x in y.axes}
            other = f"{g.per}2"
            while other in known:
                other += "_"
            c = f.covariance(g, **({EXAMPLE: OTHER} if g.per is None else {EXAMPLE: OTHER, g.per: other}))
            names = [n for n, k in zip((EXAMPLE, OTHER, f.per, other), (0, 2, 1, 3), strict=True) if there[k]]
            return algebra.view(c.node, [names.index(n) for n in c.names], shape)
        # Of examples of several shapes, some may not use a parameter (a sequence of one step): all have a say.
        only = name.removeprefix("ntk_") if name.startswith("ntk_") else None
        if name != "ntk" and only not in self._parameters:
            raise TensorProgramError(
                f"a network has no {name!r}",
                fix=f"ask for nngp, ntk, f, or the part of one: {', '.join('ntk_' + k for k in sorted(self._parameters))}",
                source=self.source,
            )
        return algebra.transpose(tangent(p, q, scheme, only, fan_ins([*a.outputs, *b.outputs])), order)


def _forward(outputs: list[Any]) -> list[Any]:
    """The outputs with their products marked as those of the forward pass, where these are W.T x."""
    parts = [x for o in outputs for x in (o.expressions if isinstance(o, Readout) else [o])]
    new = in_forward_pass([x.node for x in parts])
    plain = written_out_nodes([new[x.node] for x in parts])

    def marked(x: Expression) -> Expression:
        return Expression(plain[new[x.node]], x.names, x.axes)

    return [o.marked(marked) if isinstance(o, Readout) else marked(o) for o in outputs]


def _root_of_reference(o: Readout) -> Expression:
    """n**1/2 for the reference width n."""
    width = o.width
    return inverse_sqrt(width) ** -1 * Expression(algebra.fn("sqrt", algebra.constant(width.ratio))) ** -1


def _places(x: Any) -> list[Input]:
    """The Inputs that recorded calls go back to."""
    found: dict[int, Input] = {}
    seen: set[int] = set()
    stack = [x]
    while stack:
        y = stack.pop()
        if isinstance(y, dict):
            stack.extend(y.values())
        elif isinstance(y, (list, tuple)):
            stack.extend(y)
        elif isinstance(y, Input):
            found[id(y)] = y
        elif isinstance(y, Deferred) and id(y) not in seen:
            seen.add(id(y))
            stack.extend([y.args, y.keywords])
    return list(found.values())


def _same(a: Any, b: Any) -> bool:
    return (a is None and b is None) or (a is not None and b is not None and np.array_equal(a, b))


def _check_names(thetas: list[Expression], source: Source | None) -> None:
    """Refuses one name for parameters of two kinds: they would not be shared, and their parts of the kernel be one."""
    kinds: dict[str, str] = {}
    for x in topological([t.node for t in thetas]):
        if x.op == "matmul":
            name, kind = x.attr.matrix.name, "a matrix"
        elif x.op == "vector" and x.attr.trainable:
            name, kind = x.attr.name, "an input layer" if isinstance(x.attr, Embedding) else "a vector"
        else:
            continue
        if kinds.setdefault(name, kind) != kind:
            raise TensorProgramError(
                f"{name!r} is the name of {kinds[name]} and of {kind}",
                why="parameters of one name are the same weights, and these cannot be",
                fix="give every layer its own name",
                source=x.source or source,
            )


def _inputs_of(function: Callable[..., Any]) -> tuple[Input, ...]:
    found = []
    for p in inspect.signature(function).parameters.values():
        if isinstance(p.default, Input):
            found.append(p.default)
        elif p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD):
            found.append(Input(p.name, axes=None))
    return tuple(found)
