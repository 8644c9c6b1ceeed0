"""Scalar programs where floats end: arrays with an exponent of their own, for numbers below 1e-308 and above 1e308.

Sixty layers of standard deviation 1e-3 make variances of 1e-360, and what multiplies them later may be as large. An array
here is one of ordinary floats times a power of 2, which every instruction that is homogeneous moves past itself exactly: in
range, results are those of ordinary arithmetic, bit by bit. What is not homogeneous (an integral of tanh) gets ordinary
floats, and what is too small for them is 0 there: where numbers are moved to measure errors, it is moved by more than itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorprog.arrays.contraction import Contraction
from tensorprog.arrays.elementwise import kernel, raised
from tensorprog.arrays.plan import schedule
from tensorprog.language.functions import NORMAL, PRIMITIVES, TINY
from tensorprog.language.node import Node
from tensorprog.limits.evaluate.perturb import Perturbation
from tensorprog.limits.gauss.duals import DUALS

if TYPE_CHECKING:
    from tensorprog.limits.evaluate.scalar import ScalarProgram

__all__ = ["FLOOR", "Wide", "out_of_range", "run_wide", "stated"]

Array = np.ndarray
SCALED = frozenset(DUALS) - {"share", "shares", "shares_size", "difference", "arcsine_noisy"}
"""Closed forms that are brought into range, or need not be."""
FLOOR = 1e-290
"""Errors up to this are those of numbers that are too small for floats."""
FLAT = 200
"""A binary exponent: far below the point where a smooth function is a line to all digits."""
FAR = 5000
"""Binary exponents beyond this are 0 or infinite as floats, whatever the number."""


@dataclass(frozen=True, slots=True)
class Wide:
    """An array times 2**exponent.

    Attributes:
        array: Floats, the largest between 1/2 and 1 if it is finite and not 0.
        exponent: An integer.
        known: Was nothing that it is made of too small for an ordinary float where one was needed?
    """

    array: Array
    exponent: int
    known: bool = True

    @staticmethod
    def of(array: Any, exponent: int = 0) -> Wide:
        """An array times 2**exponent, normalised."""
        array = np.asarray(array, dtype=float)
        largest = float(np.max(np.abs(array), initial=0.0))
        if largest == 0 or not math.isfinite(largest):
            return Wide(array, exponent if largest else 0)
        k = math.frexp(largest)[1]
        return Wide(np.ldexp(array, -k), exponent + k)

    def seen(self, exponent: int, moved: bool = False) -> Array:
        """The array that times 2**exponent is this; if moved, what is too small for floats is moved by more than itself."""
        with np.errstate(over="ignore", under="ignore"):
            out = np.ldexp(self.array, min(max(self.exponent - exponent, -FAR), FAR))
        if moved:
            lost = (np.abs(out) < NORMAL) & (self.array != 0)
            if np.any(lost):
                out = np.where(lost, out + np.copysign(NORMAL, self.array), out)
        return out

    def narrow(self, moved: bool = False) -> Array:
        """Ordinary floats."""
        return self.seen(0, moved)


class Narrowed(Mapping[Node, Array]):
    """Wide values as ordinary floats."""

    def __init__(self, values: Mapping[Node, Wide], moved: bool) -> None:
        self._values, self._moved = values, moved

    def __getitem__(self, x: Node) -> Array:
        return self._values[x].narrow(self._moved)

    def __iter__(self) -> Iterator[Node]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def _magnitude(x: Wide) -> str:
    """The largest entry, to two digits; nothing if it is 0 or unknown."""
    largest = float(np.max(np.abs(x.array), initial=0.0))
    if largest == 0 or not math.isfinite(largest):
        return ""
    log = math.log10(largest) + x.exponent * math.log10(2)
    power = math.floor(log)
    return f"about {10 ** (log - power):.1f}e{power:+d}"


def out_of_range(x: Wide) -> str:
    """What there is to know of numbers that are no floats, or not to all digits; else nothing."""
    there, known = x.narrow(), _magnitude(x)
    if np.any(np.isinf(there)) and known:
        return f"it is {known}, and the largest float is 1.8e+308"
    if not x.known:
        known = "smaller than that"
    if np.any((np.abs(there) < NORMAL) & ((x.array != 0) | (not x.known))):
        if float(np.max(np.abs(there), initial=0.0)) >= NORMAL:
            return "some entries are smaller than 2.2e-308, from where on floats lose digits; below 5e-324 they are 0"
        return f"floats lose digits below 2.2e-308, and are 0 below 5e-324: it is {known}"
    return ""


def stated(answer: tuple[Any, Any, str, str], x: Wide) -> tuple[Any, Any, str, str]:
    """(value, error, method, kind), the errors not below what floats do to numbers as small as these."""
    value, error, method, _ = answer
    small = np.abs(value) < NORMAL
    lost = small & ((np.broadcast_to(x.array, np.shape(value)) != 0) | ((error > 0) & (error < FLOOR)))
    if not np.any(lost):
        return answer
    error = np.where(lost, np.maximum(error, TINY), error)
    return value, float(error) if error.ndim == 0 else error, method, "bound"


def _value(x: Node, args: Sequence[Wide], moved: bool) -> Wide:
    """An instruction of arithmetic, or a structural one.

    Args:
        x: No closed form and no integral.
        args: Its operands.
        moved: Are numbers moved to measure errors?
    """
    match x.op:
        case "add":
            terms = [Wide.of(a.array * float(c), a.exponent) for c, a in zip(x.attr, args, strict=True)]
            return _full(_sum(terms), x)
        case "mul":
            out = Wide(np.ones(()), 0)
            for a, k in zip(args, x.attr, strict=True):
                out = Wide.of(out.array * raised(a.array, k), out.exponent + k * a.exponent)
            return _full(out, x)
        case "fn":
            return _function(x, args[0], moved)
        case "stack":
            top = _top(args)
            return Wide.of(kernel(x)(*[a.seen(top) for a in args]), top)
        case "view" | "take" | "pick" | "sum" | "inner":
            return Wide.of(kernel(x)(args[0].array), args[0].exponent)
    return Wide.of(kernel(x)(*[a.narrow(moved) for a in args]))


def _function(x: Node, a: Wide, moved: bool) -> Wide:
    name, parameters = x.attr
    row = PRIMITIVES[name]
    if name == "sqrt":
        half, odd = divmod(a.exponent, 2)
        return Wide.of(np.sqrt(a.array * 2 if odd else a.array), half)
    degree = -1 if name == "reciprocal" else row.homogeneity
    if degree is not None:
        return Wide.of(row.array(a.array, *parameters), degree * a.exponent)
    return Wide.of(row.array(a.narrow(moved), *parameters))


def _top(args: Sequence[Wide]) -> int:
    return max([a.exponent for a in args if np.any(a.array)], default=0)


def _sum(terms: Sequence[Wide]) -> Wide:
    top = _top(terms)
    total: Any = 0.0
    for a in terms:
        total = total + a.seen(top)
    return Wide.of(total, top)


def _full(a: Wide, x: Node) -> Wide:
    """With all axes of the node, of size 1 where it does not vary."""
    missing = len(x.shape) - a.array.ndim
    return Wide(a.array.reshape((1,) * missing + a.array.shape), a.exponent) if missing > 0 else a


def _dual(x: Node, args: Sequence[Wide], moved: bool, changed: Callable[[Sequence[Array]], Sequence[Array]]) -> Wide:
    """A closed form: variables are brought to variances of order one where its values are known to follow.

    Args:
        x: The closed form.
        args: Its operands.
        moved: Are numbers moved to measure errors?
        changed: What else is done to its operands before.
    """
    name = x.attr
    scaled: list[Array]
    exponent = 0
    match name:
        case "arccos1" | "arcsine" | "arcsine_noisy" | "sign_pair":
            a, c, b = args[-3:]
            noise = args[-5:-3]  # none, or one for each variable
            p, q = _half([a, *noise[:1]]), _half([b, *noise[1:]])
            before = [w.seen((p, q)[i % 2], moved) for i, w in enumerate(args[:-5])]  # means
            before += [w.seen(2 * (p, q)[i], moved) for i, w in enumerate(noise)]
            exponent = p + q if name == "arccos1" else 0
            if name == "arcsine_noisy" and c.exponent - p - q < -2 * FLAT:  # the arcsine is linear there
                exponent = c.exponent - p - q + FLAT
                c = Wide(c.array, p + q - FLAT)
            scaled = [*before, a.seen(2 * p, moved), c.seen(p + q, moved), b.seen(2 * q, moved)]
        case "density" | "sign_mean" | "vanishing":
            m, v = args
            p = _half([v])
            scaled = [m.seen(p, moved), v.seen(2 * p, moved)]
            exponent = -p if name == "density" else 0
        case "residual" | "widened":
            u, y, z, *rest = args
            r = 2 * _half(rest)
            taken = y.exponent + z.exponent - r
            top = max([e for w, e in ((u, u.exponent), (y, taken)) if np.any(w.array)], default=0)
            top += (taken - top) % 2
            half = min(max((taken - top) // 2, -FAR), FAR)
            ends = [np.ldexp(w.array, half) for w in (y, z)]
            if x.args[1] is x.args[2]:  # a variance: the rule looks whether they are the same
                ends[1] = ends[0]
            scaled = [u.seen(top), *ends, *[w.seen(r) for w in rest]]
            exponent = top
        case "pinv":
            scaled, exponent = [args[0].array], -args[0].exponent
        case _:
            scaled = [a.narrow(moved) for a in args]
    return Wide.of(DUALS[name].array(*changed(scaled)), exponent)


def _half(variances: Sequence[Wide]) -> int:
    """About half the exponent of the largest of some variances: that of a standard deviation."""
    return _top(variances) // 2


def _narrows(x: Node) -> bool:
    """Does it take ordinary floats?"""
    if x.op == "fn":
        return x.attr.name not in ("sqrt", "reciprocal") and PRIMITIVES[x.attr.name].homogeneity is None
    return x.op in ("gauss", "guard", "laplace", "softmax") or (x.op == "dual" and x.attr not in SCALED)


def _is_small(a: Wide) -> bool:
    return bool(np.any((np.abs(a.narrow()) < NORMAL) & (a.array != 0)))


def run_wide(program: ScalarProgram, level: int, noise: int | None) -> tuple[dict[Node, Array], dict[Node, Wide]]:
    """All scalars of a program, evaluated where floats end.

    Args:
        program: Without sampled integrals.
        level: Resolution of the integrals.
        noise: Perturb every instruction, with this seed.

    Returns:
        Outputs and integrals, with what they are made of, as ordinary floats; and the outputs as they are.
    """
    perturb = None if noise is None else Perturbation([program.rng, noise])
    moved = perturb is not None
    values: dict[Node, Wide] = {}
    narrow = Narrowed(values, moved)
    for step in schedule(program.floating, moments=False):
        x = step.node
        args = [values[a] for a in step.operands]
        if isinstance(step.compute, Contraction):
            exponent = sum([k * a.exponent for k, a in zip(step.compute.powers, args, strict=True)])
            value = Wide.of(step.compute(*[a.array for a in args]), exponent)
        elif x.op == "dual":

            def changed(arrays: Sequence[Array], x: Node = x) -> Sequence[Array]:
                given = arrays if perturb is None else perturb.operands(x, arrays)
                return program.alike.operands(x, given, narrow, not moved, moved)

            value = _dual(x, args, moved, changed)
            if x.attr == "residual":
                given = [values[a].narrow(moved) for a in x.args]
                left = program.alike.left(x, given, value.array, narrow, not moved)
                value = Wide.of(left, value.exponent)
        elif x.op in ("gauss", "guard", "laplace"):
            value = Wide.of(
                program.carried_out(x, [a.narrow(moved) for a in args], narrow, level, 0, noise, perturb, not moved)
            )
        else:
            value = _value(x, args, moved)
        if perturb is not None:
            value = Wide(np.asarray(perturb.result(x, value.array)), value.exponent)
        values[x] = replace(value, known=all(a.known for a in args) and not (_narrows(x) and any(map(_is_small, args))))
    kept = program.integrals.union(*[x.args for x in program.integrals])
    outputs = {x: values[x] for x in program.floating}
    return {x: narrow[x] for x in kept} | {x: y.narrow() for x, y in outputs.items()}, outputs
