from __future__ import annotations

from typing import Any

from modelpier_operator.cluster.ownership import created_by_update, folded, left_over
from modelpier_operator.names import FIELD_MANAGER


def entry(operation: str, *fields: str, manager: str = FIELD_MANAGER, **more: Any) -> dict[str, Any]:
    owned: dict[str, Any] = {"f:data": {".": {}, **{f"f:{name}": {} for name in fields}}}
    return {"manager": manager, "operation": operation, "fieldsV1": owned, **more}


def made(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"managedFields": list(entries)}}


def test_only_our_own_post_counts() -> None:
    assert created_by_update(made(entry("Update", "a")))
    assert not created_by_update(made(entry("Apply", "a")))
    assert not created_by_update(made(entry("Update", "a", manager="kubectl")))
    assert not created_by_update(made(entry("Update", "a", subresource="status")))
    assert not created_by_update({"metadata": {}})


def test_what_an_apply_does_not_claim_is_left_over() -> None:
    assert left_over(made(entry("Update", "a", "b"), entry("Apply", "a")))
    assert not left_over(made(entry("Update", "a"), entry("Apply", "a", "b")))
    assert not left_over(made(entry("Apply", "a")))


def test_folding_makes_one_apply_of_both_and_keeps_others() -> None:
    theirs = entry("Update", "c", manager="kubectl")
    whole = folded(made(entry("Update", "a"), theirs, entry("Apply", "b")))
    assert whole[0] == theirs
    assert [e["operation"] for e in whole] == ["Update", "Apply"]
    assert set(whole[1]["fieldsV1"]["f:data"]) == {".", "f:a", "f:b"}
