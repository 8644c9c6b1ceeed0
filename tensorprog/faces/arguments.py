"""What each command takes: the options of the command line, and how their words are read."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Sequence

__all__ = [
    "compare_arguments",
    "demo_arguments",
    "file_arguments",
    "formula_arguments",
    "gia_arguments",
    "kernel_arguments",
    "limit_arguments",
    "names",
    "regularity_arguments",
    "run_arguments",
    "seeds",
    "show_arguments",
    "spread",
    "sweep_arguments",
    "train_arguments",
    "whole",
    "whole_numbers",
]


def whole(text: str) -> int:
    """A whole number as people write it.

    Example:
        >>> whole("64"), whole("1e6"), whole("10_000")
        (64, 1000000, 10000)
    """
    try:
        return int(text)
    except ValueError:
        x = float(text)  # argparse reports a ValueError as an invalid value
        if not math.isfinite(x) or x != int(x):
            raise ValueError(text) from None
        return int(x)


def whole_numbers(text: str) -> list[int]:
    """Whole numbers with commas between them.

    Example:
        >>> whole_numbers("64,256,1e6")
        [64, 256, 1000000]
    """
    return [whole(part) for part in text.split(",") if part.strip()]


def seeds(text: str) -> int | list[int]:
    """How many seeds, or, with a comma, which.

    Example:
        >>> seeds("8"), seeds("3,5"), seeds("7,")
        (8, [3, 5], [7])
    """
    return whole_numbers(text) if "," in text else whole(text)


def names(text: str) -> list[str]:
    """Names with commas between them.

    Example:
        >>> names("v, w")
        ['v', 'w']
    """
    return [part.strip() for part in text.split(",") if part.strip()]


_REPEATED = {"--set": r"[^\W\d]\w*\s*=", "--values": r"[^\W\d]\w*\s*=", "--widths": r"\d"}


def spread(words: Sequence[str]) -> list[str]:
    """Repeats the options that take several words, so that FILE may stand before or behind them.

    Example:
        >>> spread(["limit", "--set", "a=1", "b=2", "FILE"])
        ['limit', '--set', 'a=1', '--set', 'b=2', 'FILE']
    """
    out: list[str] = []
    option, first = "", False
    for word in words:
        if word in _REPEATED:
            option, first = word, True
        elif option and not first and re.match(_REPEATED[option], word):
            out.append(option)
        elif not first:
            option = ""
        else:
            first = False
        out.append(word)
    return out


def file_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE and --set."""
    parser.add_argument(
        "file",
        metavar="FILE",
        help="a Python file that defines build(**parameters), and for a network data(**parameters), its inputs; "
        "or a program's text (.tp)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="name=value",
        help="parameters of build() and data(), one or several: Python literals, and fractions such as 1/3",
    )
    of_networks = parser.add_argument_group("networks")
    of_networks.add_argument(
        "--data", metavar="X.npy", help="inputs in place of those of data(); .npz: one array an Input"
    )
    of_networks.add_argument("--of", type=names, metavar="nngp,ntk", help="which outputs: nngp, ntk, ntk_NAME, f")
    of_networks.add_argument("--parametrization", choices=("ntk", "tp", "standard"))
    of_networks.add_argument("--width", type=whole, metavar="N", help="of the standard parametrization")


def _hyperparameters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--values",
        action="append",
        default=[],
        metavar="name=value",
        help="numbers for the program's hyperparameters (tp.Scalar)",
    )


def _gia(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--gia", action="store_true", help="under the gradient independence assumption: W.T an independent copy"
    )


