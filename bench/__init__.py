"""Measurements: each package in here is run by `python -m bench.NAME` from the repository root; see bench/README.md."""

import sys
from pathlib import Path

# The local cluster's driver is a tool of this repository and not part of the wheel, so nothing has installed it.
sys.path.append(str(Path(__file__).resolve().parent.parent / "cluster"))
