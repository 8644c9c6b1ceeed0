"""The text of a network: `latex` and `save` of programs, for networks and their data as well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tensorprog.errors import TensorProgramError
from tensorprog.language.program import Program
from tensorprog.text import files
from tensorprog.text import latex as written
from tensorprog.transforms.dispatch import HasProgram, of_networks

__all__ = ["latex", "save"]

latex = of_networks()(written.latex)


def save(program: Program | HasProgram, path: str | Path, **options: Any) -> None:
    """Writes the program's text, and its large arrays into an .npz file beside it (`model.tp`, `model.npz`).

    Args:
        program: A Program; or a network, whose kernels' program on data is what is saved.
        path: Of the text.
        options: For a network, its data `X`, and `X2`, `of`, `parametrization`, `width` as for `Network.program`.

    Raises:
        TensorProgramError: A file cannot be written; a network has no data.

    Example:
        >>> import tempfile, tensorprog as tp
        >>> net = tp.Network(tp.readout("v", tp.relu(tp.dense("U", tp.Input("x"), tp.Width("n")))))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(net, Path(folder) / "net.tp", X=[[1.0, 2.0]], of="nngp")
        ...     tp.load(Path(folder) / "net.tp") == net.program([[1.0, 2.0]], of="nngp")
        True
    """
    if isinstance(program, Program) or not isinstance(program, HasProgram):
        if options:
            raise TensorProgramError(f"save of a Program is given {next(iter(options))}=", fix="leave it out")
        files.save(program, path)
        return
    if not isinstance(path, (str, Path)) or (program.needs_data and options.get("X") is None):
        raise TensorProgramError(
            "a network without data, or without a path, is saved",
            why="what is written is the program of its kernels, which depends on X",
            fix='call tp.save(net, "net.tp", X=X), or tp.save(net.program(X), "net.tp")',
        )
    files.save(program.as_program(**options), path)
