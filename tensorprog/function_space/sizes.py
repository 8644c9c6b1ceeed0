"""How large a problem is, which method it asks for, and the problem for products where that is a Krylov method."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.function_space.checks import nonnegative, targets_array
from tensorprog.function_space.krylov import memory as available
from tensorprog.function_space.large import Large, LargePredictor, Settings, identity_of
from tensorprog.function_space.tiles import ArrayKernel, Operator, TiledKernel
from tensorprog.kernels.answer import Kernels
from tensorprog.kernels.function import KernelFunction, kernel_fn
from tensorprog.networks.network import Network
from tensorprog.networks.samples import batches, same_features

__all__ = ["chosen", "large_of_arrays", "large_of_network"]

EXACT = 12_000
"""Examples up to which eigenvectors are computed where nothing is asked for: some minutes."""
SQUARES = 6
"""Arrays of the size of the kernel that eigenvectors take: both kernels, a copy, the vectors, and LAPACK's own two."""


def chosen(method: Any, examples: int, memory: Any) -> str:
    """`"eigen"` or `"krylov"`.

    Args:
        method: What the user asks for; "auto" for what fits.
        examples: N.
        memory: How many bytes may be used, or None.

    Raises:
        TensorProgramError: eigenvectors are asked for, and do not fit.
    """
    if method not in ("auto", "eigen", "krylov"):
        raise TensorProgramError(f"method={method!r}", fix='use "auto", "eigen" or "krylov"')
    need, have = 8.0 * SQUARES * examples**2, available(memory)
    if method == "krylov" or (method == "auto" and (need > have or examples > EXACT)):
        return "krylov"
    if need > have:
        raise TensorProgramError(
            f"eigenvectors of {examples} examples take {need / 1e9:.3g} GB, and {have / 1e9:.3g} GB are free",
            fix='use method="krylov", fewer examples, or say memory= if there is more',
        )
    return "eigen"


def settings_of(tol: Any, products: Any, rank: Any, out: Any, progress: bool | None) -> Settings:
    """As the user gives them.

    Raises:
        TensorProgramError: they make no sense.
    """
    values = []
    for x, what in ((tol, "tol"), (products, "products"), (rank, "rank")):
        found, single = nonnegative(x, what, whole=what != "tol")
        if not single or found[0] == 0:
            raise TensorProgramError(f"{what}={x!r}", fix="give one number above 0")
        values.append(float(found[0]))
    if out is not None and not isinstance(out, (str, Path)):
        raise TensorProgramError(f"out={out!r}", fix="give the path of a folder")
    return Settings(values[0], int(values[1]), int(values[2]), None if out is None else Path(out), progress)


def _fitting(settings: Settings, examples: int, columns: int, memory: Any) -> Settings:
    """With as many products as basis vectors have room for.

    Raises:
        TensorProgramError: there is hardly any.
    """
    have, vector = available(memory), 8.0 * examples * columns
    room = int(0.4 * have / vector)
    if room < 20 or 8.0 * min(settings.rank, examples) * examples > 0.3 * have:
        raise TensorProgramError(
            f"a basis of {examples} examples and {columns} outputs: {vector / 1e9:.3g} GB for each of some hundred vectors, "
            f"{8e-9 * settings.rank * examples:.3g} GB for the preconditioner, and {have / 1e9:.3g} GB are free",
            fix="give a smaller rank=, fewer outputs at a time, or say memory= if there is more",
        )
    settings.most = min(settings.most, room)
    return settings


