"""The source of a program compiled, where numba is installed, kept on disk, and called with what it needs."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import math
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tensorprog.language.node import Node
from tensorprog.limits.fused.code import Code, as_code
from tensorprog.limits.fused.functions import EDGE, HELPERS, NEAR
from tensorprog.limits.gauss.correlations import WIDE
from tensorprog.limits.tasks import Declined

__all__ = ["Fused", "available", "interpreted"]

Array = np.ndarray
Tile = Callable[..., None]
LOADED, IMPORTED, COMPILED = 2**26, 2**30, 2**32
"""Operations from which it pays to load what is compiled, to import the compiler for that, and to compile: each is faster by some
half a nanosecond, and those three take about 0.03, 0.5 and 2 seconds."""
FILE = '''"""Written by tensorprog: a kernel as one loop, compiled by numba, which keeps what it compiles beside this file."""

from math import cos, exp, expm1, pi, sin, sqrt

import numba
import numpy as np

EDGE, NEAR = {edge!r}, {near!r}
OPTIONS = dict(nogil=True, error_model="numpy", fastmath={{"contract"}})

{helpers}
@numba.njit("({types})", cache={kept}, **OPTIONS)
{source}'''


@cache
def available() -> bool:
    """Is the compiler installed?"""
    return importlib.util.find_spec("numba") is not None


def interpreted(code: Code) -> Tile:
    """The source as plain Python: slow, for tests and readers."""
    names: dict[str, Any] = {"np": np, **{k: getattr(math, k) for k in ("sqrt", "exp", "sin", "cos")}}
    names |= {f.__name__: f for f in HELPERS}
    exec(code.source, names)  # our own source
    return names["tile"]


class Fused:
    """A program over pairs as one compiled loop.

    Args:
        code: Its source.

    Attributes:
        needs: The nodes along rows, columns or neither whose values a call is given.
    """

    def __init__(self, code: Code) -> None:
        self.code = code
        known = [x for side in code.outside.values() for o in side for x in o.nodes]
        known += [x for condition in code.conditions for pair in condition for x in pair]
        self.needs = [x for x in dict.fromkeys(known) if x.op != "constant"]
        self._done = 0.0
        self._tile: Tile | None = None

    @classmethod
    def of(cls, outputs: Sequence[Node]) -> Fused | None:
        """Of outputs over pairs; None without a compiler, and where an instruction has no source."""
        if not available():
            return None
        try:
            code = as_code(outputs)
        except Declined:
            return None
        return cls(code) if code.outputs else None

    def ready(self, pairs: int, wanted: bool | None) -> bool:
        """Is it compiled, or compiled now because that pays: by operations so far, never by time?

        Args:
            pairs: Of examples, in this call.
            wanted: Whether the user has asked for it.
        """
        if self._tile is not None:
            return wanted is not False
        self._done += float(pairs) * self.code.work
        if wanted is False:
            return False
        if not wanted:
            pays = COMPILED
            if self.is_kept:
                pays = LOADED if "numba" in sys.modules else IMPORTED
            if self._done < pays:
                return False
        self._tile = self._compiled()
        return True

    def fits(self, values: Mapping[Node, Array]) -> bool:
        """Do the closed forms have the form that was written?"""
        return all(
            any(np.max(_value(x, values), initial=0.0) <= WIDE * np.min(_value(s, values)) for x, s in condition)
            for condition in self.code.conditions
        )

    def arguments(
        self, values: Mapping[Node, Array], given: Mapping[Any, Array], out: Mapping[Node, Array], n: int, m: int
    ) -> tuple[Any, ...]:
        """What a tile is called with, after its bounds.

        Args:
            values: Of `needs`: (rows,), (columns,) or (), of size 1 where they do not vary.
            given: Attribute of each `data` node to its array, (rows, columns).
            out: Where the outputs go: (rows, columns), contiguous.
            n: Rows.
            m: Columns.
        """
        sides = [self._side(side, values, tail) for side, tail in (("R", (n,)), ("C", (m,)), ("S", ()))]
        data = [_full(given[x.attr], (n, m)) for x in self.code.data]
        return (*sides, *data, *[out[x] for x in self.code.outputs])

    def tile(self, bounds: tuple[int, int, int, int], arguments: tuple[Any, ...]) -> None:
        """Fills in rows low to high, columns left to right, of the outputs."""
        assert self._tile is not None
        self._tile(*bounds, *arguments)

    def _side(self, side: str, values: Mapping[Node, Array], tail: tuple[int, ...]) -> Array:
        parts = [np.broadcast_to(o.array([_value(x, values) for x in o.nodes]), tail) for o in self.code.outside[side]]
        return np.stack(parts) if parts else np.zeros((1, *tail))

    # ---- compiled ----
    @property
    def is_kept(self) -> bool:
        """Has it been compiled before, and is it on disk?"""
        return self._path.with_suffix(".ok").exists()

    def _text(self, kept: bool) -> str:
        """The file: it needs nothing of this package, so that what it is compiled to is never out of date."""
        arrays = ["float64[:, ::1]"] * 2 + ["float64[::1]"]
        arrays += ["float64[:, ::1]"] * (len(self.code.data) + len(self.code.outputs))
        helpers = "".join([f"\n@numba.njit(**OPTIONS)\n{inspect.getsource(f)}\n" for f in HELPERS])
        return FILE.format(
            edge=EDGE,
            near=NEAR,
            helpers=helpers,
            kept=kept,
            types=", ".join(["int64"] * 4 + arrays),
            source=self.code.source,
        )

    @cached_property
    def _path(self) -> Path:
        """Where it is kept, by content."""
        text = self._text(True)
        return folder() / f"tensorprog_tile_{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}.py"

    def _compiled(self) -> Tile:
        """By numba; from disk, where it has been there before, and where there is a disk to write to."""
        path = self._path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                handle, name = tempfile.mkstemp(dir=path.parent, suffix=".py")
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    file.write(self._text(True))
                Path(name).replace(path)
            spec = importlib.util.spec_from_file_location(path.stem, path)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[path.stem] = module  # what was compiled before looks for it there
            spec.loader.exec_module(module)
            path.with_suffix(".ok").touch()
            return module.tile
        except OSError:
            names: dict[str, Any] = {}
            exec(self._text(False), names)  # our own source
            return names["tile"]


def folder() -> Path:
    """Where compiled kernels are kept: TENSORPROG_CACHE, or the user's cache."""
    given = os.environ.get("TENSORPROG_CACHE")
    base = Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tensorprog"
    return base / f"kernels-numba-{version('numba')}"


def _full(a: Array, shape: tuple[int, ...]) -> Array:
    """An array of that shape in one piece, writeable, as compiled functions want it."""
    if a.shape == shape and a.dtype == float and a.flags.c_contiguous and a.flags.writeable:
        return a
    return np.array(np.broadcast_to(a, shape), dtype=float, order="C")


def _value(x: Node, values: Mapping[Node, Array]) -> Array:
    return np.asarray(x.attr, dtype=float) if x.op == "constant" else np.asarray(values[x], dtype=float)
