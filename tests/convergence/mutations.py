"""Defects that somebody might bring into the operator, each as a change of its source, and the test that finds it.

`test_mutations.py` makes them; README.md lists them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

APPLY, RECONCILE, STATUS, STORE = "cluster/apply.py", "reconcile.py", "cluster/status.py", "cluster/store.py"
INFORMER, QUEUE, CENSUS = "cluster/informer.py", "cluster/queue.py", "cluster/census.py"
UNIT = "tests/unit/modelpier_operator"


@dataclass(frozen=True)
class Mutation:
    file: str
    """Below modelpier_operator."""
    old: str
    new: str
    found_by: str
    """A scenario, or the id of another test where what is left in the end does not show the defect."""

    def apply(self, package: Path) -> None:
        """Changes a copy of the package. Raises AssertionError when the source is not what it was."""
        path = package / self.file
        source = path.read_text()
        assert source.count(self.old) == 1, f"{self.file} has {self.old!r} {source.count(self.old)} times"
        path.write_text(source.replace(self.old, self.new))


MUTATIONS = {
    "a listing is not compared with what was known": Mutation(
        INFORMER,
        "self._sink.retain(self.namespace, seen, self._version)",
        "pass",
        "a child goes while no watch runs",
    ),
    "a watch that is too old is tried again for ever": Mutation(
        INFORMER,
        "except errors.UnavailableError as error:",
        "except (errors.UnavailableError, errors.GoneError) as error:",
        "a child goes while no watch runs",
    ),
    "who waits for a name is not tried again": Mutation(
        RECONCILE,
        "applied.problems or applied.waiting or",
        "applied.problems or",
        "a predecessor's child goes late and unseen",
    ),
    "a problem is not tried again": Mutation(
        RECONCILE, "applied.problems or applied.waiting or", "applied.waiting or", "a name is taken for a while"
    ),
    "a failure is not tried again": Mutation(
        RECONCILE, "self._queue.failed(key, error.retry_after or 0.0)", "pass", "the only write is refused"
    ),
    "a conflict is not tried again": Mutation(
        RECONCILE,
        'self._queue.failed(key)\n            result = "conflict"',
        'result = "conflict"',
        "the only write meets a conflict",
    ),
    "time alone brings no pass": Mutation(
        RECONCILE, "self._queue.add_after(key, outcome.requeue_after)", "pass", "a new version"
    ),
    "a key that comes while it is worked on is lost": Mutation(
        QUEUE,
        "if key in self._dirty:\n            self._ready",
        "if False:\n            self._ready",
        "nothing happens",
    ),
    "the listing of names removes nothing": Mutation(
        CENSUS,
        "self._deployments.remove_gone(differences.gone)",
        "pass",
        "an end that nobody saw, of one without children",
    ),
    "the owner is not looked at before children are made": Mutation(
        APPLY, "await self._confirm(md)", "pass", "an end that nobody saw"
    ),
    "deletions name no uid and no version": Mutation(
        APPLY,
        '{"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}',
        "{}",
        "another's object in the place of one that has to go",
    ),
    "applies name no uid": Mutation(
        APPLY,
        '{**target.manifest["metadata"], "uid": uid}',
        '{**target.manifest["metadata"]}',
        "another's object in the place of one that has to change",
    ),
    "whose an object is does not matter": Mutation(
        APPLY, 'if owner.get("uid") != target.owner_uid:', "if False:", "a name is taken for a while"
    ),
    "what was deleted stays in the caches": Mutation(
        APPLY, 'store.bury(key, metadata["uid"])', "pass", "events that come late"
    ),
    "what was made is not in the caches": Mutation(
        APPLY,
        'self._learn(target, await self._api.write("POST", path, target.manifest, query=MANAGER))',
        'await self._api.write("POST", path, target.manifest, query=MANAGER)',
        "events that come late",
    ),
    "the hash of what was applied is believed": Mutation(
        APPLY, " and contains(live, target.manifest)", "", "somebody edits"
    ),
    "selectors may say more than is wanted": Mutation(
        "cluster/compare.py", "live[name] == value if name in _WHOLE else contains", "contains", "somebody edits"
    ),
    "a refused Deployment holds deletions back": Mutation(
        APPLY,
        "if result.problems and number != DEPLOYMENTS:",
        "if result.problems:",
        "a Deployment that is refused from the start",
    ),
    "the end of an object is no news": Mutation(
        STORE,
        "but only now is its name free again.\n        self._changed(_owner(manifest))",
        "but only now is its name free again.",
        "a child goes",
    ),
    "a status that could not be written is forgotten": Mutation(
        STATUS,
        "except errors.NotFoundError:",
        "except errors.UnavailableError:\n            return False\n        except errors.NotFoundError:",
        "the only write is refused",
    ),
    "nobody renews pods that take no plan any more": Mutation(
        "judge.py",
        "return known if given_up or last else None",
        "return known",
        "another key, and a plan that is lost",
    ),
    "the last plan of an old key is signed anew": Mutation(
        "decide/plan.py",
        "if not ours and (last := kept(revision, pod_set, identity)):",
        "if (last := kept(revision, pod_set, identity)) and False:",
        f"{UNIT}/judge/test_keys.py::test_what_serves_is_left_alone_and_starts_again_when_it_has_to",
    ),
    "problems hold nothing back": Mutation(
        APPLY,
        "if result.problems and number != DEPLOYMENTS:",
        "if False:",
        f"{UNIT}/cluster/test_apply.py::test_what_pods_need_is_refused_and_no_pods_are_asked_for",
    ),
    "memory comes with everything else": Mutation(
        APPLY,
        "CONTROLLER_REVISION: 0",
        "CONTROLLER_REVISION: 1",
        f"{UNIT}/cluster/test_apply.py::test_memory_comes_first_and_deployments_last",
    ),
    "a status names no uid": Mutation(
        STATUS,
        '{"metadata": {"uid": uid}, "status"',
        '{"status"',
        f"{UNIT}/cluster/test_status.py::test_a_successor_of_the_same_name_keeps_its_own_status",
    ),
    "the answer to a status write is not known": Mutation(
        STATUS,
        "self._deployments.learn(answer, status)",
        "pass",
        f"{UNIT}/cluster/test_status.py::test_what_the_watch_has_yet_to_bring_is_news_with_the_answer",
    ),
    "old events are believed": Mutation(
        STORE,
        "(old is not None and old.version >= version)",
        "False",
        f"{UNIT}/cluster/test_store.py::test_only_news_is_told",
    ),
    "the end of an object is that of its successor": Mutation(
        STORE,
        'entry is not None and entry.uid == metadata["uid"]:\n            self._remove(key)\n        #',
        "entry is not None:\n            self._remove(key)\n        #",
        f"{UNIT}/cluster/test_store.py::test_a_late_deletion_does_not_take_the_successor",
    ),
    "a rollout is given up at once": Mutation(
        "decide/rollout.py",
        "return left if left > 0 else None",
        "return None",
        "a new version",
    ),
}
