"""Reads the text of a program (`text.py` writes it and documents the axes). No code is executed: tokens, grammar, constructors.

    program   = { statement }                                  one a line; an indented line continues the one before; # comments
    statement = "width" NAME [ ":" "ratio" number ]
              | "matrix" NAME ":" NAME "x" NAME { "," ( "var" number | "entries" law ) }
              | "vector" NAME [ "[" size { "," size } "]" ] ":" NAME
                         { "," ( "mean" value | "var" number | "cov" value | law ) }
              | "scalar" NAME [ ":" [ "name" NAME "," ] [ "default" number ] ]
              | "array" NAME ":" ( "float64" | "int64" | "rational" ) "," "shape" "(" INT { "," INT } ")" "," "sha" STRING
              | "output" NAME [ "[" axis { "," axis } "]" ] "=" sum
              | NAME "=" sum
    law       = "rademacher" | "uniform" | "scipy" NAME "(" [ [ NAME "=" ] number { "," [ NAME "=" ] number } ] ")"
    value     = number | list | "rational" "(" list ")" | NAME                     (the name of an array)
    list      = "[" ( number | list ) { "," ( number | list ) } "]"
    number    = [ "-" ] NUMBER [ "/" NUMBER ]                  1/2 is a rational, 0.5 a float
    axis      = NAME | STRING
    sum       = [ "-" ] product { ( "+" | "-" ) product }
    product   = power { ( "*" | "/" ) power }
    power     = postfix [ "**" ( [ "-" ] NUMBER | "(" number ")" ) ]
    postfix   = atom { "'" | "[" [ index { "," index } ] [ ";" target { "," target } ] "]" }
    index     = LETTER | ":" | [ "-" ] INT                     LETTER: i, j, k, ...: positions of the result
    target    = size | NAME [ "'" ]                            NAME: a width, with ' for the second coordinate
    size      = LETTER ":" INT
    atom      = NUMBER | NAME | list | "(" sum ")" | call
    call      = ( "MatMul" "(" NAME [ "." "T" ] "," sum | ( "Nonlin" | "Moment" | "OuterNonlin" ) "(" sum
              | ( "sum" | "softmax" ) "(" sum "," LETTER | "stack" "(" LETTER { "," sum } | "inverse_sqrt" "(" NAME
              | "rational" "(" list | FUNCTION "(" sum { "," number } ) ")"

FUNCTION is a row of `functions.py`. A name is used after the line that assigns it. Everything is rebuilt by the constructors of
`algebra.py` and checked as if it had been built in Python; names of lines become labels. Nesting, sizes and the length of numbers
are bounded, so that no text can take long.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from tensorprog.errors import Source, TensorProgramError
from tensorprog.language import algebra
from tensorprog.language.build import check_domain
from tensorprog.language.expression import Expression, Vector, product
from tensorprog.language.functions import PRIMITIVES
from tensorprog.language.node import Node
from tensorprog.language.program import Output, Program
from tensorprog.language.symbols import Matrix, Number, Width, encode, number
from tensorprog.language.text import LEAVES, fingerprint, letter

__all__ = ["TextSource", "parse"]

MAX_CHARACTERS, MAX_DEPTH, MAX_AXES, MAX_SIZE, MAX_EXPONENT, MAX_DIGITS = 50_000_000, 64, 24, 10**9, 10**6, 4000
MAX_BITS = int(MAX_DIGITS * math.log2(10))

_TOKEN = re.compile(
    r"(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<string>\"(?:[^\"\\]|\\.)*\")|(?P<op>\*\*|[-+*/()\[\],:;='.])|(?P<space>[ \t\r]+|#.*)"
)
_STATEMENTS = ("width", "matrix", "vector", "scalar", "array", "output")
_KINDS = {"float64": "f", "int64": "i", "rational": "O"}


@dataclass(frozen=True, slots=True)
class TextSource(Source):
    """A place in a program's text."""

    column: int = 1
    content: str = ""

    @property
    def text(self) -> str:
        """The line itself."""
        return self.content.strip()

    def __str__(self) -> str:
        return f"{Path(self.file).name + ', ' if self.file else ''}line {self.line}, column {self.column}"


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # number, name, string, end, or the operator itself
    text: str
    line: int
    column: int


