"""The command `predict`: what networks of infinite width have learned by a time, from files of data and targets."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tensorprog.faces.answer import Answer
from tensorprog.faces.files import CommandError, assignments, load_model
from tensorprog.language.program import Program

__all__ = ["predict", "predict_arguments", "times"]

FIRST = [0.0, 1.0, 10.0, 100.0, 1000.0, math.inf]
"""Times that are shown where none are asked for."""


def times(text: str) -> list[float]:
    """Times with commas between them; `inf` is infinity.

    Example:
        >>> times("0,1e3,inf")
        [0.0, 1000.0, inf]
    """
    return [float(part) for part in text.split(",") if part.strip()]


def predict_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE, the data, and how it is trained."""
    parser.add_argument("file", metavar="FILE", help="a Python file whose build(**parameters) returns a Network")
    parser.add_argument(
        "--set", action="append", default=[], metavar="name=value", help="parameters of build(): Python literals"
    )
    parser.add_argument("--train", required=True, metavar="X.npy", help="the training examples")
    parser.add_argument("--targets", required=True, metavar="y.npy", help="their targets")
    parser.add_argument("--test", metavar="Xt.npy", help="examples to predict")
    parser.add_argument("--parametrization", choices=("ntk", "tp", "standard"), default="ntk")
    parser.add_argument("--width", type=int, metavar="N", help="of the standard parametrization")
    parser.add_argument("--times", type=times, metavar="0,1,inf", help="of gradient flow (default 0,1,10,100,1000,inf)")
    parser.add_argument(
        "--steps", type=times, metavar="0,10", help="numbers of steps of gradient descent, in place of times"
    )
    parser.add_argument("--lr", type=float, help="their learning rate")
    parser.add_argument("--momentum", type=float, default=0.0)
    parser.add_argument("--get", choices=("ntk", "nngp"), default="ntk", help="nngp: the readout alone is trained")
    parser.add_argument("--f0", choices=("prior", "zero", "draw"), help="outputs at the start (default: prior)")
    parser.add_argument("--rng", type=int, default=0, help="seed of a draw (default 0)")
    parser.add_argument("--loss", choices=("mse", "logistic", "cross_entropy"), default="mse")
    parser.add_argument("--diag-reg", type=float, metavar="R", help="added to the diagonal, in units of its mean")
    parser.add_argument(
        "--noise", type=float, metavar="S", help="standard deviation of the targets' noise: when to stop"
    )
    parser.add_argument(
        "--values", action="append", default=[], metavar="name=value", help="numbers for hyperparameters (tp.Scalar)"
    )
    parser.add_argument("--plot", metavar="out.svg", help="draw outputs against time (needs matplotlib)")


def predict(args: argparse.Namespace, check_picture: Callable[[str | None], None]) -> Answer:
    """Training in function space: the outputs of infinitely wide networks at times of training, with their errors."""
    import numpy as np

    from tensorprog.function_space.predict import predict as of
    from tensorprog.kernels.function import kernel_fn

    check_picture(args.plot)
    if args.times is not None and args.steps is not None:
        raise CommandError("--times are of gradient flow, --steps of gradient descent: give one of them")
    model = load_model(args.file, {}, args.set, args.train)
    if isinstance(model.what, Program):
        raise CommandError(f"{args.file} is a program: predictions are of networks")
    y = _array("--targets", args.targets)
    tests = None if args.test is None else _array("--test", args.test)
    kernel = kernel_fn(model.what, args.parametrization, args.width)
    values = assignments("--values", args.values) or None
    pred = of(kernel, model.X, y, tests, diag_reg=args.diag_reg, loss=args.loss, values=values)
    if args.steps is not None:
        found = pred(steps=args.steps, lr=args.lr, momentum=args.momentum, get=args.get, f0=args.f0, rng=args.rng)
    else:
        last = FIRST if args.loss == "mse" else FIRST[:-1]
        found = pred(t=last if args.times is None else args.times, get=args.get, f0=args.f0, rng=args.rng)
    own = pred.of(args.get)
    rate = own.max_learning_rate
    data: dict[str, Any] = found.to_json() | {"max_learning_rate": rate.to_json(), "examples": pred.problem.examples}
    lines = [repr(own), f"largest stable learning rate {rate}", str(own.components), "", str(found)]
    if args.noise is not None:
        stop = own.early_stopping(args.noise, f0=args.f0)
        data["early_stopping"] = {"t": stop.time, "error": stop.risk, "noise": stop.noise}
        lines.append(str(stop))
    if args.plot:
        from tensorprog.analysis.plot import plot_predictions

        shown = "mean" if tests is not None else "train_mean"
        mean = getattr(found, shown).reshape(len(found.at), -1)
        spread = (
            np.sqrt(found.variance).reshape(mean.shape)
            if found.has("variance") and mean.size == found.variance.size
            else None
        )
        plot_predictions(found.at, mean, spread, "step" if args.steps is not None else "time t", args.plot)
    return Answer("\n".join(lines), data, remark=f"picture: {args.plot}" if args.plot else "")


def _array(option: str, path: str) -> Any:
    import numpy as np

    if not Path(path).exists():
        raise CommandError(f"{option}: there is no file {path}")
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise CommandError(f"{option} {path}: {error}") from None
    return found if isinstance(found, np.ndarray) else dict(found)
