from importlib.resources import files

import numpy as np

from tensorprog.data import digits


def test_digits_are_the_first_ten_of_each_class() -> None:
    X, labels = digits()
    assert X.shape == (100, 64) and X.dtype == np.float64
    assert labels.shape == (100,) and np.array_equal(np.bincount(labels), [10] * 10)
    assert X.min() == 0 and X.max() == 16 and np.array_equal(X, np.round(X))
    # The first row of the first image, a zero, as printed in scikit-learn's documentation of load_digits.
    assert X[0, :8].tolist() == [0, 0, 5, 13, 9, 1, 0, 0]
    assert len({row.tobytes() for row in X}) == 100


def test_every_call_gives_new_arrays() -> None:
    X, labels = digits()
    X[:], labels[:] = -1, -1
    assert digits()[0].min() == 0 and digits()[1].min() == 0


def test_the_licence_ships_with_the_data() -> None:
    text = files("tensorprog.data").joinpath("LICENSE-digits.txt").read_text(encoding="utf-8")
    assert "CC BY 4.0" in text and "BSD 3-Clause" in text and "10.24432/C50P49" in text


def test_data_are_found_without_an_import():
    import tensorprog as tp

    assert tp.data.digits()[0].shape == (100, 64)
