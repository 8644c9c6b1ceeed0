"""Which `tensorprog` is tested: the installed one, never a stale one.

`python -m pytest` puts the working directory first on `sys.path`, where the checkout would hide the installed package
and with it every packaging mistake. The checkout is taken off the path here. With an editable install, or with none,
the checkout is what is tested; the header of the report says which.

A folder's tests run on all cores, up to four, each process with one thread of linear algebra: small arrays get slower with
more. Named files run in this process, where starting others would take longer than most files do.
"""

from __future__ import annotations

import filecmp
import importlib.metadata
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
for threads in (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
):  # before NumPy is imported, here and in the processes started
    os.environ.setdefault(threads, "1")


def pytest_configure(config: pytest.Config) -> None:
    if not _installed():
        sys.path.insert(0, str(ROOT))
        return
    if not _editable():
        sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
    import tensorprog

    installed = Path(tensorprog.__file__ or "").parent
    checkout = ROOT / "tensorprog"
    if installed == checkout or not checkout.is_dir():
        return
    sources = [path.relative_to(checkout) for path in checkout.rglob("*") if path.suffix in (".py", ".npz", ".txt")]
    stale = [str(path) for path in sources if not _same(installed / path, checkout / path)]
    if stale:
        raise pytest.UsageError(
            f'the installed tensorprog differs from this checkout in {", ".join(stale[:5])}: pip install ".[test]" '
            "again (or -e, to work on it)"
        )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    named = [config.invocation_params.dir / argument.partition("::")[0] for argument in config.args]
    return 0 if all(path.is_file() for path in named) else None


def pytest_report_header() -> str:
    import tensorprog

    how = "" if _installed() else " (not installed)"
    return f"tensorprog tested: {Path(tensorprog.__file__ or '').parent}{how}"


def _installed() -> bool:
    try:
        importlib.metadata.distribution("tensorprog")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _editable() -> bool:
    text = importlib.metadata.distribution("tensorprog").read_text("direct_url.json") or ""
    return '"editable": true' in text or '"editable":true' in text


def _same(a: Path, b: Path) -> bool:
    return a.is_file() and filecmp.cmp(a, b, shallow=False)
