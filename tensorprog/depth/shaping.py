"""Shaped activations: out_scale (phi(in_scale x + in_shift) + out_shift), so that a deep network keeps its inputs apart.

With the local maps at variance 1, Q(q) = E phihat(sqrt(q) z)^2 and C(c) = E phihat(u) phihat(v):

* Deep Kernel Shaping: Q(1) = Q'(1) = 1, C(0) = 0, and C'(1) such that the slope of the network's largest subnetwork is a target.
* Tailored Activation Transformation: Q(1) = Q'(1) = C'(1) = 1, and C''(1) such that its curvature is a target; of leaky relu, the
  slope below 0 such that the network's C(0) is.

The two outer numbers follow from expectations of phi and phi'; the two inner ones are found by Newton's method.

Source: Martens et al. 2021 (arXiv:2110.01765); Zhang, Botev, Martens 2022 (arXiv:2203.08120).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorprog.depth.fixed import polished
from tensorprog.depth.subnetworks import Subnetworks
from tensorprog.errors import TensorProgramError
from tensorprog.estimate import Estimate
from tensorprog.language import algebra
from tensorprog.language.activations import leaky_relu
from tensorprog.language.build import array, moment
from tensorprog.language.calculus import partial
from tensorprog.language.expression import Expression
from tensorprog.language.leaves import Vector
from tensorprog.language.node import Node, topological
from tensorprog.language.program import Program
from tensorprog.language.symbols import Width
from tensorprog.limits.limit import limit

__all__ = ["Shaped", "shape_activation"]

STARTS = ((1.5, 0.5), (1.5, -0.5), (4.0, 1.0), (4.0, -1.0), (8.0, 0.0), (1.0, 0.1))
"""Inner scales, over the root of what is to be bent, and shifts that Newton's method starts from."""
SCALES = np.geomspace(0.02, 20, 25)
"""Inner scales among which one is looked for where the shift is fixed."""
STEPS = 40
SMALL = 1e-5
"""Relative steps of differences."""
DONE, CLOSE = 1e-12, 1e-7
"""A step is the last one if it is so small; or the conditions hold so well, and no better than before."""


@dataclass(frozen=True)
class Shaped:
    """A shaped activation: call it like any other.

    Attributes:
        phi: The activation.
        in_scale: What its argument is multiplied with,
        in_shift: and what is added to that;
        out_shift: what is added to its value,
        out_scale: and what that is multiplied with.
        method: `"dks"` or `"tat"`.
        local: What the network asks for: the local C'(1) (dks) or C''(1) (tat), of leaky relu the slope below 0.
        conditions: Q(1), Q'(1), C(0), C'(1) and C''(1), as far as they are asked for, with errors.
        error: How wrong the four numbers may be, relatively.
    """

    phi: Callable[..., Any]
    in_scale: float
    in_shift: float
    out_shift: float
    out_scale: float
    method: str
    local: float
    conditions: dict[str, Estimate]
    error: float

    def __call__(self, x: Any) -> Any:
        """The activation of an expression."""
        inside = x * self.in_scale if self.in_shift == 0 else x * self.in_scale + self.in_shift
        out = self.phi(inside)
        return (out if self.out_shift == 0 else out + self.out_shift) * self.out_scale

    def __repr__(self) -> str:
        name = getattr(self.phi, "__name__", "phi")
        rows = [
            f"{self.out_scale:.15g} * ({name}({self.in_scale:.15g} * x + {self.in_shift:.15g}) + {self.out_shift:.15g})"
        ]
        rows += [f"{k} = {v!r}" for k, v in self.conditions.items()]
        return "\n".join(rows)


