"""What one block does to variances, covariances and tangent kernels, derived from its program.

A block is a function h -> h. Applied to a Gaussian state with the variances q1, q2 and the covariance q12 under two inputs, it
makes a state with

    q12' = E h1' h2',    Theta' = A Theta + B,    A = E dh1 dh2 = d q12' / d q12,

B being the tangent kernel of the block's own parameters, and dh the gradient of a readout of h' (Tensor Programs II). All are
kernels of the network readout(block(dense(x))), whose data is open: `kernel_fn` compiles it once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.kernels.function import kernel_fn
from tensorprog.language import algebra
from tensorprog.language.build import moment
from tensorprog.language.expression import Expression
from tensorprog.language.leaves import Vector
from tensorprog.language.node import MOVES, Node, topological
from tensorprog.language.program import Output, Program
from tensorprog.language.symbols import Width
from tensorprog.limits.limit import limit
from tensorprog.networks.inputs import Input
from tensorprog.networks.layers import dense, squared
from tensorprog.networks.network import Network
from tensorprog.networks.readouts import readout
from tensorprog.networks.samples import open_data
from tensorprog.transforms.tangent import parameters

__all__ = ["TINY", "Block", "Moments", "Repeated", "takes_deviations"]

STATE, READOUT = "block_state", "block_readout"
"""The layers around a block; its own have other names."""
TINY = 1e-30
"""The variance that stands for 0, where a slope is a limit."""
SEVERAL = 4
"""So many states at once have a program of their own."""
DEVIATIONS = "W_std", "b_std"


@dataclass(frozen=True)
class Moments:
    """What a block makes of some states: arrays of one shape.

    Attributes:
        covariance: q12'.
        slope: A, which multiplies the tangent kernel: d q12' / d q12.
        tangent: B, the tangent kernel of the block's own parameters.
        errors: How wrong each of the three may be, at most.
        relative: How wrong covariance and slope may be beside themselves, at most; known of many states alone.
    """

    covariance: np.ndarray
    slope: np.ndarray
    tangent: np.ndarray
    errors: tuple[float, float, float]
    relative: float = float("inf")


class Block:
    """A function h -> h as a map of what a limit knows of h.

    Args:
        function: The block, or a function of coordinates.
        width: The width of h.

    Raises:
        TensorProgramError: it is no function h -> h.
    """

    def __init__(self, function: Callable[..., Any], width: Width | None = None) -> None:
        if not callable(function):
            raise TensorProgramError(
                f"a block is {type(function).__name__}", fix="give a function h -> h made of layers, or tp.tanh, say"
            )
        self.function = function
        self.width = width or Width("n")
        out = self._image(self.width)
        if width is None and out.width != self.width:
            self.width = out.width
            out = self._image(self.width)
        if out.width != self.width:
            raise TensorProgramError(
                f"a block makes a vector of width {out.width.name} of one of width {self.width.name}",
                why="it is repeated",
                fix="end in the width that it begins with, and pass it as width=",
            )
        self.image = out
        self.network = Network(self._network, inputs=[Input(STATE)])
        body = self.network.body(open_data(self.network.inputs, {STATE: (1,)}, 0))
        known = parameters(body.backward)
        if STATE not in known:
            raise TensorProgramError(
                "a block through which no gradient flows",
                why="its slope is 0 wherever it has one (sign, a step, a constant): the tangent kernel does not see its input",
                fix="give a function that is continuous and not constant",
            )
        self.parameters = [k for k in known if k not in (STATE, READOUT)]
        self.kernels = kernel_fn(self.network)

    def _network(self, x: Any) -> Any:
        return readout(READOUT, self.function(dense(STATE, x, self.width)))

    def _image(self, width: Width) -> Any:
        state = Vector(STATE, width)
        out = self.function(state)
        if not isinstance(out, Expression) or out.width is None:
            raise TensorProgramError(
                f"a block returns {'a scalar' if isinstance(out, Expression) else type(out).__name__}",
                why="it is a function h -> h of vectors",
                fix="return a vector of the width of h",
            )
        if out.axes:
            raise TensorProgramError(
                f"a block makes the axes {', '.join(out.axes)}", fix="return a vector with the axes of h: none"
            )
        return out

    def check_closed(self) -> None:
        """Refuses blocks whose next state is not determined by variances and covariances.

        Raises:
            TensorProgramError: h is looked at coordinate by coordinate, and what the block makes is not Gaussian and centred.
        """
        nodes = topological([self.image.node])
        uses = [x for x in nodes if any(a.op == "vector" and a.attr.name == STATE for a in x.args)]
        if uses and all(x.op == "matmul" for x in uses):
            return  # inner products are all that is seen of h
        fix = "let a block begin or end with a dense layer; pass W_std= to have one after a function of coordinates"
        if not _gaussian(self.image.node, {}):
            raise TensorProgramError(
                "the state after the block is not Gaussian",
                why="then variances and covariances do not say what the block makes of it when it comes again",
                fix=fix,
            )
        mean = limit(Program(mean=moment(self.image)))["mean"]
        if abs(float(mean)) > 1e-12 + float(mean.error):
            raise TensorProgramError(
                f"the state after the block has mean {float(mean):.3g}",
                why="what is known of it when the block comes again is a variance; its mean is 0",
                fix="subtract the mean, or " + fix,
            )

    def alone(self, q: Any) -> Moments:
        """For states of the variances q, with themselves."""
        q = np.maximum(np.atleast_1d(np.asarray(q, float)), TINY)
        if len(q) >= SEVERAL:
            return self._limits(q)
        parts = [self._kernels(x[:, None], x[:, None]) for x in q[:, None]]
        found = [np.array([getattr(m, k)[0, 0] for m in parts]) for k in ("covariance", "slope", "tangent")]
        a, b, c = [max(m.errors[k] for m in parts) for k in range(3)]
        return Moments(found[0], found[1], found[2], (a, b, c))

    def _limits(self, q: np.ndarray) -> Moments:
        """The diagonals of the kernels of many states: a program of its own, of integrals in fewer variables."""
        names = ["nngp", f"ntk_{STATE}", *[f"ntk_{k}" for k in self.parameters]]
        kernels = self.network.program(np.diag(np.sqrt(len(q) * q)), of=names).outputs
        diagonals = {k: Output(algebra.view(kernels[k].node, [0, 0], (len(q),)), ("example",)) for k in names}
        found = limit(Program(diagonals))
        values = [np.broadcast_to(np.asarray(found[k].value, float), q.shape) for k in names]
        errors = [np.broadcast_to(np.asarray(found[k].error, float), q.shape) for k in names]
        tangent = sum(values[2:], np.zeros_like(q))
        worst = float(errors[0].max()), float((errors[1] / q).max()), float(sum([e.max() for e in errors[2:]]))
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = float(np.nanmax([e / np.abs(v) for e, v in zip(errors[:2], values[:2], strict=True)]))
        return Moments(values[0].copy(), values[1] / q, np.asarray(tangent), worst, relative)

    def pairs(self, q: float, defects: np.ndarray) -> Moments:
        """For two states of variance q each, of the covariances q (1 - defect)."""
        covariance = q - q * defects
        found = self._kernels((np.array([q]), covariance[None], np.full(covariance.size, q)), covariance)
        return Moments(found.covariance[0], found.slope[0], found.tangent[0], found.errors)

    def three(self, q1: float, q12: float, q2: float) -> Moments:
        """For two states of any variances and covariance."""
        found = self._kernels((np.array([q1]), np.array([[q12]]), np.array([q2])), np.array([[q12]]))
        return Moments(found.covariance[0], found.slope[0], found.tangent[0], found.errors)

    def _kernels(self, gram: Any, covariance: np.ndarray) -> Moments:
        own = [f"ntk_{k}" for k in self.parameters]
        names = ["nngp", f"ntk_{STATE}", *own]
        found = self.kernels(gram=gram, get=names)
        arrays: dict[str, np.ndarray] = dict(zip(names, found, strict=True))
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = arrays[names[1]] / covariance
        tangent = sum([arrays[k] for k in own], np.zeros_like(arrays["nngp"]))
        least = float(np.abs(covariance).min(initial=np.inf, where=covariance != 0))
        errors = (found.error["nngp"], found.error[names[1]] / least, float(sum([found.error[k] for k in own])))
        return Moments(arrays["nngp"], slope, tangent, errors)


class Repeated:
    """A block that is repeated; after it, perhaps, a dense layer of any W_std and b_std.

    Args:
        block: The block, or what comes before the dense layer.
        W_std: Of the dense layer's weights; None for no dense layer.
        b_std: Of its biases.

    Raises:
        TensorProgramError: numbers that are none; a state that a variance does not describe.
    """

    def __init__(self, block: Block, W_std: Any = None, b_std: Any = None) -> None:
        self.block, self.affine = block, W_std is not None
        if not self.affine:
            if b_std is not None:
                raise TensorProgramError("b_std= without W_std=", fix="give W_std=, too, or biases inside the block")
            block.check_closed()
            self.w2, self.b2 = 1.0, 0.0
        else:
            self.w2 = float(squared(W_std, "W_std"))
            self.b2 = float(squared(0 if b_std is None else b_std, "b_std"))
            if self.w2 == 0:
                raise TensorProgramError(
                    "W_std is 0", why="then a layer forgets its input: there is no phase", fix="give a positive number"
                )

    def __call__(self, found: Moments) -> Moments:
        """What the dense layer makes of what comes before it."""
        if not self.affine:
            return found
        covariance = self.b2 + self.w2 * found.covariance
        tangent = covariance + self.w2 * found.tangent
        a, b, c = [self.w2 * e for e in found.errors]
        return Moments(covariance, self.w2 * found.slope, tangent, (a, b, a + c))

    def alone(self, q: Any) -> Moments:
        """As `Block.alone`."""
        return self(self.block.alone(q))

    def pairs(self, q: float, defects: np.ndarray) -> Moments:
        """As `Block.pairs`."""
        return self(self.block.pairs(q, defects))

    def three(self, q1: float, q12: float, q2: float) -> Moments:
        """As `Block.three`."""
        return self(self.block.three(q1, q12, q2))


def takes_deviations(function: Callable[..., Any]) -> bool:
    """Is it a family of blocks, a function of h, W_std and b_std?"""
    try:
        names: Sequence[str] = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return False
    return all(k in names for k in DEVIATIONS)


def _gaussian(x: Node, known: dict[Node, bool]) -> bool:
    """Is the limit of a vector a centred Gaussian for sure: a sum of Gaussian leaves, with coefficients that are scalars?"""
    both = _both_ways(x)
    for y in topological([x]):
        if y.width is None:
            known[y] = False
        elif y.op == "vector":
            known[y] = y.attr.distribution is None and not np.any(y.attr.mean)
        elif y.op == "matmul":
            known[y] = y.attr.matrix.name not in both
        elif y.op == "add" or y.op in (*MOVES, "stack", "sum"):  # scalars are means, which are looked at as numbers
            known[y] = all(known[a] or a.width is None for a in y.args)
        elif y.op == "mul":
            wide = [(a, k) for a, k in zip(y.args, y.attr, strict=True) if a.width is not None and not _fixed(a)]
            known[y] = len(wide) == 1 and wide[0][1] == 1 and known[wide[0][0]]
        else:
            known[y] = False
    return known[x]


def _fixed(x: Node) -> bool:
    """Is it a vector of equal coordinates?"""
    return x.op == "vector" and x.attr.distribution is None and x.attr.cov is None and not np.any(x.attr.var)


def _both_ways(x: Node) -> set[str]:
    """Matrices that are applied together with their transposes."""
    found: dict[str, set[bool]] = {}
    for y in topological([x]):
        if y.op == "matmul":
            found.setdefault(y.attr.matrix.name, set()).add(y.attr.transposed)
    return {name for name, ways in found.items() if len(ways) > 1}
