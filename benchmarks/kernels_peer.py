"""The second half of benchmarks/kernels.py: the same kernels by neural-tangents, asked for by lines of JSON.

It is run by the Python of an environment that has neural-tangents; see there. What both sides share is in this file, too:
the cases, their data, and the loop that answers requests. It must not import tensorprog, which is not in that environment.

A request is {"case": name, "shape": [..], "what": "time" or "entries", "at": [[i, j], ..]}. "time" answers with the seconds of
one call, from data to finished NumPy or JAX arrays in float64, and with the peak memory of the process so far, less what it was
after its imports; "entries" with some entries of both kernels. The first request for a case builds the network, too.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Kernels = Callable[[np.ndarray], tuple[Any, ...]]
"""Data to the NNGP and the NTK, or to the NTK alone."""


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        name: Its name.
        title: What the table says.
        shape: Of the data: (examples, *axes, features).
        small: A shape for a quick run.
        target: How many times faster we mean to be.
        unit: Are the examples on the sphere of radius sqrt(features)?
    """

    name: str
    title: str
    shape: tuple[int, ...]
    small: tuple[int, ...]
    target: float
    unit: bool = False


CASES = {
    c.name: c
    for c in (
        Case("relu", "relu, 3 layers", (1000, 784), (40, 20), 5),
        Case("relu4000", "relu, 3 layers", (4000, 784), (60, 20), 5),
        Case("erf", "erf, 10 layers", (1000, 784), (40, 20), 3.5),
        Case("gelu", "gelu, 3 layers", (500, 784), (20, 20), 1.5),
        Case("tanh", "tanh, 3 layers", (500, 784), (12, 20), 20),
        Case("tanh_unit", "tanh, 3 layers, examples of one length", (500, 784), (12, 20), 20, True),
        Case("layer_norm", "layer norm and relu, 3 layers", (1000, 784), (40, 20), 2),
        Case("residual", "8 residual blocks of relu and dense", (1000, 784), (40, 20), 2),
        Case("attention", "softmax attention, scaled by 1/d", (50, 16, 32), (4, 3, 5), 1),
        Case("cnn_pooled", "3 convolutions, global average pool", (20, 8, 8, 3), (3, 4, 4, 3), 1),
        Case("cnn_flat", "3 convolutions, flattened", (20, 8, 8, 3), (3, 4, 4, 3), 0.5),
        Case("empirical", "finite network, relu, 3 layers of width 1024", (100, 784), (8, 20), 1 / 1.5),
    )
}
WIDTH, SMALL_WIDTH = 1024, 64
"""Of the finite network."""


def data(case: str, shape: tuple[int, ...]) -> np.ndarray:
    """The data of a case, the same on both sides."""
    X = np.random.default_rng(sum(map(ord, case))).standard_normal(shape)
    if CASES[case].unit:
        X *= np.sqrt(shape[-1] / np.sum(X**2, -1, keepdims=True))
    return X


