"""`tp.sweep`: a hyperparameter at many values, at finite widths and in the limit; `tp.tune`: its best value in the limit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tensorprog.analysis.bests import next_value
from tensorprog.analysis.compare import plus_minus
from tensorprog.analysis.row import DIVERGED, MISSING, NO_LIMIT, Row
from tensorprog.analysis.swept import Sweep, checked_values
from tensorprog.errors import NotFinite, TensorProgramError
from tensorprog.estimate import Estimate
from tensorprog.execute.executor import check_seeds, distinct_integers, run
from tensorprog.language.leaves import Scalar
from tensorprog.language.program import Output, Program
from tensorprog.limits.limit import limit
from tensorprog.progress import Interrupted, progress_bar
from tensorprog.training.cells import Cell, Cells
from tensorprog.training.divergence import STEP, Diverged, finite
from tensorprog.training.trace import Trace

__all__ = ["sweep", "tune"]

LR = "lr"


def sweep(
    trace: Trace | Program | Callable[..., Trace | Program],
    *,
    widths: Sequence[int] = (),
    seeds: int | Sequence[int] = 8,
    of: str = "loss",
    in_limit: bool = True,
    values: Mapping[str, Any] | None = None,
    weights: str = "auto",
    samples: int | None = None,
    replicates: int = 16,
    rng: int = 0,
    refine: int = 4,
    out: str | Path | None = None,
    progress: bool | None = None,
    **over: Any,
) -> Sweep:
    """The loss at the end of training against a hyperparameter, the learning rate say, in the limit and at finite widths.

    `tp.sweep(trace, lr=[0.1, 0.2, 0.4], widths=[64, 256])`. All values of the hyperparameter share their randomness: a seed has
    the same first weights at each of them, and a limit that is sampled the same samples. So curves are smooth, and differences
    between values are known far better than losses.

    Where training follows a kernel, networks are centred: their outputs before the first step are taken off, as the limit from
    f_0 = 0 has it.

    Args:
        trace: What `tp.sgd` returns. Its hyperparameters are `tp.Scalar`s, such as `lr=tp.Scalar("lr", 0.1)`; a rate that is a
            number may be swept as `lr`, too. Its program is made once for all values. Or a Program with a hyperparameter; or a
            function that is called with every value, f(momentum=0.9), and returns one of these.
        widths: Finite widths, besides the limit.
        seeds: How many (0..k-1) or which, the same at every width and value.
        of: The output that is wanted small, a scalar; of a run of training at its last step.
        in_limit: Whether to take the limit.
        values: Values of other hyperparameters, "f0" among them.
        weights: As for `tp.run`.
        samples: M of a population, if the limit is sampled: the same at all values.
        replicates: Of the population.
        rng: Its seed.
        refine: How many values more are looked at beside the best one of every width, by the golden section.
        out: A folder, made if need be: what is computed is stored there, and not computed again by the same call or one with more
            values, widths or seeds.
        progress: Whether to show a progress bar on standard error; by default only on a terminal.
        **over: The hyperparameter and its values.

    Returns:
        A `Sweep`: `.best`, `.transfers`, `.verdict`, `.largest_stable`, `.loss`, `.status`, `.plot(path)`; `print` shows it all.

    Raises:
        TensorProgramError: There is no such hyperparameter; the output is no scalar.
        Interrupted: On KeyboardInterrupt (it is one), with what is finished as `.partial`, a `Sweep`.

    Example:
        >>> import tensorprog as tp
        >>> n = tp.Width("n")
        >>> net = tp.Network(tp.readout("v", tp.dense("U", tp.Input("x"), n)))
        >>> trace = tp.sgd(net, [[1]], [1], steps=4, lr=0.1, parametrization="mup")
        >>> s = tp.sweep(trace, lr=[0.1, 0.2, 0.4, 0.8, 1.6, 3.2])
        >>> s.largest_stable, s.status[float("inf")][-1]
        ({inf: 0.8}, 'unstable')
    """
    subject, points = subject_of(trace, over, of, values)
    sizes = sorted(distinct_integers("widths", widths, "give different integers of at least 1")) if len(widths) else []
    numbers = check_seeds(seeds)
    if not sizes and not in_limit:
        raise TensorProgramError("a sweep without widths and without the limit", fix="give widths=[64, 256]")
    grid = [points[i] for i in checked_values(subject.name, points)]
    if all(isinstance(v, (int, np.integer)) for v in grid) and subject.anew:
        refine = 0  # what is between two whole numbers may make no sense
    how: dict[str, Any] = {"samples": samples, "replicates": replicates, "rng": rng}
    cells = Cells(out)

    def limit_at(value: Any) -> list[Cell]:
        at = subject.make(value)
        return [cells.get(at.key("limit", how), lambda: at.limit(**how))]

    def runs_at(n: int, value: Any) -> Iterator[Cell]:
        at = subject.make(value)
        for seed in numbers:
            key = at.key("run", {"n": n, "seed": seed, "weights": weights})
            yield cells.get(key, lambda seed=seed: at.run(n, seed, weights))  # type: ignore[misc]

    ways: dict[float, Callable[[Any], Iterable[Cell]]] = {n: partial(runs_at, n) for n in sizes}
    if in_limit:
        ways[math.inf] = limit_at
    rows: dict[float, Row] = {}
    total = (len(grid) + refine) * (len(numbers) * len(sizes) + in_limit)
    try:
        with progress_bar(shown=progress, total=total, unit="run", desc=f"sweep of {subject.name}", leave=False) as bar:
            for n in [*[math.inf] * in_limit, *sizes]:
                found: dict[float, list[Cell]] = {}
                todo = list(grid)
                left = refine
                while todo:
                    value = todo.pop(0)
                    column = []
                    for cell in ways[n](value):
                        column.append(cell)
                        bar.update()
                    found[float(value)] = column
                    rows[n] = _row(found, grid, math.isinf(n))
                    if not todo and left:
                        left -= 1
                        more = next_value(rows[n].values, np.where(rows[n].known, rows[n].losses, np.inf))
                        todo = [] if more is None else [more]
    except KeyboardInterrupt:
        kept = f"kept in {out}: the same call goes on from there" if out is not None else "in .partial"
        done = _swept(subject.name, grid, rows, of, numbers) if rows else None
        raise Interrupted(f"stopped at width {n}, what is finished is {kept}", partial=done) from None
    return _swept(subject.name, grid, rows, of, numbers)


def tune(
    trace: Trace | Program | Callable[..., Trace | Program],
    *,
    of: str = "loss",
    values: Mapping[str, Any] | None = None,
    samples: int | None = None,
    replicates: int = 16,
    rng: int = 0,
    grid: int = 9,
    refine: int = 12,
    out: str | Path | None = None,
    progress: bool | None = None,
    **over: Any,
) -> Estimate:
    """The best learning rate, or another hyperparameter, at infinite width: `tp.tune(trace, lr=(0.01, 10))`.

    First a grid over the range, then the golden section beside its best value.

    Args:
        trace: As for `tp.sweep`.
        of: The output that is wanted small, at the last step.
        values: Values of other hyperparameters.
        samples: As for `tp.sweep`, and so are all that are not explained here.
        replicates: Of a population.
        rng: Its seed.
        grid: How many values of the range are looked at first, logarithmically spaced where it is positive.
        refine: How many more, each for 0.6 times the error.
        out: A folder for what is computed.
        progress: Whether to show a progress bar.
        **over: The hyperparameter and its range, two numbers.

    Returns:
        The best value, with its error: that of the samples, and what is left of the search.

    Raises:
        TensorProgramError: The loss is least at an end of the range.

    Example:
        >>> import tensorprog as tp
        >>> n = tp.Width("n")
        >>> net = tp.Network(tp.readout("v", tp.dense("U", tp.Input("x"), n)))
        >>> trace = tp.sgd(net, [[1]], [1], steps=1, lr=0.1)  # f_1 = 2 lr
        >>> best = tp.tune(trace, lr=(0.1, 2))
        >>> abs(best.value - 0.5) < best.error < 1e-2
        True
    """
    ends = {name: np.asarray(v, dtype=float) for name, v in over.items() if np.shape(v) == (2,)}
    if len(ends) != 1 or len(over) != 1:
        raise TensorProgramError(
            f"tune is given {', '.join(over) or 'no hyperparameter'}", fix="give one with its range: lr=(0.01, 10)"
        )
    ((name, (low, high)),) = ends.items()
    points: dict[str, Any] = {name: (np.geomspace if low > 0 else np.linspace)(low, high, grid)}
    found = sweep(
        trace, of=of, values=values, samples=samples, replicates=replicates, rng=rng, refine=refine, out=out,
        progress=progress, **points,
    )  # fmt: skip
    row = found.rows[math.inf]
    best = row.valley.best
    if best is None:
        known = row.loss[row.known]
        raise TensorProgramError(
            f"the {of} has no least value for {name} between {low:g} and {high:g}",
            why=f"it is least at {row.values[int(np.argmin(row.loss))]:g}, an end" if known.size else row.notes[0],
            fix="give another range",
        )
    there = plus_minus(row.valley.least, float(row.error[int(np.argmin(row.loss))]))
    return replace(best, method="golden section", note=f"{of} {there} there, {row.method}")


def _swept(name: str, grid: Sequence[Any], rows: Mapping[float, Row], of: str, numbers: tuple[int, ...]) -> Sweep:
    return Sweep(name, tuple(map(float, grid)), {n: rows[n] for n in sorted(rows)}, of, numbers)


def _row(found: Mapping[float, Sequence[Cell]], grid: Sequence[Any], limit: bool) -> Row:
    """The cells of one width; what is not there is still to come."""
    values = sorted({*map(float, grid), *found})
    size = max([len(_draws(c)) for c in found.values()])
    losses = np.full((size, len(values)), np.inf)
    first, error = np.full(len(values), np.inf), np.full(len(values), np.inf)
    status, notes, methods = {}, {}, set()
    for i, v in enumerate(values):
        cells = found.get(v)
        if cells is None:
            status[i] = MISSING
            continue
        losses[:, i] = _draws(cells)  # a cell without a loss is one number for all replicates
        first[i], error[i] = np.mean([c.first for c in cells]), cells[0].error
        bad = [c for c in cells if c.status]
        if bad:
            status[i] = bad[0].status
            notes[i] = bad[0].note + (f" ({len(bad)} of {len(cells)} seeds)" if len(cells) > 1 else "")
        methods |= {c.method for c in cells}
    how = ", ".join(sorted(methods - {""}))
    return Row.of(values, losses, first=first, error=error if limit else None, status=status, notes=notes, method=how)


def _draws(cells: Sequence[Cell]) -> np.ndarray:
    return np.concatenate([c.losses for c in cells])


# ---- what is swept over ----


@dataclass(frozen=True, eq=False)
class Point:
    """A program at one value of the hyperparameter.

    Attributes:
        program: Its output is wanted small.
        trace: Where it is a run of training.
        values: Of its hyperparameters.
        of: The output.
    """

    program: Program
    trace: Trace | None
    values: dict[str, Any]
    of: str

    def key(self, kind: str, settings: Mapping[str, Any]) -> tuple[Any, ...]:
        """What the cell is for."""
        return kind, self.program.digest, self.of, self.values, dict(settings)

    def run(self, n: int, seed: int, weights: str) -> Cell:
        """One network."""
        try:
            found = finite(
                self.program, self.values, lambda p, v: run(p, n, [seed], weights=weights, values=v, progress=False)
            )
        except NotFinite as error:
            return _diverged(error)
        a = np.asarray(found[self.of][0], dtype=float)
        first, last = (a[0], a[-1]) if a.ndim else (math.inf, a)
        return Cell(np.array([float(last)]), float(first), math.nan, method=f"{found.weights} weights")

    def limit(self, *, samples: int | None, replicates: int, rng: int) -> Cell:
        """The limit."""
        options: dict[str, Any] = {"replicates": replicates, "rng": rng, "values": self.values}
        samples = self.samples(replicates) if samples is None else samples
        if samples is not None:
            options["samples"] = samples
        try:
            found = (limit(self.program, **options) if self.trace is None else limit(self.trace, **options))[self.of]
        except NotFinite as error:
            return _diverged(error)
        except TensorProgramError as error:
            return Cell(np.array([math.inf]), math.inf, math.inf, NO_LIMIT, error.what)
        value, error_of = np.asarray(found.value, dtype=float), np.asarray(found.error, dtype=float)
        first = value[0] if value.ndim else math.inf
        draws = value[None] if found.draws is None else np.asarray(found.draws, dtype=float)
        ends = draws[:, -1] if value.ndim else draws
        return Cell(ends, float(first), float(error_of.ravel()[-1]), method=found.method)

    def samples(self, replicates: int) -> int | None:
        """M where the limit is sampled: as many as the first population may take, the same at all values."""
        from tensorprog.limits.routes import FIRST, SAMPLES, fewest_samples, population_cost
        from tensorprog.training.trace import PAIRED

        if self.trace is None or not self.trace.is_sampled:
            return None
        if not self.trace.recipe.optimizer.linear:
            return PAIRED
        samples = SAMPLES
        while population_cost(self.program, samples, replicates) > FIRST and samples > fewest_samples(self.program):
            samples //= 2
        return samples


@dataclass(frozen=True, eq=False)
class Subject:
    """What is swept over.

    Attributes:
        name: Of the hyperparameter.
        make: A value to the program there.
        anew: Is that another program for every value?
    """

    name: str
    make: Callable[[Any], Point]
    anew: bool


def subject_of(
    trace: Any, over: Mapping[str, Any], of: str, values: Mapping[str, Any] | None
) -> tuple[Subject, list[Any]]:
    """What is swept over, and its values.

    Raises:
        TensorProgramError: There is no such hyperparameter, or more than one; the output is no scalar.
    """
    if len(over) != 1:
        given = ", ".join(over) or "none"
        raise TensorProgramError(
            f"a sweep over {given}",
            why="it is over one hyperparameter",
            fix="give one list of values, lr=[0.1, 0.2]; loop over others",
        )
    ((name, points),) = over.items()
    points = list(points) if isinstance(points, (Sequence, np.ndarray)) else [points]
    known = dict(values or {})
    if isinstance(trace, (Trace, Program)):
        if isinstance(trace, Trace):
            trace = _with_rate(trace) if name == LR and LR not in trace.program.scalars else trace
        program, whole = _scalar(trace, of)
        if name not in program.scalars:
            has = ", ".join(program.scalars) or "none"
            raise TensorProgramError(
                f"no hyperparameter {name!r} to sweep over; there are: {has}",
                fix=f'make it a tp.Scalar("{name}"), or give a function that returns a run of training for every {name}',
            )

        def bound(value: Any) -> Point:
            return Point(program, whole, _known(trace, program, known | {name: value}), of)

        return Subject(name, bound, False), points
    if not callable(trace):
        raise TensorProgramError(
            f"a sweep of {type(trace).__name__}", fix="give what tp.sgd returns, or a function that returns such"
        )

    def make(value: Any) -> Point:
        made = trace(**{name: value})
        if not isinstance(made, (Trace, Program)):
            raise TensorProgramError(
                f"the function returned {type(made).__name__} for {name}={value!r}", fix="return what tp.sgd returns"
            )
        program, whole = _scalar(made, of)
        return Point(program, whole, _known(made, program, known), of)

    return Subject(name, make, True), points


def _with_rate(trace: Trace) -> Trace:
    """The same run with its rate a hyperparameter.

    Raises:
        TensorProgramError: It has more than one.
    """
    from tensorprog.training.sgd import Rates

    tables = getattr(trace.recipe.rates, "tables", {})
    rates = {x for table in tables.values() for x in table}
    if len(rates) != 1 or next(iter(rates)).op != "constant":
        raise TensorProgramError(
            "a sweep over lr of a run whose rate is no number", why="it is a schedule, or there are several",
            fix='make a tp.Scalar("lr") part of it: lr=lambda t: tp.Scalar("lr", 0.1) * 0.9**t',
        )  # fmt: skip
    node = Scalar(LR, 0.1).node
    recipe = replace(trace.recipe, rates=Rates({name: [node] * len(table) for name, table in tables.items()}))
    return trace.with_recipe(recipe)


def _scalar(what: Trace | Program, of: str) -> tuple[Program, Trace | None]:
    """The program of one output, a scalar or one for each step."""
    program = what.program if isinstance(what, Trace) else what
    if of not in program.outputs:
        raise TensorProgramError(f"no output {of!r} to sweep", fix=f"there are {', '.join(program.outputs)}: of=")
    output = program.outputs[of]
    if output.axes not in ((), (STEP,)):
        raise TensorProgramError(
            f"the output {of!r} has axes {', '.join(output.axes)}", why="what is compared is one number",
            fix="choose another output with of=, or add one: probe={..}, tp.moment, tp.mean",
        )  # fmt: skip
    return Program({of: Output(output.node, output.axes)}), what if isinstance(what, Trace) else None


def _known(what: Trace | Program, program: Program, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that the program of one output asks for.

    Raises:
        TensorProgramError: The whole has no hyperparameter of a name, or one without a value.
    """
    (what.program if isinstance(what, Trace) else what).values(values)
    return {name: value for name, value in values.items() if name in program.scalars}


def _diverged(error: TensorProgramError) -> Cell:
    note = f"diverged at step {error.step}" if isinstance(error, Diverged) else error.what
    return Cell(np.array([math.inf]), math.inf, math.inf, DIVERGED, note)
