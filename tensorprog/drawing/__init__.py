"""Pictures of programs in the graphical notation of Tensor Programs IIb (arXiv:2105.03703)."""