def shape_activation(
    phi: Callable[..., Any],
    network: Any,
    method: str = "dks",
    *,
    slope: float = 1.5,
    curvature: float = 0.3,
    value: float = 0.9,
    width: Width | None = None,
) -> Shaped:
    """An activation shaped for a network, so that it can be trained at any depth without residual branches or normalization.

    Args:
        phi: The activation, `tp.softplus` say.
        network: A `tp.Network`, or a function of a vector and an activation: of dense layers, sums, and activations.
        method: `"dks"`, Deep Kernel Shaping; or `"tat"`, the Tailored Activation Transformation.
        slope: The slope at correlation 1 of the largest subnetwork (dks), more than 1.
        curvature: Its curvature there (tat), more than 0.
        value: Its value at correlation 0 (tat, of `tp.leaky_relu`), between 0 and 1.
        width: The width of the vector, for a function.

    Returns:
        A `Shaped` activation: its four numbers, and a function to be used in place of phi.

    Raises:
        TensorProgramError: targets out of range; a network of other instructions; no solution.

    Example:
        >>> import tensorprog as tp
        >>> n = tp.Width("n")
        >>> def network(h, phi):
        ...     for k in range(20):
        ...         h = tp.dense(f"W{k}", phi(h), n)
        ...     return h
        >>> shaped = tp.shape_activation(tp.tanh, network, "tat", curvature=0.3)
        >>> s = tp.signal_propagation(shaped, W_std=1)
        >>> print(round(float(s.slope), 9), round(s.q, 9))
        1.0 1.0

    Source: Martens et al. 2021 (arXiv:2110.01765); Zhang, Botev, Martens 2022 (arXiv:2203.08120).
    """
    for name, target, low, high in (
        ("slope", slope, 1, np.inf),
        ("curvature", curvature, 0, np.inf),
        ("value", value, 0, 1),
    ):
        if not (isinstance(target, (int, float, np.number)) and low < target < high):
            raise TensorProgramError(f"{name}={target!r}", fix=f"give a number between {low} and {high}")
    graph = Subnetworks(network, width)
    if method == "dks":
        local = _solved(lambda x: graph.maximum(lambda y: y * x, 1.0) - slope, 1.0, slope)
        return _kernel_shaped(phi, local)
    if method == "tat":
        if phi is leaky_relu:
            return _leaky(graph, value)
        local = _solved(lambda x: graph.maximum(lambda y: y + x, 0.0) - curvature, 0.0, curvature)
        return _tailored(phi, local)
    raise TensorProgramError(f"method={method!r}", fix='use "dks" or "tat"')


def _solved(f: Callable[[float], float], low: float, high: float) -> float:
    from scipy.optimize import brentq

    return float(brentq(f, low, high, xtol=1e-16, rtol=4 * np.finfo(float).eps))


# ---- expectations ----
NAMES = ("mean", "square", "slope", "turn", "curve")


class _Expectations:
    """Of phi at u = s z + m: E phi, E phi^2, E phi'^2, E phi phi' z, E phi' z, E phi''^2, at several (s, m) at once."""

    def __init__(self, phi: Callable[..., Any], curved: bool) -> None:
        self.phi, self.curved, self.error = phi, curved, 0.0

    def __call__(self, s: np.ndarray, m: np.ndarray) -> dict[str, np.ndarray]:
        z = Vector("z", Width("n"), axes=("b",), cov=np.eye(len(s)))
        x = z * array(s, "b") + array(m, "b")
        y = self.phi(x)
        if not isinstance(y, Expression) or y.width is None:
            raise TensorProgramError(
                "an activation that returns no vector", fix="give a function of one vector, tp.tanh say"
            )
        d = _derivative(y, x)
        wanted = {"mean": y, "square": y * y, "slope": d * d, "turn": y * d * z, "tilt": d * z}
        if self.curved:
            wanted["curve"] = _derivative(d, x) ** 2
        found = limit(Program({k: moment(v) for k, v in wanted.items()}))
        values = {k: np.broadcast_to(np.asarray(e.value, float), s.shape) for k, e in found.items()}
        with np.errstate(divide="ignore", invalid="ignore"):
            worst = [np.max(np.abs(np.asarray(e.error, float) / np.asarray(e.value, float))) for e in found.values()]
        self.error = float(np.nanmax(worst))
        return values


def _derivative(y: Expression, x: Expression) -> Expression:
    """dy/dx of coordinates."""
    known: dict[Node, Node] = {}
    for node in topological([y.node]):
        if node == x.node:
            known[node] = algebra.ONE
            continue
        terms = []
        for i, a in enumerate(node.args):
            inner = known.get(a)
            if inner is None or inner.is_zero:
                continue
            outer = partial(node, i)
            if outer is None:
                raise TensorProgramError("an activation without a derivative", fix="give one that is smooth enough")
            terms.append((1, algebra.mul([outer, inner])))
        if terms:
            known[node] = algebra.add(terms)
    found = known.get(y.node)
    if found is None:
        raise TensorProgramError("an activation that does not depend on its argument", fix="give another")
    return Expression(algebra.typed(found, y.node.shape, y.node.width, None), y.names, y.axes)


