"""Progress of what takes long: a bar on a terminal, nothing in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Generic, TypeVar

__all__ = ["Interrupted", "Silent", "progress_bar"]

T = TypeVar("T")


class Interrupted(KeyboardInterrupt):
    """What takes long was stopped from the keyboard.

    Attributes:
        rows: The runs that were finished, where there are such.
        partial: What they make: a `Comparison` of the widths that are finished, a `Sweep`, the `Runs` of some seeds; or None.
    """

    def __init__(self, message: str, rows: Any = None, partial: Any = None) -> None:
        super().__init__(message)
        self.rows, self.partial = rows, partial


class Silent(Generic[T]):
    """What is used like a bar, and shows none.

    Args:
        items: What is iterated over.
    """

    def __init__(self, items: Iterable[T]) -> None:
        self.items = items

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def __enter__(self) -> Silent[T]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        return None

    def update(self, done: int = 1) -> None:
        """So many more are done."""


def progress_bar(items: Iterable[T] | None = None, *, shown: bool | None = None, **options: Any) -> Any:
    """A progress bar, tqdm's, which is imported only where one is drawn.

    Args:
        items: What is iterated over; None, with `total=` in the options, where the caller updates the bar.
        shown: None for a bar on a terminal alone.
        **options: Of `tqdm.tqdm`.

    Example:
        >>> list(progress_bar([1, 2, 3], shown=False))
        [1, 2, 3]
    """
    if shown is None:
        shown = sys.stderr is not None and sys.stderr.isatty()
    if not shown:
        return Silent(() if items is None else items)
    from tqdm import tqdm

    return tqdm(items, **options)
