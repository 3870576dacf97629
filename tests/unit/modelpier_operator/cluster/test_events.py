"""EventWriter over the API in memory."""

from __future__ import annotations

import pytest

from modelpier_operator.cluster.events import EventWriter
from modelpier_operator.decide.facts import Tiding
from support.api import MemoryApi
from support.builders import at, md
from support.faults import Fault, Faulty

TIDING = Tiding("m.0123456789abcdef", "Normal", "Promoted", "Revision m-1 serves.")


async def test_an_event_is_about_the_model_deployment() -> None:
    server, subject = MemoryApi(), md()
    await EventWriter(server.connect()).write(subject, [TIDING], at(7))
    (event,) = server.list("events", "team")
    about = subject["metadata"]
    assert event["involvedObject"] == {
        "apiVersion": "modelpier.dev/v1alpha1",
        "kind": "ModelDeployment",
        **{key: about[key] for key in ("name", "namespace", "uid")},
    }
    told = [event[key] for key in ("type", "reason", "message", "count", "firstTimestamp", "lastTimestamp")]
    assert told == ["Normal", "Promoted", "Revision m-1 serves.", 1, *["2030-01-01T00:00:07Z"] * 2]
    assert event["source"] == {"component": "modelpier-operator"}


async def test_what_was_told_is_not_told_again() -> None:
    server = MemoryApi()
    for second in (1, 2):
        await EventWriter(server.connect()).write(md(), [TIDING], at(second))
    (event,) = server.list("events", "team")
    assert event["lastTimestamp"].endswith("01Z")


@pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.THROTTLED, Fault.CONFLICT])
async def test_nothing_waits_for_an_event_that_cannot_be_written(fault: Fault) -> None:
    server = MemoryApi()
    api = Faulty(server.connect())
    api.coming.append(fault)
    other = Tiding("m.fedcba9876543210", "Warning", "OutOfMemory", "x")
    await EventWriter(api).write(md(), [TIDING, other], at(1))
    assert [event["reason"] for event in server.list("events", "team")] == ["OutOfMemory"]
