"""The notebooks: the .ipynb has the cells of the .py beside it, and those run (their assertions hold)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))
EXECUTED = {
    "feature_learning",
    "is_my_parametrization_right",
    "neural_tangent_kernel",
    "ntk_for_any_architecture",
    "training_dynamics",
}
"""Kept with outputs, those of the full size: they take minutes, and readers want the figures."""


def cells(name: str) -> list[tuple[str, str]]:
    """The cells of a percent script: ("markdown" or "code", text)."""
    found = []
    for part in (FOLDER / f"{name}.py").read_text(encoding="utf-8").split("\n# %%")[1:]:
        head, _, body = part.partition("\n")
        if "[markdown]" in head:
            lines = [line.removeprefix("# ") if line != "#" else "" for line in body.strip().split("\n")]
            found.append(("markdown", "\n".join(lines)))
        else:
            found.append(("code", body.strip()))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_pair_is_in_step(name: str) -> None:
    notebook = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))
    stored = [(cell["cell_type"], "".join(cell["source"]).strip()) for cell in notebook["cells"]]
    assert stored == cells(name), "write it again: jupytext --to ipynb --update notebooks/*.py"
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    if name in EXECUTED:
        counts = [cell["execution_count"] for cell in code]
        assert counts == list(range(1, len(code) + 1)), "run all of it, from a new kernel, at full size"
        outputs = [output for cell in code for output in cell["outputs"]]
        assert not any(output["output_type"] == "error" or output.get("name") == "stderr" for output in outputs)
        assert any("image/png" in output.get("data", {}) for output in outputs), "the figures are missing"
    else:
        assert not any(cell.get("outputs") for cell in code), "notebooks are kept without outputs"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["quickstart"])  # the others are run by `.ci/run` alone, as notebooks
def test_it_runs(name: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    environment = os.environ | {"MPLBACKEND": "Agg", "TENSORPROG_SMALL": "1"}
    subprocess.run([sys.executable, FOLDER / f"{name}.py"], check=True, cwd=tmp_path, env=environment, timeout=120)
