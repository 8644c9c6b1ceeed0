"""Recurrent networks: one step after another along an axis of time.

All of them return the states of all times along that axis: `tp.take(h, "t", -1)` is the last one, `tp.mean(h, "t")` their
average, and the next layer takes h as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tensorprog.errors import TensorProgramError
from tensorprog.language import build
from tensorprog.language.deferred import layer
from tensorprog.language.describe import describe
from tensorprog.language.expression import Expression
from tensorprog.language.matrix import Matrix
from tensorprog.language.symbols import Width
from tensorprog.networks.layers import bias, dense, deviation, hyperparameter, ordered, times

__all__ = ["bidirectional", "gru", "lstm", "rnn"]

Activation = Callable[[Any], Any]


class _Gate:
    """U x_t + W h + b, for one of the gates of a cell: the weights `name_W`, `name_U`, `name_b`."""

    def __init__(self, name: str, x: Any, n: Width, W_std: Any, U_std: Any, b_std: Any, axis: str) -> None:
        u = dense(f"{name}_U", x, n, W_std=U_std)
        self.u = u if b_std is None else u + bias(f"{name}_b", n, b_std)
        if axis not in u.axes:
            raise TensorProgramError(
                f"the recurrent layer {name} runs along the axis {axis!r}, and {describe(u.node)} has {u.axes or 'none'}",
                fix='give the input a time axis, tp.Input("x", axes=("t",)), or name another: axis=..',
            )
        self.axis, self.axes, self.steps = axis, u.axes, u.shape[u.axes.index(axis)]
        var, self.factor = deviation(W_std, f"W_std of {name}")
        self.W = Matrix(f"{name}_W", n, n, var, std=hyperparameter(self.factor))

    def __call__(self, t: int, h: Any) -> Any:
        """At time t after the state h; None for no state yet."""
        u = build.take(self.u, self.axis, t)
        return u if h is None else u + times(self.factor, self.W @ h)


def _times(steps: int, reverse: bool) -> list[int]:
    return list(range(steps))[:: -1 if reverse else 1]


def _stacked(states: list[Any], gate: _Gate, reverse: bool) -> Expression:
    return ordered(build.stack(states[:: -1 if reverse else 1], gate.axis), gate.axes)


@layer
def rnn(
    name: str,
    x: Any,
    n: Width,
    phi: Activation = build.tanh,
    W_std: Any = 1,
    U_std: Any = 1,
    b_std: Any = None,
    axis: str = "t",
    reverse: bool = False,
    state: Any = None,
) -> Expression:
    """A recurrent network: h_t = phi(W h_{t-1} + U x_t + b); no term W h at the first time, unless `state` is given.

    Args:
        name: Of the weights `name_W`, `name_U` and the bias `name_b`.
        x: An Input or a vector, with the axis.
        n: The width of the states.
        phi: The activation.
        W_std: Standard deviation of the weights of W, times the root of the fan-in.
        U_std: Of U.
        b_std: Of the bias; None for none.
        axis: Time.
        reverse: Does it run from the last time to the first? (States stay in the order of x.)
        state: A vector of width n to start from.

    Returns:
        The states of all times: a vector of width n with the axes of x.

    Example:
        >>> import tensorprog as tp
        >>> h = tp.rnn("R", tp.Input("x", axes=("t",)), tp.Width("n"), phi=tp.relu, W_std=2**0.5)
        >>> net = tp.Network(tp.readout("v", tp.take(h, "t", -1)))
        >>> tp.limit(net.program([[[1.0], [0.0]], [[1.0], [2.0]]], of="nngp"))["nngp"].value.round(6)
        array([[0.5     , 0.642102],
               [0.642102, 2.5     ]])

    Source: Elman 1990; Tensor Programs II (arXiv:2006.14548), section 6.2.1.
    """
    gate = _Gate(name, x, n, W_std, U_std, b_std, axis)
    states, h = [], state
    for t in _times(gate.steps, reverse):
        h = phi(gate(t, h))
        states.append(h)
    return _stacked(states, gate, reverse)


def bidirectional(cell: Callable[..., Any], name: str, x: Any, n: Width, **options: Any) -> list[Expression]:
    """The states of a recurrent layer that runs forward and of one, with other weights, that runs backward.

    Args:
        cell: `tp.rnn`, `tp.gru` or `tp.lstm`, or a function like them.
        name: The layers are called `name_forward` and `name_backward`.
        x: As for the cell.
        n: The width of each.
        options: For the cell.

    Returns:
        A list of both (of an Input, too), which `tp.dense` and `tp.readout` take as a concatenation.

    Example:
        >>> import tensorprog as tp
        >>> x = tp.Vector("x", tp.Width("n"), axes={"t": 3})
        >>> tp.bidirectional(tp.rnn, "R", x, tp.Width("n"))
        [<...: vector of width n, t: 3>, <...: vector of width n, t: 3>]

    Source: Schuster, Paliwal 1997.
    """
    if not callable(cell):
        raise TensorProgramError(f"bidirectional {name} is given {cell!r}", fix="give tp.rnn, tp.gru or tp.lstm first")
    # Two recorded calls, not one: of an Input the pair must be a list as well, which can be taken apart.
    run = layer(cell)
    return [run(f"{name}_forward", x, n, **options), run(f"{name}_backward", x, n, reverse=True, **options)]


@layer
def gru(
    name: str,
    x: Any,
    n: Width,
    phi: Activation = build.tanh,
    gate: Activation = build.sigmoid,
    W_std: Any = 1,
    U_std: Any = 1,
    b_std: Any = None,
    axis: str = "t",
    reverse: bool = False,
    state: Any = None,
) -> Expression:
    """A gated recurrent unit, h_t = (1 - z) h_{t-1} + z phi(c), h_0 = 0 unless `state` is given, with the gates.

        z = gate(U_z x_t + W_z h_{t-1} + b_z)           what is replaced
        r = gate(U_r x_t + W_r h_{t-1} + b_r)           what is seen
        c = U_c x_t + W_c (r h_{t-1}) + b_c

    Args:
        name: Of the weights: `name_z_W`, `name_z_U`, `name_z_b`, and the same with r and c.
        x: An Input or a vector, with the axis.
        n: The width of the states.
        phi: The activation of the candidate.
        gate: The activation of the gates.
        W_std: Standard deviation of the weights W, times the root of the fan-in.
        U_std: Of the weights U.
        b_std: Of the biases; None for none.
        axis: Time.
        reverse: Does it run from the last time to the first?
        state: A vector of width n to start from.

    Returns:
        The states of all times: a vector of width n with the axes of x.

    Example:
        >>> import tensorprog as tp
        >>> h = tp.gru("G", tp.Input("x", axes=("t",)), tp.Width("n"))
        >>> net = tp.Network(tp.readout("v", tp.take(h, "t", -1)))
        >>> runs = tp.run(net.program([[[1.0], [0.0]]], of="nngp"), n=32, seeds=1)

    Source: Cho et al. 2014 (arXiv:1406.1078), equations 5-8, z and 1 - z exchanged as in Yang 2019 (arXiv:1910.12478).
    """
    z, r, c = (_Gate(f"{name}_{k}", x, n, W_std, U_std, b_std, axis) for k in "zrc")
    states, h = [], state
    for t in _times(c.steps, reverse):
        update = gate(z(t, h))
        new = update * phi(c(t, None if h is None else gate(r(t, h)) * h))
        h = new if h is None else (1 - update) * h + new
        states.append(h)
    return _stacked(states, c, reverse)


@layer
def lstm(
    name: str,
    x: Any,
    n: Width,
    phi: Activation = build.tanh,
    gate: Activation = build.sigmoid,
    W_std: Any = 1,
    U_std: Any = 1,
    b_std: Any = None,
    axis: str = "t",
    reverse: bool = False,
    state: Any = None,
) -> Expression:
    """Long short-term memory: c_t = f c_{t-1} + i phi(g), h_t = o phi(c_t), c_0 = h_0 = 0 unless `state` is given.

    The gates are i = gate(U_i x_t + W_i h_{t-1} + b_i), f and o likewise, and g = U_g x_t + W_g h_{t-1} + b_g.

    Args:
        name: Of the weights: `name_i_W`, `name_i_U`, `name_i_b`, and the same with f, o and g.
        x: An Input or a vector, with the axis.
        n: The width of the states.
        phi: The activation of g and of the memory.
        gate: The activation of the gates.
        W_std: Standard deviation of the weights W, times the root of the fan-in.
        U_std: Of the weights U.
        b_std: Of the biases; None for none.
        axis: Time.
        reverse: Does it run from the last time to the first?
        state: A pair (h, c) of vectors of width n to start from.

    Returns:
        The states h of all times: a vector of width n with the axes of x.

    Example:
        >>> import tensorprog as tp
        >>> h = tp.lstm("L", tp.Input("x", axes=("t",)), tp.Width("n"))
        >>> net = tp.Network(tp.readout("v", tp.take(h, "t", -1)))
        >>> runs = tp.run(net.program([[[1.0], [0.0]]], of="nngp"), n=32, seeds=1)

    Source: Hochreiter, Schmidhuber 1997; with the forget gate f: Gers, Schmidhuber, Cummins 2000.
    """
    i, f, o, g = (_Gate(f"{name}_{k}", x, n, W_std, U_std, b_std, axis) for k in "ifog")
    if state is not None and not (isinstance(state, (list, tuple)) and len(state) == 2):
        raise TensorProgramError(f"the state of {name} is no pair", fix="give (h, c), the state and the memory")
    states: list[Any] = []
    h, c = (None, None) if state is None else state
    for t in _times(g.steps, reverse):
        new = gate(i(t, h)) * phi(g(t, h))
        c = new if c is None else gate(f(t, h)) * c + new
        h = gate(o(t, h)) * phi(c)
        states.append(h)
    return _stacked(states, g, reverse)