def large_of_network(
    f: Network | KernelFunction, X: Any, y: Any, X_test: Any, values: Any, memory: Any,
    diag_reg: float | None, absolute: bool, settings: Settings,
) -> LargePredictor:  # fmt: skip
    """Of a network and data, an array (examples, ..) or a memory map."""
    f = kernel_fn(f) if isinstance(f, Network) else f
    net = f.network
    if not isinstance(X, np.ndarray):
        X = np.asarray(X)
    n = len(X)
    first = batches(net.inputs, X[:2], net.source)
    names = tuple(k for k in ("ntk", "nngp") if k in net.wanted(None, first))
    table = targets_array(y, n, None)
    settings = _fitting(settings, n, table.shape[1], memory)
    tests = 0
    if X_test is not None:
        X_test = np.asarray(X_test)
        same_features(first, batches(net.inputs, X_test, net.source))
        tests = len(X_test)
    fits = 8.0 * n**2 <= 0.4 * available(memory)
    if not fits and settings.out is None:
        raise TensorProgramError(
            f"a kernel of {n} examples takes {8e-9 * n**2:.3g} GB, and {available(memory) / 1e9:.3g} GB are free",
            fix=f"give out=, a folder with room for {4e-9 * n**2:.3g} GB for each kernel, or say memory= if there is more",
        )

    def block(name: str, rows: slice, columns: slice) -> tuple[np.ndarray, float]:
        found = f(X[rows], None if rows == columns else X[columns], get=(name,), values=values, progress=False)
        if found[0].ndim != 2:
            raise TensorProgramError("a network with several outputs, by Krylov spaces", fix='use method="eigen"')
        return found[0], found.error[name]

    def operator(name: str) -> Operator:
        if settings.out is None:
            K, error = block(name, slice(0, n), slice(0, n))
            return ArrayKernel(K, error)
        identity = identity_of(repr(f), repr(values), X)
        return TiledKernel(settings.out / name, n, lambda i, j: block(name, i, j), identity, progress=settings.progress)

    known: dict[str, np.ndarray] = {}

    def cross(name: str) -> np.ndarray:
        if not known:
            known.update(f(X_test, X, get=names, values=values)._asdict())
        return known[name]

    def own(name: str) -> np.ndarray:
        parts = [np.diagonal(f(X_test[i : i + 256], get=name, values=values)) for i in range(0, tests, 256)]
        return np.concatenate(parts)

    problem = Large(names, "nngp" if "nngp" in names else None, table, np.ndim(y) == 1, tests, operator, cross, own)
    return LargePredictor(problem, diag_reg, absolute, settings)


def large_of_arrays(
    K: Any,
    y: Any,
    K_test: Any,
    K_test_test: Any,
    memory: Any,
    diag_reg: float | None,
    absolute: bool,
    settings: Settings,
) -> LargePredictor:
    """Of kernels as arrays or memory maps, by names or one."""

    def named(x: Any) -> dict[str, Any]:
        found = x._asdict() if hasattr(x, "_asdict") else dict(x) if isinstance(x, Mapping) else {"kernel": x}
        return {k: v for k, v in found.items() if v is not None}

    train, cross, both = named(K), named(K_test), named(K_test_test)
    errors = K.error if isinstance(K, Kernels) else {}
    names: tuple[str, ...] = tuple([k for k in ("ntk", "kernel", "nngp") if k in train]) or tuple(train)
    operators = {k: ArrayKernel(train[k], errors.get(k, 0.0)) for k in names}
    n = operators[names[0]].size
    table = targets_array(y, n, None)
    rows = {k: np.asarray(v, dtype=float) for k, v in cross.items()}
    for k in set(names) if cross else set():
        if k not in rows or rows[k].ndim != 2 or rows[k].shape[1] != n:
            raise TensorProgramError(
                f"K_test of {k}", why=f"it has to be (tests, {n})", fix="give the kernel with all examples"
            )
    tests = len(rows[names[0]]) if rows else 0
    own = {k: np.diagonal(np.asarray(v, dtype=float)) for k, v in both.items()}
    prior = "nngp" if "nngp" in names else names[0]
    note = "" if "nngp" in names else f"one kernel was given: the covariance of f_0 is taken to be the {prior}"
    problem = Large(
        names, prior, table, np.ndim(y) == 1, tests, operators.__getitem__, rows.__getitem__, own.get, note
    )  # fmt: skip
    return LargePredictor(problem, diag_reg, absolute, _fitting(settings, n, table.shape[1], memory))
