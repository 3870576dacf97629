from __future__ import annotations

from typing import Any

import pytest

from modelpier_operator import names
from modelpier_operator.cluster.store import Store, pod_trim, replica_set_trim

OWNER = ("team", "m")


def child(name: str = "c", *, version: int = 10, uid: str = "u1", owner: str = "m") -> dict[str, Any]:
    labels = {names.LABEL_DEPLOYMENT: owner}
    metadata = {"name": name, "namespace": "team", "uid": uid, "resourceVersion": str(version), "labels": labels}
    return {"kind": "ConfigMap", "metadata": {**metadata, "managedFields": [{"manager": "x", "operation": "Update"}]}}


class Watched:
    def __init__(self) -> None:
        self.changes: list[tuple[str, str]] = []
        self.store = Store(self.changes.append)

    def names(self) -> list[str]:
        return [o["metadata"]["name"] for o in self.store.owned_by(OWNER)]


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_only_news_is_told(watched: Watched) -> None:
    watched.store.put(child(version=10))
    watched.store.put(child(version=10))
    watched.store.put(child(version=9))
    assert watched.changes == [OWNER]
    watched.store.put(child(version=11))
    assert len(watched.changes) == 2


def test_managed_fields_are_not_kept(watched: Watched) -> None:
    watched.store.put(child())
    [kept] = watched.store.owned_by(OWNER)
    assert "managedFields" not in kept["metadata"]


def test_the_answer_to_an_own_write_is_known_at_once_and_is_no_news(watched: Watched) -> None:
    watched.store.advance(None, 10)
    watched.store.learn(child(version=12))
    assert watched.names() == ["c"]
    watched.store.put(child(version=12))
    assert watched.changes == []


def test_an_old_answer_does_not_bring_back_what_the_watch_has_seen_go(watched: Watched) -> None:
    watched.store.put(child(version=12))
    watched.store.drop(child(version=13))
    watched.store.advance(None, 13)
    watched.store.learn(child(version=12))
    assert watched.names() == []


def test_an_old_event_does_not_bring_back_what_we_deleted(watched: Watched) -> None:
    watched.store.put(child(version=12))
    watched.store.bury(("team", "c"), "u1")
    watched.store.put(child(version=13))
    assert watched.names() == []
    watched.store.drop(child(version=14))
    watched.store.put(child(version=15, uid="u2"))
    assert watched.names() == ["c"]


def test_a_late_deletion_does_not_take_the_successor(watched: Watched) -> None:
    watched.store.put(child(version=15, uid="u2"))
    watched.store.drop(child(version=14, uid="u1"))
    assert watched.names() == ["c"]


def test_a_listing_shows_what_was_deleted_in_the_gap(watched: Watched) -> None:
    watched.store.put(child("gone", version=10))
    watched.store.put(child("there", version=10))
    watched.store.learn(child("made meanwhile", version=25))
    watched.changes.clear()
    watched.store.retain(None, {("team", "there")}, 20)
    assert watched.names() == ["made meanwhile", "there"]
    assert watched.changes == [OWNER]


def test_a_listing_of_one_namespace_says_nothing_of_others(watched: Watched) -> None:
    watched.store.put(child())
    watched.store.retain("elsewhere", set(), 99)
    assert watched.names() == ["c"]


def test_an_object_that_changes_its_owner_is_found_there_alone(watched: Watched) -> None:
    watched.store.put(child(version=10))
    watched.store.put(child(version=11, owner="other"))
    assert watched.names() == []
    assert [o["metadata"]["name"] for o in watched.store.owned_by(("team", "other"))] == ["c"]


def test_trims_keep_what_is_asked_for() -> None:
    container = {"name": "server", "image": "x", "resources": {"limits": {"memory": "1Gi"}}, "env": [{"name": "A"}]}
    pod = {**child(), "spec": {"nodeName": "n1", "containers": [container]}, "status": {"phase": "Running"}}
    kept = {"name": "server", "resources": {"limits": {"memory": "1Gi"}}}
    assert pod_trim(pod)["spec"] == {"nodeName": "n1", "containers": [kept]}
    assert pod_trim(pod)["status"] == {"phase": "Running"}
    assert replica_set_trim({**child(), "spec": {"replicas": 2, "template": {}}})["spec"] == {"replicas": 2}


@pytest.mark.parametrize("successor", [False, True])
def test_a_listing_ends_what_was_buried_where_the_watch_missed_it(watched: Watched, *, successor: bool) -> None:
    store = watched.store
    store.put(child(version=12))
    store.bury(("team", "c"), "u1")
    store.retain("elsewhere", set(), 20)
    store.retain(None, {("team", "c")}, 12)
    store.put(child(version=13))
    assert watched.names() == [], "that listing was older than the deletion"
    if successor:
        store.put(child(version=21, uid="u2"))
    store.retain(None, {("team", "c")} if successor else set(), 22)
    assert not store._buried, "nothing is kept for ever"
    assert watched.names() == (["c"] if successor else [])


def test_who_is_interested_hears_of_each_end() -> None:
    gone: list[str] = []
    store = Store(lambda _: None, gone=gone.append)
    store.put(child("a", uid="ua"))
    store.put(child("a", uid="ua", version=11))
    store.put(child("b", uid="ub"))
    store.drop(child("a", uid="ua", version=12))
    store.retain(None, set(), 20)
    assert gone == ["ua", "ub"]
