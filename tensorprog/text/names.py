"""Names of vectors, matrices and axes in LaTeX."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["latex_name"]

_GREEK = frozenset(
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau phi chi psi omega "
    "Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega".split()
)


def latex_name(name: str, index: Sequence[str] = ()) -> str:
    r"""A name with trailing digits, or what follows an underscore, as a subscript, and indices.

    Example:
        >>> latex_name("W1_b"), latex_name("h2", ["i"])
        ('\\mathrm{W1}_{b}', 'h^{(2)}_{i}')
    """
    tilde = name.endswith("~")
    stem = name.removesuffix("~").rstrip("0123456789")
    digits = name.removesuffix("~")[len(stem) :]
    if not stem.strip("_"):
        stem, digits = name.removesuffix("~"), ""
    parts = [p for p in [*stem.split("_"), digits] if p]
    first = rf"\{parts[0]}" if parts[0] in _GREEK else parts[0] if len(parts[0]) == 1 else rf"\mathrm{{{parts[0]}}}"
    if tilde:
        first = rf"\tilde{{{first}}}"
    rest = ",".join([p if p.isdigit() or len(p) == 1 else rf"\mathrm{{{p}}}" for p in parts[1:]])
    if not index:
        return f"{first}_{{{rest}}}" if rest else first
    return f"{first}^{{({rest})}}_{{{','.join(index)}}}" if rest else f"{first}_{{{','.join(index)}}}"
