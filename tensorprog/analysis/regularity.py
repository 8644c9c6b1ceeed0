"""Which Master Theorem covers a program: what its functions must satisfy, decided instruction by instruction.

| theorem                   | scalars in Nonlins | functions                                                                  |
|---------------------------|--------------------|----------------------------------------------------------------------------|
| Tensor Programs I, 5.4    | no, and no W.T     | controlled: grow at most like exp(|x|^(2 - e))                              |
| Tensor Programs III, 2.10 | no                 | polynomially bounded                                                       |
| Tensor Programs III, E.15 | yes                | pseudo-Lipschitz in vectors and scalars jointly                            |
| Tensor Programs III, E.11 | yes                | parameter-controlled at the scalars' limits; and the program is rank stable |
| Tensor Programs IVb, 2.6  | yes, OuterNonlin   | pseudo-Lipschitz; polynomially smooth if the weights are not Gaussian       |

"Scalars" are Moments, powers of `inverse_sqrt(n)`, and functions of them; a hyperparameter is a constant. A function of
scalars alone is an instruction of its own, which must be continuous at the limit. A Nonlin is read down to the products
and initial vectors it is made of, as a composition: polynomially bounded functions compose, and so do pseudo-Lipschitz
ones (products included). Functions that are singular somewhere count by the range of their argument.

*Rank stability* (the rank of the vectors a matrix is applied to is the rank of their limits, for large n) cannot be read
off a program in general. Two sufficient conditions are decided here: no product's operand depends on a scalar, or the
limits of the vectors that each matrix is applied to are linearly independent.

Outside of all theorems the limit may still be right (relu and step in training; exp). It need not be where a scalar of
limit 0 scales a vector inside a jump: sign(x/n)**2 has mean 1, not sign(0)**2 = 0.

Source: the theorems named; Tensor Programs III (arXiv:2009.10685), appendix E, with both counterexamples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from tensorprog.analysis.instructions import Instructions, place
from tensorprog.errors import Source, TensorProgramError
from tensorprog.language import algebra
from tensorprog.language.functions import PRIMITIVES, TINY
from tensorprog.language.node import Node, topological
from tensorprog.language.program import Output, Program
from tensorprog.limits.evaluate.moments import check_moments
from tensorprog.limits.expect.domain import Range, check_domains, ranges
from tensorprog.limits.expect.lower import Lowering
from tensorprog.limits.expect.powers import initial_limit, initial_scalars
from tensorprog.limits.jumps.check import Met, jumps_met
from tensorprog.transforms.dispatch import of_networks
from tensorprog.transforms.written_out import written_out

__all__ = ["Reason", "RegularityReport", "check_regularity"]

STATUSES = ("fine", "outside", "open", "fails", "refused")
"""What a reason says, the worst last."""

CONTROLLED = "Tensor Programs I, theorem 5.4 (no transposes, controlled functions)"
POLYNOMIAL = "Tensor Programs III, theorem 2.10 (no scalars in Nonlins, polynomially bounded functions)"
LIPSCHITZ = "Tensor Programs III, theorem E.15 (pseudo-Lipschitz in vectors and scalars)"
PARAMETER = "Tensor Programs III, theorem E.11 (parameter-controlled, rank stable)"
OUTER = "Tensor Programs IVb, theorem 2.6.10 (OuterNonlins, pseudo-Lipschitz)"
UNIVERSAL = "Tensor Programs IVb, theorem 2.6.10 (weights that are not Gaussian, polynomially smooth functions)"

_VECTORS = 6
"""Linear independence is decided for up to this many vectors of one matrix."""


class Reason(NamedTuple):
    """What one instruction does to the theorems.

    Attributes:
        instruction: Its text, numbered as in `print(program)`.
        number: Its number; None for an initial vector, a matrix, or a part of an output.
        source: The user's line.
        status: "fine"; "outside" of the theorems as proven, but expected to hold; "open"; "fails": the limit need not be
            right; "refused".
        text: Why.
    """

    instruction: str
    number: int | None
    source: Source | None
    status: str
    text: str

    def __str__(self) -> str:
        where = f" ({self.source})" if self.source is not None else ""
        return f"{self.instruction}{where}: {self.text}"


@dataclass(frozen=True, eq=False)
class RegularityReport:
    """What `check_regularity` found; `print` shows all of it.

    Attributes:
        covered: True: a theorem covers the program. None: outside the proofs, or if rank stable; the limit is expected
            to hold, or it is open. False: the theorem fails, or the limit is refused.
        theorem: The theorem, with the condition that is left open; what is missing, where none covers the program.
        rank_stable: True where a sufficient condition decides it (or no theorem needs it), else None.
        reasons: The instructions that decide, in the program's order.
    """

    covered: bool | None
    theorem: str
    rank_stable: bool | None
    reasons: tuple[Reason, ...]

    def __str__(self) -> str:
        word = {True: "covered", False: "NOT covered", None: "not covered as proven"}[self.covered]
        lines = [f"Master Theorem: {word}", f"  {self.theorem}"]
        return "\n".join(lines + [f"  {r.status}: {r}" for r in self.reasons])

    __repr__ = __str__

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON types."""
        reasons = [
            {"instruction": r.instruction, "number": r.number, "status": r.status, "text": r.text} | place(r.source)
            for r in self.reasons
        ]
        answers = {"covered": self.covered, "theorem": self.theorem, "rank_stable": self.rank_stable}
        return answers | {"reasons": reasons}


