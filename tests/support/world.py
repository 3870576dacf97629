"""A small Kubernetes for tests of decisions: Deployment controller, garbage collector, scheduler, kubelet and server.

Deterministic and without a clock of its own: `tick` advances all of them by one second. Objects live in a `Store`, so
that the same world runs over a dict here and over an in-memory API elsewhere. What it does is what those parts of
Kubernetes do as far as the operator can see it; where that matters (order of deletion, GPUs of terminating pods,
messages) it follows them closely.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol

from modelpier_operator import names
from modelpier_server import contract
from modelpier_server.contract import ModelState
from support.builders import DIGEST, GPU, at, stamp

Object = dict[str, Any]
DRAIN = 6
"""Seconds from SIGTERM to a pod's end."""
MOUNT_LAG = 60
STAGES = (ModelState.DOWNLOADING, ModelState.LOADING, ModelState.WARMING, ModelState.LOADED)


class Store(Protocol):
    def list(self, kind: str) -> list[Object]: ...
    def get(self, kind: str, namespace: str, name: str) -> Object | None: ...
    def put(self, manifest: Object) -> None:
        """Creates or replaces, as it is."""

    def remove(self, manifest: Object) -> None:
        """It is gone, at once."""


class DictStore:
    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Object] = {}

    def list(self, kind: str) -> list[Object]:
        return [o for (k, _, _), o in sorted(self.objects.items()) if k == kind]

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        return self.objects.get((kind, namespace, name))

    def put(self, manifest: Object) -> None:
        metadata = manifest["metadata"]
        self.objects[manifest["kind"], metadata["namespace"], metadata["name"]] = manifest

    def remove(self, manifest: Object) -> None:
        metadata = manifest["metadata"]
        self.objects.pop((manifest["kind"], metadata["namespace"], metadata["name"]), None)


@dataclass(frozen=True)
class Behaviour:
    """What becomes of a model at a URI."""

    reason: contract.FailureReason | None = None
    digest: str = DIGEST
    beside: contract.FailureReason | None = None
    """What becomes of it as a candidate beside another model."""


@dataclass(frozen=True)
class Server:
    """The model server of one pod."""

    key: str = ""
    """The public key that its environment tells it to trust."""
    plan: contract.Plan | None = None
    raw: bytes = b""
    stages: Mapping[str, int] = field(default_factory=dict)
    """By revision, as are the failures."""
    serial: int = 1
    failures: Mapping[str, contract.FailureReason] = field(default_factory=dict)
    plan_error: str = ""

    def stage(self, model: contract.PlannedModel) -> int:
        return self.stages.get(model.revision, 0)

    @property
    def fatal(self) -> contract.FailureReason | None:
        """The process ends when all that it was to hold has failed."""
        models = self.plan.models if self.plan else ()
        failed = [self.failures[m.revision] for m in models if m.revision in self.failures]
        return failed[0] if failed and len(failed) == len(models) else None


