"""`python -m tensorprog` is `tensorprog`."""

from __future__ import annotations

import sys

from tensorprog.cli import main

if __name__ == "__main__":
    sys.exit(main())
