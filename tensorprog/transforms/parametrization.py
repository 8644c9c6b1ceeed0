"""Parametrizations: what is trained, as factors in front of the parts of the tangent kernel.

A parametrization knows a parameter by its specification alone: the variance, the share of the fan-in and the standard deviation
of a matrix, the features of an input layer, the learning rate of a vector; and the fan-in of a readout by the readout.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.language import algebra
from tensorprog.language.data import Embedding
from tensorprog.language.node import Node
from tensorprog.language.symbols import MatrixSpec, Number, VectorSpec

__all__ = ["Parametrization", "parametrization"]


@dataclass(frozen=True)
class Parametrization:
    """What is trained, as factors in front of the parts of the kernel.

    Attributes:
        name: "ntk", "tp" or "standard".
        width: The reference width, for "standard".
    """

    name: str
    width: int | None = None

    def undone(self, spec: MatrixSpec | VectorSpec) -> list[tuple[Node, int]]:
        """Factors that the chain rule brings in, and that are none where omega ~ N(0, sigma^2) itself is trained."""
        if self.name == "ntk" or spec.std is None:
            return []
        return [(algebra.fn("reciprocal", algebra.power(spec.std, 2)), 1)]

    def matrix(self, w: MatrixSpec) -> Number:
        """For W = sigma omega / sqrt(fan-in): sigma^2 / fan-in n_cols, 1 / fan-in n_cols, n_cols."""
        if self.name == "ntk":
            return w.var
        if self.name == "tp":
            return w.share
        assert self.width is not None
        return self.width * w.cols.ratio

    def embedding(self, u: Embedding) -> Number:
        """For an input layer; multiplies x.x'/d."""
        return u.var if self.name == "ntk" else 1 if self.name == "tp" else u.data.features

    def vector(self, v: VectorSpec, fan_in: Number | None = None) -> Number:
        """For a trained vector with independent columns: a readout, a bias, a gain. `lr` stands for the variance, everywhere.

        Variances that differ are no part of it: they multiply the columns (`tangent.py`).

        Args:
            v: The vector.
            fan_in: Of a readout vector: that of its readout, over the reference width.
        """
        if self.name == "ntk":
            return v.lr if v.lr is not None else 1 if isinstance(v.var, np.ndarray) else v.var
        size = 1 if self.name == "tp" or fan_in is None else (self.width or 1) * fan_in
        return size if v.lr is None else v.lr * size


def parametrization(name: str, width: int | None = None) -> Parametrization:
    """The parametrization of that name.

    Args:
        name: `"ntk"` trains omega ~ N(0, 1) with W = sigma omega / sqrt(n) (Jacot 2018); `"tp"` trains
            omega ~ N(0, sigma^2) with W = omega / sqrt(n) (Tensor Programs II); `"standard"` trains the entries of W
            themselves, so that the kernel grows with the width.
        width: The reference width, for `"standard"` only.

    Raises:
        TensorProgramError: an unknown name; `"standard"` without a width, or another one with it.

    Example:
        >>> parametrization("ntk").name
        'ntk'
    """
    if name not in ("ntk", "tp", "standard"):
        raise TensorProgramError(f"parametrization {name!r}", fix='use "ntk", "tp" or "standard"')
    if (name == "standard") != (width is not None):
        raise TensorProgramError(
            f'parametrization "{name}" with width={width}',
            why="in standard parametrization the kernel grows with the width; in the others it has a limit",
            fix='give width=64, say, with "standard" and only there',
        )
    if width is not None and (not isinstance(width, int) or isinstance(width, bool) or width < 1):
        raise TensorProgramError(f"width={width!r}", fix="give a positive integer")
    return Parametrization(name, width)
