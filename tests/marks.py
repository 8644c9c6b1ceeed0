"""Parametrisations of which only a few run by default; what an error says."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tensorprog.errors import TensorProgramError


def few(values: Iterable[Any], fast: Collection[Any]) -> list[Any]:
    """The values, each but those of `fast` marked slow; a tuple is one value for each of several parameters."""
    every = list(values)
    assert fast and all(value in every for value in fast), fast
    params = [(value if isinstance(value, tuple) else (value,), value in fast) for value in every]
    return [pytest.param(*value, marks=() if default else pytest.mark.slow) for value, default in params]


def said(error: Any) -> str:
    """What an error says, without the user's line: that is the test's own, and has in it what the test looks for."""
    return " ".join([str(part) for part in (error.what, error.why, error.fix) if part])


@contextmanager
def refused(message: str) -> Iterator[pytest.ExceptionInfo[TensorProgramError]]:
    """Inside, an error is raised that says this by itself: `pytest.raises` would find it in the line that is quoted, too."""
    with pytest.raises(TensorProgramError) as caught:
        yield caught
    assert re.search(message, said(caught.value)), f"{message!r} is not in {said(caught.value)!r}"
