"""What rounding may do to one number."""

from __future__ import annotations

import numpy as np

__all__ = ["EPS", "NOISE"]

EPS = float(np.finfo(float).eps)
NOISE = 4 * EPS
"""Relative perturbation of functions and closed forms: NumPy's are within 4 units in the last place. Arithmetic gets one."""
