"""From a FILE and `--set name=value` to a Program: the one place where the command line runs a user's code."""

from __future__ import annotations

import ast
import contextlib
import inspect
import sys
import tokenize
import traceback
from collections.abc import Container, Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

from tensorprog.errors import TensorProgramError
from tensorprog.language.program import Program

__all__ = ["CommandError", "assignments", "literal", "load_module", "load_program"]


class CommandError(Exception):
    """A message for the person at the command line; unlike a `TensorProgramError` it has no line of a program."""


def load_program(file: str, parameters: Mapping[str, Any], settings: Sequence[str] = ()) -> Program:
    """The program of a FILE: of a Python file, what its `build(**parameters)` returns; or a program's text (`.tp`).

    Args:
        file: The path.
        parameters: Arguments of `build`, checked against its signature.
        settings: More of them, as `name=value` texts; where the default is a text, so may the value be, without quotes.

    Raises:
        CommandError: The file is missing, of another kind, or no such program; a parameter is unknown; or the user's
            code raised, and then the message has the line of the user's file.
        TensorProgramError: From the language itself, with the line of the user's file.

    Example:
        >>> import tempfile, tensorprog as tp
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "square.py"
        ...     text = "import tensorprog as tp; x = tp.Vector('x', tp.Width('n'), mean=2)"
        ...     _ = path.write_text(text + chr(10) + "def build(k=1): return tp.Program(m=tp.moment(k * x))")
        ...     print(tp.limit(load_program(str(path), {"k": 3})))
        m = 6 (exact)
    """
    path = Path(file)
    if path.is_dir():
        raise CommandError(f"{file} is a folder; give a Python file that defines build(), or a program's text (.tp)")
    if not path.exists():
        raise CommandError(f"there is no file {file}")
    if path.suffix == ".tp":
        if parameters or settings:
            raise CommandError(
                f"{file} is a program's text and has no parameters to --set ({', '.join([*parameters, *settings])}); "
                "hyperparameters get their numbers from --values name=value"
            )
        from tensorprog.language.text import load

        return load(path)
    if path.suffix != ".py":
        raise CommandError(f"{file} is neither a Python file (.py) that defines build() nor a program's text (.tp)")
    build = getattr(load_module(path), "build", None)
    if not callable(build):
        raise CommandError(f"{file} does not define build(); let it define one that returns a tensorprog.Program")
    known = _parameters(build)
    texts = {p.name for p in known or () if isinstance(p.default, str)}
    parameters = {**parameters, **assignments("--set", settings, texts)}
    if known is not None:
        _check_parameters(file, known, parameters)
    with _user_code(path, f"build({', '.join(f'{k}={v!r}' for k, v in parameters.items())})"):
        program = build(**parameters)
    if not isinstance(program, Program):
        raise CommandError(f"build() of {file} returned {_described(program)}; it must return a tensorprog.Program")
    return program


def load_module(path: Path) -> ModuleType:
    """Runs a Python file as a module of its own, without leaving compiled files beside it."""
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    folder = str(path.resolve().parent)
    if folder not in sys.path:  # as `python FILE` has it: a file may import its neighbours
        sys.path.insert(0, folder)
    with _user_code(path, "the file"):
        with tokenize.open(path) as stream:  # honours an encoding declared in the file
            code = compile(stream.read(), str(path), "exec")
        sys.modules.setdefault(path.stem, module)  # dataclasses and pickle look a class's module up there
        exec(code, module.__dict__)
    return module


@contextlib.contextmanager
def _user_code(path: Path, what: str) -> Any:
    """Reports what the user's code raises by the line of the user's file; what it prints goes to standard error."""
    try:
        with contextlib.redirect_stdout(sys.stderr):  # standard output belongs to the answer, which may be JSON
            yield
    except TensorProgramError:
        raise
    except SyntaxError as error:
        place = f"{error.filename or path}:{error.lineno or 0}"
        text = f"\n    {error.text.strip()}" if error.text else ""
        raise CommandError(f"{place}: {type(error).__name__}: {error.msg}{text}") from error
    except (Exception, SystemExit) as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        place = f"{path}:{frames[-1].lineno}" if frames else str(path)
        text = f"\n    {frames[-1].line}" if frames and frames[-1].line else ""
        says = traceback.format_exception_only(error)[-1].strip()
        raise CommandError(f"{place}: {says}{text}\n  while {what} ran (--debug shows the traceback)") from error


