"""Gradient independence: the two structural checks, the numerical answer, and the instructions that break it.

In a bare program the gradient independence assumption (GIA) replaces every `W.T` by an independent copy
(`transforms/decouple.py`), as nothing says which instructions are back-propagation. Three questions, three answers:

`simple`   Simple GIA Check. There are *readout* vectors, initial vectors of zero mean, independent of all else, such that
           no `W @ z` depends on them (the *forward body* is what products with W, not W.T, are computed from), and every
           `W.T @ y` has y linear in them, as back-propagation from f = v.x/sqrt(n) has. Then no W.T occurs in the
           forward body either (the clause of Tensor Programs III: no matrix is the transpose of another there).
`bp_like`  BP-like: as before, but y need only be odd in the readouts jointly, and scalars odd in them count as their
           limit 0. Weaker than `simple`, and still enough: no Zdot is left.
`holds`    Is GIA's answer right? Both limits, compared within their stated errors. The checks are sufficient, not
           necessary, so this can be True where both are False.

A program without any `W.T` passes everything. The checks look at the program as written (`analysis/readouts.py`).

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
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tensorprog.analysis.instructions import Instructions, place
from tensorprog.analysis.readouts import Analysis, Fault, linearity, parity, search, shortcoming
from tensorprog.errors import Source, TensorProgramError
from tensorprog.estimate import Estimate
from tensorprog.language.algebra import is_backward
from tensorprog.language.expression import Expression
from tensorprog.language.node import Node, topological
from tensorprog.language.program import Program
from tensorprog.networks.network import Network
from tensorprog.transforms.decouple import program_for

if TYPE_CHECKING:
    from tensorprog.analysis.compare import Comparison

__all__ = ["GIAReport", "Offender", "Verdict", "check_gia"]

RESOLUTION = 1e-6
"""Limits whose errors exceed this, relative to their size (at least 1), are too uncertain to be called equal."""

_SIMPLE = "Simple GIA Check, Tensor Programs II, Condition 1"
_BP_LIKE = "BP-like, Tensor Programs II, Definition A.3"


class Verdict(NamedTuple):
    """The limit of one output under GIA and without it, and whether they are equal.

    Attributes:
        with_gia: The limit with independent copies.
        without_gia: The limit.
        agrees: True or False, None where the errors are too large to tell.
    """

    with_gia: Estimate
    without_gia: Estimate
    agrees: bool | None


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
    meaning: str = "every W.T an independent copy"

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
        return "\n".join(lines)

    __repr__ = __str__

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON types; `outputs` have the limit's value and error, and GIA's under `gia`."""
        outputs = {
            name: v.without_gia.to_json() | {"gia": v.with_gia.to_json(), "agrees": v.agrees}
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
        } | ({"finite": self.finite.to_json()} if self.finite is not None else {})


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
        program: A bare program: every `W.T` counts as back-propagation. Or a network, `check_gia(net, X=None)`: then only
            the backward pass does, and the readouts are the network's own (see `analysis/gia_network.py`).
        readouts: The program's readout vectors, as expressions or names; by default they are searched for, among the
            initial vectors of zero mean on which no `W @ z` depends. Of a network this argument is its data X, for
            `holds`; by default a small generic input.
        values: Numbers for the hyperparameters.
        rng: Seeds a limit that has to be sampled.
        widths: Also compare runs at these widths (of the program as it is) with the limit under GIA.
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
    outputs, holds, remarks = _answer(program, values, rng, is_loose)
    return GIAReport(
        is_simple,
        is_loose,
        holds,
        tuple([x.attr.name for x in loose.readouts]),
        outputs,
        _offenders(program, simple, loose, given=readouts is not None),
        _finite_runs(program, outputs, widths, seeds, values),
        tuple(notes + remarks),
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
    known = {x.attr.name: x for x in program.nodes if x.op == "vector"}
    found: list[Node] = []
    for v in [readouts] if isinstance(readouts, (str, Expression)) else readouts:
        node = v.node if isinstance(v, Expression) else None
        is_vector = node is not None and node.op == "vector"
        name = v if isinstance(v, str) else node.attr.name if node is not None and is_vector else repr(v)
        if name not in known or (is_vector and known[name] != node):
            raise TensorProgramError(
                f"the readout {name} is no initial vector of the program",
                why=f"it has {', '.join(known) or 'none'}",
                fix="pass the tp.Vector, or its name",
            )
        found.append(known[name])
    return found


# ---- the numerical answer ----


def _answer(
    program: Program, values: Mapping[str, Any] | None, rng: Any, is_loose: bool | None
) -> tuple[dict[str, Verdict], bool | None, list[str]]:
    """Both limits, `holds`, and remarks."""
    outputs, holds, remarks = _compare_limits(program, values, rng)
    if holds is None and is_loose and not _has(outputs, False):
        holds = True
        remarks.append("the numbers are too uncertain to tell; GIA holds by the theorem on BP-like programs")
    elif holds and not is_loose:
        remarks.append("GIA is right here all the same: the checks are sufficient, not necessary")
    return outputs, holds, remarks


def _finite_runs(
    program: Program,
    outputs: Mapping[str, Verdict],
    widths: Sequence[int] | None,
    seeds: int | Sequence[int] | None,
    values: Mapping[str, Any] | None,
) -> Comparison | None:
    if widths is None or not outputs:
        return None
    from tensorprog.analysis.compare import compare

    against = {name: v.with_gia for name, v in outputs.items()}
    return compare(program, widths, 32 if seeds is None else seeds, against=against, values=values)


def _has(outputs: Mapping[str, Verdict], answer: bool | None) -> bool:
    return any(v.agrees is answer for v in outputs.values())


def _compare_limits(
    program: Program, values: Mapping[str, Any] | None, rng: Any
) -> tuple[dict[str, Verdict], bool | None, list[str]]:
    from tensorprog.limits.limit import limit

    free = program_for(program, gia=True)
    try:
        without = limit(program, values=values, rng=rng)
        coupled = without if free == program else limit(free, values=values, rng=rng)
    except TensorProgramError as error:
        return {}, True if free == program else None, [f"the limits were not compared: {error.what}"]
    outputs = {name: Verdict(coupled[name], without[name], _agree(coupled[name], without[name])) for name in program}
    if free == program:
        outputs = {name: v._replace(agrees=True) for name, v in outputs.items()}
        return outputs, True, ["no matrix is transposed: there is nothing to assume"]
    if _has(outputs, False):
        return outputs, False, []
    return outputs, None if _has(outputs, None) else True, []


def _agree(a: Estimate, b: Estimate) -> bool | None:
    """Equal within the stated errors? A standard error tells differences (at six of them), never equality."""
    x, y = np.asarray(a.value, dtype=float), np.asarray(b.value, dtype=float)
    error = np.asarray(a.error, dtype=float) + np.asarray(b.error, dtype=float)
    size = np.maximum(np.maximum(np.abs(x), np.abs(y)), 1)
    gap = np.abs(x - y)
    if "standard error" in (a.kind, b.kind):
        return False if np.any(gap > 6 * error + 1e-9 * size) else None
    if np.any(gap > 10 * error + 1e-12 * size):  # bounds are estimates themselves
        return False
    fine = (gap <= error + 1e-12 * size) & (error <= RESOLUTION * size)
    return True if np.all(fine) else None


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
        x, names = fault.node, ", ".join([v.attr.name for v in self.readouts])
        many = "s" if len(self.readouts) > 1 else ""
        match fault.kind:
            case "mean" | "law":
                return f"{x.attr.name} {shortcoming(x, True)}"
            case "depends":
                below = set(topological([x.args[0]]))
                here = ", ".join([v.attr.name for v in self.readouts if v in below])
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
        for v in [y for y in below if y.op == "vector" and y not in self.readouts]:
            short = shortcoming(v, True)
            if short:
                causes.append(f"{v.attr.name} {short}")
                continue
            users = self._users(v)
            entered = next((y for y in self.products if not is_backward(y) and y in users), None)
            if entered is not None:
                causes.append(f"{v.attr.name} also enters {self.of.short(entered)}")
            elif self.given:
                causes.append(f"{v.attr.name} is not among the readouts")
        text = f"y = {self.of.name(x.args[0])} depends on no readout"
        text += f": {', '.join(causes)}" if causes else ""
        users = self._users(x)
        above = next((y for y in self.products if not y.attr[1] and y.attr[0] == matrix and y in users), None)
        if above is not None:
            text += f"; {matrix.name} and {matrix.name}.T both appear in the forward body, of {self.of.short(above)}"
        return text
