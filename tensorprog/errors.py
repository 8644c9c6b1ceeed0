"""The one exception users can cause: what went wrong, where in their file, why, and what to do."""

from __future__ import annotations

import functools
import linecache
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["MissingAxis", "NotFinite", "Source", "TensorProgramError", "caller", "located"]

QUOTED = 100
"""Characters of the user's line that are shown."""

_PASSED = (str(Path(__file__).parent), str(Path(np.__file__).parent), functools.__file__)
"""Whose lines are nobody's program: this package, and NumPy and functools, which call it back."""


@dataclass(frozen=True, slots=True)
class Source:
    """A line of the user's file."""

    file: str
    line: int

    @property
    def text(self) -> str:
        """The line itself, or an empty string when the file cannot be read."""
        return linecache.getline(self.file, self.line).strip()

    def __str__(self) -> str:
        return f"{Path(self.file).name}:{self.line}"


_RECORDED: ContextVar[Source | None] = ContextVar("recorded", default=None)


@contextmanager
def located(source: Source | None) -> Iterator[None]:
    """While a recorded call is carried out, `caller` answers with the line where it was recorded."""
    token = _RECORDED.set(source)
    try:
        yield
    finally:
        _RECORDED.reset(token)


def caller() -> Source | None:
    """The innermost line of code outside this package: where the user wrote what is being built."""
    frame = sys._getframe(1)
    while frame is not None and (
        frame.f_code.co_filename.startswith(_PASSED)
        or (frame.f_code.co_filename == "<string>" and frame.f_globals.get("__name__", "").startswith("tensorprog."))
    ):  # the __init__ that a dataclass generates has the file <string>
        if frame.f_code.co_name == "carry_out" and _RECORDED.get() is not None:
            return _RECORDED.get()
        frame = frame.f_back  # type: ignore[assignment]
    return None if frame is None else Source(frame.f_code.co_filename, frame.f_lineno)


class TensorProgramError(ValueError):
    """Any error a user of the language can cause.

    Args:
        what: What is wrong, naming the objects involved.
        why: The rule or theorem that forbids it.
        fix: What to do instead.
        source: The line of the user's file; by default the innermost caller outside the package.
        label: The name of the instruction concerned, if it has one.

    Example:
        >>> raise TensorProgramError("W is 2n x n but x has width m", fix="multiply by W.T")
        Traceback (most recent call last):
        ...
        tensorprog.errors.TensorProgramError: W is 2n x n but x has width m...
    """

    def __init__(
        self, what: str, *, why: str = "", fix: str = "", source: Source | None = None, label: str = ""
    ) -> None:
        self.what, self.why, self.fix, self.label = what, why, fix, label
        self.source = source or caller()
        lines = [what + (f"   [{label}]" if label else "")]
        if self.source is not None:
            text = self.source.text
            text = text if len(text) <= QUOTED else text[: QUOTED - 3] + "..."
            lines.append(f"  at {self.source}" + (f":  {text}" if text else ""))
        if why:
            lines.append(f"  why: {why}")
        if fix:
            lines.append(f"  do:  {fix}")
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.what, self.why, self.fix, self.source, self.label)


class MissingAxis(TensorProgramError):
    """A vector or scalar does not have the axis that is asked for.

    Attributes:
        axis: Its name.
    """

    axis: str = ""


class NotFinite(TensorProgramError):
    """An output is no finite number."""


def _restored(
    cls: type[TensorProgramError], what: str, why: str, fix: str, source: Source | None, label: str
) -> TensorProgramError:
    """An error that has crossed a process boundary says what it said there."""
    return cls(what, why=why, fix=fix, source=source, label=label)
