"""What `tp.predict` answers with: means and covariances at times, what they are worth, and beside what they stand."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorprog.errors import TensorProgramError

if TYPE_CHECKING:
    from tensorprog.function_space.spectrum import Regulariser

__all__ = ["Both", "Prediction"]

Parts = dict[str, Callable[[], Any]]


class Prediction:
    """The outputs f_t of networks that are trained, in the limit of infinite width.

    Attributes:
        at: The times, or the numbers of steps, as an array.
        t: The times, or None.
        steps: The numbers of steps of gradient descent, or None.
        get: The kernel that training follows: `"ntk"`, or `"nngp"` where the readout alone is trained.
        regulariser: What was added to its diagonal, and why.
        condition: The largest eigenvalue of the kernel over the smallest, before that.
        note: What a reader should know.
        kind: What errors are: a `"bound"`, or an `"estimate"` from a second solution.
        method: How it was computed.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        at: np.ndarray,
        single: bool,
        steps: bool,
        get: str,
        regulariser: Regulariser,
        condition: float,
        note: str = "",
        kind: str = "bound",
        method: str = "closed form",
    ) -> None:
        self.kind, self.method, self.at = kind, method, at
        self._parts, self._single = parts, single
        shown: Any = at[0] if single else at
        self.t: Any = None if steps else shown
        self.steps: Any = shown if steps else None
        self.get, self.regulariser, self.condition, self.note = get, regulariser, condition, note

    def has(self, name: str) -> bool:
        """Is there such a part, `"mean"` or `"cov"`, say?"""
        return name in self._parts

    def beside(self, flow: Callable[[], Prediction]) -> None:
        """Says how to find the gradient flow beside steps."""
        self._parts["flow"] = flow

    def _part(self, name: str, missing: str, fix: str) -> Any:
        if name not in self._parts:
            raise TensorProgramError(f"a prediction without {name}", why=missing, fix=fix)
        found = self._parts[name]()
        return found[0] if self._single and isinstance(found, np.ndarray) else found

    @cached_property
    def mean(self) -> np.ndarray:
        """Of the outputs on the tests, (times, tests[, outputs]); a single time has no axis of its own, here and below."""
        return self._part("mean", "there are no test examples", "give tp.predict X_test (or K_test)")

    @cached_property
    def error(self) -> np.ndarray:
        """Of `mean`, (times, tests): by how much errors of the kernel and rounding may have moved it, of any output."""
        return self._part("error", "there are no test examples", "give tp.predict X_test (or K_test)")

    @cached_property
    def train_mean(self) -> np.ndarray:
        """Of the outputs on the training examples, (times, examples[, outputs])."""
        return self._part("train_mean", "", "")

    @cached_property
    def train_error(self) -> np.ndarray:
        """Of `train_mean`, one number a time."""
        return self._part("train_error", "", "")

    @cached_property
    def cov(self) -> np.ndarray:
        """The covariance of the ensemble on the tests, (times, tests, tests[, outputs, outputs]).

        It is 0 where f_0 is given.
        """
        return self._part("cov", _NO_PRIOR, _GIVE_PRIOR)

    @cached_property
    def variance(self) -> np.ndarray:
        """Its diagonal, (times, tests[, outputs]), for less memory."""
        return self._part("variance", _NO_PRIOR, _GIVE_PRIOR)

    @cached_property
    def cov_error(self) -> np.ndarray:
        """Of `cov` and `variance`, (times, tests): that of an entry is at most the larger one of its row and column."""
        return self._part("cov_error", _NO_PRIOR, _GIVE_PRIOR)

    @cached_property
    def train_cov(self) -> np.ndarray:
        """The covariance on the training examples, (times, examples, examples)."""
        return self._part("train_cov", _NO_PRIOR, _GIVE_PRIOR)

    @cached_property
    def flow(self) -> Prediction:
        """Of steps: gradient flow at the times lr k/(1 - momentum), beside them."""
        return self._part("flow", "it is gradient flow itself", "give steps= and lr=")

    @property
    def gap(self) -> np.ndarray:
        """Of steps: the mean less that of gradient flow; on the tests, or where there are none on the training examples."""
        own, other = (self.mean, self.flow.mean) if "mean" in self._parts else (self.train_mean, self.flow.train_mean)
        return own - other

    def __repr__(self) -> str:
        at = f"steps={self.steps}" if self.t is None else f"t={self.t}"
        lines = [f"prediction at {at}, following the {self.get}; {self.regulariser}"]
        if "mean" in self._parts:
            worst = float(np.max(self.error, initial=0.0))
            lines.append(f"mean = array{self.mean.shape} ± {worst:.0e}\n{self.mean}")
        else:
            lines.append(
                f"train_mean = array{self.train_mean.shape} ± {np.max(self.train_error):.0e}\n{self.train_mean}"
            )
        return "\n".join([*lines, *([self.note] if self.note else [])])

    def to_json(self) -> dict[str, Any]:
        """Its means and variances as plain JSON types."""
        outputs: dict[str, Any] = {}
        for name, error in (("mean", "error"), ("train_mean", "train_error"), ("variance", "cov_error")):
            if name in self._parts:
                value = np.asarray(getattr(self, name))
                e = np.asarray(getattr(self, error))
                e = np.broadcast_to(e.reshape(e.shape + (1,) * (value.ndim - e.ndim)), value.shape)
                outputs[name] = {"value": value.tolist(), "error": e.tolist(), "method": self.method, "kind": self.kind}
        at = {"steps": np.asarray(self.steps).tolist()} if self.t is None else {"t": np.asarray(self.t).tolist()}
        r = self.regulariser
        return {
            "outputs": outputs, **at, "get": self.get, "condition": self.condition, "note": self.note,
            "regulariser": {"value": r.value, "diag_reg": r.relative, "reason": r.reason},
        }  # fmt: skip


_NO_PRIOR = "the covariance of f_0, the NNGP, is not known"
_GIVE_PRIOR = "give a Network with X_test; or of arrays K_test_test, and the NNGP beside the NTK"


class Both(tuple[Prediction, ...]):
    """Predictions by the names of the kernels, in the order in which they were asked for: a named tuple."""

    _fields: tuple[str, ...]

    @staticmethod
    def of(found: dict[str, Prediction]) -> Both:
        """By names.

        Args:
            found: Name to prediction.
        """
        both = Both(found.values())
        both._fields = tuple(found)
        return both

    def __getattr__(self, name: str) -> Prediction:
        if name in self.__dict__.get("_fields", ()):
            return self[self._fields.index(name)]
        raise AttributeError(f"no prediction {name!r} was asked for")
