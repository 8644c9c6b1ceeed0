"""The limit as SymPy expressions."""
