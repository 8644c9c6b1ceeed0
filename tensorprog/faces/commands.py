"""The commands of the command line: one function each, and the table that lists them."""

from __future__ import annotations

import argparse
import importlib.util
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensorprog.faces import arguments
from tensorprog.faces.answer import Answer
from tensorprog.faces.coordinates import coord_check as coordinates_checked
from tensorprog.faces.coordinates import coord_check_arguments
from tensorprog.faces.depth import depth as deep
from tensorprog.faces.depth import depth_arguments
from tensorprog.faces.files import CommandError, Model, assignments, load_model
from tensorprog.faces.predict import predict as predicted
from tensorprog.faces.predict import predict_arguments
from tensorprog.language.program import Program
from tensorprog.progress import Interrupted

if TYPE_CHECKING:
    from tensorprog.estimate import Estimates
    from tensorprog.execute.executor import Runs

__all__ = ["COMMANDS", "Command", "check_picture", "plain"]


@dataclass(frozen=True)
class Command:
    """A row of the table: what `tensorprog NAME` takes, and the function that answers."""

    name: str
    help: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], Answer]


# ---- the commands ----


def show(args: argparse.Namespace) -> Answer:
    """The program's text, or its limit's formulas in LaTeX; and its picture."""
    program = _program(args)
    remark = ""
    if args.svg:
        from tensorprog.drawing.picture import picture

        picture(program, theme=args.theme).save(args.svg)
        remark = f"drawn in {args.svg}"
    if args.latex:
        from tensorprog.limits.formula.formula import formula as find_formula

        text = find_formula(program).latex()
        return Answer(text, {"latex": text, "outputs": _axes(program)}, remark=remark)
    return Answer(str(program), {"text": str(program), "outputs": _axes(program)}, remark=remark)


def limit(args: argparse.Namespace) -> Answer:
    """The infinite-width limit of every output."""
    from tensorprog.limits.limit import limit as find_limit

    found = find_limit(
        _subject(args),
        method=args.method,
        gia=args.gia,
        values=_values(args),
        samples=args.samples,
        rng=args.rng,
        tol=args.tol,
        budget=args.budget,
    )
    outputs = {name: item.to_json() | {"axes": list(found.axes.get(name, ()))} for name, item in found.items()}
    return Answer(str(found), {"outputs": outputs, "gia": args.gia})


def formula(args: argparse.Namespace) -> Answer:
    """The limit as formulas; of a network, its kernels of two examples in terms of their inner products."""
    import sympy

    from tensorprog.limits.formula.formula import formula as find_formula

    model, options = _model(args)
    if isinstance(model.what, Program) or args.data is not None:
        found = find_formula(_program(args), gia=args.gia)
    else:
        found = find_formula(model.what, model.shape, gia=args.gia, **options)
    outputs = {name: _formula_json(sympy, expression) for name, expression in found.items()}
    lets = [{"name": str(a), "formula": str(b), "latex": sympy.latex(b)} for a, b in found.lets]
    data = {"outputs": outputs, "lets": lets, "legend": found.legend, "gia": args.gia}
    if args.latex:
        return Answer(found.latex(), data | {"latex": found.latex()})
    return Answer(str(found), data)


def run(args: argparse.Namespace) -> Answer:
    """Runs at one finite width; an interrupt keeps the seeds that are done."""
    from tensorprog.execute.executor import run as run_program

    model, options = _model(args)
    if model.trace is not None:
        program: Any = model.trace
    else:
        program = model.program(**({} if isinstance(model.what, Program) else {"of": "all", **options}))
    remark = ""
    try:
        found = run_program(program, args.n, args.seeds, weights=args.weights, gia=args.gia, values=_values(args))
    except Interrupted as stop:
        remark, found = str(stop), stop.partial
    return Answer(str(found), _runs_json(found), bool(remark), remark)


