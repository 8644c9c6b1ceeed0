"""`kernel_fn`: the kernels of a network as a function of data."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from math import isqrt, prod
from pathlib import Path
from typing import Any

import numpy as np

from tensorprog.errors import MissingAxis, TensorProgramError
from tensorprog.language.node import Node
from tensorprog.limits.batched import Batched, Block
from tensorprog.limits.perturb import NOISE, Perturbation
from tensorprog.networks.inputs import EXAMPLE
from tensorprog.networks.network import Network
from tensorprog.networks.pairs import Compiled, GramProducts, Products, compile_pair
from tensorprog.networks.results import Results
from tensorprog.networks.samples import Batch, batches, same_features
from tensorprog.transforms.dispatch import needs_data
from tensorprog.transforms.tangent import parametrization as named

__all__ = ["KernelFunction", "kernel_fn"]

BLOCK = 2**24
"""Inner products that are in memory together: pairs of examples, times those of positions."""
SAMPLED = 8
"""Rows on which errors are measured."""


def kernel_fn(
    network: Network, parametrization: str = "ntk", width: int | None = None, gia: bool = False
) -> KernelFunction:
    """The infinite-width kernels of a network as a function of data.

    Args:
        network: The network.
        parametrization: `"ntk"`, `"tp"` or `"standard"`, see `transforms/tangent.py`.
        width: The reference width, for `"standard"`, whose kernel grows with it.
        gia: Under gradient independence.

    Returns:
        A function `f(X1, X2=None, get=("nngp", "ntk"))`, see `KernelFunction`.

    Example:
        >>> import tensorprog as tp
        >>> x, n = tp.Input("x"), tp.Width("n")
        >>> net = tp.Network(tp.readout("v", tp.relu(tp.dense("U", x, n, W_std=2**0.5))))
        >>> f = tp.kernel_fn(net)
        >>> f([[1.0, 1.0]], [[1.0, 1.0], [1.0, -1.0]])
        Kernel(nngp=array([[1.        , 0.31830989]]), ntk=array([[2.        , 0.31830989]]))

    Source: Tensor Programs II (arXiv:2006.14548), theorem 2.1; Jacot et al. 2018 for the multilayer perceptron.
    """
    if not isinstance(network, Network):
        raise TensorProgramError(
            f"kernel_fn of {type(network).__name__}", fix="give a tp.Network; of a Program take tp.limit"
        )
    return KernelFunction(network, parametrization, width, gia)


class KernelFunction:
    """The kernels of a network; made by `kernel_fn`, called with data.

    It compiles the network once for each pair of shapes of examples. A call evaluates closed forms and integrals for all
    pairs, tile by tile, on all cores. Diagonals come from the program of one example and are exact to rounding. Networks that
    mix the examples of a batch (batch normalisation), and what has no exact route, go through `tp.limit` of the program.
    """

    def __init__(self, network: Network, parametrization: str, width: int | None, gia: bool) -> None:
        self.network, self.gia = network, gia
        self.scheme = named(parametrization, width)
        self._compiled: dict[Any, Compiled | None] = {}

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
    ) -> Any:
        """The kernels of two batches.

        Args:
            X1: Data, as for `Network.program`: an array (examples, *axes, features), a list of arrays, a dictionary.
            X2: A second batch, for the columns; X1 by default.
            get: `"nngp"`, `"ntk"`, `"ntk_NAME"` (the part of one parameter), or several of them.
            gram: In place of data without axes: the matrix of x.x'/d, (N, N); or (K11, K12, K22) for two batches.
            dtype: float64, or float32: half the memory.
            out: A folder for memory-mapped results `nngp.npy`, ..; an interrupted call goes on where it stopped.
            progress: Whether to show a progress bar; by default on a terminal only.
            rng: Seeds what has to be sampled.

        Returns:
            A named tuple of arrays (len(X1), len(X2)), for several outputs with two more axes; the bare array if `get` is one
            name. The tuple's `error` maps names to the largest error, found when asked for, `method` to how it was computed.

        Raises:
            TensorProgramError: data that makes no sense; a kernel that is infinite.
        """
        names = _names(get)
        dtype = _dtype(dtype)
        if gram is not None:
            return self._of_gram(X1, X2, gram, names, get, dtype, out, progress)
        if any(isinstance(X, tuple) and all(isinstance(k, (int, np.integer)) for k in X) for X in (X1, X2)):
            raise TensorProgramError(
                "data for a kernel is a tuple of integers",
                why="a shape stands for random data in Network.program; a kernel of random data is a surprise",
                fix="give an array with one row for each example: [[1, 2], [3, 4]]",
            )
        if X1 is None and needs_data(self.network):
            raise TensorProgramError(
                "a kernel without data", fix="give X1, an array (examples, ..., features); or gram="
            )
        first = batches(self.network.inputs, X1, self.network.source)
        second = first if X2 is None else batches(self.network.inputs, X2, self.network.source)
        same_features(first, second)
        pairs = [
            (a, b, X2 is None and a is b, self._compile(a, b, names))
            for i, a in enumerate(first)
            for j, b in enumerate(second)
            if X2 is not None or j >= i
        ]
        whole = next(
            (c.declined if c else "it mixes the examples of a batch" for *_, c in pairs if not _exact(c)), None
        )
        if whole is not None:
            if out is not None:
                raise TensorProgramError(
                    "out= for a network whose kernel is not computed in blocks",
                    why=whole,
                    fix="leave it out, and save the result: np.save",
                )
            return self._by_program(X1, X2, names, get, dtype, rng)
        identity = "" if out is None else _identity(pairs[0][3], [X2 is None, *[b.key for b in (*first, *second)]])
        with Results(names, first, second, self.network.several, dtype, out, identity) as results:
            checks: list[Callable[[], dict[str, float]]] = []
            for a, b, same, compiled in pairs:
                assert compiled is not None
                products = Products(a.arrays, None if same else b.arrays, dtype)
                self._evaluate(compiled, products, results, a, b, X2 is None and not same, progress)
                checks.append(lambda c=compiled, p=products: self._errors(c, p, names))  # type: ignore[misc]
            results.check(self.network)
        if isinstance(get, str):
            return results.arrays[get]
        return _named(names, [results.arrays[k] for k in names], checks, _method([c for *_, c in pairs]))

    # ---- the exact route ----
    def _compile(self, a: Batch, b: Batch, names: tuple[str, ...]) -> Compiled | None:
        first, second = [{k: v.shape[1:] for k, v in batch.arrays.items()} for batch in (a, b)]
        return self._compile_shapes(first, second, names)

    def _compile_shapes(self, first: Any, second: Any, names: tuple[str, ...]) -> Compiled | None:
        shapes = first, second
        key = (tuple([tuple(sorted(s.items())) for s in shapes]), names)
        if key not in self._compiled:
            try:
                self._compiled[key] = compile_pair(self.network, *shapes, names, self.scheme, self.gia)
            except MissingAxis as error:  # of the batch: the network mixes examples
                if error.axis != EXAMPLE:
                    raise
                self._compiled[key] = None
        return self._compiled[key]

    def _evaluate(
        self,
        c: Compiled,
        p: Products | GramProducts,
        results: Results,
        a: Batch,
        b: Batch,
        mirror: bool,
        progress: bool | None,
    ) -> None:
        assert c.pair is not None and c.same is not None
        from tqdm import tqdm

        n, m = p.counts
        blocks = list(_blocks(n, m, p.same, c.pair.data))
        off = True if len(blocks) < 4 and progress is None else None if progress is None else not progress
        for rows, columns in tqdm(blocks, unit="block", delay=2, disable=off):
            if results.done(rows, columns):
                continue
            block = p.block(c.pair.data, rows, columns)
            found = c.pair.run(block, dtype=p.dtype)
            if block.symmetric:
                alone = c.same.run(_diagonal(p, c.same, rows), dtype=p.dtype)
                for x, d in zip(found, alone, strict=True):
                    k = np.arange(x.shape[-1])
                    x[..., k, k] = d[..., 0]
            results.put(found, a.places, b.places, rows, columns, mirror or (p.same and rows != columns))

    def _errors(self, c: Compiled, p: Products | GramProducts, names: tuple[str, ...]) -> dict[str, float]:
        """The largest error of each kernel, measured on some rows: rounding by perturbation, integrals at two resolutions."""
        assert c.pair is not None and c.same is not None
        chosen = _telling_rows(c, p)
        worst = dict.fromkeys(names, 0.0)
        for i in chosen:
            row = slice(i, i + 1)
            block = p.block(c.pair.data, row, slice(0, p.counts[1]))
            itself = {i} if p.same else set()
            equal = {k for j, k, _ in p.duplicates if j == i} - itself  # correlations of 1 that are no rounding
            others = set(range(p.counts[1])) - itself - equal
            self._compare(c.pair, block, p, i, sorted(others), worst, apart=True)
            if equal:
                self._compare(c.pair, block, p, i, sorted(equal), worst)
            self._compare(c.same, _diagonal(p, c.same, row), p, i, [0], worst)
        return worst

    @staticmethod
    def _compare(
        c: Batched,
        block: Block,
        p: Products | GramProducts,
        seed: int,
        columns: list[int],
        worst: dict[str, float],
        apart: bool = False,
    ) -> None:
        """Raises the errors known so far to those of some columns of a block.

        A float32 is a number that rounding has moved by 2^29 times as much. It is moved in float64, where nothing else moves it.
        """
        scale = float(np.finfo(p.dtype).eps / np.finfo(float).eps)
        base = c.run(block)
        moved = c.run(block, noise=Perturbation(np.random.default_rng(seed), scale, apart=apart))
        coarse = c.run(block, level=0) if c.integrates else base
        for k, x, y, z in zip(worst, base, moved, coarse, strict=True):
            error = 4 * np.abs(x - y) + NOISE * scale * np.abs(x) + 10 * np.abs(x - z)
            worst[k] = max(worst[k], float(np.max(error[..., columns], initial=0.0)))

    def _of_gram(
        self,
        X1: Any,
        X2: Any,
        gram: Any,
        names: tuple[str, ...],
        get: Any,
        dtype: Any,
        out: str | Path | None,
        progress: bool | None,
    ) -> Any:
        wanted = [x for x in self.network.inputs if x.value is None]
        why = (
            "data is given, too" if X1 is not None or X2 is not None
            else "it stands for the data of one input" if len(wanted) != 1 or len(self.network.inputs) != 1
            else "its features are not known, and in standard parametrization the kernel depends on their number"
            if self.scheme.name == "standard"
            else "the axes of the input have positions, which it does not know" if wanted[0].axis_names
            else ""
        )  # fmt: skip
        if why:
            raise TensorProgramError("gram= in place of data", why=why, fix="give the data")
        products = GramProducts(gram, wanted[0].key, dtype)
        shapes = {wanted[0].key: (1,)}
        batch = [Batch({}, {}, tuple(range(k))) for k in products.counts]
        compiled = self._compile_shapes(shapes, shapes, names)
        if compiled is None or compiled.declined:
            raise TensorProgramError(
                "gram= in place of data",
                why=compiled.declined if compiled else "the network mixes the examples of a batch",
                fix="give data with these inner products: rows of a Cholesky factor, times the root of their number",
            )
        identity = "" if out is None else _identity(compiled, [products.same, products.products, *products.alone])
        with Results(names, batch[:1], batch[1:], self.network.several, dtype, out, identity) as results:
            self._evaluate(compiled, products, results, batch[0], batch[1], False, progress)
            results.check(self.network)
        if isinstance(get, str):
            return results.arrays[get]
        check = lambda: self._errors(compiled, products, names)  # noqa: E731
        return _named(names, [results.arrays[k] for k in names], [check], _method([compiled]))

    # ---- any other ----
    def _by_program(self, X1: Any, X2: Any, names: tuple[str, ...], get: Any, dtype: Any, rng: int) -> Any:
        from tensorprog.limits.limit import limit

        program = self.network.program(X1, X2, names, self.scheme.name, self.scheme.width, self.gia)
        found = limit(program, rng=rng)
        arrays = [np.asarray(found[k].value, dtype=float) for k in names]
        if X2 is None:  # sampled entries differ from their mirror images, within their errors
            arrays = [(a + (a.T if a.ndim == 2 else a.transpose(1, 0, 3, 2))) / 2 for a in arrays]
        arrays = [a.astype(dtype) for a in arrays]
        if isinstance(get, str):
            return arrays[0]
        errors = {k: float(np.max(found[k].error)) for k in names}
        return _named(names, arrays, [lambda: errors], {k: found[k].method for k in names})


def _method(parts: Sequence[Compiled | None]) -> str:
    """How an exact route computes: "quadrature" if any integral is left."""
    return (
        "quadrature" if any(c and any(b and b.integrates for b in (c.pair, c.same)) for c in parts) else "closed form"
    )


def _blocks(n: int, m: int, same: bool, data: Sequence[Node]) -> list[tuple[slice, slice]]:
    """Blocks of at most `BLOCK` inner products, as square as possible; those on and above the diagonal if `same`."""
    deep = max([prod(x.shape) for x in data if x.attr[4] != x.attr[5]], default=1)
    pairs = max(1, BLOCK // deep)
    side = isqrt(pairs)
    if n * m <= pairs:
        return [(slice(0, n), slice(0, m))]
    rows = [slice(i, min(n, i + side)) for i in range(0, n, side)]
    columns = rows if same else [slice(j, min(m, j + side)) for j in range(0, m, side)]
    return [(r, c) for r in rows for c in columns if not same or c.start >= r.start]


def _telling_rows(c: Compiled, p: Products | GramProducts) -> list[int]:
    """Rows to measure errors on: some all over, and those of the largest and the smallest examples."""
    assert c.pair is not None
    found = set(np.linspace(0, p.counts[0] - 1, SAMPLED).astype(int).tolist())
    own = [x for x in c.pair.data if x.attr[4:6] == (0, 0)]
    for a in p.block(own, slice(0, p.counts[0]), slice(0, 1)).products.values():
        order = np.argsort(np.abs(a).reshape(-1, a.shape[-1]).max(0))
        found |= {*order[:2].tolist(), *order[-2:].tolist()}
    return sorted(found)


def _names(get: Any) -> tuple[str, ...]:
    names = (get,) if isinstance(get, str) else tuple(get) if isinstance(get, (Sequence, set, frozenset)) else ()
    if not names or not all(isinstance(k, str) for k in names) or len(set(names)) < len(names):
        raise TensorProgramError(
            f"get={get!r}", why="it names kernels, each once", fix='give "ntk", or several: ("nngp", "ntk")'
        )
    return names


def _exact(c: Compiled | None) -> bool:
    return c is not None and not c.declined


def _dtype(dtype: Any) -> Any:
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found not in (np.float64, np.float32):
        raise TensorProgramError(f"dtype {dtype}", fix="use float64 or float32")
    return found


def _identity(compiled: Any, data: Sequence[Any]) -> str:
    """What a folder of results is for: the network, the data, and how it is cut into blocks."""
    import hashlib

    from tensorprog.language.symbols import encode

    h = hashlib.blake2b(compiled.digest, digest_size=12)
    h.update(repr(BLOCK).encode())
    for x in data:
        h.update(x if isinstance(x, bytes) else encode(x))
    return h.hexdigest()


def _diagonal(p: Products | GramProducts, c: Batched, rows: slice) -> Any:
    block = p.block(c.data, rows, rows)
    return Block(block.products, block.rows, 1)


@cache
def _type(names: tuple[str, ...]) -> Any:
    base = namedtuple("Kernel", names)  # type: ignore[misc]

    class Kernel(base):
        """Kernels by name; `error` and `method` say how far to trust them."""

        _checks: Any = ()
        _known: Any = None
        method: Mapping[str, str]

        @property
        def error(self) -> dict[str, float]:
            """Name to the largest error of an entry, as measured on a sample of rows."""
            if self._known is None:
                found: dict[str, float] = dict.fromkeys(names, 0.0)
                for check in self._checks:
                    found = {k: max(found[k], v) for k, v in check().items()}
                self._known = found
            return self._known

        def __reduce__(self) -> Any:
            return _named, (names, list(self), [], self.method, self.error)

    return Kernel


def _named(names: Any, arrays: Any, checks: Any, method: Any, known: Any = None) -> Any:
    found = _type(tuple(names))(*arrays)
    found._checks, found._known = checks, known
    found.method = method if isinstance(method, dict) else dict.fromkeys(names, method)
    return found
