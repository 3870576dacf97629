import re

import pytest

from modelpier_operator.api.conditions import ConditionType, Reason
from modelpier_server.contract import FailureReason


@pytest.mark.parametrize("reason", Reason)
def test_a_reason_is_a_camel_case_word_with_a_cause(reason: Reason) -> None:
    assert re.fullmatch("[A-Z][A-Za-z]+", reason)
    assert reason.cause.endswith(".")


@pytest.mark.parametrize("reason", [r for r in Reason if r.failure])
def test_what_is_wrong_has_a_remedy(reason: Reason) -> None:
    assert reason.remedy.endswith(".")


def test_only_something_wrong_can_be_permanent() -> None:
    assert all(r.failure for r in Reason if r.permanent)


def test_a_reason_is_its_own_text() -> None:
    assert f"{Reason.INSUFFICIENT_GPU}" == "InsufficientGPU" == Reason("InsufficientGPU")


@pytest.mark.parametrize("reason", FailureReason)
def test_whatever_a_server_reports_is_a_reason_of_ours(reason: FailureReason) -> None:
    assert Reason(reason.value).failure


def test_conditions_come_in_the_order_in_which_people_ask() -> None:
    assert [str(c) for c in ConditionType] == [
        "Ready",
        "Available",
        "Progressing",
        "Degraded",
        "Stalled",
        "ModelResolved",
        "Scheduled",
        "Loaded",
    ]
    assert all(c.meaning for c in ConditionType)