def compare(args: argparse.Namespace) -> Answer:
    """Runs at several widths against the limit; an interrupt keeps the widths that are done."""
    from tensorprog.analysis.compare import compare as compare_program
    from tensorprog.limits.limit import limit as find_limit

    check_picture(args.plot)
    program, values = _subject(args), _values(args)
    if args.gia and args.against_gia:
        raise CommandError("--gia runs networks with copies, --against-gia the networks as they are: give one of them")
    against: dict[str, Any] = {}
    if isinstance(program, Program):  # a run of training has one for every network
        against["against"] = find_limit(program, gia=args.gia or args.against_gia, values=values, rng=args.rng)
    elif args.against_gia:
        raise CommandError(f"{args.file} is a run of training: leave out --against-gia")
    interrupted, remarks = False, []
    try:
        found = compare_program(
            program,
            args.widths,
            args.seeds,
            **against,
            rng=args.rng,
            values=values,
            gia=args.gia,
            weights=args.weights,
            resume=args.resume,
        )
    except Interrupted as stop:
        interrupted = True
        remarks.append(f"interrupted after {len(stop.rows)} runs; finished widths are kept")
        if stop.partial is None:
            return Answer("", {"outputs": {}}, True, remarks[0])
        found = stop.partial
    head = "Compared with the answer of the gradient independence assumption.\n\n" if args.against_gia else ""
    if args.plot:
        found.plot(args.plot)
        remarks.append(f"picture: {args.plot}")
    if args.gia:
        head = "Runs and limit under the gradient independence assumption.\n\n"
    data = found.to_json() | {"against": "gia" if args.against_gia else "limit", "gia": args.gia}
    return Answer(head + str(found), data, interrupted, "; ".join(remarks))


def train(args: argparse.Namespace) -> Answer:
    """The loss at every step of a run of training: the limit beside finite widths."""
    import numpy as np

    from tensorprog.analysis.compare import compare as compare_trace

    check_picture(args.plot)
    trace: Any = _model(args)[0].trace
    if trace is None:
        raise CommandError(f"{args.file} is no run of training: let build() return tp.sgd(net, X, y, steps=.., lr=..)")
    found = compare_trace(
        trace,
        args.widths,
        args.seeds,
        values=_values(args),
        rng=args.rng,
        weights=args.weights,
        resume=args.resume,
    )
    loss = found.outputs["loss"]
    limit = np.asarray(loss.limit.value, float)
    means = [s.mean(axis=0) for s in loss.samples]
    spreads = [s.std(axis=0, ddof=1) if len(s) > 1 else np.zeros(s.shape[1:]) for s in loss.samples]
    heads = ["limit", *[f"n = {n}" for n in found.widths]]
    lines = [str(trace), "", "loss".ljust(6) + "".join([h.rjust(22) for h in heads])]
    for t, value in enumerate(limit):
        cells = [f"{value:.6g}", *[f"{m[t]:.6g} ± {s[t]:.2g}" for m, s in zip(means, spreads, strict=True)]]
        lines.append(str(t).ljust(6) + "".join([c.rjust(22) for c in cells]))
    lines.append(f"mean ± standard deviation over {len(found.seeds)} seeds")
    if not trace.learns_features:
        lines.append(
            "every network as if it had started at f0 = 0: moved by the limit from there less that from its own f0"
        )
    if args.plot:
        from tensorprog.analysis.plot import plot_losses

        plot_losses(limit, dict(zip(found.widths, zip(means, spreads, strict=True), strict=True)), args.plot)
    remark = f"picture: {args.plot}" if args.plot else ""
    return Answer("\n".join(lines) + "\n\n" + str(found), found.to_json(), remark=remark)


def sweep(args: argparse.Namespace) -> Answer:
    """The loss against a hyperparameter, in the limit and at finite widths; an interrupt keeps the widths that are done."""
    from tensorprog.training.sweep import sweep as sweep_over

    check_picture(args.plot)
    ((name, values),) = assignments("--over", [args.over]).items()
    model = _model(args)[0]

    def made(**given: Any) -> Any:
        anew = load_model(args.file, given, args.set, None)
        return anew.trace or anew.program()

    subject: Any = model.trace or model.program()
    known = name in model.program().scalars or (model.trace is not None and name == "lr")
    remark, interrupted = "", False
    try:
        found = sweep_over(
            subject if known else made,
            widths=args.widths,
            seeds=args.seeds,
            of=args.output,
            refine=args.refine,
            samples=args.samples,
            values=_values(args),
            weights=args.weights,
            rng=args.rng,
            out=args.out,
            **{name: values},
        )
    except Interrupted as stop:
        remark, interrupted, found = str(stop), True, stop.partial
        if found is None:
            return Answer("", {"outputs": {}}, True, remark)
    if args.plot:
        found.plot(args.plot)
        remark = "; ".join(filter(None, (remark, f"picture: {args.plot}")))
    return Answer(str(found), found.to_json(), interrupted, remark)


