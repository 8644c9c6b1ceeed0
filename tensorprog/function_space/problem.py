"""What is learned: kernels of training examples and tests, from a network, from `kernel_fn`, or as arrays; and targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.estimate import DEVIATIONS
from tensorprog.function_space.checks import kernel_array, symmetric, targets_array
from tensorprog.function_space.losses import ArrayLoss
from tensorprog.kernels.answer import Kernels
from tensorprog.kernels.function import KernelFunction, kernel_fn
from tensorprog.networks.network import Network
from tensorprog.networks.samples import batches, same_features

__all__ = ["Problem"]

EPS = float(np.finfo(float).eps)


class Problem:
    """Kernels by name, flat: outputs of a network that has several are examples of their own.

    Attributes:
        names: Of the kernels, the one that training follows by default first.
        prior: The name of the covariance of f_0, or None.
        y: Targets, flat: (examples * blocks, columns).
        examples: The number of training examples.
        tests: The number of test examples, 0 for none.
        blocks: The outputs of the kernel, 1 for a kernel that all outputs share.
        one: Were the targets one-dimensional?
        note: What a reader should know.
        loss: None for least squares.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        prior: str | None,
        y: Any,
        tests: int,
        train: Mapping[str, np.ndarray],
        cross: Callable[[str], np.ndarray | None],
        both: Callable[[str], np.ndarray | None],
        error: Mapping[str, float],  # may grow when more is computed
        note: str = "",
        loss: Any = "mse",
        outputs: int | None = None,
    ) -> None:
        first = train[names[0]]
        self.names, self.prior, self.note = names, prior, note
        self.examples, self.tests = len(first), tests
        self.blocks = first.shape[2] if first.ndim == 4 else 1
        several = first.shape[2] if first.ndim == 4 else outputs
        self.loss: ArrayLoss | None = None
        if not (isinstance(loss, str) and loss == "mse"):
            self.loss = ArrayLoss(loss, y, self.examples, _outputs(y, loss, several))
            targets = self.loss.targets
            y = targets if targets.shape == self.loss.shape else np.zeros(self.loss.shape)
        table = targets_array(y, self.examples, several)
        self.one = np.ndim(y) == 1
        self.columns = table.shape[1]
        self.y = self.flat(table)
        for name, a in {**train, "targets": table}.items():
            size = _size(a)
            if size and not SMALLEST < size < 1 / SMALLEST:
                raise TensorProgramError(
                    f"the largest number of the {name} is {size:.1e}", why="squares of such numbers leave the range of floats",
                    fix="scale them: K and 1/t, or y and f0, may have any factor in common",
                )  # fmt: skip
        off = {name: symmetric(K, f"the {name} of the training examples") for name, K in train.items()}
        self._train = {name: _flat(K) for name, K in train.items()}
        self._cross, self._both = cross, both
        self._known: dict[tuple[str, str], np.ndarray | None] = {}
        self._least = {k: max(off[k], EPS * _size(K)) for k, K in train.items()}
        self._error = error

    # ---- kernels ----
    def train(self, name: str) -> np.ndarray:
        """Of the training examples with themselves, flat."""
        return self._train[name]

    def cross(self, name: str) -> np.ndarray | None:
        """Of the tests with the training examples, flat; None without tests."""
        return self._get("cross", name, self._cross)

    def both(self) -> np.ndarray | None:
        """The prior's of the tests with themselves, flat; None where it is not known."""
        return None if self.prior is None else self.both_of(self.prior)

    def both_of(self, name: str) -> np.ndarray | None:
        """Of the tests with themselves, flat; None where it is not known."""
        return self._get("both", name, self._both)

    def error(self, name: str) -> float:
        """How large the error of an entry may be."""
        return max(self._least[name], self._error.get(name, 0.0))

    def _get(self, what: str, name: str, function: Callable[[str], np.ndarray | None]) -> np.ndarray | None:
        if (what, name) not in self._known:
            found = function(name) if self.tests else None
            self._known[what, name] = None if found is None else _flat(found)
        return self._known[what, name]

    def draw(self, rng: Any) -> tuple[np.ndarray, np.ndarray]:
        """Outputs at the start, of training examples and tests, from the prior."""
        if self.prior is None:
            return np.zeros(self.y.shape), np.zeros((self.tests * self.blocks, self.y.shape[1]))
        K = self.train(self.prior)
        if self.tests:
            cross, both = self.cross(self.prior), self.both()
            if cross is None or both is None:
                raise TensorProgramError('f0="draw" without the covariance of tests', fix="give K_test_test")
            K = np.block([[K, cross.T], [cross, both]])
        from scipy.linalg import eigh

        w, v = eigh((K + K.T) / 2, driver="evd")
        z = np.random.default_rng(rng).standard_normal((len(K), self.y.shape[1]))
        f0 = (v * np.sqrt(np.maximum(w, 0.0))) @ z
        return f0[: len(self.y)], f0[len(self.y) :]

    # ---- shapes ----
    def flat(self, table: np.ndarray) -> np.ndarray:
        """Outputs (examples, outputs) as the kernels have them: (examples * blocks, columns)."""
        return table.reshape(-1, 1) if self.blocks > 1 else table

    def outputs(self, x: np.ndarray, squeeze: bool = False) -> np.ndarray:
        """Flat outputs (times, examples * blocks, columns) as the user gave targets.

        Args:
            x: The outputs.
            squeeze: Are they the same for all columns?
        """
        if self.blocks > 1:
            return x.reshape(len(x), -1, self.blocks)
        return x[:, :, 0] if self.one or squeeze else x

    def square(self, x: np.ndarray, examples: int) -> np.ndarray:
        """Flat covariances (times, examples * blocks, examples * blocks) with the axes of outputs at the end."""
        if self.blocks == 1:
            return x
        return x.reshape(len(x), examples, self.blocks, examples, self.blocks).transpose(0, 1, 3, 2, 4)

    def largest(self, x: np.ndarray) -> np.ndarray:
        """The largest over the outputs of every example, of errors (times, examples * blocks)."""
        return x if self.blocks == 1 else x.reshape(len(x), -1, self.blocks).max(axis=2)

    # ---- where they come from ----
    @staticmethod
    def of_network(
        f: Network | KernelFunction, X: Any, y: Any, X_test: Any, values: Any, loss: Any, outputs: Any
    ) -> Problem:
        """Of a network, or its `kernel_fn`, and data."""
        f = kernel_fn(f) if isinstance(f, Network) else f
        net = f.network
        found = batches(net.inputs, X, net.source)
        names = tuple(k for k in net.wanted(None, found) if k in ("nngp", "ntk"))
        tests = 0
        if X_test is not None:
            more = batches(net.inputs, X_test, net.source)
            same_features(found, more)
            tests = sum([len(b.places) for b in more])
        own = f(X, get=names, values=values)
        cross: dict[str, np.ndarray] = {}
        error = _bounds(own)

        def across(name: str) -> np.ndarray:
            if not cross:
                found = f(X_test, X, get=names, values=values)
                cross.update(found._asdict())
                error.update({k: max(error[k], e) for k, e in _bounds(found).items()})
            return cross[name]

        order = tuple(k for k in ("ntk", "nngp") if k in names)
        return Problem(
            order, "nngp" if "nngp" in names else None, y, tests, own._asdict(), across,
            lambda name: np.asarray(f(X_test, get=name, values=values)), error,
            "" if "nngp" in names else "the outputs before training are 0 in the limit: there is no prior", loss, outputs,
        )  # fmt: skip

    @staticmethod
    def of_arrays(K: Any, y: Any, K_test: Any, K_test_test: Any, loss: Any, outputs: Any) -> Problem:
        """Of kernels as arrays, as results of `kernel_fn`, or as dictionaries of arrays."""
        train, error = _named(K, "K")
        for name, k in train.items():
            train[name] = kernel_array(k, "K" if len(train) == 1 else f"K of {name}", None, len(k))
        order = tuple([k for k in ("ntk", "kernel", "nngp") if k in train] + [k for k in train if k not in KNOWN])
        n = len(train[order[0]])
        sizes = {k.shape for k in train.values()}
        if len(sizes) > 1:
            raise TensorProgramError(f"kernels of the shapes {sorted(sizes)}", fix="give kernels of the same examples")
        if not n:
            raise TensorProgramError("a kernel of no examples", fix="give at least one training example")
        cross, cross_error = _named(K_test, "K_test", order) if K_test is not None else ({}, {})
        both, both_error = _named(K_test_test, "K_test_test", order, some=True) if K_test_test is not None else ({}, {})
        prior = "nngp" if "nngp" in train else order[0]
        tests = 0
        for name, k in cross.items():
            cross[name] = kernel_array(k, "K_test", tests or None, n)
            tests = len(cross[name])
        if both and not cross:
            raise TensorProgramError(
                "K_test_test without K_test", fix="give the kernel of tests with training examples"
            )
        for name, k in both.items():
            both[name] = kernel_array(k, "K_test_test", tests, tests)
            symmetric(both[name], "K_test_test")
        errors = {k: max(e.get(k, 0.0) for e in (error, cross_error, both_error)) for k in order}
        note = "" if "nngp" in train else f"one kernel was given: the covariance of f_0 is taken to be the {prior}"
        return Problem(order, prior, y, tests, train, cross.get, both.get, errors, note, loss, outputs)


