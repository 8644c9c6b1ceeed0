"""Time and memory of lazy products at n = 10^6: `python benchmarks/lazy.py [n]`.

Each case runs in a process of its own, so that its peak memory (maximum resident set size) is its own too.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from dataclasses import dataclass, field

import numpy as np

from tensorprog.execute.lazy import Lazy


@dataclass(frozen=True)
class Width:
    """Stands in for `tensorprog.Width`: spaces need no more."""

    name: str = "n"
    ratio: int = 1


@dataclass(frozen=True)
class Matrix:
    """Stands in for `tensorprog.Matrix`."""

    name: str = "W"
    rows: Width = field(default_factory=Width)
    cols: Width = field(default_factory=Width)
    var: int = 1
    entries: None = None


def peak_megabytes() -> float:
    """Largest resident set so far, interpreter and libraries included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def ten_products(n: int) -> None:
    """Five times W and five times W.T, in turn: every product adds a direction."""
    w = Lazy(n).matrix(Matrix())
    x = np.random.default_rng(0).standard_normal(n)
    for i in range(10):
        x = np.tanh(w.apply(x) if i % 2 == 0 else w.apply_transposed(x))


def ten_forward(n: int) -> None:
    """Ten times the same W, as a recurrent network uses it."""
    w = Lazy(n).matrix(Matrix())
    x = np.random.default_rng(0).standard_normal(n)
    for _ in range(10):
        x = np.tanh(w.apply(x))


def thirty_two_columns(n: int) -> None:
    """One product with 32 columns at once."""
    Lazy(n).matrix(Matrix()).apply(np.random.default_rng(0).standard_normal((32, n)))


def thirty_two_there_and_back(n: int) -> None:
    """32 columns through W and then W.T."""
    w = Lazy(n).matrix(Matrix())
    w.apply_transposed(w.apply(np.random.default_rng(0).standard_normal((32, n))))


def input_only(n: int) -> None:
    """What the input of the 32-column cases costs by itself."""
    np.random.default_rng(0).standard_normal((32, n))


def measure(case: str, n: int) -> None:
    """Run one case and print a line."""
    before, start = peak_megabytes(), time.perf_counter()
    globals()[case](n)
    seconds = time.perf_counter() - start
    print(f"{case:<26} n = {n:>8}   {seconds:6.2f} s   peak {peak_megabytes():6.0f} MB (start {before:.0f} MB)")


def main() -> None:
    """Measure every case."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 10**6
    context = multiprocessing.get_context("spawn")
    for case in ("ten_products", "ten_forward", "input_only", "thirty_two_columns", "thirty_two_there_and_back"):
        process = context.Process(target=measure, args=(case, n))
        process.start()
        process.join()


if __name__ == "__main__":
    main()
