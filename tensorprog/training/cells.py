"""The cells of a sweep: one network, or one limit, at one value; stored in a folder as they are finished."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tensorprog.analysis.sweep import canonical
from tensorprog.errors import TensorProgramError

__all__ = ["Cell", "Cells"]


@dataclass(frozen=True, eq=False)
class Cell:
    """What was found.

    Attributes:
        losses: One, or those of the limit's replicates.
        first: The loss before training; infinite where there is no such.
        error: The limit's; NaN of a network, which has none alone.
        status: Where there is no loss: why.
        note: More about that.
        method: How it was found.
    """

    losses: np.ndarray
    first: float
    error: float
    status: str = ""
    note: str = ""
    method: str = ""


class Cells:
    """A folder of cells, one file each, named by what it is for; or none.

    Args:
        out: The folder, made if need be.

    Raises:
        TensorProgramError: It cannot be used.
    """

    def __init__(self, out: str | Path | None) -> None:
        if out is not None and not isinstance(out, (str, Path)):
            raise TensorProgramError(f"out={out!r}", fix="give the path of a folder")
        self.folder = None if out is None else Path(out)
        if self.folder is not None:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise TensorProgramError(f"out={str(self.folder)!r} is not a folder: {error}") from None

    def get(self, key: tuple[Any, ...], find: Callable[[], Cell]) -> Cell:
        """The cell that is stored, or that is found now."""
        if self.folder is None:
            return find()
        text = repr([canonical(x) if isinstance(x, Mapping) else x for x in (1, *key)])
        path = self.folder / f"cell-{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"
        if path.exists():
            return _read(path)
        cell = find()
        self._write(path, cell)
        return cell

    def _write(self, path: Path, cell: Cell) -> None:
        data: dict[str, Any] = {"losses": cell.losses.tolist(), "first": cell.first, "error": cell.error}
        data |= {"status": cell.status, "note": cell.note, "method": cell.method}
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                json.dump(data, stream)
            Path(temporary).replace(path)  # atomic: a file is there whole or not at all
        finally:
            Path(temporary).unlink(missing_ok=True)


def _read(path: Path) -> Cell:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return Cell(np.array(data.pop("losses"), dtype=float), **data)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TensorProgramError(f"cannot read a stored cell from {path}: {error}", fix="delete it") from None
