"""Readouts: the outputs of networks that have a law in the limit, v.x / sqrt(n), and their linear combinations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, ClassVar

import numpy as np

from tensorprog.errors import Source, TensorProgramError
from tensorprog.language import algebra, build
from tensorprog.language.axes import flatten
from tensorprog.language.data import Embedding
from tensorprog.language.deferred import Deferred, layer
from tensorprog.language.describe import describe
from tensorprog.language.expression import Expression, as_expression
from tensorprog.language.leaves import Vector
from tensorprog.language.program import Output, Program
from tensorprog.language.symbols import Number, Width, number, quotient
from tensorprog.limits.expect.lower import Lowering
from tensorprog.networks.inputs import EXAMPLE
from tensorprog.networks.layers import bias, deviation, vector

__all__ = ["Part", "Readout", "axis_names", "check_law", "fan_ins", "positions", "readout"]


@dataclass(frozen=True)
class Part:
    """One product v.x / sqrt(n) of a readout, or its bias.

    Attributes:
        name: Of v, or of the bias; "" where v is a vector of the network itself.
        x: What v multiplies; None for a bias.
        share: Its part of the fan-in.
        var: The variance of the coordinates of v.
        over: The axes along which v varies.
        own: v, where it is a vector of the network itself.
        factor: What the product is multiplied by.
        fan_in: That of the readout, over the reference width; None for a bias.
    """

    name: str
    x: Expression | None
    share: Number
    var: Number
    over: tuple[str, ...] = ()
    own: Expression | None = None
    factor: Any = 1
    fan_in: Number | None = None

    def covariance(self, other: Part, names: dict[str, str]) -> Any:
        """With a part of another output, given the body; 0 if they have no weights in common."""
        if self.name != other.name or (self.x is None) != (other.x is None):
            return 0
        if len(self.over) != len(other.over):
            raise TensorProgramError(
                f"two different readout vectors are called {self.name!r}: one for each position of {self.over or other.over}, "
                "and one for all",
                fix="give them different names, or use over= in both",
            )

        def there(y: Any, also: dict[str, str] | None = None) -> Any:
            if not isinstance(y, Expression):
                return y
            found = {**names, **(also or {})}
            return build.rename(y, **{a: b for a, b in found.items() if a in y.axes})

        if self.x is None or other.x is None:
            value: Any = self.var
        else:
            positions = dict(zip(other.over, self.over, strict=True))  # v has positions, not names
            value = build.moment(self.x * there(other.x, positions))
            if self.own is not None and other.own is not None:
                value = value * build.moment(self.own * there(other.own, positions))
            same = self.share == other.share
            value = build.sum(value, self.over) if self.over else value
            value = value * number(self.var * (self.share if same else (float(self.share) * float(other.share)) ** 0.5))
        factor = self.factor * there(other.factor)
        return value * factor


@dataclass(frozen=True)
class Readout:
    """An output f = v.x / sqrt(n) (+ b) of a network, or a linear combination of such; made by `readout`.

    Attributes:
        theta: f = n**1/2 theta, n the reference width; a scalar of the program.
        parts: The products, and the biases.
        width: That of a vector in it.
        centred: Have the v mean 0?
        per: The axis of positions that have an output each, by the same v; None for one output.
    """

    theta: Expression
    parts: tuple[Part, ...]
    width: Width
    centred: bool = True
    per: str | None = None
    is_output: ClassVar[bool] = True

    @property
    def vectors(self) -> tuple[str, ...]:
        """The names of the readout vectors."""
        return tuple([p.name for p in self.parts if p.x is not None and p.own is None])

    @property
    def bodies(self) -> tuple[Expression, ...]:
        """What the readout vectors multiply, and those of the network's own vectors that are readout vectors."""
        return tuple([x for p in self.parts for x in (p.x, p.own) if x is not None])

    def covariance(self, other: Readout, **names: str) -> Expression:
        """Of f with another f, given the body: W_std^2 x.x'/n + b_std^2; `names` rename the other's axes.

        The other may be another output, with other vectors or without a bias: what they share counts. A vector of the network
        itself counts as another, independent one with the same covariances.
        """
        total: Any = as_expression(0)
        for p in self.parts:
            for q in other.parts:
                total = total + p.covariance(q, names)
        return total

    def marked(self, rule: Callable[[Expression], Expression]) -> Readout:
        """The same with every expression replaced by a rule."""

        def changed(y: Any) -> Any:
            return rule(y) if isinstance(y, Expression) else y

        parts = [replace(p, x=changed(p.x), own=changed(p.own), factor=changed(p.factor)) for p in self.parts]
        return replace(self, theta=rule(self.theta), parts=tuple(parts))

    @property
    def expressions(self) -> tuple[Expression, ...]:
        """All that `marked` changes."""
        inside = [y for p in self.parts for y in (p.x, p.own, p.factor) if isinstance(y, Expression)]
        return (self.theta, *inside)

    # ---- linear combinations ----
    def __mul__(self, other: Any) -> Any:
        if isinstance(other, Deferred):
            return NotImplemented
        if isinstance(other, Readout):
            self.as_vector()
        c = as_expression(other)
        if c.width is not None:
            raise TensorProgramError(
                "a readout is multiplied by a vector", why="it is one number", fix="multiply it by a number or a scalar"
            )
        parts = [replace(p, factor=p.factor * c) for p in self.parts]
        return replace(self, theta=self.theta * c, parts=tuple(parts))

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        if isinstance(other, (Deferred, Readout)):
            return NotImplemented if isinstance(other, Deferred) else self.as_vector()
        return self * (1 / as_expression(other))

    def __neg__(self) -> Any:
        return self * -1

    def __pos__(self) -> Readout:
        return self

    def __add__(self, other: Any) -> Any:
        if isinstance(other, Deferred):
            return NotImplemented
        if isinstance(other, int) and other == 0:  # the start of Python's sum
            return self
        if not isinstance(other, Readout):
            raise TensorProgramError(
                "a readout is added to something else",
                why="it has a law of order 1 in the limit and mean 0; numbers and Moments have a limit",
                fix="add readouts; or make two outputs: tp.Network([f, g])",
            )
        if self.per and other.per and self.per != other.per:
            raise TensorProgramError(
                f"outputs at the positions of {self.per!r} are added to outputs at those of {other.per!r}",
                fix="name the axis alike in both; or make two outputs: tp.Network([f, g])",
            )
        theta, centred = self.theta + other.theta, self.centred and other.centred
        return Readout(theta, self.parts + other.parts, self.width, centred, self.per or other.per)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return self + (-1) * other

    def __rsub__(self, other: Any) -> Any:
        return other + (-1) * self

    def as_vector(self, *_: Any) -> Any:
        """A readout is no scalar of a program.

        Raises:
            TensorProgramError: always.
        """
        raise TensorProgramError(
            "a function of a readout, or a product of two",
            why="v.x/sqrt(n) has a law in the limit (a Gaussian process), not a value; a Tensor Program has no functions of laws",
            fix="return the readouts, tp.Network([f, g]), and apply the function to draws of their Gaussian process",
        )

    __pow__ = __rpow__ = __abs__ = __rtruediv__ = __matmul__ = __rmatmul__ = as_vector
    __lt__ = __le__ = __gt__ = __ge__ = __bool__ = __float__ = __int__ = __complex__ = as_vector

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **settings: Any) -> Any:
        """NumPy's numbers on the left, as Python's; its functions are refused."""
        name = _REFLECTED.get(ufunc.__name__)
        if name is None or method != "__call__" or len(inputs) != 2 or inputs[1] is not self:
            return self.as_vector()
        return getattr(self, name)(inputs[0])


