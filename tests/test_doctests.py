"""The examples in the docstrings of the installed package, all of them."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import tensorprog

MODULES = sorted(
    ["tensorprog"]
    + [
        info.name
        for info in pkgutil.walk_packages(tensorprog.__path__, "tensorprog.")
        if not info.name.endswith("__main__")  # importing it runs the command line
    ]
)


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name: str) -> None:
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    outcome = doctest.testmod(importlib.import_module(name), optionflags=options)
    assert not outcome.failed, f"{outcome.failed} of {outcome.attempted} examples in {name} failed; see the output"
