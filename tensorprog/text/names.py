"""Names of vectors, matrices and axes in LaTeX."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

__all__ = ["latex_name"]

_GREEK = frozenset(
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau phi chi psi omega "
    "Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega".split()
)


def latex_name(name: str, index: Sequence[str] = ()) -> str:
    r"""A name: digits at the end of its first part, and the parts after underscores, are a subscript; and indices.

    Example:
        >>> latex_name("W1_b"), latex_name("h2", ["i"]), latex_name("ξ")
        ('W_{1,b}', 'h^{(2)}_{i}', '\\xi')
    """
    tilde = name.endswith("~")
    stem = name.removesuffix("~")
    parts = [p for p in stem.split("_") if p] or [stem.replace("_", r"\_")]
    head, digits = re.fullmatch(r"(.*?)(\d*)", parts[0]).groups()  # type: ignore[union-attr]
    first = _part(head) if head else parts[0]
    parts = [p for p in ([digits] if head else []) + parts[1:] if p]
    if tilde:
        first = rf"\tilde{{{first}}}"
    rest = ",".join(map(_part, parts))
    if not index:
        return f"{first}_{{{rest}}}" if rest else first
    return f"{first}^{{({rest})}}_{{{','.join(index)}}}" if rest else f"{first}_{{{','.join(index)}}}"


def _part(text: str) -> str:
    """A letter, a Greek letter by its name or as such, a number, a word."""
    if text in _GREEK:
        return rf"\{text}"
    if len(text) == 1 and not text.isascii():
        kind, _, letter = unicodedata.name(text, "").partition(" LETTER ")
        word = letter.lower().replace("lamda", "lambda")
        word = word.capitalize() if kind == "GREEK CAPITAL" else word
        return rf"\{word}" if kind.startswith("GREEK") and word in _GREEK else text
    return text if len(text) == 1 or text.isdigit() else rf"\mathrm{{{text}}}"
