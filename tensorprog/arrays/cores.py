"""How much of the machine may be used, and work on all of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["cores", "each"]

S = TypeVar("S")
T = TypeVar("T")


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def each(work: Callable[[T], S], items: Sequence[T], parallel: bool = True) -> list[S]:
    """What is made of every item, in threads if that is worth it.

    Args:
        work: Makes it.
        items: Taken in any order.
        parallel: Is one of them enough work for a thread?

    Example:
        >>> each(abs, [-1, 2, -3])
        [1, 2, 3]
    """
    workers = min(cores(), 8, len(items)) if parallel else 1
    if workers > 1:
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(work, items))
    return [work(item) for item in items]