def _parameters(build: Any) -> list[inspect.Parameter] | None:
    """None for a builtin: Python itself will say what is wrong with a call."""
    try:
        return list(inspect.signature(build).parameters.values())
    except (TypeError, ValueError):
        return None


def _check_parameters(file: str, parameters: Sequence[inspect.Parameter], given: Mapping[str, Any]) -> None:
    if any(p.kind is p.POSITIONAL_ONLY for p in parameters):
        raise CommandError(f"build() of {file} has positional-only parameters; --set gives them by name")
    known = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    names = [p.name for p in known]
    unknown = [name for name in given if name not in names]
    if unknown and not any(p.kind is p.VAR_KEYWORD for p in parameters):
        has = f"it has {', '.join(map(_shown, known))}" if known else "it has none"
        raise CommandError(
            f"build() of {file} has no parameter {unknown[0]!r}; {has}; "
            f"a hyperparameter (tp.Scalar) gets its number from --values {unknown[0]}=..."
        )
    missing = [p.name for p in known if p.default is p.empty and p.name not in given]
    if missing:
        raise CommandError(
            f"build() of {file} needs {', '.join(missing)}: {' '.join(f'--set {name}=...' for name in missing)}"
        )


def _shown(p: inspect.Parameter) -> str:
    return p.name if p.default is p.empty else f"{p.name}={p.default}"


def _described(x: Any) -> str:
    return "None (is a return missing?)" if x is None else f"a {type(x).__name__}"


# ---- name=value ----


def assignments(option: str, items: Iterable[str], texts: Container[str] = ()) -> dict[str, Any]:
    """A dictionary from `name=value` texts; values are Python literals, and fractions such as `1/3`.

    Args:
        option: The option, for messages.
        items: The texts.
        texts: Names whose value may be a text without quotes.

    Example:
        >>> assignments("--set", ["mean=3", "ratio=1/3", "shape=[1, 1/2]", "phi='relu'"])
        {'mean': 3, 'ratio': Fraction(1, 3), 'shape': [1, Fraction(1, 2)], 'phi': 'relu'}
    """
    found: dict[str, Any] = {}
    for item in items:
        name, equals, text = item.partition("=")
        name = name.strip()
        if not equals or not name.isidentifier():
            raise CommandError(f"{option} {item}: write name=value")
        if name in found:
            raise CommandError(f"{option} {name} is given twice")
        try:
            found[name] = literal(text)
        except ValueError:
            if name in texts:
                found[name] = text
                continue
            quoted = f"; for a text, quote it twice: {option} \"{name}='{text}'\"" if text.isidentifier() else ""
            raise CommandError(
                f"{option} {item}: {text!r} is no Python literal (a number, fraction, text, list, ...){quoted}"
            ) from None
    return found


def literal(text: str) -> Any:
    """A Python literal; a quotient of whole numbers in it is an exact fraction.

    Raises:
        ValueError: The text is neither.

    Example:
        >>> literal("-1/3"), literal("(0.5, None)"), literal("{'a': [True]}")
        (Fraction(-1, 3), (0.5, None), {'a': [True]})
    """
    try:
        return _evaluate(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, TypeError, ZeroDivisionError, MemoryError, RecursionError) as error:
        raise ValueError(f"{text!r} is no literal: {error}") from None


def _evaluate(node: ast.expr) -> Any:
    """`ast.literal_eval` with fractions: it runs no code."""
    match node:
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            p, q = _evaluate(left), _evaluate(right)
            if not (isinstance(p, (int, Fraction)) and isinstance(q, (int, Fraction))):
                raise ValueError("a quotient of other things than whole numbers")
            ratio = Fraction(p) / Fraction(q)
            return ratio.numerator if ratio.denominator == 1 else ratio
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_evaluate(operand)
        case ast.List(elts=items):
            return [_evaluate(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple([_evaluate(item) for item in items])
        case ast.Dict(keys=keys, values=values):
            if None in keys:
                raise ValueError("** in a literal")
            return {_evaluate(k): _evaluate(v) for k, v in zip(keys, values, strict=True) if k is not None}
        case _:
            return ast.literal_eval(node)
