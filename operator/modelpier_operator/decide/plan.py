"""Serving plans: what the servers of a pod set must hold, as signed bytes with a growing generation.

A plan's identity is (uid of the ModelDeployment, generation); the generation follows a hybrid clock, so that it grows
even when the ConfigMap was deleted and made again (docs/adr/0001).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from math import ceil

import orjson

from modelpier_operator.api.quantity import quantity_value
from modelpier_operator.api.v1alpha1 import ModelDeploymentSpec
from modelpier_operator.decide.facts import PlanPush
from modelpier_operator.decide.podset import Pod, PodSet
from modelpier_operator.decide.revision import Revision
from modelpier_operator.settings import PlanKeys
from modelpier_server import contract

_SIGNATURES_KEPT = 4096
_LONGEST_KEPT = 16 * 1024
"""Bytes of a plan whose signature is remembered: whoever may edit a ConfigMap must not be able to fill the operator's
memory."""
_LONGEST = 512 * 1024
"""Bytes of a plan that is looked at: a ConfigMap holds 1 MiB, and no plan of ours comes near."""
_GENERATION_LIMIT = 2**53
"""Milliseconds since 1970 stay below it for 285,000 years, and every JSON parser reads it exactly (RFC 8259, section
6); whatever is beyond was never written by an operator."""
LOADED = (contract.ModelState.LOADED, contract.ModelState.READY)


@dataclass(frozen=True)
class SignedPlan:
    generation: int
    raw: bytes
    signature: str
    trusted: bool = True
    """The servers of the set take it: they were made to trust the key that signed it."""


def signed(
    revision: Revision,
    pod_set: PodSet,
    identity: tuple[str, str],
    keys: PlanKeys,
    now: datetime,
    *,
    candidate: Revision | None = None,
) -> SignedPlan:
    """The plan of a pod set; the live one, byte for byte, while what it says is still right, and for as long as it can
    be kept where the servers trust another key than ours.

    `identity`: uid and name of the ModelDeployment.
    """
    ours = revision.plan_key == keys.public
    if not ours and (last := kept(revision, pod_set, identity)):
        return last
    text = _text(pod_set)
    live = _generation(text)
    models = [model(revision, identity[1])]
    if candidate:
        models.append(replace(model(candidate, identity[1]), weight=0, role=contract.Role.CANDIDATE))
    plan = contract.Plan(identity[0], live or 1, tuple(models), pod_set.name)
    raw = _encoded(plan)
    if not live or raw.decode() != text or live < _held(pod_set.pods):
        plan = replace(plan, generation=_next(live, pod_set.pods, now))
        raw = _encoded(plan)
    return SignedPlan(plan.generation, raw, _signature(raw, keys.private), trusted=ours)


def kept(revision: Revision, pod_set: PodSet | None, identity: tuple[str, str]) -> SignedPlan | None:
    """The plan in the cluster, if servers that trust the key of another time can go on with it, and start with it."""
    plan = _trusted(revision, pod_set, identity)
    if pod_set is None or plan is None or revision.digest is None:
        return None
    required = (m.digest for m in plan.models if m.revision == revision.name and m.role is contract.Role.REQUIRED)
    if next(required, None) != revision.digest:
        return None
    return SignedPlan(plan.generation, _text(pod_set).encode(), _data(pod_set)[contract.SIGNATURE_KEY])


def model(revision: Revision, name: str) -> contract.PlannedModel:
    spec = revision.spec
    return contract.PlannedModel(
        name=name,
        revision=revision.name,
        version=revision.version,
        uri=spec.model.uri,
        digest=revision.digest,
        credentials=spec.model.credentials_secret,
        options=_options(revision),
    )


def live_digest(revision: Revision, pod_set: PodSet | None, identity: tuple[str, str]) -> str | None:
    """The digest that the plan in the cluster pins already: pods serve it, whatever became of the revision's memory in
    a crash or by hand.
    """
    plan = _trusted(revision, pod_set, identity)
    return _digest(plan, revision, identity) if plan else None


def _trusted(revision: Revision, pod_set: PodSet | None, identity: tuple[str, str]) -> contract.Plan | None:
    """The plan in the cluster, if it is for the servers of the set, and signed with the key that they trust."""
    if pod_set is None or not revision.plan_key:
        return None
    signature = _data(pod_set).get(contract.SIGNATURE_KEY) or ""
    plan = _verified(_text(pod_set).encode(), signature, revision.plan_key)
    return plan if plan and (plan.owner_uid, plan.pod_set) == (identity[0], pod_set.name) else None


def _digest(plan: contract.Plan, revision: Revision, identity: tuple[str, str]) -> str | None:
    return next((m.digest for m in plan.models if (m.name, m.revision) == (identity[1], revision.name)), None)


def first_digest(revision: Revision, pod_set: PodSet | None) -> str | None:
    """The digest to pin: of the oldest pod that has loaded the model."""
    for pod in pod_set.pods if pod_set else ():
        report = model_report(pod, revision.name)
        if report and report.state in LOADED and report.digest:
            return report.digest
    return None


def failed(pod: Pod, revision: str) -> bool:
    report = model_report(pod, revision)
    return report is not None and report.state is contract.ModelState.FAILED


def model_report(pod: Pod, revision: str) -> contract.ModelReport | None:
    return next((m for m in pod.report.models if m.revision == revision), None) if pod.report else None


def pushes(pod_set: PodSet, plan: SignedPlan) -> tuple[PlanPush, ...]:
    """For every running server that has not confirmed this plan: a mounted ConfigMap lags by up to a minute."""
    behind = (p for p in pod_set.pods if p.running and not _holds(p, plan))
    return tuple(PlanPush(p.uid, p.ip, plan.raw, plan.signature) for p in behind)


def unsettled(pod_set: PodSet, plan: SignedPlan, candidate: Revision | None) -> tuple[tuple[str, str], ...]:
    """(uid, ip) of running pods whose report is still expected to change."""
    name = candidate.name if candidate else None
    return tuple((p.uid, p.ip) for p in pod_set.pods if p.running and not _settled(p, plan, name))


def _settled(pod: Pod, plan: SignedPlan, candidate: str | None) -> bool:
    if candidate is not None:
        report = model_report(pod, candidate)
        if report is None or report.state not in {contract.ModelState.READY, contract.ModelState.FAILED}:
            return False
    return pod.ready and bool(pod.report and pod.report.ready) and _holds(pod, plan)


def _holds(pod: Pod, plan: SignedPlan) -> bool:
    """Whether it holds this plan, or a newer one, or all that it will ever take."""
    return not plan.trusted or bool(pod.report and pod.report.generation >= plan.generation)


def _options(revision: Revision) -> contract.Options:
    server, tests = revision.spec.server, revision.spec.model.tests
    chosen = providers(revision)
    instances, threads = layout(revision.spec, on_cpu=chosen[0].name == "CPUExecutionProvider")
    return contract.Options(
        providers=chosen,
        instances=instances,
        threads=threads,
        isolated=server.isolated,
        hooks=server.hooks,
        custom_operators=tuple(server.custom_operators),
        graph_optimization=contract.GraphOptimization(server.graph_optimization.value),
        golden_tests=contract.GoldenTests(tests.enabled, tests.relative_tolerance, tests.absolute_tolerance),
        batching=contract.Batching(
            server.batching.enabled,
            server.batching.max_rows,
            server.batching.max_delay_microseconds / 1e6,
            dict(server.batching.padding),
            server.batching.mask,
        ),
        limits=contract.Limits(
            max_queue=server.limits.max_queue,
            max_queue_wait=server.limits.max_queue_wait_milliseconds / 1e3,
            priority_levels=server.limits.priority_levels,
            run_timeout=float(server.limits.run_timeout_seconds),
            request_timeout=float(server.limits.request_timeout_seconds),
            max_body_bytes=server.limits.max_body_bytes,
        ),
    )


def layout(spec: ModelDeploymentSpec, *, on_cpu: bool) -> tuple[int, int]:
    """(instances, threads of each). Where there is no limit a server would count the cores of its whole node, and run
    as many requests at once: memory for them was never asked for. So the request counts.
    """
    server, resources = spec.server, spec.resources
    if not on_cpu or resources.cpu_limit:
        return server.instances, server.threads
    cores = ceil(quantity_value(resources.cpu))
    if server.instances:
        return server.instances, server.threads or max(1, cores // server.instances)
    threads = server.threads or 1
    return max(1, cores // threads), threads


def providers(revision: Revision) -> tuple[contract.Provider, ...]:
    spec = revision.spec
    if spec.server.execution_providers:
        return tuple(contract.Provider(p.name, dict(p.options)) for p in spec.server.execution_providers)
    # Readiness refuses to fall back silently: the server insists on the first one.
    chosen = ("CUDAExecutionProvider", "CPUExecutionProvider") if spec.resources.gpu else ("CPUExecutionProvider",)
    return tuple(contract.Provider(name) for name in chosen)


def _next(live: int | None, pods: tuple[Pod, ...], now: datetime) -> int:
    return max((live or 0) + 1, _held(pods) + 1, int(now.timestamp() * 1000))


def _held(pods: tuple[Pod, ...]) -> int:
    """The newest generation that a server holds: it takes only what is newer still."""
    said = (p.report.generation for p in pods if p.report)
    return max((generation for generation in said if generation < _GENERATION_LIMIT), default=0)


def _encoded(plan: contract.Plan) -> bytes:
    """As `Plan.encode`, but in the order of fields and at a tenth of its cost: every pass encodes every plan."""
    return orjson.dumps(plan, option=orjson.OPT_SORT_KEYS)


def _generation(text: str) -> int | None:
    """None when there is no plan that can be read."""
    try:
        plan = orjson.loads(text)
    except ValueError:
        return None
    found = plan.get("generation") if isinstance(plan, dict) else None
    return found if isinstance(found, int) and 0 < found < _GENERATION_LIMIT else None


def _text(pod_set: PodSet) -> str:
    return _data(pod_set).get(contract.PLAN_KEY) or ""


def _data(pod_set: PodSet) -> Mapping[str, str]:
    data: Mapping[str, str] = (pod_set.plan or {}).get("data") or {}
    return data


def _verified(raw: bytes, signature: str, public: str) -> contract.Plan | None:
    if len(raw) > _LONGEST:
        return None
    verified = _verified_once if len(raw) <= _LONGEST_KEPT else _verified_once.__wrapped__
    return verified(raw, signature, public)


@lru_cache(_SIGNATURES_KEPT)
def _verified_once(raw: bytes, signature: str, public: str) -> contract.Plan | None:
    try:
        contract.verify(raw, signature, public)
        return contract.Plan.decode(raw)
    except contract.ContractError:
        return None


def _signature(raw: bytes, private: bytes) -> str:
    """Ed25519 is deterministic: what was signed once need not be signed again, whatever stands in the cluster."""
    signed = _signed_once if len(raw) <= _LONGEST_KEPT else _signed_once.__wrapped__
    return signed(raw, private)


@lru_cache(_SIGNATURES_KEPT)
def _signed_once(raw: bytes, private: bytes) -> str:
    return contract.sign(raw, private)
