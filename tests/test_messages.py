"""What messages say and where they point: the parts that no other test file owns."""

from __future__ import annotations

import numpy as np
import pytest

import tensorprog as tp
from tensorprog.cli import main
from tensorprog.errors import TensorProgramError

n = tp.Width("n")
x = tp.Vector("x", n)
W = tp.Matrix("W", n, n)
p = tp.Program(q=tp.moment(x * x))


def test_saving_where_nothing_can_be_written(tmp_path):
    with pytest.raises(TensorProgramError, match=r"cannot write .*No such file"):
        tp.save(p, tmp_path / "no folder" / "a.tp")


@pytest.mark.parametrize("seeds", [[3, 3], np.array([1, 1]), [0, 0.5], [], "12", [True, 2], 0, True])
def test_seeds_are_checked_in_one_place(seeds):
    with pytest.raises(TensorProgramError, match="seeds") as first:
        tp.run(p, 4, seeds)
    with pytest.raises(TensorProgramError) as second:
        tp.compare(p, [4], seeds, against={"q": 1})
    assert first.value.what == second.value.what and first.value.fix == second.value.fix


def test_a_seed_given_twice_on_the_command_line(tmp_path, capsys):
    tp.save(p, tmp_path / "p.tp")
    assert main(["run", str(tmp_path / "p.tp"), "--n", "4", "--seeds", "3,3"]) == 2
    assert "seeds has 3 twice" in capsys.readouterr().err


def test_numpy_on_the_left_of_an_operator():
    two = np.float64(2)
    for got, same in [(two * x, 2.0 * x), (two + x, x + 2.0), (two - x, 2.0 - x), (np.int64(2) * x, 2 * x)]:
        assert got.node == same.node
    s = tp.Vector("y", n, distribution=None) ** 2 + 1
    assert (two / s).node == (2.0 / s).node and (np.array(2.0) * s).node == (2.0 * s).node
    assert (np.float64(1) == x) is False and (np.float64(1) != x) is True
    with pytest.raises(TensorProgramError, match="axis names"):
        np.ones(3) * x


def test_a_name_that_is_nearly_right():
    with pytest.raises(AttributeError, match=r"did you mean tp\.sigmoid"):
        tp.sigmoyd
    with pytest.raises(AttributeError, match=r"tp\.Function"):
        tp.qqq
