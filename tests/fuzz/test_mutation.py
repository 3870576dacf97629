"""Two minutes of fuzzing from the saved corpus: as `make fuzz`, with new inputs each time."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from fuzz.campaign import Folders, campaign, failures, report
from fuzz.targets import TARGETS

SECONDS = 120.0
WORKERS = min(2, os.cpu_count() or 1)


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="optional: atheris has no build for this Python"
)
@pytest.mark.timeout(SECONDS + 240)
def test_nothing_breaks(tmp_path: Path) -> None:
    outcomes = campaign(SECONDS, list(TARGETS), Folders(tmp_path), WORKERS)
    print(report(outcomes))
    assert not failures(outcomes), report(outcomes)
    assert all(outcome.executions > 100 for outcome in outcomes), report(outcomes)
