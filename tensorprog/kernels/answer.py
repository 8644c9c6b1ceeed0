"""What `kernel_fn` returns: arrays by name, with their errors and how they were computed."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

__all__ = ["answer"]


def answer(
    names: Sequence[str],
    arrays: Sequence[Any],
    error: Mapping[str, float],
    method: Mapping[str, str],
    kind: Mapping[str, str],
    note: Mapping[str, str],
) -> Any:
    """A named tuple of kernels.

    Args:
        names: Of the kernels.
        arrays: The kernels.
        error: Name to the largest error of an entry.
        method: Name to how it was computed.
        kind: Name to what the error means.
        note: Name to what a reader should know.

    Example:
        >>> answer(["ntk"], [np.eye(1)], {"ntk": 2e-16}, {"ntk": "closed form"}, {"ntk": "rounding"}, {"ntk": ""})
        ntk = array(1, 1) ± 2e-16 (closed form, rounding)
        [[1.]]
    """
    found = _type(tuple(names))(*arrays)
    found.error, found.method, found.kind, found.note = dict(error), dict(method), dict(kind), dict(note)
    return found


@cache
def _type(names: tuple[str, ...]) -> Any:
    base = namedtuple("Kernel", names)  # type: ignore[misc]

    class Kernel(base):
        """Kernels by name.

        Attributes:
            error: Name to the largest error of an entry, as measured on telling pairs of examples.
            method: Name to how it was computed: `closed form`, `quadrature`, `quasi-Monte-Carlo`, `population`.
            kind: Name to what the error means: `rounding`, `bound`, `standard error`, see `Estimate`.
            note: Name to why it was computed so, where another way was tried or is over the budget.
        """

        error: dict[str, float]
        method: dict[str, str]
        kind: dict[str, str]
        note: dict[str, str]

        def __repr__(self) -> str:
            lines = []
            x: Any
            for name, x in zip(names, self, strict=True):
                how = ", ".join(dict.fromkeys([self.method[name], self.kind[name]]))
                note = f"; {self.note[name]}" if self.note[name] else ""
                lines.append(f"{name} = array{np.shape(x)} ± {self.error[name]:.0e} ({how}{note})\n{np.asarray(x)}")
            return "\n".join(lines)

        def _replace(self, **arrays: Any) -> Any:
            """With other arrays, and the same errors and notes."""
            return answer(names, list(super()._replace(**arrays)), self.error, self.method, self.kind, self.note)

        def __reduce__(self) -> Any:
            return answer, (names, list(self), self.error, self.method, self.kind, self.note)

    return Kernel
