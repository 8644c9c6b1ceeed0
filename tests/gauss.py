"""An independent quadrature for tests of the limit: Gauss-Legendre on panels split where functions turn."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import erf, expit, ndtr

import tensorprog as tp

NODES, WEIGHTS = np.polynomial.legendre.leggauss(16)
REACH = 13.0

FUNCTIONS = {
    "relu": (tp.relu, lambda x: np.maximum(x, 0)),
    "leaky_relu": (lambda x: tp.leaky_relu(x, 0.25), lambda x: np.where(x > 0, x, x / 4)),
    "abs": (tp.abs, np.abs),
    "sign": (tp.sign, np.sign),
    "step": (tp.step, lambda x: np.heaviside(x, 0.5)),
    "elu": (tp.elu, lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0)))),
    "erf": (tp.erf, erf),
    "normal_cdf": (tp.normal_cdf, ndtr),
    "gelu": (tp.gelu, lambda x: x * ndtr(x)),
    "tanh": (tp.tanh, np.tanh),
    "sigmoid": (tp.sigmoid, expit),
    "softplus": (tp.softplus, lambda x: np.logaddexp(x, 0)),
    "silu": (tp.silu, lambda x: x * expit(x)),
    "sin": (tp.sin, np.sin),
    "cos": (tp.cos, np.cos),
    "exp": (tp.exp, np.exp),
    "gaussian": (tp.gaussian, lambda x: np.exp(-x * x)),
    "arctan": (tp.arctan, np.arctan),
    "rectified_power": (lambda x: tp.rectified_power(x, 2), lambda x: np.maximum(x, 0) ** 2),
    "hermite": (lambda x: tp.hermite(x, 3), lambda x: x**3 - 3 * x),
}
"""name: (of tensorprog, of NumPy). Every one turns at 0 only, on the scale 1 or less."""


def panels(edges):
    """Gauss-Legendre nodes and weights on consecutive panels; edges (..., k + 1) to (..., 16 k)."""
    a, b = edges[..., :-1, None], edges[..., 1:, None]
    x, w = (a + b) / 2 + (b - a) / 2 * NODES, (b - a) / 2 * WEIGHTS
    return x.reshape(*x.shape[:-2], -1), w.reshape(*w.shape[:-2], -1)


def line(mean, deviation, turns=()):
    """Nodes and weights for N(mean, deviation^2), deviation > 0, mean an array: fine near 0, where functions turn.

    Args:
        mean: Means.
        deviation: Standard deviation.
        turns: More (centre, scale), for every mean.
    """
    mean = np.asarray(mean, dtype=float)[..., None]
    scales = np.concatenate([[0], 2.0 ** np.arange(-3, 5)])
    offsets = np.concatenate([-scales[:0:-1], scales])
    points = [np.broadcast_to(np.linspace(-REACH, REACH, 20), (*mean.shape[:-1], 20)), (offsets - mean) / deviation]
    points += [(centre + scale * offsets - mean) / deviation for centre, scale in turns]
    t, w = panels(np.sort(np.clip(np.concatenate(points, -1), -REACH, REACH), -1))
    return mean + deviation * t, w * np.exp(-t * t / 2) / math.sqrt(2 * math.pi)


def mean_of(f, mean, var):
    """E f(u), u ~ N(mean, var)."""
    u, w = line(mean, math.sqrt(var))
    return np.sum(f(u) * w, -1)


def pair(f, g, means, variances, correlation):
    """E f(u) g(v) of two Gaussians, |correlation| < 1."""
    (m1, m2), (s1, s2) = means, np.sqrt(variances)
    rest = s2 * math.sqrt(1 - correlation**2)
    turns = [(m1 - m2 * s1 / (correlation * s2), rest * s1 / abs(correlation * s2))] if correlation else []
    u, w = line(m1, s1, turns)
    v, z = line(m2 + correlation * s2 / s1 * (u - m1), rest)
    return float(np.sum(f(u) * w * np.sum(g(v) * z, -1)))
