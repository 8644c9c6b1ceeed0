"""What a program does with its readout vectors: dependence, linearity, parity; and the search for such vectors.

Two analyses of one program for one set of initial vectors v, the *readouts*, each a pass over the instructions.

**Linearity** (for the Simple GIA Check). Every instruction is of degree 0 in the readouts (it does not depend on them,
not even through a scalar), of degree 1 (homogeneously linear in all of them together), or neither. Back-propagation from
f = v.x/sqrt(n) is of degree 1 throughout, layer norm's and attention's backward passes included, whose Moments are of
degree 1 themselves.

**Parity** (for BP-like programs), in the limit. Every instruction is zero, odd or even in the readouts jointly, or
neither; a product `W.T @ y` has the parity of y. A Moment is a number in the limit: it depends on nothing, and it is 0 if
it is odd. So scalars odd in v become 0, and what they multiply with them: one pass in the order of computation reaches
the fixed point. In an OuterNonlin the second coordinate's vectors flip with the first one's.

Both are properties of the program as written: `(1 + v)**2 - 1 - v**2` is neither linear nor odd here. Readouts must be
independent of all other initial vectors, which their covariances say, not their names (`initial.py`); and what is marked
as a product of the forward or the backward pass is one (`transforms/decouple.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

from tensorprog.analysis.initial import Sources
from tensorprog.language.algebra import is_backward
from tensorprog.language.functions import PRIMITIVES
from tensorprog.language.node import Node
from tensorprog.language.program import Program

__all__ = ["Analysis", "Fault", "linearity", "parity", "search"]

SUBSETS = 4096
"""At most so many sets of vectors are tried."""


class Fault(NamedTuple):
    """An instruction at which an analysis fails.

    Attributes:
        node: A MatMul, or an initial vector that cannot be a readout.
        kind: "mean", "law", "depends", "even", "neither", "nonlinear", "none" (depends on no readout), "correlated" (with an
            initial vector that is none) or "both" (the forward pass uses W and W.T).
        other: What it is correlated with; the product in the other direction.
    """

    node: Node
    kind: str
    other: Node | None = None


@dataclass(frozen=True)
class Analysis:
    """What one analysis found for one set of readouts.

    Attributes:
        readouts: The initial vectors, or positions of them.
        faults: The smallest offending instructions: none is computed from another.
        clean: The number of MatMuls that neither fail nor are computed from what fails.
    """

    readouts: tuple[Node, ...]
    faults: tuple[Fault, ...]
    clean: int

    @property
    def _rank(self) -> tuple[int, ...]:
        """Smaller is better, where no set of readouts passes."""
        unread = sum([f.kind == "none" for f in self.faults])
        return (-self.clean, len(self.faults), unread, len(self.readouts))


# ---- linearity ----


def linearity(program: Program, readouts: Iterable[Node]) -> Analysis:
    """The Simple GIA Check for these readouts: no `W @ z` depends on them, every `W.T @ y` is linear in them.

    With both, no `W.T` is used in the forward body either, as its y depends on a readout.
    """
    chosen, sources = tuple(readouts), Sources.of(program)
    degree: dict[Node, int | None] = {}  # None: not homogeneous
    for x in program.nodes:
        args = [degree[a] for a in x.args]
        if x in sources:
            degree[x] = int(x in chosen)
        elif x.op == "mul":
            known = [d * k if d is not None else None for d, k in zip(args, x.attr, strict=True)]
            total = sum([d for d in known if d is not None])
            degree[x] = total if None not in known and total <= 1 else None
        elif x.op in ("add", "stack"):
            found = {d for a, d in zip(x.args, args, strict=True) if not a.is_zero}
            degree[x] = found.pop() if len(found) == 1 else None if found else 0
        elif x.op in ("fn", "softmax"):
            degree[x] = 0 if args == [0] else None
        else:
            degree[x] = args[0] if args else 0

    def fault(x: Node) -> str:
        d = degree[x.args[0]]
        if not is_backward(x):
            return "" if d == 0 else "depends"
        return "" if d == 1 else "none" if d == 0 else "nonlinear"

    return _analysis(program, sources, chosen, fault, symmetric=False)


# ---- parity ----


class Sign(NamedTuple):
    """What becomes of a vector in the limit when the readouts change their sign.

    Attributes:
        parity: 1 odd, 0 even, None neither.
        own: Does it depend on them through its own coordinate?
        inner: Through the second coordinate of an OuterNonlin?
        zero: Is its limit 0?
        vanishes: Is it 0 in the limit alone, and not at finite width?
        unsure: Is it decided by how a scalar fluctuates around its limit 0, of which the readouts are a part? A sign is, a
            reciprocal.
    """

    parity: int | None = 0
    own: bool = False
    inner: bool = False
    zero: bool = False
    vanishes: bool = False
    unsure: bool = False


FREE, ZERO, VANISHING = Sign(), Sign(zero=True), Sign(zero=True, vanishes=True)
UNKNOWN = Sign(None, own=True, unsure=True)


def parity(program: Program, readouts: Iterable[Node]) -> Analysis:
    """The check for BP-like programs (Tensor Programs II, Definition A.3) for these readouts.

    Every `W.T @ y` has y odd in the readouts jointly (or 0), no `W @ z` depends on them, after scalars that are odd in
    them are replaced by 0. Then every Zdot is 0: that of `W.T @ y` is a sum of terms with a factor E dZ^y/dZhat^{W z}, the
    expectation of an odd function of (v, Zhat^{W.T ..}), whose law does not change with their sign; and no z depends on a
    Zhat^{W.T y}.
    """
    chosen, sources = tuple(readouts), Sources.of(program)
    sign: dict[Node, Sign] = {}
    for x in program.nodes:
        if x in sources:
            constant = sources.shortcoming(x, False) == "is constant 0"
            sign[x] = Sign(1, own=True) if x in chosen else ZERO if constant else FREE
        else:
            sign[x] = _sign(x, [sign[a] for a in x.args])

    def fault(x: Node) -> str:
        s = sign[x.args[0]]
        if s.zero:
            return ""
        if not is_backward(x):
            return "depends" if s.own else ""
        return "" if s.parity == 1 else "neither" if s.parity is None else "even" if s.own else "none"

    return _analysis(program, sources, chosen, fault, symmetric=True)


def _sign(x: Node, args: list[Sign]) -> Sign:
    if any(s.unsure for s in args):
        return UNKNOWN
    match x.op:
        case "constant":
            return ZERO if x.is_zero else FREE
        case "inverse_sqrt":
            return VANISHING
        case "vector":  # looked at position by position
            return FREE
        case "add" | "stack":
            parts = [s for s in args if not s.zero]
            found = {s.parity for s in parts}
            if not parts:
                return VANISHING if any(s.vanishes for s in args) else ZERO
            return _joined(found.pop() if len(found) == 1 else None, parts)
        case "mul":
            if any(s.zero for s in args):
                return VANISHING if all(s.vanishes for s in args if s.zero) else ZERO
            odd: int | None = 0
            for s, k in zip(args, x.attr, strict=True):
                odd = None if s.parity is None or odd is None else (odd + k * s.parity) % 2
            return _joined(odd, args)
        case "fn":
            row = PRIMITIVES[x.attr.name]
            s = args[0]
            if s.zero and s.vanishes and not _continuous_at_zero(x):
                return UNKNOWN
            if s.zero:
                at_zero = None if row.exact is None or row.domain is not None else row.exact(0, *x.attr.parameters)
                return s if at_zero == 0 else FREE
            return s._replace(parity=0 if not (s.own or s.inner) or s.parity == 0 else s.parity and row.parity)
        case "moment":
            return args[0] if args[0].zero else VANISHING if args[0].parity == 1 else FREE
        case "inner":
            return args[0]._replace(own=False, inner=args[0].own)
        case "outer":
            s = args[0]
            if not s.own:  # a mean over the second coordinate alone: a number
                return s if s.zero else VANISHING if s.parity == 1 else FREE
            return s._replace(inner=False)
        case "softmax":
            return FREE
        case "scalar":
            return FREE
    return args[0]


def _continuous_at_zero(x: Node) -> bool:
    """Does a function of what tends to 0 have a limit, whatever the fluctuations? A jump, a pole, a root have none."""
    name, parameters = x.attr
    row = PRIMITIVES[name]
    if name in ("bump", "smooth_sign"):
        return bool(parameters[0] > 0)
    return not (row.growth == "singular" or (row.jumps and 0 in row.kinks) or row.domain == (0, False))


def _joined(odd: int | None, parts: list[Sign]) -> Sign:
    return Sign(odd, any(s.own for s in parts), any(s.inner for s in parts))


def _analysis(
    program: Program, sources: Sources, readouts: tuple[Node, ...], fault: Callable[[Node], str], symmetric: bool
) -> Analysis:
    """The faults whose operands are not themselves computed from a fault."""
    found: list[Fault] = []
    tainted: set[Node] = set()
    clean = 0
    correlated, both = sources.others(readouts), _both_ways(program)
    for x in program.nodes:
        if any(a in tainted for a in x.args):
            tainted.add(x)
            continue
        kind, other = "", None
        if x.op == "matmul":
            kind, other = ("both", both[x]) if x in both else (fault(x), None)
            clean += not kind
        elif x in readouts:
            short = sources.shortcoming(x, symmetric)
            kind = "" if not short or short == "is constant 0" else "mean" if "mean" in short else "law"
            if not kind and x in correlated:
                kind, other = "correlated", correlated[x]
        if kind:
            found.append(Fault(x, kind, other))
            tainted.add(x)
    return Analysis(readouts, tuple(found), clean)


def _both_ways(program: Program) -> dict[Node, Node]:
    """Of every matrix in back-propagation that one pass uses as W and as W.T: a product, to one the other way round."""
    if "both ways" in program._derived:
        known: dict[Node, Node] = program._derived["both ways"]
        return known
    passes: dict[tuple[str, bool], list[Node]] = {}
    for x in program.nodes:
        if x.op == "matmul":
            passes.setdefault((x.attr.matrix.name, is_backward(x)), []).append(x)
    found: dict[str, tuple[Node, Node]] = {}
    for (name, back), products in sorted(passes.items()):  # the forward pass first: once is enough
        first, *rest = sorted(products, key=lambda x: (x.height, x.digest))
        other = next((x for x in rest if x.attr.transposed != first.attr.transposed), None)
        if other is not None and (back or (name, True) in passes):
            found.setdefault(name, (other, first))
    known = program._derived["both ways"] = dict(found.values())
    return known


# ---- search ----


def search(
    program: Program, check: Callable[[Program, Iterable[Node]], Analysis], symmetric: bool
) -> tuple[Analysis, bool]:
    """The smallest set of initial vectors that passes a check; where none does, a set with the fewest faults.

    Candidates are the vectors of zero mean on which no product of the forward pass depends, those that are correlated
    together. All sets of such groups are tried, the small ones first, as far as `SUBSETS` goes.

    Args:
        program: The program.
        check: `linearity` or `parity`.
        symmetric: Whether a readout's law must be symmetric.

    Returns:
        The analysis, and whether the search was complete.
    """
    loose = check is parity
    sources = Sources.of(program)
    depends = _dependence(program, sources)
    vanishing = _vanishing(program)
    fixed = _dependence(program, sources, vanishing) if loose else depends
    taken: set[Node] = set()
    needed: list[set[Node]] = []
    for x in program.nodes:
        if x.op == "matmul" and not is_backward(x):
            taken |= fixed[x.args[0]]
        elif x.op == "matmul" and not (loose and x.args[0] in vanishing):
            needed.append(depends[x.args[0]])
    able = {x for x in sources.nodes if x not in taken and not sources.shortcoming(x, symmetric)}
    pool = list(dict.fromkeys([sources.group(x) for x in sources.nodes if sources.group(x) <= able]))
    best = check(program, ())
    tried = 0
    for size in range(1, len(pool) + 1):
        for groups in combinations(pool, size):
            if not best.faults:
                return best, True
            together = set().union(*groups)
            chosen = tuple([x for x in sources.nodes if x in together])
            if size > 1 and not all(wanted.intersection(chosen) for wanted in needed):
                continue
            tried += 1
            if tried > SUBSETS:
                return best, False
            best = min(best, check(program, chosen), key=lambda found: found._rank)
    return best, True


def _dependence(program: Program, sources: Sources, vanishing: Collection[Node] | None = None) -> dict[Node, set[Node]]:
    """The initial vectors each instruction depends on; given what may vanish: surely does in the limit."""
    found: dict[Node, set[Node]] = {}
    for x in program.nodes:
        if x in sources:
            found[x] = {x}
        elif vanishing is not None and (
            x.is_scalar or x.op == "inner" or (x.op == "mul" and any(a in vanishing for a in x.args))
        ):
            found[x] = set()
        else:
            found[x] = set().union(*[found[a] for a in x.args])
    return found


def _vanishing(program: Program) -> set[Node]:
    """Instructions whose limit can be 0 because a scalar is odd in readouts, whichever these are."""
    found: set[Node] = set()
    for x in program.nodes:
        match x.op:
            case "constant":
                zero = x.is_zero
            case "vector" | "scalar" | "softmax":
                zero = False
            case "moment" | "inverse_sqrt":
                zero = True
            case "mul":
                zero = any(a in found for a in x.args)
            case "add" | "stack":
                zero = all(a in found for a in x.args)
            case _:
                zero = x.op == "outer" or x.args[0] in found
        if zero:
            found.add(x)
    return found


def decided(found: Analysis, complete: bool) -> bool | None:
    """Does a check pass? None where the search for readouts was not complete."""
    return True if not found.faults else False if complete else None
