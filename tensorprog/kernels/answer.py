"""What `kernel_fn` returns: arrays by name, with their errors and how they were computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["Kernels", "answer"]


class Kernels(tuple[Any, ...]):
    """Kernels in the order in which they were asked for, and by name, `found.ntk`: a named tuple.

    Attributes:
        error: Name to the largest error of an entry, as measured on telling pairs of examples.
        method: Name to how it was computed: `closed form`, `quadrature`, `quasi-Monte-Carlo`, `population`.
        kind: Name to what the error means: `rounding`, `bound`, `standard error`, see `Estimate`.
        note: Name to why it was computed so, where another way was tried or is over the budget.
    """

    _fields: tuple[str, ...]
    error: dict[str, float]
    method: dict[str, str]
    kind: dict[str, str]
    note: dict[str, str]

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__.get("_fields", ()):
            return self[self._fields.index(name)]
        raise AttributeError(f"no kernel {name!r} was asked for")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._fields]

    def __repr__(self) -> str:
        lines = []
        x: Any
        for name, x in self._asdict().items():
            how = ", ".join(dict.fromkeys([self.method[name], self.kind[name]]))
            note = f"; {self.note[name]}" if self.note[name] else ""
            lines.append(f"{name} = array{np.shape(x)} ± {self.error[name]:.0e} ({how}{note})\n{np.asarray(x)}")
        return "\n".join(lines)

    def _asdict(self) -> dict[str, Any]:
        """The arrays by name."""
        return dict(zip(self._fields, self, strict=True))

    def _replace(self, **arrays: Any) -> Kernels:
        """With other arrays, and the same errors and notes."""
        if unknown := set(arrays) - set(self._fields):
            raise ValueError(f"no kernels: {', '.join(sorted(unknown))}")
        new = list((self._asdict() | arrays).values())
        return answer(self._fields, new, self.error, self.method, self.kind, self.note)

    def __reduce__(self) -> Any:
        return answer, (self._fields, list(self), self.error, self.method, self.kind, self.note)


def answer(
    names: Sequence[str],
    arrays: Sequence[Any],
    error: Mapping[str, float],
    method: Mapping[str, str],
    kind: Mapping[str, str],
    note: Mapping[str, str],
) -> Kernels:
    """Kernels by name.

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
    found = Kernels(arrays)
    found._fields = tuple(names)
    found.error, found.method, found.kind, found.note = dict(error), dict(method), dict(kind), dict(note)
    return found
