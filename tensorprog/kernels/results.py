"""The arrays of a kernel, in memory or in files that survive an interrupt."""

from __future__ import annotations

import json
import mmap
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.kernels.lock import FolderLock
from tensorprog.networks.network import Network
from tensorprog.networks.samples import Batch

__all__ = ["Results"]


class Results:
    """Kernels of two batches, filled block by block; a context, in which no other process writes to the folder.

    Args:
        names: Of the kernels.
        first: The batches of the rows.
        second: Of the columns.
        several: Has the network several outputs, and a kernel two more axes?
        dtype: Of the arrays.
        out: A folder: arrays are memory-mapped files `NAME.npy` there, and `done.json` says which blocks are in them.
        identity: What the folder is for; a folder of something else is refused.

    Attributes:
        arrays: Name to array (examples, examples).
    """

    def __init__(
        self,
        names: tuple[str, ...],
        first: list[Batch],
        second: list[Batch],
        several: bool,
        dtype: Any,
        out: str | Path | None,
        identity: str,
    ) -> None:
        self.names, self.several, self.dtype = names, several, dtype
        self.shape = tuple([sum([len(b.places) for b in side]) for side in (first, second)])
        self.whole = len(first) == 1 and len(second) == 1
        self.arrays: dict[str, np.ndarray] = {}
        if out is not None and not isinstance(out, (str, Path)):
            raise TensorProgramError(f"out={out!r}", fix="give the path of a folder")
        self.folder = None if out is None else Path(out)
        self.identity = f"{identity} {np.dtype(dtype)} {' '.join(names)}"
        self.finished: set[tuple[int, int]] = set()
        self.lock: FolderLock | None = None
        if self.folder is not None:
            self._make()

    def __enter__(self) -> Results:
        """One call has the folder until it ends, in whatever way."""
        if self.folder is not None:
            self.lock = FolderLock(self.folder, "out")
            try:
                self._open()
            except BaseException:
                self.lock.release()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        if self.lock is not None:
            self.lock.release()

    def _make(self) -> None:
        assert self.folder is not None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TensorProgramError(f"out={str(self.folder)!r} is not a folder: {error}") from None
        if not self.whole:
            raise TensorProgramError(
                "out= with examples of different shapes", fix="leave it out, or call once for each pair of shapes"
            )

    def _open(self) -> None:
        """What an interrupted call has left there."""
        assert self.folder is not None
        notes = self.folder / "done.json"
        if not notes.exists():
            return
        try:
            known = json.loads(notes.read_text())
            identity, finished = known["identity"], {(int(i), int(j)) for i, j in known["blocks"]}
            if identity == self.identity:
                paths = {name: self.folder / f"{name}.npy" for name in self.names}
                for path in paths.values():
                    np.load(path, mmap_mode="r")  # "r+" would fill up a file that is too short with zeros
                self.arrays = {name: np.load(path, mmap_mode="r+") for name, path in paths.items()}
                self.finished = finished
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise TensorProgramError(
                f"out={str(self.folder)!r} holds damaged files: {error}", fix="give another folder, or delete it"
            ) from None
        if identity != self.identity:
            raise TensorProgramError(
                f"out={str(self.folder)!r} holds kernels of something else",
                why="its data, network or settings are others",
                fix="give another folder, or delete it",
            )
        if any(x.shape[:2] != self.shape or x.dtype != self.dtype for x in self.arrays.values()):
            raise TensorProgramError(
                f"out={str(self.folder)!r} holds arrays of another shape", fix="give another folder, or delete it"
            )

    def done(self, rows: slice, columns: slice) -> bool:
        """Is this block there from an interrupted call?"""
        return (rows.start, columns.start) in self.finished

    def put(
        self,
        found: list[np.ndarray],
        at: Sequence[int],
        across: Sequence[int],
        rows: slice,
        columns: slice,
        mirror: bool,
    ) -> None:
        """A block of every kernel.

        Args:
            found: An array for each kernel.
            at: Where the examples of the first batch stand.
            across: Those of the second.
            rows: Which of the first batch.
            columns: Which of the second.
            mirror: Is the transposed block to be filled in as well?
        """
        for name, x in zip(self.names, found, strict=True):
            value = np.moveaxis(x, (0, 1), (-2, -1)) if self.several else x
            if self.folder is None and self.whole and value.shape[:2] == self.shape:
                self.arrays[name] = value
                continue
            full = self._array(name, value.shape[2:])
            turned = np.swapaxes(value, 0, 1)
            turned = np.swapaxes(turned, 2, 3) if self.several else turned
            if self.whole:
                full[rows, columns] = value
                if mirror:
                    full[columns, rows] = turned
            else:
                i, j = np.asarray(at)[rows], np.asarray(across)[columns]
                full[np.ix_(i, j)] = value
                if mirror:
                    full[np.ix_(j, i)] = turned
        if self.folder is not None:
            self._note(rows, columns)

    def _array(self, name: str, rest: tuple[int, ...]) -> np.ndarray:
        if name not in self.arrays:
            shape = (*self.shape, *rest)
            if self.folder is None:
                self.arrays[name] = np.empty(shape, self.dtype)
            else:
                path = self.folder / f"{name}.npy"
                self.arrays[name] = np.lib.format.open_memmap(path, mode="w+", dtype=self.dtype, shape=shape)
        return self.arrays[name]

    def _note(self, rows: slice, columns: slice) -> None:
        """Remembers a block, after its numbers are in the files."""
        assert self.folder is not None
        self.finished.add((rows.start, columns.start))
        text = json.dumps({"identity": self.identity, "blocks": sorted(self.finished)})
        handle, part = tempfile.mkstemp(dir=self.folder, prefix="done-", suffix=".part")
        try:
            with os.fdopen(handle, "w") as stream:
                stream.write(text)
            Path(part).replace(self.folder / "done.json")  # whole or not at all
        finally:
            Path(part).unlink(missing_ok=True)
        self._release()

    def _release(self) -> None:
        """Takes files out of this process's memory; what is not on disk yet stays in the system's cache."""
        for x in self.arrays.values():
            mapped = getattr(x, "_mmap", None)  # of a np.memmap, where the system can do this
            if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
                mapped.madvise(mmap.MADV_DONTNEED)

    def check(self, network: Network) -> None:
        """Refuses what is not finite; of files, row by row."""
        for name, x in self.arrays.items():
            step = max(1, 2**22 // max(x.shape[1], 1))
            for start in range(0, len(x), step):
                part = x[start : start + step]
                if self.folder is not None:
                    self._release()
                if not np.isfinite(np.sum(part)) and not np.isfinite(part).all():
                    bad = np.argwhere(~np.isfinite(part))[0]
                    raise TensorProgramError(
                        f"{name} is not finite for the examples {(int(bad[0]) + start, int(bad[1]))}",
                        why=f"a moment is infinite, or a number is larger than {float(np.finfo(self.dtype).max):.1g}",
                        fix="look for a function without a value there: a division by 0, a derivative of a jump"
                        + ("; or use dtype=float" if float(np.finfo(self.dtype).max) < 1e300 else ""),
                        source=network.source,
                    )
