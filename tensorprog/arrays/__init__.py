"""The NumPy meaning of instructions, in an order to carry them out."""
