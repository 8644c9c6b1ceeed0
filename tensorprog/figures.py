"""What pictures share. matplotlib is imported here alone, and only when something is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensorprog.errors import TensorProgramError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "DASHES", "MARKERS", "figures", "saved"]

# Okabe and Ito's colours, told apart with any colour vision (yellow left out: too pale on white); markers and dashes
# tell outputs apart in grey too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX*<>"
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (3, 1, 1, 1)))


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


def saved(figure: Figure, path: str | Path) -> None:
    """Saves a figure; the suffix says as what.

    Raises:
        TensorProgramError: it cannot be written.
    """
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise TensorProgramError(f"cannot save the picture as {str(path)!r}: {error}") from None
