"""Programs in files: the text, and the large arrays it names in an .npz file beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.language.program import Program
from tensorprog.text.show import arrays, show

__all__ = ["load", "save"]


def save(program: Program, path: str | Path) -> None:
    """Writes the program's text, and its large arrays into an .npz file beside it (`model.tp`, `model.npz`).

    Raises:
        TensorProgramError: if a file cannot be written, and for what is no program.

    Example:
        >>> import tempfile, tensorprog as tp
        >>> p = tp.Program(m=tp.moment(tp.Vector("x", tp.Width("n"), mean=np.arange(100), axes="t")))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(p, Path(folder) / "p.tp")
        ...     load(Path(folder) / "p.tp") == p
        True
    """
    if not isinstance(program, Program):
        raise TensorProgramError(f"{type(program).__name__} is saved", fix='pass a tp.Program: tp.save(p, "p.tp")')
    path, text = _text_path(path), f"# tensorprog text 1; tp.load reads it\n{show(program)}\n"
    # rationals as strings: an array of Python objects would have to be pickled, and loading would run code
    plain = {
        name: np.array([str(v) for v in a.ravel()]).reshape(a.shape) if a.dtype == object else a
        for name, a in arrays(program).items()
    }
    try:
        path.write_text(text, encoding="utf-8")
        if plain:
            np.savez_compressed(path.with_suffix(".npz"), **plain)  # type: ignore[arg-type]
    except OSError as e:
        raise TensorProgramError(f"cannot write {path}: {e}", fix="give a path in a folder you can write to") from None


def load(path: str | Path) -> Program:
    """Reads a program that `save` wrote, or any program's text. Executes no code.

    Raises:
        TensorProgramError: if the file is missing, is no program, or its arrays are missing or have changed.

    Example:
        >>> import tensorprog as tp
        >>> tp.load("no such file.tp")
        Traceback (most recent call last):
        ...
        tensorprog.errors.TensorProgramError: cannot read no such file.tp...
    """
    from tensorprog.text.parse import parse

    path = _text_path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise TensorProgramError(f"cannot read {path}: {e}", fix="give the path of a program's text") from None
    companion = path.with_suffix(".npz")
    if not companion.exists():
        return parse(text, file=str(path))
    try:
        with np.load(companion, allow_pickle=False) as found:
            return parse(text, arrays=found, file=str(path))
    except (OSError, ValueError, EOFError) as e:
        if isinstance(e, TensorProgramError):
            raise
        raise TensorProgramError(f"cannot read {companion}: {e}", fix="write it again with tp.save") from None


def _text_path(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix == ".npz" or not path.suffix:
        raise TensorProgramError(
            f"{str(path)!r} is no name for a program's text",
            why="its arrays go into the .npz file beside it",
            fix="call it NAME.tp",
        )
    return path
