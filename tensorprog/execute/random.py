"""Random streams keyed by name, and initial vectors made from standard normal columns.

A stream depends on what it is for - (seed, name, role, sizes) - and on nothing else: not on the order in which a
program asks, not on the process (Python's `hash` is salted), not on what else the program contains. So one seed gives
the same dense weights in another program, at another worker, and in the forward pass of a run under gradient
independence. The sizes are part of the key on purpose: without them the vectors of a narrow network would be the first
coordinates of a wide one's, and runs at several widths, which `compare` fits as independent, would be correlated.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from tensorprog.errors import TensorProgramError
from tensorprog.language.symbols import VectorSpec

__all__ = [
    "FIRST_DIMENSIONS",
    "REMEMBERED",
    "Array",
    "first_dimensions",
    "initial_vector",
    "semidefinite_factor",
    "stream",
]

Array = npt.NDArray[np.float64]

FIRST_DIMENSIONS = 32
"""Sobol dimensions of a width that are drawn at first, at most."""
REMEMBERED = 2**17
"""The largest number of points that are kept, 1 MB, for 16 replicates of two widths."""


def stream(seed: int, name: str, role: str, *sizes: int) -> np.random.Generator:
    """The generator of one (seed, name, role, sizes), the same in every process and on every platform.

    Example:
        >>> a, b = (stream(0, "W", "matrix", 4, 4).standard_normal() for _ in range(2))
        >>> a == b, a == stream(0, "V", "matrix", 4, 4).standard_normal()
        (True, False)
    """
    key = repr((int(seed), str(name), str(role), *map(int, sizes))).encode()
    entropy = int.from_bytes(hashlib.blake2b(key, digest_size=16).digest(), "big")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))


def first_dimensions(columns: int, samples: int) -> int:
    """How many Sobol dimensions a population draws at first.

    Few samples are drawn in as many dimensions for every program, and kept; many in those that the program needs.

    Args:
        columns: Noise columns that it needs, about.
        samples: In the population.
    """
    if FIRST_DIMENSIONS * samples <= REMEMBERED:
        return FIRST_DIMENSIONS
    return max(1, min(FIRST_DIMENSIONS, columns))


def semidefinite_factor(cov: Any, name: str) -> Array:
    """A factor L, one column per kept pivot, with L L.T = cov; cov (k, k) may be singular.

    An unpivoted Cholesky factorisation that drops the pivots that are rounding: unlike an eigendecomposition it keeps
    the order of the vectors, so L depends smoothly on cov, a duplicate has the coefficients of its original, and a zero
    variance gives a zero row.

    Args:
        cov: A (k, k) array-like of numbers (`Fraction` included).
        name: The vector's name, for the error message.

    Raises:
        TensorProgramError: cov is no square symmetric positive semi-definite matrix.
    """
    c = np.asarray(cov, dtype=np.float64)
    fix = "give a symmetric positive semi-definite covariance (a Gram matrix X @ X.T / d is one)"
    if c.ndim != 2 or c.shape[0] != c.shape[1]:
        raise TensorProgramError(f"the covariance of {name} has shape {c.shape}, not (k, k)", fix=fix)
    k = len(c)
    diagonal = np.diag(c).copy()
    scale = np.sqrt(np.maximum(diagonal, 0.0))
    rounding = 16 * max(k, 4) * np.finfo(np.float64).eps
    # Relative to its variances an entry may be off by rounding, or by sqrt(rounding) after a pivot was dropped.
    slack = math.sqrt(rounding) * np.outer(scale, scale)
    if not (np.isfinite(c).all() and (diagonal >= 0).all() and (np.abs(c - c.T) <= slack).all()):
        raise TensorProgramError(f"the covariance of {name} is no finite symmetric matrix with variances >= 0", fix=fix)
    factor = np.zeros((k, k))
    rank = 0
    for j in range(k):
        column = c[j:, j] - factor[j:, :rank] @ factor[j, :rank]
        if column[0] > rounding * diagonal[j]:
            factor[j:, rank] = column / math.sqrt(column[0])
            rank += 1
        elif column[0] < -slack[j, j] or (np.abs(column) > 4 * slack[j:, j]).any():
            raise TensorProgramError(f"the covariance of {name} is not positive semi-definite (row {j})", fix=fix)
    return factor[:, :rank]


def initial_vector(spec: VectorSpec, size: int, normals: Callable[[int], Array]) -> Array:
    """Initial vectors of shape (*spec.shape, size), made of as few standard normal columns as their law needs.

    Every distribution goes through the normal one: the finite spaces and the population differ only in `normals`.

    Args:
        spec: The group of vectors, as `tp.Vector` has checked it.
        size: Number of coordinates.
        normals: `normals(k)` returns (k, size) fresh iid standard normal coordinates.
    """
    count = math.prod(spec.shape)
    data = getattr(spec, "data", None)
    if data is not None:  # an input layer: a row of U for every coordinate, whatever the data
        rows = data.coordinates.reshape(count, -1)
        scale = math.sqrt(float(spec.var) / data.features)
        return np.asarray((rows * scale) @ normals(rows.shape[1])).reshape(*spec.shape, size)
    law = spec.distribution
    if hasattr(law, "ppf"):
        values = np.asarray(law.ppf(ndtr(normals(count))), dtype=np.float64)
        return values.reshape(*spec.shape, size)

    out = np.empty((count, size))
    out[:] = np.broadcast_to(np.asarray(spec.mean, dtype=np.float64), spec.shape).reshape(count, 1)
    if spec.cov is not None:
        factor = semidefinite_factor(spec.cov, spec.name)
        if factor.shape[1]:
            out += factor @ normals(factor.shape[1])
        return out.reshape(*spec.shape, size)

    var = np.broadcast_to(np.asarray(spec.var, dtype=np.float64), spec.shape).reshape(count, 1)
    if var.any():  # a constant vector uses up no noise
        noise = normals(count)
        if law == "rademacher":
            noise = np.where(noise < 0.0, -1.0, 1.0)
        elif law == "uniform":
            noise = math.sqrt(12.0) * (ndtr(noise) - 0.5)
        out += np.sqrt(var) * noise
    return out.reshape(*spec.shape, size)
