"""From a FILE and `--set name=value` to a Program, or a Network and its data: where the command line runs a user's code."""

from __future__ import annotations

import ast
import contextlib
import inspect
import sys
import tokenize
import traceback
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tensorprog.errors import TensorProgramError
from tensorprog.language.program import Program
from tensorprog.networks.network import Network

if TYPE_CHECKING:
    from tensorprog.training.trace import Trace

__all__ = ["CommandError", "Model", "assignments", "literal", "load_function", "load_model", "load_module"]


class CommandError(Exception):
    """A message for the person at the command line; unlike a `TensorProgramError` it has no line of a program."""


@dataclass(frozen=True, eq=False)
class Model:
    """What a FILE defines: a program; or a network with its data.

    Attributes:
        what: The `Program` or `Network`.
        X: The network's data.
        X2: Data of a second batch, or None.
        trace: The run of training that the program is of, or None.
    """

    what: Program | Network
    X: Any = None
    X2: Any = None
    trace: Trace | None = None

    @property
    def shape(self) -> Any:
        """The shape of the data, of the first example where they differ; for several inputs by name."""
        import numpy as np

        def of(X: Any) -> Any:
            if isinstance(X, Mapping):
                return {k: of(v) for k, v in X.items()}
            if isinstance(X, (list, tuple)) and len({np.shape(x) for x in X}) > 1:
                return (len(X), *np.shape(X[0]))
            return X if X is None else np.shape(X)

        return of(self.X)

    def program(self, **options: Any) -> Program:
        """The program; for a network, with the options of `Network.program`."""
        return self.what if isinstance(self.what, Program) else self.what.program(self.X, self.X2, **options)