@of_networks()
def check_regularity(program: Program, *, values: Mapping[str, Any] | None = None) -> RegularityReport:
    """Which Master Theorem covers a program?

    Args:
        program: The program, or a network: then its data X is the second argument, and all others are keywords,
            with `X2`, `of`, `parametrization` and `width` of `Network.program` among them.
        values: Numbers for the hyperparameters, for the limits of scalars; by default their defaults. Where one has
            none, what depends on it stays undecided.

    Returns:
        A `RegularityReport`.

    Raises:
        TensorProgramError: for what is no Program, and values for hyperparameters it does not have.

    Example:
        >>> import tensorprog as tp
        >>> n = tp.Width("n")
        >>> W, x = tp.Matrix("W", n, n), tp.Vector("x", n)
        >>> print(tp.check_regularity(tp.Program(q=tp.moment(tp.relu(W @ x) * (W.T @ x)))))
        Master Theorem: covered
          Tensor Programs III, theorem 2.10 (no scalars in Nonlins, polynomially bounded functions)
        >>> theta = tp.inverse_sqrt(n) ** 2
        >>> tp.check_regularity(tp.Program(q=tp.moment(tp.step(theta * x)))).covered
        False

    Source: see the table in `tensorprog.analysis.regularity`.
    """
    if not isinstance(program, Program):
        raise TensorProgramError(f"check_regularity of {type(program).__name__}", fix="pass a tp.Program")
    for name in values or {}:
        if name not in program.scalars:
            program.values(values)  # says which names there are
    program = written_out(program)
    of = Instructions(program)
    try:
        check_domains(program)
    except TensorProgramError as error:
        x = next((x for x in program.nodes if x.op == "fn" and x.source == error.source), program.nodes[-1])
        reason = Reason(of.heading(x), of.number(x), error.source, "refused", f"{error.what}: {error.why}")
        return RegularityReport(False, "none: a function has no value, or a moment is infinite", None, (reason,))
    return _Check(program, of, values).report()


