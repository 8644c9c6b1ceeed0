"""Whole training runs as programs: unrolled gradient descent, its parametrizations, losses and traces."""
