"""Sums of products with common factors taken out, for programs that are carried out on large arrays.

The normal form expands: the tangent kernel of L layers is a sum of L products of up to L factors, a full array each. By Horner's
rule, a (b + c (d + ..)), every factor is multiplied once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tensorprog.language import algebra
from tensorprog.language.node import Node
from tensorprog.limits.simplify.rebuild import as_it_is, rewritten

__all__ = ["factored"]

Factors = Counter[Node]
MOST = 20_000
"""Sums of more factors than this stay as they are: to look for common factors would take longer than to multiply them."""


@dataclass
class _Sum:
    """A sum that is taken apart: `terms` are left to do, `parts` are done; it is multiplied by `common` in the sum `outer`."""

    terms: list[tuple[float, Factors]]
    common: Factors
    outer: _Sum | None
    parts: list[tuple[float, Node]] = field(default_factory=list)


def factored(outputs: Sequence[Node]) -> list[Node]:
    """The outputs, sums of products of arrays along rows and columns written by Horner's rule.

    Args:
        outputs: Scalars without axes, or with; sums of such with axes stay as they are.
    """
    return rewritten(outputs, _factored, as_it_is)


def _factored(x: Node, args: Sequence[Node]) -> Node | None:
    if not (x.op == "add" and x.width and x.inner and not x.shape and _is_worth_it(x)):
        return None
    new = dict(zip(x.args, args, strict=True))
    return _horner([(float(c), _factors(new[y])) for c, y in zip(x.attr, x.args, strict=True)])


def _factors(x: Node) -> Factors:
    if x.op == "mul" and all(isinstance(k, int) and k > 0 for k in x.attr):
        return Counter(dict(zip(x.args, x.attr, strict=True)))
    return Counter({x: 1})


def _is_worth_it(x: Node) -> bool:
    found = [_factors(y) for y in x.args]
    uses = Counter(a for f in found for a in f)
    return max(uses.values()) > 1 and sum(map(len, found)) <= MOST


def _horner(terms: list[tuple[float, Factors]]) -> Node:
    sums = [_Sum(terms, Counter(), None)]
    for s in sums:  # grows while it is walked
        while s.terms:
            uses = Counter(a for _, f in s.terms for a in f)
            # of equally frequent ones full arrays first; the digest makes the order depend on content only
            most = max(uses, key=lambda a: (uses[a], bool(a.width and a.inner), a.digest)) if uses else None
            if most is None or uses[most] < 2:
                s.parts += [(c, _product(f)) for c, f in s.terms]
                break
            inside = [(c, f) for c, f in s.terms if most in f]
            s.terms = [(c, f) for c, f in s.terms if most not in f]
            common = inside[0][1]
            for _, f in inside[1:]:
                common = common & f
            sums.append(_Sum([(c, f - common) for c, f in inside], common, s))
    for s in reversed(sums):
        whole = _added(s.parts)
        if s.outer is None:
            return whole
        s.outer.parts.append((1.0, _product(s.common + Counter({whole: 1}))))
    raise AssertionError("the first sum is in no other")


def _added(parts: list[tuple[float, Node]]) -> Node:
    if len(parts) == 1 and parts[0][0] == 1:
        return parts[0][1]
    width = next((y.width for _, y in parts if y.width), None)
    inner = next((y.inner for _, y in parts if y.inner), None)
    return Node("add", tuple([y for _, y in parts]), tuple([c for c, _ in parts]), (), width, inner)


def _product(factors: Factors) -> Node:
    """A product; what is along rows only, or along columns only, is multiplied before it meets a full array."""
    kinds: dict[tuple[bool, bool], list[Node]] = {}
    for a, k in factors.items():
        kinds.setdefault((a.width is not None, a.inner is not None), []).extend([a] * k)
    parts = [_multiplied(v) for _, v in sorted(kinds.items(), reverse=True)]
    return _multiplied(parts)


def _multiplied(nodes: list[Node]) -> Node:
    if not nodes:
        return algebra.constant(1)
    counts = Counter(nodes)
    if len(counts) == 1 and len(nodes) == 1:
        return nodes[0]
    width = next((y.width for y in nodes if y.width), None)
    inner = next((y.inner for y in nodes if y.inner), None)
    return Node("mul", tuple(counts), tuple(counts.values()), (), width, inner)
