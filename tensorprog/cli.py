"""The command line: `tensorprog COMMAND FILE [--set name=value ...] [--json]`; see `tensorprog --help`.

Exit status: 0; 2 with one message on standard error for everything a user can get wrong; 130 after an interrupt, which
prints what is done.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Sequence
from types import FrameType
from typing import Any

from tensorprog.errors import TensorProgramError
from tensorprog.faces.answer import Answer
from tensorprog.faces.arguments import spread
from tensorprog.faces.commands import COMMANDS, Command, plain
from tensorprog.faces.files import CommandError

__all__ = ["main", "parser"]

ERROR, INTERRUPTED = 2, 130


def parser() -> argparse.ArgumentParser:
    """The parser, a subparser for each row of the table of commands.

    Example:
        >>> args = parser().parse_args(["run", "model.py", "--n", "1e4", "--set", "mean=1/3"])
        >>> args.command.name, args.file, args.n, args.set
        ('run', 'model.py', 10000, ['mean=1/3'])
    """
    from tensorprog import __version__

    top = argparse.ArgumentParser(
        prog="tensorprog",
        description="Tensor Programs: exact infinite-width limits, and finite widths beside them.",
        epilog="tensorprog COMMAND --help says what a command takes. First try: tensorprog demo",
    )
    top.add_argument("--version", action="version", version=f"tensorprog {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        sub = commands.add_parser(command.name, help=command.help, description=command.run.__doc__)
        command.arguments(sub)
        sub.add_argument("--json", action="store_true", help="one JSON object on standard output")
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
        sub.set_defaults(command=command)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status.

    Args:
        argv: The words after `tensorprog`; by default those of this process.

    Example:
        >>> import tempfile, tensorprog as tp
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     tp.save(tp.Program(m=tp.moment(tp.Vector("x", tp.Width("n"), mean=2) ** 2)), f"{folder}/square.tp")
        ...     main(["limit", f"{folder}/square.tp"])
        m = 5 (exact)
        0
    """
    args = parser().parse_args(spread(sys.argv[1:] if argv is None else argv))
    command: Command = args.command
    try:
        with warnings.catch_warnings():  # puts back the function that shows them
            warnings.showwarning = _warn
            answer = command.run(args)
        _print(answer, args.json)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader had enough (`| head`): not an error of ours
        _forget_output()
        return 0
    except KeyboardInterrupt:
        if args.debug:
            raise
        print("tensorprog: interrupted", file=sys.stderr)
        return INTERRUPTED
    except CommandError as error:
        return _fail(str(error), error, args.debug)
    except TensorProgramError as error:
        return _fail(_message(error), error, args.debug)
    except OSError as error:
        return _fail(str(error), error, args.debug)
    except Exception as error:
        says = f"{type(error).__name__}: {error}\n  This is an error of tensorprog: please report it, with --debug."
        return _fail(says, error, args.debug)
    return INTERRUPTED if answer.interrupted else 0


def _print(answer: Answer, as_json: bool) -> None:
    if as_json:
        data = answer.data | ({"interrupted": True} if answer.interrupted else {})
        print(json.dumps(plain(data), indent=2, allow_nan=False, ensure_ascii=False))
    elif answer.text:
        print(answer.text)
    if answer.remark:
        sys.stdout.flush()
        print(f"tensorprog: {answer.remark}", file=sys.stderr)


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning in one line: the line of the package that gives it says nothing to whoever sits at a terminal."""
    print(f"tensorprog: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _fail(message: str, error: BaseException, debug: bool) -> int:
    if debug:
        raise error
    try:
        print(f"tensorprog: error: {message}", file=sys.stderr)
    except BrokenPipeError:
        _forget_output()
    return ERROR


def _message(error: TensorProgramError) -> str:
    """The error's text, without its line where that is a line of whoever called `main`."""
    frame: FrameType | None = sys._getframe()
    ours = set()
    while frame is not None:
        ours.add(frame.f_code.co_filename)
        frame = frame.f_back
    if error.source is None or error.source.file not in ours:
        return str(error)
    lines = str(error).split("\n")
    return "\n".join([line for line in lines if not line.startswith(f"  at {error.source}")])


def _forget_output() -> None:
    """Points standard output at nothing, so that Python's own flush at exit does not fail on the closed pipe."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # a standard output that is no file, as under a test
        pass
