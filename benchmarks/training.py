"""Limits and runs of training, CPU seconds beside what they are compared with: `python benchmarks/training.py [--large]`.

Networks have two hidden layers of tanh, a readout, P examples in three dimensions, full batches, rate 1/2, unless a line says
otherwise. `--large` adds a lazy run at n = 10^6. Every case runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import tensorprog as tp
import tensorprog.execute.population  # scipy.stats takes most of a second to import: not part of what is timed
from tensorprog.execute.compiled import compiled
from tensorprog.execute.executor import population

SMALL = os.environ.get("TENSORPROG_SMALL") == "1"
N = tp.Width("n")


def network(hidden: int = 2, phi: Callable[[Any], Any] = tp.tanh) -> tp.Network:
    """A multilayer perceptron."""
    h = phi(tp.dense("U", tp.Input("x"), N))
    for layer in range(1, hidden):
        h = phi(tp.dense(f"W{layer}", h, N))
    return tp.Network(tp.readout("v", h))


def data(examples: int, features: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Normal inputs with random signs."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((examples, features)), np.sign(rng.standard_normal(examples))


def trace(examples: int, steps: int, scheme: str = "mup", net: tp.Network | None = None, **options: Any) -> Any:
    """A run of training, unrolled."""
    options = {"lr": 0.5} | options
    found = tp.sgd(net or network(), *data(examples), steps=steps, parametrization=scheme, **options)
    assert found.program
    return found


def timed(f: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds and the answer."""
    start = time.process_time()
    answer = f()
    return time.process_time() - start, answer