def peak() -> float:
    """Peak resident memory of this process, in bytes.

    VmHWM rather than getrusage, whose maximum a new process inherits from the one that started it.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        most = float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return most if sys.platform == "darwin" else 1024 * most


def serve(make: Callable[[str, tuple[int, ...]], Kernels], finish: Callable[[Any], Any]) -> None:
    """Answers requests until its input ends.

    Args:
        make: A case and the shape of its data to a function of data.
        finish: Waits for arrays that are computed in the background.
    """
    out = os.fdopen(os.dup(1), "w")  # what libraries print must not get between the answers
    os.dup2(2, 1)
    made: dict[Any, Kernels] = {}
    baseline = peak()
    print(json.dumps({"ready": True}), file=out, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        case, shape = asked["case"], tuple(asked["shape"])
        X = data(case, shape)
        start = time.perf_counter()
        if (case, shape) not in made:
            made[case, shape] = make(case, shape)
        found = finish(made[case, shape](X))
        answer: dict[str, Any] = {"seconds": time.perf_counter() - start, "bytes": peak() - baseline}
        if asked["what"] == "entries":
            i, j = np.array(asked["at"]).T
            answer["entries"] = [np.asarray(k)[i, j].tolist() for k in found]
        print(json.dumps(answer), file=out, flush=True)


def peer(case: str, shape: tuple[int, ...]) -> Kernels:
    """A case in neural-tangents' words, compiled as its documentation says."""
    import jax
    import neural_tangents as nt
    from neural_tangents import stax

    def mlp(phi: Any, depth: int, W_std: float, b_std: float = 0.0, width: int = 1) -> list[Any]:
        layers = [y for _ in range(depth) for y in (stax.Dense(width, W_std, b_std), phi)]
        return [*layers, stax.Dense(1, W_std, b_std)]

    root = 2**0.5
    match case:
        case "relu" | "relu4000":
            layers = mlp(stax.Relu(), 3, root)
        case "erf":
            layers = mlp(stax.Erf(), 10, 1.5, 0.1)
        case "gelu":
            layers = mlp(stax.Gelu(), 3, 1.5, 0.1)
        case "tanh" | "tanh_unit":
            layers = mlp(stax.ElementwiseNumerical(jax.numpy.tanh, deg=25), 3, 1.5, 0.1)
        case "layer_norm":
            block = [stax.Dense(1, root, 0.1), stax.LayerNorm(), stax.Relu()]
            layers = [*block * 3, stax.Dense(1, root, 0.1)]
        case "residual":
            block = stax.serial(
                stax.FanOut(2),
                stax.parallel(stax.Identity(), stax.serial(stax.Relu(), stax.Dense(1, 1.0))),
                stax.FanInSum(),
            )
            layers = [stax.Dense(1, root), *[block] * 8, stax.Relu(), stax.Dense(1, root)]
        case "attention":
            layers = [
                stax.Dense(1, 1.3, 0.2), stax.Relu(),
                stax.GlobalSelfAttention(
                    1, 1, 1, 1, linear_scaling=True, W_key_std=1.1, W_query_std=0.9, W_value_std=1.2, W_out_std=1.0, b_std=0.1
                ),
                stax.Relu(), stax.GlobalAvgPool(), stax.Dense(1, 1.3, 0.2),
            ]  # fmt: skip
        case "cnn_pooled" | "cnn_flat":
            end = stax.GlobalAvgPool() if case == "cnn_pooled" else stax.Flatten()
            layers = [*[stax.Conv(1, (3, 3), padding="SAME", W_std=root), stax.Relu()] * 3, end, stax.Dense(1, root)]
        case "empirical":
            init, apply, _ = stax.serial(*mlp(stax.Relu(), 3, root, width=WIDTH if shape[0] > 50 else SMALL_WIDTH))
            _, weights = init(jax.random.PRNGKey(0), (-1, shape[-1]))
            # of the four implementations the fastest on this network
            empirical = jax.jit(
                nt.empirical_ntk_fn(apply, vmap_axes=0, implementation=nt.NtkImplementation.STRUCTURED_DERIVATIVES)
            )
            return lambda X: (empirical(X, None, weights),)
    kernel = jax.jit(stax.serial(*layers)[2], static_argnames="get")
    return lambda X: tuple(kernel(X, None, ("nngp", "ntk")))


def main() -> None:
    """Answers requests with neural-tangents."""
    import types

    # its experimental part wants TensorFlow
    sys.modules["neural_tangents.experimental"] = types.ModuleType("neural_tangents.experimental")
    import jax
    from jax._src import source_info_util
    from jax.interpreters import ad

    jax.config.update("jax_enable_x64", True)
    # names that its structured derivatives, its fastest finite kernels, want and that newer JAX has elsewhere
    ad.source_info_util = source_info_util
    ad.config = types.SimpleNamespace(jax_enable_checks=False)
    import neural_tangents  # noqa: F401

    serve(peer, jax.block_until_ready)


if __name__ == "__main__":
    main()
