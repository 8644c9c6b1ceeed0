"""Arithmetic of floats that is carried out while a program is lowered: how far rounding may have moved it.

A scalar program is evaluated with every instruction moved by a rounding error (`limits/evaluate/perturb.py`). Numbers that were
folded before, a hyperparameter fed back through forty steps of a recursion say, are no instructions of it any more: they
are followed here. Where they have lost digits, the program is lowered again with every such result moved, and what its
limits then differ by is part of their errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorprog.arrays.elementwise import kernel
from tensorprog.language.node import MOVES, Node
from tensorprog.language.symbols import is_exact
from tensorprog.limits.gauss.rounding import EPS, NOISE

__all__ = ["FloatArithmetic"]

LOST = 64 * EPS
"""Relative errors from which on numbers are followed: below, they are within what is stated of any float."""
_FOLDED = ("add", "mul", "fn", "sum", "softmax")


class FloatArithmetic:
    """Follows the floats of one lowering.

    Args:
        stream: Moves every result by its own rounding error, with random signs; None to leave them as they are.

    Attributes:
        uncertain: Has any number lost digits?
    """

    def __init__(self, stream: np.random.Generator | None = None) -> None:
        self.stream = stream
        self.uncertain = False
        self._errors: dict[Node, Any] = {}  # absolute, of scalars that are numbers
        self._relative: dict[Node, float] = {}  # of what is made of them

    def seen(self, x: Node, z: Node, args: Sequence[Node]) -> Node:
        """The limit of an instruction, moved where that is asked for.

        Args:
            x: The instruction.
            z: Its limit.
            args: Those of its operands.
        """
        if not self._errors and not _is_float(z):
            return z
        below = max([self._relative.get(a, 0.0) for a in x.args], default=0.0)
        if not x.is_scalar or not _is_float(z):
            if below:
                self._relative[x] = below
            return z
        value = np.asarray(z.attr, dtype=float)
        if x.op in _FOLDED and all(a.op == "constant" for a in args):
            own, inherited = self._folded(x, args)
        else:  # a hyperparameter, a Moment, a view of one: as far as its parts are known
            own, inherited = (NOISE if x.op == "moment" else EPS) * np.abs(value), 4 * below * np.abs(value)
            if x.op in MOVES and x.args[0] in self._errors:  # the errors are seen as the numbers are
                inherited = kernel(x)(np.broadcast_to(self._errors[x.args[0]], x.args[0].shape))
        error = np.broadcast_to(own + inherited, x.shape)
        size = np.abs(value)
        relative = float(np.max(np.divide(error, size, out=np.where(error > 0, 1.0, 0.0), where=size > 0), initial=0.0))
        self._errors[x], self._relative[x] = error, relative
        self.uncertain |= relative > LOST
        if self.stream is None or x.op in (*MOVES, "stack"):
            return z
        signs = 2.0 * self.stream.integers(0, 2, value.shape) - 1
        moved = value + signs * (own if np.ndim(own) <= value.ndim else np.max(own))
        return Node("constant", (), float(moved) if moved.ndim == 0 else moved, z.shape, z.width, z.inner)

    def reaches(self, x: Node) -> bool:
        """Is this made of numbers that have lost digits?"""
        return self._relative.get(x, 0.0) > LOST

    def _folded(self, x: Node, args: Sequence[Node]) -> tuple[Any, Any]:
        """What this instruction's rounding adds, and what its operands' errors make of its result."""
        rule = kernel(x)
        values = [np.broadcast_to(np.asarray(a.attr, dtype=float), a.shape) for a in args]
        errors = [
            np.broadcast_to(np.asarray(self._errors.get(a, 0.0)), v.shape) for a, v in zip(x.args, values, strict=True)
        ]
        with np.errstate(all="ignore"):
            base = np.asarray(rule(*values))
            inherited: Any = 0.0
            for i, e in enumerate(errors):
                if np.any(e):
                    there = [rule(*values[:i], values[i] + sign * e, *values[i + 1 :]) for sign in (1, -1)]
                    inherited = inherited + np.maximum(np.abs(there[0] - base), np.abs(there[1] - base))
            if x.op == "add":
                own = EPS * sum([abs(float(c)) * np.abs(v) for c, v in zip(x.attr, values, strict=True)])
            else:
                own = (EPS * len(args) if x.op == "mul" else NOISE) * np.abs(base)
        return own, inherited


def _is_float(z: Node) -> bool:
    return z.op == "constant" and not is_exact(z.attr)