def gia(args: argparse.Namespace) -> Answer:
    """Is the gradient independence assumption right, and where does it fail?"""
    from tensorprog.analysis.gia import check_gia

    settings = {"values": _values(args), "rng": args.rng, "widths": args.widths, "seeds": args.seeds}
    model, options = _model(args)
    if isinstance(model.what, Program):
        found = check_gia(model.what, args.readouts, **settings)
    elif args.readouts:
        raise CommandError("a network knows its readout vectors: leave out --readouts")
    else:
        found = check_gia(model.what, model.X, X2=model.X2, **settings, **options)
    return Answer(str(found), found.to_json())


def kernel(args: argparse.Namespace) -> Answer:
    """The infinite-width kernels of a network on its data: NNGP and NTK."""
    check_picture(args.plot)
    model, options = _model(args)
    if isinstance(model.what, Program):
        raise CommandError(f"{args.file} is a program: kernels are of networks; its limit is `tensorprog limit`")
    how = {"method": args.method, "tol": args.tol, "budget": args.budget, "gia": args.gia}
    found = _kernels(model, _values(args), how, **options)
    if args.plot:
        from tensorprog.analysis.plot import plot_kernels

        plot_kernels(found, args.plot)
    outputs = {name: item.to_json() | {"axes": list(found.axes.get(name, ()))} for name, item in found.items()}
    return Answer(str(found), {"outputs": outputs}, remark=f"picture: {args.plot}" if args.plot else "")


def _kernels(
    model: Model, values: dict[str, Any] | None, how: dict[str, Any], of: Any = None, **options: Any
) -> Estimates:
    """By `tp.kernel_fn`, each number with the largest error."""
    import numpy as np

    from tensorprog.estimate import Estimate, Estimates
    from tensorprog.kernels.function import kernel_fn
    from tensorprog.networks.inputs import EXAMPLE
    from tensorprog.networks.outputs import OTHER, OUTPUTS
    from tensorprog.networks.samples import batches

    net = model.what
    assert not isinstance(net, Program)
    names = tuple(k for k in net.wanted(of, batches(net.inputs, model.X, net.source)) if k != "f")
    if not names:
        raise CommandError("--of f: that is no kernel; use nngp, ntk or ntk_NAME")
    found = kernel_fn(net, **how, **options)(model.X, model.X2, get=names, values=values)
    items = {}
    for name, value in zip(found._fields, found, strict=True):
        error = np.full(value.shape, found.error[name])
        items[name] = Estimate(value, error, found.method[name], found.kind[name], found.note[name])
    axes = (EXAMPLE, OTHER, *OUTPUTS)
    return Estimates(items, {name: axes[: item.value.ndim] for name, item in items.items()})


def coord_check(args: argparse.Namespace) -> Answer:
    """Sizes of activations, their changes and updates against width: measured, predicted, and judged."""
    return coordinates_checked(args, check_picture)


def depth(args: argparse.Namespace) -> Answer:
    """An activation or a block of layers, repeated: fixed points, phase, the tangent kernel at any depth, its rate."""
    return deep(args, check_picture)


def predict(args: argparse.Namespace) -> Answer:
    """Training in function space: the outputs of infinitely wide networks at times of training, with their errors."""
    return predicted(args, check_picture)


def regularity(args: argparse.Namespace) -> Answer:
    """Which Master Theorem covers the program?"""
    from tensorprog.analysis.regularity import check_regularity

    found = check_regularity(_program(args), values=_values(args))
    return Answer(str(found), found.to_json())


def demo(args: argparse.Namespace) -> Answer:
    """The main job, on what is inside the package."""
    from tensorprog.faces.demo import run_demo

    check_picture(args.plot, library=False)  # without matplotlib the demo says so and goes on
    return run_demo(args.widths, args.seeds, plot=args.plot, quiet=args.json)


# ---- the table ----

COMMANDS = (
    Command("show", "print the program", arguments.show_arguments, show),
    Command("limit", "the infinite-width limit of every output", arguments.limit_arguments, limit),
    Command("formula", "the limit as formulas", arguments.formula_arguments, formula),
    Command("run", "run it at one finite width", arguments.run_arguments, run),
    Command(
        "compare", "finite widths against the limit: deviations, rate, verdict", arguments.compare_arguments, compare
    ),
    Command("train", "the loss at every step: the limit beside finite widths", arguments.train_arguments, train),
    Command("sweep", "the loss against a learning rate, in the limit and at widths", arguments.sweep_arguments, sweep),
    Command("gia", "is gradient independence right, and where does it fail", arguments.gia_arguments, gia),
    Command("kernel", "the kernels of a network on its data: NNGP and NTK", arguments.kernel_arguments, kernel),
    Command("coord-check", "is the parametrization right: sizes against width", coord_check_arguments, coord_check),
    Command("predict", "training in function space: what is learned by a time", predict_arguments, predict),
    Command("depth", "a layer that is repeated: phases, and the tangent kernel at any depth", depth_arguments, depth),
    Command("regularity", "which Master Theorem covers the program", arguments.regularity_arguments, regularity),
    Command("demo", "gradient independence and real digits, without any file", arguments.demo_arguments, demo),
)


