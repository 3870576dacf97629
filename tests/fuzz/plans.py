"""Plans, their signatures, reports and termination messages. The first byte says which of them the rest is."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fuzz.targets import Check
from modelpier_server.contract import (
    Batching,
    Comparison,
    ContractError,
    Failure,
    FailureReason,
    Limits,
    ModelReport,
    ModelState,
    Options,
    OutputDifference,
    Plan,
    PlannedModel,
    Report,
    Role,
    TensorSpec,
    sign,
    verify,
)
from modelpier_server.lifecycle.plans import PlanRefused, Trust, admit
from modelpier_server.protocol.http import Response

KEY = bytes(range(32))
PUBLIC = base64.b64encode(Ed25519PrivateKey.from_private_bytes(KEY).public_key().public_bytes_raw()).decode()
TRUST = Trust(PUBLIC, "owner", "set")


def make_plan() -> Check:
    kinds = (_plan, _report, _failure, _signature, _admitted)

    def check(data: bytes) -> None:
        if data:
            try:
                kinds[data[0] % len(kinds)](data[1:])
            except (ContractError, PlanRefused) as error:
                Response.json({"error": str(error)})

    return check


def _plan(raw: bytes) -> None:
    plan = Plan.decode(raw)
    assert Plan.decode(plan.encode()) == plan


def _report(raw: bytes) -> None:
    report = Report.decode(raw)
    assert Report.decode(report.encode()) == report


def _failure(raw: bytes) -> None:
    failure = Failure.decode(raw)
    again = Failure.decode(failure.encode())
    assert again.reason is failure.reason
    assert failure.message.startswith(again.message)


def _signature(raw: bytes) -> None:
    """A signature of 96 characters, then the key of 44, then the plan."""
    signature, key, plan = raw[:88].decode("latin-1"), raw[88:132].decode("latin-1"), raw[132:]
    try:
        verify(plan, signature, key)
    except ContractError:
        return
    # Nobody finds one by chance: it is the seed's, and says what it said there, or the key is a worthless one.
    assert key != PUBLIC or plan == _SIGNED


def _admitted(raw: bytes) -> None:
    plan = admit(raw, sign(raw, KEY), TRUST, 1)
    assert plan.generation > 1
    assert plan.owner_uid == TRUST.owner_uid


_SIGNED = b'{"a": 1}'


def seeds_plan() -> Mapping[str, bytes]:
    options = Options(
        batching=Batching(max_delay=0.1, padding={"x": 0.0}, mask="x"), limits=Limits(priority_levels=2), threads=1
    )
    model = PlannedModel("m", "m-1", "1", "s3://a/b", digest="sha256:" + "0" * 64, options=options, credentials="c")
    shadow = replace(model, revision="m-2", version="2", weight=10, role=Role.SHADOW)
    plan = Plan("owner", 2, (model, shadow), "set")
    tensors = (TensorSpec("x", "FP32", (-1, 3)),)
    report = ModelReport("m", "m-1", "1", ModelState.FAILED, reason=FailureReason.MODEL_INVALID, inputs=tensors)
    differences = (Comparison("1", {"compared": 3}, (OutputDifference("y", 9, 8),)),)
    compared = ModelReport("m", "m-2", "2", ModelState.READY, shadow=differences)
    return {
        "plan": b"\0" + plan.encode(),
        "report": b"\1" + Report(1, True, 2, "", (report, compared)).encode(),
        "failure": b"\2" + Failure(FailureReason.OUT_OF_MEMORY, "much\u00e9", "m-1").encode(),
        "signature": b"\3" + sign(_SIGNED, KEY).encode() + PUBLIC.encode() + _SIGNED,
        "admitted": b"\4" + plan.encode(),
        "smallest": b"\4"
        + json.dumps({"owner_uid": "owner", "generation": 2, "models": [], "pod_set": "set"}).encode(),
    }
