"""`bench` is run from the repository's root and not installed; pytest, started as a program, does not look there."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[3]))
