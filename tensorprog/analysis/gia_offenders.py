"""The instructions that break gradient independence: which, and why, in words."""

from __future__ import annotations

import numpy as np

from tensorprog.analysis.gia_report import BP_LIKE, SIMPLE, Offender
from tensorprog.analysis.initial import Sources, columns, shortcoming
from tensorprog.analysis.instructions import Instructions
from tensorprog.analysis.readouts import Analysis, Fault
from tensorprog.language.algebra import is_backward
from tensorprog.language.node import Node, topological
from tensorprog.language.program import Program

__all__ = ["called", "offenders"]


def called(of: Instructions, x: Node) -> str:
    """A source by the name it has in the text, `z[0]` for a position without one."""
    name = of.name(x)
    if x.op == "vector" or (x.label and name == x.label):
        return name
    spec, (position,) = columns(x)
    return f"{spec.name}[{','.join(map(str, np.unravel_index(position, spec.shape)))}]"


def offenders(program: Program, simple: Analysis, loose: Analysis, given: bool) -> tuple[Offender, ...]:
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
        theorem = SIMPLE if checks == ("simple",) else BP_LIKE
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
        matrix, transposed, _ = x.attr
        other = [y for y in self.products if y.attr.matrix == matrix and y.attr.transposed != transposed]
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
                name = x.attr.matrix.name
                here, there = (f"{name}.T", name) if x.attr.transposed else (name, f"{name}.T")
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
        matrix = x.attr.matrix
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
        above = next(
            (y for y in self.products if not y.attr.transposed and y.attr.matrix == matrix and y in users), None
        )
        if above is not None:
            text += f"; {matrix.name} and {matrix.name}.T both appear in the forward body, of {self.of.short(above)}"
        return text
