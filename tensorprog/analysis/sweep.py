"""Runs of one program at many widths and seeds: in blocks, resumable, in this process or on an executor."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.language.program import Program
from tensorprog.progress import Interrupted, progress_bar
from tensorprog.transforms.decouple import program_for

__all__ = ["Rows", "canonical", "run_block", "sweep"]

Rows = dict[tuple[int, int], dict[str, np.ndarray]]
"""(width, seed) to the outputs of that run."""

BLOCK = 8
"""Seeds in one task: few enough that an interrupt loses little, enough that a task's overhead does not show."""


def sweep(
    program: Program,
    widths: Sequence[int],
    seeds: Sequence[int],
    *,
    weights: str = "auto",
    values: Mapping[str, Any] | None = None,
    gia: bool = False,
    executor: Executor | None = None,
    resume: str | Path | None = None,
    progress: bool | None = None,
) -> Rows:
    """Runs a program at every width with every seed.

    Args:
        program: A Program; `program.digest` identifies it where `resume` is used.
        widths: The widths, run in this order (on an executor largest first, so that no worker ends up with the longest
            task alone at the end).
        seeds: The seeds.
        weights: `dense`, `lazy` or `auto`, as for `run`.
        values: Values of the program's Scalars.
        gia: Whether back-propagation's matrices are independent copies.
        executor: Any `concurrent.futures` executor, the caller's to shut down; a task is one width and up to 8 seeds.
        resume: A folder, made if need be: finished tasks are stored there as they finish, and what it already holds
            for the same program and settings is not run again, whatever the widths and seeds then asked for.
        progress: True or False to show a progress bar or not; by default only on a terminal.

    Returns:
        (width, seed) to the outputs of that run.

    Raises:
        Interrupted: On KeyboardInterrupt, with the finished runs in `rows`.
        TensorProgramError: If `resume` cannot be used.
    """
    program = program_for(program, gia)
    settings = (weights, dict(values) if values else None)
    store = None if resume is None else _Store(Path(resume), program, *settings)
    wanted = {(n, seed) for n in widths for seed in seeds}
    rows: Rows = {} if store is None else {key: row for key, row in store.load() if key in wanted}
    tasks = [
        (n, tuple(todo[i : i + BLOCK]))
        for n in widths
        for todo in [[seed for seed in seeds if (n, seed) not in rows]]
        for i in range(0, len(todo), BLOCK)
    ]
    try:
        # closing: an interrupt here cancels what was submitted.
        with (
            progress_bar(shown=progress, total=len(wanted), initial=len(rows), unit="run") as bar,
            closing(_execute(program, tasks, settings, executor)) as finished,
        ):
            for (n, block), outputs in finished:
                if store is not None:
                    store.save(n, block, outputs)
                for i, seed in enumerate(block):
                    rows[n, seed] = {name: array[i] for name, array in outputs.items()}
                bar.update(len(block))
    except KeyboardInterrupt:
        kept = f"kept in {resume}: the same call goes on from there" if resume is not None else "in .rows"
        raise Interrupted(f"stopped after {len(rows)} of {len(wanted)} runs, {kept}", rows) from None
    return rows


def run_block(
    program: Program, n: int, seeds: tuple[int, ...], weights: str, values: Mapping[str, Any] | None
) -> dict[str, np.ndarray]:
    """One task: the outputs at one width, name to array of shape (len(seeds), *axes). Picklable."""
    from tensorprog.execute.executor import run

    found = run(program, n=n, seeds=list(seeds), weights=weights, values=values)
    return {name: np.asarray(array) for name, array in found.items()}


_Task = tuple[int, tuple[int, ...]]


def _execute(
    program: Program, tasks: list[_Task], settings: tuple[str, dict[str, Any] | None], executor: Executor | None
) -> Generator[tuple[_Task, dict[str, np.ndarray]], None, None]:
    if executor is None:
        for n, block in tasks:
            yield (n, block), run_block(program, n, block, *settings)
        return
    futures = {
        executor.submit(run_block, program, n, block, *settings): (n, block)
        for n, block in sorted(tasks, key=lambda task: -task[0])
    }
    try:
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        for future in futures:  # after an interrupt or a failure; cancelling a finished task does nothing
            future.cancel()


class _Store:
    """A folder of finished tasks, one file each, named by what was run."""

    def __init__(self, folder: Path, program: Program, weights: str, values: Mapping[str, Any] | None) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TensorProgramError(f"resume={str(folder)!r} is not a folder: {error}") from None
        # The leading number is this format's version.
        key = repr((2, program.digest, weights, canonical(values)))
        self.folder = folder
        self.prefix = hashlib.sha256(key.encode()).hexdigest()[:16]

    def load(self) -> Iterator[tuple[tuple[int, int], dict[str, np.ndarray]]]:
        for path in sorted(self.folder.glob(f"{self.prefix}-*.npz")):
            try:
                with path.open("rb") as stream, np.load(stream) as stored:  # np.load(path) leaks on failure
                    names = [str(name) for name in stored["names"]]
                    arrays = [stored[f"output{i}"] for i in range(len(names))]
                    n, seeds = int(stored["width"]), stored["seeds"].tolist()
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
                raise TensorProgramError(f"cannot read stored runs from {path}: {error}", fix="delete it") from None
            for i, seed in enumerate(seeds):
                yield (n, seed), {name: array[i] for name, array in zip(names, arrays, strict=True)}

    def save(self, n: int, seeds: tuple[int, ...], outputs: Mapping[str, np.ndarray]) -> None:
        block = hashlib.sha256(repr(seeds).encode()).hexdigest()[:8]
        # Arrays are numbered, as an output may have any name, np.savez's own arguments included.
        arrays: dict[str, Any] = {f"output{i}": array for i, array in enumerate(outputs.values())}
        handle, temporary = tempfile.mkstemp(dir=self.folder, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as stream:
                np.savez(stream, width=n, seeds=np.asarray(seeds), names=np.asarray(list(outputs)), **arrays)
            # Atomic: a file is there whole or not at all, also when the sweep is killed here.
            Path(temporary).replace(self.folder / f"{self.prefix}-n{n}-{seeds[0]}-{block}.npz")
        finally:
            Path(temporary).unlink(missing_ok=True)


def canonical(values: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Values as text that is equal exactly when they are; the text of a long array would leave its middle out."""
    out = []
    for name, value in sorted((values or {}).items()):
        array = np.asarray(value)
        digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest() if array.dtype != object else ""
        out.append((name, f"{array.shape} {array.dtype} {digest or repr(value)}"))
    return out