KNOWN = ("ntk", "kernel", "nngp")
SMALLEST = 1e-100
"""Numbers are larger than this, and smaller than its reciprocal."""


def _named(
    K: Any, what: str, wanted: tuple[str, ...] = (), some: bool = False
) -> tuple[dict[str, Any], dict[str, float]]:
    """Name to kernel, and to the error of its entries."""
    if isinstance(K, Kernels):
        found, error = K._asdict(), _bounds(K)
    elif isinstance(K, Mapping):
        found, error = dict(K), {}
    elif isinstance(K, tuple) and hasattr(K, "_asdict"):
        found, error = K._asdict(), {}
    else:
        found, error = {wanted[0] if len(wanted) == 1 else "kernel" if not wanted else "": K}, {}
        if some and "nngp" in wanted:
            found = {"nngp": K}
    if "" in found or (wanted and not some and set(wanted) - set(found)):
        raise TensorProgramError(
            f"{what} without names", why=f"K has {', '.join(wanted)}", fix="give as many by their names"
        )
    if not found:
        raise TensorProgramError(f"{what} is empty", fix="give a kernel")
    return {k: v for k, v in found.items() if not wanted or k in wanted}, {k: float(e) for k, e in error.items()}


def _outputs(y: Any, loss: Any, several: int | None) -> int | None:
    """The number of outputs: as said, or by the columns of y, or the classes."""
    if several is not None or np.ndim(y) != 1:
        return several if several is not None or np.ndim(y) != 2 else int(np.shape(y)[1])
    labels = np.asarray(y)
    if isinstance(loss, str) and loss == "cross_entropy" and labels.dtype.kind in "iu" and labels.size:
        return max(2, int(labels.max()) + 1)
    return None


def _bounds(K: Kernels) -> dict[str, float]:
    """How large errors of entries may be: of what is sampled, some standard deviations."""
    return {k: e * (DEVIATIONS if K.kind[k] == "standard error" else 1.0) for k, e in K.error.items()}


def _flat(K: np.ndarray) -> np.ndarray:
    if K.ndim == 2:
        return K
    n, m, o, _ = K.shape
    return K.transpose(0, 2, 1, 3).reshape(n * o, m * o)


def _size(K: np.ndarray) -> float:
    return float(np.abs(K).max(initial=0.0))
