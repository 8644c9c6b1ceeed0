"""What a program starts from: initial vectors, hyperparameters, powers of n."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.language import algebra
from tensorprog.language.expression import Expression, as_expression
from tensorprog.language.symbols import (
    VectorSpec,
    Width,
    check_distribution,
    check_name,
    is_exact,
    number,
    numbers,
)

__all__ = ["Scalar", "Vector", "inverse_sqrt"]


def Vector(
    name: str,
    width: Width,
    mean: Any = 0,
    var: Any = None,
    *,
    axes: Iterable[str] | dict[str, int] = (),
    cov: Any = None,
    distribution: Any = None,
    trainable: bool = False,
    lr: Any = None,
    std: Any = None,
) -> Expression:
    """An initial vector; with axes, a multi-vector of jointly Gaussian vectors.

    Its coordinates are iid copies of one random vector Z with the given mean and covariance (Tensor Programs III,
    2.2). A vector
    is its name and attributes: the same name with the same attributes is the same vector.

    Args:
        name: Its name.
        width: The number of its coordinates.
        mean: A number, or an array with the shape of the axes.
        var: Variance of every column, or an array of them with the shape of the axes; columns are independent. 1 if neither
            `var` nor `cov` is given.
        axes: Names of the axes, their sizes taken from `cov`, `mean` or `var`; or a dictionary of names and sizes.
        cov: Covariance of the columns: (k, k) for one axis of size k; in general the shape of the axes twice. May be
            singular.
        distribution: None for Gaussian; `"rademacher"` or `"uniform"` with this mean and variance; or a frozen SciPy
            distribution.
        trainable: Is it a parameter, with a part in the tangent kernel of a Network? What is trained is what is random in
            it, as for the weights: in the default parametrization `"ntk"` it is mean + sqrt(var) omega with omega trained,
            so that its part is var Moment(dv dv') (with `cov`: Cov(v, v') in place of var), nothing at var 0; in `"tp"`
            and `"standard"` the coordinates themselves are.
        lr: Trains the coordinates themselves in every parametrization, at this learning rate: its part is lr Moment(dv dv')
            (in `"standard"` times the fan-in if it is a readout). For gains, which start at 1 with variance 0.
        std: The scalar that the program multiplies it with, as its standard deviation, where that is a hyperparameter: what
            the parametrizations `"tp"` and `"standard"` train is the product. No part of its law.

    Raises:
        TensorProgramError: on a negative variance, a covariance that is not symmetric positive semidefinite, or sizes
            that disagree.

    Example:
        >>> import tensorprog as tp
        >>> n = tp.Width("n")
        >>> tp.Vector("x", n, mean=1, var=0)
        <x: vector of width n>
        >>> tp.Vector("z", n, axes=("b",), cov=[[1, 1], [1, 1]])
        <z: vector of width n, b: 2>
    """
    check_name(name, "a vector's name")
    if not isinstance(width, Width):
        raise TensorProgramError(f"vector {name} is given {width!r} as its width", fix='make one with tp.Width("n")')
    mean = numbers(mean, f"the mean of {name}")
    distribution = check_distribution(distribution, f"vector {name}")
    names, shape = _axes(f"vector {name}", axes, cov, mean, var)
    if isinstance(mean, np.ndarray) and mean.shape != shape:
        raise TensorProgramError(
            f"the mean of {name} has shape {mean.shape}; its axes have {shape}", fix="make them agree"
        )
    if cov is not None:
        if var is not None:
            raise TensorProgramError(f"vector {name} is given both var and cov", fix="give one of them")
        if distribution is not None:
            raise TensorProgramError(
                f"vector {name} has a covariance and a distribution",
                why="only Gaussians are determined by it",
                fix="drop one",
            )
        cov = _covariance(name, cov, shape)
    elif distribution is not None and hasattr(distribution, "dist"):
        if var is not None:
            raise TensorProgramError(
                f"vector {name} is given a SciPy distribution and var", fix="the distribution has its own"
            )
        var, mean = 1, 0
    else:
        var = numbers(1 if var is None else var, f"the variance of {name}")
        if np.ndim(var) and np.shape(var) != shape:
            raise TensorProgramError(
                f"the variances of {name} have shape {np.shape(var)}; its axes have {shape}", fix="make them agree"
            )
        if np.min(var) < 0:
            raise TensorProgramError(f"vector {name} has variance {np.min(var)}", fix="a variance is at least 0")
    if lr is not None:
        lr, trainable = number(lr, f"the learning rate of {name}"), True
        if lr < 0:
            raise TensorProgramError(f"vector {name} has the learning rate {lr}", fix="it is at least 0")
    scalar = None if std is None else as_expression(std).node
    spec = VectorSpec(name, width, shape, mean, var, cov, distribution, bool(trainable), lr, scalar)
    return Expression(algebra.initial(spec), names)


def _axes(name: str, axes: Any, cov: Any, mean: Any, var: Any) -> tuple[tuple[str, ...], tuple[int, ...]]:
    if isinstance(axes, dict):
        for a, k in axes.items():
            if not isinstance(k, (int, np.integer)) or k < 1:
                raise TensorProgramError(f"axis {a!r} of {name} has size {k!r}", fix="a size is a positive integer")
        return _axis_names(name, axes), tuple([int(k) for k in axes.values()])
    names = _axis_names(name, (axes,) if isinstance(axes, str) else axes)
    if not names:
        if cov is not None and np.ndim(cov):
            raise TensorProgramError(f"{name} has a covariance but no axes", fix='name its axis: axes=("b",)')
        return (), ()
    for given in (mean, var):
        if np.ndim(given) == len(names):
            return names, np.shape(given)
    if cov is not None:
        shape = np.shape(cov)
        if len(shape) == 2 * len(names):
            return names, shape[: len(names)]
        if len(shape) == 2 and len(names) == 1:
            return names, shape[:1]
    raise TensorProgramError(f"the sizes of the axes {names} of {name} are unknown", fix="give axes={name: size, ...}")


def _axis_names(name: str, axes: Iterable[Any]) -> tuple[str, ...]:
    names = tuple([check_name(a, "an axis") for a in axes])
    if len(set(names)) != len(names):
        raise TensorProgramError(f"{name} has axes {names}", fix="every axis needs its own name")
    return names


def _covariance(name: str, cov: Any, shape: tuple[int, ...]) -> np.ndarray:
    k = int(np.prod(shape))
    given = numbers(cov if np.ndim(cov) else np.full((1, 1), cov), f"the covariance of {name}")
    assert isinstance(given, np.ndarray)
    if given.shape not in ((k, k), (*shape, *shape)):
        raise TensorProgramError(
            f"the covariance of {name} has shape {given.shape}; its axes have {shape}", fix=f"give ({k}, {k})"
        )
    rounded = getattr(cov, "dtype", None) in (np.float16, np.float32)
    check = "compute it in float64: this one was not, and its rounding errors are no covariance" if rounded else ""
    matrix = given.reshape(k, k)
    real = matrix.astype(float)
    size = np.abs(real).max(initial=0.0)
    if np.abs(real - real.T).max(initial=0.0) > 1e-12 * size:
        raise TensorProgramError(f"the covariance of {name} is not symmetric", fix=check or "use (K + K.T) / 2")
    variances = np.diag(real)
    if (variances < 0).any():
        raise TensorProgramError(
            f"the covariance of {name} has the negative variance {variances.min():.3g}", fix="check it"
        )
    inverse = np.where(
        variances > 0, 1 / np.sqrt(np.where(variances > 0, variances, 1)), 1 / np.sqrt(max(size, 1e-300))
    )
    correlation = real * inverse * inverse[:, None]  # as correlations, so that no large variance hides a small one
    slack = 1e-10 * k
    try:  # a fraction of the cost of eigenvalues, which are wanted only for the message
        np.linalg.cholesky(correlation + slack * np.eye(k))
    except np.linalg.LinAlgError:
        lowest = np.linalg.eigvalsh(correlation)[0]
        if lowest < -slack:
            raise TensorProgramError(
                f"the correlations of {name} have the negative eigenvalue {lowest:.3g}",
                why="a covariance is positive semidefinite (it may be singular)",
                fix=check or "check how it was computed",
            ) from None
    if not is_exact(matrix):
        matrix = (real + real.T) / 2
    matrix.setflags(write=False)
    return matrix


def Scalar(name: str, default: Any = None, axes: Iterable[str] | dict[str, int] = ()) -> Expression:
    """A hyperparameter, bound when the program is evaluated: `values={"eta": 0.1}`; with axes, an array of them.

    Args:
        name: Its name.
        default: A number, or an array of them with the shape of the axes; None for no default.
        axes: Names of the axes, their sizes taken from the default; or a dictionary of names and sizes. `values=` then has an
            array of that shape, or one number for all.

    Example:
        >>> import tensorprog as tp
        >>> tp.Scalar("eta", 1)
        <eta: scalar>
        >>> rates = tp.Scalar("rates", axes={"step": 3})
        >>> tp.limit(tp.Program(total=tp.sum(rates, "step")), values={"rates": [1, 2, 3]})
        total = 6 (exact)
    """
    check_name(name, "a scalar's name")
    default = None if default is None else numbers(default, f"the default of {name}")
    if isinstance(axes, dict) or np.ndim(default) or (axes != () and axes != []):
        names, shape = _axes(f"scalar {name}", axes, None, 0 if default is None else default, None)
        if default is not None and np.shape(default) not in ((), shape):
            raise TensorProgramError(
                f"the default of {name} has shape {np.shape(default)}; its axes have {shape}", fix="make them agree"
            )
        return Expression(algebra.hyperparameter(name, default, shape), names)
    return Expression(algebra.hyperparameter(name, default))


def inverse_sqrt(width: Width) -> Expression:
    """width**-1/2: an initial scalar that tends to 0.

    Example:
        >>> import tensorprog as tp
        >>> tp.inverse_sqrt(tp.Width("n")).width is None
        True
    """
    if not isinstance(width, Width):
        raise TensorProgramError(f"inverse_sqrt of {width!r}", fix="give it a tp.Width")
    return Expression(algebra.inverse_sqrt(width))
