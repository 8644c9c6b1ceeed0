"""What has no closed form: an integral over few Gaussian variables, as a node of the scalar program."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tensorprog.language import algebra
from tensorprog.language.node import Node, topological
from tensorprog.limits.expect.closed import Gaussian
from tensorprog.limits.expect.dependence import independent
from tensorprog.limits.expect.moves import MOVED, opened, scalar_version
from tensorprog.limits.expect.structure import Structure
from tensorprog.limits.gauss.integrand import Integrand
from tensorprog.limits.tasks import Declined

__all__ = ["MAX_SAMPLED", "integral"]

MAX_SAMPLED = 64
"""Up to this many are sampled; beyond, the population limit is the better sampler."""
MAX_NESTED = 10
"""The same where their covariances are integrals that are sampled themselves."""


def _sampled_before(gaussian: Gaussian) -> bool:
    """Are means or covariances sampled integrals?"""
    below = topological([*gaussian.means, *gaussian.covariances.values()])
    return any(y.op == "gauss" and not y.attr.by_quadrature for y in below)


def integral(structure: Structure, x: Node, atoms: Sequence[Node], gaussian: Gaussian) -> Node:
    """E x as a Gaussian integral over its atoms.

    Raises:
        Declined: in too many dimensions, and for integrands that are not functions.
    """
    basis, others = independent(structure, x, atoms)
    d = len(basis)
    if d > MAX_SAMPLED or (d > MAX_NESTED and _sampled_before(gaussian)):
        raise Declined(f"an expectation over {d} jointly Gaussian variables without a closed form")
    parameters: dict[Node, int] = {}
    done: dict[Node, Node] = {}

    def deterministic(value: Node) -> Node:
        if value.op == "constant" and not isinstance(value.attr, np.ndarray):
            return algebra.constant(value.attr)
        return Node("param", (), parameters.setdefault(value, len(parameters)))

    index = {atoms[i]: Node("var", (), k) for k, i in enumerate(basis)}
    for i, (made, shift) in others.items():
        terms = [(c, Node("var", (), k)) for c, k in made]
        index[atoms[i]] = algebra.add([*terms, *[(c, deterministic(value)) for c, value in shift]])

    def operands(y: Node) -> tuple[Node, ...]:
        if y in index or not structure.facts(y).families:
            return ()
        return (opened(y),) if y.op in MOVED else y.args

    for y in topological([x], operands):
        if y in index:
            done[y] = index[y]
        elif not structure.facts(y).families:
            done[y] = deterministic(scalar_version(y))
        else:
            args = [done[a] for a in operands(y)]
            if y.op in MOVED:
                done[y] = args[0]
            elif y.op not in ("add", "mul", "fn"):
                raise Declined(f"a nonlinear function of a {y.op}")
            elif y.attr == ("bump", (0,)):
                raise Declined("a Dirac delta times a function without closed form")
            else:
                done[y] = algebra.applied(y, args)
    covariances = [gaussian.cov(basis[i], basis[j]) for i in range(d) for j in range(i + 1)]
    operand_nodes = (*[gaussian.means[i] for i in basis], *covariances, *parameters)
    shape, _, _ = algebra.common_type(operand_nodes)
    return Node("gauss", operand_nodes, Integrand(done[x], d, len(parameters)), shape)
