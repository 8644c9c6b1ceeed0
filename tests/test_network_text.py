"""Programs of networks as text: data, parameters, several sets of data with one input layer."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorprog as tp

N = tp.Width("n")
RNG = np.random.default_rng(0)


def sequences(*lengths: int, features: int = 3) -> list[np.ndarray]:
    return [np.random.default_rng(k).standard_normal((k, features)) for k in lengths]


@tp.layer
def total(x: Any) -> Any:
    return sum(tp.take(x, "t", t) for t in range(x.shape[x.axes.index("t")]))


def recurrent() -> tp.Network:
    x, W = tp.Input("x", axes=("t",)), tp.Matrix("W", N, N, var=2)
    return tp.Network(tp.readout("v", tp.relu(W @ total(tp.tanh(tp.dense("U", x, N, b_std=0.5)))), b_std=1))


def images() -> tp.Network:
    h = tp.relu(tp.conv("C", tp.Input("x", axes=("h", "w")), N, filter=2))
    return tp.Network(tp.readout("v", tp.global_avg_pool(tp.relu(tp.conv("D", h, N, filter=2)))))


def same(p: tp.Program, q: tp.Program) -> None:
    """Equal content, equal text, and runs with the same weights: a constant array may be laid out otherwise in memory."""
    assert q == p and q.digest == p.digest and str(q) == str(p)
    a, b = tp.run(p, 40, 2), tp.run(q, 40, 2)
    for k in p:
        np.testing.assert_allclose(a[k], b[k], rtol=1e-12, atol=1e-13)


PROGRAMS = {
    "one batch": lambda: recurrent().program(np.ones((2, 3, 2))),
    "lengths": lambda: recurrent().program(sequences(2, 3, 4), of=("f", "nngp", "ntk")),
    "two batches": lambda: recurrent().program(sequences(2, 3), sequences(4)),
    "gia": lambda: recurrent().program(sequences(2, 3), gia=True),
    "coordinates": lambda: recurrent().program(RNG.standard_normal((2, 2, 30)), RNG.standard_normal((1, 3, 30))),
    "large": lambda: recurrent().program(RNG.standard_normal((40, 2, 12)), of="nngp"),
    "images": lambda: images().program(RNG.standard_normal((2, 3, 3, 2))),
    "average": lambda: tp.Network(tp.moment(tp.dense("U", tp.Input("x"), N) ** 2)).program([[1.0, 2.0]]),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_networks_program_prints_and_parses(name: str) -> None:
    p = PROGRAMS[name]()
    same(p, tp.parse(str(p), arrays=p.arrays))


def test_the_text_shows_data_and_parameters() -> None:
    text = str(recurrent().program([[[1.0, 0.5]], [[0.25, 2.0], [0.0, 1.0]]]))  # as a list: two lengths
    assert "vector U[i:1, j:1] : n, data [[[1.0, 0.5]]], var 1, trained" in text
    assert "vector U_2[i:1, j:2] : n, name U, data [[[0.25, 2.0], [0.0, 1.0]]], var 1, trained" in text
    assert "vector U_b : n, mean 0, var 0.25, trained" in text and "vector v : n, mean 0, var 1, trained" in text
    bare = tp.Program(q=tp.moment(tp.Vector("v", N)), r=tp.moment(tp.Vector("w", N, trainable=True)))
    assert "vector v : n, mean 0, var 1\nvector w : n, mean 0, var 1, trained\n" in str(bare)
    assert tp.parse(str(bare)) == bare


def test_names_of_the_text_are_free() -> None:
    """U of the second data cannot be called U_2 where another vector is."""
    x = tp.Input("x", axes=("t",))
    h = total(tp.dense("U", x, N)) + tp.Vector("U_2", N)
    p = tp.Network(tp.readout("v", h)).program(sequences(1, 2))
    assert "U_3" in str(p)
    same(p, tp.parse(str(p)))


def test_save_and_load(tmp_path: Path) -> None:
    p = recurrent().program(RNG.standard_normal((30, 2, 70)))
    tp.save(p, tmp_path / "p.tp")
    assert (tmp_path / "p.npz").exists() and "coordinates" in (tmp_path / "p.tp").read_text()
    same(p, tp.load(tmp_path / "p.tp"))


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        ("data [[1.0]]", "axes have"),
        ("data [[1.0], [2.0]], mean 1", "has data, and mean"),
        ("data [[1.0], [2.0]], cov 1", "has data, and cov"),
        ("data [[1.0], [2.0]], coordinates [[1.0]]", "shape"),
        ("data [[1/2], [2]]", "finite integers or floats"),
        ("data [[1.0], [2.0]], var -1", "variance -1"),
        ("data 1", "axes have"),
        ("coordinates [[1.0], [2.0]]", "coordinates of no data"),
        ("data K1", "no array"),
        ("trained, trained", "second trained"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_place(vector: str, message: str) -> None:
    with pytest.raises(tp.TensorProgramError, match=message) as caught:
        tp.parse(f"width n\nvector U[i:2] : n, {vector}\noutput q[b] = Moment(U)")
    assert "line 2" in str(caught.value)


def test_one_matrix_two_variances_is_an_error() -> None:
    text = "width n\nvector U : n, data [1.0]\nvector V : n, name U, data [2.0], var {}\noutput q = Moment(U*V)"
    assert tp.limit(tp.parse(text.format(1)))["q"].value == 2
    with pytest.raises(tp.TensorProgramError, match="two different vectors are called 'U'"):
        tp.parse(text.format(2))


def test_latex_names_the_input_layer() -> None:
    text = tp.latex(recurrent().program(sequences(1, 2)))
    assert r"U_{2} &\in" in text and r"\xi^{U_{2}}" in text and "input layer $U$" in text and "trained vector" in text


def test_programs_of_one_network_do_not_mix_coordinates() -> None:
    """A body is remembered with the coordinates of its data: U x.U y tends to x.y whatever was asked for before."""
    a, b = RNG.standard_normal((2, 2, 9))
    net = tp.Network(tp.readout("v", tp.dense("U", tp.Input("x"), N)))
    fresh = tp.Network(tp.readout("v", tp.dense("U", tp.Input("x"), N))).program(a, b, of="nngp")
    net.program(b)
    p = net.program(a, b, of="nngp")
    np.testing.assert_array_equal(tp.run(p, 64)["nngp"], tp.run(fresh, 64)["nngp"])
    # 4 entries of standard deviation below 0.003 at n = 4e5: false alarm below 1e-6
    x, y = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    bound = 5.5 * np.sqrt(2) * np.outer(x, y) / 9 / np.sqrt(4e5)
    assert (np.abs(tp.run(p, 400_000)["nngp"][0] - a @ b.T / 9) < bound).all()
