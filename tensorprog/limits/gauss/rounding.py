"""What rounding may do to one number, and what two resolutions of an integral say of it."""

from __future__ import annotations

import numpy as np

__all__ = ["EPS", "NOISE", "SAFETY"]

EPS = float(np.finfo(float).eps)
NOISE = 4 * EPS
"""Relative perturbation of functions and closed forms: NumPy's are within 4 units in the last place. Arithmetic gets one."""
SAFETY = 10.0
"""Stated over observed difference of two resolutions."""