def parse(text: str, arrays: Mapping[str, Any] | None = None, *, file: str = "") -> Program:
    """The program that a text describes: `parse(str(p)) == p`. Executes no code.

    Args:
        text: As `str(program)` writes it; the grammar is in the documentation of this module.
        arrays: The arrays the text names (`program.arrays`), where it has any.
        file: The name of the file it comes from, for messages.

    Raises:
        TensorProgramError: with line and column, on the first thing that is wrong.

    Example:
        >>> import tensorprog as tp
        >>> p = parse('''
        ... width n
        ... matrix W : n x n, var 2
        ... vector x : n, mean 0, var 1
        ... h = MatMul(W, x)
        ... output q = Moment(tanh(h) * h)
        ... ''')
        >>> parse(str(p)) == p
        True
    """
    if not isinstance(text, str):
        raise TensorProgramError(f"a program's text is a string, not {type(text).__name__}", fix="to read a file use tp.load(path)")
    if len(text) > MAX_CHARACTERS:
        raise TensorProgramError(f"a text of {len(text)} characters", fix=f"at most {MAX_CHARACTERS} are read")
    return _Parser(text, arrays or {}, file).program()


def _letter_position(text: str) -> int | None:
    if len(text) == 1 and "i" <= text <= "z":
        return ord(text) - ord("i")
    digits = text[1:]
    return int(digits) if text[:1] == "i" and digits.isascii() and digits.isdigit() and len(digits) < 4 else None


