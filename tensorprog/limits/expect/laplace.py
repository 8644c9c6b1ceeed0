"""Expectations with inverse powers of quadratic forms: batch normalisation.

A factor q^(-k/2), where q is a number plus a sum over axes of squares of Gaussian variables, is an integral over s of
s^(k/2 - 1) e^(-s q): under e^(-s q) the variables are Gaussian again (`tilt.py`), and what else is in the product has a
closed form under that law. One form is a one-dimensional integral, two forms (two batches) a two-dimensional one. The
nodes of the quadrature are one more axis of the scalar program, summed with weights in the end.

Source: Tensor Programs II (Yang 2020), appendix on batch normalisation, "the Laplace method"; Yang et al. 2019, A mean
field theory of batch normalization.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tensorprog.language import algebra
from tensorprog.language.affine import carrier, slope_and_shift
from tensorprog.language.algebra import ONE, ZERO, typed
from tensorprog.language.functions import PRIMITIVES, Primitive
from tensorprog.language.node import Node, topological
from tensorprog.limits.expect.closed import Gaussian, closed_form
from tensorprog.limits.expect.domain import range_of
from tensorprog.limits.expect.moves import MOVED, opened, opened_fully, ordered, scalar_version, summand
from tensorprog.limits.expect.structure import Structure
from tensorprog.limits.gauss.finite import Order, Weights
from tensorprog.limits.gauss.tilt import EPS, Covariance, Forms, Law, Projection, Variable
from tensorprog.limits.tasks import Declined, Task

if TYPE_CHECKING:
    from tensorprog.limits.expect.expectation import Expectation

__all__ = ["homogeneous", "inverse_powers", "laplace"]

Factors = list[tuple[Node, int]]
FORMS = 2
"""Quadratic forms in one product: one dimension of quadrature each."""
FEW = 3
"""A form with a constant term in fewer variables is left to Gaussian quadrature."""


def homogeneous(structure: Structure, x: Node, argument: Node) -> Node | None:
    """f(c p) as p^k f(c), for a function of homogeneity k and random positive factors p of its argument; else None."""
    k = PRIMITIVES[x.attr.name].homogeneity
    coefficient, y = 1, argument
    while y.op == "add" and len(y.args) == 1:
        coefficient, y = coefficient * y.attr[0], y.args[0]
    if k is None or y.op != "mul" or x.width is None:
        return None
    factors = list(zip(y.args, y.attr, strict=True))
    positive = [(a, j) for a, j in factors if a.op == "fn" and structure.facts(a).families and range_of(a).low > 0]
    if not positive or len(positive) == len(factors):
        return None
    rest = typed(algebra.mul([f for f in factors if f not in positive]), x.shape, x.width, x.inner)
    inside = algebra.fn(x.attr.name, algebra.scale(coefficient, rest), *x.attr.parameters)
    return typed(algebra.mul([inside, *[(a, j * k) for a, j in positive if k]]), x.shape, x.width, x.inner)


# ---- recognising forms ----


class Form(NamedTuple):
    """A quadratic form: constant + sum over blocks of weight * (sum over extra axes of block^2).

    Attributes:
        axes: The axes of the expectation along which it varies.
        blocks: (weight, affine variable over these axes and the extra ones, shape of the extra ones).
        constant: A scalar over its axes, or none.
    """

    axes: tuple[int, ...]
    blocks: tuple[tuple[float, Node, tuple[int, ...]], ...]
    constant: Node


class _Found(NamedTuple):
    form: Form
    node: Node
    half: int


def inverse_powers(rules: Expectation, factors: Factors) -> tuple[list[tuple[Form, int]], Factors] | None:
    """The forms among the factors with the exponents k of their q^(-k/2), and the other factors; None without forms."""
    found: dict[Form, _Found] = {}
    rest: Factors = []
    numerator = False
    for a, k in factors:
        powers = _powers(rules, a, 2 * k) if a.op == "fn" and a.attr.name in ("reciprocal", "sqrt") else None
        if powers is None:
            rest.append((a, k))
            continue
        forms, scalars = powers
        rest += scalars
        for f in forms:
            before = found[f.form].half if f.form in found else 0
            found[f.form] = f._replace(half=before + f.half)
    if not any(f.half % 2 or f.half < 0 for f in found.values()) and not found:
        return None
    inverse = []
    for form, f in found.items():
        half = f.half
        if half > 0:  # a root in the numerator is q times q^(-1/2)
            numerator = True
            rest.append((f.node, (half + 1) // 2))
            half = -(half % 2)
        if half:
            inverse.append((form, -half))
    if numerator:
        nodes = {form: f.node for form, f in found.items()}
        for form, half in inverse:
            rest += [(algebra.fn("reciprocal", nodes[form]), half // 2)] if half > 1 else []
            rest += [(algebra.fn("reciprocal", algebra.fn("sqrt", nodes[form])), 1)] if half % 2 else []
        return [], rest
    return (inverse, rest) if inverse or found else None


def _powers(rules: Expectation, x: Node, half: int) -> tuple[list[_Found], Factors] | None:
    """x^(half/2) as a product of powers of forms and of deterministic factors; None where it is no such product."""
    x = opened_fully(x)
    if not rules.structure.facts(x).families:
        if half % 2:
            x = algebra.fn("sqrt", x)
            return [], [(x if half > 0 else algebra.fn("reciprocal", x), abs(half))]
        return [], [(x if half > 0 else algebra.fn("reciprocal", x), abs(half) // 2)]
    if x.op == "fn" and x.attr.name == "reciprocal":
        return _powers(rules, x.args[0], -half)
    if x.op == "fn" and x.attr.name == "sqrt":
        return _powers(rules, x.args[0], half // 2) if half % 2 == 0 else None
    if x.op == "mul" and (half % 2 == 0 or all(range_of(a).low >= 0 for a in x.args)):
        forms: list[_Found] = []
        scalars: Factors = []
        for a, k in zip(x.args, x.attr, strict=True):
            part = _powers(rules, a, half * k)
            if part is None:
                break
            forms += part[0]
            scalars += part[1]
        else:
            return forms, scalars
    form = _form(rules, x)
    if form is None or (sum(prod(e) for *_, e in form.blocks) < FEW and not form.constant.is_zero):
        return None
    return [_Found(form, x, half)], []


def _form(rules: Expectation, x: Node) -> Form | None:
    axes = tuple(sorted(rules.structure.facts(x).support)) if x.shape else ()
    y = rules.restricted(x, axes) if x.shape else x
    blocks: list[tuple[float, Node, tuple[int, ...]]] = []
    constant: list[tuple[float, Node]] = []
    shape = tuple([x.shape[i] for i in axes])
    if not _collect(rules.structure, y, 1, shape, (), blocks, constant) or not blocks:
        return None
    blocks.sort(key=lambda b: (b[1].digest, b[0]))
    return Form(axes, tuple(blocks), algebra.add(constant) if constant else ZERO)


def _collect(
    structure: Structure,
    y: Node,
    c: float,
    shape: tuple[int, ...],
    extra: tuple[int, ...],
    blocks: list[tuple[float, Node, tuple[int, ...]]],
    constant: list[tuple[float, Node]],
) -> bool:
    """Adds the terms of c times y, summed over the extra axes; False where y is no sum of squares."""
    y = opened_fully(y)
    if extra and not y.shape:
        c, extra = c * prod(extra), ()
    if not structure.facts(y).families:
        value = scalar_version(y)
        for _ in extra:
            value = algebra.sum_axis(value, len(value.shape) - 1)
        constant.append((c, value))
        return True
    if y.op == "add":
        return all(
            _collect(structure, a, c * k, shape, extra, blocks, constant) for k, a in zip(y.attr, y.args, strict=True)
        )
    if y.op == "sum":
        inside = summand(y, (*shape, *extra))
        return _collect(structure, inside, c, shape, (*extra, inside.shape[-1]), blocks, constant)
    if y.op != "mul" or c <= 0:
        return False
    factors = list(zip(y.args, y.attr, strict=True))
    random = [(a, k) for a, k in factors if structure.facts(a).families]
    fixed = [(a, k) for a, k in factors if not structure.facts(a).families]
    (u, k) = random[0]
    if len(random) > 1 or k != 2 or not structure.facts(u).affine or any(range_of(a).low < 0 for a, _ in fixed):
        return False
    if fixed:
        u = algebra.mul([algebra.fn("sqrt", algebra.mul(fixed)), u])
    blocks.append((float(c), u, extra))
    return True


# ---- the rule ----


def laplace(rules: Expectation, shape: tuple[int, ...], inverse: list[tuple[Form, int]], factors: Factors) -> Task:
    """E of the product of the factors and of q^(-k/2) for every (form, k).

    Raises:
        Declined: more than two forms, means, a numerator without closed form.
    """
    if not inverse:
        value = yield (rules.mean, algebra.mul(factors))
        return value
    facts = rules.structure.facts
    families = frozenset().union(*[facts(u).families for form, _ in inverse for _, u, _ in form.blocks])
    near, far = list[tuple[Node, int]](), [f for f in factors if facts(f[0]).families]
    fixed = [(scalar_version(a), k) for a, k in factors if not facts(a).families]
    while True:  # what shares leaves with the forms, directly or not
        joined = [f for f in far if facts(f[0]).families & families]
        if not joined:
            break
        near += joined
        far = [f for f in far if f not in joined]
        families = families.union(*[facts(a).families for a, _ in joined])
    apart = ONE
    if far:
        apart = yield (rules.mean, algebra.mul(far))
        if apart.is_zero:
            return ZERO
    support: set[int] = set().union(
        *[form.axes for form, _ in inverse], *[facts(a).support for a, _ in near if a.shape]
    )
    kept = tuple(sorted(support))
    near = [(rules.restricted(a, kept) if a.shape else a, k) for a, k in near]
    inverse = [(form._replace(axes=tuple([kept.index(i) for i in form.axes])), k) for form, k in inverse]
    value = yield from _tilted(rules, tuple([shape[i] for i in kept]), inverse, near)
    if kept and len(kept) < len(shape):
        value = algebra.view(value, kept, shape)
    return algebra.mul([*fixed, typed(apart, shape, None, None), typed(value, shape, None, None)])


class _Block(NamedTuple):
    """A block of a form, with the form it is of.

    Attributes:
        number: Of the form.
        form: The form.
        weight: Its coefficient.
        variable: What is squared, over the form's axes and those it is summed over.
        extent: The sizes of those.
    """

    number: int
    form: Form
    weight: float
    variable: Node
    extent: tuple[int, ...]


def _tilted(rules: Expectation, shape: tuple[int, ...], inverse: list[tuple[Form, int]], factors: Factors) -> Task:
    """E of a product whose axes have these sizes, and along each of which something of it varies."""
    if len(inverse) > FORMS:
        raise Declined(f"inverse powers of {len(inverse)} quadratic forms in one product")
    inverse = sorted(inverse, key=lambda f: (f[0].axes, [(u.digest, w) for w, u, _ in f[0].blocks]))
    known = _with_atoms(rules.structure, factors)
    atoms = tuple(dict.fromkeys(u for _, _, mine in known for u in mine))
    blocks = [_Block(i, form, *b) for i, (form, _) in enumerate(inverse) for b in form.blocks]
    for u in (*atoms, *[b.variable for b in blocks]):
        centred = yield from _centred(rules, u)
        if not centred:
            raise Declined("an inverse power of a quadratic form of variables that have means")
    axes = tuple(sorted({a for form, _ in inverse for a in form.axes}))
    law = Law(
        tuple([shape[a] for a in axes]),
        tuple([b.extent for b in blocks]),
        tuple([b.weight for b in blocks]),
        tuple([b.number for b in blocks]),
        tuple([k for _, k in inverse]),
    )
    forms = yield from _forms(rules, law, axes, blocks, inverse)
    node = Node("laplace", forms.flat, law, (*law.outer, law.length))
    lead = len(shape)
    spread = algebra.view(node, [*axes, lead], (*shape, law.length))
    variables: list[Variable[Node]] = []
    projections = []
    for u in atoms:
        variable = yield from _seen_by(rules, shape, u, blocks)
        variables.append(variable)
        projection = Projection(law, lead)
        projections.append(Node("laplace", (spread, *variable.covariances), projection, (*shape, projection.length)))
    tilted = {}
    for i, u in enumerate(atoms):
        for j in range(i + 1):
            covariance = yield from _spread_covariance(rules, u, atoms[j])
            variances = (variables[i].variance, variables[j].variance)
            given = (spread, projections[i], projections[j], covariance, *variances)
            tilted[i, j] = Node("laplace", given, Covariance(law, lead, i == j), (*shape, law.nodes))
    number = {u: i for i, u in enumerate(atoms)}
    orders: dict[Node, Order] = {}
    degrees = tuple(
        [(_order(rules.structure, a, number, orders), k, tuple([number[u] for u in mine])) for a, k, mine in known]
    )
    checks = [x for v in variables for x in (v.variance, *v.covariances)]
    weights = Node("laplace", (node, *forms.flat, *checks), Weights(law, lead, axes, degrees), (*law.outer, law.nodes))
    value: Node | None = ONE if not factors else None
    if factors and len(known) == len(factors):
        value, _ = closed_form(factors, atoms, Gaussian(tuple([ZERO] * len(atoms)), tilted), rules.budget)
    if value is None:
        rules.unweighed.append(weights)
        raise Declined("a function without closed form, times an inverse power of a quadratic form")
    everywhere = algebra.view(weights, [*axes, lead], (*shape, law.nodes))
    whole = typed(algebra.mul([everywhere, value]), (*shape, law.nodes), None, None)
    return algebra.sum_axis(whole, lead)


def _forms(
    rules: Expectation, law: Law, axes: tuple[int, ...], blocks: Sequence[_Block], inverse: list[tuple[Form, int]]
) -> Task:
    """The operands of the law, whose outer axes are these of the expectation."""
    n = len(axes)

    def places(b: _Block, first: int) -> list[int]:
        return [*[axes.index(a) for a in b.form.axes], *range(first, first + len(b.extent))]

    covariances, made = [], []
    for i, b in enumerate(blocks):
        for c in blocks[: i + 1]:
            full = (*law.outer, *b.extent, *c.extent)
            u = _placed(b.variable, places(b, n), full)
            v = _placed(c.variable, places(c, n + len(b.extent)), full)
            covariance = yield (rules.covariance, *ordered(u, v))
            covariances.append(covariance)
    for b in blocks:
        variance = yield from _made_of(rules, b.variable)
        made.append(_placed(variance, places(b, n), (*law.outer, *b.extent)))
    constants = [_placed(form.constant, [axes.index(a) for a in form.axes], law.outer) for form, _ in inverse]
    return Forms(covariances, made, constants)


def _seen_by(rules: Expectation, shape: tuple[int, ...], u: Node, blocks: Sequence[_Block]) -> Task:
    """The variance of u, and its covariances with every block."""
    lead, covariances = len(shape), []
    for b in blocks:
        full = (*shape, *b.extent)
        v = _placed(b.variable, [*b.form.axes, *range(lead, lead + len(b.extent))], full)
        covariance = yield from _spread_covariance(rules, _placed(u, range(lead), full), v)
        covariances.append(covariance)
    variance = yield from _spread_covariance(rules, u, u)
    return Variable(variance, covariances)


def _spread_covariance(rules: Expectation, u: Node, v: Node) -> Task:
    """Cov(u, v), as an array that has size 1 along axes on which neither varies, also where it is a constant."""
    shape = u.shape or v.shape
    support: set[int] = set().union(*[rules.structure.facts(x).support for x in (u, v) if x.shape])
    kept = tuple(sorted(support))
    if len(kept) < len(shape):
        u, v = [rules.restricted(x, kept) if x.shape else x for x in (u, v)]
    value = yield (rules.covariance, *ordered(u, v))
    return Node("view", (value,), kept, shape) if value.shape and len(kept) < len(shape) else value


def _made_of(rules: Expectation, u: Node) -> Task:
    """The variances of the terms of u, added up: what is left of u after cancellation is rounding if it is far below."""
    if u.op != "add":
        variance = yield (rules.covariance, u, u)
        return variance
    pairs = []
    for c, a in zip(u.attr, u.args, strict=True):
        variance = yield (rules.covariance, a, a)
        pairs.append((c * c, variance))
    return algebra.add(pairs)


def _centred(rules: Expectation, u: Node) -> Task:
    """Is the mean of u zero, up to the rounding of its terms?"""
    mean = yield (rules.mean, u)
    if mean.is_zero:
        return True
    if u.op != "add" or mean.op != "constant":
        return False
    size = 0.0
    for c, a in zip(u.attr, u.args, strict=True):
        term = yield (rules.mean, a)
        if term.op != "constant":
            return False
        size = size + abs(float(c)) * float(np.max(np.abs(np.asarray(term.attr, dtype=float)), initial=0.0))
    return bool(np.all(np.abs(np.asarray(mean.attr, dtype=float)) <= 64 * EPS * size))


def _placed(u: Node, index: list[int] | range, shape: tuple[int, ...]) -> Node:
    return algebra.view(u, index, shape) if u.shape else u


def _order(structure: Structure, x: Node, index: dict[Node, int], known: dict[Node, Order]) -> Order:
    """How x vanishes, or blows up, where some of its variables do: as a small tree, for `limits/gauss/finite.py:vanishing`.

    c/sqrt(q) keeps its size where q, a sum of squares of c and others, vanishes; tanh of it too, whatever its power.
    """

    def operands(y: Node) -> tuple[Node, ...]:
        if y in index or not structure.facts(y).families or carrier(y) is not y:
            return ()
        return (opened(y),) if y.op in MOVED else y.args

    for y in topological([x], operands):
        if y in known:
            continue
        parts = [known[a] for a in operands(y)]
        if y in index:
            known[y] = ("variable", index[y])
        elif not structure.facts(y).families:
            known[y] = ("sum", ())
        elif carrier(y) is not y:
            inside = carrier(y)
            shifted = slope_and_shift(y)[1] != 0
            known[y] = ("sum", ()) if shifted else _order(structure, inside, index, known)
        elif y.op == "mul":
            known[y] = ("sum", tuple([(k, p) for k, p in zip(y.attr, parts, strict=True)]))
        elif y.op == "add":
            known[y] = ("least", tuple(parts))
        elif y.op == "fn":
            known[y] = _order_of_function(PRIMITIVES[y.attr.name], y.attr.parameters, parts[0])
        else:
            known[y] = parts[0]
    return known[x]


def _order_of_function(row: Primitive, parameters: tuple[Any, ...], inside: Order) -> Order:
    if row.name in ("reciprocal", "sqrt"):
        return ("sum", ((-1 if row.name == "reciprocal" else 0.5, inside),))
    if row.homogeneity is not None:
        return ("sum", ((row.homogeneity, inside),))
    with np.errstate(all="ignore"):
        zero = float(row.array(np.float64(0), *parameters)) == 0
    return ("within", zero, row.growth != "bounded", inside)


def _with_atoms(structure: Structure, factors: Factors) -> list[tuple[Node, int, tuple[Node, ...]]]:
    """The factors that are functions of variables, with them; a function of a long contraction is not."""
    known = []
    for a, k in factors:
        try:
            known.append((a, k, structure.atoms(a)))
        except Declined:
            continue
    return known
