"""Scalar programs as arrays, with errors: entry by entry, in tiles, over pairs of examples."""