def _route(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--method", choices=("auto", "exact", "population"), default="auto")
    parser.add_argument("--tol", type=float, metavar="E", help="the relative error wanted")
    parser.add_argument("--budget", type=float, default=1.0, metavar="F", help="times the usual work (default 1)")


def _weights(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weights",
        choices=("auto", "dense", "lazy"),
        default="auto",
        help="dense matrices, or sampled where they are looked at (exact in law); default: what is cheaper",
    )


def _rng(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rng", type=whole, default=0, help="seed of a limit that has to be sampled (default 0)")


def show_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE, --latex and --svg."""
    file_arguments(parser)
    parser.add_argument("--svg", metavar="PATH", help="draw the program: a name that ends in .svg, .html, .tex or .txt")
    parser.add_argument("--theme", choices=("light", "dark"), default="light", help="of the picture")
    parser.add_argument("--latex", action="store_true", help="the limit's formulas in LaTeX")


def limit_arguments(parser: argparse.ArgumentParser) -> None:
    """How the limit is found."""
    file_arguments(parser)
    _hyperparameters(parser)
    _route(parser)
    _gia(parser)
    parser.add_argument(
        "--samples", type=whole, default=2**12, help="samples of a population, a power of two (default 4096)"
    )
    _rng(parser)


def formula_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE, --gia and --latex."""
    file_arguments(parser)
    _gia(parser)
    parser.add_argument("--latex", action="store_true", help="the formulas in LaTeX")


def run_arguments(parser: argparse.ArgumentParser) -> None:
    """One width and its seeds."""
    file_arguments(parser)
    _hyperparameters(parser)
    parser.add_argument("--n", type=whole, required=True, help="the width")
    parser.add_argument("--seeds", type=seeds, default=1, help="how many (0 .. k-1), or which, with commas (default 1)")
    _gia(parser)
    _weights(parser)


def compare_arguments(parser: argparse.ArgumentParser) -> None:
    """Widths, seeds, and what they are compared with."""
    file_arguments(parser)
    _hyperparameters(parser)
    parser.add_argument(
        "--widths", type=whole_numbers, action="extend", required=True, metavar="N", help="several: 64 256 or 64,256"
    )
    parser.add_argument("--seeds", type=seeds, default=32, help="how many (0 .. k-1), or which (default 32)")
    parser.add_argument(
        "--against-gia", action="store_true", help="compare the runs with GIA's answer in place of the limit"
    )
    _gia(parser)
    _weights(parser)
    _rng(parser)
    parser.add_argument("--plot", metavar="out.svg", help="draw the deviations (needs matplotlib)")
    parser.add_argument("--resume", metavar="FOLDER", help="keep finished runs here, and go on from them")


def train_arguments(parser: argparse.ArgumentParser) -> None:
    """Widths, seeds, and --plot."""
    file_arguments(parser)
    _hyperparameters(parser)
    parser.add_argument(
        "--widths", type=whole_numbers, action="extend", required=True, metavar="N", help="several: 64 256 or 64,256"
    )
    parser.add_argument("--seeds", type=seeds, default=8, help="how many (0 .. k-1), or which (default 8)")
    _weights(parser)
    _rng(parser)
    parser.add_argument("--plot", metavar="out.svg", help="draw the loss against the step (needs matplotlib)")
    parser.add_argument("--resume", metavar="FOLDER", help="keep finished runs here, and go on from them")


def sweep_arguments(parser: argparse.ArgumentParser) -> None:
    """The hyperparameter and its values, widths and seeds."""
    file_arguments(parser)
    _hyperparameters(parser)
    parser.add_argument(
        "--over",
        required=True,
        metavar="lr=[..]",
        help="the hyperparameter and its values: a tp.Scalar, the learning rate lr, or a parameter of build()",
    )
    parser.add_argument(
        "--widths", type=whole_numbers, action="extend", default=[], metavar="N", help="besides the limit"
    )
    parser.add_argument("--seeds", type=seeds, default=8, help="how many (0 .. k-1), or which (default 8)")
    parser.add_argument("--output", default="loss", metavar="NAME", help="what is wanted small (default: loss)")
    parser.add_argument("--refine", type=whole, default=4, help="values more beside the best (default 4)")
    parser.add_argument("--samples", type=whole, help="samples of a population, a power of two")
    _weights(parser)
    _rng(parser)
    parser.add_argument("--plot", metavar="out.svg", help="draw the loss against the hyperparameter (needs matplotlib)")
    parser.add_argument("--out", metavar="FOLDER", help="keep what is computed here, and go on from it")


def gia_arguments(parser: argparse.ArgumentParser) -> None:
    """The readouts, and widths for runs."""
    file_arguments(parser)
    _hyperparameters(parser)
    parser.add_argument(
        "--readouts", type=names, metavar="v,w", help="names of the readout vectors (default: search for them)"
    )
    parser.add_argument(
        "--widths", type=whole_numbers, action="extend", metavar="N", help="also compare runs with GIA's answer"
    )
    parser.add_argument("--seeds", type=seeds, default=32, help="how many (0 .. k-1), or which (default 32)")
    _rng(parser)


def kernel_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE, how the kernels are found, and --plot."""
    file_arguments(parser)
    _hyperparameters(parser)
    _route(parser)
    _gia(parser)
    parser.add_argument("--plot", metavar="out.svg", help="draw the kernels as heat maps (needs matplotlib)")


def regularity_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE and --values."""
    file_arguments(parser)
    _hyperparameters(parser)


def demo_arguments(parser: argparse.ArgumentParser) -> None:
    """Sizes and the picture; no FILE."""
    parser.add_argument("--widths", type=whole_numbers, action="extend", metavar="N", help="default: 64 to 1000000")
    parser.add_argument("--seeds", type=whole, help="seeds of each part")
    parser.add_argument("--plot", metavar="demo.svg", help="the picture (default: tensorprog-demo.svg and .png)")
