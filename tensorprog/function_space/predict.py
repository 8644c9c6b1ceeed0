"""`tp.predict`: what networks of infinite width have learned by any time of training, without training any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.estimate import Estimate
from tensorprog.function_space.checks import nonnegative, start_array
from tensorprog.function_space.components import Components
from tensorprog.function_space.eigen import Eigenflow
from tensorprog.function_space.filters import Filter, check_momentum, checked_rate, descent, flow
from tensorprog.function_space.ode import Solution, solve_flow, solve_steps
from tensorprog.function_space.posterior import Posterior, posterior
from tensorprog.function_space.problem import Problem
from tensorprog.function_space.results import Both, Prediction
from tensorprog.function_space.sizes import chosen, large_of_arrays, large_of_network, settings_of
from tensorprog.function_space.spectrum import EPS, Regulariser
from tensorprog.function_space.stopping import EarlyStopping, of_a_process, of_targets
from tensorprog.kernels.function import KernelFunction
from tensorprog.networks.network import Network

__all__ = ["Predictor", "predict"]


def predict(
    kernel: Any,
    *data: Any,
    X_test: Any = None,
    K_test: Any = None,
    K_test_test: Any = None,
    diag_reg: float | None = None,
    diag_reg_absolute_scale: bool = False,
    loss: Any = "mse",
    outputs: int | None = None,
    values: Any = None,
    method: str = "auto",
    memory: float | None = None,
    tol: float = 1e-6,
    products: int = 1000,
    rank: int = 500,
    out: Any = None,
    progress: bool | None = None,
) -> Any:
    """Training in function space: a function of the time, or of the number of steps.

    `tp.predict(net, X, y, X_test)` of a network or its `kernel_fn`; `tp.predict(K, y, K_test, K_test_test)` of arrays, of results
    of `kernel_fn`, or of dictionaries of arrays by the names `"nngp"` and `"ntk"`.

    Args:
        kernel: A `tp.Network`, what `tp.kernel_fn` makes of one, or a kernel of the training examples with themselves.
        *data: X, y and X_test, or y, K_test and K_test_test; y are targets (examples[, outputs]).
        X_test: Data on which outputs are predicted.
        K_test: The kernel of tests (rows) with training examples.
        K_test_test: The prior's kernel of tests with themselves, for covariances.
        diag_reg: What is added to the diagonal of the kernel, in units of its mean. By default nothing, unless its smallest
            eigenvalue is not known to three digits; then the root of what is not known times the largest.
        diag_reg_absolute_scale: Is it to be added as it is?
        loss: Of `tp.sgd`: "mse", the mean of |f - y|^2/2, in closed form; "logistic" (labels 1 and -1), "cross_entropy", or a
            function of f and y with one number for each example: by a solver of differential equations.
        outputs: The number of outputs, where it is not that of the columns of y: of classes.
        values: Numbers for the network's `tp.Scalar`s.
        method: `"eigen"`: by eigenvectors, exact; `"krylov"`: by products with the kernel, for many examples, as exact
            as `tol`, with an error that is a bound; `"auto"`: eigenvectors of up to 12,000 examples if they fit.
        memory: How many bytes may be used; by default what the machine has free. What does not fit is refused before it starts.
        tol: Of the Krylov method: the error of outputs, in units of the largest target.
        products: Of the Krylov method: products with the kernel at most.
        rank: Of its preconditioner: examples.
        out: A folder for the kernel in tiles (of data, half a square of float64) and the state of the Krylov method, where an
            interrupted call goes on.
        progress: Whether to show progress bars; by default on a terminal only.

    Returns:
        A function `pred(t=.., get="ntk", f0="prior")` or `pred(steps=.., lr=..)`, see `Predictor`; by
        Krylov spaces a `LargePredictor`.

    Raises:
        TensorProgramError: kernels, data or targets that make no sense.

    Example:
        >>> import numpy as np, tensorprog as tp
        >>> net = tp.Network(tp.readout("v", tp.relu(tp.dense("U", tp.Input("x"), tp.Width("n"), W_std=2**0.5))))
        >>> pred = tp.predict(net, [[1.0, 0.0], [0.0, 1.0]], [1.0, -1.0], [[2.0, 1.0], [2.0, 0.0]])
        >>> pred(t=np.inf).mean.round(4).tolist()
        [1.0681, 2.0]
        >>> pred(t=[0, 1], f0="zero").train_mean.round(4).tolist()
        [[0.0, 0.0], [0.3432, -0.3432]]

    Source: Jacot et al. 2018 (arXiv:1806.07572); Lee et al. 2019 (arXiv:1902.06720), equations 9-16 for the ensemble.
    """
    r = None
    if diag_reg is not None:
        found, single = nonnegative(diag_reg, "diag_reg")
        if not single:
            raise TensorProgramError("several regularisers", fix="give one number")
        r = float(found[0])
    absolute = bool(diag_reg_absolute_scale)
    settings = settings_of(tol, products, rank, out, progress)
    if isinstance(kernel, (Network, KernelFunction)):
        X, y, X_test = _positional(data, ("X", "y", "X_test"), X_test)
        if K_test is not None or K_test_test is not None:
            raise TensorProgramError("K_test of a network", fix="give X_test")
        if _many(method, X, memory, loss):
            return large_of_network(kernel, X, y, X_test, values, memory, r, absolute, settings)
        return Predictor(Problem.of_network(kernel, X, y, X_test, values, loss, outputs), r, absolute)
    if X_test is not None:
        raise TensorProgramError("X_test of a kernel that is an array", fix="give K_test, or a Network in its place")
    given: list[Any] = [None, K_test, K_test_test]
    for i, x in enumerate(data[:3]):
        if x is not None and given[i] is not None:
            raise TensorProgramError(f"{('y', 'K_test', 'K_test_test')[i]} is given twice", fix="give it once")
        given[i] = x if x is not None else given[i]
    if not data or len(data) > 3:
        raise TensorProgramError(
            f"tp.predict of a kernel and {len(data)} more", fix="tp.predict(K, y, K_test, K_test_test)"
        )
    if _many(method, given[0], memory, loss):
        return large_of_arrays(kernel, given[0], given[1], given[2], memory, r, absolute, settings)
    return Predictor(Problem.of_arrays(kernel, given[0], given[1], given[2], loss, outputs), r, absolute)


def _many(method: Any, data: Any, memory: Any, loss: Any) -> bool:
    """Is it a matter of Krylov spaces?"""
    count = len(next(iter(data.values()), ())) if isinstance(data, Mapping) else len(data) if np.ndim(data) else 0
    found = chosen(method, count, memory) == "krylov"
    if found and not (isinstance(loss, str) and loss == "mse"):
        raise TensorProgramError(f"{count} examples with another loss", fix='use loss="mse", or fewer examples')
    return found


def _positional(data: Sequence[Any], names: tuple[str, ...], last: Any) -> tuple[Any, Any, Any]:
    if len(data) not in (2, 3) or (len(data) == 3 and last is not None and data[2] is not None):
        raise TensorProgramError(f"tp.predict of a network and {len(data)} more", fix="tp.predict(net, X, y, X_test)")
    X, y = data[:2]
    return X, y, data[2] if len(data) == 3 else last


class Predictor:
    """Training that follows a kernel, made by `predict`: df/dt = -K (f - y)/N, the gradient flow of the mean of |f - y|^2/2.

    The properties are those of the kernel that is followed by default, the NTK; `pred.of("nngp")` has those of another.

    Attributes:
        problem: Kernels and targets.
    """

    def __init__(self, problem: Problem, diag_reg: float | None, absolute: bool, name: str | None = None) -> None:
        self.problem, self._diag_reg, self._absolute = problem, diag_reg, absolute
        self.name = problem.names[0] if name is None else name
        self._flows: dict[str, Eigenflow] = {}

    def of(self, get: str) -> Predictor:
        """The same, following another kernel by default.

        Args:
            get: Its name, `"nngp"` where the readout alone is trained.
        """
        found = Predictor(self.problem, self._diag_reg, self._absolute, self._known(get))
        found._flows = self._flows
        return found

    def __call__(
        self,
        t: Any = None,
        get: str | Sequence[str] | None = None,
        f0: Any = None,
        *,
        steps: Any = None,
        lr: Any = None,
        momentum: float = 0.0,
        nesterov: bool = False,
        rng: Any = 0,
    ) -> Any:
        """Means and covariances at times of gradient flow, or after steps of gradient descent on all examples.

        Args:
            t: A time or several, infinity among them; None, without `steps`, for infinity.
            get: `"ntk"`: all parameters are trained; `"nngp"`: the readout alone; or several names.
            f0: The outputs at the start: `"prior"`, those of random networks, for which the answer is the mean and covariance of
                the ensemble (the default of "mse"); `"zero"` (that of other losses); `"draw"`, one of them; or an array,
                training examples first, then tests.
            steps: In place of t: a number of steps, or several.
            lr: The learning rate of the steps; without momentum also one for each step.
            momentum: As `tp.SGD` has it.
            nesterov: As `tp.SGD` has it.
            rng: Seeds a draw.

        Returns:
            A `Prediction`; of several names a named tuple of them.

        Raises:
            TensorProgramError: times, rates or outputs that make no sense; descent that diverges until numbers overflow.
        """
        if get is not None and not isinstance(get, str):
            options = {"steps": steps, "lr": lr, "momentum": momentum, "nesterov": nesterov, "rng": rng}
            return Both.of({name: self(t, name, f0, **options) for name in get})
        own = self.flow_of(self._known(get))
        spectrum, r, n = own.spectrum, own.regulariser.value, self.problem.examples
        if steps is None and (lr is not None or momentum or nesterov):
            raise TensorProgramError("a learning rate without steps", fix="give steps=, or t= alone")
        if steps is not None and t is not None:
            raise TensorProgramError("both t= and steps=", fix="give one of them")
        start, random = self._start(f0, rng)
        if self.problem.loss is not None:
            return self._solved(own, t, steps, lr, momentum, nesterov, start)
        if steps is None:
            return self._prediction(
                own, flow(np.inf if t is None else t, spectrum.values, r, n, spectrum.noise), start, random
            )
        f = descent(steps, lr, spectrum.values, r, n, momentum, nesterov, spectrum.noise)
        found = self._prediction(own, f, start, random)
        beside = flow(f.flow, spectrum.values, r, n, spectrum.noise)
        found.beside(lambda: self._prediction(own, beside, start, random, f.single))
        return found

    def _solved(
        self, own: Eigenflow, t: Any, steps: Any, lr: Any, momentum: Any, nesterov: bool, start: Any
    ) -> Prediction:
        """By any loss."""
        p, spectrum, r = self.problem, own.spectrum, own.regulariser.value
        loss = p.loss
        assert loss is not None
        start = (np.zeros(p.y.shape), np.zeros((p.tests * p.blocks, p.y.shape[1]))) if start is None else start

        def until(t: Any, single: bool | None = None) -> Prediction:
            found = solve_flow(t, p, own.name, loss, start[0], r, spectrum.noise, spectrum.top)
            return answer(found, False, found.single if single is None else single)

        def answer(found: Solution, steps: bool, single: bool) -> Prediction:
            return Prediction(
                found.parts(p, own.name, start), at=found.at, single=single, steps=steps, get=own.name,
                regulariser=own.regulariser, condition=spectrum.condition, kind="estimate",
                method="solved",
            )  # fmt: skip

        if steps is None:
            return until(np.inf if t is None else t)
        check_momentum(momentum)
        found = solve_steps(steps, checked_rate(lr), momentum, nesterov, p, own.name, loss, start[0], r, spectrum.noise)
        shown = answer(found, True, found.single)
        shown.beside(lambda: until(found.elapsed, found.single))
        return shown

    def _prediction(
        self, own: Eigenflow, f: Filter, start: Any, random: bool, single: bool | None = None
    ) -> Prediction:
        spectrum, r = own.spectrum, own.regulariser.value
        notes = [self.problem.note if random else ""]
        if np.isinf(f.at).any() and r == 0 and len(spectrum.values) and spectrum.values[-1] <= spectrum.noise:
            count = int((spectrum.values <= spectrum.noise).sum())
            notes.append(
                f"along {count} directions the kernel cannot be told from 0, and nothing is learned: give diag_reg="
            )
        return Prediction(
            own.parts(f, start, random), at=f.at, single=f.single if single is None else single, steps=f.steps, get=own.name,
            regulariser=own.regulariser, condition=spectrum.condition, note="; ".join(filter(None, notes)),
        )  # fmt: skip

    # ---- what is known of the kernel ----
    def flow_of(self, name: str) -> Eigenflow:
        """The kernel of this name in its eigenvectors, computed once."""
        if name not in self._flows:
            self._flows[name] = Eigenflow(self.problem, name, self._diag_reg, self._absolute)
        return self._flows[name]

    @property
    def _own(self) -> Eigenflow:
        return self.flow_of(self.name)

    @property
    def regulariser(self) -> Regulariser:
        """What was added to the diagonal, and why."""
        return self._own.regulariser

    @property
    def condition(self) -> float:
        """The largest eigenvalue of the kernel over the smallest, before anything was added; infinite of a singular one."""
        return self._own.spectrum.condition

    @property
    def components(self) -> Components:
        """The kernel principal components: eigenvalues of K/N, directions, times."""
        own = self._own
        return Components.of(own.spectrum, own.regulariser, self.problem.y, self.problem.examples)

    @property
    def max_learning_rate(self) -> Estimate:
        """The largest rate with which gradient descent does not diverge: 2 over the largest eigenvalue of K/N."""
        return self.largest_rate()

    def largest_rate(self, momentum: float = 0.0, nesterov: bool = False) -> Estimate:
        """The largest rate with which gradient descent with momentum does not diverge.

        Args:
            momentum: As `tp.SGD` has it.
            nesterov: As `tp.SGD` has it.
        """
        own = self._own
        top = own.spectrum.top + own.regulariser.value
        if top == 0:
            return Estimate(np.inf, 0.0, "closed form", "exact", "the kernel is 0")
        limit = 2 * (1 + momentum) / (1 + 2 * momentum) if nesterov else 2 * (1 + momentum)
        rate = limit * self.problem.examples / top
        return Estimate(rate, rate * (own.spectrum.noise / top + 4 * EPS), "closed form", "bound")

    def early_stopping(self, noise: Any, f0: Any = None, truth: str = "targets") -> EarlyStopping:
        """The time of gradient flow with the smallest expected error.

        Args:
            noise: The standard deviation of the noise in the targets.
            f0: As for a call.
            truth: `"targets"`: the error at the training inputs, estimated from the targets; `"process"`: the error on the tests,
                where the truth is a draw of the Gaussian process whose covariance is the kernel.
        """
        if self.problem.loss is not None:
            raise TensorProgramError(
                f"early stopping by the loss {self.problem.loss.name}", why="the expected error is known of least squares",
                fix='use loss="mse"',
            )  # fmt: skip
        start, random = self._start(f0)
        if truth == "process":
            return of_a_process(self._own, noise, random)
        if truth != "targets":
            raise TensorProgramError(f"truth={truth!r}", fix='use "targets" or "process"')
        return of_targets(self._own, self.problem.y if start is None else self.problem.y - start[0], noise, random)

    def posterior(self, noise: Any = 0.0, get: str | None = None) -> Posterior:
        """Gaussian process regression: the kernel is the covariance of the prior, targets have Gaussian noise.

        Args:
            noise: Its standard deviation; None for the one with the largest marginal likelihood.
            get: `"nngp"`, the law of networks (by default, where it is known), or `"ntk"`.
        """
        name = "nngp" if get is None and "nngp" in self.problem.names else self._known(get)
        return posterior(self.flow_of(name), noise)

    def __repr__(self) -> str:
        p = self.problem
        tests = f", {p.tests} tests" if p.tests else ""
        own = self._own
        return f"predict: {own.name} of {p.examples} examples{tests}, condition {self.condition:.1e}; {own.regulariser}"

    # ---- what users give ----
    def _known(self, get: str | None) -> str:
        names = self.problem.names
        if get is None:
            return self.name
        if get in names:
            return get
        if names == ("kernel",) and get in ("ntk", "nngp"):
            return "kernel"
        raise TensorProgramError(f"get={get!r}", fix=f"use {' or '.join(names)}")

    def _start(self, f0: Any, rng: Any = 0) -> tuple[tuple[np.ndarray, np.ndarray] | None, bool]:
        p = self.problem
        if f0 is None:
            f0 = "prior" if p.loss is None else "zero"
        if not isinstance(f0, str):
            first, last = start_array(f0, p.examples, p.tests, p.columns)
            return (p.flat(first), p.flat(last)), False
        if f0 == "prior" and p.loss is not None:
            raise TensorProgramError(
                f'f0="prior" with the loss {p.loss.name}', why="the mean of an ensemble has no closed form",
                fix='give f0="draw" and rng=, several times',
            )  # fmt: skip
        if f0 == "draw":
            return p.draw(rng), False
        if f0 not in ("prior", "zero"):
            raise TensorProgramError(f"f0={f0!r}", fix='use "prior", "zero", "draw" or an array')
        return None, f0 == "prior" and p.prior is not None
