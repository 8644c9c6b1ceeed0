"""The exact limit: cost of lowering an instruction, of Catalan numbers, of kernels; of `import tensorprog`.

Run: python benchmarks/limit.py. Prints the processor and, for every measurement, the median of several runs.
"""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

import tensorprog as tp
from tensorprog.limits.evaluate.scalar import ScalarProgram
from tensorprog.limits.expect.lower import Lowering
from tensorprog.limits.gauss.panels import Feature
from tensorprog.limits.gauss.series import PairSeries

N = tp.Width("n")


def median(run: Callable[[], object], repeat: int = 5) -> float:
    """Median seconds of a call, after one that is not counted."""
    run()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def processor() -> str:
    """The processor's name, as Linux knows it."""
    try:
        with open("/proc/cpuinfo") as info:  # noqa: PTH123
            return next(line.split(":")[1].strip() for line in info if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def mlp(depth: int, covariance: np.ndarray | None = None) -> tp.Program:
    """A relu network with distinct matrices: two instructions a layer."""
    x = tp.Vector("x", N) if covariance is None else tp.Vector("x", N, axes=("b",), cov=covariance)
    for layer in range(depth):
        x = tp.relu(tp.Matrix(f"W{layer}", N, N, var=2) @ x)
    return tp.Program(q=tp.moment(x * x) if covariance is None else tp.moment(x * tp.rename(x, b="c")))


def tanh_kernel(gram: np.ndarray, layers: int) -> tp.Program:
    """The covariances of a tanh network: integrals without closed forms, a pair of inputs each."""
    x = tp.Vector("x", N, axes=("b",), cov=gram)
    for layer in range(layers):
        if layer:
            x = tp.Matrix(f"W{layer}", N, N, var=2.25) @ x + tp.Vector(f"b{layer}", N, var=0.01)
        x = tp.tanh(x)
    return tp.Program(q=tp.moment(x * tp.rename(x, b="c")))


def catalan(k: int) -> tp.Program:
    """The first k moments of W W.T."""
    W, v = tp.Matrix("W", N, N), tp.Vector("v", N)
    x, outputs = v, {}
    for i in range(1, k + 1):
        x = W @ (W.T @ x)
        outputs[f"m{i}"] = tp.moment(v * x)
    return tp.Program(outputs)


def by_hand(gram: np.ndarray, layers: int) -> np.ndarray:
    """The same kernel in six lines of unblocked NumPy."""
    for _ in range(layers):
        gram = 2 * gram
        size = np.sqrt(np.outer(np.diag(gram), np.diag(gram)))
        rho = np.clip(gram / size, -1, 1)
        gram = size / (2 * np.pi) * (np.sqrt((1 - rho) * (1 + rho)) + rho * (np.pi - np.arccos(rho)))
    return gram


def tangent(
    f: Callable[[np.ndarray], np.ndarray], slope: Callable[[np.ndarray], np.ndarray], gram: np.ndarray
) -> np.ndarray:
    """The tangent kernel of three layers, of functions that turn around 0 on a scale of 1."""
    turn = [Feature(0, 0.0, 1.0)]
    kernel = theta = 2.25 * gram + 0.01
    for _ in range(3):
        values, slopes = PairSeries(f, f, turn, turn), PairSeries(slope, slope, turn, turn)
        for series in (values, slopes):
            series.prepare(0.0, np.diag(kernel))
        theta = theta * np.asarray(slopes.matrix(kernel))
        kernel = 2.25 * np.asarray(values.matrix(kernel)) + 0.01
        theta = 2.25 * theta + kernel
    return theta


def main() -> None:
    """Prints the table."""
    print(f"{processor()}, Python {platform.python_version()}, NumPy {np.__version__}")
    for instructions in (1_000, 10_000):
        program = mlp(instructions // 2)
        seconds = median(lambda p=program: Lowering(p, {}), 3)
        print(
            f"lower an MLP of {instructions} instructions: {seconds:.3f} s, {seconds / instructions * 1e6:.0f} us each"
        )
        program = mlp(instructions // 2, np.eye(3) + 1)
        seconds = median(lambda p=program: Lowering(p, {}), 3)
        print(f"    the same for its kernel over inputs: {seconds:.3f} s, {seconds / instructions * 1e6:.0f} us each")
    program = catalan(40)
    print(f"Catalan numbers to k = 40, exact: {median(lambda: tp.limit(program), 3):.3f} s")
    X = np.random.default_rng(0).standard_normal((1000, 784))
    gram = X @ X.T / 784
    program = mlp(3, gram)
    lowering = Lowering(program, {})
    scalar = ScalarProgram([lowering.z[program.outputs["q"].node]])
    print(f"covariances of 1000 inputs through 3 relu layers, tiled: {median(scalar.run, 15):.4f} s")
    print(f"    with errors, from the program on (tp.limit): {median(lambda: tp.limit(program)):.4f} s")
    print(f"    by hand, unblocked NumPy: {median(lambda: by_hand(gram, 3)):.4f} s")
    difference = np.abs(np.asarray(tp.limit(program)["q"].value) - by_hand(gram, 3)).max()
    print(f"    largest difference: {difference:.1e}")
    for size in (200, 500):
        program = tanh_kernel(2.25 * gram[:size, :size] + 0.01, 3)
        seconds = median(lambda p=program: tp.limit(p))
        print(f"covariances of {size} inputs through 3 tanh layers, with errors: {seconds:.3f} s")
    tanh, slope = np.tanh, lambda x: 1 - np.tanh(x) ** 2
    seconds = median(lambda: tangent(tanh, slope, gram[:500, :500]))
    print(f"    its tangent kernel, by the series alone: {seconds:.3f} s")
    start = "import time; t = time.perf_counter(); import tensorprog; print(time.perf_counter() - t)"
    seconds = statistics.median(float(subprocess.check_output([sys.executable, "-c", start])) for _ in range(5))
    print(f"import tensorprog: {seconds:.3f} s")


if __name__ == "__main__":
    main()
