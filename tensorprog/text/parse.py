"""Reads the text of a program, which `show.py` writes. No code is executed: tokens, grammar, constructors.

    program   = { statement }                   one a line; an indented line continues the one before; # comments
    statement = "width" NAME [ ":" "ratio" number ]
              | "matrix" NAME ":" NAME "x" NAME { "," ( "var" number | "entries" law | "share" number | "std" sum ) }
              | "vector" NAME [ "[" size { "," size } "]" ] ":" NAME
                         { "," ( "mean" value | "var" value | "cov" value | law | "trained"
                               | "lr" number | "std" sum
                               | "name" NAME | "data" value | "coordinates" value ) }
              | "scalar" NAME [ "[" size { "," size } "]" ] [ ":" [ "name" NAME "," ] [ "default" value ] ]
              | "array" NAME ":" ( "float64" | "int64" | "rational" )
                         "," "shape" "(" INT { "," INT } ")" "," "sha" STRING
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
    call      = ( "MatMul" "(" NAME [ "." "T" ] "," sum [ "," ( "forward" | "backward" ) ]    (NAME: a matrix, or the line of one)
              | ( "Nonlin" | "Moment" | "OuterNonlin" ) "(" sum
              | ( "sum" | "softmax" ) "(" sum "," LETTER | "stack" "(" LETTER { "," sum } | "inverse_sqrt" "(" NAME
              | "difference" "(" FUNCTION "," sum "," sum "," sum { "," number }
              | "pick" "(" sum "," LETTER "," ( list | NAME )             (list: positions; NAME: an array of them)
              | "rational" "(" list | FUNCTION "(" sum { "," number } ) ")"

FUNCTION is a row of `functions.py`. A name is used after the line that assigns it. Everything is rebuilt by the
constructors of `algebra.py` and checked as if it had been built in Python; names of lines become labels. Nesting, sizes
and the length of numbers are bounded, so that no text can take long. What brackets mean is in `show.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.language import algebra
from tensorprog.language.data import ArrayData, Embedding
from tensorprog.language.expression import Expression
from tensorprog.language.leaves import Vector
from tensorprog.language.matrix import Matrix
from tensorprog.language.node import Node
from tensorprog.language.program import Output, Program
from tensorprog.language.symbols import Number, Width, number
from tensorprog.text.expressions import Expressions
from tensorprog.text.literals import fingerprint, letter
from tensorprog.text.show import LEAVES
from tensorprog.text.tokens import Token
from tensorprog.text.values import MAX_DIGITS, MAX_SIZE

__all__ = ["parse"]

MAX_CHARACTERS = 50_000_000
_STATEMENTS = ("width", "matrix", "vector", "scalar", "array", "output")
_LAWS = ("rademacher", "uniform", "scipy")
_OF_VECTORS = ("mean", "var", "cov", "data", "coordinates", "name", "trained", "lr", "std", *_LAWS)
_KINDS = {"float64": "f", "int64": "i", "rational": "O"}


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
        raise TensorProgramError(
            f"a program's text is a string, not {type(text).__name__}", fix="to read a file use tp.load(path)"
        )
    if len(text) > MAX_CHARACTERS:
        raise TensorProgramError(f"a text of {len(text)} characters", fix=f"at most {MAX_CHARACTERS} are read")
    return _Parser(text, arrays or {}, file).program()


def _rational(text: str) -> Number:
    return number(Fraction(text[: 2 * MAX_DIGITS]))


class _Parser(Expressions):
    def __init__(self, text: str, arrays: Mapping[str, Any], file: str) -> None:
        super().__init__(text, file)
        self.given = arrays
        self.outputs: dict[str, Output] = {}

    # ---- statements ----
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

    def new(self, table: Mapping[str, Any], token: Token) -> str:
        if token.text in table:
            self.fail(token, f"{token.text} has been defined before", "choose another name", why="assignment is single")
        return token.text

    def assign(self, name: Token) -> None:
        self.new(self.values, name)
        self.take("=")
        x = self.sum()
        if x.op not in LEAVES and not x.label:
            x.label = name.text
        self.values[name.text] = x

    def declare_output(self, name: Token) -> None:
        self.new(self.outputs, name)
        axes: list[str] = []
        if self.accept("["):
            axes = self.separated(
                "]", lambda: self.string() if self.next.kind == "string" else self.take("name", "an axis").text
            )
        self.take("=")
        at = self.next
        x = self.sum()
        if len(axes) != len(x.shape) or len(set(axes)) != len(axes):
            self.fail(
                name,
                f"output {name.text} has {len(x.shape)} axes and the names {axes}",
                "give each of its axes its own name",
            )
        if not x.is_scalar:
            self.checked(at, Program, {name.text: Output(x, tuple(axes))})
        self.outputs[name.text] = Output(x, tuple(axes))

    def declare_width(self, name: Token) -> None:
        self.new(self.widths, name)
        ratio: Number = 1
        if self.accept(":"):
            self.word("ratio")
            ratio = self.number()
        self.widths[name.text] = self.checked(name, Width, name.text, ratio)

    def declare_matrix(self, name: Token) -> None:
        self.new(self.matrices, name)
        self.take(":")
        rows = self.width()
        self.word("x")
        cols = self.width()
        var: Number = 1
        entries = None
        share: Number = 1
        std = None
        while self.accept(","):
            match self.word("var", "entries", "share", "std").text:
                case "var":
                    var = self.number()
                case "entries":
                    entries = self.law()
                case "share":
                    share = self.number()
                case _:
                    std = self.deviation(name)
        self.matrices[name.text] = self.checked(
            name, Matrix, name.text, rows, cols, var, entries, self.source(name), share, std
        )

    def deviation(self, name: Token) -> Node:
        """The hyperparameter that multiplies weights."""
        std = self.sum()
        if not std.is_scalar or std.shape:
            self.fail(name, f"the std of {name.text} is no scalar", "give a hyperparameter, declared before")
        return std

    def declare_vector(self, name: Token) -> None:
        self.new(self.values, name)
        sizes = self.sizes("vector", name)
        self.take(":")
        width = self.width()
        options: dict[str, Any] = {}
        while self.accept(","):
            attribute = self.word(*_OF_VECTORS)
            key = "distribution" if attribute.text in _LAWS else attribute.text
            if key in options:
                self.fail(attribute, f"a second {key}", "give one")
            if key == "distribution":
                self.position -= 1
                options[key] = self.law()
            elif key in ("name", "trained"):
                options[key] = key == "trained" or self.take("name", "a name").text
            elif key == "std":
                options[key] = self.deviation(name)
            else:
                options[key] = self.number() if key == "lr" else self.value()
        real, trained = options.pop("name", name.text), options.pop("trained", False)
        if "data" in options or "coordinates" in options:
            spec = self.embedding(name, real, width, tuple([k for _, k in sizes]), trained, options)
            self.values[name.text] = self.node(name, algebra.initial, spec)
            return
        axes = {letter(p): k for p, k in sizes}
        if "std" in options:
            options["std"] = Expression(options["std"])
        x = self.checked(name, Vector, real, width, axes=axes, trainable=trained, **options)
        self.values[name.text] = self.node(name, lambda: x.node)

    def embedding(
        self, at: Token, name: str, width: Width, shape: tuple[int, ...], trained: bool, options: Mapping[str, Any]
    ) -> Embedding:
        """The initial vectors U x of the rows x of some data."""
        var, data = options.get("var", 1), options.get("data")
        coordinates = options.get("coordinates", data)
        extra = set(options) - {"var", "data", "coordinates", "std"}
        if extra or data is None:
            what = f"has data, and {sorted(extra)[0]}" if extra else "has coordinates of no data"
            self.fail(at, f"vector {at.text} {what}", "data go with var, coordinates, name, trained and std alone")
        for a in (data, coordinates):
            given = np.shape(a)
            if given[:-1] != shape or not given or given[-1] == 0 or a.dtype == object or not np.isfinite(a).all():
                self.fail(
                    at,
                    f"the data of vector {at.text} have shape {given}; its axes have {shape}",
                    "give finite integers or floats of the shape (*axes, features)",
                )
        if np.ndim(var) or var < 0:
            self.fail(at, f"vector {at.text} has variance {var}", "of data, it is one number, at least 0")
        return Embedding.of(name, width, var, ArrayData(data, coordinates), trained, options.get("std"))

    def sizes(self, what: str, name: Token) -> list[tuple[int, int]]:
        """The axes of a declaration, [i:3, j:4]."""
        sizes: list[tuple[int, int]] = self.separated("]", self.size) if self.accept("[") else []
        if [p for p, _ in sizes] != list(range(len(sizes))) or math.prod([k for _, k in sizes]) > MAX_SIZE:
            self.fail(
                name,
                f"the axes of {what} {name.text} are [{', '.join([f'{letter(p)}:{k}' for p, k in sizes])}]",
                f"write [i:3, j:4] in this order, {MAX_SIZE} entries at most",
            )
        return sizes

    def declare_scalar(self, name: Token) -> None:
        self.new(self.values, name)
        shape = tuple([k for _, k in self.sizes("scalar", name)])
        real = name.text
        default: Any = None
        while self.accept(":") or self.accept(","):
            if self.word("name", "default").text == "name":
                real = self.take("name", "a name").text
            else:
                default = self.value()
        if np.shape(default) not in ((), shape):
            self.fail(name, f"the default of {name.text} has shape {np.shape(default)}", f"its axes have {shape}")
        self.values[name.text] = self.node(name, algebra.hyperparameter, real, default, shape)

    def declare_array(self, name: Token) -> None:
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
                entries = [self.checked(name, _rational, str(v)) for v in found.ravel()]
                found = np.array([*entries, None], dtype=object)[:-1].reshape(shape)
        if found.dtype.kind != _KINDS[kind] or found.shape != shape or fingerprint(found) != sha:
            what = f"array {name.text} is not the one the text was written with"
            self.fail(name, f"{what}: {found.dtype}, shape {found.shape}", f"give {kind}, shape {shape}, sha {sha}")
        found = found.copy()
        found.setflags(write=False)
        self.arrays[name.text] = found

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
