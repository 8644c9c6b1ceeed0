"""Finite widths against a limit: a deviation and its rate, and a verdict with a stated error probability."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorprog.analysis.anomalies import anomalies
from tensorprog.analysis.judge import Anomaly, Judgement, judge
from tensorprog.analysis.means import FAMILY_ERROR, FOUND
from tensorprog.analysis.sweep import Rows, sweep
from tensorprog.errors import TensorProgramError
from tensorprog.estimate import Estimate, Estimates
from tensorprog.execute.executor import check_seeds, distinct_integers
from tensorprog.progress import Interrupted
from tensorprog.transforms.dispatch import of_networks

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

    from tensorprog.language.program import Program

__all__ = ["Comparison", "compare"]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Runs at several widths against a limit; `print` shows all of it as a table.

    Attributes:
        widths: The widths, ascending.
        seeds: The seeds, the same at every width.
        outputs: Output name to its `Judgement`, with means, deviations and their errors as arrays.
    """

    widths: tuple[int, ...]
    seeds: tuple[int, ...]
    outputs: Mapping[str, Judgement]

    @classmethod
    def of(
        cls,
        samples: Mapping[int, Mapping[str, np.ndarray]],
        limit: Mapping[str, Any],
        *,
        seeds: Iterable[int] | None = None,
        axes: Mapping[str, Sequence[str]] | None = None,
        known: Mapping[str, Anomaly] | None = None,
    ) -> Comparison:
        """Compares runs that were made elsewhere.

        Args:
            samples: Width to output name to array of shape (S, *axes), the same seeds in the same order everywhere.
            limit: Output name to `Estimate`, number or array; only these outputs are compared.
            seeds: The seeds, for labels; by default 0..S-1.
            axes: Output name to the names of its axes, for labels.
            known: Output name to what is known of its bias and tails, where they are not the usual ones.

        Raises:
            TensorProgramError: Fewer than two seeds, no output, an output that was not run, shapes that do not fit, a
                limit that is no finite number.

        Example:
            >>> rng = np.random.default_rng(0)
            >>> c = Comparison.of({n: {"m": rng.normal(size=32) / n**0.5} for n in (100, 400, 1600)}, {"m": 0})
            >>> c.agrees
            True
        """
        axes = axes or getattr(limit, "axes", None) or {}
        if not isinstance(limit, Mapping):
            raise TensorProgramError(
                f"outputs are compared with {limit!r}"[:120], fix='give a dictionary, name to number: {"ntk": K}'
            )
        if not limit:
            raise TensorProgramError("there is no output to compare", fix="give the program an output")
        there = list(next(iter(samples.values()), {}))
        for name in limit:
            if there and name not in there:
                raise TensorProgramError(f"no output {name!r} to compare", fix=f"there are {', '.join(there)}")
        outputs = {
            name: judge(
                name,
                {n: np.asarray(row[name]) for n, row in samples.items()},
                item if isinstance(item, Estimate) else Estimate(item, np.zeros(np.shape(item))[()], "given", "exact"),
                axes=axes.get(name, ()),
                outputs=len(limit),
                anomaly=(known or {}).get(name, Anomaly()),
            )
            for name, item in limit.items()
        }
        first = next(iter(outputs.values()))
        count = first.samples.shape[1]
        return cls(first.widths, tuple(range(count)) if seeds is None else tuple(seeds), outputs)

    @property
    def slope(self) -> dict[str, Estimate | None]:
        """Output to the slope of log deviation on log n, an `Estimate`: `float(...)` and `.error`.

        None for an output that is exact at every width, or that has a deviation at fewer than two.
        """
        return {name: item.slope for name, item in self.outputs.items()}

    @property
    def deviation(self) -> dict[str, np.ndarray]:
        """Output to the root mean square over seeds of its error at each width, shape (K,)."""
        return {name: item.deviation for name, item in self.outputs.items()}

    @property
    def limit(self) -> Estimates:
        """What the runs were compared with."""
        return Estimates(
            {name: item.limit for name, item in self.outputs.items()},
            {name: item.axes for name, item in self.outputs.items()},
        )

    @property
    def agrees(self) -> bool | None:
        """Whether for every output the mean over seeds, less a fitted bias, equals the limit.

        The bias is b/n, or a/n**(1/2) + b/n where the program calls for it (`analysis/anomalies.py`). Where the limit is
        right this is False with probability at most 1e-3, over all outputs and entries together (t quantiles,
        Bonferroni). None, where nothing was rejected and some output cannot be judged (too few widths). How little would
        have been found is `found_entry` and `found_all` of every output, and printed.
        """
        verdicts = [item.agrees for item in self.outputs.values()]
        if False in verdicts:
            return False
        return None if None in verdicts else True

    def __str__(self) -> str:
        return _table(self)

    __repr__ = __str__

    def plot(self, path: str | Path | None = None) -> Figure:
        """Draws deviation against width, both logarithmic, with the n**-1/2 guide line; needs the extra `plot`.

        Args:
            path: Where to save it; the suffix says as what (`.svg`, `.png`, `.pdf`).

        Returns:
            The matplotlib figure.
        """
        from tensorprog.analysis.plot import plot_deviations

        return plot_deviations(self, path)

    def to_json(self) -> dict[str, Any]:
        """All but the single runs as plain JSON types; what is infinite or not a number is None."""
        outputs = {}
        for name, item in self.outputs.items():
            outputs[name] = item.limit.to_json() | {
                "mean": item.mean.tolist(),
                "mean_error": item.mean_error.tolist(),
                "deviation": item.deviation.tolist(),
                "deviation_error": item.deviation_error.tolist(),
                "slope": item.slope and item.slope.to_json(),
                "extrapolated": item.extrapolated and item.extrapolated.to_json(),
                "bias": list(item.bias),
                "found_entry": item.found_entry,
                "found_all": item.found_all,
                "p_value": item.p_value,
                "agrees": item.agrees,
                "note": "; ".join(filter(None, (item.limit.note, item.note))),
            }
        return _finite(
            {
                "outputs": outputs,
                "widths": list(self.widths),
                "seeds": list(self.seeds),
                "agrees": self.agrees,
                "family_error": FAMILY_ERROR,
            }
        )

    def to_xarray(self) -> xarray.Dataset:
        """The runs, labelled by `width`, `seed` and the outputs' own axes; needs the extra `xarray`.

        For an output `f` the variables are `f` (width, seed, ...), `f_limit` and `f_limit_error` (...), `f_deviation`
        and `f_deviation_error` (width). An axis that has another size in another output is called `f.axis`.
        """
        try:
            import xarray
        except ImportError:
            raise TensorProgramError(
                "labelled arrays need xarray", fix="install the extra: pip install 'tensorprog[xarray]'"
            ) from None
        sizes: dict[str, set[int]] = {}
        for item in self.outputs.values():
            for axis, size in zip(item.axes, item.samples.shape[2:], strict=True):
                sizes.setdefault(axis, set()).add(size)
        data: dict[str, Any] = {}
        for name, item in self.outputs.items():
            taken = {axis for axis in item.axes if len(sizes[axis]) > 1 or axis in ("width", "seed")}
            dims = [f"{name}.{axis}" if axis in taken else axis for axis in item.axes]
            error = np.broadcast_to(np.asarray(item.limit.error, dtype=float), np.shape(item.limit.value))
            data[name] = (["width", "seed", *dims], item.samples)
            data[f"{name}_limit"] = (dims, np.asarray(item.limit.value, dtype=float))
            data[f"{name}_limit_error"] = (dims, error)
            data[f"{name}_deviation"] = (["width"], item.deviation)
            data[f"{name}_deviation_error"] = (["width"], item.deviation_error)
        return xarray.Dataset(data, coords={"width": list(self.widths), "seed": list(self.seeds)})


