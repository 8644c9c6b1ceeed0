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
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorprog.analysis.gia_numbers import Verdict, answer, finite_runs
from tensorprog.analysis.initial import Sources, columns, shortcoming
from tensorprog.analysis.instructions import Instructions, place
from tensorprog.analysis.readouts import Analysis, Fault, linearity, parity, search
from tensorprog.errors import Source, TensorProgramError
from tensorprog.estimate import Estimate, Estimates
from tensorprog.language.algebra import is_backward
from tensorprog.language.describe import describe
from tensorprog.language.expression import Expression
from tensorprog.language.node import Node, topological
from tensorprog.language.program import Program
from tensorprog.networks.network import Network
from tensorprog.transforms.written_out import written_out

if TYPE_CHECKING:
    from tensorprog.analysis.compare import Comparison

__all__ = ["GIAReport", "Offender", "Verdict", "check_gia"]

_SIMPLE = "Simple GIA Check, Tensor Programs II, Condition 1"
BARE, MARKED = "every W.T an independent copy", "independent copies of the weights in back-propagation"
_BP_LIKE = "BP-like, Tensor Programs II, Definition A.3"


@dataclass(frozen=True)
class Offender:
    """An instruction at which a check fails, none of whose operands fails already.

    Attributes:
        instruction: Its text, `instr 7: g1 = W.T @ dh2`, numbered as in `print(program)`; or `vector v`.
        number: Its number; None for an initial vector.
        label: Its name in the text: the user's label, where there is one.
        source: The user's line, `program.py:31` as text; None if it is not known.
        checks: Which checks fail here: "simple", "bp_like" or both.
        reason: Which hypothesis fails.
        message: All of this as a sentence, with what else is involved.
    """

    instruction: str
    number: int | None
    label: str
    source: Source | None
    checks: tuple[str, ...]
    reason: str
    message: str

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True, eq=False)
class GIAReport:
    """What `check_gia` found; `print` shows all of it.

    Attributes:
        simple: Does the program pass the Simple GIA Check? None: not decided (too many sets of readouts to try).
        bp_like: Is it BP-like? None as before.
        holds: Is the limit under GIA the limit? None: the errors are too large to tell.
        readouts: The names of the readout vectors the checks were made with.
        outputs: Output name to `Verdict`: (with GIA, without it, equal?).
        offenders: The smallest offending instructions.
        finite: Where widths were given: runs of the program, W and W.T coupled, against the limit under GIA.
        comparison: The same runs against the limit.
        notes: Remarks.
        meaning: What GIA replaces here.
    """

    simple: bool | None
    bp_like: bool | None
    holds: bool | None
    readouts: tuple[str, ...]
    outputs: Mapping[str, Verdict]
    offenders: tuple[Offender, ...]
    finite: Comparison | None = None
    notes: tuple[str, ...] = field(default=())
    meaning: str = BARE
    comparison: Comparison | None = None

    @property
    def limit(self) -> Estimates:
        """The limits of the outputs, without GIA: of a network its kernels. Empty where they were not found."""
        return Estimates({name: v.without_gia for name, v in self.outputs.items()})

    def __str__(self) -> str:
        found = ", ".join(self.readouts) or "none"
        lines = [
            f"Gradient independence assumption (GIA): {self.meaning}",
            f"  simple   {_word(self.simple)}  {_SIMPLE}",
            f"  bp_like  {_word(self.bp_like)}  {_BP_LIKE}",
            f"  holds    {_word(self.holds)}  are the limits with and without GIA the same?",
            f"  readouts: {found}",
        ]
        if self.outputs:
            rows = [("output", "limit", "under GIA", "")]
            words = {True: "equal", False: "DIFFERENT", None: "too uncertain to tell"}
            rows += [
                (k, _short(v.without_gia), _short(v.with_gia), words[v.agrees] + _gap(v))
                for k, v in self.outputs.items()
            ]
            sizes = [max(map(len, column)) for column in zip(*rows, strict=True)]
            lines.append("")
            lines += ["  ".join([c.ljust(k) for c, k in zip(row, sizes, strict=True)]).rstrip() for row in rows]
        if self.offenders:
            lines += ["", "Offending instructions (the smallest):", *[f"  {o}" for o in self.offenders]]
        if self.notes:
            lines += ["", *[f"Note: {note}" for note in self.notes]]
        if self.finite is not None:
            lines += ["", "Finite networks against the limit under GIA:", str(self.finite)]
        if self.comparison is not None:
            lines += ["", "The same networks against the limit:", str(self.comparison)]
        return "\n".join(lines)

    __repr__ = __str__

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON types; `outputs` have the limit's value and error, and GIA's under `gia`."""
        outputs = {
            name: v.without_gia.to_json()
            | {"gia": v.with_gia.to_json(), "agrees": v.agrees}
            | ({} if v.difference is None else {"difference": v.difference.to_json()})
            for name, v in self.outputs.items()
        }
        offenders: list[dict[str, Any]] = [
            {
                "instruction": o.instruction,
                "number": o.number,
                "label": o.label,
                "checks": list(o.checks),
                "reason": o.reason,
                "message": o.message,
            }
            | place(o.source)
            for o in self.offenders
        ]
        return {
            "simple": self.simple,
            "bp_like": self.bp_like,
            "holds": self.holds,
            "readouts": list(self.readouts),
            "outputs": outputs,
            "offenders": offenders,
            "notes": list(self.notes),
        } | {
            name: item.to_json()
            for name, item in (("finite", self.finite), ("comparison", self.comparison))
            if item is not None
        }


def check_gia(
    program: Program | Network,
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
        program: A program: what in it is back-propagation is content, without marks every `W.T`. Or a network,
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
        from tensorprog.analysis.gia_network import check_network

        X = options.pop("X", None) if readouts is None else readouts
        return check_network(program, X, options, values=values, rng=rng, widths=widths, seeds=seeds)
    if not isinstance(program, Program):
        raise TensorProgramError(
            f"check_gia of {type(program).__name__}", fix="pass a tp.Program, or a tp.Network and its data"
        )
    if options:
        raise TensorProgramError(f"check_gia of a Program is given {next(iter(options))}=", fix="leave it out")
    program.values(values)  # refuses missing ones
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
    is_simple = _decided(simple, complete)
    is_loose = _decided(loose, complete_too)
    outputs, holds, remarks, is_loose = answer(program, values, rng, is_loose)
    if is_loose is None and is_simple:
        is_simple = None
    of = Instructions(program)
    finite, comparison = finite_runs(program, outputs, widths, seeds, values)
    return GIAReport(
        is_simple,
        is_loose,
        holds,
        tuple([called(of, x) for x in loose.readouts]),
        outputs,
        _offenders(program, simple, loose, given=readouts is not None),
        finite,
        tuple(notes + remarks),
        MARKED if any(x.op == "matmul" and len(x.attr) > 2 for x in program.nodes) else BARE,
        comparison,
    )


def _word(x: bool | None) -> str:
    return {True: "True ", False: "False", None: "None "}[x]


def _short(x: Estimate) -> str:
    if np.ndim(x.value):
        return f"array {np.shape(x.value)}"
    return str(x.value) if x.kind == "exact" else f"{float(x.value):.9g}"


def _gap(v: Verdict) -> str:
    """Of arrays that differ, by how much."""
    if v.agrees is not False or not np.ndim(v.without_gia.value):
        return ""
    right, wrong = (np.asarray(e.value, dtype=float) for e in (v.without_gia, v.with_gia))
    return f" by up to {np.max(np.abs(right - wrong)) / np.max(np.abs(right)):.2g} of the largest entry"


def _decided(found: Analysis, complete: bool) -> bool | None:
    return True if not found.faults else False if complete else None


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


def called(of: Instructions, x: Node) -> str:
    """A source by the name it has in the text, `z[0]` for a position without one."""
    name = of.name(x)
    if x.op == "vector" or (x.label and name == x.label):
        return name
    spec, (position,) = columns(x)
    return f"{spec.name}[{','.join(map(str, np.unravel_index(position, spec.shape)))}]"


def _within(x: Node, v: Node) -> bool:
    """Is a source the vector v, or a position of it?"""
    while x != v and x.op == "take":
        x = x.args[0]
    return x == v


# ---- offenders ----


def _offenders(program: Program, simple: Analysis, loose: Analysis, given: bool) -> tuple[Offender, ...]:
    """The faults of both checks, each instruction once, in the program's order."""
    of = Instructions(program)
    faults: dict[Node, tuple[Fault, tuple[str, ...]]] = {f.node: (f, ("simple",)) for f in simple.faults}
    for f in loose.faults:
        faults[f.node] = (f, ("simple", "bp_like") if f.node in faults else ("bp_like",))
    order = {x: i for i, x in enumerate(program.nodes)}
    found = [_Story(program, of, loose.readouts, given).offender(*faults[x]) for x in sorted(faults, key=order.get)]  # type: ignore[arg-type]
    return tuple(found)