@dataclass
class World:
    store: Store
    nodes: Mapping[str, int] = field(default_factory=lambda: {"n1": 8})
    """GPUs by node."""
    cores: int = 1000
    """Pods that the CPUs of all nodes together are enough for."""
    models: dict[str, Behaviour] = field(default_factory=dict)
    """By URI; a model that is not named loads."""
    uneven: bool = False
    """Some pods are three times as slow to start as others."""
    second: int = 0
    servers: dict[str, Server] = field(default_factory=dict)
    """By pod uid."""
    made: int = 0

    @property
    def now(self) -> datetime:
        return at(self.second)

    # -------------------------------------------------------------------------------------------- what is seen
    def pods(self, pod_set: str | None = None) -> list[Object]:
        return [p for p in self.store.list("Pod") if pod_set in {None, p["metadata"]["labels"][names.LABEL_POD_SET]}]

    def reports(self) -> dict[str, contract.Report]:
        return {uid: report(s) for uid, s in self.servers.items() if s.plan or s.plan_error}

    def seen(self) -> tuple[Object, ...]:
        """All objects: whoever changes one here puts another in its place."""
        return tuple(o for kind in ("Deployment", "Pod", "Service", "ConfigMap") for o in self.store.list(kind))

    # -------------------------------------------------------------------------------------------- what happens
    def tick(self, seconds: int = 1) -> None:
        for _ in range(seconds):
            self.second += 1
            self._deployments()
            self._garbage()
            self._schedule()
            for pod in self.pods():
                self._kubelet(pod)

    def push(self, pod_uid: str, raw: bytes, signature: str) -> None:
        """A plan reaches a server's admin port."""
        if server := self.servers.get(pod_uid):
            self.servers[pod_uid] = _offered(server, raw, signature)

    def delete_pod(self, pod: Object) -> None:
        if not pod["metadata"].get("deletionTimestamp"):
            gone = copy.deepcopy(pod)
            gone["metadata"]["deletionTimestamp"] = stamp(self.second + DRAIN)
            _set_ready(gone, ready=False, second=self.second)
            self.store.put(gone)

    def crash(self, pod: Object, exit_code: int = 139, message: str = "") -> None:
        """The container ends and is started again."""
        if not pod["spec"].get("nodeName") or not pod["status"].get("containerStatuses"):
            return
        crashed = copy.deepcopy(pod)
        status = crashed["status"]["containerStatuses"][0]
        ended = {"exitCode": exit_code, "reason": "Error", "message": message, "finishedAt": stamp(self.second)}
        status |= {"lastState": {"terminated": ended}, "restartCount": status["restartCount"] + 1}
        _set_ready(crashed, ready=False, second=self.second)
        self.store.put(crashed)
        old = self.servers.get(crashed["metadata"]["uid"])
        self.servers[crashed["metadata"]["uid"]] = Server(_key(pod), serial=old.serial + 1 if old else 1)

    # -------------------------------------------------------------------------------------------- controllers
    def _deployments(self) -> None:
        for deployment in self.store.list("Deployment"):
            if deployment["metadata"].get("deletionTimestamp"):
                continue
            pod_set, wanted = deployment["metadata"]["name"], deployment["spec"]["replicas"]
            mine = [p for p in self.pods(pod_set) if not _leaving(p)]
            for _ in range(wanted - len(mine)):
                self._create_pod(deployment)
            # The ReplicaSet controller's order: pending before running, unready before ready, younger before older.
            rank = sorted(mine, key=lambda p: (bool(p["spec"].get("nodeName")), _is_ready(p), -_number(p)))
            for pod in rank[: max(0, len(mine) - wanted)]:
                self.delete_pod(pod)
            if len(mine) == wanted:
                self._roll(deployment, mine)

    def _roll(self, deployment: Object, mine: list[Object]) -> None:
        """One by one, should the template have changed: whoever takes a revision away can bring that about."""
        containers = deployment["spec"]["template"]["spec"]["containers"]
        old = sorted((p for p in mine if p["spec"]["containers"] != containers), key=_is_ready)
        if old and (not _is_ready(old[0]) or all(_is_ready(p) for p in mine)):
            self.delete_pod(old[0])

    def _create_pod(self, deployment: Object) -> None:
        self.made += 1
        template = deployment["spec"]["template"]
        name = f"{deployment['metadata']['name']}-{self.made:04d}"
        metadata = {
            "name": name,
            "namespace": deployment["metadata"]["namespace"],
            "uid": f"pod-{self.made}",
            "labels": template["metadata"]["labels"],
            "creationTimestamp": stamp(self.second),
            "ownerReferences": [{"kind": "Deployment", "name": deployment["metadata"]["name"], "controller": True}],
        }
        spec = {"containers": template["spec"]["containers"], "volumes": template["spec"]["volumes"]}
        status = {"phase": "Pending", "conditions": []}
        self.store.put({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status})

    def _garbage(self) -> None:
        alive = {d["metadata"]["name"] for d in self.store.list("Deployment")}
        for pod in self.pods():
            if pod["metadata"]["ownerReferences"][0]["name"] not in alive:
                self.delete_pod(pod)

    def _schedule(self) -> None:
        for pod in self.pods():
            if pod["spec"].get("nodeName") or pod["metadata"].get("deletionTimestamp"):
                continue
            wanted, placed = gpus_of(pod), copy.deepcopy(pod)
            node = next((n for n in sorted(self.nodes) if self.free(n) >= wanted), None)
            crowded = sum(bool(p["spec"].get("nodeName")) and not _ended(p) for p in self.pods()) >= self.cores
            if node and not crowded:
                placed["spec"]["nodeName"] = node
            _set_scheduled(
                placed, placed["spec"].get("nodeName"), self.second, f"Insufficient {'cpu' if crowded else GPU}"
            )
            if placed != pod:
                self.store.put(placed)

    def free(self, node: str) -> int:
        held = sum(gpus_of(p) for p in self.pods() if p["spec"].get("nodeName") == node and not _ended(p))
        return self.nodes[node] - held

    # -------------------------------------------------------------------------------------------- node
    def _kubelet(self, pod: Object) -> None:
        uid, deletion = pod["metadata"]["uid"], pod["metadata"].get("deletionTimestamp")
        if deletion and (not pod["spec"].get("nodeName") or deletion <= stamp(self.second)):
            self.store.remove(pod)
            self.servers.pop(uid, None)
        elif pod["spec"].get("nodeName") and not deletion and not _ended(pod):
            self._run(pod, self.servers.get(uid))

    def _run(self, pod: Object, server: Server | None) -> None:
        uid = pod["metadata"]["uid"]
        if server is None:
            self.servers[uid] = Server(_key(pod))
            self._set_running(pod)
            return
        server = self._mounted(pod, server)
        slow = self.uneven and (self.second + _number(pod)) % (1 + _number(pod) % 3)
        moved = server if slow else self._serve(server)
        self.servers[uid] = moved
        if moved.fatal:
            self.crash(pod, contract.EXIT_MODEL_FAILED, contract.Failure(moved.fatal, "it broke").encode().decode())
        elif ready(moved) != _is_ready(pod):
            changed = copy.deepcopy(pod)
            _set_ready(changed, ready=ready(moved), second=self.second)
            self.store.put(changed)

    def _set_running(self, pod: Object) -> None:
        running = copy.deepcopy(pod)
        state = {"running": {"startedAt": stamp(self.second)}}
        status = {"name": names.CONTAINER, "ready": False, "restartCount": 0, "state": state}
        running["status"] |= {"phase": "Running", "podIP": "198.18.0.9", "containerStatuses": [status]}
        _set_ready(running, ready=False, second=self.second)
        self.store.put(running)

    def _mounted(self, pod: Object, server: Server) -> Server:
        """A container finds the plan as it is when it starts; later changes come late."""
        if server.plan is not None and self.second % MOUNT_LAG:
            return server
        name = next(v["configMap"]["name"] for v in pod["spec"]["volumes"] if v["name"] == "plan")
        config = self.store.get("ConfigMap", pod["metadata"]["namespace"], name)
        if config is None:
            return server
        return _offered(server, config["data"][contract.PLAN_KEY].encode(), config["data"][contract.SIGNATURE_KEY])

    def _serve(self, server: Server) -> Server:
        for model in server.plan.models if server.plan else ():
            server = self._bring_up(server, model)
        return server

    def _bring_up(self, server: Server, model: contract.PlannedModel) -> Server:
        stage = server.stage(model)
        if stage >= len(STAGES) - 1 or model.revision in server.failures:
            return server
        behaviour = self.models.get(model.uri, Behaviour())
        if stage == 1:
            wrong = contract.FailureReason.DIGEST_MISMATCH if model.digest not in {None, behaviour.digest} else None
            beside = behaviour.beside if model.role is contract.Role.CANDIDATE else None
            if failure := behaviour.reason or beside or wrong:
                failures = {**server.failures, model.revision: failure}
                return replace(server, failures=failures, serial=server.serial + 1)
        return replace(server, stages={**server.stages, model.revision: stage + 1}, serial=server.serial + 1)


