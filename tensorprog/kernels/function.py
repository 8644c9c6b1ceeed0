"""`kernel_fn`: the kernels of a network as a function of data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tensorprog.errors import MissingAxis, TensorProgramError
from tensorprog.kernels.compile import compile_pair, known_values
from tensorprog.kernels.request import Request
from tensorprog.kernels.results import Results
from tensorprog.kernels.routes import How, Part, checked
from tensorprog.kernels.whole import Whole, by_program
from tensorprog.language.functions import TINY
from tensorprog.limits.budget import Budget
from tensorprog.limits.pairs.accuracy import Measured
from tensorprog.limits.pairs.compiled import SAMPLED, Compiled
from tensorprog.limits.pairs.inner_products import GramProducts, Products
from tensorprog.limits.pairs.pairs import COUNTED
from tensorprog.limits.tasks import Exhausted
from tensorprog.networks.inputs import EXAMPLE
from tensorprog.networks.network import Network
from tensorprog.networks.samples import Batch, batches, same_features
from tensorprog.progress import progress_bar
from tensorprog.transforms.parametrization import parametrization as named

__all__ = ["KernelFunction", "kernel_fn"]

SHARE = 8
"""How much less than quadrature an integral may cost that is sampled anyway: the population samples, too, with fewer numbers."""
REMEMBERED = 16
"""Sets of numbers for hyperparameters that kernels are kept compiled for."""


def kernel_fn(
    network: Network,
    parametrization: str = "ntk",
    width: int | None = None,
    gia: bool = False,
    *,
    method: str = "auto",
    tol: float | None = None,
    budget: float = 1,
    fast: bool | None = None,
) -> KernelFunction:
    """The infinite-width kernels of a network as a function of data.

    Args:
        network: The network.
        parametrization: `"ntk"`, `"tp"` or `"standard"`, see `transforms/parametrization.py`.
        width: The reference width, for `"standard"`, whose kernel grows with it.
        gia: Under gradient independence.
        method: `"exact"`: closed forms and integrals; `"population"`: samples, as for `tp.limit`; `"auto"`: exact, and where
            that declines, costs more than the budget or is not as good as `tol`, what comes next. `note` of the result says why.
        tol: How large an error of an entry K(x, x') may be, in units of sqrt(K(x, x) K(x', x')), before another route is
            tried; if none is as good, the best one answers with an `AccuracyWarning`. By default a warning is given
            from 1e-2. (Closed forms that lose three digits give way to integrals in any case.)
        budget: How many times the usual work the exact route may cost: evaluations of integrands, terms.
        fast: Kernels of vectors as compiled code, with the `fast` extra: True from the first call on, which takes seconds once
            (what is compiled is kept in the user's cache, or in the folder TENSORPROG_CACHE); False never; by default from where
            it pays, by a count of operations. The digits are the same to rounding.

    Returns:
        A function `f(X1, X2=None, get=("nngp", "ntk"))`, see `KernelFunction`.

    Example:
        >>> import tensorprog as tp
        >>> x, n = tp.Input("x"), tp.Width("n")
        >>> net = tp.Network(tp.readout("v", tp.relu(tp.dense("U", x, n, W_std=2**0.5))))
        >>> f = tp.kernel_fn(net)
        >>> f([[1.0, 1.0]], [[1.0, 1.0], [1.0, -1.0]], get="ntk")
        array([[2.        , 0.31830989]])
        >>> f([[1.0, 1.0]]).method
        {'nngp': 'closed form', 'ntk': 'closed form'}

    Source: Tensor Programs II (arXiv:2006.14548), theorem 2.1; Jacot et al. 2018 for the multilayer perceptron.
    """
    if not isinstance(network, Network):
        raise TensorProgramError(
            f"kernel_fn of {type(network).__name__}", fix="give a tp.Network; of a Program take tp.limit"
        )
    return KernelFunction(network, parametrization, width, gia, method, tol, budget, fast)


class KernelFunction:
    """The kernels of a network; made by `kernel_fn`, called with data.

    It compiles the network once for each pair of shapes of examples. A call measures errors on telling pairs of examples
    (`limits/pairs/accuracy.py`), chooses a route by them and by its cost, and evaluates closed forms and integrals for all pairs,
    tile by tile, on all cores. Diagonals come from the program of one example and are exact to rounding. Networks that
    mix the examples of a batch (batch normalisation), and what has no exact route, go through `tp.limit` of the program.
    """

    def __init__(
        self,
        network: Network,
        parametrization: str,
        width: int | None,
        gia: bool,
        method: str = "auto",
        tol: float | None = None,
        budget: float = 1,
        fast: bool | None = None,
    ) -> None:
        self.network, self.gia = network, gia
        self.scheme = named(parametrization, width)
        self.how = How.of(method, tol, budget, fast)
        self._compiled: dict[Any, dict[Any, Compiled | str]] = {}  # by numbers for hyperparameters, by shapes

    def __getstate__(self) -> dict[str, Any]:
        """What is compiled is compiled again."""
        return {**self.__dict__, "_compiled": {}}

    def __repr__(self) -> str:
        scheme = self.scheme.name if self.scheme.width is None else f"{self.scheme.name}, width {self.scheme.width}"
        return f"kernel_fn({self.network!r}, {scheme}{', gia' if self.gia else ''}{self.how.changed})"

    def _content(self) -> tuple[Any, ...]:
        return self.network, self.scheme.name, self.scheme.width, self.gia, self.how

    def __eq__(self, other: object) -> bool:
        """Is it of an equal network, with the same settings?"""
        return isinstance(other, KernelFunction) and self._content() == other._content()

    def __hash__(self) -> int:
        return hash(self._content())

    def __call__(
        self,
        X1: Any = None,
        X2: Any = None,
        get: str | Sequence[str] = ("nngp", "ntk"),
        *,
        gram: Any = None,
        dtype: Any = np.float64,
        out: str | Path | None = None,
        progress: bool | None = None,
        rng: int = 0,
        values: Mapping[str, Any] | None = None,
    ) -> Any:
        """The kernels of two batches.

        Args:
            X1: Data, as for `Network.program`: an array (examples, *axes, features), a list of arrays, a dictionary.
            X2: A second batch, for the columns; X1 by default.
            get: `"nngp"`, `"ntk"`, `"ntk_NAME"` (the part of one parameter), or several of them.
            gram: In place of data without axes: the matrix of x.x'/d, (N, N); or (K11, K12, K22) for two batches, where of
                K11 and K22 the diagonals will do. Examples are the same if x.x' = x.x = x'.x' to the last bit.
            dtype: float64, or float32: half the memory. Blocks are computed in float64 and rounded.
            out: A folder for memory-mapped results `nngp.npy`, ..; an interrupted call goes on where it stopped.
            progress: Whether to show a progress bar; by default on a terminal only.
            rng: Seeds what has to be sampled.
            values: Numbers for the network's `tp.Scalar`s; their defaults where they have some. What is compiled for some
                numbers is kept for the next call with them.

        Returns:
            A named tuple of arrays (len(X1), len(X2)), for several outputs with two more axes; the bare array if `get` is one
            name. The tuple's `error` maps names to the largest error of an entry, as measured on telling pairs of examples,
            `method` and `kind` to how it was computed and what the error means; printing shows them.

        Raises:
            TensorProgramError: data that makes no sense; a kernel that is infinite, or of which no digit is known.
            AccuracyWarning: (warning) a kernel that is not as good as `tol`.
        """
        given = {"X1": X1, "X2": X2, "gram": gram, "out": out, "progress": progress, "rng": rng, "values": values}
        ask = Request.of(get, dtype, **given)
        pairs = self._of_data(ask) if gram is None else self._of_gram(ask)
        why = pairs.why
        over_budget = "budget=" in why  # expansions
        if not why:
            why = self.how.too_dear(sum([p.evaluations for p in pairs.parts])) or self._measure(pairs.parts, ask.names)
            over_budget = bool(why)
            if over_budget and self.how.method == "exact":
                raise TensorProgramError(
                    "the exact route has no kernel", why=why, fix='raise budget=, or use method="auto"'
                )
        if why:
            ask.refuse_whole(why)
            return self._whole(ask, why if over_budget else "")
        measured = reduce(Measured.joined, [p.measured for p in pairs.parts])
        if pairs.strained and (measured.tiny or not measured.finite) and not ask.only_pairs:  # or 1/inf is 0
            return self._whole(ask)
        better, note = self._sampled(ask, measured)
        if better is not None:
            return self._checked(ask, better)
        try:
            arrays = self._in_blocks(ask, pairs)
        except Exhausted as error:
            if self.how.method == "exact" or ask.only_pairs:
                raise TensorProgramError(
                    "the exact route has no kernel", why=error.reason, fix="raise budget="
                ) from None
            return self._whole(ask, error.reason)
        return self._answered(ask, pairs, measured, arrays, note)

    # ---- pairs of examples ----
    def _of_data(self, ask: Request) -> Prepared:
        """The batches, and their kernels compiled, or why the exact route has none."""
        X1, X2 = ask.X1, ask.X2
        if any(isinstance(X, tuple) and all(isinstance(k, (int, np.integer)) for k in X) for X in (X1, X2)):
            raise TensorProgramError(
                "data for a kernel is a tuple of integers",
                why="a shape stands for random data in Network.program; a kernel of random data is a surprise",
                fix="give an array with one row for each example: [[1, 2], [3, 4]]",
            )
        if X1 is None and self.network.needs_data:
            raise TensorProgramError(
                "a kernel without data", fix="give X1, an array (examples, ..., features); or gram="
            )
        first = batches(self.network.inputs, X1, self.network.source)
        second = first if X2 is None else batches(self.network.inputs, X2, self.network.source)
        same_features(first, second)
        found = Prepared(first, second)
        if self.how.method == "population":
            return found._replace(why='method="population"')
        parts = []
        for i, a in enumerate(first):
            for j, b in enumerate(second):
                if X2 is None and j < i:
                    continue
                compiled = self._compile(a, b, ask)
                same = X2 is None and a is b
                if isinstance(compiled, str):
                    return found._replace(why=compiled)
                if compiled.declined:
                    n, m = len(a.places), len(b.places)
                    dear = self.how.too_dear(SHARE * compiled.evaluations(n * (n + 1) // 2 if same else n * m, n))
                    return found._replace(why=dear if dear and compiled.declined == SAMPLED else compiled.declined)
                products = Products(a.arrays, None if same else b.arrays, np.float64)
                parts.append(Part(a, b, products, X2 is None and not same, compiled, self.how.fast))
        return found._replace(parts=parts)

    def _of_gram(self, ask: Request) -> Prepared:
        """As `_of_data`, of inner products that are given."""
        wanted = [x for x in self.network.inputs if x.value is None]
        why = (
            "data is given, too" if ask.X1 is not None or ask.X2 is not None
            else "it stands for the data of one input" if len(wanted) != 1 or len(self.network.inputs) != 1
            else "its features are not known, and in standard parametrization the kernel depends on their number"
            if self.scheme.name == "standard"
            else "the axes of the input have positions, which it does not know" if wanted[0].axis_names
            else "samples are drawn for data" if self.how.method == "population"
            else ""
        )  # fmt: skip
        if why:
            raise TensorProgramError("gram= in place of data", why=why, fix="give the data")
        products = GramProducts(ask.gram, wanted[0].key, np.float64)
        shapes = {wanted[0].key: (1,)}
        one, two = [Batch({}, {}, tuple(range(k))) for k in products.counts]
        compiled = self._compile_shapes(shapes, shapes, ask)
        found = Prepared([one], [two])
        if isinstance(compiled, str) or compiled.declined:
            return found._replace(why=compiled if isinstance(compiled, str) else compiled.declined)
        return found._replace(parts=[Part(one, two, products, False, compiled, self.how.fast)])

    def _compile(self, a: Batch, b: Batch, ask: Request) -> Compiled | str:
        first, second = [{k: v.shape[1:] for k, v in batch.arrays.items()} for batch in (a, b)]
        return self._compile_shapes(first, second, ask, (a, b))

    def _compile_shapes(
        self, first: Any, second: Any, ask: Request, parts: tuple[Batch, Batch] | None = None
    ) -> Compiled | str:
        """The kernels of two shapes, or why there are none of one pair of examples."""
        shapes, names, values = (first, second), ask.names, ask.values
        key = (tuple([tuple(sorted(s.items())) for s in shapes]), names)
        known = self._known(values)
        if key not in known:
            try:
                known[key] = compile_pair(
                    self.network, first, second, names, self.scheme, self.gia, self.how.budget, values
                )
            except TensorProgramError as error:
                # What has no meaning for one example may have one for a batch: a layer along the axis of the examples.
                if not (isinstance(error, MissingAxis) and error.axis == EXAMPLE) and (
                    parts is None or not self._has_meaning(*parts, names, values)
                ):
                    raise
                known[key] = "it mixes the examples of a batch"
        return known[key]

    def _known(self, values: Any) -> dict[Any, Compiled | str]:
        """What has been compiled with some numbers for hyperparameters, of which few are remembered."""
        if not isinstance(values, Mapping):
            values = {}  # what is neither is refused when it is used
        key = tuple(sorted((str(k), type(v).__name__, repr(v)) for k, v in values.items()))
        if key not in self._compiled and len(self._compiled) >= REMEMBERED:
            del self._compiled[next(iter(self._compiled))]
        return self._compiled.setdefault(key, {})

    def _has_meaning(self, a: Batch, b: Batch, names: tuple[str, ...], values: Any) -> bool:
        try:
            program = self.network.program_of([a], [b], names, self.scheme)
            program.values(known_values(program, [self.network.body(x.data) for x in (a, b)], values))
        except TensorProgramError:
            return False
        return True

    def _measure(self, parts: Sequence[Part], names: tuple[str, ...]) -> str:
        """Measures errors, and counts from now on what integrals cost; why that is over the budget, if it is."""
        budget = Budget(COUNTED * self.how.budget)
        try:
            for part in parts:
                part.measure(names, budget)
        except Exhausted as error:
            return error.reason
        return ""

    def _in_blocks(self, ask: Request, pairs: Prepared) -> list[np.ndarray]:
        """All pairs, block by block.

        Raises:
            Exhausted: integrals cost more than the budget has.
        """
        parts = pairs.parts
        identity = "" if ask.out is None else _identity(parts[0], ask, pairs)
        several = parts[0].compiled.several
        with Results(ask.names, pairs.first, pairs.second, several, ask.dtype, ask.out, identity) as results:
            for part in parts:
                self._evaluate(part, results, ask.progress)
            results.check(self.network)
        return [results.arrays[k] for k in ask.names]

    def _evaluate(self, part: Part, results: Results, progress: bool | None) -> None:
        blocks = part.blocks
        shown = False if len(blocks) < 4 and progress is None else progress
        for rows, columns in progress_bar(blocks, shown=shown, unit="block", delay=2):
            if results.done(rows, columns):
                continue
            found = part.evaluated(rows, columns)
            mirror = part.mirror or (part.products.same and rows != columns)
            with np.errstate(over="ignore"):
                found = [x.astype(results.dtype, copy=False) for x in found]
            results.put(found, part.rows.places, part.columns.places, rows, columns, mirror)

    def _answered(self, ask: Request, pairs: Prepared, measured: Measured, arrays: list[np.ndarray], note: str) -> Any:
        """What all pairs have, with the errors that were measured on a few."""
        integrated = any(p.method == "quadrature" for p in pairs.parts)
        method, kind = ("quadrature", "bound") if integrated else ("closed form", "rounding")
        checked(ask.names, measured, self.how, dict.fromkeys(ask.names, method), self.network.source)
        if ask.bare:
            return arrays[0]
        rounding = 0.0 if ask.dtype == np.float64 else float(np.finfo(ask.dtype).eps)
        errors = {
            k: measured.error[k] + (rounding and rounding * float(np.abs(a).max(initial=0.0)))
            for k, a in zip(ask.names, arrays, strict=True)
        }
        notes = [*[p.note for p in pairs.parts], note]
        if pairs.strained and measured.tiny:
            notes.append("numbers below 2.2e-308 have lost digits: give data in place of gram=")
            errors, kind = {k: max(e, TINY) for k, e in errors.items()}, "bound"
        said = "; ".join(dict.fromkeys(filter(None, notes)))
        methods, kinds, everywhere = [dict.fromkeys(ask.names, text) for text in (method, kind, said)]
        return ask.answered(arrays, errors, methods, kinds, everywhere)

    # ---- all examples together ----
    def _whole(self, ask: Request, why: str = "") -> Any:
        """By the program of all examples; sampled, where a reason says why nothing else will do."""
        return self._checked(ask, by_program(self.network, self.scheme, self.gia, self.how, ask, why))

    def _checked(self, ask: Request, found: Whole) -> Any:
        checked(ask.names, found.measured, self.how, found.method, self.network.source)
        return found.answered(ask)

    def _sampled(self, ask: Request, measured: Measured) -> tuple[Whole | None, str]:
        """Samples, where closed forms and integrals are rough and samples are better; or what to say of them."""
        share = max(measured.visible.values())
        # samples do not see what is infinite
        if not (share > self.how.rough and measured.finite) or self.how.method != "auto" or ask.only_pairs:
            return None, ""
        why = f"closed forms and integrals have an error of {share:.0e}"
        try:
            found = by_program(self.network, self.scheme, self.gia, self.how, ask, why)
        except TensorProgramError as error:  # samples that were not asked for
            return None, f"a population has no answer: {str(error).splitlines()[0]}"
        return (found if found.share < share else None), ""


class Prepared(NamedTuple):
    """Two batches, and the kernels of their pairs.

    Attributes:
        first: The batches of the rows, each of one shape.
        second: Of the columns.
        parts: What is compiled for each two of them.
        why: Why the exact route has no kernels of pairs, where it has none.
    """

    first: list[Batch]
    second: list[Batch]
    parts: list[Part] = []  # noqa: RUF012
    why: str = ""

    @property
    def strained(self) -> bool:
        """Have numbers left the range of floats?"""
        return any(p.call.strained for p in self.parts)


def _identity(part: Part, ask: Request, pairs: Prepared) -> str:
    """What a folder of results is for: the network, the data, and how it is cut into blocks."""
    import hashlib

    from tensorprog.language.symbols import encode

    p = part.products
    data: list[Any]
    if isinstance(p, GramProducts):
        data = [p.same, p.products, *p.alone]
    else:
        data = [ask.X2 is None, *[b.key for b in (*pairs.first, *pairs.second)]]
    h = hashlib.blake2b(part.compiled.digest, digest_size=12)
    h.update(repr(part.blocks).encode())
    for x in data:
        h.update(x if isinstance(x, bytes) else encode(x))
    return h.hexdigest()
