"""Back-propagation against finite differences of the program itself, at small finite width.

The checker knows nothing of the rules: it runs the forward program with fixed arrays in place of the random ones, moves
one initial vector along a random direction, and takes a central difference of sixth order. With r the direction and
dx = sqrt(N n_x) dtheta/dx, that derivative is sqrt(n_x/N) Moment(dx r).
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from strategies import programs

import tensorprog as tp
from tensorprog.execute.dense import Dense
from tensorprog.execute.executor import execute
from tensorprog.language import algebra
from tensorprog.language.node import Node, topological
from tensorprog.language.program import Output
from tensorprog.language.symbols import VectorSpec
from tensorprog.transforms.backprop import backprop

WIDTH = 6
H = 2e-3
STENCIL = ((1, 3 / 4), (2, -3 / 20), (3, 1 / 60))  # of the derivative, for f(h) - f(-h)

n = tp.Width("n")
m = tp.Width("m", ratio=2)
k = tp.Width("k", ratio=Fraction(1, 2))
l3 = tp.Width("l", ratio=3)
W, V, S = tp.Matrix("W", n, n), tp.Matrix("V", m, n, var=Fraction(3, 2)), tp.Matrix("S", k, m, var=2)
x, y, z = tp.Vector("x", n, mean=0.3), tp.Vector("y", m, mean=-0.2), tp.Vector("z", k, mean=0.5)
e = tp.Vector("e", n, axes={"example": 3})
q = tp.Vector("q", n, axes={"example": 3, "t": 2})
eta = tp.Scalar("eta", 0.7)
z1 = W @ tp.sin(x)
A = tp.array([[1.0, -2.0], [0.5, 0.0]], ("t", "s"))


class Moved(Dense):
    """Dense weights of one seed; initial vectors can be moved along directions."""

    def __init__(self, seed: int, moves: dict[str, np.ndarray] | None = None) -> None:
        super().__init__(WIDTH, seed)
        self.moves = moves or {}

    def vector(self, spec):
        return super().vector(spec) + self.moves.get(spec.name, 0.0)


def directions(nodes: list[Node], seed: int) -> dict[str, np.ndarray]:
    """A direction for every initial vector: that of the probe of the same name, as the space draws it."""
    return {x.attr.name: Dense(WIDTH, seed).vector(probe(x).attr) for x in nodes}


def probe(x: Node) -> Node:
    return algebra.initial(VectorSpec(f"probe_{x.attr.name}", x.width, x.shape, 0, 1))


def slope(theta: Node, gradient, x: Node) -> Node:
    """The derivative of theta along the probe of x, from its gradient; of the shape of theta."""
    g, r = gradient.node, probe(x)
    free = gradient.free
    lead = len(free)
    shape = (*[theta.shape[o] for o in free], *x.shape)
    if lead and x.shape:
        r = algebra.view(r, range(lead, len(shape)), shape)
    total = algebra.moment(algebra.typed(algebra.mul([g, r]), shape, x.width, None))
    where = [*free, *[gradient.ties.index(i) if i in gradient.ties else -1 for i in range(len(x.shape))]]
    for axis in reversed(range(lead, len(shape))):
        if where[axis] < 0:
            total = algebra.sum_axis(total, axis)
    return algebra.transpose(total, [[o for o in where if o >= 0].index(o) for o in range(len(theta.shape))])


def errors(output: tp.Expression, seed: int = 0) -> dict[str, float]:
    """The relative error of the gradient with respect to every initial vector and hyperparameter."""
    theta = output.node
    vectors = sorted([v for v in topological([theta]) if v.op == "vector"], key=lambda v: v.attr.name)
    backward = backprop(theta)
    outputs, found = {"theta": Output(theta, tuple(f"a{i}" for i in range(len(theta.shape))))}, {}
    for v in vectors:
        name = v.attr.name
        if v in backward.gradients:
            node = slope(theta, backward.gradients[v], v)
            outputs[f"d_{name}"] = Output(node, outputs["theta"].axes)
    forward = tp.Program({"theta": outputs["theta"]})
    got = execute(tp.Program(outputs), Moved(seed))
    scale = np.abs(got["theta"]).max() + 1e-3
    along = directions(vectors, seed)
    for v in vectors:
        name = v.attr.name
        expected = 0.0
        for j, c in STENCIL:
            for sign in (1, -1):
                moved = Moved(seed, {name: sign * j * H * along[name]})
                expected = expected + sign * c * execute(forward, moved)["theta"] / H
        ours = got.get(f"d_{name}", 0.0) * np.sqrt(float(v.width.ratio))
        found[name] = float(np.max(np.abs(ours - expected)) / max(scale, np.abs(expected).max()))
    return found


def softmaxed(x):
    return tp.softmax(tp.moment(x * tp.rename(x, t="s")), "s")


def batch_norm(h):
    centred = h - tp.mean(h, "example")
    return centred * (tp.mean(centred**2, "example") + 0.1) ** -0.5


def layer_norm(h):
    centred = h - tp.moment(h)
    return centred * (tp.moment(centred**2) + 0.1) ** -0.5


def diagonal(v):
    """v[i, i] along the axis `example`; the face has no word for it, and the normal form of programs has."""
    assert sorted(v.names) == ["example", "other"]
    return tp.Expression(algebra.view(v.node, [0, 0], [v.node.shape[0]]), ("example",))


CASES = {
    "matmul": lambda: tp.moment(x * (W @ tp.tanh(x))),
    "transpose": lambda: tp.moment(tp.sin(W.T @ tp.tanh(W @ x)) * x),
    "wider": lambda: tp.moment(tp.tanh(V @ tp.tanh(x)) * y),
    "wider and back": lambda: tp.moment(tp.tanh(V.T @ tp.tanh(V @ tp.sin(x) + y)) * x),
    "through three widths": lambda: tp.moment(tp.tanh(S @ tp.tanh(V @ x + y)) * tp.sin(z)),
    "narrow to wide": lambda: tp.moment(tp.tanh(V.T @ (S.T @ tp.tanh(z))) * x),
    "moment as a parameter": lambda: tp.moment(tp.tanh(x * tp.moment(x * (W @ x)))),
    "moments across widths": lambda: tp.moment(tp.tanh(x + tp.moment(tp.sin(y)) * tp.moment(z**2)) * x),
    "moment of another width": lambda: tp.moment(tp.tanh(y * tp.moment(tp.sin(x) * x)) + tp.moment(z) * y),
    "nested scalars": lambda: (
        tp.sin(tp.tanh(tp.moment(x**2)) * tp.exp(tp.moment(y * y * tp.moment(x)))) + tp.moment(z) ** 3
    ),
    "scalar alone": lambda: tp.moment(x) * tp.moment(y) * tp.moment(z),
    "scalar spread over a width": lambda: tp.moment((tp.moment(y) + z) ** 2 * tp.moment(x)),
    "powers and roots": lambda: tp.moment((x**2 + 1) ** -1.5 * x**3) / (1 + tp.moment(y**4)) ** 0.5,
    "reciprocal": lambda: tp.moment(x / (2 + tp.sin(x))) / tp.moment(2 + x**2),
    "hyperparameter": lambda: tp.moment(tp.tanh(eta * x) * (W @ x)) * eta,
    "stack and take": lambda: tp.moment(tp.take(tp.stack([x, W @ x, tp.sin(x)], "s"), "s", 1) * x),
    "stack and sum": lambda: tp.moment(tp.sum(tp.tanh(tp.stack([x, W @ x, tp.moment(y) + 0 * x], "s")), "s") ** 2),
    "stack of scalars": lambda: tp.sum(tp.stack([tp.moment(x), tp.moment(y**2), tp.moment(z)], "s") ** 2, "s"),
    "take twice": lambda: tp.moment(
        tp.take(e, "example", 0) * tp.tanh(tp.take(e, "example", 0) + tp.take(e, "example", 2))
    ),
    "take beside the whole": lambda: tp.moment(tp.take(tp.tanh(e), "example", 0) * tp.sum(tp.tanh(e) ** 2, "example")),
    "take of two axes": lambda: tp.moment(
        tp.take(tp.take(tp.tanh(q), "t", 1), "example", 0) * tp.take(tp.take(tp.tanh(q), "example", 0), "t", 0)
    ),
    "gram matrix": lambda: tp.sum(tp.tanh(tp.moment(e * tp.rename(e, example="other")))),
    "diagonal": lambda: tp.sum(tp.moment(diagonal(e * (W @ tp.rename(e, example="other")))), "example"),
    "softmax": lambda: tp.sum(
        softmaxed(tp.take(q, "example", 0)) ** 2 * tp.array([[1.0, 2.0], [0.5, -1.0]], ("t", "s"))
    ),
    "broadcast": lambda: tp.sum(tp.moment(e * x * tp.moment(y)) ** 2),
    "array": lambda: tp.sum(tp.moment(tp.tanh(e * tp.array([1.0, -2.0, 0.5], "example")))),
    "outer": lambda: tp.moment(tp.outer(lambda a, b: tp.tanh(a + b) * b, x, y) * x),
    "outer with scalars": lambda: tp.moment(tp.outer(lambda a, b: tp.sin(a * b * tp.moment(z) + eta), x, y) * (W @ x)),
    "outer with several": lambda: tp.moment(
        tp.outer(lambda a, b, c: tp.tanh(a * c + b) * c**2, [x, tp.sin(x)], z) ** 2
    ),
    "outer with itself": lambda: tp.moment(tp.outer(lambda a, b: tp.exp(-((a - b) ** 2)), x, x) * x),
    "outer in a chain": lambda: tp.moment(tp.tanh(V @ tp.outer(lambda a, b: tp.tanh(a - 2 * b), x, V @ x)) * y),
    "outer without its first": lambda: tp.moment(tp.outer(lambda a, b: tp.sin(b) ** 2, x, y) * x),
    "outer without its second": lambda: tp.moment(tp.outer(lambda a, b: tp.sin(a) ** 2, x, y) * x),
    "outer of many and one": lambda: tp.moment(
        tp.outer(lambda a, b: tp.sum(tp.tanh(a * b) * tp.moment(q), "t"), e, y) * x
    ),
    "outer of one and many": lambda: tp.moment(tp.outer(lambda a, b: tp.tanh(a * b), x, V @ e) * x),
    "outer of one block": lambda: tp.moment(tp.outer(lambda a, b: tp.sin(b), e, V @ e) * x),
    "outer with sums": lambda: tp.moment(tp.outer(lambda a, b: tp.sum(tp.tanh(a * b), "t"), q, V @ e) * x),
    "outer with takes": lambda: tp.moment(tp.outer(lambda a, b: tp.take(tp.tanh(a * b), "t", 1), q, V @ q) * x),
    "outer of pairs": lambda: tp.moment(
        tp.outer(lambda a, b: tp.sum(tp.tanh(a * tp.rename(b, example="o")), "o"), e, V @ e) * x
    ),
    "elementary": lambda: tp.moment(
        tp.erf(x) * tp.gelu(x) + tp.sigmoid(x) * tp.softplus(x) + tp.silu(x) * tp.arctan(x) + tp.cos(x) * tp.gaussian(x)
    ),
    "logarithms": lambda: (
        tp.moment(tp.log(2 + tp.sin(x)) * tp.log1p(x**2)) + tp.log(tp.moment(tp.exp(x))) + tp.sqrt(tp.moment(x**2))
    ),
    "kinks": lambda: tp.moment(
        tp.relu(x) * tp.leaky_relu(W @ x, 0.2) + tp.elu(x) * tp.abs(W @ x) + tp.rectified_power(x, 3)
    ),
    "pick": lambda: tp.sum(
        tp.moment(tp.tanh(tp.pick(tp.tanh(e), "example", [2, 0, 0, 1])) * tp.array([1.0, 2.0, 3.0, 4.0], "example"))
    ),
    "pick in an outer": lambda: tp.sum(
        tp.moment(tp.outer(lambda a, b: tp.tanh(tp.pick(a, "t", [1, 1, 0]) * b), q, y) * x)
    ),
    # ---- one output for each example ----
    "tied, pick": lambda: tp.moment(
        tp.sum(tp.tanh(W @ tp.pick(tp.tanh(q), "t", [1, 0, 1])) * tp.pick(q, "t", [0, 0, 1]), "t") * x
    ),
    "full, pick": lambda: tp.moment(tp.tanh(W @ tp.pick(tp.tanh(e), "example", [2, 0, 0])) * e),
    "tied": lambda: tp.moment(tp.tanh(W @ tp.tanh(e)) * x),
    "tied, nested": lambda: tp.tanh(tp.moment(layer_norm(W @ e) * tp.sin(x))),
    "tied, other axes": lambda: (
        tp.moment(tp.sum(tp.tanh(W @ q), "t") * x) + tp.sum(tp.moment(q**2) * tp.moment(y), "t")
    ),
    "tied, attention": lambda: tp.moment(tp.mean(tp.sum(softmaxed(q) * tp.rename(W @ q, t="s"), "s"), "t") ** 2),
    "tied, takes": lambda: tp.moment(
        tp.tanh(tp.take(q, "t", 0) + W @ tp.tanh(tp.take(q, "t", 1))) * tp.take(q, "t", 0)
    ),
    "tied, stack": lambda: tp.moment(tp.sum(tp.stack([tp.take(q, "t", 0), W @ e, e * x], "s") ** 3, "s")),
    "tied, outer": lambda: tp.moment(tp.outer(lambda a, b: tp.tanh(a * b), e, tp.tanh(V @ e)) * x),
    "full, batch norm": lambda: tp.moment(tp.tanh(W @ batch_norm(W @ e)) * x),
    "full, sequences": lambda: tp.moment(tp.mean(tp.sin(W @ batch_norm(q)), "t") * x),
    "full, softmax over examples": lambda: tp.softmax(tp.moment(e * x), "example"),
    "full, one example for all": lambda: tp.moment(tp.tanh(e + W @ tp.take(e, "example", 1)) * x),
    "full, stacked": lambda: tp.moment(tp.stack([x, W @ x, tp.take(e, "example", 0)], "example") * tp.tanh(e)),
    "full, gram matrix": lambda: tp.sum(tp.moment(e * tp.rename(tp.tanh(e), example="other")) ** 2, "other"),
    "full, diagonal": lambda: tp.moment(diagonal(tp.tanh(e * tp.rename(W @ e, example="other")))),
    "full, outer": lambda: tp.moment(tp.outer(lambda a, b: tp.tanh(a * b), batch_norm(e), tp.tanh(V @ e)) * x),
    # ---- one output for each example and position ----
    "positions": lambda: tp.moment(tp.tanh(W @ tp.tanh(q)) * x),
    "positions, mixed": lambda: tp.moment(tp.tanh(W @ tp.sum(A * tp.rename(tp.tanh(q), t="s"), "s")) * q),
    "positions, attention": lambda: tp.moment(tp.sum(softmaxed(q) * tp.rename(W @ q, t="s"), "s") ** 2 * x),
    "positions, takes": lambda: tp.moment(q * tp.tanh(W @ tp.take(q, "t", 1)) + tp.take(q, "t", 0) * x),
    "positions, pick": lambda: tp.moment(tp.tanh(W @ tp.pick(q, "t", [1, 1, 0])) * tp.pick(q, "t", [0, 1, 1])),
    "positions, stack": lambda: tp.moment(tp.tanh(W @ tp.stack([tp.take(q, "t", 1), e * x, x], "t")) * e),
    "positions, softmax": lambda: tp.softmax(tp.moment(q * tp.tanh(W @ q)), "t"),
    "positions, batch norm": lambda: tp.moment(tp.tanh(W @ batch_norm(q)) * x),
    "positions, outer": lambda: tp.moment(tp.outer(lambda a, b: tp.tanh(a * b), q, tp.tanh(V @ q)) * x),
    "positions, of the output only": lambda: tp.moment(e * x) * tp.moment(tp.take(q, "example", 0)),
    "positions, by scalars": lambda: tp.moment(e * x) * tp.tanh(tp.moment(q)) * tp.moment(y) + tp.moment(x * z1),
    "independent of the example": lambda: tp.moment(x * (W @ x)) + 0 * tp.moment(e),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_derivatives(name):
    found = errors(CASES[name]())
    assert found and max(found.values()) < 1e-10, found


def test_gradients_with_respect_to_scalars():
    """dt := dtheta/dt for a hyperparameter t, however many vectors it multiplies."""
    theta = tp.moment(tp.tanh(eta * x) * (W @ tp.sin(eta + x))) * eta + tp.moment(
        tp.outer(lambda a, b: tp.sin(a * eta * b), y, z)
    )
    gradient = backprop(theta.node).gradients[eta.node].node
    got = tp.run(tp.Program(d=tp.Expression(gradient)), n=WIDTH)["d"][0]
    forward = tp.Program(theta=theta)
    moved = [tp.run(forward, n=WIDTH, values={"eta": 0.7 + j * H})["theta"][0] for j in range(-3, 4)]
    expected = sum(c * (moved[3 + j] - moved[3 - j]) / H for j, c in STENCIL)
    assert abs(got - expected) < 1e-11


@settings(max_examples=40, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs(max_instructions=8, kinked=False))
def test_random_programs(program):
    """Programs with two widths, W, W.T, rectangular matrices, scalars, axes and OuterNonlins."""
    for name, output in program.outputs.items():
        found = errors(tp.Expression(output.node, output.axes))
        assert max(found.values(), default=0.0) < 1e-9, (name, found)