_REFLECTED = {"add": "__radd__", "subtract": "__rsub__", "multiply": "__rmul__", "divide": "__rtruediv__"}


@layer
def readout(
    name: Any,
    x: Any,
    W_std: Any = None,
    b_std: Any = None,
    over: str | Sequence[str] = (),
    per: str | Sequence[str] = (),
) -> Readout:
    """The output f = v.x/sqrt(n) (+ b) of a network, v ~ N(0, W_std^2).

    Readouts can be added, and multiplied by numbers and scalars; no other function of them is an output.

    Args:
        name: The name of v; or a vector that stands in for it: a `tp.Vector`, an embedding that the network uses as well (tied
            weights), keys for queries (bilinear scores). Its axes are matched with those of x by name.
        x: A vector; its axes but the examples' must be summed, averaged or named in `over` or `per`. A list of vectors means
            their concatenation, with one v for each, `name_0`, `name_1`, ...
        W_std: Standard deviation of the coordinates of v, 1 by default; a `tp.Vector` has its own.
        b_std: Standard deviation of a bias; None for none.
        over: Axes to flatten: one v for each of the P positions, f = sum_p v_p.x_p / sqrt(n P). Of a vector that stands in, the
            axes over which v.x is summed.
        per: Axes to keep, such as the nodes of a graph: an output at each of the P positions (row by row, for several axes),
            by the same v and bias. Kernels are those of P outputs, (N, N', P, P').

    Returns:
        What `tp.Network` takes.

    Example:
        >>> import tensorprog as tp
        >>> x = tp.dense("U", tp.Input("x"), tp.Width("n"))
        >>> tp.kernel_fn(tp.Network(tp.readout("v", tp.relu(x), b_std=1)))([[2.0]], get="ntk")
        array([[5.]])
        >>> path = [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
        >>> h = tp.relu(tp.graph_conv("U", tp.Input("x", axes=("node",)), tp.Width("n"), path))
        >>> tp.kernel_fn(tp.Network(tp.readout("v", h, per="node")))([[[1.0], [1.0], [1.0]]], get="nngp").shape
        (1, 1, 3, 3)
    """
    axes, kept = axis_names(over, "a readout's over"), axis_names(per, "a readout's per")
    xs = [vector(y, "readout") for y in (x if isinstance(x, (list, tuple)) else [x])]
    ratios = [_width(y).ratio for y in xs]
    for y in xs:
        missing = [a for a in (*axes, *kept) if a not in y.axes]
        if missing:
            how = "over" if missing[0] in axes else "per"
            raise TensorProgramError(
                f"a readout {how} the axis {missing[0]!r}, and {describe(y.node)} has {y.axes or 'none'}",
                fix="name an axis of the vector",
            )
    if EXAMPLE in (*axes, *kept) or len({*axes, *kept}) < len(axes) + len(kept):
        raise TensorProgramError(
            f"a readout over the axes {axes}" + (f", per {kept}" if kept else ""),
            why="every example has its own output, and every axis is flattened or kept once",
            fix="name axes of one example, each once",
        )
    if len(kept) > 1:
        xs = [flatten(y, kept, positions(kept)) for y in xs]
    sizes = {a: xs[0].shape[xs[0].axes.index(a)] for a in axes}
    fan_in = _times(sum(ratios), prod(sizes.values()))  # over the reference width
    var: Number
    own, factor = None, 1
    if isinstance(name, Expression):
        v = vector(name, "readout")
        if len(xs) > 1:
            raise TensorProgramError("a readout by one vector is given a list", fix="add readouts, one for each")
        if W_std is not None:
            raise TensorProgramError(
                f"a readout by the vector {describe(v.node)} is given W_std", fix="give the vector another var"
            )
        if v.width != xs[0].width:
            raise TensorProgramError(
                f"a readout of a vector of width {_width(xs[0]).name} by one of width {_width(v).name}",
                fix="multiply one of them by a matrix first",
            )
        plain = v.node.op == "vector" and not v.axes and not isinstance(v.node.attr, Embedding)
        own = None if plain else v
        vectors, var = [v], v.node.attr.var if plain else 1
    else:
        var, factor = deviation(1 if W_std is None else W_std, f"W_std of readout {name}")
        keys = [f"{name}_{i}" for i in range(len(xs))] if len(xs) > 1 else [name]
        vectors = [
            Vector(
                key,
                _width(y),
                mean=0,
                var=var,
                axes=sizes,
                trainable=True,
                std=factor if isinstance(factor, Expression) else None,
            )
            for key, y in zip(keys, xs, strict=True)
        ]
    names = ["" if own is not None else v.node.attr.name for v in vectors]
    theta: Any = 0
    parts = []
    for key, v, y, r in zip(names, vectors, xs, ratios, strict=True):
        t = build.moment(v * y)
        theta = theta + (build.sum(t, axes) if axes else t) * (_root(quotient(_times(r, r), fan_in)) * factor)
        parts.append(Part(key, y, quotient(r, fan_in), var, axes, own, factor, fan_in))
    if b_std is not None:
        key = name if isinstance(name, str) else names[0] or "readout"
        b = bias(f"{key}_b", _width(xs[0]), b_std)
        var, factor = deviation(b_std, f"b_std of readout {key}")
        parts.append(Part(f"{key}_b", None, 1, var, factor=factor))
        theta = theta + build.moment(b) * _root(ratios[0])
    centred = own is not None or not any(np.any(v.node.attr.mean) for v in vectors)
    return Readout(theta, tuple(parts), _width(xs[0]), centred, positions(kept) or None)


