"""Tensor Programs: build one, run it at any finite width, take its exact infinite-width limit, compare.

See the README for a first program and docs/architecture.md for how the package is made.
"""

from tensorprog.errors import TensorProgramError
from tensorprog.estimate import Estimate, Estimates
from tensorprog.language.build import *  # noqa: F403
from tensorprog.language.build import __all__ as _build
from tensorprog.language.expression import Expression, Scalar, Vector, inverse_sqrt
from tensorprog.language.program import Program
from tensorprog.language.symbols import Matrix, Width

__version__ = "0.1.0"

__all__ = [
    "Estimate", "Estimates", "Expression", "Matrix", "Program", "Scalar", "TensorProgramError", "Vector", "Width", "inverse_sqrt",
    *_build,
]  # fmt: skip
