"""What counts as another attempt at a rollout."""

from __future__ import annotations

from typing import Any

from modelpier_operator.api.v1alpha1 import parse_spec
from modelpier_operator.decide import intent
from support.builders import md


def spec(**sections: Any) -> dict[str, Any]:
    return dict(md(**sections)["spec"])


def test_defaults_that_an_api_server_writes_out_are_no_other_attempt() -> None:
    asked = spec()
    written = parse_spec(asked).model_dump(mode="json", by_alias=True, exclude_none=True)
    assert len(str(written)) > len(str(asked))
    assert intent.attempt(written) == intent.attempt(asked)


def test_the_number_of_replicas_is_none() -> None:
    assert intent.attempt(spec(replicas=1)) == intent.attempt(spec(replicas=7))


def test_nor_is_who_may_connect() -> None:
    narrowed: Any = {"from": [{"podSelector": {}}]}
    assert intent.attempt(spec(access=narrowed)) == intent.attempt(spec())
    assert intent.attempt(spec(access=narrowed, unheardOf=1)) == intent.attempt(spec(unheardOf=1))


def test_how_to_get_there_is_one() -> None:
    assert intent.attempt(spec(rollout={"progressDeadlineSeconds": 60})) != intent.attempt(spec())


def test_one_that_cannot_be_read_is_one_as_it_is() -> None:
    wrong = {**spec(), "unheardOf": 1}
    assert intent.attempt(wrong) != intent.attempt({**wrong, "unheardOf": 2})
    assert intent.attempt(wrong) == intent.attempt({**wrong, "replicas": 3})


def test_what_is_large_is_not_remembered() -> None:
    """Whoever may edit a ModelDeployment must not fill the operator's memory."""
    small, large = spec(), spec(model={"uri": "s3://models/m/model.onnx", "version": "1" * 63})
    large["resources"] = {"podTemplate": {"metadata": {"annotations": {"a": "x" * 20_000}}}}
    intent.of(small)
    before = intent._of.cache_info().currsize, intent._attempt.cache_info().currsize
    assert intent.of(large).hash == intent.of(large).hash
    assert intent.attempt(large) == intent.attempt(large)
    assert (intent._of.cache_info().currsize, intent._attempt.cache_info().currsize) == before
