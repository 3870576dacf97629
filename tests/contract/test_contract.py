"""The wire contract: what is encoded decodes to the same; whatever else comes is refused by name, never by a crash."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpier_server import contract
from modelpier_server.contract import (
    Batching,
    Comparison,
    ContractError,
    Failure,
    FailureReason,
    GoldenTests,
    GraphOptimization,
    Limits,
    ModelReport,
    ModelState,
    Options,
    Outcome,
    OutputDifference,
    Plan,
    PlannedModel,
    Provider,
    Report,
    Role,
    TensorSpec,
)
from support.specs import NO_LIBRARIES

text = st.text(min_size=1, max_size=20)
whole = st.integers(0, 2**53)
digests = st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True)
options = st.builds(
    Options,
    providers=st.lists(st.builds(Provider, text, st.dictionaries(text, text, max_size=2)), min_size=1, max_size=3).map(
        tuple
    ),
    instances=whole,
    threads=whole,
    graph_optimization=st.sampled_from(GraphOptimization),
    hooks=st.booleans(),
    custom_operators=st.lists(
        st.from_regex(contract.LIBRARY_PATTERN, fullmatch=True).filter(contract.is_library), max_size=8
    ).map(tuple),
    golden_tests=st.builds(GoldenTests, st.booleans(), st.floats(0, 1e6), st.floats(0, 1e6)),
    batching=st.builds(
        Batching, st.booleans(), st.integers(1, 10**6), st.floats(0, 1e3), st.dictionaries(text, st.floats(-9, 9)), text
    ),
    limits=st.builds(
        Limits,
        st.integers(1, 10**6),
        st.floats(0.001, 1e6),
        st.integers(1, 2**40),
        st.floats(0, 1e6),
        st.integers(1, 16),
        st.floats(0, 1e6),
    ),
)
plain = st.builds(
    PlannedModel,
    name=text,
    revision=text,
    version=text,
    uri=text,
    digest=st.none() | digests,
    weight=whole,
    role=st.sampled_from([Role.REQUIRED, Role.CANDIDATE]),
    credentials=st.none() | text,
    options=options,
)
shadows = st.builds(replace, plain, role=st.just(Role.SHADOW), weight=st.integers(0, 100))
models = plain | shadows
plans = st.builds(Plan, text, st.integers(1, 2**53), st.lists(models, max_size=3).map(tuple))
tensors = st.lists(
    st.builds(TensorSpec, text, text, st.lists(st.integers(-1, 2**40), max_size=4).map(tuple)), max_size=2
)
finite = st.floats(0, 1e300)
comparisons = st.builds(
    Comparison,
    text,
    st.dictionaries(st.sampled_from([outcome.value for outcome in Outcome]), whole),
    st.lists(
        st.builds(
            OutputDifference, text, whole, whole, whole, finite, finite, finite, whole, finite, finite, whole, whole
        ),
        max_size=2,
    ).map(tuple),
)
reports = st.builds(
    Report,
    whole,
    st.booleans(),
    whole,
    st.text(max_size=20),
    st.lists(
        st.builds(
            ModelReport,
            name=text,
            revision=text,
            version=text,
            state=st.sampled_from(ModelState),
            digest=st.none() | digests,
            provider=st.none() | text,
            reason=st.none() | st.sampled_from(FailureReason),
            message=st.text(max_size=20),
            timings=st.dictionaries(text, st.floats(0, 1e6), max_size=3),
            size_bytes=whole,
            inputs=tensors.map(tuple),
            outputs=tensors.map(tuple),
            shadow=st.lists(comparisons, max_size=2).map(tuple),
        ),
        max_size=2,
    ).map(tuple),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(plans)
def test_plans_come_back(plan: Plan) -> None:
    assert Plan.decode(plan.encode()) == plan


@given(reports)
def test_reports_come_back(report: Report) -> None:
    assert Report.decode(report.encode()) == report


@given(st.sampled_from(FailureReason), st.text(), st.text(max_size=63))
def test_failures_come_back(reason: FailureReason, message: str, revision: str) -> None:
    failure = Failure(reason, message, revision)
    raw = failure.encode()
    assert len(raw) <= contract.TERMINATION_LOG_LIMIT
    back = Failure.decode(raw)
    assert (back.reason, back.revision) == (reason, revision)
    assert message.startswith(back.message)


@pytest.mark.parametrize("letter", ["x", "ä", "\U0001f600", '"', "\\"])
def test_a_long_failure_is_cut_to_what_a_kubelet_keeps(letter: str) -> None:
    failure = Failure(FailureReason.MODEL_INVALID, letter * 10_000, "r" * 5_000)
    raw = failure.encode()
    assert len(raw) <= contract.TERMINATION_LOG_LIMIT
    assert Failure.decode(raw).reason is FailureReason.MODEL_INVALID


def test_equal_plans_have_equal_bytes() -> None:
    model = PlannedModel("m", "r", "1", "file:///m", options=Options((Provider("CPU", {"b": "1", "a": "2"}),)))
    other = PlannedModel("m", "r", "1", "file:///m", options=Options((Provider("CPU", {"a": "2", "b": "1"}),)))
    assert Plan("o", 1, (model,)).encode() == Plan("o", 1, (other,)).encode()


def test_a_plan_names_its_pod_set_or_none() -> None:
    for pod_set in ("", "m-0123456789-1"):
        assert Plan.decode(Plan("o", 1, (), pod_set).encode()).pod_set == pod_set
    assert Plan.decode('{"owner_uid": "o", "generation": 1, "models": []}').pod_set == ""
    for wrong in ("0", "null", "[]"):
        with pytest.raises(ContractError, match=r"plan\.pod_set"):
            Plan.decode(f'{{"owner_uid": "o", "generation": 1, "models": [], "pod_set": {wrong}}}')


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(p for key, inner in items for p in _paths(inner, (*path, key)))]


PLAN = json.loads(
    Plan("o", 3, (PlannedModel("m", "r", "1", "s3://b/k", "sha256:" + "0" * 64, credentials="c"),)).encode()
)
REPORT = json.loads(
    Report(
        1,
        True,
        1,
        "",
        (
            ModelReport(
                "m",
                "r",
                "1",
                ModelState.READY,
                timings={"load": 1.0},
                inputs=(TensorSpec("x", "FP32", (-1, 3)),),
                shadow=(Comparison("2", {"compared": 3}, (OutputDifference("y", 9, 8),)),),
            ),
        ),
    ).encode()
)


@pytest.mark.parametrize(("kind", "good"), [(Plan, PLAN), (Report, REPORT)])
@settings(max_examples=500, deadline=None)
@given(data=st.data())
def test_any_field_may_be_anything(kind: Any, good: Mapping[str, Any], data: st.DataObject) -> None:
    """One value of a good message replaced or removed: refused with ContractError, or understood and stable."""
    message = json.loads(json.dumps(good))
    path = data.draw(st.sampled_from(_paths(message)[1:]))
    holder = message
    for key in path[:-1]:
        holder = holder[key]
    if isinstance(holder, dict) and data.draw(st.booleans()):
        del holder[path[-1]]
    else:
        holder[path[-1]] = data.draw(json_values)
    error = ""
    try:
        decoded = kind.decode(json.dumps(message))
    except ContractError as refused:
        error = str(refused)
    else:
        assert kind.decode(decoded.encode()) == decoded
    assert not error or error.startswith(kind.__name__.lower())


@pytest.mark.parametrize("kind", [Plan, Report, Failure])
@given(raw=st.binary(max_size=60))
def test_any_bytes(kind: Any, raw: bytes) -> None:
    with pytest.raises(ContractError):
        kind.decode(raw)


@pytest.mark.parametrize("kind", [Plan, Report, Failure])
@pytest.mark.parametrize("raw", [b"[" * 100_000, b'{"a":' * 100_000, b"9" * 10_000, b'"\xff"', b"NaN"])
def test_hostile_bytes(kind: Any, raw: bytes) -> None:
    with pytest.raises(ContractError):
        kind.decode(raw)


@pytest.mark.parametrize("kind", [Plan, Report, Failure])
@pytest.mark.parametrize("half", [b"\\ud800", b"\\uDFFF", b"\xed\xa0\x80"])
def test_half_of_a_surrogate_pair_is_no_text(kind: Any, half: bytes) -> None:
    """It would fail only where it is written again: in the answer to the push, in the metrics, in the report."""
    with pytest.raises(ContractError, match="not JSON"):
        kind.decode(b'{"owner_uid": "a", "reason": "' + half + b'"}')


def test_a_report_tells_of_names_that_are_no_text() -> None:
    broken = os.fsdecode(b"model-\xff.onnx")
    report = Report(1, False, 1, broken, (ModelReport("m", "r", "1", ModelState.FAILED, message=broken),))
    assert Report.decode(report.encode()).plan_error == "model-?.onnx"
    assert Failure.decode(Failure(FailureReason.MODEL_INVALID, broken).encode()).message == "model-?.onnx"


@pytest.mark.parametrize(
    ("path", "value", "names"),
    [
        (("owner_uid",), "", "plan.owner_uid"),
        (("generation",), 0, "plan.generation"),
        (("generation",), True, "plan.generation"),
        (("models",), {}, "plan.models"),
        (("models", 0, "name"), None, "plan.models[0].name"),
        (("models", 0, "digest"), "md5:1", "plan.models[0].digest"),
        (("models", 0, "role"), "boss", "plan.models[0].role"),
        (("models", 0, "weight"), -1, "plan.models[0].weight"),
        (("models", 0, "options", "providers"), 5, "plan.models[0].options.providers"),
        (("models", 0, "options", "providers"), ["CPU"], "plan.models[0].options.providers[0]"),
        (("models", 0, "options", "limits", "request_timeout"), 0, "request_timeout"),
        (("models", 0, "options", "graph_optimization"), "all", "graph_optimization"),
        (("models", 0, "options", "limits", "priority_levels"), 0, "priority_levels"),
        (("models", 0, "options", "limits", "priority_levels"), 17, "priority_levels"),
        (("models", 0, "options", "limits", "run_timeout"), -1, "run_timeout"),
        (("models", 0, "options", "limits", "max_queue_wait"), "1", "max_queue_wait"),
        (("models", 0, "options", "batching", "max_delay"), -0.1, "max_delay"),
        (("models", 0, "options", "batching", "padding"), {"ids": "0"}, "padding.ids"),
        (("models", 0, "options", "batching", "padding"), ["ids"], "padding"),
        (("models", 0, "options", "golden_tests"), {"relative": -1}, "golden_tests.relative"),
        (("models", 0, "options", "hooks"), "true", "hooks"),
        (("models", 0, "options", "custom_operators"), "a.so", "custom_operators"),
        (("models", 0, "options", "custom_operators"), ["a.so", 1], "custom_operators[1]"),
        (("models", 0, "options", "custom_operators"), ["a.so"] * 9, "custom_operators: must be at most 8"),
        (("models", 0, "options", "golden_tests"), {"enabled": 1}, "golden_tests.enabled"),
        (("models", 0, "options", "limits", "request_timeout"), True, "request_timeout"),
        (("models", 0, "options", "limits", "request_timeout"), float("nan"), "NaN"),
        (("models", 0, "options", "limits", "max_queue"), 0, "max_queue"),
        (("models", 0, "options", "batching", "max_rows"), "8", "max_rows"),
    ],
)
def test_refusals_name_the_field(path: tuple[Any, ...], value: Any, names: str) -> None:
    message = json.loads(json.dumps(PLAN))
    holder = message
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    with pytest.raises(ContractError) as caught:
        Plan.decode(json.dumps(message))
    assert names in str(caught.value)


@pytest.mark.parametrize("path", ["a.so", "ops/custom.so", "ops/v1.2/lib-x+y_z.so", "a/" * 126 + "b.so"])
def test_libraries_lie_below_the_models_folder(path: str) -> None:
    assert contract.is_library(path)


@pytest.mark.parametrize("path", NO_LIBRARIES)
def test_other_paths_are_no_libraries(path: str) -> None:
    message = json.loads(json.dumps(PLAN))
    message["models"][0]["options"]["custom_operators"] = [path]
    with pytest.raises(ContractError, match=r"custom_operators\[0\]: must be a path relative to the model's folder"):
        Plan.decode(json.dumps(message))


# ------------------------------------------------------------------------------------------------ signatures
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = base64.b64encode(KEY.public_key().public_bytes_raw()).decode()


def test_a_signature_is_that_of_rfc_8032() -> None:
    """Test 2 of RFC 8032, section 7.1."""
    private = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    public = base64.b64encode(
        bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
    ).decode()
    expected = (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    signature = contract.sign(b"\x72", private)
    assert base64.b64decode(signature).hex() == expected
    contract.verify(b"\x72", signature, public)


@given(st.binary(max_size=200), st.data())
def test_a_changed_plan_does_not_pass(raw: bytes, data: st.DataObject) -> None:
    signature = contract.sign(raw, bytes(range(32)))
    contract.verify(raw, signature, PUBLIC)
    other = data.draw(st.binary(max_size=200).filter(lambda b: b != raw))
    with pytest.raises(ContractError):
        contract.verify(other, signature, PUBLIC)


@pytest.mark.parametrize("signature", ["", "x", "ä", "AAAA", base64.b64encode(bytes(64)).decode(), "A" * 10_000])
@pytest.mark.parametrize("key", [PUBLIC, "", "ä", base64.b64encode(bytes(31)).decode(), "%%%"])
def test_no_signature_passes_by_being_odd(signature: str, key: str) -> None:
    with pytest.raises(ContractError):
        contract.verify(b"plan", signature, key)


def test_a_shadow_gets_at_most_every_request() -> None:
    shadow = PlannedModel("m", "r", "1", "u", weight=100, role=Role.SHADOW)
    assert Plan.decode(Plan("o", 1, (shadow,)).encode()).models == (shadow,)
    with pytest.raises(ContractError, match=r"plan\.models\[0\]\.weight: must be from 0 to 100 for a shadow"):
        Plan.decode(Plan("o", 1, (replace(shadow, weight=101),)).encode())


def test_every_planned_field_is_on_the_wire() -> None:
    """A field that is added to the types and forgotten in `decode` would be dropped in silence."""
    model = asdict(PlannedModel("m", "r", "1", "u"))
    assert set(PLAN["models"][0]) == set(model)
    assert {f.name for f in fields(Plan)} == set(PLAN)