def load_model(
    file: str, parameters: Mapping[str, Any], settings: Sequence[str] = (), data: str | None = None
) -> Model:
    """What a FILE defines: of a Python file, what its `build(**parameters)` returns; or a program's text (`.tp`).

    Args:
        file: The path.
        parameters: Arguments of `build`, and of `data`, which returns a network's inputs; checked against the signatures.
        settings: More of them, as `name=value` texts; where the default is a text, so may the value be, without quotes.
        data: An .npy file with the inputs in place of `data`; or an .npz file with an array for each Input.

    Raises:
        CommandError: The file is missing, of another kind, or no such program; a parameter is unknown; or the user's
            code raised, and then the message has the line of the user's file.
        TensorProgramError: From the language itself, with the line of the user's file.

    Example:
        >>> import tempfile
        >>> text = "import tensorprog as tp; x = tp.dense('U', tp.Input('x'), tp.Width('n'))" + chr(10)
        >>> text += "def build(W_std=1): return tp.Network(tp.readout('v', x, W_std=W_std))" + chr(10)
        >>> text += "def data(): return [[1, 2]]"
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "linear.py"
        ...     _ = path.write_text(text)
        ...     load_model(str(path), {}, ["W_std=2"]).X
        [[1, 2]]
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
        if data is not None:
            raise CommandError(f"{file} is a program's text and has no data to replace")
        from tensorprog.text.files import load

        return Model(load(path))
    if path.suffix != ".py":
        raise CommandError(f"{file} is neither a Python file (.py) that defines build() nor a program's text (.tp)")
    module = load_module(path)
    build, default = getattr(module, "build", None), getattr(module, "data", None)
    if not callable(build):
        raise CommandError(
            f"{file} does not define build(); let it define one that returns a tensorprog.Program or tensorprog.Network"
        )
    default = default if callable(default) and data is None else None
    functions = [build] + ([default] if default is not None else [])
    signatures = [_parameters(f) for f in functions]
    texts = {p.name for known in signatures for p in known or () if isinstance(p.default, str)}
    parameters = {**parameters, **assignments("--set", settings, texts)}
    everything = [p for known in signatures for p in known or ()]
    if None not in signatures:
        _check_parameters(file, signatures[0] or [], parameters, everything)
    found = _called(path, "build", build, _given(signatures[0], parameters))
    if "tensorprog.training.trace" in sys.modules and isinstance(found, sys.modules["tensorprog.training.trace"].Trace):
        if data is not None:
            raise CommandError(f"build() of {file} returned a Trace, which has its data inside: leave out --data")
        return Model(found.program, trace=found)
    if isinstance(found, Program):
        if data is not None:
            raise CommandError(f"build() of {file} returned a Program, which has its data inside: leave out --data")
        return Model(found)
    if not isinstance(found, Network):
        raise CommandError(
            f"build() of {file} returned {_described(found)}; it must return a tensorprog.Program, Network or Trace"
        )
    if data is not None:
        return Model(found, _read(data))
    if default is None:
        if found.needs_data:
            raise CommandError(
                f"build() of {file} returned a Network, and there is no data: let {file} define data(), or use --data X.npy"
            )
        return Model(found)
    _check_parameters(file, signatures[1] or [], _given(signatures[1], parameters), everything, "data")
    X = _called(path, "data", default, _given(signatures[1], parameters))
    if isinstance(X, tuple) and len(X) == 2 and not all(isinstance(k, int) for k in X):
        return Model(found, *X)
    return Model(found, X)


def load_function(file: str, settings: Sequence[str] = ()) -> Any:
    """The function that `build(**parameters)` of a Python file returns: an activation, or a block of layers.

    Args:
        file: The path.
        settings: Arguments of `build`, as `name=value` texts.

    Raises:
        CommandError: The file is missing, or defines no such function.
    """
    path = Path(file)
    if path.suffix != ".py" or not path.is_file():
        raise CommandError(f"{file} is no Python file (.py) that defines build()")
    build = getattr(load_module(path), "build", None)
    if not callable(build):
        raise CommandError(f"{file} does not define build(); let it define one that returns a function of a vector")
    known = _parameters(build) or []
    parameters = assignments("--set", settings, {p.name for p in known if isinstance(p.default, str)})
    _check_parameters(file, known, parameters, known)
    found = _called(path, "build", build, parameters)
    if not callable(found):
        raise CommandError(
            f"build() of {file} returned {_described(found)}; it must return a function: an activation, or a block of layers"
        )
    return found


def _called(path: Path, name: str, function: Any, given: Mapping[str, Any]) -> Any:
    with _user_code(path, f"{name}({', '.join(f'{k}={v!r}' for k, v in given.items())})"):
        return function(**given)


def _given(known: Sequence[inspect.Parameter] | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Those that a function takes."""
    if known is None or any(p.kind is p.VAR_KEYWORD for p in known):
        return dict(given)
    return {k: v for k, v in given.items() if k in {p.name for p in known}}


def _read(path: str) -> Any:
    """The arrays of an .npy or .npz file."""
    import numpy as np

    try:
        found = np.load(path, allow_pickle=False)
        return found if isinstance(found, np.ndarray) else dict(found)
    except (OSError, ValueError, EOFError) as error:
        raise CommandError(f"--data {path}: {error}") from None


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


def _check_parameters(
    file: str,
    parameters: Sequence[inspect.Parameter],
    given: Mapping[str, Any],
    everything: Sequence[inspect.Parameter],
    function: str = "build",
) -> None:
    """Refuses what neither function takes (`everything`), and a call that lacks something this one needs."""
    if any(p.kind is p.POSITIONAL_ONLY for p in parameters):
        raise CommandError(f"{function}() of {file} has positional-only parameters; --set gives them by name")
    known = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    both = {p.name: p for p in everything if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    unknown = [name for name in given if name not in both]
    if unknown and not any(p.kind is p.VAR_KEYWORD for p in everything):
        has = f"it has {', '.join(map(_shown, both.values()))}" if both else "it has none"
        raise CommandError(
            f"{function}() of {file} has no parameter {unknown[0]!r}; {has}; "
            f"a hyperparameter (tp.Scalar) gets its number from --values {unknown[0]}=..."
        )
    missing = [p.name for p in known if p.default is p.empty and p.name not in given]
    if missing:
        raise CommandError(
            f"{function}() of {file} needs {', '.join(missing)}: {' '.join(f'--set {name}=...' for name in missing)}"
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
