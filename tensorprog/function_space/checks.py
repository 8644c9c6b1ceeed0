"""What users give to `tp.predict`, checked: numbers, times, targets, outputs at the start."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError

__all__ = ["kernel_array", "nonnegative", "numbers", "start_array", "targets_array"]

LARGEST = 1e100
"""Of times and such: the squares of larger ones leave the range of floats."""


def numbers(given: Any, what: str, fix: str) -> np.ndarray:
    """An array of finite floats.

    Raises:
        TensorProgramError: it is none.
    """
    try:
        found = np.asarray(given)
        ok = found.dtype.kind in "iufb"
    except ValueError:
        ok = False
    if not ok:
        raise TensorProgramError(f"{what} is no array of numbers", fix=fix)
    found = np.asarray(found, dtype=float)
    if not np.isfinite(found).all():
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(found))[0])
        raise TensorProgramError(f"{what} is not finite" + (f" at {at}" if at else ""), fix=fix)
    return found


def nonnegative(given: Any, what: str, *, infinite: bool = False, whole: bool = False) -> tuple[np.ndarray, bool]:
    """Times, steps, or levels: one-dimensional, and whether it was a single number.

    Args:
        given: A number or an array of one dimension.
        what: Its name, for messages.
        infinite: May it be infinite?
        whole: Are they whole numbers?

    Raises:
        TensorProgramError: it is none, or negative.
    """
    unit = "whole numbers" if whole else "numbers"
    fix = f"give {unit} of at least 0, below {LARGEST:.0e}" + (", or infinity" if infinite else "")
    try:
        found = np.asarray(given, dtype=float)
    except (TypeError, ValueError):
        raise TensorProgramError(f"{what}={given!r}"[:80], why=f"these are no {unit}", fix=fix) from None
    if found.ndim > 1 or found.size == 0:
        raise TensorProgramError(f"{what} of shape {found.shape}", fix="give one number, or a list of some")
    ok = (found >= 0) & ((infinite & np.isinf(found)) | (found < LARGEST))
    if whole:
        ok &= ~np.isfinite(found) | (found == np.floor(found))
    if not ok.all():
        wrong = found.ravel()[~ok.ravel()][0]
        raise TensorProgramError(f"{what}={wrong:g}", fix=fix)
    return np.atleast_1d(found), found.ndim == 0


def kernel_array(given: Any, what: str, rows: int | None, columns: int | None) -> np.ndarray:
    """A kernel as an array of floats, two-dimensional or with two axes of outputs behind.

    Args:
        given: What the user gives.
        what: Its name, for messages.
        rows: How many there must be; None for any number.
        columns: How many there must be.

    Raises:
        TensorProgramError: it is none, or of another shape.
    """
    fix = "give the kernel's numbers: an array (examples, examples)"
    found = numbers(given, what, fix)
    if found.ndim not in (2, 4) or (found.ndim == 4 and found.shape[2] != found.shape[3]):
        raise TensorProgramError(f"{what} of shape {found.shape}", fix=fix)
    wanted = (found.shape[0] if rows is None else rows, found.shape[1] if columns is None else columns)
    if found.shape[:2] != wanted:
        turned = "; it is transposed" if found.shape[0] == wanted[1] and rows in (None, found.shape[1]) else ""
        raise TensorProgramError(
            f"{what} of shape {found.shape}" + turned,
            why=f"there are {wanted[1]} training examples" if what == "K_test" else f"it has to be {wanted}",
            fix="rows of K_test are test examples, columns training examples",
        )
    return found


def symmetric(K: np.ndarray, what: str) -> float:
    """How far a kernel is from its transpose: the largest difference of entries.

    Raises:
        TensorProgramError: it is no symmetric matrix, or has a negative diagonal.
    """
    turned = K.T if K.ndim == 2 else K.transpose(1, 0, 3, 2)
    diagonal = np.einsum("ii->i", K) if K.ndim == 2 else np.einsum("iijj->ij", K)
    size = float(np.abs(K).max(initial=0.0))
    off = max(
        (float(np.abs(K[i : i + 512] - turned[i : i + 512]).max(initial=0.0)) for i in range(0, len(K), 512)),
        default=0.0,
    )
    if off > 1e-3 * size:
        raise TensorProgramError(
            f"{what} is not symmetric: entries differ by {off:.1e} from their mirror images",
            fix="give the kernel of the training examples with themselves",
        )
    if diagonal.min(initial=0.0) < -1e-9 * size:
        raise TensorProgramError(
            f"{what} has a negative number on its diagonal", why="a kernel is positive semidefinite", fix="check it"
        )
    return off


def targets_array(y: Any, examples: int, outputs: int | None) -> np.ndarray:
    """Targets (examples, outputs) as floats.

    Args:
        y: What the user gives.
        examples: How many there are.
        outputs: Of a kernel with axes of outputs; None for any number.

    Raises:
        TensorProgramError: they do not fit.
    """
    found = numbers(y, "y", "give an array (examples,) or (examples, outputs) of finite numbers")
    if found.ndim not in (1, 2):
        raise TensorProgramError(f"y of shape {found.shape}", fix="give an array (examples,) or (examples, outputs)")
    if len(found) != examples:
        raise TensorProgramError(f"{len(found)} targets y for {examples} examples", fix="give one for each")
    table = found[:, None] if found.ndim == 1 else found
    if outputs is not None and table.shape[1] != outputs:
        raise TensorProgramError(
            f"y of shape {found.shape}", why=f"the network has {outputs} outputs", fix="give one column for each"
        )
    return table


def start_array(f0: Any, examples: int, tests: int, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    """The outputs at the start: of the training examples, and of the tests (maybe none).

    Args:
        f0: What the user gives: training examples, then test examples.
        examples: How many training examples there are.
        tests: How many test examples.
        outputs: How many outputs.

    Raises:
        TensorProgramError: it does not fit.
    """
    found = numbers(f0, "f0", 'give "prior", "zero", or an array: training examples, then test examples')
    table = found[:, None] if found.ndim == 1 else found
    if table.shape != (examples + tests, outputs):
        raise TensorProgramError(
            f"f0 of shape {found.shape}",
            why=f"there are {examples} training examples, then {tests} test examples, with {outputs} output(s)",
            fix="give one number for each output",
        )
    return table[:examples], table[examples:]
