"""Jumps that are met exactly in the limit, where finite widths decide."""
