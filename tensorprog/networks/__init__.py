"""Networks: data, layers as short programs over the language, readouts, and the programs of their kernels."""
