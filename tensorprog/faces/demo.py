"""`tensorprog demo`: the main job in one minute, on what is inside the package.

1. The counterexample to gradient independence (Tensor Programs II, 6.3): exact limit 2, GIA says 0, and networks of
   width 64 to a million decide.
2. Forward covariances of a relu network on a hundred real digits: the limit, finite widths, and the rate n^-1/2.
3. A network trained on digits, in the NTK parametrization and in muP: the limits, and networks beside them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorprog.analysis.compare import Comparison, compare
from tensorprog.analysis.means import FAMILY_ERROR
from tensorprog.data import digits
from tensorprog.errors import TensorProgramError
from tensorprog.estimate import Estimates
from tensorprog.faces.answer import Answer
from tensorprog.faces.demo_training import Training, draw_training, training
from tensorprog.language.build import moment, relu, rename
from tensorprog.language.leaves import Vector
from tensorprog.language.matrix import Matrix
from tensorprog.language.program import Program
from tensorprog.language.symbols import Width
from tensorprog.limits.limit import limit
from tensorprog.progress import Interrupted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["counterexample", "covariances", "draw", "run_demo"]

WIDTHS = (64, 256, 1024, 4096, 16384, 65536, 262144, 10**6)
SMALL_WIDTHS = (64, 256, 1024)
ALL_IMAGES_UP_TO = 16384
"""Up to this width all images; a run with 100 images needs 8 n 100 bytes for each of about eight multi-vectors."""
TRAINED, TRAINED_SMALL = 10**5, 1024
"""The widest networks that are trained, if there are narrower ones."""
FEW = 10
SHOWN_WIDTH = 1024
"""The width whose kernel is drawn: noise that the eye sees, and structure too."""


def counterexample() -> Program:
    """A gradient that remembers its weights: dx = W.T (2 W x) for x constant 1.

    Example:
        >>> limit(counterexample())
        mean_dx = 2 (exact)
    """
    n = Width("n")
    W, x = Matrix("W", n, n, var=1), Vector("x", n, mean=1, var=0)
    return Program(mean_dx=moment(W.T @ (2 * (W @ x))))


def covariances(X: np.ndarray, depth: int = 3) -> Program:
    """The covariances x_L(xi).x_L(xi')/n of a relu network, weights of variance 2/fan-in, no biases.

    Args:
        X: Images as rows, shape (images, d).
        depth: L, the number of layers.

    Example:
        >>> found = limit(covariances(np.array([[1.0, 1.0], [1.0, -1.0]])))["cov"]
        >>> np.round(np.asarray(found), 4)
        array([[1.    , 0.6048],
               [0.6048, 1.    ]])
    """
    n = Width("n")
    h = Vector("h1", n, axes=("image",), cov=2 * (X @ X.T) / X.shape[1])
    for layer in range(2, depth + 1):
        h = Matrix(f"W{layer}", n, n, var=2) @ relu(h)
    x = relu(h)
    return Program(cov=moment(x * rename(x, image="other")))


def images() -> tuple[np.ndarray, np.ndarray]:
    """The digits, the mean image taken off, each scaled to |xi|^2 = d; and their labels."""
    X, labels = digits()
    X = X - X.mean(axis=0)
    return X * np.sqrt(X.shape[1]) / np.linalg.norm(X, axis=1, keepdims=True), labels


def run_demo(
    widths: Sequence[int] | None = None, seeds: int | None = None, *, plot: str | None = None, quiet: bool = False
) -> Answer:
    """Runs it and prints while it goes.

    Args:
        widths: By default 64 to 10^6, or three small ones where the environment has TENSORPROG_SMALL.
        seeds: By default 32 for the counterexample, 8 for the digits.
        plot: Where the picture goes; by default `tensorprog-demo.svg` and `.png` in the current folder.
        quiet: Print nothing (for `--json`).

    Raises:
        TensorProgramError: Fewer than two seeds.
    """
    small = bool(os.environ.get("TENSORPROG_SMALL"))
    widths = sorted(widths or (SMALL_WIDTHS if small else WIDTHS))
    if seeds is not None and seeds < 2:
        raise TensorProgramError(f"--seeds {seeds}", why="spread is measured over seeds", fix="give 2 or more")
    say = _silent if quiet else _say
    start = time.perf_counter()
    data: dict[str, Any] = {"outputs": {}}
    remark = ""
    try:
        truth, gia = _first(widths, seeds or (16 if small else 32), say, data)
        kernel = _second(widths, seeds or (4 if small else 8), say, data)
        trained = [n for n in widths if n <= (TRAINED_SMALL if small else TRAINED)] or widths[:1]
        runs = _third(trained, seeds or 2, say, data)
    except Interrupted as stop:
        if stop.partial is not None:
            say(f"\n{stop.partial}")
        return Answer("", data, True, f"interrupted after {len(stop.rows)} runs of this part")
    except KeyboardInterrupt:
        return Answer("", data, True, "interrupted")
    paths = [plot] if plot else ["tensorprog-demo.svg", "tensorprog-demo.png"]
    try:
        figure = draw(truth, gia, *kernel, runs)
        for path in paths:
            figure.savefig(path, dpi=160)
        say(f"\nPicture: {', '.join(paths)}")
        data["picture"] = paths
    except ImportError:
        remark = "no picture, as matplotlib is not installed: pip install 'tensorprog[plot]'"
    except (OSError, ValueError) as error:  # a folder that cannot be written to, a suffix that matplotlib does not know
        if plot:
            raise TensorProgramError(f"cannot save the picture as {plot!r}: {error}") from None
        remark = f"no picture: {error}"
    data["seconds"] = round(time.perf_counter() - start, 1)
    say(f"Done in {data['seconds']:.0f} s.")
    return Answer("", data, False, remark)


def _say(text: str) -> None:
    print(text, flush=True)


def _silent(text: str) -> None:
    pass


# ---- part one ----


def _first(
    widths: Sequence[int], seeds: int, say: Callable[[str], None], data: dict[str, Any]
) -> tuple[Comparison, Comparison]:
    program = counterexample()
    truth, gia = limit(program), limit(program, gia=True)
    say(f"{_title('1. A gradient that remembers its weights')}\n")
    say("Forward h = W x with x = (1, ..., 1), output mean(h^2); backward dx = W.T (2 h). As a Tensor Program:\n")
    say("    " + str(program).replace("\n", "\n    "))
    say(f"\n    infinite width, exactly:                    mean_dx = {truth['mean_dx'].value}")
    say(f"    if gradients were independent (GIA):        mean_dx = {gia['mean_dx'].value}")
    say(
        f"\nWho is right? Finite networks, {seeds} seeds each (above n = 512 with W sampled only where it is looked at,"
    )
    say("exactly in law, so that a width of a million needs megabytes and not 8 terabytes):\n")
    found = compare(program, widths, range(seeds), against=truth)
    item = found.outputs["mean_dx"]
    wrong = Comparison.of({n: {"mean_dx": row} for n, row in zip(found.widths, item.samples, strict=True)}, gia)
    say(f"    {'width n':>9}  {'mean of mean_dx over seeds':>27}  {'off the limit 2':>15}  {'off GIA 0':>10}")
    off = wrong.deviation["mean_dx"]
    for n, m, e, d, g in zip(found.widths, item.mean, item.mean_error, item.deviation, off, strict=True):
        say(f"    {n:>9}  {f'{m:.4f} ± {e:.4f}':>27}  {d:>15.4f}  {g:>10.4f}")
    say("\n" + _indented(_verdict(found, "the limit, 2") + "\n" + _verdict(wrong, "GIA's answer, 0")))
    data["outputs"] |= {name: estimate.to_json() for name, estimate in truth.items()}
    data["counterexample"] = {"limit": found.to_json(), "gia": wrong.to_json()}
    return found, wrong


def _verdict(found: Comparison, what: str) -> str:
    item = next(iter(found.outputs.values()))
    says = {True: "agree with", False: "REJECT", None: "do not decide about"}[found.agrees]
    p = (
        f" (p {'= ' if item.p_value >= 1e-9 else '< '}{max(item.p_value, 1e-9):.2g})"
        if item.p_value is not None
        else ""
    )
    return f"The runs {says} {what}{p}." + _slope(found)


def _slope(found: Comparison) -> str:
    slope = next(iter(found.slope.values()))
    return "" if slope is None else f" Slope of log deviation on log n: {float(slope):.3f} ± {float(slope.error):.3f}."


# ---- part two ----


def _second(
    widths: Sequence[int], seeds: int, say: Callable[[str], None], data: dict[str, Any]
) -> tuple[Comparison | None, Comparison, np.ndarray, np.ndarray, np.ndarray, int]:
    X, labels = images()
    programs = {len(X): covariances(X), FEW: covariances(X[:FEW])}
    start = time.perf_counter()
    limits: Mapping[int, Estimates] = {k: limit(p) for k, p in programs.items()}
    seconds = time.perf_counter() - start
    estimate = limits[len(X)]["cov"]
    say(f"\n{_title('2. A network on real digits')}\n")
    say(
        f"{len(X)} handwritten digits (8 x 8, mean image taken off, |xi|^2 = d), three relu layers, weights of variance"
    )
    say("2/fan-in. The limit kernel E x3(xi) x3(xi') of all pairs of images:")
    say(f"{estimate.method}, error at most {np.max(estimate.error):.0e}, {seconds:.2f} s.\n")
    narrow = [n for n in widths if n <= ALL_IMAGES_UP_TO]
    say(f"{seeds} seeds; all {len(X)} images up to n = {ALL_IMAGES_UP_TO}, the first {FEW} of them at all widths.")
    many = compare(programs[len(X)], narrow, range(seeds), against=limits[len(X)]) if narrow else None
    few = compare(programs[FEW], widths, range(seeds), against=limits[FEW])
    say("Relative deviation from the limit, Frobenius norm, root mean square over seeds:\n")
    say(f"    {'width n':>9}  {f'{len(X)} images':>17}  {f'{FEW} images':>17}")
    columns = [{} if c is None else _deviations(c) for c in (many, few)]
    for n in few.widths:
        say("    " + f"{n:>9}  " + "  ".join([f"{column.get(n, ''):>17}" for column in columns]))
    lines = [f"{k} images: {_verdict(c, 'the limit')}" for k, c in ((len(X), many), (FEW, few)) if c is not None]
    say("\n" + _indented("\n".join(lines)))
    say(f"\n    (A right limit would be rejected with probability {FAMILY_ERROR:g} at most.)")
    shown = max([n for n in narrow if n <= SHOWN_WIDTH], default=None)
    if many is None or shown is None:  # only huge widths were asked for: draw what there is
        shown, source, labels, target = few.widths[0], few, labels[:FEW], np.asarray(limits[FEW]["cov"])
    else:
        source, target = many, np.asarray(estimate)
    kernel = source.outputs["cov"].samples[source.widths.index(shown), 0]
    data["digits"] = {f"{k} images": _short(c) for k, c in ((len(X), many), (FEW, few)) if c is not None}
    return many, few, target, kernel, labels, shown


def _third(widths: Sequence[int], seeds: int, say: Callable[[str], None], data: dict[str, Any]) -> Training:
    X, labels = images()
    say(f"\n{_title('3. Training: a kernel, or features that move')}\n")
    say(
        "Four images of each of two digits, two tanh layers, four steps of gradient descent; the whole run is one program."
    )
    say(
        "In the NTK parametrization its limit is kernel gradient descent, and features stay; in muP they move at any width."
    )
    say(f"{seeds} seeds; loss at the end, and by how much of itself the last layer's mean square has moved:\n")
    return training(X, labels, widths, seeds, say, data)


def _deviations(c: Comparison) -> dict[int, str]:
    item = c.outputs["cov"]
    rows = zip(c.widths, item.deviation, item.deviation_error, strict=True)
    return {n: f"{d:.5f} ± {e:.5f}" for n, d, e in rows}


def _short(c: Comparison) -> dict[str, Any]:
    """A comparison's table without the kernels themselves, which have ten thousand entries."""
    whole = c.to_json()
    item = whole["outputs"]["cov"]
    kept = ("method", "kind", "deviation", "deviation_error", "slope", "p_value", "agrees")
    return {"widths": whole["widths"], "seeds": whole["seeds"]} | {key: item[key] for key in kept}


def _title(text: str) -> str:
    return f"{text}\n{'=' * len(text)}"


def _indented(text: str) -> str:
    return "    " + text.replace("\n", "\n    ")


# ---- the picture ----

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "0.35"  # Okabe and Ito: told apart with any colour vision


def draw(
    truth: Comparison,
    gia: Comparison,
    many: Comparison | None,
    few: Comparison,
    target: np.ndarray,
    kernel: np.ndarray,
    labels: np.ndarray,
    width: int,
    runs: Training,
) -> Figure:
    """Deviation against width, the digits' kernel at infinite width beside that of one finite network, and training.

    Args:
        truth: The counterexample against its limit.
        gia: The same runs against GIA's answer.
        many: All images against their limit, if there were widths for them.
        few: The first ten.
        target: The limit kernel, shape (images, images).
        kernel: One network's.
        labels: The digit of each image.
        width: That network's width.
        runs: The third part.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    whole = Figure(figsize=(13.2, 8.8), layout="constrained")
    parts: Any = whole.subfigures(2, 1, height_ratios=(4.7, 4.1), hspace=0.04)
    figure = parts[0]
    draw_training(parts[1], runs)
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.25, 1, 1))
    _draw_deviations(left, truth, gia, many, few)
    order = np.argsort(labels, kind="stable")
    sizes = [len(list(group)) for _, group in groupby(labels[order])]
    edges = np.concatenate([[0], np.cumsum(sizes)])
    shared = {"vmin": max(0.0, target.min() - 0.1), "vmax": max(1.0, target.max()), "cmap": "viridis"}
    for ax, matrix, title in (
        (middle, target, "Digits: covariance at infinite width"),
        (right, kernel, f"in one network, n = {width}"),
    ):
        image = ax.imshow(matrix[np.ix_(order, order)], interpolation="nearest", **shared)
        ax.set_title(title, fontsize=11)
        middles = (edges[:-1] + edges[1:] - 1) / 2
        ax.set_xticks(middles, [str(k) for k in labels[order][edges[:-1]]])
        ax.set_yticks(middles, [str(k) for k in labels[order][edges[:-1]]])
        ax.tick_params(length=0)
        for edge in edges[1:-1]:
            ax.axhline(edge - 0.5, color="white", linewidth=0.5, alpha=0.6)
            ax.axvline(edge - 0.5, color="white", linewidth=0.5, alpha=0.6)
        for side in ax.spines.values():
            side.set_visible(False)
        ax.set_xlabel("digit")
    middle.set_ylabel("digit")
    bar = figure.colorbar(image, ax=(middle, right), shrink=0.82, pad=0.015, extend="both")
    bar.set_label(r"$x_3(\xi)\cdot x_3(\xi')\,/\,n$,  third layer, images $\xi$, $\xi'$")
    bar.outline.set_visible(False)
    return whole


def _draw_deviations(ax: Any, truth: Comparison, gia: Comparison, many: Comparison | None, few: Comparison) -> None:
    ax.set(xscale="log", yscale="log")
    curves = [(gia, "mean_dx", ORANGE, "s", "counterexample, from GIA's answer 0"), (truth, "mean_dx", BLUE, "o", "")]
    curves += [(many, "cov", GREEN, "^", "")] if many is not None else []
    curves += [(few, "cov", GREY, "D", "")]
    names = {BLUE: "counterexample, from its limit 2", GREEN: "digits: 100 images", GREY: f"digits: first {FEW} images"}
    for c, output, colour, marker, name in curves:
        item = c.outputs[output]
        # relative deviations throughout: the counterexample's by its true limit, also where GIA says 0
        scale = 1.0 if output == "cov" else float(np.asarray(truth.outputs[output].limit.value))
        y, error = item.deviation / scale, item.deviation_error / scale
        label = (name or names[colour]) + ("" if item.slope is None or name else f"  (slope {float(item.slope):.2f})")
        ax.errorbar(
            c.widths, y, np.stack([np.minimum(error, 0.9 * y), error]), color=colour, marker=marker, markersize=5,
            linewidth=1.6, capsize=2.5, label=label.replace("-", "\N{MINUS SIGN}"), zorder=3,
        )  # fmt: skip
    ends = np.array([min(few.widths), max(few.widths)], dtype=float)
    top = max([c.outputs["cov"].deviation[0] for c in (few, many) if c is not None])
    ax.plot(ends, 2 * top * np.sqrt(ends[0] / ends), ":", color="0.45", linewidth=1.8, label="guide: $n^{-1/2}$")
    low = min([c.outputs[output].deviation.min() for c, output, *_ in curves])
    ax.set_ylim(low / 12, 2.5)  # the legend goes below the curves
    ax.set_xlabel("width $n$")
    ax.set_ylabel("relative deviation (root mean square)")
    ax.set_title("Finite widths against the limit", fontsize=11)
    ax.grid(True, color="0.91", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.legend(frameon=False, fontsize=8.5, loc="lower left")
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