@of_networks()
def compare(
    program: Program,
    widths: Sequence[int],
    seeds: int | Sequence[int],
    *,
    against: Mapping[str, Any] | None = None,
    weights: str = "auto",
    values: Mapping[str, Any] | None = None,
    gia: bool = False,
    rng: int | np.random.Generator | None = 0,
    executor: Executor | None = None,
    resume: str | Path | None = None,
    progress: bool | None = None,
) -> Comparison:
    """Runs a program at several widths and judges whether its outputs tend to the limit, and how fast.

    Args:
        program: The program, or a network: then its data X is the second argument, and all others are keywords,
            with `X2`, `of`, `parametrization` and `width` of `Network.program` among them.
        widths: At least one width; the verdict and the slope need two, and three or more are better. Doubling or
            quadrupling them is a good plan.
        seeds: How many (0..k-1) or which; at least two, as spread is measured over seeds. 32 is a good start.
        against: Compare with this in place of the limit: a mapping from outputs to `Estimate`, number or array. Only
            the outputs it names are compared.
        weights: `dense`, `lazy` or `auto`, as for `run`.
        values: Values of the program's Scalars, for the runs and for the limit.
        gia: Whether back-propagation's matrices are independent copies, in the runs and in the limit.
        rng: Seeds the limit where it has to be sampled.
        executor: Any `concurrent.futures` executor to spread the runs over.
        resume: A folder that keeps finished runs; the same call, or one with more widths or seeds, goes on from there.
        progress: Whether to show a progress bar on standard error; by default only on a terminal.

    Returns:
        A `Comparison`: `.slope`, `.agrees`, `.plot(path)`, and `print` for everything.

    Raises:
        TensorProgramError: Fewer than two seeds, no or repeated widths, outputs that are not there.
        Interrupted: On KeyboardInterrupt (it is one), with the widths finished so far as `.partial`, a `Comparison`.

    Example:
        >>> import tensorprog as tp
        >>> n = tp.Width("n")
        >>> x = tp.Vector("x", n, mean=0, var=1)
        >>> c = compare(tp.Program(m=tp.moment(x * x)), widths=[64, 256, 1024], seeds=16)
        >>> c.agrees, -0.8 < float(c.slope["m"]) < -0.2
        (True, True)

    Source:
        Deviations of O(n**-1/2): the Master Theorem (Yang and Littwin, Tensor Programs IVb, 2.6.10).
    """
    widths, numbers = _widths(widths), _seeds(seeds)
    if against is None:
        from tensorprog.limits.limit import limit as find_limit

        against = find_limit(program, values=values, gia=gia, rng=rng)

    def judged(rows: Rows, finished: Sequence[int]) -> Comparison:
        samples = {n: _gather([rows[n, seed] for seed in numbers]) for n in finished}
        return Comparison.of(samples, against, seeds=numbers, known=known)

    known = anomalies(program, n=min(widths), values=values, gia=gia, weights=weights)

    try:
        rows = sweep(
            program,
            widths,
            numbers,
            weights=weights,
            values=values,
            gia=gia,
            executor=executor,
            resume=resume,
            progress=progress,
        )
    except Interrupted as stop:
        finished = [n for n in widths if all((n, seed) in stop.rows for seed in numbers)]
        stop.partial = judged(stop.rows, finished) if finished else None
        raise
    return judged(rows, widths)


