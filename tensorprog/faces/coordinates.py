"""The command `coord-check`: are the coordinates of a network in training of the right order at every width?"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from tensorprog.faces.answer import Answer
from tensorprog.faces.arguments import seeds, whole, whole_numbers
from tensorprog.faces.files import CommandError, assignments, load_model
from tensorprog.language.program import Program

__all__ = ["coord_check", "coord_check_arguments"]


def coord_check_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE, the parametrization, and sizes."""
    parser.add_argument(
        "file",
        metavar="FILE",
        help="a Python file whose build(**parameters) returns a run of training, tp.sgd(..), or a Network with data()",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="name=value",
        help="parameters of build() and data(): Python literals",
    )
    parser.add_argument("--data", metavar="X.npy", help="inputs of a Network in place of those of data()")
    parser.add_argument(
        "--parametrization",
        metavar="mup",
        help="mup, ntk, standard, mean_field or pytorch (default: that of the run, or mup)",
    )
    for letter, what in (("a", "multipliers n^-a"), ("b", "first entries n^-b"), ("c", "rates n^-c")):
        parser.add_argument(
            f"--{letter}",
            action="append",
            default=[],
            metavar="W=0",
            help=f"exponents of {what}, by the names of parameters",
        )
    parser.add_argument("--target", metavar="mup", help="what it should be (default: the parametrization, or mup)")
    parser.add_argument("--optimizer", choices=("sgd", "adam", "sign"), help="of a Network (default sgd)")
    parser.add_argument("--lr", type=float, default=0.1, help="of a Network, at the smallest width (default 0.1)")
    parser.add_argument("--widths", type=whole_numbers, action="extend", metavar="N", help="default: 64 to 1024")
    parser.add_argument("--steps", type=whole, default=3, help="of training (default 3)")
    parser.add_argument("--seeds", type=seeds, default=8, help="how many (0 .. k-1), or which (default 8)")
    parser.add_argument("--no-limit", action="store_true", help="do not compute the sizes at infinite width")
    parser.add_argument("--plot", metavar="out.svg", help="draw sizes against width (needs matplotlib)")


def coord_check(args: argparse.Namespace, check_picture: Callable[[str | None], None]) -> Answer:
    """Sizes of activations, their changes and updates against width: measured, predicted, and judged."""
    from tensorprog.coordinates.check import WIDTHS
    from tensorprog.coordinates.check import coord_check as check
    from tensorprog.coordinates.setup import Exponents
    from tensorprog.training.optimizers import SGD, Adam, SignSGD

    check_picture(args.plot)
    model = load_model(args.file, {}, args.set, args.data)
    if model.trace is None and isinstance(model.what, Program):
        raise CommandError(f"{args.file} is a program: coordinate checks are of networks in training")
    own = {letter: assignments(f"--{letter}", getattr(args, letter)) for letter in "abc"}
    scheme = args.parametrization
    if any(own.values()):
        scheme = Exponents(scheme or "mup", a=own["a"], b=own["b"], c=own["c"])
    how = {
        "parametrization": scheme, "target": args.target, "widths": args.widths or WIDTHS, "seeds": args.seeds,
        "limit": not args.no_limit,
    }  # fmt: skip
    if model.trace is not None:
        if args.optimizer:
            raise CommandError(f"{args.file} is a run of training, which has an optimizer: leave out --optimizer")
        found = check(model.trace, **how)
    else:
        optimizer = {"sgd": SGD, "adam": Adam, "sign": SignSGD}[args.optimizer or "sgd"]()
        found = check(model.what, model.X, optimizer=optimizer, lr=args.lr, steps=args.steps, **how)
    if args.plot:
        found.plot(args.plot)
    return Answer(str(found), found.to_json(), remark=f"picture: {args.plot}" if args.plot else "")