# ---- the two methods ----
Outer = tuple[np.ndarray, np.ndarray]


def _kernel_shaped(phi: Callable[..., Any], local: float) -> Shaped:
    """Q(1) = Q'(1) = 1, C(0) = 0, C'(1) as asked for; of what has Q'(1) = 1 anyway, in_shift = 1."""
    expect = _Expectations(phi, curved=False)

    def outer(e: dict[str, np.ndarray], s: np.ndarray, sign: int) -> Outer:
        return -e["mean"], (e["square"] - e["mean"] ** 2) ** -0.5

    def misses(e: dict[str, np.ndarray], s: np.ndarray, shift: np.ndarray, scale: np.ndarray) -> np.ndarray:
        slope = scale**2 * s**2 * e["slope"] - local
        turn = scale**2 * s * (e["turn"] + shift * e["tilt"]) - 1
        return np.array([slope / (local - 1), turn / (local - 1)])

    piecewise = _is_piecewise_linear(phi)
    return _found(phi, expect, outer, misses, "dks", local, (0,), fixed=1.0 if piecewise else None)


def _tailored(phi: Callable[..., Any], local: float) -> Shaped:
    """Q(1) = Q'(1) = C'(1) = 1, C''(1) as asked for."""
    if _is_piecewise_linear(phi):
        raise TensorProgramError(
            "a tailored activation with kinks",
            why="C''(1), the mean square of its second derivative, is infinite",
            fix='use method="dks", or tp.leaky_relu itself, which has a transformation of its own',
        )
    expect = _Expectations(phi, curved=True)

    def outer(e: dict[str, np.ndarray], s: np.ndarray, sign: int) -> Outer:
        scale = (s**2 * e["slope"]) ** -0.5
        with np.errstate(invalid="ignore"):
            rest = np.sqrt(scale**-2 - (e["square"] - e["mean"] ** 2))
        return sign * rest - e["mean"], scale

    def misses(e: dict[str, np.ndarray], s: np.ndarray, shift: np.ndarray, scale: np.ndarray) -> np.ndarray:
        turn = scale**2 * s * (e["turn"] + shift * e["tilt"]) - 1
        return np.array([turn / local, scale**2 * s**4 * e["curve"] / local - 1])

    return _found(phi, expect, outer, misses, "tat", local, (1, -1))


def _found(
    phi: Callable[..., Any],
    expect: _Expectations,
    outer: Callable[..., Outer],
    misses: Callable[..., np.ndarray],
    method: str,
    local: float,
    signs: tuple[int, ...],
    fixed: float | None = None,
) -> Shaped:
    """Newton's method for log in_scale and in_shift; of two solutions the one that scales less."""
    if fixed is not None:

        def miss(x: np.ndarray) -> np.ndarray:
            s = np.exp(x)
            e = expect(s, np.full(len(s), fixed))
            return np.asarray(misses(e, s, *outer(e, s, 1))[:1])

        grid = np.log(SCALES)
        values = miss(grid)[0]
        ups = np.flatnonzero((values[:-1] < 0) & (values[1:] >= 0))
        if len(ups):
            at, _, turn = polished(miss, grid[ups[0]], grid[ups[0] + 1])
            s, m = np.exp([at]), np.array([fixed])
            e = expect(s, m)
            error = expect.error / (local - 1) / abs(float(turn[0])) + 1e-15
            out_shift, out_scale = outer(e, s, 1)
            return _shaped(phi, s[0], m[0], out_shift[0], out_scale[0], e, expect, method, local, error)
    bent = local - 1 if method == "dks" else local
    for scale, shift in STARTS if fixed is None else ():
        start = np.array([np.log(scale * bent**0.5), shift])
        found = [x for sign in signs if (x := _newton(phi, expect, outer, misses, method, local, start, sign))]
        if found:
            return min(found, key=lambda x: x.out_scale)
    raise TensorProgramError(
        f"no shaped {getattr(phi, '__name__', 'activation')}",
        why="the conditions have no solution that was found",
        fix='choose another target, or method="dks" in place of "tat" where phi is piecewise linear',
    )


