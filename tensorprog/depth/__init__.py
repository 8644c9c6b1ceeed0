"""Large depth: what a block does to variances, correlations and tangent kernels when it is repeated."""