def _offered(server: Server, raw: bytes, signature: str) -> Server:
    """A plan that is older or of a stranger is refused."""
    try:
        contract.verify(raw, signature, server.key)
    except contract.ContractError as error:
        told = str(error)
        return server if told == server.plan_error else replace(server, plan_error=told, serial=server.serial + 1)
    plan = contract.Plan.decode(raw)
    if server.plan and server.plan.generation >= plan.generation:
        return server
    held = {model.revision for model in plan.models}
    stages = {name: stage for name, stage in server.stages.items() if name in held}
    failures = {name: failure for name, failure in server.failures.items() if name in held}
    return replace(
        server, plan=plan, raw=raw, stages=stages, failures=failures, serial=server.serial + 1, plan_error=""
    )


def _key(pod: Object) -> str:
    env = pod["spec"]["containers"][0]["env"]
    return str(next(entry["value"] for entry in env if entry["name"] == contract.ENV_PLAN_PUBLIC_KEY))


def ready(server: Server) -> bool:
    required = [m for m in server.plan.models if m.role is contract.Role.REQUIRED] if server.plan else []
    return bool(required) and all(_state(server, model) is ModelState.READY for model in required)


def _state(server: Server, model: contract.PlannedModel) -> ModelState:
    """Nothing is served before the plan pins the digest."""
    if model.revision in server.failures:
        return ModelState.FAILED
    done = server.stage(model) == len(STAGES) - 1
    return ModelState.READY if done and model.digest else STAGES[server.stage(model)]