class _Story:
    """Why an instruction offends, in words."""

    def __init__(self, program: Program, of: Instructions, readouts: tuple[Node, ...], given: bool) -> None:
        self.program, self.of, self.readouts, self.given = program, of, readouts, given
        self.products = [x for x in program.nodes if x.op == "matmul"]
        self.sources = Sources.of(program)
        self.called = {x: called(of, x) for x in self.sources.nodes}

    def offender(self, fault: Fault, checks: tuple[str, ...]) -> Offender:
        x = fault.node
        reason = self._reason(fault)
        source = self.of.source(x)
        where = f" ({source})" if source is not None else ""
        needs = "linear" if checks == ("simple",) else "odd"
        theorem = _SIMPLE if checks == ("simple",) else _BP_LIKE
        rule = {
            "depends": "GIA holds only if no W @ z depends on a readout",
            "mean": "GIA holds only if the readouts have zero mean",
            "law": "parity needs a readout whose law is symmetric",
            "correlated": "GIA holds only if the readouts are independent of all other initial vectors",
            "both": "GIA holds only if no matrix is the transpose of another in the forward pass",
        }.get(
            fault.kind,
            f"GIA holds only if y is {needs} in zero-mean readouts that are used nowhere in the forward body",
        )
        reuse = self._reuse(x) if x.op == "matmul" else ""
        message = f"{self.of.heading(x)}{where}{reuse}: {reason}. {rule} ({theorem})."
        return Offender(
            self.of.heading(x), self.of.number(x), self.of.name(x), source, checks, reason, message
        )  # fmt: skip

    def _reuse(self, x: Node) -> str:
        matrix, transposed = x.attr[:2]
        other = [y for y in self.products if y.attr[0] == matrix and y.attr[1] != transposed]
        if not other:
            return f", harmless as {matrix.name} is used in this direction only" if transposed else ""
        name = matrix.name if transposed else f"{matrix.name}.T"
        return f" reuses {matrix.name} ({name} at {self.of.short(other[0])})"

    def _reason(self, fault: Fault) -> str:
        x, names = fault.node, ", ".join([self.called[v] for v in self.readouts])
        many = "s" if len(self.readouts) > 1 else ""
        match fault.kind:
            case "mean" | "law":
                return f"{self.called[x]} {shortcoming(x, True)}"
            case "correlated":
                assert fault.other is not None
                return f"the readout {self.called[x]} is correlated with {self.called[fault.other]}"
            case "both":
                assert fault.other is not None
                name = x.attr[0].name
                here, there = (f"{name}.T", name) if x.attr[1] else (name, f"{name}.T")
                at = self.of.short(fault.other)
                pass_ = "backward" if is_backward(x) else "forward"
                return f"the {pass_} pass uses {here} here and {there} at {at}"
            case "depends":
                below = set(topological([x.args[0]]))
                here = ", ".join([self.called[v] for v in self.readouts if v in below])
                back = next((y for y in self.products if is_backward(y) and y in below), None)
                path = f" (through {self.of.short(back)})" if back is not None else ""
                return f"z = {self.of.name(x.args[0])} depends on readout {here}{path}"
            case "even":
                return f"y = {self.of.name(x.args[0])} is even in the readout{many} {names}"
            case "neither":
                return f"y = {self.of.name(x.args[0])} is neither odd nor even in the readout{many} {names}"
            case "nonlinear":
                return f"y = {self.of.name(x.args[0])} is not linear in the readout{many} {names}"
        return self._unread(x)

    def _users(self, x: Node) -> set[Node]:
        """What is computed from x."""
        found = {x}
        for y in self.program.nodes:
            if any(a in found for a in y.args):
                found.add(y)
        return found - {x}

    def _unread(self, x: Node) -> str:
        """y depends on no readout: what is wrong with the initial vectors it does depend on?"""
        matrix = x.attr[0]
        below = topological([x.args[0]])
        causes = []
        for v in [y for y in below if y in self.sources and y not in self.readouts]:
            short, name = shortcoming(v, True), self.called[v]
            if short:
                causes.append(f"{name} {short}")
                continue
            users = self._users(v)
            entered = next((y for y in self.products if not is_backward(y) and y in users), None)
            if entered is not None:
                causes.append(f"{name} also enters {self.of.short(entered)}")
                continue
            related = [y for y in self.sources.nodes if y in self.sources.group(v) and y is not v]
            if related:
                causes.append(f"{name} is correlated with {', '.join([self.called[y] for y in related])}")
            elif self.given:
                causes.append(f"{name} is not among the readouts")
        text = f"y = {self.of.name(x.args[0])} depends on no readout"
        text += f": {', '.join(causes)}" if causes else ""
        users = self._users(x)
        above = next((y for y in self.products if not y.attr[1] and y.attr[0] == matrix and y in users), None)
        if above is not None:
            text += f"; {matrix.name} and {matrix.name}.T both appear in the forward body, of {self.of.short(above)}"
        return text
