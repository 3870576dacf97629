"""The model server's container: image, environment of the contract, probes, resources."""

from __future__ import annotations

from typing import Any

from modelpier_operator import names
from modelpier_operator.api.quantity import quantity_value
from modelpier_operator.api.v1alpha1 import ModelDeploymentSpec
from modelpier_operator.decide.facts import Manifest
from modelpier_operator.desired.volumes import CA_DIR, CA_KEY, disk, mounts
from modelpier_operator.settings import PlanKeys, Settings
from modelpier_server import contract


def container(
    md: Manifest, spec: ModelDeploymentSpec, image: str, settings: Settings, keys: PlanKeys
) -> dict[str, Any]:
    return {
        "name": names.CONTAINER,
        "image": image,
        "imagePullPolicy": settings.image_pull_policy,
        "env": _environment(md, spec, settings, keys),
        "ports": [
            {"name": "http", "containerPort": contract.HTTP_PORT, "protocol": "TCP"},
            {"name": "grpc", "containerPort": contract.GRPC_PORT, "protocol": "TCP"},
            {"name": "admin", "containerPort": contract.ADMIN_PORT, "protocol": "TCP"},
        ],
        "volumeMounts": mounts(spec, settings),
        "resources": _resources(spec),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "terminationMessagePath": contract.TERMINATION_LOG,
        "terminationMessagePolicy": "File",
        # Started means ready: until then only its own time-out ends a long download or load.
        "startupProbe": _probe(contract.READY_PATH, 1, 2, spec.server.startup_timeout_seconds),
        "readinessProbe": _probe(contract.READY_PATH, 2, 2, 2),
        "livenessProbe": _probe(contract.LIVE_PATH, 10, 5, 3),
    }


def drain_limit(spec: ModelDeploymentSpec) -> int:
    """Seconds that requests in flight get at a pod's end: an answer that is still in time is not cut off."""
    return max(int(contract.DRAIN_LIMIT_SECONDS), spec.server.limits.request_timeout_seconds)


def _environment(md: Manifest, spec: ModelDeploymentSpec, settings: Settings, keys: PlanKeys) -> list[dict[str, Any]]:
    values = {
        contract.ENV_PLAN_FILE: f"{contract.PLAN_DIR}/{contract.PLAN_KEY}",
        contract.ENV_PLAN_PUBLIC_KEY: keys.public,
        contract.ENV_OWNER_UID: md["metadata"]["uid"],
        contract.ENV_MODEL_DIR: contract.MODEL_DIR,
        contract.ENV_MODEL_STORAGE: str(int(quantity_value(spec.resources.model_storage))),
        contract.ENV_CREDENTIALS_DIR: contract.CREDENTIALS_DIR,
        contract.ENV_PVC_DIR: contract.PVC_DIR,
        contract.ENV_DRAIN_LIMIT: str(drain_limit(spec)),
        contract.ENV_TERMINATION_LOG: contract.TERMINATION_LOG,
        **{name: settings.proxy_env[name] for name in sorted(settings.proxy_env)},
    }
    if settings.ca_config_map:
        values["SSL_CERT_FILE"] = f"{CA_DIR}/{CA_KEY}"
    return [{"name": name, "value": value} for name, value in values.items() if value]


def _resources(spec: ModelDeploymentSpec) -> dict[str, Any]:
    """Memory is not overcommitted: a model that is killed for another's sake helps nobody."""
    wanted = spec.resources
    both = {"memory": wanted.memory, "ephemeral-storage": disk(spec)}
    if wanted.gpu:
        both[wanted.gpu_resource] = str(wanted.gpu)
    limits = dict(both)
    if wanted.cpu_limit:
        limits["cpu"] = wanted.cpu_limit
    return {"requests": {"cpu": wanted.cpu, **both}, "limits": limits}


def _probe(path: str, period: int, timeout: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "http", "scheme": "HTTP"},
        "periodSeconds": period,
        "timeoutSeconds": timeout,
        "failureThreshold": failures,
    }
