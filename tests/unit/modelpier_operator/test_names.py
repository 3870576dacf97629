import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpier_operator import names

stems = st.from_regex(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True)
long_stems = st.from_regex(r"[a-z]([-a-z0-9.]{0,251}[a-z0-9])?", fullmatch=True)
LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"


@given(stems)
def test_every_name_is_a_dns_label(name: str) -> None:
    pod_set = names.pod_set_name(name, "0123456789", 12)
    for made in (names.revision_name(name, "0123456789"), pod_set, names.capped(name, "server")):
        assert re.fullmatch(LABEL, made), made
        assert len(made) <= names.DNS_LABEL_LIMIT


@given(stems)
def test_a_pods_hostname_is_a_dns_label(name: str) -> None:
    """ReplicaSet and pod append `-<10>` and `-<5>` to the Deployment's name."""
    assert len(names.pod_set_name(name, "0123456789", 99) + "-0123456789-01234") <= names.DNS_LABEL_LIMIT


@given(long_stems)
def test_a_label_value_fits(name: str) -> None:
    assert len(names.label_value(name)) <= names.LABEL_VALUE_LIMIT
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9_.]*[a-z0-9])?", names.label_value(name))


def test_a_short_name_stays_as_it_is() -> None:
    assert names.capped("resnet50", "plan") == "resnet50-plan"
    assert names.label_value("a" * 63) == "a" * 63


@given(st.text("ab", min_size=60, max_size=70), st.text("ab", min_size=60, max_size=70))
def test_long_names_that_differ_at_their_end_stay_apart(one: str, other: str) -> None:
    assert (names.capped(one, "plan") == names.capped(other, "plan")) == (one == other)
    assert (names.label_value(one) == names.label_value(other)) == (one == other)


def test_a_cut_leaves_no_hyphen_before_the_mark() -> None:
    made = names.capped("a" * 50 + "-" * 5 + "b" * 20, "server")
    assert "--" not in made


@pytest.mark.parametrize(("one", "other"), [({"a": 1, "b": 2}, {"b": 2, "a": 1}), ([1, 2], (1, 2))])
def test_a_digest_is_of_the_value_alone(one: Any, other: Any) -> None:
    assert names.digest(one) == names.digest(other)
    assert re.fullmatch("[0-9a-f]{10}", names.digest(one))


def test_a_digest_tells_values_apart() -> None:
    values: tuple[Any, ...] = ({}, [], None, "", 0, {"a": None}, {"a": 1})
    assert len({names.digest(value) for value in values}) == len(values)
