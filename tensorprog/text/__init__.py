"""Programs as text: written, read, in files, in LaTeX, as a graph."""
