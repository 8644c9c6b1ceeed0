"""The limit as formulas: the scalar program walked once more, on SymPy expressions, with let-bindings.

Without let-bindings a recursion two layers deep is already unreadable; with them it prints as in the papers, in linear
time: what a kernel or an expectation is taken of has a name (K1, K2, ..; m1, .. for means), and so has what is used twice.
Arrays are written entry by entry: K1[i, j], with the data's covariance a symbol, Sigma[i, j]; positions that the program
fixed are numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import sympy

from tensorprog.errors import TensorProgramError
from tensorprog.language.data import VALUES
from tensorprog.language.functions import PRIMITIVES
from tensorprog.language.node import MOVES, Node, topological
from tensorprog.language.program import Program
from tensorprog.limits.evaluate.moments import check_moments
from tensorprog.limits.expect.domain import check_domains
from tensorprog.limits.expect.lower import Lowering
from tensorprog.limits.formula.duals import named
from tensorprog.limits.formula.integral import GaussianExpectation
from tensorprog.limits.formula.result import Formula
from tensorprog.limits.formula.symbols import SymbolicExpectation, SymbolicLowering
from tensorprog.limits.gauss.duals import DUALS
from tensorprog.limits.gauss.integrand import Integrand
from tensorprog.limits.jumps.check import check_jumps, suspects
from tensorprog.text.literals import letter
from tensorprog.transforms.decouple import program_for
from tensorprog.transforms.dispatch import of_networks
from tensorprog.transforms.written_out import written_out

__all__ = ["formula"]

LARGE = 24
"""A larger piece of a formula is named."""
SMALL = 4
"""A piece up to this size is written again wherever it is used."""
KERNELS = frozenset({"arccos1", "arcsine", "arcsine_noisy", "sign_pair"})
PLACES = ("take", "pick")
_ARRAYS = {
    "Sigma": "the covariance of the columns of {0}",
    "mu": "the means of the columns of {0}",
    "P": "positions that an axis is picked at, in .arrays",
}
PIECES = 16
"""A stack of more parts is not written as a Piecewise."""


@of_networks(generic=True)
def formula(program: Program, gia: bool = False) -> Formula:
    """The infinite-width limit of every output as a SymPy expression.

    Rational numbers, pi and roots are exact; hyperparameters are real symbols; kernels keep their names (`doit()` writes
    them out) and expectations without a closed form stay unevaluated, as `GaussianExpectation`.

    Args:
        program: The program (its hyperparameters need no values), or a network: then its data X is the second argument,
            and all others are keywords, with `X2`, `of`, `parametrization` and `width` of `Network.program` among them.
            Without X, or with its shape, the formula is that of the kernels of two examples x and x' in terms of their
            inner products over the number of features, S11 = x.x/d, S12 = x.x'/d, S22 = x'.x'/d; `.legend` says so.
        gia: Take the limit under the gradient independence assumption, as `limit` does.

    Returns:
        A mapping from output names to expressions over the let-bindings `.lets`.

    Raises:
        TensorProgramError: where the limit is no closed form or Gaussian integral in few variables, and where an
            instruction has no symbolic form.

    Example:
        >>> import tensorprog as tp
        >>> n = tp.Width("n")
        >>> x = tp.Vector("x", n, axes="b", cov=[[2, 1], [1, 3]])
        >>> y = tp.relu(tp.Matrix("W", n, n, var=2) @ tp.relu(x))
        >>> print(formula(tp.Program(nngp=tp.moment(y * tp.rename(y, b="c")))))
        K1[i, j] = ArcCosineKernel(Sigma[i, i], Sigma[i, j], Sigma[j, j])
        nngp[b, c] = ArcCosineKernel(Sigma[b, b], 2*K1[b, c], Sigma[c, c])
        >>> eta = tp.Scalar("eta")
        >>> print(formula(tp.Program(q=tp.moment(tp.tanh(eta * tp.Vector("z", n)) ** 2))))
        q = E[tanh(z1)**2; z1 ~ N(0, eta**2)]
        >>> net = tp.Network(tp.readout("v", tp.relu(tp.dense("U", tp.Input("x"), n, W_std=2))))
        >>> print(formula(net, of="nngp"))
        nngp = ArcCosineKernel(4*S11, 4*S12, 4*S22)
        S11: inner products of the inputs, x.x/d
        S12: inner products of the inputs, x.x'/d
        S22: inner products of the inputs, x'.x'/d

    Source: Master Theorem: Tensor Programs III, theorems 2.10 and E.15; the recursions: Cho & Saul 2009, Jacot et al.
        2018.
    """
    program = written_out(program_for(program, gia))
    check_domains(program)
    if suspects(program, {}):
        lowering = Lowering(program)
        check_moments(lowering.expectation.unweighed)
        check_jumps(program, lowering)
    lowering = SymbolicLowering(program, expectation=SymbolicExpectation(reduce=False))
    check_moments(lowering.expectation.unweighed)
    for name, o in program.outputs.items():
        if o.node in lowering.declined:
            raise TensorProgramError(
                f"output {name} has no formula: {lowering.declined[o.node]}",
                why="formulas are closed forms and Gaussian integrals in few variables",
                fix="take tp.limit(program), which samples what has no formula",
                source=o.node.source,
            )
    return _Writer(program, {name: lowering.z[o.node] for name, o in program.outputs.items()}).formula()


# ---- the walk ----


def _bare(x: Node) -> Node:
    """What an entry of x is an entry of."""
    while x.op in MOVES or (x.op == "add" and len(x.args) == 1 and x.attr == (1,)):
        x = x.args[0]
    return x


class _Writer:
    def __init__(self, program: Program, outputs: dict[str, Node]) -> None:
        self.program, self.outputs = program, outputs
        self.symbols = {
            name: sympy.IndexedBase(name, real=True) if shape else sympy.Symbol(name, real=True)
            for name, shape in sorted(program.scalar_shapes.items())
        }
        self.taken = set(self.symbols) | set(outputs)
        self.counts: Counter[str] = Counter()
        self.arrays: dict[Any, np.ndarray] = {}
        self.bases: dict[Any, Any] = {}
        self.names: dict[Node, Any] = {}
        self.numbers: dict[Node, Any] = {}
        self.lets: list[tuple[Any, Any]] = []
        self.legend: dict[str, str] = {}
        self.bound = 0
        self.order = topological(outputs.values())
        self.kinds = {x.attr.called[1]: 0 for x in self.order if x.op == "array"}
        self._roles()

    def _roles(self) -> None:
        """What each node is used as, and how often."""
        self.uses = Counter([_bare(a) for x in self.order for a in x.args if x.op not in MOVES])
        self.uses.update([_bare(x) for x in self.outputs.values()])
        self.kernels: set[Node] = set()  # covariances
        self.means: set[Node] = set()
        self.variances: set[Node] = set()  # nonnegative
        for x in self.order:
            if x.op == "dual":
                count = {
                    "sign_pair": 4,
                    "arcsine_noisy": 2,
                    "sign_mean": 1,
                    "density": 1,
                    "vanishing": 1,
                    "share": 3,
                    "shares": 8,
                }.get(x.attr, 0)
                if x.attr in ("difference", "widened"):
                    continue
                covariances = x.args[count:]
                self.variances.update([covariances[0], covariances[-1]])
                if x.attr not in KERNELS:
                    continue
            elif x.op == "gauss":
                count = x.attr.dimension
                covariances = x.args[count : count + count * (count + 1) // 2]
                self.variances.update([covariances[(i + 1) * (i + 2) // 2 - 1] for i in range(count)])
            else:
                continue
            self.means.update(map(_bare, x.args[:count]))
            self.kernels.update(map(_bare, covariances))
        for x in reversed(self.order):  # a multiple of, or a constant and, a kernel: K1 is that kernel without them
            if x.op == "add":
                (*rest,) = [(c, a) for c, a in zip(x.attr, x.args, strict=True) if a.op != "constant"]
                if x in self.variances and len(x.args) == 1 and x.attr[0] > 0:
                    self.variances.add(rest[0][1])
                if x in self.kernels and len(rest) == 1:
                    self.kernels.add(_bare(rest[0][1]))
        self.variances = {_bare(x) if x.op in PLACES else x for x in self.variances if x.op in (*PLACES, *self._OWN)}

    _OWN = ("add", "mul", "fn", "dual", "gauss", "softmax", "sum", "stack")

    def formula(self) -> Formula:
        size: dict[Node, int] = {}
        last = {
            x for x in map(_bare, self.outputs.values()) if self.uses[x] == 1
        }  # an output's own expression is its line
        for x in self.order:
            if x.op in MOVES:
                size[x] = size[x.args[0]]
                continue
            size[x] = sum([size[a] for a in x.args], int(len(x.args) > 1 or x.op == "fn")) if x.args else 1
            if x.op in ("gauss", "softmax", "sum", "stack") or (x.op == "dual" and x.attr in KERNELS):
                size[x] = max(size[x], SMALL + 1)
            shared = self.uses[x] > 1 and size[x] > SMALL
            asked = (x in self.kernels or x in self.means) and size[x] > SMALL
            if (
                x.args
                and (shared or asked or (size[x] > LARGE and x not in last))
                and not (x.op == "add" and x.attr == (1,))
            ):
                self._bind(x)
                size[x] = 1
        expressions: dict[str, Any] = {}
        axes: dict[str, tuple[Any, ...]] = {}
        shapes: dict[str, tuple[int, ...]] = {}
        for name, x in self.outputs.items():
            axes[name] = tuple([_index(a) for a in self.program.outputs[name].axes])
            shapes[name] = x.shape
            expressions[name] = self.entry(x, axes[name])
        return Formula(
            expressions,
            self.lets,
            self.symbols,
            self.program,
            self.arrays,
            axes,
            shapes,
            dict(sorted(self.legend.items())),
        )

    def _bind(self, x: Node) -> None:
        stem = "K" if x in self.kernels else "m" if x in self.means else {"softmax": "P", "sum": "S"}.get(x.op, "c")
        index = tuple([_index(letter(i)) for i in range(len(x.shape))])
        value = self._compute(x, index)
        if value.is_Rational:  # it had only looked like a formula
            self.numbers[x] = value
            return
        name = self._name(stem, number=True)
        sign = {"nonnegative": True} if x in self.variances else {"real": True}
        self.names[x] = sympy.IndexedBase(name, **sign) if x.shape else sympy.Symbol(name, **sign)
        self.lets.append((self.names[x][index] if x.shape else self.names[x], value))

    def _name(self, stem: str, number: bool = False) -> str:
        name = stem
        while number or name in self.taken:
            self.counts[stem] += 1
            name, number = f"{stem}{self.counts[stem]}", False
            number = name in self.taken
        self.taken.add(name)
        return name

    def entry(self, x: Node, index: Sequence[Any]) -> Any:
        """x at an index: symbols or integers, one for each axis."""
        while True:
            if x in self.numbers:
                return self.numbers[x]
            if x in self.names:
                return self.names[x][tuple(index)] if x.shape else self.names[x]
            if x.op == "view":
                index = [index[p] for p in x.attr]
            elif x.op == "take":
                axis, i = x.attr
                index = [*index[:axis], sympy.Integer(i), *index[axis:]]
            elif x.op == "pick":
                axis, positions = x.attr
                index = [*index[:axis], self._position(positions, index[axis]), *index[axis + 1 :]]
            elif x.op == "add" and len(x.args) == 1 and x.attr == (1,):
                index = index if x.args[0].shape else ()
            else:
                return self._compute(x, tuple(index))
            x = x.args[0]

    def _compute(self, x: Node, index: tuple[Any, ...]) -> Any:
        match x.op:
            case "constant":
                return self._constant(x, index)
            case "array":
                (kind, of), value = x.attr
                if kind == "Sigma" and len(index) == 2:  # symmetric
                    index = tuple(sorted(index, key=str))
                return self._array(value, index, kind if len(self.kinds) == 1 else f"{kind}_{of}", (kind, of))
            case "scalar":
                return self.symbols[x.attr.name][index] if x.shape else self.symbols[x.attr.name]
            case "data":
                return self._inner_products(x, index)
            case "sum":
                k = self._dummy()
                body = self.entry(x.args[0], (*index[: x.attr], k, *index[x.attr :]))
                return sympy.Sum(body, (k, 0, x.args[0].shape[x.attr] - 1))
            case "softmax":
                k = self._dummy()
                others = self.entry(x.args[0], (*index[: x.attr], k, *index[x.attr + 1 :]))
                total = sympy.Sum(sympy.exp(others), (k, 0, x.shape[x.attr] - 1))
                return sympy.exp(self.entry(x.args[0], index)) / total
            case "stack":
                return self._stack(x, index)
        args = [self.entry(a, index if a.shape else ()) for a in x.args]
        match x.op:
            case "add":
                return sympy.Add(*[_number(c) * a for c, a in zip(x.attr, args, strict=True)])
            case "mul":
                return sympy.Mul(*[a**k for a, k in zip(args, x.attr, strict=True)])
            case "fn":
                name, parameters = x.attr
                return PRIMITIVES[name].sympy(sympy, args[0], *map(_number, parameters))
            case "dual":
                return named[x.attr](*args) if x.attr in named else DUALS[x.attr].sympy(sympy, *args)
            case "guard":
                return args[0]
            case "gauss":
                return _expectation(x.attr, args)
            case "laplace":
                raise TensorProgramError(
                    "inverse powers of sums of squares (batch normalisation) have no formula here, only numbers",
                    why="they are integrals over Gaussian laws tilted by a matrix inverse at every node",
                    fix="take tp.limit(program)",
                )
        raise TensorProgramError(
            f"the instruction {x.op} has no symbolic form",
            why="formulas know sums, products, primitives, axes, closed forms and Gaussian integrals",
            fix="take tp.limit(program) for the number",
        )

    def _inner_products(self, x: Node, index: tuple[Any, ...]) -> Any:
        """Those of two examples' inputs: a symbol S12, S_image12[i, j], .., explained in the legend."""
        if x not in self.bases:
            name, change, other, fixed, *slots, _ = x.attr
            if fixed == VALUES:
                self.bases[x] = self._coefficients(name, slots[0], x.shape)
                return self._inner_products(x, index)
            several = len({y.attr.name for y in self.order if y.op == "data"}) > 1
            stem = (
                "S"
                + (f"_{name}" if several or other != name else "")
                + (f"_{other}" if other not in ("", name) else "")
            )
            symbol = self._name(f"{stem}{slots[0] + 1}{slots[1] + 1}" if other else f"{stem}{slots[0] + 1}")
            sides = [f"{k}{chr(39) * i}" for k, i in zip((name, other), slots, strict=True)]
            how = "patches of " if change or (isinstance(fixed, tuple) and fixed) else ""
            meaning = (
                f"{how}{sides[0]}.{sides[1]}/d" if other else f"{sides[0]} with the fixed data of the network, over d"
            )
            shape = "" if not x.shape else ", entry by entry, for the positions " + " x ".join(map(str, x.shape))
            self.legend[symbol] = f"inner products of the inputs, {meaning}{shape}"
            if x.shape:
                self.bases[x] = sympy.IndexedBase(symbol, real=True)
            else:
                self.bases[x] = sympy.Symbol(
                    symbol, **({"nonnegative": True} if slots[0] == slots[1] else {"real": True})
                )
                self.symbols[symbol] = self.bases[x]
        return self.bases[x][index] if x.shape else self.bases[x]

    def _coefficients(self, name: str, slot: int, shape: tuple[int, ...]) -> Any:
        """An example's numbers without features: a symbol with the name of the Input, and its number."""
        symbol = self._name(f"{name}{slot + 1}")
        entries = f", for the positions {' x '.join(map(str, shape))}" if shape else ""
        self.legend[symbol] = f"coefficients of the example {name}{chr(39) * slot}{entries}"
        if shape:
            return sympy.IndexedBase(symbol, real=True)
        self.symbols[symbol] = sympy.Symbol(symbol, real=True)
        return self.symbols[symbol]

    def _position(self, positions: tuple[int, ...], i: Any) -> Any:
        """positions[i]: an affine function of i, one up to whole turns, or an entry of an array of integers."""
        if i.is_Integer:
            return sympy.Integer(positions[int(i)])
        start, k = positions[0], len(positions)
        step = positions[1] - start if k > 1 else 0
        if positions == tuple([start + step * j for j in range(k)]):
            return start + step * i
        if positions == tuple([(start + step * j) % k for j in range(k)]):
            return sympy.Mod(start + step * i, k)
        return self._array(np.array(positions), (i,), "P", ("P", positions))

    def _dummy(self) -> Any:
        self.bound += 1
        while f"s{self.bound}" in self.taken:  # a symbol of the user's
            self.bound += 1
        self.taken.add(f"s{self.bound}")
        return _index(f"s{self.bound}")

    def _stack(self, x: Node, index: tuple[Any, ...]) -> Any:
        position, rest = index[x.attr], (*index[: x.attr], *index[x.attr + 1 :])

        def part(i: int) -> Any:
            return self.entry(x.args[i], rest if x.args[i].shape else ())

        if getattr(position, "is_Integer", False):
            return part(int(position))
        if len(x.args) > PIECES:
            raise TensorProgramError(
                f"a stack of {len(x.args)} different scalars has no readable formula",
                fix="take positions of it: tp.take",
            )
        cases = [(part(i), sympy.Eq(position, i)) for i in range(len(x.args) - 1)]
        return sympy.Piecewise(*cases, (part(len(x.args) - 1), True))

    def _constant(self, x: Node, index: tuple[Any, ...]) -> Any:
        if not isinstance(x.attr, np.ndarray):
            return _number(x.attr)
        a = np.broadcast_to(x.attr, x.shape)
        if (
            a.ndim == 2
            and a.shape[0] == a.shape[1]
            and a[0, 0] != 0
            and np.array_equal(a, a[0, 0] * np.eye(len(a), dtype=int))
        ):
            return _number(a[0, 0]) * sympy.KroneckerDelta(*index)
        return self._array(a, index, "A", x)

    def _array(self, a: np.ndarray, index: tuple[Any, ...], stem: str, key: Any) -> Any:
        if all(getattr(i, "is_Integer", False) for i in index):
            return _number(a[tuple(map(int, index))])
        if key not in self.bases:
            name = self._name(stem, number=stem == "A")
            base = self.bases[key] = sympy.IndexedBase(name, real=True)
            self.arrays[base] = a
            kind, of = key if isinstance(key, tuple) else ("", "")
            self.legend[name] = _ARRAYS.get(kind, "numbers of the program, in .arrays").format(of)
        return self.bases[key][index]


