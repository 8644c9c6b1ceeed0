"""Numbers, lists, sizes and axes of a program's text: see the grammar in `parse.py`."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from tensorprog.language.symbols import Number, quotient
from tensorprog.text.tokens import Reader, Token

__all__ = ["MAX_AXES", "MAX_DIGITS", "MAX_SIZE", "Values"]

MAX_AXES, MAX_SIZE, MAX_DIGITS = 24, 10**9, 4000


def _letter_position(text: str) -> int | None:
    if len(text) == 1 and "i" <= text <= "z":
        return ord(text) - ord("i")
    digits = text[1:]
    return int(digits) if text[:1] == "i" and digits.isascii() and digits.isdigit() and len(digits) < 4 else None


class Values(Reader):
    """Reads what is no expression; the arrays that are known by name."""

    def __init__(self, text: str, file: str = "") -> None:
        super().__init__(text, file)
        self.arrays: dict[str, np.ndarray] = {}

    def string(self) -> str:
        """A name in quotes."""
        token = self.take("string", 'a name in "quotes"')
        try:
            return str(json.loads(token.text))
        except ValueError:
            self.fail(token, f"the string {token.text}", "escape it as in JSON")

    def integer(self, token: Token) -> int:
        """An integer literal."""
        value = self.literal(token)
        if not isinstance(value, int):
            self.fail(token, f"{token.text} is no integer", "write an integer")
        return value

    def literal(self, token: Token) -> int | float:
        """The number that a token stands for."""
        if len(token.text) > MAX_DIGITS:
            self.fail(token, f"a number of {len(token.text)} digits", f"at most {MAX_DIGITS} are read")
        value = int(token.text) if token.text.isdigit() else float(token.text)
        if value == math.inf:
            self.fail(token, f"{token.text} is too large", "use a finite number")
        return value

    def number(self) -> Number:
        """A number with its sign, or a quotient of two."""
        sign = -1 if self.accept("-") else 1
        value: Number = self.literal(self.take("number", "a number"))
        if slash := self.accept("/"):
            below = self.literal(self.take("number", "a number"))
            if below == 0:
                self.fail(slash, "a division by 0", "divide by something else")
            value = self.checked(slash, quotient, value, below)
        return sign * value

    def value(self) -> Any:
        """A number, or an array written in place or by name."""
        if self.next.kind == "[":
            return self.list()
        if token := self.accept("name"):
            return self.rational() if token.text == "rational" else self.lookup(self.arrays, token, "array")
        return self.number()

    def rational(self) -> np.ndarray:
        """An array of rationals that are all integers."""
        self.take("(")
        a = self.list()
        self.take(")")
        return a if a.dtype == object else a.astype(object)

    def list(self) -> np.ndarray:
        """Nested lists of numbers: int64, float64, or object where there is a rational."""
        start = self.next
        flat: list[Number] = []

        def read(depth: int) -> tuple[int, ...]:
            if depth > MAX_AXES:
                self.fail(start, f"a list nested deeper than {MAX_AXES}", "use fewer axes")
            if not self.accept("["):
                flat.append(self.number())
                return ()
            shapes = self.separated("]", lambda: read(depth + 1))
            if not shapes or len(set(shapes)) > 1:
                self.fail(
                    start, "a list whose parts differ in shape, or an empty one", "write it like [[1, 2], [3, 4]]"
                )
            return (len(shapes), *shapes[0])

        shape = read(0)
        exact = not any(isinstance(v, float) for v in flat)
        small = all(isinstance(v, int) and -(2**63) <= v < 2**63 for v in flat)
        dtype = (np.int64 if small else object) if exact else float
        return np.array([*flat, 0], dtype=dtype)[:-1].reshape(shape)

    def size(self) -> tuple[int, int]:
        """An axis and its size: i:3."""
        position = self.axis()
        self.take(":")
        return position, self.integer(self.take("number", "a size"))

    def axis(self) -> int:
        """The position that a letter stands for."""
        token = self.take("name", "an axis: i, j, k, ...")
        position = _letter_position(token.text)
        if position is None or position >= MAX_AXES:
            self.fail(token, f"{token.text} is no axis", "axes are called i, j, k, ... by position")
        return position
