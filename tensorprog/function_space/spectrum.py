"""The eigenvectors of a kernel on the training examples, how far they are off, and the regulariser that this asks for."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tensorprog.errors import TensorProgramError

__all__ = ["Regulariser", "Spectrum"]

EPS = float(np.finfo(float).eps)
KNOWN = 1e3
"""How many times its uncertainty the smallest eigenvalue has to be for a kernel to do without a regulariser."""
INDEFINITE = 1e-3
"""A negative eigenvalue that is larger beside the largest is no error of rounding."""
PROBES = 24
"""Random vectors by which the error of eigenvectors is measured."""


@dataclass(frozen=True)
class Regulariser:
    """What is added to the diagonal of a kernel: the flow is that of K + r, as if weights decayed towards their start.

    Attributes:
        value: r.
        relative: r over the mean of the diagonal, what `diag_reg` means.
        reason: Why.
    """

    value: float
    relative: float
    reason: str

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        if self.value == 0:
            return f"regulariser 0 ({self.reason})"
        return f"regulariser {self.value:.3g} on the diagonal (diag_reg={self.relative:.3g}: {self.reason})"


@dataclass(eq=False)
class Spectrum:
    """K = Q V diag(values) V.T Q.T up to an error of known size; Q merges examples that are the same for the kernel.

    Examples with equal rows of the kernel make it singular in directions that are known exactly: the differences of their
    outputs never move. They are taken together, with the mean of their targets, before eigenvectors are computed.

    Attributes:
        values: Eigenvalues (groups,), descending, at least 0.
        vectors: Columns V (groups, groups).
        noise: A bound on the Frobenius norm of K less what is above, the entries' own errors among it.
        group: The group of every example, or None where all are different.
        count: How many examples each group has.
    """

    values: np.ndarray
    vectors: np.ndarray
    noise: float
    group: np.ndarray | None = None
    count: np.ndarray = field(default_factory=lambda: np.ones(0))

    @staticmethod
    def of(K: np.ndarray, error: float, prior: np.ndarray | None = None) -> Spectrum:
        """Of a symmetric matrix.

        Args:
            K: The kernel, (examples, examples).
            error: How large an error of an entry may be.
            prior: Another kernel, for which examples have to be the same, too, to be merged.
        """
        size = float(np.abs(np.diagonal(K)).max(initial=0.0))
        close = max(error, 4 * EPS * size)
        group = _groups(K, close, prior)
        own = error * len(K)
        if group is None:
            A = (K + K.T) / 2
            count = np.ones(len(K))
        else:
            count = np.bincount(group).astype(float)
            first = np.unique(group, return_index=True)[1]
            root = np.sqrt(count)
            A = K[np.ix_(first, first)] * root[:, None] * root
            A = (A + A.T) / 2
            own += close * len(K)
        values, vectors = _eigh(A)
        off = _residual(A, values, vectors)
        below = float(max(0.0, -values.min(initial=0.0)))  # a kernel has no negative eigenvalues: this is error, too
        if below > max(INDEFINITE * float(values.max(initial=0.0)), own):
            raise TensorProgramError(
                f"the kernel has a negative eigenvalue, {-below:.3g}",
                why="a kernel is positive semidefinite, and this is not an error of rounding",
                fix="check its entries",
            )
        order = np.argsort(values)[::-1]
        values, vectors = np.maximum(values[order], 0.0), vectors[:, order]
        return Spectrum(values, vectors, own + off + below, group, count)

    @property
    def examples(self) -> int:
        """The number of training examples."""
        return len(self.values) if self.group is None else len(self.group)

    @property
    def top(self) -> float:
        """The largest eigenvalue."""
        return float(self.values[0]) if len(self.values) else 0.0

    @property
    def condition(self) -> float:
        """The largest eigenvalue over the smallest that is not 0 by equal examples; infinite where that is 0."""
        low = float(self.values[-1]) if len(self.values) else 1.0
        return np.inf if low <= 0 else self.top / low

    def merge(self, x: np.ndarray) -> np.ndarray:
        """Q.T x for x (examples, ...)."""
        if self.group is None:
            return x
        total = np.zeros((len(self.count), *x.shape[1:]))
        np.add.at(total, self.group, x)
        return total / np.sqrt(self.count).reshape(-1, *[1] * (x.ndim - 1))

    def project(self, x: np.ndarray) -> np.ndarray:
        """V.T Q.T x for x (examples, ...)."""
        return np.tensordot(self.vectors.T, self.merge(x), axes=1)

    def expand(self, x: np.ndarray) -> np.ndarray:
        """Q V x for coefficients x (groups, ...)."""
        found = np.tensordot(self.vectors, x, axes=1)
        if self.group is None:
            return found
        return (found / np.sqrt(self.count).reshape(-1, *[1] * (x.ndim - 1)))[self.group]

    def regulariser(self, diag_reg: float | None, diagonal: float, absolute: bool) -> Regulariser:
        """What is added to the diagonal.

        Args:
            diag_reg: What the user gives; None to choose by what is known of the smallest eigenvalue.
            diagonal: The mean of the kernel's diagonal.
            absolute: Is what is given r itself, and not r over that mean?
        """
        scale = diagonal if diagonal > 0 else 1.0
        if diag_reg is not None:
            r = diag_reg if absolute else diag_reg * scale
            return Regulariser(r, r / scale, "as given")
        same = "" if self.group is None else f"{self.examples - len(self.values)} examples repeat others; "
        if not len(self.values) or self.values[-1] > KNOWN * self.noise:
            return Regulariser(0.0, 0.0, f"{same}not needed at a condition number of {self.condition:.1e}")
        if self.top == 0:
            return Regulariser(0.0, 0.0, f"{same}the kernel is 0, and nothing moves")
        r = float(np.sqrt(self.noise * self.top))
        low = f"{self.values[-1]:.1e}" if self.values[-1] > 0 else "0"
        why = f"{same}the smallest eigenvalue, {low}, is not known beyond {self.noise:.1e}: the root of that times the largest"
        return Regulariser(r, r / scale, why)


def _eigh(A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from scipy.linalg import eigh

    if not len(A):
        return np.zeros(0), np.zeros((0, 0))
    values, vectors = eigh(A, driver="evd", check_finite=False)
    return values, vectors


def _residual(A: np.ndarray, values: np.ndarray, vectors: np.ndarray) -> float:
    """A bound on the Frobenius norm of A - V diag(values) V.T, and of V.T V - 1 times the largest eigenvalue.

    For a Gaussian vector z, E |E z|^2 is the squared Frobenius norm. A mean of 24 of them is below a ninth of it with a
    probability of 2e-8 where E has rank one, the worst case.
    """
    if not len(A):
        return 0.0
    z = np.random.default_rng(0).standard_normal((len(A), PROBES))
    w = vectors.T @ z
    off = A @ z - vectors @ (values[:, None] * w)
    loss = vectors.T @ (vectors @ z) - z
    top = float(np.abs(values).max())
    found = np.linalg.norm(off) + top * np.linalg.norm(loss)
    return float(3 * found / np.sqrt(PROBES)) + EPS * top


def _groups(K: np.ndarray, close: float, prior: np.ndarray | None) -> np.ndarray | None:
    """The group of every example: those whose rows of the kernel are the same, to within what its entries are known to."""
    d = np.diagonal(K)
    group = np.arange(len(K))
    also = 0.0 if prior is None else 1e-12 * float(np.abs(np.diagonal(prior)).max(initial=0.0))
    for start in range(0, len(K), 512):
        rows = slice(start, min(start + 512, len(K)))
        near = (np.abs(d[rows, None] - K[rows]) <= close) & (np.abs(d[None] - K[rows]) <= close)
        first = near.argmax(axis=1)  # its own place at the latest
        for i in np.flatnonzero(first < np.arange(rows.start, rows.stop)) + start:
            j = group[first[i - start]]
            if np.abs(K[i] - K[j]).max() <= close and (prior is None or np.abs(prior[i] - prior[j]).max() <= also):
                group[i] = j
    found = np.unique(group, return_inverse=True)[1]
    return found if found.max(initial=-1) + 1 < len(K) else None
