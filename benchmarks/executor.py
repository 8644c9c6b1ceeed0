"""What the executor costs above NumPy: per instruction, against a network by hand, and dense against lazy weights.

Run with `OMP_NUM_THREADS=1 python benchmarks/executor.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

import tensorprog as tp
from tensorprog.execute.compiled import compiled
from tensorprog.execute.dense import Dense
from tensorprog.execute.executor import choose_weights


def best(f: Callable[[], object], repeats: int = 7) -> float:
    """Shortest of several timings, in seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        f()
        times.append(time.perf_counter() - start)
    return min(times)


def per_instruction() -> None:
    n, count = tp.Width("n"), 2000
    x = tp.Vector("x", n)
    y = x
    for _ in range(count // 2):
        y = tp.tanh(y) * x
    program = tp.Program(m=tp.moment(y))
    code = compiled(program)

    def by_hand() -> float:
        a = b = np.zeros(16)
        for _ in range(count // 2):
            b = np.tanh(b) * a
        return b.mean()

    ours, hand = best(lambda: code.run(Dense(16), {})), best(by_hand)
    extra = 1e6 * (ours - hand) / len(code)
    print(f"{len(code)} instructions on 16 coordinates: {extra:.2f} us an instruction above NumPy's")
    print(f"  compiling: {1e6 * best(lambda: type(code)(program), 3) / len(code):.1f} us an instruction")

    z = tp.Vector("z", n, axes={"a": 4})
    small = tp.Program(g=tp.moment(z * tp.rename(z, a="b")))
    z_array = np.ones((4, 16))
    code = compiled(small)
    bare = best(lambda: Dense(16).vector(code._code[0].node.attr), 200)
    ours, hand = best(lambda: code.run(Dense(16), {}), 200) - bare, best(lambda: z_array @ z_array.T / 16, 200)
    print(f"  a fused Gram matrix, 4 x 4: {1e6 * (ours - hand):.1f} us above NumPy's, collecting the outputs included")


def against_hand(n: int = 2048, batch: int = 1, layers: int = 4) -> None:
    width = tp.Width("n")
    ws = [tp.Matrix(f"W{i}", width, width, var=2) for i in range(layers)]
    inputs = tp.Vector("x", width, axes={"b": batch})
    h, pre = inputs, []
    for w in ws:
        pre.append(w @ h)
        h = tp.relu(pre[-1])
    v = tp.Vector("v", width)
    d = v * tp.step(pre[-1])
    for w, g in zip(ws[:0:-1], pre[-2::-1], strict=True):
        d = (w.T @ d) * tp.step(g)
    program = tp.Program(nngp=tp.moment(h * tp.rename(h, b="c")), back=tp.moment(d * tp.rename(d, b="c")))
    rng = np.random.default_rng(0)
    arrays = {w.name: rng.normal(size=(n, n)) * np.sqrt(2 / n) for w in ws}
    space = Dense(n)
    x0, v0 = space.vector(inputs.node.attr), space.vector(v.node.attr)

    def by_hand() -> None:
        h, pre = x0, []
        for a in arrays.values():
            pre.append(h @ a.T)
            h = np.maximum(pre[-1], 0)
        d = v0 * np.heaviside(pre[-1], 0.5)
        for a, g in zip(list(arrays.values())[:0:-1], pre[-2::-1], strict=True):
            d = (d @ a) * np.heaviside(g, 0.5)
        _ = h @ h.T / n, d @ d.T / n

    class Given(Dense):
        def vector(self, spec):  # drawing the inputs is in neither timing
            return x0 if spec.name == "x" else v0

    code = compiled(program)
    ours, hand = [], []
    for _ in range(9):  # alternately: the machine is shared
        ours.append(best(lambda: code.run(Given(n, weights=arrays), {}), 1))
        hand.append(best(by_hand, 1))
    print(f"{layers} layers, {batch} inputs, forward and back, n = {n}: {min(ours):.3f} s, ", end="")
    print(f"by hand {min(hand):.3f} s: {min(ours) / min(hand):.3f}x")


def gram_memory(n: int = 4096, batch: int = 1000) -> None:
    z = tp.Vector("z", tp.Width("n"), axes={"b": batch})
    code = compiled(tp.Program(g=tp.moment(z * tp.rename(z, b="c"))))
    array = np.random.default_rng(0).normal(size=(batch, n))

    class Given(Dense):
        def vector(self, spec):
            return array

    ours, hand = best(lambda: code.run(Given(n), {}), 5), best(lambda: array @ array.T / n, 5)
    print(f"Gram matrix of {batch} x {n}: {ours:.3f} s, by hand {hand:.3f} s")


def crossover() -> None:
    print("dense and lazy, a network of 3 matrices forward and back on k inputs; what auto takes")
    width = tp.Width("n")
    ws = [tp.Matrix(f"W{i}", width, width) for i in range(3)]
    for n in (512, 2048, 4096):
        for k in (1, 16, 128, 512):
            h = tp.Vector("x", width, axes={"b": k})
            for w in ws:
                h = tp.tanh(w @ h)
            for w in ws:
                h = tp.tanh(w.T @ h)
            p = tp.Program(m=tp.moment(tp.sum(h)))
            dense = best(lambda p=p, n=n: tp.run(p, n=n, weights="dense"), 1)
            lazy = best(lambda p=p, n=n: tp.run(p, n=n, weights="lazy"), 1)
            print(f"  n = {n:5d}, k = {k:4d}: dense {dense:7.3f} s, lazy {lazy:7.3f} s, auto: {choose_weights(p, n)}")


if __name__ == "__main__":
    per_instruction()
    for batch in (1, 8, 64):
        against_hand(batch=batch)
    gram_memory()
    crossover()
