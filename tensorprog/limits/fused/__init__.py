"""Scalar programs over pairs of examples as source code: one loop in place of an array for every instruction."""
