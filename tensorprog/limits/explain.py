"""Why a number is what it is: by which route and by which rules, at what cost, and why others declined.

The routes are what `limit` recorded (`routes.py:Record`). The rules are those of `products.py`, counted while the output alone is
lowered once more; its scalar program says which closed forms and integrals are left to compute.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from tensorprog.errors import TensorProgramError
from tensorprog.estimate import Estimate
from tensorprog.language.node import Node, topological
from tensorprog.limits.expect.expectation import Expectation
from tensorprog.limits.expect.lower import Lowering
from tensorprog.limits.routes import Attempt
from tensorprog.limits.tasks import Declined

__all__ = ["Explanation", "Reasons", "reasons"]


@dataclass(frozen=True)
class Reasons:
    """What is known of how one output was found.

    Attributes:
        estimate: The output.
        attempts: The routes that were tried, in order.
        rules: Rules of expectation by name, to how many questions each has answered.
        questions: How many questions there were in all.
        closed_forms: Named closed forms in the scalar program, to how many there are.
        integrals: The same of Gaussian integrals, by a description.
        size: Nodes of the scalar program; 0 where the output has none.
        declined: Why the output has no scalar program, where it has none.
    """

    estimate: Estimate
    attempts: tuple[Attempt, ...]
    rules: Mapping[str, int] = field(default_factory=dict)
    questions: int = 0
    closed_forms: Mapping[str, int] = field(default_factory=dict)
    integrals: Mapping[str, int] = field(default_factory=dict)
    size: int = 0
    declined: str = ""

    def lines(self) -> list[str]:
        """In words."""
        out = []
        for a in self.attempts:
            cost = f", {a.cost:.2g} numbers computed" if a.cost else ""
            error = "" if a.error != a.error else f", error {a.error:.1g}"
            out.append(f"route {a.route}: {a.outcome}{error}{cost}" + (f" ({a.why})" if a.why else ""))
        if self.rules:
            out.append(f"rules, of {self.questions} questions: {_listed(self.rules)}")
        if self.size:
            out.append(f"scalar program of {self.size} nodes")
        if self.closed_forms:
            out.append(f"closed forms: {_listed(self.closed_forms)}")
        if self.integrals:
            out.append(f"integrals: {_listed(self.integrals)}")
        if self.declined:
            out.append(f"no scalar program: {self.declined}")
        if self.estimate.note:
            out.append(f"note: {self.estimate.note}")
        return out


class Explanation(Mapping[str, Reasons]):
    """Output to `Reasons`; it prints.

    Example:
        >>> import tensorprog as tp
        >>> x = tp.Vector("x", tp.Width("n"))
        >>> why = tp.limit(tp.Program(q=tp.moment(tp.relu(x) ** 2), r=tp.moment(x**4))).explain()
        >>> dict(why["r"].rules)
        {"Wick's theorem": 2}
        >>> print(why)
        q = 1/2 (exact)
          route exact: kept, error 0
          rules, of 3 questions: few variables 1
          scalar program of 1 nodes
        r = 3 (exact)
          route exact: kept, error 0
          rules, of 4 questions: Wick's theorem 2
          scalar program of 1 nodes
    """

    def __init__(self, found: Mapping[str, Reasons]) -> None:
        self._found = dict(found)

    def __getitem__(self, name: str) -> Reasons:
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def __repr__(self) -> str:
        rows = []
        for name, r in self._found.items():
            rows += [f"{name} = {r.estimate!r}".split("\n")[0], *[f"  {line}" for line in r.lines()]]
        return "\n".join(rows)


def reasons(
    lowered: Callable[[Expectation], Lowering], output: Node, estimate: Estimate, attempts: list[Attempt]
) -> Reasons:
    """How an output was found.

    Args:
        lowered: Lowers the program of this output alone, by the given rules.
        output: Its node.
        estimate: What was found.
        attempts: What was tried.
    """
    rules = Expectation()
    declined, z = "", None
    try:
        lowering = lowered(rules)
        declined, z = lowering.declined.get(output, ""), lowering.z.get(output)
    except (Declined, TensorProgramError) as error:
        declined = str(error.args[0]).split("\n")[0]
    nodes = [] if z is None or declined else topological([z])
    integrals = Counter([_integral(x) for x in nodes if x.op in ("gauss", "guard", "laplace")])
    return Reasons(
        estimate,
        tuple(attempts),
        dict(rules.used.most_common()),
        len(rules.solver.memo),
        dict(Counter([x.attr for x in nodes if x.op == "dual"]).most_common()),
        dict(integrals.most_common()),
        len(nodes),
        declined,
    )


def _integral(x: Node) -> str:
    if x.op == "laplace":
        return "over tilted laws"
    d = x.attr.dimension
    how = "" if x.attr.by_quadrature else ", sampled"
    guard = ", where a closed form cancels" if x.op == "guard" else ""
    return f"in {d} variable{'s' * (d > 1)}{how}{guard}"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join([f"{name} {k}" for name, k in counts.items()])
