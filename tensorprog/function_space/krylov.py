"""Functions of a large kernel by Krylov spaces, with bounds from residuals: Lanczos, and preconditioned CG at infinity.

Both answer for g(A) b with A = K + r. In the space spanned by b, A b, A^2 b, .. A is a tridiagonal matrix T, and
a_m = Q g(T) Q.T b solves N da/dt = b - A a but for a residual rho along the next basis vector, of the size beta_m |u_m(t)|,
which grows with time. What it has done until t to an output with kernel row k is at most

    |rho| min(sqrt(k(x, x)) min(sqrt(2 t/(N e)), 1/(2 sqrt(r))), |k| min(t/N, 1/r)),

the integral of |k.exp(-A w)| over w up to t/N: |K^(1/2) exp(-K w)| <= 1/sqrt(2 e w), and k is K^(1/2) times a vector of the
norm sqrt(k(x, x)) at most. At infinity b - A a is computed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.function_space.filters import Filter
from tensorprog.function_space.tiles import Operator
from tensorprog.progress import progress_bar

__all__ = ["Nystrom", "Reduced", "conjugate_gradients", "lanczos"]

CHECKED = 10
"""Steps between two looks at the error, and two states on disk."""
BROKEN = 1e-13
"""A basis vector that is so much smaller than the first one is rounding: the space is invariant."""


@dataclass(frozen=True, eq=False)
class Reduced:
    """A kernel in the Krylov space of every column.

    Attributes:
        basis: Q (steps, examples, columns).
        values: Of T, (columns, steps).
        vectors: Of T, (columns, steps, steps).
        sizes: Norms of the columns.
        last: beta_m of every column: how much leads out of the space.
    """

    basis: np.ndarray
    values: np.ndarray
    vectors: np.ndarray
    sizes: np.ndarray
    last: np.ndarray

    @property
    def top(self) -> float:
        """The largest eigenvalue that was seen: at most the kernel's."""
        return float(self.values.max(initial=0.0))

    def coefficients(self, make: Callable[[np.ndarray], Filter]) -> tuple[Filter, np.ndarray]:
        """The filter, and u = g(T) Q.T b: (times, steps, columns)."""
        found, f = [], None
        for values, vectors, size in zip(self.values, self.vectors, self.sizes, strict=True):
            f = make(np.maximum(values, 0.0))
            found.append(size * (f.gain * vectors[0]) @ vectors.T)
        assert f is not None
        return f, np.stack(found, axis=2)

    def apply(self, u: np.ndarray) -> np.ndarray:
        """Q u: (times, examples, columns)."""
        return np.einsum("mnc,tmc->tnc", self.basis[: u.shape[1]], u, optimize=True)


def lanczos(
    K: Operator,
    b: np.ndarray,
    enough: Callable[[Reduced], bool],
    most: int,
    folder: Path | None = None,
    progress: bool | None = None,
) -> Reduced:
    """Krylov spaces of the columns of b, orthogonalised in full.

    Args:
        K: The kernel.
        b: Columns (examples, columns).
        enough: Is the error small enough? Asked every few steps.
        most: Steps at most.
        folder: Where the basis is kept, and whence an interrupted call goes on.
        progress: Whether to show a progress bar; by default on a terminal only.
    """
    n = len(b)
    most = min(most, n)
    sizes = np.linalg.norm(b, axis=0)
    safe = np.where(sizes > 0, sizes, 1.0)
    state = _State(folder, K, b, most)
    Q, alpha, beta = state.basis, state.alpha, state.beta
    if not alpha:
        Q[0] = b / safe
    bar = progress_bar(total=most, shown=progress, unit="product", delay=2)
    with bar:
        bar.update(len(alpha))
        while True:
            m = len(alpha)
            if m and (m == most or m % CHECKED == 0 or beta[-1].max() == 0):
                found = _reduced(Q, alpha, beta, sizes)
                if m == most or beta[-1].max() == 0 or enough(found):
                    return found
            q = Q[m]
            w = K.dot(q)
            a = np.einsum("nc,nc->c", q, w)
            for _ in range(2):  # twice is enough
                for i in range(0, m + 1, 64):
                    part = Q[i : min(i + 64, m + 1)]
                    w = w - np.einsum(
                        "mnc,mc->nc", part, np.einsum("mnc,nc->mc", part, w, optimize=True), optimize=True
                    )
            size = np.linalg.norm(w, axis=0)
            top = max([1e-300, *[float(np.abs(x).max()) for x in (*alpha, a)]])
            ended = (size <= BROKEN * top) | (sizes == 0)
            alpha.append(a)
            beta.append(np.where(ended, 0.0, size))
            if m + 1 < most:
                Q[m + 1] = np.where(ended, 0.0, w / np.where(ended, 1.0, size))
            if len(alpha) % CHECKED == 0:
                state.save()
            bar.update(1)


def _reduced(Q: np.ndarray, alpha: list[np.ndarray], beta: list[np.ndarray], sizes: np.ndarray) -> Reduced:
    from scipy.linalg import eigh_tridiagonal

    a, b = np.array(alpha), np.array(beta)
    found = [eigh_tridiagonal(a[:, k], b[:-1, k]) for k in range(a.shape[1])]
    return Reduced(Q[: len(a)], np.stack([x for x, _ in found]), np.stack([v for _, v in found]), sizes, b[-1])


