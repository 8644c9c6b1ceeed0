"""Gradient independence of a network: its readout vectors and its backward pass are known, and need no search.

The assumption (GIA) is that back-propagation may use independent copies of the weights: W~.T for W.T, and for W, where the
forward pass used W.T, a copy of its own, as Tensor Programs II counts W and W.T as different matrices (theorem A.6). All
forward products stay, those with W.T included.

`simple`   The readout vectors have zero mean, are independent of all else and are used in the readouts alone; and no
           matrix is used both as W and as W.T in the forward pass (the clause of Tensor Programs III). An average readout
           fails: it has no readout vector, and its gradients start from a function of the forward pass.
`bp_like`  The finer check of `gia.py`, by parity, on the program of the tangent kernel: for some initial vectors of zero
           mean, the readout vectors or others, each product of the backward pass multiplies what is odd in them, and none
           of the forward pass depends on them. With a matrix that the forward pass uses both ways the check fails.
`holds`    The limits of the tangent kernel with and without GIA, compared.

The last two are what `check_gia` says of that program, which knows its backward pass (`transforms/decouple.py`).

**W and W.T in one forward pass.** GIA may be wrong, as in a tied autoencoder k = W.T tanh(W h): the backward pass computes
W dk and then W.T (dh tanh'), whose operand contains W dk, so that W.T comes back to W; two independent copies lose the
term. It may be right, as where W h and W.T h' are parallel branches and nothing comes back. One copy of W for *both*
directions keeps that term: with a centred readout that is used nowhere else it is right in the tied autoencoder as well,
since what is linear in v is uncorrelated with what does not depend on v. That is another assumption than the one checked.

Source: Tensor Programs II (arXiv:2006.14548), Condition 1, Definition A.3, Theorem A.6; Tensor Programs III
(arXiv:2009.10685), appendix C.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tensorprog.analysis.gia_numbers import answer, finite_runs
from tensorprog.analysis.gia_offenders import called, offenders
from tensorprog.analysis.gia_report import MARKED, SIMPLE, GIAReport, Offender
from tensorprog.analysis.initial import shortcoming
from tensorprog.analysis.instructions import Instructions
from tensorprog.analysis.readouts import Analysis, decided, parity, search
from tensorprog.errors import TensorProgramError
from tensorprog.language.describe import describe
from tensorprog.language.node import MOVES, Node, topological
from tensorprog.language.symbols import MatrixSpec
from tensorprog.networks.network import Network
from tensorprog.networks.outputs import Body
from tensorprog.networks.readouts import Readout

__all__ = ["check_network"]


@dataclass(frozen=True)
class _Breach:
    """Where a clause of the simple check fails.

    Attributes:
        node: An instruction of the forward pass.
        kind: "average", "mean", "used" or "both".
        about: The name of the vector or matrix concerned.
        other: The product with W in the other direction.
    """

    node: Node
    kind: str
    about: str
    other: Node | None = None


def check_network(
    net: Network,
    X: Any,
    options: Mapping[str, Any],
    *,
    values: Mapping[str, Any] | None,
    rng: int | np.random.Generator | None,
    widths: Sequence[int] | None,
    seeds: int | Sequence[int] | None,
) -> GIAReport:
    """`check_gia` of a network; see the module's text.

    Args:
        net: The network.
        X: Its data; None for a small generic input.
        options: Those of `Network.program`.
        values: Numbers for hyperparameters.
        rng: Seeds a limit that has to be sampled.
        widths: Also compare runs at these widths with the limit under GIA.
        seeds: For these runs.

    Raises:
        TensorProgramError: An option is unknown, or the data makes no sense.

    Example:
        >>> import tensorprog as tp
        >>> n = tp.Width("n")
        >>> W, h = tp.Matrix("W", n, n), tp.dense("U", tp.Input("x"), n)
        >>> tied = tp.check_gia(tp.Network(tp.readout("v", W.T @ tp.erf(W @ h))))
        >>> tied.simple, tied.bp_like, tied.holds
        (False, False, False)
        >>> branches = tp.check_gia(tp.Network(tp.readout("v", tp.erf(W @ h) + tp.erf(W.T @ tp.erf(h)))))
        >>> branches.simple, branches.bp_like, branches.holds
        (False, False, True)

    Source: Tensor Programs II, Condition 1; Tensor Programs III, appendix C.
    """
    for k in options:
        if k not in net.options:
            raise TensorProgramError(f"check_gia of a network is given {k}=", fix=f"it takes {', '.join(net.options)}")
    notes = []
    if X is None and net.needs_data:
        notes.append("no data is given: limits are those of a small generic input (Gaussian, seed 0)")
    program = net.program(X, **{"of": "ntk", **options})
    bodies = net.bodies(X, options.get("X2"))
    breaches = _breaches(bodies)
    both = any(b.kind == "both" for b in breaches)
    names = {name for body in bodies for o in body.outputs if isinstance(o, Readout) for name in o.vectors}
    own = [x for x in program.nodes if x.op == "vector" and x.attr.name in names]
    loose, complete = Analysis(tuple(own), (), 0), True
    if breaches:
        loose = parity(program, own)
        if loose.faults:
            best, complete = search(program, parity, symmetric=True)
            if not best.faults or not own:  # explain failures with the network's own readouts
                loose = best
    is_loose = decided(loose, complete)
    if not complete:
        notes.append("there are too many initial vectors to try all sets of readouts")
    outputs, holds, remarks, is_loose = answer(program, values, rng, is_loose)
    notes += remarks
    if both:
        notes.append(
            "the backward pass gets a copy for W and another for W.T, different matrices in Tensor Programs II; one copy "
            "for both directions is another assumption, and right more often"
        )
    of = Instructions(program)
    found = {o.instruction: o for o in [_offender(of, b) for b in breaches]}
    for o in offenders(program, Analysis(loose.readouts, (), 0), loose, given=True):
        here = found.setdefault(o.instruction, o)
        if here is not o:
            found[o.instruction] = replace(here, checks=("simple", "bp_like"))
    if found:
        notes.append('instructions are numbered as in the tangent kernel\'s program: print(net.program(X, of="ntk"))')
    finite, comparison = finite_runs(program, outputs, widths, seeds, values)
    return GIAReport(
        None if is_loose is None and not breaches else not breaches,
        is_loose,
        holds,
        tuple(sorted({called(of, x) for x in loose.readouts})),
        outputs,
        tuple(found.values()),
        finite,
        tuple(notes),
        MARKED,
        comparison,
    )


# ---- the simple check ----


def _breaches(bodies: Sequence[Body]) -> list[_Breach]:
    """Where the clauses fail, each once, whatever the number of batches."""
    found: dict[tuple[str, str], _Breach] = {}
    for body in bodies:
        for b in [*_of_readouts(body), *_of_matrices(_inside(body))]:
            found.setdefault((b.kind, b.about), b)
    return list(found.values())


def _inside(body: Body) -> list[Node]:
    """The forward pass without its readouts."""
    roots = [x.node for o in body.outputs for x in (o.bodies if isinstance(o, Readout) else [o])]
    return topological(roots)


def _of_readouts(body: Body) -> list[_Breach]:
    found = [_Breach(o.node, "average", describe(o.node)) for o in body.outputs if not isinstance(o, Readout)]
    vectors: dict[Node, None] = {}
    for o in body.outputs:
        if isinstance(o, Readout):
            below = topological([o.theta.node])
            vectors |= dict.fromkeys([x for x in below if x.op == "vector" and x.attr.name in o.vectors])
            found += [_Breach(p.own.node, "used", describe(p.own.node)) for p in o.parts if p.own is not None]
    for v in vectors:
        if "mean" in shortcoming(v, False):
            found.append(_Breach(v, "mean", v.attr.name))
    names = {v.attr.name for v in vectors}
    seen: dict[Node, str] = {}  # a readout vector, or one with its axes rearranged
    for x in _inside(body):
        if x.op == "vector" and x.attr.name in names:
            seen[x] = x.attr.name
        used = [seen[a] for a in x.args if a in seen]
        if used and x.op in MOVES:
            seen[x] = used[0]
        else:
            found += [_Breach(x, "used", name) for name in used]
    roots = [x.node for o in body.outputs if isinstance(o, Readout) for x in o.bodies]
    found += [_Breach(x, "used", seen[x]) for x in roots if x in seen]  # v.v
    return found


def _of_matrices(inside: Sequence[Node]) -> list[_Breach]:
    first: dict[MatrixSpec, Node] = {}
    found = []
    for x in inside:
        if x.op == "matmul":
            y = first.setdefault(x.attr.matrix, x)
            if y.attr.transposed != x.attr.transposed:
                found.append(_Breach(x, "both", x.attr.matrix.name, y))
    return found


def _offender(of: Instructions, b: _Breach) -> Offender:
    x, v = b.node, b.about
    match b.kind:
        case "average":
            reason = "an average readout has no readout vector: its gradients are functions of the forward pass"
        case "mean":
            reason = f"the readout vector {v} {shortcoming(x, False)}"
        case "used":
            reason = f"the readout vector {v} is used inside the network"
        case _:
            assert b.other is not None
            ways = (f"{v}.T", v) if x.attr.transposed else (v, f"{v}.T")
            reason = f"the forward pass uses {ways[0]} here and {ways[1]} at {of.short(b.other)}"
    rules = {
        "average": "GIA holds only if gradients start from zero-mean readout vectors",
        "mean": "GIA holds only if the readout vectors have zero mean",
        "used": "GIA holds only if the readout vectors are used in the readouts alone",
        "both": "GIA holds only if no matrix is the transpose of another in the forward pass",
    }
    checks = ("simple",)
    source = of.source(x)
    where = f" ({source})" if source is not None else ""
    theorem = f"{SIMPLE}; III, appendix C" if b.kind == "both" else SIMPLE
    heading = of.heading(x)
    if b.kind == "average":
        heading = f"output {heading}"
    message = f"{heading}{where}: {reason}. {rules[b.kind]} ({theorem})."
    return Offender(heading, of.number(x), of.name(x), source, checks, reason, message)
