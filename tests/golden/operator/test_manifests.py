"""All objects of a ModelDeployment, whole, as people would read them: a change of any field shows in a diff."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from modelpier_operator.decide.facts import Observed
from modelpier_operator.judge import judge
from support.builders import KEYS, T0, md, settings
from support.manifests import CASES

HERE = Path(__file__).parent


@pytest.mark.parametrize("case", CASES)
def test_manifests(case: str, refresh: bool) -> None:
    spec, administrator = CASES[case]
    outcome = judge(Observed(md(**spec)), settings(**administrator), KEYS, T0)
    text = yaml.dump_all(outcome.children, Dumper=Plain, sort_keys=False, width=120)
    path = HERE / f"{case}.yaml"
    if refresh:
        path.write_text(text)
    assert path.read_text() == text, "if this is meant: pytest tests/golden --refresh-golden"


class Plain(yaml.SafeDumper):
    """Without anchors: each object stands for itself."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
