"""How messages call an instruction: as the user might have written it."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorprog.language.node import Node

__all__ = ["describe"]

SHORT = 60
"""Descriptions longer than this are not written out."""


def describe(node: Node) -> str:
    """How messages call a node: its label, its name, or what it computes, as the user might have written it."""
    text = _written(node) if node.label or node.height < 12 else ""
    return text if 0 < len(text) <= SHORT else f"a {_KINDS.get(node.op, node.op)}"


_KINDS = {
    "add": "sum",
    "mul": "product",
    "matmul": "product with a matrix",
    "apply": "product with a matrix",
    "fn": "function",
    "outer": "mean over pairs",
}


def _written(node: Node) -> str:
    if node.label:
        return node.label
    match node.op:
        case "vector":
            return node.attr.name
        case "scalar":
            return node.attr.name
        case "constant":
            return str(node.attr) if not isinstance(node.attr, np.ndarray) else f"an array {node.shape}"
        case "matmul":
            matrix, transposed, _ = node.attr
            return f"{matrix.name}{'.T' if transposed else ''} @ {describe(node.args[0])}"
        case "matrix":
            return node.attr.name
        case "apply":
            m = describe(node.args[0])
            m = f"({m})" if " " in m else m
            return f"{m}{'.T' if node.attr.transposed else ''} @ {describe(node.args[1])}"
        case "inner":
            return f"{describe(node.args[0])}'"
        case "fn":
            return f"{node.attr.name}({describe(node.args[0])})"
        case "view":
            return describe(node.args[0])
        case "add":
            parts = [_multiple(c, describe(x)) for c, x in zip(node.attr, node.args, strict=True)]
            return " + ".join(parts).replace("+ -", "- ")
        case "mul":
            parts = [f"({t})" if " + " in (t := describe(x)) or " - " in t else t for x in node.args]
            return " * ".join([t if k == 1 else f"{t}**{k}" for t, k in zip(parts, node.attr, strict=True)])
        case "inverse_sqrt":
            return f"inverse_sqrt({node.attr.name})"
    return f"{node.op}({', '.join([describe(x) for x in node.args])})"


def _multiple(c: Any, text: str) -> str:
    if c in (1, -1):
        return text if c == 1 else f"-{text}"
    return f"{c} * {text}"