def _reported(server: Server, model: contract.PlannedModel) -> contract.ModelReport:
    state = _state(server, model)
    digest = model.digest or DIGEST if state in {ModelState.LOADED, ModelState.READY} else None
    failure = server.failures.get(model.revision)
    return contract.ModelReport(model.name, model.revision, model.version, state, digest, None, failure)


def report(server: Server) -> contract.Report:
    models = tuple(_reported(server, model) for model in server.plan.models) if server.plan else ()
    generation = server.plan.generation if server.plan else 0
    return contract.Report(server.serial, ready(server), generation, server.plan_error, models)


def gpus_of(pod: Object) -> int:
    """No GPU for what a real API server would not have taken."""
    resources = pod["spec"]["containers"][0].get("resources")
    limits = resources.get("limits") if isinstance(resources, dict) else None
    return int(limits.get(GPU, 0)) if isinstance(limits, dict) else 0


def _number(pod: Object) -> int:
    return int(pod["metadata"]["name"].rsplit("-", 1)[1])


def _ended(pod: Object) -> bool:
    return pod["status"].get("phase") in {"Failed", "Succeeded"}


def _leaving(pod: Object) -> bool:
    return bool(pod["metadata"].get("deletionTimestamp")) or _ended(pod)


def _is_ready(pod: Object) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"]["conditions"])


def _set_condition(pod: Object, condition: Object, second: int) -> None:
    others = [c for c in pod["status"]["conditions"] if c["type"] != condition["type"]]
    old: Object = next((c for c in pod["status"]["conditions"] if c["type"] == condition["type"]), {})
    since = old.get("lastTransitionTime") if old.get("status") == condition["status"] else stamp(second)
    pod["status"]["conditions"] = [*others, {**condition, "lastTransitionTime": since}]


def _set_ready(pod: Object, *, ready: bool, second: int) -> None:
    _set_condition(pod, {"type": "Ready", "status": str(ready)}, second)


def _set_scheduled(pod: Object, node: str | None, second: int, lacks: str) -> None:
    condition: Object = {"type": "PodScheduled", "status": str(bool(node))}
    if node is None:
        message = f"0/1 nodes are available: 1 {lacks}."
        condition |= {"reason": "Unschedulable", "message": message}
    _set_condition(pod, condition, second)
