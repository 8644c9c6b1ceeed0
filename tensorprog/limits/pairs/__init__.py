"""Limits of batches of examples: compiled for one pair of them, carried out for all."""
