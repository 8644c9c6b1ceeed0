"""`tp.sgd`: a network and how it is trained, checked and made a `Trace`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.language import algebra
from tensorprog.language.expression import Expression
from tensorprog.language.node import Node
from tensorprog.language.symbols import Number, number
from tensorprog.networks.inputs import EXAMPLE
from tensorprog.networks.network import Network
from tensorprog.networks.readouts import Readout
from tensorprog.networks.samples import Batch, batches, reduced, same_features
from tensorprog.training.losses import loss_of, takes
from tensorprog.training.optimizers import SGD, Optimizer
from tensorprog.training.passes import Pass, parameter_kinds
from tensorprog.training.powers import ABC, Powers, named
from tensorprog.training.trace import Trace
from tensorprog.training.unroll import F0, Recipe

__all__ = ["sgd"]

TAKEN = ("f", "f_test", "loss", F0)
"""Names of a trace's own outputs."""


def sgd(
    net: Network,
    X: Any,
    y: Any,
    *,
    steps: int,
    lr: Any,
    batch: Any = "full",
    parametrization: str | ABC = "ntk",
    loss: Any = "mse",
    X_test: Any = None,
    optimizer: Optimizer | None = None,
    weight_decay: Any = 0,
    clip: Any = None,
    freeze: Iterable[str] | None = None,
    probe: Mapping[str, Any] | None = None,
) -> Trace:
    """Trains a network by gradient descent: the whole run as one Tensor Program.

    Args:
        net: The network, any `tp.Network` with readouts or, where features are learned, Moments as outputs.
        X: The data it is trained on, examples first.
        y: Targets, one for each example and output; for cross-entropy the numbers of the classes.
        steps: How many.
        lr: The learning rate: a number, a `tp.Scalar`, an array of one a step, a function of the step (from 0), or a dictionary
            of such by the names of parameters, "default" for the others.
        batch: "full"; a number k for blocks of k examples in order, cyclically; or a list of arrays of indices, one a step.
        parametrization: "ntk", "mup", "standard" (with the rate lr / n), "mean_field" or a `tp.ABC`.
        loss: "mse": the mean over the batch of |f - y|^2 / 2; "logistic" (labels 1 and -1); "cross_entropy"; or a function of
            f and y, with one number for each example.
        X_test: Data on which outputs are computed, too.
        optimizer: `tp.SGD(momentum=, nesterov=, weight_decay=)`, plain by default; `tp.Adam(beta1=, beta2=, eps=)`,
            `tp.SignSGD()` or `tp.Muon(momentum=, others=)`, in "mup" or "ntk", with rates that are the same at all widths.
        weight_decay: Of what is trained (decoupled, as in AdamW): a step leaves 1 - lr weight_decay of it.
            `tp.SGD(weight_decay=)` is the coupled one.
        clip: The largest norm of the gradients of all parameters together; larger ones are scaled down to it. The norm is that of
            the derivatives in the entries of omega times n^(-c/2), which is of order one in every parametrization (c = 0 in
            "ntk" and "mup"); shifts of a parametrization leave it as it is.
        freeze: The names of parameters that are not trained.
        probe: Name to a Moment of the network's vectors, such as `tp.moment(h * h)`, or to a function of its Inputs that returns
            one: outputs of every step, before it and after the last; with X_test also under NAME_test.

    Raises:
        TensorProgramError: Data, targets or options that make no sense; a parametrization that blows up.

    Example:
        >>> import tensorprog as tp
        >>> n = tp.Width("n")
        >>> h = tp.dense("W", tp.dense("U", tp.Input("x"), n), n)
        >>> trace = tp.sgd(tp.Network(tp.readout("v", h)), [[1]], [1], steps=3, lr=0.25, parametrization="mup")
        >>> tp.limit(trace)["f"].value.ravel().round(6).tolist()
        [0.0, 0.75, 0.997086, 1.00046]

    Source: Yang and Littwin, Tensor Programs IIb (arXiv:2105.03703); Yang and Hu, Tensor Programs IV (arXiv:2011.14522).
    """
    if not isinstance(net, Network):
        raise TensorProgramError(f"tp.sgd of {type(net).__name__}", fix="give a tp.Network")
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 1:
        raise TensorProgramError(f"steps={steps!r}", fix="give a number of steps, 1 or more")
    train = _one(net, X, "X")
    test = None if X_test is None else _one(net, X_test, "X_test")
    both = [train] if test is None else [train, test]
    if test is not None:
        same_features([train], [test])
    reduced(both, net.inputs)
    whole = Pass(net, train)
    kinds, matrices = parameter_kinds(whole)
    frozen = _frozen(freeze, kinds)
    abc = named(parametrization, len(matrices) + 1)
    optimizer = SGD() if optimizer is None else optimizer
    if isinstance(optimizer, type) or not (hasattr(optimizer, "step") and hasattr(optimizer, "linear")):
        raise TensorProgramError(
            f"optimizer={optimizer!r}", fix="use tp.SGD(..), tp.Adam(..), tp.SignSGD(..) or tp.Muon(..)"
        )
    if not optimizer.linear and parametrization not in ("mup", "ntk"):
        raise TensorProgramError(
            f"{type(optimizer).__name__} in the parametrization {parametrization}",
            why="its steps do not scale as gradients do: the exponents of an abc-parametrization are those of gradient descent",
            fix='use parametrization="mup" or "ntk"',
        )
    powers = Powers.of(abc, kinds, matrices)
    average = [o for o in whole.outputs if not isinstance(o, Readout)]
    if average and powers.scale != 0:
        raise TensorProgramError(
            f"an output that is a Moment, trained in the parametrization {abc}",
            why="its gradients are smaller than a readout's by n^(-1/2): where it moves at all, features do, too",
            fix='use parametrization="mup", or a tp.readout',
        )
    decay = number(weight_decay, "the weight decay")
    if decay < 0:
        raise TensorProgramError(f"weight_decay={weight_decay}", fix="give a number of at least 0")
    coupled = number(getattr(optimizer, "weight_decay", 0))
    found = loss_of(loss, y, whole.examples, whole.theta.shape[1] if whole.several else None)
    recipe = Recipe(
        powers,
        found,
        _batches(batch, int(steps), whole.examples),
        _rates(lr, int(steps), kinds),
        optimizer,
        decay,
        frozen,
        coupled,
        None if clip is None else _positive(clip, "clip"),
        _probes(probe or {}, net, train),
    )
    return Trace(net, train, test, recipe, abc)


