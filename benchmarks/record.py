"""Runs benchmarks that print lines, and keeps what they printed beside them, with the machine: executor.md, lazy.md, ...

Run: python benchmarks/record.py [NAME ...]
"""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
from limit import processor

HERE = Path(__file__).parent
NAMES = ("executor", "lazy", "limit", "training")
TEXT = """# {title}

{machine}. Written by `python benchmarks/record.py {name}`.

```text
{lines}
```
"""


def record(name: str) -> None:
    """Runs one of them on one thread, as its times are meant, and writes its lines."""
    script = HERE / f"{name}.py"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    lines = subprocess.run([sys.executable, script], env=environment, check=True, capture_output=True, text=True).stdout
    busy = os.getloadavg()[0]
    machine = (
        f"{processor()}, {os.cpu_count()} cores, one thread, Python {platform.python_version()}, NumPy {np.__version__}, "
        f"{datetime.date.today()}, {busy:.0f} processes running on average"
    )
    title = script.read_text(encoding="utf-8").split('"""')[1].strip().split("\n")[0].rstrip(".").split(": `")[0]
    text = TEXT.format(title=title, machine=machine, name=name, lines=lines.rstrip())
    (HERE / f"{name}.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    for benchmark in sys.argv[1:] or NAMES:
        record(benchmark)
