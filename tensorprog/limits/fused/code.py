"""A scalar program over pairs of examples as the source of one function, which computes a tile of its outputs.

The innermost loop runs over columns, one pair of examples in every lane of a vector register; what is used once is computed
where it is used, and what is used in another loop has a row of a small workspace. So no intermediate result leaves the nearest
cache, and no interpreter is asked in between. The source is readable, and runs as plain Python, too: slowly, for tests.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from tensorprog.language.node import Node, topological
from tensorprog.limits.tasks import Declined

__all__ = ["Code", "Outside", "as_code"]

LANES = 256
"""Columns of the innermost loop."""
INLINE = 12
"""Operations that are used once and computed where they are used, at most."""
LONGEST, HEAVIEST = 24, 2
"""Instructions of a loop, and different operands of closed forms among them: compilers give up on longer ones."""


@dataclass(frozen=True)
class Outside:
    """What does not depend on both examples: an array along rows, along columns, or a number, made before any loop.

    Attributes:
        kind: "value", "root", "inverse root": what is made of the sum of the nodes' values.
        nodes: Whose values.
    """

    kind: str
    nodes: tuple[Node, ...]

    @property
    def side(self) -> str:
        """Along rows: "R"; along columns: "C"; neither: "S"."""
        sides = {kind for x in self.nodes for kind, on in (("R", x.width), ("C", x.inner)) if on is not None}
        if len(sides) > 1:
            raise Declined("a sum along rows and columns has no source")
        return sides.pop() if sides else "S"

    def array(self, values: Sequence[np.ndarray]) -> np.ndarray:
        """From the values of its nodes."""
        whole = np.asarray(sum(values[1:], values[0]), dtype=float)
        if self.kind == "value":
            return whole
        root = np.sqrt(np.maximum(whole, 0.0))
        return root if self.kind == "root" else np.divide(1.0, root, out=np.zeros_like(root), where=root > 0)


@dataclass
class Code:
    """A program as source.

    Attributes:
        source: Of `tile(low, high, left, right, R, C, S, given, .., out, ..)`: rows low to high, columns left to right.
        data: The nodes of the data, in the order of the arguments: (rows, columns) each.
        outside: What R, C and S are made of, side to list: (entries, rows), (entries, columns), (entries,).
        conditions: Pairs (variance, noise), one or two: where the largest variance is more than `WIDE` times the least noise
            in all of them, the closed form has another form, and the source must not be used.
        outputs: Of which nodes, (rows, columns) each.
        work: Operations for a pair, roughly.
    """

    source: str = ""
    data: list[Node] = field(default_factory=list)
    outside: dict[str, list[Outside]] = field(default_factory=lambda: {"R": [], "C": [], "S": []})
    conditions: list[tuple[tuple[Node, Node], ...]] = field(default_factory=list)
    outputs: list[Node] = field(default_factory=list)
    work: int = 0


def as_code(outputs: Sequence[Node]) -> Code:
    """The source of the outputs that depend on both examples.

    Args:
        outputs: Of a scalar program without axes, rows as width and columns as inner width.

    Raises:
        Declined: an instruction has no source here, such as an integral.
    """
    return _Writer([x for x in dict.fromkeys(outputs) if _both(x)]).code()


def _both(x: Node) -> bool:
    return x.width is not None and x.inner is not None


def _side_by_side(nodes: Sequence[Node]) -> list[Node]:
    """Closed forms of the same operands one after the other: the compiler then finds what they have in common."""
    alike: dict[tuple[Node, ...], list[Node]] = {}
    for x in nodes:
        if x.op == "dual":
            alike.setdefault(x.args, []).append(x)
    found: dict[Node, None] = {}
    for x in nodes:
        found |= dict.fromkeys(alike[x.args] if x.op == "dual" else [x])
    return list(found)


class _Writer:
    """Writes nodes in order, some of them to a loop."""

    def __init__(self, outputs: Sequence[Node]) -> None:
        self.found = Code(outputs=list(outputs))
        self.inside = _side_by_side(topological(outputs, lambda x: [a for a in x.args if _both(a)]))
        self.uses: Counter[Node] = Counter([a for x in self.inside for a in x.args])
        self.size: dict[Node, int] = {}
        self.kept: dict[Node, None] = {}  # what has a name within its loop
        self.names: dict[Node, str] = {}  # of the loop that is being written
        self.slots: dict[Node, int] = {}  # what is read in other loops, to its row of the workspace
        self.place: dict[Outside, int] = {}

    def code(self) -> Code:
        """All of it."""
        for x in self.inside:
            self._decide(x)
        groups = self._groups()
        rows = self._allocate(groups)
        body = [line for group in groups for line in self._loop(group)]
        for k, x in enumerate(self.found.outputs):
            if x.op == "data":
                body += self._lanes([f"out{k}[row, column + p] = {self._entry(x)}"])
        along = len(self.found.outside["C"])
        arguments = [f"given{k}" for k in range(len(self.found.data))]
        arguments += [f"out{k}" for k in range(len(self.found.outputs))]
        self.found.source = "\n".join(
            [
                f"def tile(low, high, left, right, R, C, S, {', '.join(arguments)}):",
                f"    w = np.empty({(along + rows + 1) * LANES})",
                f"    for column in range(left, right, {LANES}):",
                f"        lanes = min({LANES}, right - column)",
                f"        for i in range({along}):",  # one array in place of many: compilers then know that none overlap
                "            for p in range(lanes):",
                f"                w[i * {LANES} + p] = C[i, column + p]",
                "        for row in range(low, high):",
                *[f"            {line.replace('ALONG', str(along))}" for line in body],
                "",
            ]
        )
        return self.found

    # ---- what is kept ----
    def _decide(self, x: Node) -> None:
        """Has it a name, or is it computed where it is used?"""
        if x.shape or x.op not in ("data", "add", "mul", "fn", "dual"):
            raise Declined(f"{x.op} of shape {x.shape} has no source")
        self.size[x] = 1 + sum([self.size.get(a, 1) for a in x.args if a not in self.kept])
        self.found.work += 16 if x.op == "dual" else 2
        once = self.uses[x] == 1 and self.size[x] <= INLINE and x not in self.found.outputs
        if x.op != "data" and not (once and x.op in ("add", "mul")):
            self.kept[x] = None
            self.size[x] = 1

    def _groups(self) -> list[list[Node]]:
        """What is kept, in order, as loops."""
        groups: list[list[Node]] = [[]]
        for x in self.kept:
            forms = {y.args for y in (*groups[-1], x) if y.op == "dual"}
            if len(groups[-1]) >= LONGEST or len(forms) > HEAVIEST:
                groups.append([])
            groups[-1].append(x)
        return groups

    def _allocate(self, groups: list[list[Node]]) -> int:
        """Rows of the workspace, used again when nothing reads them; how many."""
        own = {x: k for k, group in enumerate(groups) for x in group}
        last: dict[Node, int] = {}
        for x in self.kept:
            for a in self._needs(x):
                last[a] = own[x]
        free: list[int] = []
        ending: dict[int, list[int]] = {}
        count = 0
        for k, group in enumerate(groups):
            for x in group:
                if last.get(x, k) > k:
                    if not free:
                        free.append(count)
                        count += 1
                    self.slots[x] = free.pop()
                    ending.setdefault(last[x], []).append(self.slots[x])
            free += ending.pop(k, [])
        return count

    def _needs(self, x: Node) -> list[Node]:
        """The kept nodes that it is computed from."""
        found, stack = [], list(x.args)
        while stack:
            a = stack.pop()
            if a in self.kept:
                found.append(a)
            else:
                stack.extend(a.args if _both(a) else ())
        return found

    # ---- expressions ----
    def _entry(self, x: Node) -> str:
        """Its value for a pair, as an expression."""
        if x.op == "constant":
            return repr(float(x.attr))
        if not _both(x):
            return self.outside("value", (x,))
        if x in self.names:
            return self.names[x]
        if x in self.slots:
            return f"w[(ALONG + {self.slots[x]}) * {LANES} + p]"
        if x.op != "data":
            return self._value(x)
        if x not in self.found.data:
            self.found.data.append(x)
        return f"given{self.found.data.index(x)}[row, column + p]"

    def outside(self, kind: str, nodes: tuple[Node, ...]) -> str:
        """What is known before the loops."""
        what = Outside(kind, nodes)
        side = self.found.outside[what.side]
        if what not in self.place:
            self.place[what] = len(side)
            side.append(what)
        k = self.place[what]
        return {"R": f"R[{k}, row]", "C": f"w[{k} * {LANES} + p]", "S": f"S[{k}]"}[what.side]

    def entries(self, nodes: Sequence[Node]) -> list[str]:
        """Their values for a pair."""
        return [self._entry(x) for x in nodes]

    def _value(self, x: Node) -> str:
        """What an instruction makes of its operands."""
        match x.op:
            case "add":
                terms = [_times(float(c), self._entry(a)) for c, a in zip(x.attr, x.args, strict=True)]
                return f"({' + '.join(terms)})"
            case "mul":
                return f"({' * '.join([_power(self._entry(a), k) for a, k in zip(x.args, x.attr, strict=True)])})"
            case "fn" if x.attr.name in FUNCTIONS and not x.attr.parameters:
                return FUNCTIONS[x.attr.name].format(x=self._entry(x.args[0]))
            case "dual" if x.attr in DUALS:
                return DUALS[x.attr](self, x.args)
        raise Declined(f"{x.op} {x.attr} has no source")

    # ---- loops ----
    def _loop(self, group: list[Node]) -> list[str]:
        body = []
        for k, x in enumerate(group):
            body.append(f"v{k} = {self._value(x)}")
            self.names[x] = f"v{k}"
            if x in self.slots:
                body.append(f"w[(ALONG + {self.slots[x]}) * {LANES} + p] = v{k}")
            if x in self.found.outputs:
                body.append(f"out{self.found.outputs.index(x)}[row, column + p] = v{k}")
        self.names.clear()
        return self._lanes(body)

    def _lanes(self, body: list[str]) -> list[str]:
        """The loop over lanes; what is the same in all of them is looked up before."""
        before: list[str] = []
        for k, text in enumerate(dict.fromkeys(re.findall(r"R\[\d+, row\]|S\[\d+\]", "\n".join(body)))):
            before.append(f"r{k} = {text}")
            body = [line.replace(text, f"r{k}") for line in body]
        return [*before, "for p in range(lanes):", *[f"    {line}" for line in body]] if body else []


def _times(c: float, x: str) -> str:
    return x if c == 1 else f"-{x}" if c == -1 else f"{c!r} * {x}"


def _power(x: str, k: int) -> str:
    if k <= 3:
        return " * ".join([x] * k)
    return f"({_power(x, k // 2)})**2" + (f" * {x}" if k % 2 else "")


# ---- functions and closed forms ----
FUNCTIONS = {
    "sqrt": "sqrt({x})", "reciprocal": "(1.0 / {x})", "exp": "exp({x})", "abs": "abs({x})", "sin": "sin({x})", "cos": "cos({x})",
}  # fmt: skip
"""Rows of `language/functions.py` that are written out."""

Form = Callable[[_Writer, Sequence[Node]], str]


def _correlation(w: _Writer, one: tuple[Node, ...], c: Node, other: tuple[Node, ...]) -> tuple[str, str]:
    """The correlation and the product of the standard deviations, from the covariance and variances that are sums.

    Roots of what is known along rows or columns are taken before the loops.
    """
    if not any(map(_both, (*one, *other))):
        inverse, root = [[w.outside(kind, v) for v in (one, other)] for kind in ("inverse root", "root")]
        return f"snapped({' * '.join([w.entries([c])[0], *inverse])})", " * ".join(root)
    a, b = [" + ".join(w.entries(v)) for v in (one, other)]
    return f"correlation({a}, {w.entries([c])[0]}, {b})", f"root({a}) * root({b})"


def _arccos1(w: _Writer, args: Sequence[Node]) -> str:
    a, c, b = args
    return f"relu_kernel({', '.join(_correlation(w, (a,), c, (b,)))})"


def _arcsine(w: _Writer, args: Sequence[Node]) -> str:
    a, c, b = args
    return f"sign_kernel({_correlation(w, (a,), c, (b,))[0]})"


def _arcsine_noisy(w: _Writer, args: Sequence[Node]) -> str:
    s, t, a, c, b = args
    if any(map(_both, (s, t, a, b))):
        raise Declined("noise that depends on both examples has no source")
    w.found.conditions.append(((a, s), (b, t)))
    return f"sign_kernel({_correlation(w, (a, s), c, (b, t))[0]})"


def _residual(w: _Writer, args: Sequence[Node]) -> str:
    return f"residual({', '.join(w.entries(args))})"


def _widened(w: _Writer, args: Sequence[Node]) -> str:
    x, y, z, q, t = args
    if _both(q) or _both(t):
        raise Declined("noise that depends on both examples has no source")
    w.found.conditions.append(((q, t),))
    return f"residual({', '.join([*w.entries((x, y, z)), w.outside('value', (q, t))])})"


def _density(w: _Writer, args: Sequence[Node]) -> str:
    if not args[0].is_zero:
        raise Declined("the density of a variable with a mean has no source")
    return f"density({w.entries(args[1:])[0]})"


def _pinv(w: _Writer, args: Sequence[Node]) -> str:
    return f"pinv({w.entries(args)[0]})"


def _difference(w: _Writer, args: Sequence[Node]) -> str:
    return f"difference({', '.join(w.entries(args))})"


DUALS: dict[str, Form] = {
    "arccos1": _arccos1, "arcsine": _arcsine, "arcsine_noisy": _arcsine_noisy,
    "residual": _residual, "widened": _widened, "density": _density, "pinv": _pinv,
    "difference": _difference,
}  # fmt: skip
"""Closed forms of `limits/gauss/duals.py` that are written out."""
