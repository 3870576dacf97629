"""Does the suite find what it is there for? Each defect of `mutations.py` is made in a copy of the operator."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import modelpier_operator
from convergence.mutations import MUTATIONS
from convergence.scenarios import SCENARIOS
from support.control_plane import missing

PACKAGE = Path(str(modelpier_operator.__file__)).parent
HERE = Path(__file__).parent
GROUNDS = {"memory": "test_memory.py", "real": "test_real_api.py"}


def finders() -> dict[str, tuple[str, str]]:
    """(defect, id of a test that must fail), by a name for the pair."""
    found = {}
    for defect, mutation in MUTATIONS.items():
        if mutation.found_by in SCENARIOS:
            for ground, file in GROUNDS.items():
                found[f"{defect}: {ground}"] = defect, f"{HERE / file}::test_scenario[{mutation.found_by}]"
        else:
            found[f"{defect}: unit"] = defect, mutation.found_by
    return found


FINDERS = finders()


@pytest.mark.parametrize("defect", MUTATIONS)
def test_the_list_is_of_the_source_as_it_is(defect: str, tmp_path: Path) -> None:
    mutation = MUTATIONS[defect]
    mutation.apply(shutil.copytree(PACKAGE, tmp_path / PACKAGE.name))
    named = mutation.found_by.rpartition("/")[2].replace("::", "`: `")
    assert f"| {defect} | `{named}` |" in (HERE / "README.md").read_text()


@pytest.mark.heavy
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("defect", "test"), FINDERS.values(), ids=FINDERS)
def test_the_defect_is_found(defect: str, test: str, tmp_path: Path) -> None:
    if GROUNDS["real"] in test and (reason := missing()):
        pytest.skip(reason)
    MUTATIONS[defect].apply(shutil.copytree(PACKAGE, tmp_path / PACKAGE.name))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", test],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
