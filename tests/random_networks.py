"""Random networks, from a seed: graphs of layers over data, as users might write them."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

import tensorprog as tp

WIDTHS = [tp.Width("n"), tp.Width("m", ratio=2), tp.Width("k", ratio=Fraction(1, 2))]
CLOSED = [[tp.relu, tp.abs, lambda x: tp.relu(x) - Fraction(1, 4) * tp.relu(-x)], [tp.erf], [tp.sin, tp.cos]]
"""Activations with closed forms, by family: products within one mostly have them, too."""
SMOOTH = [[tp.tanh, tp.sigmoid], [tp.gelu]]
"""Those that take integrals."""
FEATURES = 3


class Builder:
    """One random network.

    Args:
        seed: Which one.
        smooth: Are there activations without closed forms?
        shared: Are there matrices used twice, W and W.T?
        steps: Layers after the first one.
    """

    def __init__(self, seed: int, smooth: bool = False, shared: bool = True, steps: int = 4) -> None:
        self.rng = np.random.default_rng(seed)
        self.activations = self.choose(SMOOTH if smooth else CLOSED)
        self.shared, self.names = shared, 0
        self.matrices: list[tp.Matrix] = []
        kind = self.choose([0, 0, 1, 1, 2])
        self.axes: tuple[str, ...] = ((), ("t",), ("h", "w"))[kind]
        self.sizes = {"t": int(self.rng.integers(2, 4)), "h": 2, "w": int(self.rng.integers(2, 4))}
        self.inputs = [tp.Input(name, axes=self.axes) for name in ("x", "y")[: self.choose([1, 1, 2])]]
        pool = [self.first(self.choose(self.inputs)) for _ in range(self.choose([1, 2]))]
        for x in self.inputs[len(pool) :]:
            pool.append(self.first(x))
        self.sources = list(pool)
        for _ in range(steps):
            pool.append(self.layer(pool))
        self.pool = pool

    def choose(self, items: Any) -> Any:
        return items[int(self.rng.integers(len(items)))]

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def name(self, letter: str = "W") -> str:
        self.names += 1
        return f"{letter}{self.names}"

    def std(self) -> Any:
        return self.choose([1, 1.3, 0.7, 2**0.5])

    def bias(self) -> Any:
        return self.choose([None, None, 0.3])

    def phi(self, x: Any) -> Any:
        return self.choose(self.activations)(x)

    # A member of the pool is (expression, its width, its axes and their sizes).
    def first(self, x: Any) -> Any:
        n, sizes = self.choose(WIDTHS), {a: self.sizes[a] for a in self.axes}
        if self.axes and self.chance(0.5):
            return self.convolved(x, None, n, sizes)
        return tp.dense(self.name("U"), x, n, W_std=self.std(), b_std=self.bias()), n, sizes

    def convolved(self, x: Any, _: Any, n: Any, sizes: dict[str, int]) -> Any:
        over = [a for a in sizes if self.chance(0.7)] or list(sizes)[:1]
        window, stride = [self.choose([1, 2, 3]) for _ in over], [self.choose([1, 1, 2]) for _ in over]
        fits = all(k <= sizes[a] for a, k in zip(over, window, strict=True))
        padding = self.choose(["SAME", "CIRCULAR", *["VALID"] * fits])
        h = tp.conv(self.name("C"), x, n, window, over, padding, stride, self.std(), self.bias())
        return h, n, {a: self.after(s, over, window, stride, padding, a) for a, s in sizes.items()}

    @staticmethod
    def after(size: int, over: list[str], window: list[int], stride: list[int], padding: str, axis: str) -> int:
        if axis not in over:
            return size
        k, s = window[over.index(axis)], stride[over.index(axis)]
        return (size - k) // s + 1 if padding == "VALID" else -(-size // s)

    def layer(self, pool: list[Any]) -> Any:
        x, n, sizes = self.choose(pool[-2:])
        like = [y for y, w, s in pool if w is n and s == sizes]
        kind = self.choose(
            ["dense"] * 4 + ["norm", "gate", "residual", "list", "product", "again"]
            + ["conv", "pool", "attend", "pick", "stack", "mean"] * bool(sizes)
        )  # fmt: skip
        new = self.choose(WIDTHS)
        match kind:
            case "norm":
                return tp.layer_norm(self.phi(x), eps=self.choose([0, 0.1])), n, sizes
            case "gate":
                y = self.choose([y for y, _, s in pool if s == sizes])
                return self.phi(x) * self.choose([tp.tanh, tp.sigmoid, tp.exp])(tp.moment(tp.tanh(y) ** 2)), n, sizes
            case "residual":
                return tp.residual(lambda y: self.dense(y, n), x, scale=self.choose([1, 0.5])), n, sizes
            case "list":
                y, _, _ = self.choose([p for p in pool if p[2] == sizes])
                return (
                    tp.dense(self.name(), [self.phi(x), self.phi(y)], new, W_std=self.std(), b_std=self.bias()),
                    new,
                    sizes,
                )
            case "product":
                return self.phi(x) * self.choose(like), n, sizes
            case "again" if self.shared:
                return self.again(x, n, sizes)
            case "conv":
                return self.convolved(self.phi(x), None, new, sizes)
            case "pool":
                a = self.choose(list(sizes))
                size, k = sizes[a], self.choose([1, 2])
                padding = self.choose(["SAME", "CIRCULAR", *["VALID"] * (k <= size)])
                s = self.choose([1, 2])
                return tp.avg_pool(x, k, a, s, padding), n, sizes | {a: self.after(size, [a], [k], [s], padding, a)}
            case "attend":
                a = self.choose(list(sizes))
                mask = self.choose([None, "causal"])
                return tp.attention(x, x, self.phi(x), axis=a, mask=mask, scale=self.choose([1, 0.5])), n, sizes
            case "pick":
                a = self.choose(list(sizes))
                at = [self.choose(range(-sizes[a], sizes[a])) for _ in range(self.choose([1, 2, 3]))]
                return (
                    tp.stack([tp.take(x, a, i) for i in at], a),
                    n,
                    {b: s for b, s in sizes.items() if b != a} | {a: len(at)},
                )
            case "stack":
                return tp.stack([x, self.phi(x)], "s") if "s" not in sizes else x, n, sizes | {"s": sizes.get("s", 2)}
            case "mean":
                a = self.choose(list(sizes))
                return tp.mean(self.phi(x), a), n, {b: s for b, s in sizes.items() if b != a}
        return self.dense(x, new), new, sizes

    def dense(self, x: Any, n: Any) -> Any:
        return tp.dense(self.name(), self.phi(x), n, W_std=self.std(), b_std=self.bias())

    def again(self, x: Any, n: Any, sizes: Any) -> Any:
        """A matrix from before, or its transpose; a new one where none fits."""
        fitting = [w for w in self.matrices if n in (w.rows, w.cols)]
        if fitting and self.chance(0.8):
            w = self.choose(fitting)
            forward = w.cols is n and (w.rows is not n or self.chance(0.5))
        else:
            w, forward = tp.Matrix(self.name("S"), self.choose(WIDTHS), n, var=self.choose([1, 1.5, 2])), True
            self.matrices.append(w)
        y = self.phi(x)
        return (w @ y, w.rows, sizes) if forward else (w.T @ y, w.cols, sizes)

    # ---- outputs ----
    def output(self, name: str, last: Any, average: bool) -> Any:
        x, _, sizes = last
        x = self.phi(x)
        if average:
            return tp.moment(tp.mean(x * x, list(sizes)) if sizes else x * x)
        over = [a for a in sizes if self.chance(0.3)]
        rest = [a for a in sizes if a not in over]
        x = tp.mean(x, rest) if rest else x
        other = [y for y, _, s in self.pool if not s]
        if not over and other and self.chance(0.3):
            x = [x, self.phi(self.choose(other))]
        return tp.readout(name, x, W_std=self.std(), b_std=self.bias(), over=over)

    def network(self) -> tp.Network:
        count, average = self.choose([1, 1, 1, 2]), self.chance(0.1)
        outputs = [
            self.output(f"v{i}", self.choose(self.pool[-2:]) if i else self.pool[-1], average) for i in range(count)
        ]
        return tp.Network(outputs if count > 1 else outputs[0], inputs=None)

    def data(self, examples: int, seed: int = 0) -> dict[str, np.ndarray]:
        """Generic data for the inputs."""
        rng = np.random.default_rng([seed, examples])
        shape = (examples, *[self.sizes[a] for a in self.axes], FEATURES)
        return {x.key: rng.standard_normal(shape) for x in self.inputs}
