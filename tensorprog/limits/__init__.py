"""The exact limit: the Master Theorem as a compiler from tensor programs to scalar programs."""
