"""What is written into a gate: its function, with a dot for every operand, short enough to be read."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from tensorprog.drawing.glyphs import CAPTION, width
from tensorprog.language.node import Node
from tensorprog.text.literals import number_text

__all__ = ["DOT", "LONGEST", "caption"]

DOT = "∙"
LONGEST = 92.0
"""Pixels: what is longer loses its inner parts."""
SUM, PRODUCT, POWER, ATOM = range(4)
_DIGITS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_FEW = 3
"""Terms and factors: of more only the first and the last are written."""

Piece = tuple[str, int]


def caption(x: Node, is_operand: Callable[[Node], bool]) -> str:
    """The function of a Nonlin, a Moment, or a function of scalars.

    Args:
        x: What the gate computes.
        is_operand: Is a node one of those that have a shape of their own?

    Example:
        >>> import tensorprog as tp
        >>> x = tp.Vector("x", tp.Width("n"))
        >>> caption((2 * tp.tanh(x) * x).node, lambda node: node.op == "vector")
        '2tanh(∙)×∙'
    """
    if x.op in ("moment", "outer"):
        x = x.args[0]
        if is_operand(x):
            return DOT
    text = ""
    for depth in range(6, -1, -1):
        text = _Writer(is_operand).inner(x, depth)[0]
        if width(text, CAPTION) <= LONGEST:
            return text
    while width(text + "…", CAPTION) > LONGEST:
        text = text[:-1]
    return text + "…"


class _Writer:
    def __init__(self, is_operand: Callable[[Node], bool]) -> None:
        self.is_operand = is_operand

    def at(self, x: Node, level: int, depth: int) -> str:
        text, have = self.piece(x, depth)
        return text if have >= level else f"({text})"

    def piece(self, x: Node, depth: int) -> Piece:
        if self.is_operand(x):
            return DOT, ATOM
        if x.op == "constant":
            return _number(x.attr)
        if x.op == "matrix":
            return x.attr.name, ATOM
        if x.op == "inverse_sqrt":
            return f"1/√{x.attr.name}", PRODUCT
        if x.op in ("vector", "scalar"):
            return DOT, ATOM
        if x.op in ("view", "take", "pick"):
            return self.piece(x.args[0], depth)
        return self.inner(x, depth - 1) if depth > 0 else ("…", ATOM)

    def inner(self, x: Node, depth: int) -> Piece:
        """The text of x itself, an operand or not."""
        match x.op:
            case "view" | "take" | "pick":
                return self.piece(x.args[0], depth)
            case "add":
                return self._add(x, depth)
            case "mul":
                return self._mul(x, depth)
            case "fn":
                name = x.attr.name
                inside = x.args[0]
                if name == "reciprocal":
                    return f"1/{self.at(inside, POWER, depth)}", PRODUCT
                if name == "sqrt":
                    return f"√{self.at(inside, ATOM, depth)}", POWER
                if name == "abs":
                    return f"|{self.at(inside, SUM, depth)}|", ATOM
                return f"{name}({self.at(inside, SUM, depth)})", ATOM
            case "difference":
                both = [self.at(a, SUM, depth) for a in x.args[:2]]
                return f"Δ{x.attr.name}({', '.join(both)})", ATOM
            case "inner":
                return f"{self.at(x.args[0], ATOM, depth)}′", ATOM
            case "sum":
                return f"Σ{self.at(x.args[0], PRODUCT, depth)}", PRODUCT
            case "softmax":
                return f"softmax({self.at(x.args[0], SUM, depth)})", ATOM
            case "stack":
                parts = [self.at(a, SUM, depth) for a in x.args]
                return f"({', '.join(_few(parts, '…'))})", ATOM
            case "moment" | "outer":
                return f"E {self.at(x.args[0], POWER, depth)}", PRODUCT
            case _:
                return self.piece(x, depth)

    def _add(self, x: Node, depth: int) -> Piece:
        terms = []
        for c, a in zip(x.attr, x.args, strict=True):
            text = self.at(a, PRODUCT, depth)
            if text.startswith("(−"):
                c, text = -c, text[2:-1]
            sign = "−" if c < 0 else "+"
            size = _number(abs(c))[0]
            terms.append(sign + (text if size == "1" else size + text))
        out = "".join(_few(terms, "+⋯")).removeprefix("+")
        return out, SUM if len(terms) > 1 or out.startswith("−") else PRODUCT

    def _mul(self, x: Node, depth: int) -> Piece:
        above: list[str] = []
        below: list[str] = []
        for k, a in zip(x.attr, x.args, strict=True):
            if a.op == "inverse_sqrt" and not self.is_operand(a):
                below.append(f"√{a.attr.name}" if k == 1 else f"{a.attr.name}{_power(Fraction(k, 2))}")
                continue
            divides = a.op == "fn" and a.attr.name == "reciprocal" and not self.is_operand(a)
            text = self.at(a.args[0] if divides else a, POWER if k == 1 else ATOM, depth)
            (below if divides else above).append(text + _power(Fraction(k)))
        out = "×".join(_few(above, "⋯")) or "1"
        if below:
            under = "×".join(_few(below, "⋯"))
            out += f"/{under}" if len(below) == 1 else f"/({under})"
        return out, POWER if len(above) == 1 and not below else PRODUCT


def _power(k: Fraction) -> str:
    if k == 1:
        return ""
    return str(k).translate(_DIGITS) if k.denominator == 1 else f"^{k}"


def _few(parts: list[str], between: str) -> list[str]:
    return parts if len(parts) <= _FEW else [parts[0], between, parts[-1]]


def _number(c: Any) -> Piece:
    if isinstance(c, np.ndarray):
        return "K", ATOM
    if isinstance(c, float):
        text = f"{c:.3g}"
    else:
        text = number_text(c)
    text = text.replace("-", "−")
    return text, SUM if text.startswith("−") else PRODUCT if "/" in text else ATOM