def _probes(probe: Mapping[str, Any], net: Network, train: Batch) -> dict[str, Network]:
    found = {}
    for name, moment in probe.items():
        if not isinstance(name, str) or name in TAKEN:
            raise TensorProgramError(f"a probe called {name!r}", fix=f"other names than {', '.join(TAKEN)}")
        of = Network(moment, net.inputs, per=[a for x in net.inputs for a in x.axis_names if a != EXAMPLE])
        outputs = of.body(train.data).outputs
        if len(outputs) != 1 or isinstance(outputs[0], Readout):
            raise TensorProgramError(f"the probe {name!r} is no Moment", fix="give one, such as tp.moment(h * h)")
        found[name] = of
    return found


def _positive(given: Any, what: str) -> Number:
    found = number(given, what)
    if not found > 0:
        raise TensorProgramError(f"{what}={given}", fix="give a number above 0")
    return found


def _one(net: Network, X: Any, what: str) -> Batch:
    given = X.values() if isinstance(X, Mapping) and X else [X]
    shape = lambda a: isinstance(a, tuple) and a and all(isinstance(k, (int, np.integer)) for k in a)  # noqa: E731
    if any(a is None or shape(a) for a in given):  # of which `batches` makes generic data
        raise TensorProgramError(f"{what} has no data", fix="give an array for every input")
    found = batches(net.inputs, X, net.source)
    if len(found) > 1:
        raise TensorProgramError(
            f"{what} with examples of {len(found)} shapes", why="training takes examples of one shape", fix="pad them"
        )
    return found[0]