def _gather(rows: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _widths(widths: Sequence[int]) -> tuple[int, ...]:
    fix = "give a list of integers of at least 1, such as [64, 256, 1024]"
    found = distinct_integers("widths", widths, fix)
    if min(found) < 1:
        raise TensorProgramError(f"widths is {widths!r}", fix=fix)
    return tuple(sorted(found))


def _seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    found = check_seeds(seeds)
    if len(found) < 2:
        raise TensorProgramError(
            f"seeds={seeds!r} makes {len(found)} run(s) a width",
            why="spread is measured over seeds: one run has no error bar, and cannot be judged",
            fix="give seeds=2 or more; 32 is a good start",
        )
    return found


def _finite(x: Any) -> Any:
    if isinstance(x, dict):
        return {key: _finite(item) for key, item in x.items()}
    if isinstance(x, list):
        return [_finite(item) for item in x]
    return None if isinstance(x, float) and not math.isfinite(x) else x


def plus_minus(value: float, error: float) -> str:
    """A number with its error, the error to two digits and the number to as many places.

    Example:
        >>> plus_minus(2.012345, 0.0341), plus_minus(1234.5, 0.0), plus_minus(1.5e-9, 2e-11)
        ('2.012 ± 0.034', '1234.5', '1.500e-09 ± 2.0e-11')
    """
    if not (math.isfinite(error) and error > 0):
        return f"{value:.6g}"
    places = 1 - math.floor(math.log10(error))
    if 0 <= places <= 6 and abs(value) < 1e6:
        return f"{value:.{places}f} ± {error:.{places}f}"
    digits = max(1, places + math.floor(math.log10(abs(value)))) if value else 1
    return f"{value:.{min(digits, 9)}e} ± {error:.1e}"


def _limit_text(item: Judgement) -> str:
    limit = item.limit
    if not np.ndim(limit.value):
        rational = isinstance(limit.value, (int, Fraction))
        text = str(limit.value) if rational else plus_minus(float(limit.value), float(limit.error))
        return f"{text} ({limit.method})"
    worst = float(np.max(np.asarray(limit.error, dtype=float), initial=0.0))
    shape = "x".join(map(str, np.shape(limit.value)))
    return f"{shape} array{f' ± {worst:.0e}' if worst else ''} ({limit.method})"


def _verdict_text(item: Judgement) -> str:
    if item.agrees is None:
        return "not judged"
    p = "" if item.p_value is None else f", p {'= ' if item.p_value >= 1e-9 else '< '}{max(item.p_value, 1e-9):.2g}"
    return ("agrees" if item.agrees else "DIFFERS") + p


def _power_text(item: Judgement) -> str:
    """What a limit may be wrong by and would have been found."""
    if item.found_entry is None:
        return ""
    if not np.ndim(item.limit.value):
        size = abs(float(item.limit.value))
        share = f" ({item.found_entry / size:.1%} of it)" if size and math.isfinite(item.found_entry) else ""
        return f"a limit wrong by {item.found_entry:.2g}{share} would have been found, with probability {FOUND:g}"
    zero = not np.any(np.asarray(item.limit.value, dtype=float))
    one, whole = item.found_entry, item.found_all or 0.0
    parts = (
        (f"{one:.2g}", f"all by {whole:.2g}")
        if zero
        else (f"{one:.1%} of their root mean square", f"all by {whole:.1%}")
    )
    return f"one entry wrong by {parts[0]}, or {parts[1]}, would have been found, with probability {FOUND:g}"


def _biases(c: Comparison) -> str:
    kinds = {item.bias for item in c.outputs.values()}
    return (
        "b/n"
        if kinds == {(1.0,)}
        else "a/n**(1/2) + b/n"
        if len(kinds) == 1
        else "b/n (or a/n**(1/2) + b/n, see above)"
    )


def _mean_unit(item: Judgement) -> str:
    if not np.ndim(item.limit.value):
        return ""
    return " x limit" if np.any(np.asarray(item.limit.value, dtype=float)) else " (mean entry)"


def _table(c: Comparison) -> str:
    head = ("output", "limit", "n", "mean ± s.e.", "deviation", "slope", "verdict")
    rows: list[tuple[str, ...]] = []
    for name, item in c.outputs.items():
        slope = "none" if item.slope is None else plus_minus(float(item.slope.value), float(item.slope.error))
        first = (name, _limit_text(item), slope, _verdict_text(item))
        for i, n in enumerate(c.widths):
            label, limit, rate, verdict = first if i == 0 else ("", "", "", "")
            mean = plus_minus(float(item.summary[i]), float(item.summary_error[i])) + _mean_unit(item)
            deviation = plus_minus(float(item.deviation[i]), float(item.deviation_error[i]))
            rows.append((label, limit, str(n), mean, deviation, rate, verdict))
    sizes = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    align: list[Callable[[str, int], str]] = [str.ljust] * len(head)
    align[2] = str.rjust

    def line(cells: tuple[str, ...]) -> str:
        return "  ".join(put(cell, size) for put, cell, size in zip(align, cells, sizes, strict=True)).rstrip()

    notes = [f"{name}: {item.note}" for name, item in c.outputs.items() if item.note]
    notes += [f"{name}: {text}" for name, item in c.outputs.items() if (text := _power_text(item))]
    return "\n".join([line(head), line(tuple("-" * size for size in sizes)), *map(line, rows), "", *notes, *_footer(c)])


def _footer(c: Comparison) -> list[str]:
    arrays = any(np.ndim(item.limit.value) for item in c.outputs.values())
    verdict = {True: "All agree", False: "NOT all agree", None: "Not judged"}[c.agrees]
    lines = [
        "deviation: root mean square over seeds of the error"
        + ("; of an array, in Frobenius norm and relative." if arrays else "."),
        "slope: of log deviation on log n; -1/2 is the theorem's rate.",
        f"{verdict} ({len(c.widths)} width(s), {len(c.seeds)} seeds): an output agrees if its mean over seeds, less a "
        f"fitted {_biases(c)}, equals the limit;",
        f"right limits are rejected with a family-wise probability of at most {FAMILY_ERROR:g} (t tests, Bonferroni).",
    ]
    if any(_flattened(item) for item in c.outputs.values()):
        lines.append("The limit's own error is not small beside a deviation: it flattens that slope.")
    if any(b < 1.2 * a for a, b in pairwise(c.widths)):
        lines.append("Some widths are close together: that adds little to a slope or to the fit of b.")
    return lines


def _flattened(item: Judgement) -> bool:
    error = np.asarray(item.limit.error, dtype=float)
    size = float(np.linalg.norm(np.asarray(item.limit.value, dtype=float))) if error.ndim else 1.0
    own = float(np.linalg.norm(error)) / (size or 1.0)
    return item.slope is not None and own > float(np.nanmin(item.deviation)) / 3