def gigabytes() -> float:
    """Largest resident set so far, interpreter and libraries included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


# ---- cases ----


def kernel_limit() -> None:
    """The exact limit of a trace that follows a kernel is linear in the steps."""
    for steps in (8, 16):
        run = tp.sgd(network(), *data(100, 10), steps=steps, lr=0.5, parametrization="ntk")
        seconds, found = timed(lambda run=run: tp.limit(run))
        print(f"kernel limit, N = 100, {steps} steps: {seconds:.2f} s, error {np.max(found['f'].error):.0e}")


def unrolling() -> None:
    """Programs of 100 steps."""
    for scheme in ("mup", "ntk"):
        seconds, found = timed(lambda scheme=scheme: trace(4, 100, scheme, network(3)))
        print(f"unrolling 100 steps, 3 layers, {scheme}: {seconds:.2f} s, {len(found.program.nodes)} instructions")


def populations(examples: int, steps: int, samples: int, hidden: int = 2) -> None:
    """One population."""
    program = trace(examples, steps, net=network(hidden)).program
    compiled(program, pairs=True)
    seconds, _ = timed(lambda: population(program, samples, replicates=1))
    layers = "" if hidden == 2 else f", {hidden} layers"
    print(f"one population, P = {examples}, T = {steps}, M = {samples}{layers}: {seconds:.2f} s, {gigabytes():.2f} GB")


def limits(examples: int, steps: int, name: str = "tanh", **options: Any) -> None:
    """The limit with its error."""
    run = trace(examples, steps, net=network(phi=getattr(tp, name)))
    seconds, found = timed(lambda: tp.limit(run, **options))
    loss = found["loss"]
    said = "".join(f", {k} = {v}" for k, v in options.items())
    print(
        f"limit, {name}, P = {examples}, T = {steps}{said}: {seconds:.2f} s, error of the loss {np.max(loss.error):.0e}"
    )


def linear(steps: int) -> None:
    """Exact limits of linear networks that learn features."""
    run = trace(2, steps, net=network(3, lambda x: x), lr=0.25)
    seconds, found = timed(lambda: tp.limit(run, method="exact", budget=np.inf))
    sampled = population(run.program, 4096, replicates=1)["f"][0]
    gap = np.abs(found["f"].value - sampled).max()
    print(
        f"exact limit, linear, 3 layers, P = 2, T = {steps}: {seconds:.1f} s, {gap:.0e} from a population's (exact there)"
    )


def independence() -> None:
    """Gradient independence of a trace."""
    seconds, found = timed(lambda: tp.check_gia(trace(2, 3)))
    print(f"check_gia, P = 2, T = 3: {seconds:.2f} s, holds: {found.holds}")


def adam() -> None:
    """Updates that are no products of vectors: a matrix of M x M entries."""
    program = trace(4, 20, lr=0.05, optimizer=tp.Adam(eps=1e-2)).program
    seconds, _ = timed(lambda: population(program, 1024, replicates=1))
    print(f"one population, Adam, P = 4, T = 20, M = 1024: {seconds:.2f} s")


def by_hand(n: int, examples: int, steps: int) -> np.ndarray:
    """The same training in NumPy."""
    X, y = data(examples)
    rng = np.random.default_rng(0)
    U, W, v = rng.standard_normal((n, 3)), rng.standard_normal((n, n)) / n**0.5, rng.standard_normal(n)
    found = []
    for t in range(steps + 1):
        x1 = np.tanh(U @ X.T / 3**0.5)
        x2 = np.tanh(W @ x1)
        found.append(v @ x2 / n)
        if t < steps:
            chi = (found[-1] - y) / examples
            g2 = v[:, None] * (1 - x2 * x2)
            g1 = (W.T @ g2) * (1 - x1 * x1)
            v = v - 0.5 * x2 @ chi
            W -= 0.5 / n * (g2 * chi) @ x1.T
            U = U - 0.5 * (g1 * chi) @ X / 3**0.5
    return np.array(found)


def dense() -> None:
    """A run with stored matrices beside the same by hand."""
    n, run = 512 if SMALL else 2048, trace(4, 10)
    tp.run(run, n, 1, weights="dense")  # compiles
    ours, hand = [], []
    for _ in range(5):
        ours.append(timed(lambda: tp.run(run, n, 1, weights="dense"))[0])
        hand.append(timed(lambda: by_hand(n, 4, 10))[0])
    print(f"a run, P = 4, T = 10, n = {n}, dense: {min(ours):.2f} s; in NumPy by hand {min(hand):.2f} s")


def lazy(n: int) -> None:
    """A run without matrices."""
    run = trace(4, 10)
    seconds, _ = timed(lambda: tp.run(run, n, 1, weights="lazy"))
    counted = 8 * compiled(run.program).peak_entries(lambda width: n, "lazy") / 2**30
    print(
        f"a run, P = 4, T = 10, n = {n}, lazy: {seconds:.1f} s, {gigabytes():.2f} GB, counted {counted:.2f} GB of numbers"
    )


def slope() -> None:
    """Lazy runs come to the limit like n^(-1/2)."""
    run = trace(4, 10)
    f = tp.limit(run)["f"]
    widths = np.array([10**3, 10**4] if SMALL else [10**3, 10**4, 10**5])
    gaps = [np.sqrt(np.mean((tp.run(run, int(n), 8, weights="lazy")["f"] - f.value) ** 2)) for n in widths]
    found = np.polyfit(np.log(widths), np.log(gaps), 1)[0]
    said = ", ".join(f"{g:.1e}" for g in gaps)
    print(f"distance of lazy runs (8 seeds) to the limit at n = {widths.tolist()}: {said}; slope {found:.3f}")


CASES: list[tuple[Any, ...]] = [
    (kernel_limit,),
    (unrolling,),
    (populations, 4, 20, 2**11),
    (populations, 4, 40, 2**12),
    (populations, 4, 400, 2**12),
    (populations, 16, 100, 2**12),
    (populations, 10, 100, 2**12, 3),
    (limits, 4, 10),
    (limits, 4, 20),
    (limits, 4, 20, "relu"),
    (linear, 4),
    (linear, 8),
    (independence,),
    (adam,),
    (dense,),
    (lazy, 10**5),
    (slope,),
]
FEW: list[tuple[Any, ...]] = [
    (unrolling,),
    (populations, 4, 20, 2**9),
    (linear, 2),
    (independence,),
    (dense,),
    (slope,),
]


def main() -> None:
    """Prints a line a case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true")
    cases = (FEW if SMALL else CASES) + ([(lazy, 10**6)] if parser.parse_args().large else [])
    for function, *arguments in cases:
        process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(f"{function.__name__}{tuple(arguments)} failed")


if __name__ == "__main__":
    main()