def _frozen(freeze: Any, kinds: Mapping[str, str]) -> frozenset[str]:
    if not isinstance(freeze, (str, Iterable, type(None))):
        raise TensorProgramError(f"freeze={freeze!r}"[:80], fix="give a list of names of parameters")
    names = (freeze,) if isinstance(freeze, str) else tuple(freeze or ())
    for name in names:
        if not isinstance(name, str) or name not in kinds:
            raise TensorProgramError(f"freeze has {name!r}", fix=f"the parameters are {', '.join(sorted(kinds))}")
    return frozenset(names)


def _batches(batch: Any, steps: int, examples: int) -> list[tuple[int, ...]]:
    if isinstance(batch, str):
        if batch != "full":
            raise TensorProgramError(f"batch={batch!r}", fix='use "full", a number of examples, or a list of indices')
        return [tuple(range(examples))] * steps
    if isinstance(batch, (int, np.integer)) and not isinstance(batch, bool):
        if not 1 <= batch <= examples:
            raise TensorProgramError(f"batch={batch} of {examples} examples", fix=f"give a number from 1 to {examples}")
        starts = range(0, examples, int(batch))
        blocks = [tuple(range(s, min(s + int(batch), examples))) for s in starts]
        return [blocks[t % len(blocks)] for t in range(steps)]
    try:
        lists = [np.atleast_1d(np.asarray(b)) for b in batch]
    except (TypeError, ValueError):
        raise TensorProgramError(
            f"batch={batch!r}"[:80], fix='use "full", a number, or one array of indices a step'
        ) from None
    if len(lists) != steps:
        raise TensorProgramError(f"{len(lists)} batches for {steps} steps", fix="give one for each step")
    for b in lists:
        indices = b.ndim == 1 and b.dtype.kind in "iu" and b.size > 0
        if not indices or b.min() < 0 or b.max() >= examples or len(np.unique(b)) < len(b):
            mask = " (np.flatnonzero of a mask)" if b.dtype.kind == "b" else ""
            raise TensorProgramError(
                f"the batch {b.tolist()}"[:80], fix=f"give different indices from 0 to {examples - 1}{mask}"
            )
    return [tuple(b.tolist()) for b in lists]


@dataclass(frozen=True)
class Rates:
    """The rate of a step and a parameter; tables are by names of parameters, and "default"."""

    tables: Mapping[str, list[Node]]

    def __call__(self, t: int, name: str) -> Node:
        return self.tables[name if name in self.tables else "default"][t]


def _rates(lr: Any, steps: int, kinds: Mapping[str, str]) -> Callable[[int, str], Node]:
    """The rate of a step and a parameter, as a scalar."""
    given = lr if isinstance(lr, Mapping) else {"default": lr}
    known = {*kinds, "default"}
    for name in given:
        if name not in known:
            raise TensorProgramError(f"lr has {name!r}", fix=f"the parameters are {', '.join(sorted(kinds))}")
    missing = [] if "default" in given else [name for name in kinds if name not in given]
    if missing:
        raise TensorProgramError(f"lr has no rate for {missing[0]}", fix='give one, or "default"')
    return Rates({name: _schedule(value, steps) for name, value in given.items()})


def _schedule(lr: Any, steps: int) -> list[Node]:
    if isinstance(lr, Expression):
        if lr.width is not None or lr.axes:
            raise TensorProgramError("an lr that is no scalar", fix='give a number or a tp.Scalar("lr", 0.1)')
        return [lr.node] * steps
    if callable(lr) and not takes(lr, 0):
        raise TensorProgramError("an lr that is no function of one argument", fix="give one of the step: lambda t: ...")
    values = [lr(t) for t in range(steps)] if callable(lr) else lr
    if not isinstance(values, (list, tuple)) and not (isinstance(values, np.ndarray) and values.ndim):
        values = [values] * steps
    if len(values) != steps:
        raise TensorProgramError(f"{len(values)} learning rates for {steps} steps", fix="give one for each step")
    found = []
    for t, value in enumerate(values):
        rate = value.node if isinstance(value, Expression) else None
        if rate is None:
            v = number(value, f"the learning rate of step {t}")
            if v < 0:
                raise TensorProgramError(f"the learning rate {v} of step {t}", fix="rates are at least 0")
            rate = algebra.constant(v)
        found.append(rate)
    return found
