"""What a user asks of `kernel_fn` in one call, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.kernels.answer import answer

__all__ = ["Request"]


@dataclass(frozen=True)
class Request:
    """One call of a kernel function.

    Attributes:
        X1: Data of the rows, as the user gave them.
        X2: Of the columns; None: the same.
        gram: Inner products in place of data.
        names: The kernels that are wanted.
        bare: Is it one, wanted without its name?
        dtype: Of the arrays.
        out: A folder for them.
        progress: Is a bar wanted?
        rng: Seeds what has to be sampled.
        values: Numbers for hyperparameters.
    """

    X1: Any
    X2: Any
    gram: Any
    names: tuple[str, ...]
    bare: bool
    dtype: Any
    out: str | Path | None
    progress: bool | None
    rng: int
    values: Mapping[str, Any] | None

    @staticmethod
    def of(get: Any, dtype: Any, **given: Any) -> Request:
        """As the user gives it.

        Raises:
            TensorProgramError: no kernels are named, or the type of the arrays is none of floats.
        """
        return Request(names=_names(get), bare=isinstance(get, str), dtype=_dtype(dtype), **given)

    @property
    def only_pairs(self) -> bool:
        """Does it make sense for kernels of pairs of examples alone?"""
        return self.gram is not None or self.out is not None

    def refuse_whole(self, why: str) -> None:
        """The program of all examples is asked.

        Raises:
            TensorProgramError: it has no inner products in place of data, and no blocks.
        """
        if self.gram is not None:
            raise TensorProgramError(
                "gram= in place of data",
                why=why,
                fix="give data with these inner products: rows of a Cholesky factor, times the root of their number",
            )
        if self.out is not None:
            raise TensorProgramError(
                "out= for a network whose kernel is not computed in blocks",
                why=why,
                fix="leave it out, and save the result: np.save",
            )

    def answered(
        self,
        arrays: Sequence[Any],
        error: Mapping[str, float],
        method: Mapping[str, str],
        kind: Mapping[str, str],
        note: Mapping[str, str],
    ) -> Any:
        """The kernels as they were asked for: an array, or arrays by name with their errors."""
        return arrays[0] if self.bare else answer(self.names, arrays, error, method, kind, note)


def _names(get: Any) -> tuple[str, ...]:
    names = (get,) if isinstance(get, str) else tuple(get) if isinstance(get, (Sequence, set, frozenset)) else ()
    if not names or not all(isinstance(k, str) for k in names) or len(set(names)) < len(names):
        raise TensorProgramError(
            f"get={get!r}", why="it names kernels, each once", fix='give "ntk", or several: ("nngp", "ntk")'
        )
    return names


def _dtype(dtype: Any) -> Any:
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found not in (np.float64, np.float32):
        raise TensorProgramError(f"dtype {dtype}", fix="use float64 or float32")
    return found
