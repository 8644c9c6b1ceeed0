"""Gradient independence: the two structural checks, the numerical answer, and the instructions that break it.

The gradient independence assumption (GIA) replaces the matrices of back-propagation by independent copies; a program says
which products these are (`transforms/decouple.py`): without marks, every `W.T`. Three questions, three answers:

`simple`   Simple GIA Check. There are *readout* vectors, initial vectors of zero mean, independent of all else (by their
           covariances: two embeddings by one input layer are as dependent as their data, `analysis/initial.py`), such that
           no `W @ z` depends on them (the *forward body* is what products with W, not W.T, are computed from), and every
           `W.T @ y` has y linear in them, as back-propagation from f = v.x/sqrt(n) has. Then no W.T occurs in the
           forward body either (the clause of Tensor Programs III: no matrix is the transpose of another there).
`bp_like`  BP-like: as before, but y need only be odd in the readouts jointly, and scalars odd in them count as their
           limit 0. Weaker than `simple`, and still enough: no Zdot is left.
`holds`    Is GIA's answer right? Both limits, compared within their stated errors, and where these leave it open by their
           difference (`analysis/gia_numbers.py`). The checks are sufficient, not necessary, so this can be True where both
           are False. It is never False where one is True: a check that the numbers contradict is withdrawn.

A program without back-propagation passes everything. The checks look at the program as written (`analysis/readouts.py`).

Tied weights show that it matters what is replaced. For k = W.T tanh(W h), f = v.tanh(k)/sqrt(n), with h and v standard
normal, E dh^2 is 0.42728. One copy of W used both ways in the backward pass alone gives the same (Zhat of W h, even in v,
and of the gradients, odd in v, are uncorrelated; so it is for every h independent of a centred v); two copies give
0.23870; the replacement of every W.T, the forward one included, which is the meaning here, gives 0.29561. Exact limit,
population and runs at n = 1024 agree on all four.

Source: G. Yang, Tensor Programs II (arXiv:2006.14548), Condition 1 (Simple GIA Check) and Definition A.3 (BP-like);
Tensor Programs III (arXiv:2009.10685), appendix C (the added clause, and what happens without the check).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tensorprog.analysis.gia_network import check_network
from tensorprog.analysis.gia_numbers import answer, finite_runs
from tensorprog.analysis.gia_offenders import called, offenders
from tensorprog.analysis.gia_report import BARE, MARKED, GIAReport
from tensorprog.analysis.initial import Sources, columns
from tensorprog.analysis.instructions import Instructions
from tensorprog.analysis.readouts import Analysis, decided, linearity, parity, search
from tensorprog.errors import TensorProgramError
from tensorprog.language.describe import describe
from tensorprog.language.expression import Expression
from tensorprog.language.node import Node
from tensorprog.language.program import Program
from tensorprog.networks.network import Network
from tensorprog.transforms.dispatch import HasProgram
from tensorprog.transforms.written_out import written_out

__all__ = ["check_gia"]


def check_gia(
    program: Program | HasProgram,
    readouts: Any = None,
    *,
    values: Mapping[str, Any] | None = None,
    rng: int | np.random.Generator | None = 0,
    widths: Sequence[int] | None = None,
    seeds: int | Sequence[int] | None = None,
    **options: Any,
) -> GIAReport:
    """Is gradient independence right for a program or a network, and if a check fails, at which instruction?

    Args:
        program: A program, or a `Trace`: what in it is back-propagation is content, without marks every `W.T`. Or a network,
            `check_gia(net, X=None)`: then the readouts are the network's own (see `analysis/gia_network.py`).
        readouts: The program's readout vectors, as expressions or names; by default they are searched for, among the
            initial vectors of zero mean on which no `W @ z` depends and nothing that does is correlated with. Of a network
            this argument is its data X, for `holds`; by default a small generic input.
        values: Numbers for the hyperparameters.
        rng: Seeds a limit that has to be sampled.
        widths: Also compare runs at these widths (of the program as it is) with the limit under GIA and with the limit: one
            call then finds the limit (of a network its kernels), the verdict on GIA, and both comparisons, from one limit
            and one set of runs.
        seeds: For these runs; 32 by default.
        options: For a network, those of `Network.program`: `X`, `X2`, `of` (`"ntk"` by default), `parametrization`,
            `width`.

    Returns:
        A `GIAReport`.

    Raises:
        TensorProgramError: for readouts that are no initial vectors of the program, and missing hyperparameters.

    Example:
        >>> import tensorprog as tp
        >>> n = tp.Width("n")
        >>> W, x = tp.Matrix("W", n, n), tp.Vector("x", n, mean=1, var=0)
        >>> report = tp.check_gia(tp.Program(mean_dx=tp.moment(W.T @ (2 * (W @ x)))))
        >>> report.simple, report.bp_like, report.holds
        (False, False, False)
        >>> v = tp.Vector("v", n)
        >>> dx = W.T @ (v * (1 - tp.tanh(W @ x) ** 2))
        >>> print(tp.check_gia(tp.Program(mean_dx=tp.moment(dx), dx2=tp.moment(dx**2))))
        Gradient independence assumption (GIA): every W.T an independent copy
          simple   True   Simple GIA Check, Tensor Programs II, Condition 1
          bp_like  True   BP-like, Tensor Programs II, Definition A.3
          holds    True   are the limits with and without GIA the same?
          readouts: v
        <BLANKLINE>
        output   limit        under GIA
        mean_dx  0            0            equal
        dx2      0.464402902  0.464402902  equal

    Source: Tensor Programs II, Condition 1, Definition A.3, Theorem A.6; Tensor Programs III, appendix C.
    """
    if isinstance(program, Network):
        X = options.pop("X", None) if readouts is None else readouts
        return check_network(program, X, options, values=values, rng=rng, widths=widths, seeds=seeds)
    method = "auto"
    if isinstance(program, HasProgram):  # a run of training
        method = "population" if getattr(program, "is_sampled", False) else method
        program = program.as_program()
    if not isinstance(program, Program):
        raise TensorProgramError(
            f"check_gia of {type(program).__name__}", fix="pass a tp.Program, or a tp.Network and its data"
        )
    if options:
        raise TensorProgramError(f"check_gia of a Program is given {next(iter(options))}=", fix="leave it out")
    program.values(values)  # refuses missing ones
    as_it_is = program  # populations and runs do not write matrices out
    program = written_out(program)
    notes: list[str] = []
    if readouts is None:
        simple, complete = search(program, linearity, symmetric=False)
        loose, complete_too = search(program, parity, symmetric=True)
    else:
        chosen = _chosen(program, readouts)
        simple, loose = linearity(program, chosen), parity(program, chosen)
        complete = complete_too = True
    if not simple.faults:
        loose, complete_too = Analysis(simple.readouts, (), simple.clean), True
    elif readouts is None:  # explain both with the same readouts
        simple = linearity(program, loose.readouts)
    if not (complete and complete_too):
        notes.append("there are too many initial vectors to try all sets of readouts; pass readouts=[...]")
    is_simple = decided(simple, complete)
    is_loose = decided(loose, complete_too)
    outputs, holds, remarks, is_loose = answer(as_it_is, values, rng, is_loose, method)
    if is_loose is None and is_simple:
        is_simple = None
    of = Instructions(program)
    finite, comparison = finite_runs(as_it_is, outputs, widths, seeds, values)
    return GIAReport(
        is_simple,
        is_loose,
        holds,
        tuple([called(of, x) for x in loose.readouts]),
        outputs,
        offenders(program, simple, loose, given=readouts is not None),
        finite,
        tuple(notes + remarks),
        MARKED if any(x.op == "matmul" and x.attr.mark for x in program.nodes) else BARE,
        comparison,
    )


def _chosen(program: Program, readouts: Iterable[Expression | str]) -> list[Node]:
    """The sources that are meant: vectors, their positions, or names of either."""
    known = Sources.of(program).nodes
    of = Instructions(program)
    names = {x: {columns(x)[0].name, of.name(x), called(of, x)} for x in known}
    found: list[Node] = []
    for v in [readouts] if isinstance(readouts, (str, Expression)) else readouts:
        node = v.node if isinstance(v, Expression) else None
        mine = [x for x in known if (v in names[x] if isinstance(v, str) else node is not None and _within(x, node))]
        if not mine:
            raise TensorProgramError(
                f"the readout {v if isinstance(v, str) else describe(node) if node is not None else repr(v)} "
                "is no initial vector of the program",
                why=f"it has {', '.join(sorted({columns(x)[0].name for x in known})) or 'none'}",
                fix="pass the tp.Vector, or its name",
            )
        found += mine
    return list(dict.fromkeys(found))


def _within(x: Node, v: Node) -> bool:
    """Is a source the vector v, or a position of it?"""
    while x != v and x.op == "take":
        x = x.args[0]
    return x == v
