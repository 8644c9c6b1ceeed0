"""Gaussian expectations as numbers: closed forms as arrays, quadrature with bounds, series, sampling."""
