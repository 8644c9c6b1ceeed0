"""The limits of a program of batches of examples by those of one pair of them."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.estimate import Estimate
from tensorprog.language.program import Program
from tensorprog.language.symbols import encode
from tensorprog.limits.budget import Budget
from tensorprog.limits.gauss.nested import Indefinite
from tensorprog.limits.pairs.accuracy import Measured
from tensorprog.limits.pairs.apart import Pair, pair_of
from tensorprog.limits.pairs.compiled import Compiled
from tensorprog.limits.pairs.inner_products import GramProducts, Products
from tensorprog.limits.pairs.pairs import COUNTED, Pairs
from tensorprog.limits.tasks import Exhausted

__all__ = ["estimates_by_pairs"]

Array = np.ndarray
LARGE = 2**15
"""Scalars of so many entries, examples and positions, are computed pair by pair of examples."""
ALIKE = 1e-6
"""Relative difference of K(x, x') and K(x', x) up to which it is one function, computed in two ways."""

Known = tuple[Compiled, Pair]


def estimates_by_pairs(
    program: Program, values: Mapping[str, Any], budget: Budget, tolerance: float, least: int = LARGE
) -> dict[str, Estimate]:
    """The limits of all outputs, if they are arrays over two batches of examples that do not meet; else none.

    Nor where an error is larger than another route may have, or numbers leave the range of floats.

    Args:
        program: The program.
        values: Numbers for its hyperparameters.
        budget: Evaluations of integrands are counted in one like it.
        tolerance: The largest error of an entry, in units of sqrt(K(x, x) K(x', x')).
        least: Only where a scalar has so many entries.
    """
    if max([prod(x.shape) for x in program.nodes if x.is_scalar and x.op != "constant"], default=0) < least:
        return {}
    try:
        known = _compiled(program, values, budget.factor)
        if known is None:
            return {}
        compiled, data = known
        pairs = Pairs(_products(data), compiled)
        names = list(compiled.programs[0].outputs)
        budget.renewed().foresee(pairs.evaluations, "an integral")
        pairs.measure(names, Budget(COUNTED * budget.factor))
        measured = pairs.measured
        if (
            not max(measured.visible.values()) <= tolerance
            or not measured.finite
            or (measured.tiny and pairs.call.strained)
        ):
            return {}
        arrays: list[Array] = []
        for rows, columns in pairs.blocks:
            parts = pairs.evaluated(rows, columns)
            if parts[0].shape[-2:] == pairs.products.counts:  # the only block
                arrays = parts
                break
            arrays = arrays or [np.empty((*x.shape[:-2], *pairs.products.counts)) for x in parts]
            for full, part in zip(arrays, parts, strict=True):
                full[..., rows, columns] = part
                if pairs.products.same and rows != columns:
                    full[..., columns, rows] = part.T if part.ndim == 2 else part.transpose(1, 0, 3, 2)
    except (TensorProgramError, Exhausted, Indefinite):  # of data that are not known: others know these
        return {}
    if not all(np.isfinite(a).all() for a in arrays):
        return {}
    kind = "bound" if pairs.method == "quadrature" else "rounding"
    note = "the closed form cancels" if pairs.cancelled else ""
    found = {}
    for name, a in zip(names, arrays, strict=True):
        a = a if a.ndim == 2 else np.ascontiguousarray(a.transpose(2, 3, 0, 1))
        found[name] = Estimate(a, _errors(name, a, measured, pairs.products.same), pairs.method, kind, note)
    return found


def _compiled(program: Program, values: Mapping[str, Any], factor: float) -> Known | None:
    """What is evaluated, and its data, remembered with the program."""
    key = f"pairs {encode(tuple(sorted(values.items())))!r} {factor}"
    if key not in program._derived:
        program._derived[key] = None  # also where it cannot be compiled: whoever knows the data says why
        program._derived[key] = _taken_apart(program, values, factor)
    known: Known | None = program._derived[key]
    return known


def _taken_apart(program: Program, values: Mapping[str, Any], factor: float) -> Known | None:
    found = pair_of(program)
    if found is None:
        return None
    several = {len(o.node.shape) for o in found.pair.outputs.values()}
    if several not in ({0}, {2}):
        return None
    numbers = [{k: values[k] for k in p.scalars} for p in (found.pair, found.same)]
    compiled = Compiled.of(found.pair, found.same, several == {2}, factor, numbers)
    if compiled.declined or compiled.uncertain or (found.second is None and not _is_symmetric(compiled, found)):
        return None
    return compiled, found


def _products(data: Pair) -> Products | GramProducts:
    if data.given:
        ((name, gram),) = data.first.items()
        return GramProducts(gram, name, np.float64)
    return Products(data.first, data.second, np.float64)


def _is_symmetric(compiled: Compiled, data: Pair) -> bool:
    """Is K(x', x) the transpose of K(x, x')? Of what is analytic in pieces, random examples tell."""
    rng = np.random.default_rng(0)
    one, two = [{k: rng.standard_normal((2, *a.shape[1:])) for k, a in data.first.items()} for _ in range(2)]
    assert compiled.pair is not None
    results = []
    for a, b in ((one, two), (two, one)):
        p: Products | GramProducts = Products(a, b, np.float64)
        if data.given:
            ((name, x),), (y,) = a.items(), b.values()
            p = GramProducts((x @ x.T, x @ y.T, y @ y.T), name, np.float64)
        results.append(compiled.pair.run(p.block(compiled.pair.data, slice(None), slice(None))))
    there, back = results
    turned = [x.T if x.ndim == 2 else x.transpose(1, 0, 3, 2) for x in back]
    return all(
        np.allclose(x, y, ALIKE, ALIKE * np.abs(x).max(), equal_nan=True) for x, y in zip(there, turned, strict=True)
    )


def _errors(name: str, values: Array, measured: Measured, symmetric: bool) -> Array:
    """Errors of all entries, from what was measured on some: in units of the examples' sizes, where these are known."""
    error, relative = measured.error[name], measured.relative[name]
    if not symmetric or not np.isfinite(relative):
        return np.full(values.shape, error)
    size = np.sqrt(np.abs(np.einsum("iioo->io" if values.ndim == 4 else "ii->i", values)))
    one, two = size * relative, size
    scale = np.einsum("io,jp->ijop", one, two) if values.ndim == 4 else np.multiply.outer(one, two)
    return np.minimum(scale, error, out=scale)
