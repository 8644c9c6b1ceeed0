"""Small data that ships with the package, so that the demo and the tests need no download."""

from __future__ import annotations

from importlib.resources import files

import numpy as np

__all__ = ["digits"]


def digits() -> tuple[np.ndarray, np.ndarray]:
    """One hundred handwritten digits, ten of each class, as 8x8 grey images.

    Returns:
        The images, `float64` of shape (100, 64), rows of an image one after another, each pixel an integer 0..16
        (not normalised); and their labels, `int64` of shape (100,). The arrays are new at every call.

    Source:
        Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998,
        https://doi.org/10.24432/C50P49 (CC BY 4.0), as shipped by scikit-learn; see `LICENSE-digits.txt` beside the
        file.

    Example:
        >>> X, labels = digits()
        >>> X.shape, labels.shape, float(X.max())
        ((100, 64), (100,), 16.0)
        >>> [int(label) for label in labels[:10]]
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    with files(__name__).joinpath("digits.npz").open("rb") as stream, np.load(stream) as stored:
        return stored["images"].astype(np.float64), stored["labels"].astype(np.int64)
