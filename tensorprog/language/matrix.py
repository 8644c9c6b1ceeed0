"""The initial matrix that users hold: `W @ x`, `W.T @ y`, and sums of matrices."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorprog.language.expression import Expression, NoArithmetic, Transposed, part, product
from tensorprog.language.symbols import MatrixSpec

__all__ = ["Matrix"]


class Matrix(NoArithmetic, MatrixSpec):
    """A rows x cols matrix with iid entries of mean 0 and variance var / cols (fan-in normalisation).

    A matrix *is* its name and attributes: the same name with the same attributes is the same matrix.
    `W @ x` multiplies a vector of width `cols`, `W.T @ y` one of width `rows`. Matrices are added, and scaled by numbers and
    scalars: `(1 - wd) * W - eta * tp.matrix(lambda d, h: d * h, dh, h)` is the matrix after a step of training.

    Args:
        name: Its name.
        rows: Width of `W @ x`.
        cols: Width of x.
        var: Variance of an entry times the number of columns (sigma_W^2 in the papers); positive or zero.
        entries: None for Gaussian entries; `"rademacher"`, `"uniform"` or a frozen SciPy distribution for the finite widths
            only (standardised): by universality the limit is the Gaussian one (Tensor Programs IVb, 2.6).
        share: Its part of the fan-in of its layer, where that has several matrices (one for each offset of a filter): what
            a parametrization knows a weight by, and no part of its law.
        std: A scalar node that multiplies its products, as the standard deviation of the weights (a hyperparameter); else None.

    Example:
        >>> import tensorprog as tp
        >>> n = tp.Width("n")
        >>> W = Matrix("W", n, n, var=2)
        >>> W.T.T == W
        True
    """

    @property
    def T(self) -> Transposed:
        """The transpose: the same random matrix, used the other way round."""
        return Transposed(self)

    def __matmul__(self, x: Expression) -> Expression:
        return product(self, False, x)

    # ---- as a part of a matrix ----
    @property
    def _part(self) -> Expression:
        return part(self)

    def __add__(self, other: Any) -> Expression:
        return self._part + other

    def __radd__(self, other: Any) -> Expression:
        return other + self._part

    def __sub__(self, other: Any) -> Expression:
        return self._part - other

    def __rsub__(self, other: Any) -> Expression:
        return other - self._part

    def __mul__(self, other: Any) -> Expression:
        return self._part * other

    def __rmul__(self, other: Any) -> Expression:
        return other * self._part

    def __truediv__(self, other: Any) -> Expression:
        return self._part / other

    def __neg__(self) -> Expression:
        return -self._part

    def __pos__(self) -> Expression:
        return self._part

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **settings: Any) -> Any:
        """A number of NumPy on the left."""
        if ufunc not in (np.add, np.subtract, np.multiply, np.divide):
            self._refused()
        return getattr(ufunc, method)(*[x._part if x is self else x for x in inputs], **settings)
