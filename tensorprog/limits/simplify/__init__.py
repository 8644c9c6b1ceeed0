"""Scalar programs to scalar programs: fewer entries, fewer passes, the same values."""
