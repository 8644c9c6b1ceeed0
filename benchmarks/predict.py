"""Predictions at many times, against neural-tangents: `python benchmarks/predict.py --peer ENV`.

Kernels of the same data are computed once on each side, by the side itself. Timed is what comes after: eigenvectors, then means
and covariances of the ensemble on the tests at a hundred times, to finished arrays in float64. The sides take turns, each in
a process of its own; `python benchmarks/kernels.py --make-peer ENV` makes the environment of the other. `--large N` is the Krylov
method on N examples, with its memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from kernels_peer import peak

HERE = Path(__file__).parent
SMALL = os.environ.get("TENSORPROG_SMALL", "") not in ("", "0")
CASES = {(40, 5, 10): "small"} if SMALL else {(500, 50, 100): "", (1000, 50, 100): "", (2000, 50, 100): "target: 3 s"}
"""(examples, tests, times) to a remark."""
FEATURES = 20


def data(examples: int, tests: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(examples)
    X, X_test = rng.standard_normal((examples, FEATURES)), rng.standard_normal((tests, FEATURES))
    return X, np.sin(X[:, :1]) + X[:, 1:2] * X[:, 2:3], X_test


def times(count: int) -> np.ndarray:
    return np.geomspace(1e-2, 1e4, count)


def ours(examples: int, tests: int, count: int) -> Callable[[], Any]:
    import tensorprog as tp

    X, y, X_test = data(examples, tests)
    f = tp.kernel_fn(network())
    K = [f(X), f(X_test, X), f(X_test)]

    def call() -> Any:
        m = tp.predict(K[0], y, K[1], K[2])(t=times(count), get="ntk")
        return m.mean, m.cov

    return call


def network() -> Any:
    import tensorprog as tp

    n, h = tp.Width("n"), tp.Input("x")
    for layer in range(2):
        h = tp.relu(tp.dense(f"W{layer}", h, n, W_std=2**0.5, b_std=0.1))
    return tp.Network(tp.readout("v", h, W_std=2**0.5, b_std=0.1))


def theirs(examples: int, tests: int, count: int) -> Callable[[], Any]:
    import types

    sys.modules["neural_tangents.experimental"] = types.ModuleType("neural_tangents.experimental")  # wants TensorFlow
    import jax

    jax.config.update("jax_enable_x64", True)
    import neural_tangents as nt
    from neural_tangents import stax

    X, y, X_test = data(examples, tests)
    layers = [stax.Dense(1, 2**0.5, 0.1), stax.Relu()] * 2
    kernel = stax.serial(*layers, stax.Dense(1, 2**0.5, 0.1))[2]
    known = {
        sizes: kernel(a, b, ("nngp", "ntk"))
        for sizes, a, b in (((examples, 0), X, None), ((tests, examples), X_test, X), ((tests, 0), X_test, None))
    }

    def lookup(a: Any, b: Any = None, get: Any = None, **_: Any) -> Any:
        found = known[len(a), 0 if b is None else len(b)]
        return getattr(found, get) if isinstance(get, str) else found

    def call() -> Any:
        predict = nt.predict.gradient_descent_mse_ensemble(lookup, X, y, diag_reg=0.0)
        m = predict(t=times(count) / examples * y.size, x_test=X_test, get="ntk", compute_cov=True)
        return jax.block_until_ready((m.mean, m.covariance))

    return call


def worker(side: str) -> None:
    """Answers requests until its input ends."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    made: dict[Any, Callable[[], Any]] = {}
    for line in sys.stdin:
        case = tuple(json.loads(line))
        if case not in made:
            made[case] = (ours if side == "ours" else theirs)(*case)
        start, cpu = time.perf_counter(), time.process_time()
        mean, cov = made[case]()
        answer = {"wall": time.perf_counter() - start, "cpu": time.process_time() - cpu, "bytes": peak()}
        answer |= {"mean": np.asarray(mean)[-1].ravel().tolist(), "cov": np.asarray(cov)[-1].diagonal().tolist()}
        print(json.dumps(answer), file=out, flush=True)


def compare(peer: str | None, rounds: int) -> str:
    pythons = {"ours": sys.executable} | ({"theirs": str(Path(peer) / "bin" / "python")} if peer else {})
    lines = [
        "| examples, tests, times | ours, s (CPU) | theirs, s (CPU) | times faster | memory, MB: ours, theirs | difference |",
        "|---|---|---|---|---|---|",
    ]
    for case, remark in CASES.items():
        sides = {
            name: subprocess.Popen(
                [python, __file__, "--worker", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for name, python in pythons.items()
        }
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
        for _ in range(rounds):
            for name, process in sides.items():
                assert process.stdin and process.stdout
                print(json.dumps(case), file=process.stdin, flush=True)
                found[name].append(json.loads(process.stdout.readline()))
        for process in sides.values():
            process.communicate()
        best = {name: (min(a["wall"] for a in x), min(a["cpu"] for a in x)) for name, x in found.items()}
        memory = [f"{x[-1]['bytes'] / 1e6:.0f}" for x in found.values()]
        cells = [f"{wall:.2f} ({cpu:.2f})" for wall, cpu in best.values()]
        faster, off = "-", "-"
        if peer:
            faster = f"{best['theirs'][0] / best['ours'][0]:.1f}"
            a, b = found["ours"][-1], found["theirs"][-1]
            off = f"{max(np.abs(np.subtract(a[k], b[k])).max() for k in ('mean', 'cov')):.0e}"
        else:
            cells.append("-")
        title = ", ".join(map(str, case)) + (f" ({remark})" if remark else "")
        lines.append(f"| {title} | {' | '.join(cells)} | {faster} | {', '.join(memory)} | {off} |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def large(examples: int) -> None:
    """The Krylov method, from data to predictions."""
    import tensorprog as tp

    X, y, X_test = data(examples, 20)
    with tempfile.TemporaryDirectory() as folder:
        start, cpu = time.perf_counter(), time.process_time()
        pred = tp.predict(network(), X, y[:, 0], X_test, method="krylov", out=folder)
        m = pred(t=[1, 100, 1e4])
        error = m.error.max()
        finite = time.perf_counter() - start, time.process_time() - cpu
        last = pred(t=np.inf).error.max()
        disk = sum(path.stat().st_size for path in Path(folder).rglob("*.npy"))
        print(
            f"{examples} examples: times 1, 100, 10000 in {finite[0]:.0f} s ({finite[1]:.0f} CPU), error below {error:.0e}; "
            f"with infinity {time.perf_counter() - start:.0f} s ({time.process_time() - cpu:.0f} CPU), {last:.0e}; "
            f"peak {peak() / 1e9:.2f} GB resident, {disk / 1e9:.2f} GB on disk; {pred.regulariser}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Predictions, against neural-tangents.")
    parser.add_argument("--peer", help="an environment with neural-tangents")
    parser.add_argument("--rounds", type=int, default=1 if SMALL else 3)
    parser.add_argument("--large", type=int, metavar="N", help="the Krylov method on N examples")
    parser.add_argument("--worker", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        return worker(given.worker)
    if given.large:
        return large(given.large)
    compare(given.peer, given.rounds)


if __name__ == "__main__":
    main()