def _newton(
    phi: Callable[..., Any],
    expect: _Expectations,
    outer: Callable[..., Outer],
    misses: Callable[..., np.ndarray],
    method: str,
    local: float,
    x: np.ndarray,
    sign: int,
) -> Shaped | None:
    bent = local - 1 if method == "dks" else local
    last = np.inf
    for _ in range(STEPS):
        points = x + SMALL * np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])
        s, m = np.exp(points[:, 0]), points[:, 1]
        if not (1e-6 < s[0] < 1e3 and abs(m[0]) < 1e3):
            return None
        e = expect(s, m)
        shift, scale = outer(e, s, sign)
        F = misses(e, s, shift, scale)
        J = np.stack([F[:, 1] - F[:, 2], F[:, 3] - F[:, 4]], 1) / (2 * SMALL)
        if not (np.isfinite(F).all() and np.isfinite(J).all()):
            return None
        miss = float(np.abs(F[:, 0]).max())
        move = np.linalg.lstsq(J, -F[:, 0], rcond=None)[0]
        size = float(np.abs(move).max())
        if size < DONE or (miss < CLOSE and miss >= last / 2):
            error = size + expect.error * float(np.linalg.norm(np.linalg.pinv(J), 2)) / bent
            return _shaped(phi, s[0], m[0], shift[0], scale[0], e, expect, method, local, error)
        last = miss
        x = x + move * min(1.0, 0.5 / max(size, 1e-300))
    return None


def _shaped(
    phi: Callable[..., Any],
    s: float,
    m: float,
    shift: float,
    scale: float,
    e: dict[str, np.ndarray],
    expect: _Expectations,
    method: str,
    local: float,
    error: float,
) -> Shaped:
    at = {k: float(v[0]) for k, v in e.items()}
    noise = expect.error * scale**2 * (at["square"] + shift**2) * 4 + 1e-15
    found = {
        "Q(1)": scale**2 * (at["square"] + 2 * shift * at["mean"] + shift**2),
        "Q'(1)": scale**2 * s * (at["turn"] + shift * at["tilt"]),
        "C(0)": scale**2 * (at["mean"] + shift) ** 2,
        "C'(1)": scale**2 * s**2 * at["slope"],
    }
    if "curve" in at:
        found["C''(1)"] = scale**2 * s**4 * at["curve"]
    conditions = {k: Estimate(float(v), float(noise), "limit", "bound") for k, v in found.items()}
    return Shaped(phi, float(s), float(m), float(shift), float(scale), method, local, conditions, float(error))


def _is_piecewise_linear(phi: Callable[..., Any]) -> bool:
    """Has it a second derivative that is 0 but for kinks? Then Q'(1) cannot be chosen."""
    x = Vector("x", Width("n"))
    second = _derivative(_derivative(phi(x), x), x).node
    parts = [y for y in topological([second]) if y.op == "fn" and y.width is not None]
    return second.is_zero or (bool(parts) and all(y.attr[0] == "bump" and y.attr[1][0] == 0 for y in parts))


def _leaky(graph: Subnetworks, value: float) -> Shaped:
    """leaky relu: C(c) = c + (1-a)^2/(pi (1+a^2)) (sqrt(1-c^2) - c arccos c); the scale makes Q(q) = q."""

    def local(a: float) -> Callable[[float], float]:
        weight = (1 - a) ** 2 / (np.pi * (1 + a * a))
        return lambda c: min(1.0, c + weight * (np.sqrt(max(0.0, 1 - c * c)) - c * np.arccos(min(1.0, c))))

    def miss(a: float) -> float:
        return graph.maximum(local(a), 0.0) - value

    if miss(0.0) < 0:
        raise TensorProgramError(
            f"value={value!r}", why="relu itself keeps correlations of 0 below that", fix="give a smaller one"
        )
    a = _solved(miss, 0.0, 1.0)
    scale = (2 / (1 + a * a)) ** 0.5
    step = 1e-6
    steep = abs(miss(a + step) - miss(a - step)) / (2 * step)
    conditions = {k: Estimate(1.0, 1e-15, "closed form", "rounding") for k in ("Q(1)", "Q'(1)", "C'(1)")}
    conditions["C(0) of the network"] = Estimate(miss(a) + value, 1e-15, "closed form", "rounding")

    def shaped_leaky_relu(x: Any) -> Any:
        return leaky_relu(x, a)

    error = 1e-15 / steep + 4e-16
    return Shaped(shaped_leaky_relu, 1.0, 0.0, 0.0, scale, "tat", a, conditions, error)
