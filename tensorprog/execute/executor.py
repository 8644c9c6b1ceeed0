"""Running programs: at finite width with dense or lazy matrices, and at infinite width by a population of samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tensorprog.errors import NotFinite, TensorProgramError
from tensorprog.execute.compiled import Compiled, Space, Watch, compiled
from tensorprog.execute.dense import Dense, FiniteSpace
from tensorprog.execute.lazy import Lazy
from tensorprog.execute.random import Array
from tensorprog.language.given import real_array
from tensorprog.language.program import Program
from tensorprog.progress import Interrupted, progress_bar
from tensorprog.transforms.decouple import program_for
from tensorprog.transforms.dispatch import of_networks

if TYPE_CHECKING:
    import xarray

__all__ = ["Runs", "check_seeds", "choose_weights", "distinct_integers", "execute", "population", "run"]


class Runs(Mapping[str, np.ndarray]):
    """Outputs of a program at one finite width, over seeds: a mapping name -> array of shape (seeds, *axes).

    Attributes:
        n: The reference width.
        seeds: The seeds, in the order of the first axis.
        axes: Name of each output to the names of its other axes.
        weights: "dense" or "lazy", as run.

    Example:
        >>> import tensorprog as tp
        >>> runs = run(tp.Program(q=tp.moment(tp.Vector("x", tp.Width("n"), mean=2, var=0) ** 2)), n=4, seeds=2)
        >>> runs["q"]
        array([4., 4.])
        >>> runs
        2 runs at n = 4, dense weights (mean ± standard deviation over seeds)
          q = 4 ± 0
    """

    def __init__(
        self,
        outputs: Mapping[str, np.ndarray],
        axes: Mapping[str, tuple[str, ...]],
        *,
        n: int,
        seeds: Sequence[int],
        weights: str,
    ) -> None:
        self._outputs, self.axes = dict(outputs), dict(axes)
        self.n, self.seeds, self.weights = n, tuple(seeds), weights

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._outputs:
            raise KeyError(f"no output {name!r}; there are {', '.join(self._outputs)}")
        return self._outputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs)

    def __len__(self) -> int:
        return len(self._outputs)

    def __repr__(self) -> str:
        many = len(self.seeds) > 1
        head = f"{len(self.seeds)} run{'s' * many} at n = {self.n}, {self.weights} weights"
        lines = [head + " (mean ± standard deviation over seeds)" * many]
        for name, a in self._outputs.items():
            mean, spread = a.mean(axis=0), a.std(axis=0, ddof=1) if many else np.zeros(a.shape[1:])
            if a.ndim == 1:
                lines.append(f"  {name} = {mean:.6g}" + f" ± {spread:.2g}" * many)
                continue
            sizes = ", ".join([f"{axis}: {k}" for axis, k in zip(self.axes[name], mean.shape, strict=True)])
            text = np.array2string(mean, precision=4, threshold=16, edgeitems=2, prefix=" " * 4)
            lines.append(f"  {name} ({sizes})" + f" ± at most {np.max(spread, initial=0.0):.2g}" * many)
            lines.append(f"    {text}")
        return "\n".join(lines)

    def to_xarray(self) -> xarray.Dataset:
        """An `xarray.Dataset` with the dimension `seed` before each output's own axes, and `n` as an attribute.

        Raises:
            TensorProgramError: xarray is not installed, or two outputs give one axis name different sizes.
        """
        try:
            import xarray
        except ImportError:
            raise TensorProgramError(
                "xarray is not installed", fix='install the extra: pip install "tensorprog[xarray]"'
            ) from None
        data = {name: (("seed", *self.axes[name]), a) for name, a in self._outputs.items()}
        try:
            return xarray.Dataset(data, coords={"seed": list(self.seeds)}, attrs={"n": self.n, "weights": self.weights})
        except ValueError as error:
            raise TensorProgramError(
                f"the outputs do not fit into one Dataset: {error}",
                fix="give axes of different sizes different names (none of them 'seed'), with tp.rename",
            ) from None


@of_networks("all")
def run(
    program: Program,
    n: int,
    seeds: int | Sequence[int] = 1,
    *,
    weights: str = "auto",
    gia: bool = False,
    values: Mapping[str, Any] | None = None,
    matrices: Mapping[str, npt.ArrayLike] | None = None,
    parameters: Mapping[str, npt.ArrayLike] | None = None,
    progress: bool | None = None,
) -> Runs:
    """Runs a program at finite width.

    Random streams are keyed by seed, name, role and size: the same seed gives the same initial vectors and, dense, the
    same weights in another program and in a run under gradient independence.

    Args:
        program: The program, or a network: then its data X is the second argument, and all others are keywords,
            with `X2`, `of`, `parametrization` and `width` of `Network.program` among them; the
            outputs by default "f", "nngp" and "ntk".
        n: The reference width; a width of ratio r has round(r n) coordinates.
        seeds: k for the seeds 0 to k - 1, or a list of seeds.
        weights: "dense" stores every matrix, 8 rows cols bytes each; "lazy" samples Gaussian matrices where they are
            looked at, exact in law; "auto" takes what is cheaper (see `choose_weights`).
        gia: Whether every W.T is an independent copy's (see `transforms.decouple`).
        values: Numbers for hyperparameters; the others have their defaults.
        matrices: As `parameters`, for matrices alone.
        parameters: Name to array, to use in place of what is random: those of a trained network, say. They are what the program
            multiplies with: matrices (rows, cols), with entries of order n**-1/2; input layers (n, features), of order
            features**-1/2; other initial vectors, such as biases and readout vectors, (*axes, n), of order 1. The same for
            all seeds. Dense.
        progress: Whether to show a progress bar; by default on a terminal only, and only after some seconds.

    Returns:
        `Runs`: name to array of shape (seeds, *axes).

    Raises:
        TensorProgramError: n, seeds or weights make no sense; the dense weights do not fit into memory; entries of a
            lazy matrix are not Gaussian; a hyperparameter has no value; or an output is not finite (the error names the
            instruction where that began).
        Interrupted: On KeyboardInterrupt (it is one), with the seeds that are finished as `.partial`, `Runs`.

    Example:
        >>> import tensorprog as tp
        >>> n = tp.Width("n")
        >>> W, x = tp.Matrix("W", n, n), tp.Vector("x", n, mean=1, var=0)
        >>> p = tp.Program(mean_dx=tp.moment(W.T @ (2 * (W @ x))))
        >>> run(p, n=10**6, seeds=2)["mean_dx"].round(1)
        array([2., 2.])
    """
    program = program_for(program, gia)
    n, seeds = _check_width(n), check_seeds(seeds)
    given, code = program.values(values), compiled(program)
    matrices = _parameters(code, matrices, parameters)
    kind = _check_weights(code, n, weights, matrices)

    def space(seed: int) -> Space:
        return Lazy(n, seed) if kind == "lazy" else Dense(n, seed, weights=matrices)

    rows: list[dict[str, Array]] = []

    def finished() -> Runs:
        outputs = {name: np.stack([row[name] for row in rows]) for name in program}
        axes = {name: o.axes for name, o in program.outputs.items()}
        return Runs(outputs, axes, n=n, seeds=seeds[: len(rows)], weights=kind)

    try:
        for seed in progress_bar(seeds, shown=progress, desc=f"n = {n}", unit="run", leave=False, delay=2):
            rows.append(_run_checked(code, partial(space, seed), given, f"seed {seed}"))
    except KeyboardInterrupt:
        if not rows:
            raise
        message = f"interrupted after {len(rows)} of {len(seeds)} seeds"
        raise Interrupted(message, partial=finished()) from None
    return finished()


def execute(
    program: Program, space: Space, values: Mapping[str, Any] | None = None, *, again: Callable[[], Space] | None = None
) -> dict[str, Array]:
    """One run of a program in one space.

    Args:
        program: The program.
        space: A new `Dense`, `Lazy` or `Population`.
        values: Numbers for hyperparameters.
        again: Makes an equal space, to find the instruction at fault where an output is not finite.

    Returns:
        Name of each output to its array, shape (*axes,).

    Raises:
        TensorProgramError: An output is not finite; a hyperparameter has no value.

    Example:
        >>> import tensorprog as tp
        >>> p = tp.Program(q=tp.moment(tp.Vector("x", tp.Width("n"), mean=3, var=0)))
        >>> execute(p, Dense(10))
        {'q': array(3.)}
    """
    code, given = compiled(program), program.values(values)
    out = code.run(space, given)
    bad = [name for name, a in out.items() if not np.isfinite(a).all()]
    if bad:
        raise (again and code.explain(again(), given)) or NotFinite(
            f"output {bad[0]} is not finite", fix="pass again=, a function that makes an equal space, to learn where"
        )
    return out


def population(
    program: Program,
    samples: int = 2048,
    rng: int | np.random.Generator | None = None,
    replicates: int = 8,
    values: Mapping[str, Any] | None = None,
    gia: bool = False,
    watch: Watch | None = None,
    checked: bool = True,
) -> dict[str, Array]:
    """The infinite-width limit by independent populations of joint samples; their spread is the error.

    Args:
        program: The program.
        samples: Samples in a population, a power of two.
        rng: Seed; None is 0. A Generator supplies one.
        replicates: Number of populations.
        values: Numbers for hyperparameters.
        gia: Whether every W.T is an independent copy's.
        watch: Sees every instruction of every replicate (`execute/tails.py:Tails`).
        checked: Refuse outputs that are not finite.

    Returns:
        Name of each output to its array, shape (replicates, *axes).

    Raises:
        TensorProgramError: As for `run`; also where the samples are too few for the program.

    Example:
        >>> import tensorprog as tp
        >>> n = tp.Width("n")
        >>> W, x = tp.Matrix("W", n, n), tp.Vector("x", n, mean=1, var=0)
        >>> population(tp.Program(mean_dx=tp.moment(W.T @ (2 * (W @ x)))), 64, replicates=2)["mean_dx"].round(12)
        array([2., 2.])
    """
    from tensorprog.execute.population import Population  # scipy.stats takes most of a second to import

    program = program_for(program, gia)
    if isinstance(replicates, bool) or not isinstance(replicates, (int, np.integer)) or replicates < 1:
        raise TensorProgramError(f"replicates={replicates!r}", fix="give a number of populations, 8 for example")
    entropy = int(rng.integers(2**63)) if isinstance(rng, np.random.Generator) else int(rng or 0)
    children = np.random.SeedSequence(entropy).spawn(int(replicates))
    keys = [int.from_bytes(c.generate_state(4).tobytes(), "little") for c in children]
    given, code = program.values(values), compiled(program, pairs=True)
    needed, free = 8.0 * code.peak_entries(lambda width: samples, "lazy"), _memory()
    if code.stores_entries and needed > free:
        raise TensorProgramError(
            f"a population of {samples} samples needs {needed / 2**30:.3g} GB of memory, and {free / 2**30:.3g} GB are free",
            why="a matrix whose values are no sum of products of vectors has an entry for every pair of samples",
            fix="use fewer samples",
        )
    options: dict[str, Any] = {"components": code.components, "columns": code.noise()}
    rows = [
        _run_checked(code, partial(Population, samples, key, **options), given, "the population", watch, checked)
        for key in progress_bar(keys, desc=f"{samples} samples", unit="population", leave=False, delay=2)
    ]
    return {name: np.stack([row[name] for row in rows]) for name in program}


def _run_checked(
    code: Compiled,
    space: Callable[[], Space],
    values: Mapping[str, Any],
    where: str,
    watch: Watch | None = None,
    checked: bool = True,
) -> dict[str, Array]:
    try:
        out = code.run(space(), values, watch)
    except MemoryError:
        raise TensorProgramError(
            f"the run with {where} does not fit into memory", fix="use a smaller n, or fewer columns"
        ) from None
    if checked and not all(np.isfinite(a).all() for a in out.values()):
        raise code.explain(space(), values) or TensorProgramError(
            f"an output of the run with {where} is not finite, and a second run is", fix="please report this"
        )
    return out


# ---- which weights ----


# Seconds, measured on one core by benchmarks/executor.py: an entry of a dense matrix drawn, and used in one product; a
# coordinate of a lazy vector drawn, and compared with one direction of a basis; and the calls of one lazy product. They
# differ by a factor of two between machines, the two sides of the rule by one of a hundred.
DRAW, MULTIPLY, PROJECT, CALLS = 2e-8, 4e-10, 1e-9, 5e-5
SMALL = 512
"""Up to this width "auto" stays dense: it costs milliseconds, and the weights of a seed are those of other programs."""


def choose_weights(program: Program, n: int) -> str:
    """What `weights="auto"` means at width n.

    Dense where an entry is not Gaussian, and for n up to 512. Else lazy where dense weights would take more than half
    of the free memory, or more than twice the time: a dense matrix costs rows x cols random numbers, k lazy products
    about k^2 n operations, so that lazy wins unless k approaches n.

    Example:
        >>> import tensorprog as tp
        >>> n = tp.Width("n")
        >>> p = tp.Program(q=tp.moment((tp.Matrix("W", n, n) @ tp.Vector("x", n)) ** 2))
        >>> choose_weights(p, 256), choose_weights(p, 10**6)
        ('dense', 'lazy')
    """
    return _choose(compiled(program), n)


def _choose(code: Compiled, n: int) -> str:
    if n <= SMALL or any(m.entries is not None for m in code.program.matrices):
        return "dense"
    size = FiniteSpace(n).size
    columns = code.products()
    dense = lazy = 0.0
    for matrix in code.program.matrices:
        k, rows, cols = columns[matrix.name], size(matrix.rows), size(matrix.cols)
        dense += rows * cols * (DRAW + k * MULTIPLY)
        rank = min(k, rows + cols)
        lazy += rank * (rows + cols) / 2 * (DRAW + k * PROJECT) + k * CALLS
    too_large = 8 * code.peak_entries(size) > _memory() / 2
    return "lazy" if too_large or dense > 2 * lazy else "dense"


def _memory() -> float:
    """Bytes of memory that are free, as far as the system says."""
    free = float("inf")
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = 1024.0 * int(line.split()[1])
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        if limit != "max":
            free = min(free, float(limit) - float(Path("/sys/fs/cgroup/memory.current").read_text()))
    except (OSError, ValueError):
        pass
    return free if np.isfinite(free) else 4 * 2.0**30


# ---- what users can get wrong ----


def _check_width(n: Any) -> int:
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise TensorProgramError(f"the width n is {n!r}", fix="give a positive integer")
    return int(n)


def check_seeds(seeds: Any) -> tuple[int, ...]:
    """The seeds that `seeds` means: 0 to k - 1 for a number k, else those of the list.

    Raises:
        TensorProgramError: There is none, one is no integer, or one is there twice.

    Example:
        >>> check_seeds(3), check_seeds([7, 5])
        ((0, 1, 2), (7, 5))
    """
    if isinstance(seeds, (int, np.integer)) and not isinstance(seeds, bool):
        if seeds < 1:
            raise TensorProgramError(f"{seeds} seeds", fix="give at least 1, or a list of seeds")
        return tuple(range(int(seeds)))
    return distinct_integers("seeds", seeds, "give their number, or a list of integers")


def distinct_integers(what: str, items: Any, fix: str) -> tuple[int, ...]:
    """A list of integers, none of them twice.

    Raises:
        TensorProgramError: It is none.
    """
    try:
        found = [] if isinstance(items, str) else list(items)
    except TypeError:
        found = []
    if not found or not all(isinstance(i, (int, np.integer)) and not isinstance(i, bool) for i in found):
        raise TensorProgramError(f"{what} is {items!r}", fix=fix)
    repeated = [i for i, k in Counter(found).items() if k > 1]
    if repeated:
        raise TensorProgramError(
            f"{what} has {repeated[0]} twice", why="the same run twice is no second sample", fix="leave one out"
        )
    return tuple([int(i) for i in found])


def _parameters(
    code: Compiled, matrices: Mapping[str, Any] | None, parameters: Mapping[str, Any] | None
) -> dict[str, np.ndarray]:
    """What is given in place of random numbers, by name."""
    found: dict[str, np.ndarray] = {}
    for what, given in (("matrices", matrices), ("parameters", parameters)):
        names = [m.name for m in code.program.matrices]
        if what == "parameters":
            names += dict.fromkeys([v.name for v in code.program.vectors])
        if given is not None and not isinstance(given, Mapping):
            raise TensorProgramError(f"{what}={given!r}"[:80], fix="give a dictionary: name to array")
        for name, values in (given or {}).items():
            if name not in names:
                raise TensorProgramError(
                    f"{what} has {name!r}, which the program does not use",
                    why=f"its {what} are {', '.join(names) or 'none'}",
                    fix="check the name",
                )
            if name in found:
                raise TensorProgramError(f"matrices= and parameters= both have {name!r}", fix="give it once")
            a = real_array(values, f"{what} for {name!r}", "give an array of numbers")
            if not np.isfinite(a).all():
                raise TensorProgramError(f"{what} for {name!r} hold no finite numbers", fix="give an array of numbers")
            found[name] = a
    return found


def _check_weights(code: Compiled, n: int, weights: str, matrices: Mapping[str, Any] | None) -> str:
    """Dense or lazy; refuses what is not possible at this width."""
    if weights not in ("dense", "lazy", "auto"):
        raise TensorProgramError(f"weights={weights!r}", fix='use "dense", "lazy" or "auto"')
    if matrices and weights == "lazy":
        raise TensorProgramError(
            "weights are given, and asked to be lazy", why="lazy weights are random", fix='leave out weights="lazy"'
        )
    kind = "dense" if matrices else _choose(code, n) if weights == "auto" else weights
    size, free = FiniteSpace(n).size, _memory()
    needed = 8.0 * code.peak_entries(size, kind)
    if needed > free:
        gaussian = all(m.entries is None for m in code.program.matrices)
        lazy = kind == "dense" and gaussian and not matrices and 8.0 * code.peak_entries(size, "lazy") < free
        raise TensorProgramError(
            f"arrays and {kind} weights at n = {n} need {needed / 2**30:.3g} GB of memory, "
            f"and {free / 2**30:.3g} GB are free",
            fix="use a smaller n, or fewer examples" + (', or weights="lazy"' if lazy else ""),
        )
    return kind
