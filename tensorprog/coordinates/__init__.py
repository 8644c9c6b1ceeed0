"""Is a parametrization right? Sizes of coordinates against width, measured and predicted."""
