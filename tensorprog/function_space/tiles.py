"""A large symmetric kernel as an operator: an array, maybe on disk, or tiles of its upper half in a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.kernels.lock import FolderLock
from tensorprog.progress import progress_bar

__all__ = ["ArrayKernel", "Operator", "TiledKernel"]

TILE = 4096
"""Rows and columns of a tile: 134 MB."""


class Operator(Protocol):
    """A symmetric matrix that is looked at by products.

    Attributes:
        size: The number of its rows.
        error: How large the error of an entry may be.
        identity: What it is, for files that go on where they stopped.
    """

    size: int
    error: float
    identity: str

    def dot(self, x: np.ndarray) -> np.ndarray:
        """Its product with x (size, columns)."""
        ...

    def columns(self, at: np.ndarray) -> np.ndarray:
        """Some of its columns."""
        ...

    def diagonal(self) -> np.ndarray:
        """Its diagonal."""
        ...


class ArrayKernel:
    """An array or memory map, which is never copied as a whole.

    Args:
        K: The kernel (examples, examples).
        error: How large the error of an entry may be; that of rounding to its type at least.
    """

    def __init__(self, K: Any, error: float) -> None:
        if np.ndim(K) != 2 or K.shape[0] != K.shape[1] or K.dtype.kind != "f":
            raise TensorProgramError(
                f"a large kernel of shape {np.shape(K)}",
                fix="give an array (examples, examples) of floats, or a memory map",
            )
        self.K, self.size = K, len(K)
        self.error = max(error, float(np.finfo(K.dtype).eps) / 2 * float(np.abs(self.diagonal()).max(initial=0.0)))
        if not np.isfinite(self.diagonal()).all():
            raise TensorProgramError("the kernel is not finite on its diagonal", fix="check it")
        sample = np.ascontiguousarray(K[:: max(1, self.size // 64)])
        self.identity = hashlib.blake2b(sample.tobytes(), digest_size=8).hexdigest() + f"-{self.size}"

    def _rows(self) -> Iterator[slice]:
        step = max(1, 2**27 // (8 * max(self.size, 1)))
        for start in range(0, self.size, step):
            yield slice(start, min(start + step, self.size))

    def dot(self, x: np.ndarray) -> np.ndarray:
        """See `Operator`."""
        found = np.empty_like(x, dtype=float)
        for rows in self._rows():
            found[rows] = self.K[rows] @ x
        if not np.isfinite(found).all() and np.isfinite(x).all():
            raise TensorProgramError("the kernel is not finite", fix="check it")
        return found

    def columns(self, at: np.ndarray) -> np.ndarray:
        """See `Operator`."""
        return np.asarray(self.K[at], dtype=float).T

    def diagonal(self) -> np.ndarray:
        """See `Operator`."""
        return np.array(self.K[np.arange(self.size), np.arange(self.size)], dtype=float)


class TiledKernel:
    """Tiles of the upper half in a folder: half the disk, and half the reading, of a square.

    Args:
        folder: Where tiles are kept; those that are there from an interrupted call are not computed again.
        size: The number of examples.
        compute: From the rows and columns of a tile to its numbers, and to how large the error of an entry may be.
        identity: What the kernel is of; a folder of something else is refused.
        tile: Rows and columns of a tile.
        progress: Whether to show a progress bar; by default on a terminal only.
    """

    def __init__(
        self,
        folder: Path,
        size: int,
        compute: Callable[[slice, slice], tuple[np.ndarray, float]],
        identity: str,
        tile: int = TILE,
        progress: bool | None = None,
    ) -> None:
        self.folder, self.size, self.identity, self.tile = folder, size, f"{identity}-{size}-{tile}", tile
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TensorProgramError(f"out={str(folder)!r} is not a folder: {error}") from None
        self.blocks = [slice(i, min(i + tile, size)) for i in range(0, size, tile)]
        self.error = 0.0
        lock = FolderLock(folder, "out")
        try:
            self._fill(compute, progress)
        finally:
            lock.release()

    def _fill(self, compute: Callable[[slice, slice], tuple[np.ndarray, float]], progress: bool | None) -> None:
        notes = self.folder / "tiles.json"
        known: dict[str, Any] = {"identity": self.identity, "errors": {}}
        if notes.exists():
            known = json.loads(notes.read_text())
            if known.get("identity") != self.identity:
                raise TensorProgramError(
                    f"out={str(self.folder)!r} holds tiles of something else", why="its data, network or settings are others",
                    fix="give another folder, or delete it",
                )  # fmt: skip
        pairs = [(i, j) for i in range(len(self.blocks)) for j in range(i, len(self.blocks))]
        for i, j in progress_bar(pairs, shown=progress, unit="tile", delay=2):
            if f"{i}-{j}" in known["errors"]:
                continue
            block, error = compute(self.blocks[i], self.blocks[j])
            if not np.isfinite(block).all():
                raise TensorProgramError(f"the kernel is not finite in the tile {i}, {j}", fix="check the data")
            _put(self._path(i, j), partial(np.save, arr=block))
            known["errors"][f"{i}-{j}"] = error
            _put(notes, lambda path: path.write_text(json.dumps(known)))
        self.error = max(known["errors"].values(), default=0.0)

    def _path(self, i: int, j: int) -> Path:
        return self.folder / f"tile-{i}-{j}.npy"

    def _load(self, i: int, j: int) -> np.ndarray:
        try:
            return np.asarray(np.load(self._path(i, j), mmap_mode="r"))
        except (OSError, ValueError) as error:
            raise TensorProgramError(
                f"out={str(self.folder)!r} holds damaged files: {error}", fix="give another folder, or delete it"
            ) from None

    def dot(self, x: np.ndarray) -> np.ndarray:
        """See `Operator`."""
        found = np.zeros_like(x, dtype=float)
        for i, rows in enumerate(self.blocks):
            for j in range(i, len(self.blocks)):
                block, across = self._load(i, j), self.blocks[j]
                found[rows] += block @ x[across]
                if i != j:
                    found[across] += block.T @ x[rows]
        return found

    def columns(self, at: np.ndarray) -> np.ndarray:
        """See `Operator`."""
        found = np.empty((self.size, len(at)))
        for i, rows in enumerate(self.blocks):
            for j in range(i, len(self.blocks)):
                block, across = self._load(i, j), self.blocks[j]
                inside = (at >= across.start) & (at < across.stop)
                found[rows, inside] = block[:, at[inside] - across.start]
                if i != j:
                    inside = (at >= rows.start) & (at < rows.stop)
                    found[across, inside] = block[at[inside] - rows.start].T
        return found

    def diagonal(self) -> np.ndarray:
        """See `Operator`."""
        return np.concatenate([np.diagonal(self._load(i, i)) for i in range(len(self.blocks))])


def _put(path: Path, write: Callable[[Path], Any]) -> None:
    """A file, whole or not at all."""
    part = path.with_name(f"part-{path.name}")
    write(part)
    part.replace(path)