class _Check:
    """The facts about one program, each found once."""

    def __init__(self, program: Program, of: Instructions, values: Mapping[str, Any] | None) -> None:
        self.program, self.of = program, of
        given = {**program.scalars, **(values or {})}
        self.values = {name: v for name, v in given.items() if v is not None}
        self.ranges: dict[Node, Range] = ranges(program)
        self.initial = initial_scalars(program.nodes)
        self.scalars: dict[Node, bool] = {}  # does it depend on program scalars, within its region?
        self.traced: dict[Node, bool] = {}  # ... at all?
        for x in program.nodes:
            mine = x.op in ("moment", "inverse_sqrt")
            self.scalars[x] = mine or (x.op not in ("matmul", "outer") and any(self.scalars[a] for a in x.args))
            self.traced[x] = mine or any(self.traced[a] for a in x.args)
        self.reasons: list[Reason] = []

    def note(self, x: Node, status: str, text: str) -> None:
        """Records a reason."""
        self.reasons.append(Reason(self.of.heading(x), self.of.number(x), self.of.source(x), status, text))

    # ---- the decision ----
    def report(self) -> RegularityReport:
        """Goes through the program and decides."""
        nodes = self.program.nodes
        vectors = [x for x in nodes if not x.is_scalar]
        with_scalars = any(self.scalars[x] and x.op not in ("matmul", "outer") for x in vectors)
        outer = any(x.op == "outer" for x in nodes)
        transposes = {m.name for m in self.program.matrices if len(self._directions(m.name)) > 1}
        polynomial = lipschitz = True
        for x in nodes:
            if x.op == "vector" and hasattr(x.attr.distribution, "dist"):
                if not all(map(np.isfinite, x.attr.distribution.support())):
                    self.note(x, "open", "its law is not known to be a polynomially bounded function of a Gaussian")
            elif x.op == "fn" and x.is_scalar:
                self._scalar_function(x)
            elif x.op == "fn":
                poly, smooth = self._growth(x)
                polynomial &= poly
                if not poly and PRIMITIVES[x.attr.name].growth != "exponential":
                    self.note(x, "open", "it is not known to be polynomially bounded on the range of its argument")
                elif not poly and (transposes or with_scalars or outer):
                    why = (
                        f"{', '.join(sorted(transposes))} is used with its transpose"
                        if transposes
                        else "there are scalars"
                    )
                    self.note(x, "outside", f"it grows faster than any polynomial, and {why}; expected to hold")
                if not smooth:
                    lipschitz = False
                    if PRIMITIVES[x.attr.name].jumps:
                        self._jump(x)
                    elif poly and (with_scalars or outer):
                        self.note(x, "fine", "it is not pseudo-Lipschitz; needs theorem E.11")
            elif x.op == "vector" and x.attr.distribution == "rademacher" and (with_scalars or outer):
                lipschitz = False
        self._entries()
        stable: bool | None = True
        if not with_scalars and not outer:
            theorem = POLYNOMIAL if polynomial else CONTROLLED
        elif lipschitz:
            theorem = OUTER if outer else LIPSCHITZ
        elif outer:
            theorem = OUTER
            first = next(x for x in nodes if x.op == "outer")
            self.note(first, "outside", "with an OuterNonlin every function must be pseudo-Lipschitz; expected to hold")
        else:
            theorem = PARAMETER
            stable = self._rank_stable()
        if theorem != UNIVERSAL and any(m.entries is not None for m in self.program.matrices):
            theorem = UNIVERSAL
        worst = max([STATUSES.index(r.status) for r in self.reasons], default=0)
        if worst >= STATUSES.index("fails"):
            theorem = "none: a Moment's limit need not be its value at the limits of the scalars"
            return self._finished(False, theorem, stable)
        if worst:
            known = "open whether the limit holds" if STATUSES[worst] == "open" else "expected to hold"
            return self._finished(None, f"none as proven; {known}", stable)
        if not stable:
            theorem += ", if it is rank stable"
            return self._finished(None, theorem, None)
        return self._finished(True, theorem, True)

    def _finished(self, covered: bool | None, theorem: str, stable: bool | None) -> RegularityReport:
        return RegularityReport(covered, theorem, stable, tuple(dict.fromkeys(self.reasons)))

    def _directions(self, name: str) -> set[bool]:
        return {x.attr.transposed for x in self.program.nodes if x.op == "matmul" and x.attr.matrix.name == name}

    # ---- functions of vectors ----
    def _growth(self, x: Node) -> tuple[bool, bool]:
        """Is a primitive of a vector polynomially bounded, pseudo-Lipschitz, on the range of its argument?"""
        row, r = PRIMITIVES[x.attr.name], self.ranges[x.args[0]]
        if row.growth == "exponential":
            below = bool(np.isfinite(r.high)) or r.degree == 0
            return below, below
        if row.name == "reciprocal":
            away = r.low > TINY or r.high < 0
            return away, away
        if row.name == "sqrt":
            return True, r.low > TINY
        if row.growth == "singular":  # logarithms: fine where the argument stays away from the end of the domain
            away = row.domain is not None and r.low > row.domain[0] + TINY and r.low != TINY
            return away, away
        if row.name == "bump":
            return x.attr.parameters[0] != 0, x.attr.parameters[0] != 0
        return True, row.lipschitz

    def _jump(self, x: Node) -> None:
        """A discontinuous function of a vector: what do scalars do to its argument?"""
        u = x.args[0]
        if x in self.met.met:
            self._degenerate(x)
        if x in self.met.met or not self.scalars[u]:
            return
        if x in self.met.unknown or self._open(u):
            self.note(x, "open", "the scalar in its argument has a limit that is not known; it must not be 0")
            return
        factors = list(zip(u.args, u.attr, strict=True)) if u.op == "mul" else []
        if u.op == "add" and len(u.args) == 1 and u.args[0].op == "mul":
            factors = list(zip(u.args[0].args, u.args[0].attr, strict=True))
        rest = [a for a, _ in factors if not (a.is_scalar or _spread(a) is not None)]
        if factors and not any(self.scalars[a] for a in rest):
            self.note(x, "fine", f"{x.attr.name} of a vector times a scalar whose limit is not 0: parameter-controlled")
            return
        self.note(
            x,
            "outside",
            f"{x.attr.name} jumps, and where depends on a scalar: not parameter-controlled; expected to hold where the limit of "
            "its argument is at the jump with probability 0",
        )

    def _open(self, x: Node) -> bool:
        """Does it depend on a hyperparameter without a value?"""
        return any(y.op == "scalar" and y.attr.name not in self.values for y in topological([x]))

    @cached_property
    def met(self) -> Met:
        """The jumps that are met exactly; none where the limit is refused for another reason."""
        known = all(name in self.values for name in self.program.scalars)
        try:
            lowering = Lowering(self.program, self.values if known else None)
            check_moments(lowering.expectation.unweighed)
            return jumps_met(self.program, lowering)
        except TensorProgramError:
            return Met((), (), "")

    def _degenerate(self, x: Node) -> None:
        self.note(
            x,
            "fails",
            "its argument tends to the jump because of a scalar of limit 0 (not parameter-controlled; such a vector can also "
            "break rank stability): at every finite width it is on either side, in the limit on neither",
        )

    # ---- functions of scalars ----
    def _scalar_function(self, x: Node) -> None:
        """It must be continuous at the limit of its argument."""
        row, u = PRIMITIVES[x.attr.name], x.args[0]
        singular = row.domain is not None and row.name != "sqrt"
        if not (row.jumps or singular) or not self.scalars[u]:
            return
        if row.jumps:
            if x in self.met.met:
                self._degenerate(x)
            elif x in self.met.unknown or self._open(u):
                self.note(x, "open", f"whether {row.name} is continuous at the limit of its argument is not known")
            return
        r = self.ranges[u]
        points = (0.0,) if row.domain is None else (row.domain[0],)
        if all(r.low > p + TINY or r.high < p for p in points):
            return
        if x in self.initial and initial_limit(self._enclosing(x), self.values) is not None:
            return  # a power of n: only where it ends counts
        known = self._limit(u)
        if known is None:
            self.note(x, "open", f"whether {row.name} is continuous at the limit of its argument is not known")
        elif any(np.any(np.abs(known[0] - p) <= 10 * known[1] + 1e-12) for p in points):
            self.note(x, "open", "a scalar tends to infinity; the theorems need convergent ones")

    def _enclosing(self, x: Node) -> Node:
        """The largest initial scalar that x is part of, along single uses; else x."""
        users = [y for y in self.program.nodes if x in y.args]
        return self._enclosing(users[0]) if len(users) == 1 and users[0] in self.initial else x

    def _limit(self, x: Node) -> tuple[np.ndarray, np.ndarray] | None:
        """Limit and error of a scalar; None where it is not known."""
        from tensorprog.limits.limit import limit

        try:
            part = Program({"value": Output(x, tuple([f"axis{i}" for i in range(len(x.shape))]))})
            found = limit(part, values={k: v for k, v in self.values.items() if k in part.scalars})["value"]
        except TensorProgramError:
            return None
        return np.asarray(found.value, dtype=float), np.asarray(found.error, dtype=float)

    # ---- matrices ----
    def _entries(self) -> None:
        """Weights that are not Gaussian need smooth functions."""
        if all(m.entries is None for m in self.program.matrices):
            return
        for x in self.program.nodes:
            if x.op == "vector" and x.attr.distribution == "rademacher":
                self.note(x, "outside", "the weights are not Gaussian, and it is no smooth function of a Gaussian")
            if x.op == "fn" and not x.is_scalar:
                row = PRIMITIVES[x.attr.name]
                if row.kinks or not all(self._growth(x)):
                    self.note(
                        x,
                        "outside",
                        "the weights are not Gaussian, and it is not polynomially smooth; expected to hold",
                    )

    def _rank_stable(self) -> bool | None:
        """One of two sufficient conditions, for every matrix and direction; else None."""
        families: dict[tuple[str, bool], list[Node]] = {}
        for x in self.program.nodes:
            if x.op == "matmul":
                families.setdefault((x.attr.matrix.name, x.attr.transposed), []).append(x)
        stable: bool | None = True
        for products in families.values():
            operands = [x.args[0] for x in products]
            if not any(self.traced[y] for y in operands) or self._independent(operands):
                continue
            traced = next(x for x in products if self.traced[x.args[0]])
            self.note(traced, "fine", "its operand depends on a scalar: rank stability is not decided")
            stable = None
        return stable

    def _independent(self, vectors: list[Node]) -> bool:
        """Are the limits of these vectors surely linearly independent?"""
        if len(vectors) > _VECTORS or any(v.shape for v in vectors):
            return False
        k = len(vectors)
        gram, error = np.zeros((k, k)), 0.0
        for i in range(k):
            for j in range(i + 1):
                known = self._limit(algebra.moment(algebra.mul([vectors[i], vectors[j]])))
                if known is None:
                    return False
                gram[i, j] = gram[j, i] = float(known[0])
                error += 2 * float(known[1])
        return bool(np.linalg.eigvalsh(gram)[0] > 10 * error + 1e-9 * np.trace(gram))


def _spread(x: Node) -> Node | None:
    """The scalar that x is in every coordinate, if it is one spread over the width."""
    return x.args[0] if x.op == "add" and len(x.args) == 1 and x.args[0].is_scalar else None