class _Parser:
    def __init__(self, text: str, arrays: Mapping[str, Any], file: str) -> None:
        self.rows = text.split("\n")
        self.file, self.given = file, arrays
        self.tokens: list[_Token] = []
        self.position = 0
        self.depth = 0
        self.widths: dict[str, Width] = {}
        self.matrices: dict[str, Matrix] = {}
        self.arrays: dict[str, np.ndarray] = {}
        self.values: dict[str, Node] = {}
        self.outputs: dict[str, Output] = {}
        self.interned: dict[Node, Node] = {}
        self._tokenize()

    # ---- errors ---------------------------------------------------------------------------------------------------------
    def source(self, at: _Token) -> TextSource:
        return TextSource(self.file, at.line, at.column, self.rows[at.line - 1][:400])

    def fail(self, at: _Token, what: str, fix: str, why: str = "") -> NoReturn:
        raise TensorProgramError(what, why=why, fix=fix, source=self.source(at))

    def checked(self, at: _Token, rule: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Calls what may refuse, and says where in the text it refused."""
        try:
            with np.errstate(all="ignore"):
                return rule(*args, **options)
        except TensorProgramError as e:
            raise TensorProgramError(e.what, why=e.why, fix=e.fix, source=self.source(at)) from None
        except (ArithmeticError, ValueError, TypeError) as e:
            self.fail(at, f"this has no value ({e})", "use finite numbers of moderate size")

    def node(self, at: _Token, rule: Callable[..., Node], *args: Any) -> Node:
        """A node in normal form; equal nodes are one object, so that they share their label."""
        x: Node = self.checked(at, rule, *args)
        if len(x.shape) > MAX_AXES or math.prod(x.shape) > MAX_SIZE:
            self.fail(at, f"this has the shape {x.shape}", f"at most {MAX_AXES} axes and {MAX_SIZE} entries are read")
        for y in (x, *x.args):
            if self.bits(y) > MAX_BITS:
                self.fail(at, f"a number of more than {MAX_DIGITS} digits", "use smaller numbers, or floating point")
        if x.op == "mul" and max(x.attr) > MAX_EXPONENT:
            self.fail(at, f"the exponent {max(x.attr)}", f"at most {MAX_EXPONENT} is read")
        x = self.interned.setdefault(x, x)
        if x.source is None and x.op != "constant":
            x.source = self.source(at)
        return x

    @staticmethod
    def bits(x: Node) -> int:
        """The size of the largest exact number in a node."""
        if x.op == "add":
            values: Sequence[Any] = x.attr
        elif x.op == "constant":
            values = (x.attr if x.attr.dtype == object else x.attr[:0]).ravel() if isinstance(x.attr, np.ndarray) else (x.attr,)
        else:
            return 0
        return max([max(v.numerator.bit_length(), v.denominator.bit_length()) for v in values if not isinstance(v, float)], default=0)

    # ---- tokens ---------------------------------------------------------------------------------------------------------
    def _tokenize(self) -> None:
        base: int | None = None
        for k, row in enumerate(self.rows, 1):
            content = row.strip()
            if not content or content.startswith("#"):
                continue
            indent = len(row) - len(row.lstrip())
            base = indent if base is None else base
            if indent <= base and self.tokens:
                last = self.tokens[-1]
                self.tokens.append(_Token("end", "the end of the line", last.line, last.column + len(last.text)))
            self._tokenize_row(row, k)
        last = self.tokens[-1] if self.tokens else _Token("end", "", 1, 1)
        self.tokens.append(_Token("end", "the end of the text", last.line, last.column + len(last.text)))

    def _tokenize_row(self, row: str, k: int) -> None:
        i = 0
        while i < len(row):
            match = _TOKEN.match(row, i)
            if match:
                kind, end = match.lastgroup or "", match.end()
            elif row[i].isidentifier():
                kind, end = "name", i + 1
                while end < len(row) and ("a" + row[end]).isidentifier():
                    end += 1
                end += row[end : end + 1] == "~"
            else:
                here = _Token("?", row[i], k, i + 1)
                self.fail(here, f"the character {row[i]!r}", "names, numbers and + - * / ** ( ) [ ] , : ; = ' . are expected")
            if kind != "space":
                text = row[i:end]
                self.tokens.append(_Token(text if kind == "op" else kind, text, k, i + 1))
            i = end

    @property
    def next(self) -> _Token:
        return self.tokens[self.position]

    def take(self, kind: str, expected: str = "") -> _Token:
        """The next token, which must be of this kind."""
        token = self.next
        if token.kind != kind:
            shown = token.text if token.kind == "end" else repr(token.text[:40])
            self.fail(token, f"{shown} where {expected or repr(kind)} is expected", f"write {expected or repr(kind)} here")
        self.position += 1
        return token

    def accept(self, kind: str, text: str | None = None) -> _Token | None:
        """The next token if it is this one."""
        token = self.next
        if token.kind != kind or (text is not None and token.text != text):
            return None
        self.position += 1
        return token

    def word(self, *words: str) -> _Token:
        """The next token, which must be one of these words."""
        token = self.next
        if token.kind != "name" or token.text not in words:
            self.take("?", " or ".join([f"{w!r}" for w in words]))
        self.position += 1
        return token

    def lookup(self, table: Mapping[str, Any], token: _Token, what: str) -> Any:
        if token.text not in table:
            near = difflib.get_close_matches(token.text, list(table), 1)
            fix = f"did you mean {near[0]}?" if near else f"declare it first; there is {', '.join(sorted(table)[:8]) or 'none yet'}"
            self.fail(token, f"{token.text} is no {what} here", fix)
        return table[token.text]

    # ---- statements -----------------------------------------------------------------------------------------------------
    def program(self) -> Program:
        while self.position < len(self.tokens):
            if self.accept("end"):
                continue
            first = self.take("name", "a declaration, NAME = ... or output NAME = ...")
            follows = self.next
            if first.text in _STATEMENTS and follows.kind == "name":
                getattr(self, f"declare_{first.text}")(self.take("name"))
            elif follows.kind == "=":
                self.assign(first)
            else:
                self.fail(follows, f"{first.text!r} starts no statement this way",
                          f"write {first.text} = ..., or begin with {', '.join(_STATEMENTS)}")  # fmt: skip
            self.take("end", "the end of the line")
        if not self.outputs:
            self.fail(self.tokens[-1], "a program without outputs", "add a line such as: output q = Moment(x*x)")
        return Program(self.outputs)

    def new(self, table: Mapping[str, Any], token: _Token) -> str:
        if token.text in table:
            self.fail(token, f"{token.text} has been defined before", "choose another name", why="assignment is single")
        return token.text

    def assign(self, name: _Token) -> None:
        self.new(self.values, name)
        self.take("=")
        x = self.sum()
        if x.op not in LEAVES and not x.label:
            x.label = name.text
        self.values[name.text] = x

    def declare_output(self, name: _Token) -> None:
        self.new(self.outputs, name)
        axes: list[str] = []
        if self.accept("["):
            axes = self.separated("]", lambda: self.string() if self.next.kind == "string" else self.take("name", "an axis").text)
        self.take("=")
        at = self.next
        x = self.sum()
        if len(axes) != len(x.shape) or len(set(axes)) != len(axes):
            self.fail(name, f"output {name.text} has {len(x.shape)} axes and the names {axes}", "give each of its axes its own name")
        if not x.is_scalar:
            self.checked(at, Program, {name.text: Output(x, tuple(axes))})
        self.outputs[name.text] = Output(x, tuple(axes))

    def declare_width(self, name: _Token) -> None:
        self.new(self.widths, name)
        ratio: Number = 1
        if self.accept(":"):
            self.word("ratio")
            ratio = self.number()
        self.widths[name.text] = self.checked(name, Width, name.text, ratio)

    def declare_matrix(self, name: _Token) -> None:
        self.new(self.matrices, name)
        self.take(":")
        rows = self.width()
        self.word("x")
        cols = self.width()
        var: Number = 1
        entries = None
        while self.accept(","):
            if self.word("var", "entries").text == "var":
                var = self.number()
            else:
                entries = self.law()
        self.matrices[name.text] = self.checked(name, Matrix, name.text, rows, cols, var, entries, self.source(name))

    def declare_vector(self, name: _Token) -> None:
        self.new(self.values, name)
        sizes: list[tuple[int, int]] = self.separated("]", self.size) if self.accept("[") else []
        if [p for p, _ in sizes] != list(range(len(sizes))) or math.prod([k for _, k in sizes]) > MAX_SIZE:
            self.fail(name, f"the axes of vector {name.text} are {sizes}", f"write [i:3, j:4] in this order, {MAX_SIZE} entries at most")
        self.take(":")
        width = self.width()
        options: dict[str, Any] = {}
        while self.accept(","):
            attribute = self.word("mean", "var", "cov", "rademacher", "uniform", "scipy")
            key = attribute.text if attribute.text in ("mean", "var", "cov") else "distribution"
            if key in options:
                self.fail(attribute, f"a second {key}", "give one")
            if key == "distribution":
                self.position -= 1
                options[key] = self.law()
            else:
                options[key] = self.number() if key == "var" else self.value()
        axes = {letter(p): k for p, k in sizes}
        x = self.checked(name, Vector, name.text, width, axes=axes, **options)
        self.values[name.text] = self.node(name, lambda: x.node)

    def declare_scalar(self, name: _Token) -> None:
        self.new(self.values, name)
        real, default = name.text, None
        while self.accept(":") or self.accept(","):
            if self.word("name", "default").text == "name":
                real = self.take("name", "a name").text
            else:
                default = self.number()
        self.values[name.text] = self.node(name, algebra.hyperparameter, real, default)

    def declare_array(self, name: _Token) -> None:
        self.new({**self.arrays, **self.values}, name)
        self.take(":")
        kind = self.word(*_KINDS).text
        self.take(",")
        self.word("shape")
        self.take("(")
        shape = tuple(self.separated(")", lambda: self.integer(self.take("number", "a size"))))
        self.take(",")
        self.word("sha")
        sha = self.string()
        if math.prod(shape) == 0 and kind != "rational":
            found: Any = np.zeros(shape, kind)
        elif name.text not in self.given:
            self.fail(name, f"array {name.text} is not given", "pass arrays=program.arrays, or use tp.save and tp.load",
                      why="the text names large arrays and does not contain them")  # fmt: skip
        else:
            found = np.asarray(self.given[name.text])
            if found.dtype.kind == "U" and kind == "rational" and found.shape == shape:  # as `save` writes them
                entries = [self.checked(name, lambda s: number(Fraction(s[: 2 * MAX_DIGITS])), str(v)) for v in found.ravel()]
                found = np.array([*entries, None], dtype=object)[:-1].reshape(shape)
        if found.dtype.kind != _KINDS[kind] or found.shape != shape or fingerprint(found) != sha:
            self.fail(name, f"array {name.text} is not the one the text was written with ({found.dtype}, shape {found.shape})",
                      f"give the one with {kind}, shape {shape}, sha {sha}")  # fmt: skip
        found = found.copy()
        found.setflags(write=False)
        self.arrays[name.text] = found

    # ---- parts of statements --------------------------------------------------------------------------------------------
    def separated(self, closing: str, item: Callable[[], Any]) -> list[Any]:
        """Items with commas between them, up to a closing bracket."""
        out: list[Any] = []
        while not self.accept(closing):
            if out:
                self.take(",", f"',' or '{closing}'")
            out.append(item())
        return out

    def width(self) -> Width:
        width: Width = self.lookup(self.widths, self.take("name", "a width"), "width")
        return width

    def string(self) -> str:
        token = self.take("string", 'a name in "quotes"')
        try:
            return str(json.loads(token.text))
        except ValueError:
            self.fail(token, f"the string {token.text}", "escape it as in JSON")

    def law(self) -> Any:
        token = self.word("rademacher", "uniform", "scipy")
        if token.text != "scipy":
            return token.text
        name = self.take("name", "a distribution of scipy.stats")
        import scipy.stats

        family = getattr(scipy.stats, name.text, None)
        if not isinstance(family, (scipy.stats.rv_continuous, scipy.stats.rv_discrete)):
            self.fail(name, f"scipy.stats has no distribution {name.text!r}", "name one, such as laplace")
        positional: list[Number] = []
        named: dict[str, Number] = {}

        def argument() -> None:
            token = self.next
            if token.kind == "name":
                self.position += 1
                self.take("=")
                named[token.text] = self.number()
            else:
                positional.append(self.number())

        self.take("(")
        self.separated(")", argument)
        return self.checked(name, lambda: family(*positional, **named))

    def integer(self, token: _Token) -> int:
        value = self.literal(token)
        if not isinstance(value, int):
            self.fail(token, f"{token.text} is no integer", "write an integer")
        return value

    def literal(self, token: _Token) -> int | float:
        if len(token.text) > MAX_DIGITS:
            self.fail(token, f"a number of {len(token.text)} digits", f"at most {MAX_DIGITS} are read")
        value = int(token.text) if token.text.isdigit() else float(token.text)
        if value == math.inf:
            self.fail(token, f"{token.text} is too large", "use a finite number")
        return value

    def number(self) -> Number:
        sign = -1 if self.accept("-") else 1
        value: Number = self.literal(self.take("number", "a number"))
        if slash := self.accept("/"):
            below = self.literal(self.take("number", "a number"))
            if below == 0:
                self.fail(slash, "a division by 0", "divide by something else")
            value = number(Fraction(value) / below) if isinstance(value, int) and isinstance(below, int) else value / below
        return sign * value

    def value(self) -> Any:
        """A number, or an array written in place or by name."""
        if self.next.kind == "[":
            return self.list()
        if token := self.accept("name"):
            return self.rational() if token.text == "rational" else self.lookup(self.arrays, token, "array")
        return self.number()

    def rational(self) -> np.ndarray:
        self.take("(")
        a = self.list()
        self.take(")")
        return a if a.dtype == object else a.astype(object)

    def list(self) -> np.ndarray:
        """Nested lists of numbers: int64, float64, or object where there is a rational."""
        start = self.next
        flat: list[Number] = []

        def read(depth: int) -> tuple[int, ...]:
            if depth > MAX_AXES:
                self.fail(start, f"a list nested deeper than {MAX_AXES}", "use fewer axes")
            if not self.accept("["):
                flat.append(self.number())
                return ()
            shapes = self.separated("]", lambda: read(depth + 1))
            if not shapes or len(set(shapes)) > 1:
                self.fail(start, "a list whose parts differ in shape, or an empty one", "write it like [[1, 2], [3, 4]]")
            return (len(shapes), *shapes[0])

        shape = read(0)
        exact = not any(isinstance(v, float) for v in flat)
        small = all(isinstance(v, int) and -(2**63) <= v < 2**63 for v in flat)
        dtype = (np.int64 if small else object) if exact else float
        return np.array([*flat, 0], dtype=dtype)[:-1].reshape(shape)

    def size(self) -> tuple[int, int]:
        position = self.axis()
        self.take(":")
        return position, self.integer(self.take("number", "a size"))

    def axis(self) -> int:
        token = self.take("name", "an axis: i, j, k, ...")
        position = _letter_position(token.text)
        if position is None or position >= MAX_AXES:
            self.fail(token, f"{token.text} is no axis", "axes are called i, j, k, ... by position")
        return position
