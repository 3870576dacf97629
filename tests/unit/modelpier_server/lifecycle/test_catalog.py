from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpier_server.contract import Limits, Options, Role
from modelpier_server.errors import NotFound, Unavailable
from modelpier_server.lifecycle.catalog import Catalog, Entry

from .conftest import model


def catalog(*weights: int, roles: Sequence[Role] = ()) -> Catalog[str]:
    """Revisions r0, r1, ... of one model; the servable is the revision's name."""
    made: Catalog[str] = Catalog()
    publish(made, *weights, roles=roles)
    return made


def publish(made: Catalog[str], *weights: int, roles: Sequence[Role] = (), unready: Sequence[int] = ()) -> None:
    roles = roles or [Role.REQUIRED] * len(weights)
    planned = [model(f"r{i}", weight=w, role=roles[i]) for i, w in enumerate(weights)]
    entries = [Entry(p, p.revision) for i, p in enumerate(planned) if i not in unready]
    made.publish(entries, planned, [], complete=not unready)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=5).filter(any), st.integers(0, 40))
def test_weights_are_exact_over_every_cycle(weights: list[int], start: int) -> None:
    """Wherever a window of as many requests as the sum of weights begins, each revision gets exactly its weight."""
    made = catalog(*weights)
    picks = [made.find("m") for _ in range(start + sum(weights))]
    counted = Counter(picks[start:])
    assert [counted[f"r{i}"] for i in range(len(weights))] == weights


def test_the_largest_body_is_that_of_what_is_served() -> None:
    made: Catalog[str] = Catalog()
    assert made.max_body_bytes() == Limits().max_body_bytes
    planned = [model(f"r{size}", options=Options(limits=Limits(max_body_bytes=size))) for size in (1000, 3000, 2000)]
    made.publish([Entry(p, p.revision) for p in planned[::2]], planned, [], complete=False)
    assert made.max_body_bytes() == 2000


def test_turns_are_spread() -> None:
    made = catalog(4, 1)
    assert "".join(made.find("m")[1] for _ in range(10)) == "0010000100"


def test_turns_go_on_over_an_unrelated_change() -> None:
    made = catalog(2, 1)
    picks = [made.find("m") for _ in range(2)]
    publish(made, 2, 1)
    assert Counter([*picks, made.find("m")]) == {"r0": 2, "r1": 1}


def test_versions_are_found_whatever_their_weight() -> None:
    made = catalog(100, 0)
    assert made.find("m", "r1") == "r1"
    assert {made.find("m") for _ in range(50)} == {"r0"}


def test_of_two_revisions_with_one_label_the_one_with_weight_answers() -> None:
    planned = [model("r0", version="3", weight=100), model("r1", version="3", weight=0, role=Role.CANDIDATE)]
    made: Catalog[str] = Catalog()
    made.publish([Entry(p, p.revision) for p in planned], planned, [], complete=True)
    assert {made.find("m", "3") for _ in range(300)} == {"r0"}


def test_the_weight_of_one_that_is_not_ready_goes_to_the_others() -> None:
    made: Catalog[str] = Catalog()
    publish(made, 50, 50, unready=[1])
    assert {made.find("m") for _ in range(10)} == {"r0"}
    with pytest.raises(Unavailable):
        made.find("m", "r1")


def test_a_candidate_alone_without_weight_takes_nothing() -> None:
    with pytest.raises(Unavailable):
        catalog(0, roles=[Role.CANDIDATE]).find("m")


def test_absences_are_told_apart() -> None:
    made = catalog(1)
    with pytest.raises(NotFound, match="model 'other'"):
        made.find("other")
    with pytest.raises(NotFound, match="version '9'"):
        made.find("m", "9")
    publish(made, 1, unready=[0])
    with pytest.raises(Unavailable) as caught:
        made.find("m")
    assert caught.value.retry_after
    with pytest.raises(NotFound, match="no model"):
        Catalog().find("m")


def test_names_are_of_what_answers() -> None:
    made: Catalog[str] = Catalog()
    publish(made, 1, 1, unready=[0, 1])
    assert made.names() == ()
    publish(made, 1, 1)
    assert made.names() == ("m",)


def test_draining_is_not_ready() -> None:
    made = catalog(1)
    assert made.ready
    made.draining = True
    assert not made.ready
