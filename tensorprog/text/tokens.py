"""Tokens of a program's text, and errors that say line and column: what `parse.py` stands on."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from tensorprog.errors import Source, TensorProgramError

__all__ = ["Reader", "TextSource", "Token"]

_TOKEN = re.compile(
    r"(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<string>\"(?:[^\"\\]|\\.)*\")"
    r"|(?P<op>\*\*|[-+*/()\[\],:;='.])|(?P<space>[ \t\r]+|#.*)",
    re.ASCII,
)


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
class Token:
    """A word of the text, and where it stands."""

    kind: str  # number, name, string, end, or the operator itself
    text: str
    line: int
    column: int


class Reader:
    """The tokens of a text, one after another. An indented line continues the one before."""

    def __init__(self, text: str, file: str = "") -> None:
        self.rows = text.split("\n")
        self.file = file
        self.tokens: list[Token] = []
        self.position = 0
        self._tokenize()

    # ---- errors ----
    def source(self, at: Token) -> TextSource:
        """The place of a token, for errors."""
        return TextSource(self.file, at.line, at.column, self.rows[at.line - 1][:400])

    def fail(self, at: Token, what: str, fix: str, why: str = "") -> NoReturn:
        """Refuses the text."""
        raise TensorProgramError(what, why=why, fix=fix, source=self.source(at))

    def checked(self, at: Token, rule: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Calls what may refuse, and says where in the text it refused."""
        try:
            with np.errstate(all="ignore"):
                return rule(*args, **options)
        except TensorProgramError as e:
            raise TensorProgramError(e.what, why=e.why, fix=e.fix, source=self.source(at)) from None
        except (ArithmeticError, ValueError, TypeError) as e:
            self.fail(at, f"this has no value ({e})", "use finite numbers of moderate size")

    # ---- tokens ----
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
                self.tokens.append(Token("end", "the end of the line", last.line, last.column + len(last.text)))
            self._tokenize_row(row, k)
        last = self.tokens[-1] if self.tokens else Token("end", "", 1, 1)
        self.tokens.append(Token("end", "the end of the text", last.line, last.column + len(last.text)))

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
                here = Token("?", row[i], k, i + 1)
                self.fail(
                    here, f"the character {row[i]!r}", "names, numbers and + - * / ** ( ) [ ] , : ; = ' . are expected"
                )
            if kind != "space":
                text = row[i:end]
                self.tokens.append(Token(text if kind == "op" else kind, text, k, i + 1))
            i = end

    @property
    def next(self) -> Token:
        """The token to be read."""
        return self.tokens[self.position]

    def take(self, kind: str, expected: str = "") -> Token:
        """The next token, which must be of this kind."""
        token = self.next
        if token.kind != kind:
            shown = token.text if token.kind == "end" else repr(token.text[:40])
            self.fail(
                token, f"{shown} where {expected or repr(kind)} is expected", f"write {expected or repr(kind)} here"
            )
        self.position += 1
        return token

    def accept(self, kind: str, text: str | None = None) -> Token | None:
        """The next token if it is this one."""
        token = self.next
        if token.kind != kind or (text is not None and token.text != text):
            return None
        self.position += 1
        return token

    def word(self, *words: str) -> Token:
        """The next token, which must be one of these words."""
        token = self.next
        if token.kind != "name" or token.text not in words:
            self.take("?", " or ".join([f"{w!r}" for w in words]))
        self.position += 1
        return token

    def lookup(self, table: Mapping[str, Any], token: Token, what: str) -> Any:
        """What a name stands for."""
        if token.text not in table:
            near = difflib.get_close_matches(token.text, list(table), 1)
            fix = (
                f"did you mean {near[0]}?"
                if near
                else f"declare it first; there is {', '.join(sorted(table)[:8]) or 'none yet'}"
            )
            self.fail(token, f"{token.text} is no {what} here", fix)
        return table[token.text]

    def separated(self, closing: str, item: Callable[[], Any]) -> list[Any]:
        """Items with commas between them, up to a closing bracket."""
        out: list[Any] = []
        while not self.accept(closing):
            if out:
                self.take(",", f"',' or '{closing}'")
            out.append(item())
        return out
