"""`tp.coord_check`: are activations, their changes and all updates of the right order at every width?"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tensorprog.coordinates.inference import NotInferred, inferred, own_rates
from tensorprog.coordinates.measure import Fit, fitted
from tensorprog.coordinates.measurements import judged_measurements
from tensorprog.coordinates.program import ACTIVATION, CHANGE, DECAY, LOGITS, OUTPUT, UPDATE, Coordinates, Layer, key
from tensorprog.coordinates.report import CoordCheck
from tensorprog.coordinates.setup import Case, Setup, exponents, rules_of
from tensorprog.coordinates.verdict import Row, causes, judged
from tensorprog.errors import NotFinite, TensorProgramError
from tensorprog.execute.executor import check_seeds, distinct_integers, run
from tensorprog.execute.population import PopulationWarning
from tensorprog.limits.limit import limit as find_limit
from tensorprog.networks.network import Network
from tensorprog.networks.samples import batches
from tensorprog.progress import progress_bar
from tensorprog.training.passes import Pass, parameter_kinds
from tensorprog.training.powers import NAMES, named
from tensorprog.training.sgd import sgd
from tensorprog.training.trace import Trace

__all__ = ["coord_check"]

WIDTHS = (64, 128, 256, 512, 1024)
SAMPLES = 2**12
"""Of the population that stands for infinite width."""
PAIRED = 2**9
"""The same where every pair of samples is an entry of a matrix."""


def coord_check(
    net: Any = None,
    X: Any = None,
    y: Any = None,
    *,
    parametrization: Any = None,
    target: str | None = None,
    optimizer: Any = None,
    lr: Any = 0.1,
    widths: Sequence[int] = WIDTHS,
    steps: int = 3,
    seeds: int | Sequence[int] = 8,
    limit: bool = True,
    measurements: Any = None,
    roles: Mapping[str, str] | None = None,
    **options: Any,
) -> CoordCheck:
    """Checks a parametrization: trains networks of several widths and looks at the size of every coordinate.

    For each layer: its activations, how far they are from where they began, and what each parameter's updates do to its first
    input. A size is of order n^p: p is fitted over widths and seeds, predicted from the program, and held against what the
    right parametrization has. At the smallest width a set-up and the right one are the same network.

    Args:
        net: A `tp.Network`; or a run of training, `tp.sgd(..)`.
        X: Data, as for `tp.sgd`; few examples do.
        y: Targets; by default 1 and -1 in turn.
        parametrization: How the networks are set up: a name, a `tp.ABC`, or `tp.Exponents`, by the names of parameters; by
            default that of the run, or "mup".
        target: What it should be: "mup", "ntk", "standard", "mean_field"; by default the name that is given as parametrization,
            and "mup" for all else.
        optimizer: As for `tp.sgd`.
        lr: As for `tp.sgd`, at the smallest width.
        widths: Three or more; the ratio of the largest and the smallest should be 16 or so.
        steps: Of training, 2 or more: a readout that starts at 0 lets other layers move at the second only.
        seeds: How many networks a width.
        limit: Whether to compute the sizes at infinite width, by populations.
        measurements: Your own numbers, in place of a network: see below.
        roles: Of the layers of `measurements`: "input", "hidden", "output" (what the network returns) or "logits".
        options: Others of `tp.sgd`: loss, batch, weight_decay, clip, freeze.

    Measurements are columns "layer", "width", "step", "seed" (may be missing), "size" (a root mean square or a mean absolute
    value) and perhaps "what" ("activation", "change", "update"): a dictionary of lists, a data frame, or a list of such rows,
    from training in any framework. The mup package's `get_coord_data` gives such a table, with names of its own.

    Raises:
        TensorProgramError: Options that make no sense.

    Example:
        >>> import tensorprog as tp
        >>> n = tp.Width("n")
        >>> h = tp.relu(tp.dense("W", tp.relu(tp.dense("U", tp.Input("x"), n)), n))
        >>> net, X, y = tp.Network(tp.readout("v", h)), [[1.0, 0.0], [0.0, 1.0]], [1.0, -1.0]
        >>> coord_check(net, X, y, seeds=3, limit=False).passed
        True
        >>> wrong = coord_check(net, X, y, parametrization=tp.Exponents(c={"v": 0}), seeds=3, limit=False)
        >>> print(wrong.reasons[0])
        v (a readout): its rate is n^0 and should be n^1 (a step too small by n^1); use c={'v': -1}

    Source: Yang et al., Tensor Programs V (arXiv:2203.03466), appendix D.1; the widths' exponents, Tensor Programs IV
        (arXiv:2011.14522) and IVb (arXiv:2308.01814).
    """
    if measurements is not None:
        return judged_measurements(measurements, roles or {})
    widths = _widths(widths)
    numbers = check_seeds(seeds)
    if len(numbers) < 2:
        raise TensorProgramError("a coordinate check with one seed", fix="give seeds=2 or more: 8 is usual")
    trace = _trace(net, X, y, steps, lr, optimizer, options)
    parametrization = _own(trace) if parametrization is None else parametrization
    target = target or (parametrization if isinstance(parametrization, str) and parametrization != "pytorch" else "mup")
    case = _case(trace, parametrization, target)
    measured = Coordinates(trace, case.setup, case.target, widths[0])
    program = measured.program()
    predicted = _inferred(trace, case.setup, case.target, widths[0])
    should = predicted if case.setup == case.target else _inferred(trace, case.target, case.target, widths[0])
    squares, diverged = _runs(program, widths, numbers)
    known = _limits(trace, case.target, widths[0]) if limit else {}
    rows = []
    for layer in measured.layers if len(squares) > 1 else []:  # else it diverged at once
        for what, step in _asked(layer, trace, predicted, program, squares):
            name = key(layer, what)
            fit = fitted(
                [n for n in widths if n in squares], [squares[n][name][:, step] for n in widths if n in squares]
            )
            wanted, least = _wanted(layer, what, step, should, target)
            here = predicted[name][step] if predicted else None
            verdict, reason = judged(fit, here, wanted, least, layer.name, what)
            rows.append(_row(layer, what, step, fit, here, wanted, known.get(name), verdict, reason, tuple(squares)))
    found = causes(rows, case, own_rates(measured))
    failed = diverged is not None or any(r.passed is False for r in rows)
    return CoordCheck(tuple(rows), tuple(found if failed else ()), target, tuple(widths), len(numbers), diverged)


def _widths(widths: Any) -> list[int]:
    fix = "give three or more different integers, such as [64, 256, 1024]"
    found = sorted(distinct_integers("widths", widths, fix))
    if len(found) < 3 or found[0] < 2:
        raise TensorProgramError(f"widths={widths!r}", fix=fix)
    return found


def _trace(net: Any, X: Any, y: Any, steps: int, lr: Any, optimizer: Any, options: Mapping[str, Any]) -> Trace:
    if isinstance(net, Trace):
        if X is not None or y is not None or optimizer is not None or options:
            raise TensorProgramError(
                "a coordinate check of a run of training is given X, y or options of it", fix="leave them out"
            )
        return net
    if not isinstance(net, Network):
        raise TensorProgramError(
            f"tp.coord_check of {type(net).__name__}", fix="give a tp.Network, a run of training, or measurements="
        )
    if isinstance(steps, (int, np.integer)) and steps < 2:  # what is no number is refused by tp.sgd
        raise TensorProgramError(f"steps={steps} of a coordinate check", fix="give 2 or more; 3 are usual")
    if y is None:
        shape = Pass(net, batches(net.inputs, X, net.source)[0]).theta.shape
        y = np.resize([1.0, -1.0], shape)
    return sgd(net, X, y, steps=steps, lr=lr, parametrization="mup", optimizer=optimizer, **options)


def _own(trace: Trace) -> Any:
    """The parametrization of a run: by its name, where it has one."""
    for name in NAMES if trace.abc.hidden_layers == 1 else NAMES[:-1]:
        known = named(name, trace.abc.hidden_layers)
        if known.shifted(trace.abc.a[0] - known.a[0]) == trace.abc:
            return name
    return trace.abc


def _case(trace: Trace, parametrization: Any, target: str) -> Case:
    kinds, matrices = parameter_kinds(Pass(trace.net, trace._train))
    return Case.of(exponents(parametrization), target, kinds, matrices, rules_of(trace.recipe.optimizer))


def _inferred(trace: Trace, setup: Setup, target: Setup, base: int) -> dict[str, list[float]]:
    try:
        return inferred(Coordinates(trace, setup, target, base))
    except NotInferred:
        return {}


def _runs(program: Any, widths: Sequence[int], seeds: Sequence[int]) -> tuple[dict[int, Any], int | None]:
    """Mean squares (seeds, steps) by width and name; and the width from which on runs are not finite."""
    found: dict[int, Any] = {}
    for n in progress_bar(widths, desc="coordinates", unit="width", leave=False, delay=1):
        try:
            found[n] = dict(run(program, n, seeds, progress=False))
        except NotFinite:
            if not found:  # where it is the right set-up
                raise
            return found, n
    return found, None


def _limits(trace: Trace, target: Setup, base: int) -> dict[str, np.ndarray]:
    """Sizes at infinite width of the right set-up; none where it has no limit."""
    program = Coordinates(trace, target, target, base).program()
    samples = SAMPLES if trace.recipe.optimizer.linear else PAIRED
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", PopulationWarning)  # too few samples to be held against
            found = find_limit(program, method="population", samples=samples)
    except (TensorProgramError, PopulationWarning):
        return {}
    return {name: np.sqrt(np.maximum(np.asarray(e.value, float), 0)) for name, e in found.items()}


def _asked(
    layer: Layer, trace: Trace, predicted: Mapping[str, list[float]], program: Any, squares: Mapping[int, Any]
) -> list[tuple[str, int]]:
    """What is judged of a layer, and after which steps: of updates, the first of their final order (readouts may start at 0)."""
    last = trace.steps
    asked = [(ACTIVATION, 0), (ACTIVATION, last), (CHANGE, last)]
    update = key(layer, UPDATE)
    if update in program:
        moves = [t for t in range(1, last + 1) if all((s[update][:, t] > 0).all() for s in squares.values())]
        if predicted:
            moves = [t for t in moves if predicted[update][t] >= min(predicted[update][-1], 0.0)]
        asked.append((UPDATE, min(moves, default=last)))
    asked.append((DECAY, 1))
    return [(what, t) for what, t in asked if key(layer, what) in program]


def _wanted(layer: Layer, what: str, step: int, should: Mapping[str, list[float]], target: str) -> tuple[float, float]:
    """The right exponent, and the least one that the right set-up has on the way to it."""
    if not should:
        return 0.0, -0.5 if layer.kind in (LOGITS, OUTPUT) else 0.0
    row = should[key(layer, what)]
    passing = [p for w in (ACTIVATION, CHANGE, what) for p in should.get(key(layer, w), []) if np.isfinite(p)]
    if target not in ("mup", "mean_field"):
        wanted = min(row[step], 0.0) if np.isfinite(row[step]) else 0.0
    elif what == ACTIVATION and step == 0 and layer.kind in (LOGITS, OUTPUT):
        return min(row[0], 0.0), -np.inf  # nothing is lost where it starts at 0
    elif what == UPDATE and row[-1] >= 0:
        wanted = min(row[step], 0.0)
    else:
        wanted = 0.0
    return wanted, min([*passing, wanted])


def _row(
    layer: Layer,
    what: str,
    step: int,
    fit: Fit,
    predicted: float | None,
    wanted: float,
    known: np.ndarray | None,
    verdict: str,
    reason: str,
    widths: tuple[int, ...],
) -> Row:
    size = None if known is None else float(known[step])
    distance = abs(float(fit.sizes[-1]) / size - 1) if size else None
    if size is not None and wanted < 0:  # its limit is 0
        size, distance = 0.0, None
    return Row(
        layer.name, layer.kind, what, step, fit.exponent, fit.error, predicted, wanted, size, distance, verdict, reason,
        widths, tuple(map(float, fit.sizes)), tuple(map(float, fit.errors)),
    )  # fmt: skip