def _index(name: str) -> Any:
    return sympy.Symbol(name, integer=True, nonnegative=True)


def _number(c: Any) -> Any:
    if isinstance(c, Fraction):
        return sympy.Rational(c.numerator, c.denominator)
    return sympy.Integer(int(c)) if isinstance(c, (int, np.integer)) else sympy.Float(float(c), 17)


def _expectation(integrand: Integrand, args: Sequence[Any]) -> Any:
    """E of the integrand's body over its variables z1, z2, ..; the parameters written in."""
    d = integrand.dimension
    k = d + d * (d + 1) // 2
    z = [sympy.Symbol(f"z{i + 1}", real=True) for i in range(d)]
    done: dict[Node, Any] = {}
    for x in topological([integrand.body]):
        operands = [done[a] for a in x.args]
        match x.op:
            case "var":
                done[x] = z[x.attr]
            case "param":
                done[x] = args[k + x.attr]
            case "constant":
                done[x] = _number(x.attr)
            case "add":
                done[x] = sympy.Add(*[_number(c) * a for c, a in zip(x.attr, operands, strict=True)])
            case "mul":
                done[x] = sympy.Mul(*[a**j for a, j in zip(operands, x.attr, strict=True)])
            case "fn":
                name, parameters = x.attr
                done[x] = PRIMITIVES[name].sympy(sympy, operands[0], *map(_number, parameters))
            case _:
                raise TensorProgramError(f"a {x.op} inside an integrand has no symbolic form", fix="please report this")
    body, means, covariance = done[integrand.body], args[:d], args[d:k]
    if d == 2 and sympy.default_sort_key(covariance[2]) < sympy.default_sort_key(covariance[0]):
        body = body.xreplace({z[0]: z[1], z[1]: z[0]})
        means, covariance = means[::-1], covariance[::-1]
    return GaussianExpectation(body, z, means, covariance)
