"""Programs that find a certain defect, or once found one: random ones would need luck for them. Played on both grounds.

`mutations.py` says which defects.
"""

from __future__ import annotations

from collections.abc import Mapping

from convergence.machine import Act, do
from support.faults import Fault

ONE, TWO = "s3://models/one/model.onnx", "s3://models/two/model.onnx"


def begin(replicas: int = 1) -> Act:
    return do("write", name="m", uri=ONE, replicas=replicas)


def roll(after: int = 30, replicas: int = 1) -> Act:
    return do("write", name="m", uri=TWO, replicas=replicas, after=after)


def wait(seconds: int) -> Act:
    return do("wait", after=seconds)


def invalid(replicas: int = 1) -> Act:
    return do("ask_for_what_is_refused", name="m", refused="by the operator", replicas=replicas)


def unwritable(after: int) -> Act:
    return do("ask_for_what_is_refused", name="m", refused="by the server", replicas=1, after=after)


def spoiled(fault: Fault) -> list[Act]:
    """Nothing but the status is written for a spec that cannot be followed, and nothing but an edit changes that."""
    return [invalid(), do("faults_ahead", faults=[fault], after=30), invalid(replicas=2), wait(60)]


SCENARIOS: dict[str, list[Act]] = {
    "nothing happens": [begin(2)],
    "a new version": [begin(2), roll(replicas=2)],
    "a child goes while no watch runs": [
        begin(),
        do("somebody_deletes_a_child", plural="services", pick=0, unseen=True, after=60),
    ],
    "a child goes": [begin(), do("somebody_deletes_a_child", plural="configmaps", pick=0, unseen=False, after=60)],
    "a predecessor's child goes late and unseen": [
        begin(),
        do("replace_by_force", name="m", unseen=False, straggler="services", after=60),
        do("somebody_lets_go", after=60),
    ],
    "a name is taken for a while": [
        begin(),
        do("somebody_supplants_a_child", plural="services", pick=0, after=60),
        wait(200),
    ],
    "another's object in the place of one that has to go": [
        begin(2),
        do("a_watch_lags", plural="poddisruptionbudgets", seconds=60, after=60),
        do("somebody_supplants_a_child", plural="poddisruptionbudgets", pick=0),
        do("write", name="m", uri=ONE, replicas=1),
        wait(30),
    ],
    "another's object in the place of one that has to change": [
        begin(),
        roll(after=60),  # the first change of an object asks for its uid anyway
        do("a_watch_lags", plural="services", seconds=90, after=60),
        do("somebody_supplants_a_child", plural="services", pick=0),
        do("write", name="m", uri=ONE, replicas=1),
        wait(60),
    ],
    "events that come late": [
        *(do("a_watch_lags", plural=plural, seconds=20) for plural in ("services", "configmaps", "deployments")),
        begin(),
        do("a_watch_lags", plural="deployments", seconds=60, after=30),
        roll(after=0),
        wait(60),
    ],
    "an end that nobody saw": [begin(), do("delete", name="m", unseen=True, after=60), wait(30)],
    "an end that nobody saw, of one without children": [
        invalid(),
        do("delete", name="m", unseen=True, after=30),
    ],
    "the only write is refused": spoiled(Fault.REFUSED),
    "the only write meets a conflict": spoiled(Fault.CONFLICT),
    "somebody edits": [
        begin(),
        do("somebody_edits_a_child", what="selector", pick=0, after=60),
        do("somebody_edits_a_child", what="policy", pick=0, after=10),
        do("somebody_edits_a_child", what="replicas", pick=0, after=10),
        do("somebody_edits_a_child", what="data", pick=0, after=10),
        do("somebody_edits_a_child", what="label", pick=0, after=10),
    ],
    "another key": [begin(2), do("restart_with_another_key", after=60), do("a_pod_fails", pick=0, lost=True, after=10)],
    "another key, and a plan that is lost": [
        begin(2),
        do("restart_with_another_key", after=60),
        do("somebody_deletes_a_child", plural="configmaps", pick=0, unseen=False, after=10),
        do("a_pod_fails", pick=0, lost=True),
    ],
    "another key in the middle of everything": [
        begin(2),
        do("restart_with_another_key", after=3),
        roll(after=60, replicas=2),
        do("restart_with_another_key", after=4),
    ],
    "a Deployment that is refused": [begin(), roll(after=60), unwritable(after=2), wait(60)],
    "a Deployment that is refused from the start": [begin(), unwritable(after=2)],
}


def ends(name: str, told: Mapping[str, Mapping[str, str] | None]) -> bool:
    """Whether a scenario has come to its end: an operator that gives up what it could do converges, too."""
    return (told["m"] or {}).get("Ready") == ENDS.get(name, "True/Serving")


ENDS: dict[str, str | None] = {
    "an end that nobody saw": None,
    "an end that nobody saw, of one without children": None,
    "the only write is refused": "False/SpecInvalid",
    "the only write meets a conflict": "False/SpecInvalid",
    "a Deployment that is refused": "False/DeadlineExceeded",
    "a Deployment that is refused from the start": "False/ObjectRejected",
}
"""`Ready` of those in which users ask for what cannot be had, or for nothing any more."""