class _State:
    """The basis, and the numbers of T, in memory or in a folder."""

    def __init__(self, folder: Path | None, K: Operator, b: np.ndarray, most: int) -> None:
        self.folder = folder
        self.alpha: list[np.ndarray] = []
        self.beta: list[np.ndarray] = []
        shape = (most, *b.shape)
        if folder is None:
            self.basis = np.empty(shape)
            return
        self.identity = f"{K.identity} {hashlib.blake2b(np.ascontiguousarray(b).tobytes(), digest_size=8).hexdigest()}"
        path, notes = folder / "basis.npy", folder / "basis.json"
        if notes.exists() and path.exists():
            known = json.loads(notes.read_text())
            if known["identity"] == self.identity and known["most"] >= most:
                self.basis = np.load(path, mmap_mode="r+")
                self.alpha, self.beta = ([np.array(x) for x in known[k]][:most] for k in ("alpha", "beta"))
                return
        self.basis = np.lib.format.open_memmap(path, mode="w+", dtype=float, shape=shape)

    def save(self) -> None:
        """After the vectors are in their file."""
        if self.folder is None:
            return
        getattr(self.basis, "flush", lambda: None)()
        data = {
            "identity": self.identity, "most": len(self.basis),
            "alpha": [x.tolist() for x in self.alpha], "beta": [x.tolist() for x in self.beta],
        }  # fmt: skip
        part = self.folder / "part-basis.json"
        part.write_text(json.dumps(data))
        part.replace(self.folder / "basis.json")


class Nystrom:
    """A preconditioner: the kernel seen through some examples, and the regulariser: (B B.T + r)^-1.

    Args:
        K: The kernel.
        r: The regulariser, above 0.
        rank: How many examples, drawn at random with a fixed seed.
    """

    def __init__(self, K: Operator, r: float, rank: int) -> None:
        from scipy.linalg import cho_factor, solve_triangular

        at = np.sort(np.random.default_rng(0).choice(K.size, min(rank, K.size), replace=False))
        C = K.columns(at)
        W = C[at]
        shift = 1e-10 * float(np.trace(W)) + 1e-300
        L = np.linalg.cholesky((W + W.T) / 2 + shift * np.eye(len(W)))
        self.B = solve_triangular(L, C.T, lower=True).T
        self.r = r
        self.inner = cho_factor(self.B.T @ self.B + r * np.eye(len(W)))

    def solve(self, x: np.ndarray) -> np.ndarray:
        """Its product with x."""
        from scipy.linalg import cho_solve

        return np.asarray((x - self.B @ cho_solve(self.inner, self.B.T @ x)) / self.r)


def conjugate_gradients(
    K: Operator,
    r: float,
    b: np.ndarray,
    preconditioner: Nystrom,
    target: np.ndarray,
    most: int,
    folder: Path | None = None,
    progress: bool | None = None,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Solves (K + r) a = b, all columns at once, until the computed residual is small enough.

    Args:
        K: The kernel.
        r: The regulariser, above 0.
        b: Columns (examples, columns).
        preconditioner: What is close to the inverse.
        target: How large the norm of a residual may be, (columns,).
        most: Products at most.
        folder: Where the state is kept, and whence an interrupted call goes on.
        progress: Whether to show a progress bar; by default on a terminal only.

    Returns:
        a, the norms of b - (K + r) a, computed, and the number of products.
    """
    path = None if folder is None else folder / "solution.npz"
    identity = f"{K.identity} {r!r} {hashlib.blake2b(np.ascontiguousarray(b).tobytes(), digest_size=8).hexdigest()}"
    a, done = np.zeros_like(b), 0
    if path is not None and path.exists():
        with np.load(path) as known:
            if str(known["identity"]) == identity:
                a, done = known["a"], int(known["done"])
    bar = progress_bar(total=most, shown=progress, unit="product", delay=2)
    with bar:
        bar.update(done)
        while True:  # from the computed residual again and again: recursions drift
            res = b - K.dot(a) - r * a if a.any() else b.copy()
            sizes = np.linalg.norm(res, axis=0)
            done += 1
            if (sizes <= target).all() or done >= most:
                return a, sizes, done
            z = preconditioner.solve(res)
            p, rz = z, np.einsum("nc,nc->c", res, z)
            before = sizes
            for _ in range(5 * CHECKED):
                w = K.dot(p) + r * p
                done += 1
                bar.update(1)
                pw = np.einsum("nc,nc->c", p, w)
                step = np.where(pw > 0, rz / np.where(pw > 0, pw, 1.0), 0.0)
                a = a + step * p
                res = res - step * w
                if (np.linalg.norm(res, axis=0) <= target / 2).all() or done >= most:
                    break
                z = preconditioner.solve(res)
                new = np.einsum("nc,nc->c", res, z)
                p = z + np.where(rz > 0, new / np.where(rz > 0, rz, 1.0), 0.0) * p
                rz = new
                if path is not None and done % CHECKED == 0:
                    _store(path, identity, a, done)
            if path is not None:
                _store(path, identity, a, done)
            now = np.linalg.norm(b - K.dot(a) - r * a, axis=0)
            if (now > 0.5 * before).all():  # rounding: no digit is gained any more
                return a, now, done + 1


def _store(path: Path, identity: str, a: np.ndarray, done: int) -> None:
    part = path.with_name("part-" + path.name)
    with part.open("wb") as stream:
        np.savez(stream, identity=np.array(identity), a=a, done=done)
    part.replace(path)


def memory(given: float | None) -> float:
    """How many bytes may be used: as given, or what the machine has free.

    Raises:
        TensorProgramError: it is no positive number.
    """
    if given is not None:
        if not given > 0:
            raise TensorProgramError(f"memory={given!r}", fix="give a number of bytes, such as 16e9")
        return float(given)
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return 8e9
