"""`kernel_fn`: the kernel of one pair of examples, compiled, on all pairs."""