def fan_ins(outputs: Sequence[Any]) -> dict[str, Number]:
    """Readout vectors by name to the fan-in of their readout, over the reference width."""
    parts = [p for o in outputs if isinstance(o, Readout) for p in o.parts]
    return {p.name: p.fan_in for p in parts if p.name and p.fan_in is not None}


def axis_names(given: Any, what: str) -> tuple[str, ...]:
    """A name, or several.

    Raises:
        TensorProgramError: these are no names.
    """
    found = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, (list, tuple)) else (given,)
    if not all(isinstance(a, str) for a in found):
        raise TensorProgramError(f"{what} is {given!r}", fix='name an axis, "node", or several, ("h", "w")')
    return found


def positions(axes: Sequence[str]) -> str:
    """The name of several axes as one; "" of none."""
    return "_".join(axes)


def _width(x: Expression) -> Width:
    assert x.width is not None
    return x.width


def _root(x: Number) -> Expression:
    return Expression(algebra.fn("sqrt", algebra.constant(x)))


def _times(a: Number, b: Number) -> Number:
    return number(a * b)


def check_law(o: Readout, source: Source | None) -> None:
    """Refuses a covariance of an output that has no law: by a vector of the network whose mean product with x has a limit.

    Raises:
        TensorProgramError: the limit is not 0.
    """
    if all(p.own is None for p in o.parts):
        return
    theta = o.theta.node
    limit = Lowering(Program({"theta": Output(theta, o.theta.names)}), {}).z.get(theta)
    if limit is not None and not (limit.op == "constant" and not np.any(limit.attr)):
        raise TensorProgramError(
            "the NNGP of a readout by a vector that is correlated with what it multiplies",
            why="such an output grows like sqrt(n): it has no law in the limit",
            fix='ask for "ntk"; put a matrix between the two; or average: tp.Network(tp.moment(x * y))',
            source=theta.source or source,
        )
