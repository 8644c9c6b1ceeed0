"""Kernels of networks, against neural-tangents 0.6.5: times, memory, accuracy.

Run: python benchmarks/kernels.py --peer ENV [--fast] [--only CASE ..] [--rounds K] [--write]
ENV is an environment of its own with neural-tangents, which needs an older JAX and NumPy than we have and, for parts that are
not used here, TensorFlow; `--make-peer ENV` makes it:

    python3 -m venv ENV
    ENV/bin/pip install --no-deps neural-tangents==0.6.5
    ENV/bin/pip install jax==0.5.3 jaxlib==0.5.3 "numpy<2" frozendict

Without --peer only our times are measured; with TENSORPROG_SMALL=1 sizes are small. `--large` evaluates a kernel of 20,000
examples into files. --write writes benchmarks/kernels.md.

Both sides are processes that answer requests (kernels_peer.py); each is asked in turn, so that a busy machine hits both. A first
call, and the peak memory, are those of a fresh process that has done its imports and builds the network; imports that we put off
are part of it. Reference values, for sampled entries: relu by its closed form in 30 digits, other functions by the trapezoidal
rule on the plane, which is exact to rounding for functions analytic in a strip.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from kernels_peer import CASES, SMALL_WIDTH, WIDTH, Case, Kernels, data, serve

HERE = Path(__file__).parent
SMALL = os.environ.get("TENSORPROG_SMALL") == "1"
FAST = "--fast" in sys.argv
ENTRIES = 12
"""Entries of each kernel that accuracy is measured on; the first two are on the diagonal."""


# ---- our side ----
def ours(case: str, shape: tuple[int, ...]) -> Kernels:
    """A case in our words."""
    import tensorprog as tp

    n = tp.Width("n")
    root = 2**0.5

    def mlp(phi: Any, depth: int, W_std: float, b_std: float | None = None) -> Any:
        h: Any = tp.Input("x")
        for k in range(depth):
            h = phi(tp.dense(f"W{k}", h, n, W_std=W_std, b_std=b_std))
        return tp.readout("v", h, W_std=W_std, b_std=b_std)

    match case:
        case "relu" | "relu4000":
            out = mlp(tp.relu, 3, root)
        case "erf":
            out = mlp(tp.erf, 10, 1.5, 0.1)
        case "gelu":
            out = mlp(tp.gelu, 3, 1.5, 0.1)
        case "tanh" | "tanh_unit":
            out = mlp(tp.tanh, 3, 1.5, 0.1)
        case "layer_norm":
            h: Any = tp.Input("x")
            for k in range(3):
                h = tp.relu(tp.layer_norm(tp.dense(f"W{k}", h, n, W_std=root, b_std=0.1)))
            out = tp.readout("v", h, W_std=root, b_std=0.1)
        case "residual":
            h = tp.dense("U", tp.Input("x"), n, W_std=root)
            for k in range(8):
                h = h + tp.dense(f"W{k}", tp.relu(h), n)
            out = tp.readout("v", tp.relu(h), W_std=root)
        case "attention":
            h = tp.relu(tp.dense("U", tp.Input("x", axes="t"), n, W_std=1.3, b_std=0.2))
            a = tp.self_attention("A", h, n, W_key_std=1.1, W_query_std=0.9, W_value_std=1.2, b_std=0.1, tied=True)
            out = tp.readout("v", tp.mean(tp.relu(a), "t"), W_std=1.3, b_std=0.2)
        case "cnn_pooled" | "cnn_flat":
            h = tp.Input("x", axes=("h", "w"))
            for k in range(3):
                h = tp.relu(tp.conv(f"W{k}", h, n, W_std=root))
            flat = case == "cnn_flat"
            out = tp.readout("v", h if flat else tp.global_avg_pool(h), W_std=root, over=("h", "w") if flat else ())
        case "empirical":
            net = tp.Network(mlp(tp.relu, 3, root))
            width = SMALL_WIDTH if SMALL else WIDTH

            def finite(X: np.ndarray) -> tuple[Any, ...]:
                return (tp.run(net.program(X, of="ntk"), n=width, seeds=[0])["ntk"][0],)

            return finite
    f = tp.kernel_fn(tp.Network(out), fast=FAST)
    return lambda X: tuple(f(X))


def worker() -> None:
    """Answers requests with tensorprog."""
    import tensorprog  # noqa: F401

    serve(ours, lambda found: found)


# ---- the driver ----
class Side:
    """A process that answers requests."""

    def __init__(self, command: list[str]) -> None:
        self.command = command
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """A fresh process, which is left alone until its imports are done."""
        self.stop()
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._answer()

    def ask(self, case: Case, what: str = "time", at: Any = None) -> dict[str, Any]:
        """The answer to one request."""
        if self.process is None:
            self.start()
        assert self.process is not None and self.process.stdin is not None
        request = {"case": case.name, "shape": case.small if SMALL else case.shape, "what": what, "at": at}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process is not None and self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(self.command)} ended: run it by hand to see why")
        return dict(json.loads(line))

    def stop(self) -> None:
        """Ends the process."""
        if self.process is not None:
            self.process.communicate()
            self.process = None


def measure(case: Case, sides: dict[str, Side], rounds: int) -> dict[str, dict[str, Any]]:
    """Name of a side to what was measured of it."""
    pairs = np.random.default_rng(1).integers(0, (case.small if SMALL else case.shape)[0], (ENTRIES, 2))
    pairs[:2, 1] = pairs[:2, 0]
    first: dict[str, dict[str, Any]] = {}
    for name, side in sides.items():
        side.start()
        first[name] = side.ask(case)
    warm: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            warm[name].append(side.ask(case)["seconds"])
    found = {}
    for name, side in sides.items():
        entries = side.ask(case, "entries", pairs.tolist())["entries"]
        found[name] = {
            "first": first[name]["seconds"],
            "best": min(warm[name]),
            "median": statistics.median(warm[name]),
            "bytes": first[name]["bytes"],
            "entries": np.array(entries),
        }
        side.stop()
    if case.name != "empirical":
        exact = reference(case, pairs)
        for name in sides:
            other = exact if exact is not None else found["ours"]["entries"]
            found[name]["error"] = float(np.max(np.abs(found[name]["entries"] - other) / np.abs(other)))
            found[name]["known"] = exact is not None
    return found


# ---- reference values ----
def reference(case: Case, pairs: np.ndarray) -> np.ndarray | None:
    """NNGP and NTK of a multilayer perceptron at some pairs, for some cases."""
    X = data(case.name, case.small if SMALL else case.shape)
    known: dict[str, tuple[Any, int, float, float]] = {
        "relu": (_relu, 3, 2.0, 0.0),
        "relu4000": (_relu, 3, 2.0, 0.0),
        "erf": (_smooth("erf"), 10, 2.25, 0.01),
        "gelu": (_smooth("gelu"), 3, 2.25, 0.01),
        "tanh": (_smooth("tanh"), 3, 2.25, 0.01),
        "tanh_unit": (_smooth("tanh"), 3, 2.25, 0.01),
    }
    if case.name not in known:
        return None
    expectations, depth, w, b = known[case.name]
    found = []
    for i, j in pairs.tolist():
        a, c, d = [w * np.dot(X[p], X[q]) / X.shape[1] + b for p, q in ((i, i), (i, j), (j, j))]
        theta = c
        for _ in range(depth):
            (value, slope), (aa, _), (dd, _) = expectations(a, c, d), expectations(a, a, a), expectations(d, d, d)
            a, c, d = [w * k + b for k in (aa, value, dd)]
            theta = theta * w * slope + c
        found.append((float(c), float(theta)))
    return np.array(found).T


def _relu(a: Any, c: Any, d: Any) -> tuple[Any, Any]:
    """E relu(u) relu(v) and E relu'(u) relu'(v), in 30 digits (Cho & Saul 2009)."""
    import mpmath

    with mpmath.workdps(30):
        a, c, d = mpmath.mpf(a), mpmath.mpf(c), mpmath.mpf(d)
        rho = min(c / mpmath.sqrt(a * d), mpmath.mpf(1))
        left = mpmath.pi - mpmath.acos(rho)
        return mpmath.sqrt(a * d) * (mpmath.sqrt(1 - rho**2) + rho * left) / (2 * mpmath.pi), left / (2 * mpmath.pi)


def _smooth(name: str) -> Callable[..., tuple[float, float]]:
    """E phi(u) phi(v) and E phi'(u) phi'(v) by the trapezoidal rule with step 1/10, out to 9 standard deviations."""
    from scipy.special import erf

    def bell(z: np.ndarray) -> np.ndarray:
        return np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)

    def cdf(z: np.ndarray) -> np.ndarray:
        return (1 + erf(z / np.sqrt(2))) / 2

    phi, slope = {
        "erf": (erf, lambda z: 2 / np.sqrt(np.pi) * np.exp(-(z**2))),
        "gelu": (lambda z: z * cdf(z), lambda z: cdf(z) + z * bell(z)),
        "tanh": (np.tanh, lambda z: 1 / np.cosh(z) ** 2),
    }[name]
    line = np.arange(-90, 91) / 10
    x, y = line[:, None], line[None, :]
    weights = bell(x) * bell(y) / 100

    def expectations(a: float, c: float, d: float) -> tuple[float, float]:
        u = np.sqrt(a) * x
        v = c / np.sqrt(a) * x + np.sqrt(max(d - c * c / a, 0.0)) * y
        return float(np.sum(weights * phi(u) * phi(v))), float(np.sum(weights * slope(u) * slope(v)))

    return expectations


# ---- the table ----
COLUMNS = (
    "case", "examples", "ours, s", "theirs, s", "times faster", "ours compiled, s: times faster",
    "first call, s: ours, theirs", "memory, MB: ours, theirs", "error: ours, theirs",
)  # fmt: skip
HEAD = f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}"


def row(case: Case, found: dict[str, dict[str, Any]]) -> str:
    """A row of the table."""
    us, them, fast = found["ours"], found.get("theirs"), found.get("fast")

    def both(key: str, shown: Callable[[dict[str, Any]], str]) -> str:
        return ", ".join([shown(x) if x and key in x else "-" for x in (us, them)])

    shape = " x ".join(map(str, case.small if SMALL else case.shape))
    times = f"{us['best']:.4f} ({us['median']:.4f})"
    theirs = f"{them['best']:.4f} ({them['median']:.4f})" if them else "-"
    ratio = f"{them['best'] / us['best']:.1f} ({them['median'] / us['median']:.1f})" if them else "-"
    compiled = f"{fast['best']:.4f}" if fast else "-"
    compiled += f": {them['best'] / fast['best']:.1f}" if fast and them else ""
    first = both("first", lambda x: f"{x['first']:.2f}")
    memory = both("bytes", lambda x: f"{x['bytes'] / 1e6:.0f}")
    error = both("error", lambda x: f"{x['error']:.0e}" if x is not us or x["known"] else "-")
    return f"| {case.title} | {shape} | {times} | {theirs} | {ratio} | {compiled} | {first} | {memory} | {error} |"


def large() -> None:
    """A kernel of 20,000 examples into files: seconds and memory."""
    from kernels_peer import peak

    import tensorprog as tp

    shape = (200, 20) if SMALL else (20_000, 784)
    n = tp.Width("n")
    h: Any = tp.Input("x")
    for k in range(3):
        h = tp.relu(tp.dense(f"W{k}", h, n, W_std=2**0.5))
    f = tp.kernel_fn(tp.Network(tp.readout("v", h, W_std=2**0.5)))
    X = np.random.default_rng(0).standard_normal(shape)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        found = f(X, out=folder)
        seconds = time.perf_counter() - start
        print(f"relu, 3 layers, {shape[0]} x {shape[1]}, NNGP and NTK into files: {seconds:.1f} s, {_resident(peak)}")
        del found


def _resident(peak: Callable[[], float]) -> str:
    return f"peak {peak() / 1e9:.2f} GB resident, pages of the files included"


def make_peer(folder: str) -> None:
    """Makes the environment of the other side."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = str(Path(folder) / "bin" / "pip")
    subprocess.run([pip, "install", "--quiet", "--no-deps", "neural-tangents==0.6.5"], check=True)
    subprocess.run([pip, "install", "--quiet", "jax==0.5.3", "jaxlib==0.5.3", "numpy<2", "frozendict"], check=True)