# ---- what they share ----


def _model(args: argparse.Namespace) -> tuple[Model, dict[str, Any]]:
    """What FILE defines, and the options for a network's program."""
    given = {"of": args.of, "parametrization": args.parametrization, "width": args.width}
    options = {k: v for k, v in given.items() if v is not None}
    model = load_model(args.file, {}, args.set, args.data)
    if options and isinstance(model.what, Program):
        raise CommandError(f"--{next(iter(options))} is for networks, and {args.file} is a program")
    return model, options


def _program(args: argparse.Namespace, of: str | None = None) -> Program:
    """The program of FILE; `of`: the outputs of a network's, where --of does not say."""
    model, options = _model(args)
    return model.program(**({"of": of, **options} if not isinstance(model.what, Program) else {}))


def _subject(args: argparse.Namespace) -> Any:
    """The program of FILE; or the trace, which has ways of its own to a limit and a comparison."""
    model, options = _model(args)
    return model.trace or model.program(**options)


def _values(args: argparse.Namespace) -> dict[str, Any] | None:
    return assignments("--values", args.values) or None


def check_picture(path: str | None, library: bool = True) -> None:
    """Refuses, before hours of runs, a picture that could not be drawn after them."""
    if path is None:
        return
    if not Path(path).suffix:
        raise CommandError(f"--plot {path}: the suffix says what to write; use {path}.svg or {path}.png")
    if not Path(path).resolve().parent.is_dir():
        raise CommandError(f"--plot {path}: there is no folder {Path(path).parent}")
    if library and importlib.util.find_spec("matplotlib") is None:
        raise CommandError("--plot needs matplotlib; install the extra: pip install 'tensorprog[plot]'")


def _axes(program: Program) -> dict[str, Any]:
    return {
        name: {"axes": dict(zip(o.axes, map(int, o.node.shape), strict=True))} for name, o in program.outputs.items()
    }


def _runs_json(found: Runs) -> dict[str, Any]:
    """Each output's mean over seeds as an estimate of its expectation at this width; the runs themselves as a table."""
    import numpy as np

    outputs = {}
    for name, a in found.items():
        error = a.std(axis=0, ddof=1) / math.sqrt(len(a)) if len(a) > 1 else np.full(a.shape[1:], math.nan)
        outputs[name] = {
            "value": a.mean(axis=0).tolist(),
            "error": error.tolist(),
            "method": f"mean of {len(a)} run(s) at n = {found.n}",
            "kind": "standard error",
            "axes": list(found.axes[name]),
        }
    table = {name: a.tolist() for name, a in found.items()}
    return {"outputs": outputs, "n": found.n, "seeds": list(found.seeds), "weights": found.weights, "runs": table}


def _formula_json(sympy: Any, expression: Any) -> dict[str, Any]:
    """With a value where the formula is a number; an array or an unevaluated expectation has none (see `limit`)."""
    e = sympy.sympify(expression)
    out: dict[str, Any] = {"value": None, "error": None, "method": "formula", "kind": "exact"}
    if getattr(e, "is_Rational", False):
        out |= {"value": int(e) if e.is_Integer else float(e), "error": 0}
        out |= {} if e.is_Integer else {"exact": str(Fraction(int(e.p), int(e.q)))}
    elif getattr(e, "is_number", False):
        x = float(sympy.N(e, 17))
        out |= {"value": x, "error": abs(x) * 2.0**-52, "kind": "rounding"}
    return out | {"formula": str(e), "latex": sympy.latex(e)}


def plain(x: Any) -> Any:
    """JSON has no infinities: what is not finite becomes null.

    Example:
        >>> plain({"error": float("nan"), "runs": [1.0, float("inf")]})
        {'error': None, 'runs': [1.0, None]}
    """
    if isinstance(x, Mapping):
        return {str(k): plain(v) for k, v in x.items()}
    if isinstance(x, Iterable) and not isinstance(x, str):
        return [plain(v) for v in x]
    return None if isinstance(x, float) and not math.isfinite(x) else x
