"""What pictures share. matplotlib is imported here alone, and only when something is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensorprog.errors import TensorProgramError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "figures", "save"]

# Okabe and Ito's colours, told apart with any colour vision (yellow left out: too pale on white).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def figures() -> tuple[type[Figure], Any]:
    """The class of figures and the module of ticks.

    Raises:
        TensorProgramError: matplotlib is not installed.
    """
    try:
        from matplotlib import ticker
        from matplotlib.figure import Figure
    except ImportError:
        raise TensorProgramError(
            "drawing needs matplotlib", fix="install the extra: pip install 'tensorprog[plot]'"
        ) from None
    return Figure, ticker


def save(figure: Figure, path: str | Path) -> None:
    """Saves a figure; the suffix says as what.

    Raises:
        TensorProgramError: it cannot be written.
    """
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise TensorProgramError(f"cannot save the picture as {str(path)!r}: {error}") from None