def main() -> None:
    """Measures, and prints the table."""
    parser = argparse.ArgumentParser(description="Kernels of networks, against neural-tangents.")
    parser.add_argument("--peer", help="an environment with neural-tangents")
    parser.add_argument("--make-peer", help="make such an environment in this folder, and stop")
    parser.add_argument("--only", nargs="*", choices=sorted(CASES), help="these cases")
    parser.add_argument("--rounds", type=int, default=1 if SMALL else 7)
    parser.add_argument("--large", action="store_true", help="20,000 examples, into files")
    parser.add_argument("--write", action="store_true", help="write benchmarks/kernels.md")
    parser.add_argument("--fast", action="store_true", help="measure compiled kernels, too (the extra `fast`)")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        return worker()
    if given.make_peer:
        return make_peer(given.make_peer)
    if given.large:
        return large()
    sides = {"ours": Side([sys.executable, str(HERE / "kernels.py"), "--worker"])}
    if given.fast:
        sides["fast"] = Side([*sides["ours"].command, "--fast"])
    if given.peer:
        sides["theirs"] = Side([str(Path(given.peer) / "bin" / "python"), str(HERE / "kernels_peer.py")])
    lines = [HEAD]
    print(HEAD)
    for name in given.only or list(CASES):
        try:
            lines.append(row(CASES[name], measure(CASES[name], sides, given.rounds)))
        finally:
            for side in sides.values():
                side.stop()
        print(lines[-1], flush=True)
    if given.write:
        machine = f"{_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, NumPy {np.__version__}"
        machine += f", {datetime.date.today()}, {os.getloadavg()[2]:.0f} processes running on average"
        (HERE / "kernels.md").write_text(TEXT.format(machine=machine, rounds=given.rounds, table="\n".join(lines)))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


TEXT = """# Kernels, against neural-tangents 0.6.5

NNGP and NTK in float64, from data to finished arrays. {machine}; JAX 0.5.3 on the same CPU.
Written by `python benchmarks/kernels.py --peer ENV --fast --write`, which says how it is measured.

Times are the best of {rounds} calls (median in brackets), the sides taking turns; a first call includes building and compiling
the network, in a fresh process after `import`; memory is the peak of that process above what its imports took. Errors are the
largest relative ones of sampled entries, two on the diagonal; where only theirs is given, it is the difference from ours.
Compiled: with the extra `fast` and `fast=True`, of what has source; it is compiled once, which is in no time here.

{table}

* neural-tangents has no formula for tanh: it is given `ElementwiseNumerical` with degree 25.
* The finite network: ours draws its weights in every call, and theirs are given; each has its own weights. Ours draws
  those of the first layer in the span of the data, which has the same law. Theirs is
  `NtkImplementation.STRUCTURED_DERIVATIVES`, its fastest here.
"""


if __name__ == "__main__":
    main()
