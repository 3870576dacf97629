"""What a server's container finds in its file system. The root is read-only; whatever it writes to has a limit."""

from __future__ import annotations

from math import ceil
from typing import Any
from urllib.parse import urlsplit

from modelpier_operator.api.quantity import normalise_quantity, quantity_value
from modelpier_operator.api.v1alpha1 import ModelDeploymentSpec
from modelpier_operator.settings import Settings
from modelpier_server import contract

PLAN = "plan"
"""Its ConfigMap's name is no part of the frozen template."""
TMP_MEBIBYTES = 64
_LOG_MEBIBYTES = 192
CA_DIR = "/etc/modelpier/ca"
CA_KEY = "ca.crt"


def claim(spec: ModelDeploymentSpec) -> str | None:
    """The PersistentVolumeClaim in `pvc://CLAIM/PATH`."""
    uri = urlsplit(spec.model.uri)
    return uri.netloc if uri.scheme == "pvc" and uri.netloc else None


def disk(spec: ModelDeploymentSpec) -> str:
    """ephemeral-storage: models, /tmp and the container's log."""
    mebibytes = ceil(quantity_value(spec.resources.model_storage) / 1024**2)
    return normalise_quantity(f"{mebibytes + TMP_MEBIBYTES + _LOG_MEBIBYTES}Mi")


def volumes(spec: ModelDeploymentSpec, settings: Settings) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": PLAN, "configMap": {}},
        {"name": "models", "emptyDir": {"sizeLimit": spec.resources.model_storage}},
        {"name": "tmp", "emptyDir": {"sizeLimit": f"{TMP_MEBIBYTES}Mi"}},
    ]
    if spec.model.credentials_secret:
        found.append({"name": "credentials", "secret": {"secretName": spec.model.credentials_secret}})
    if name := claim(spec):
        found.append({"name": "claim", "persistentVolumeClaim": {"claimName": name, "readOnly": True}})
    if settings.ca_config_map:
        items = [{"key": CA_KEY, "path": CA_KEY}]
        found.append({"name": "ca", "configMap": {"name": settings.ca_config_map, "items": items}})
    return found


def mounts(spec: ModelDeploymentSpec, settings: Settings) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": PLAN, "mountPath": contract.PLAN_DIR, "readOnly": True},
        {"name": "models", "mountPath": contract.MODEL_DIR},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the container's own
    ]
    if secret := spec.model.credentials_secret:
        found.append({"name": "credentials", "mountPath": f"{contract.CREDENTIALS_DIR}/{secret}", "readOnly": True})
    if name := claim(spec):
        found.append({"name": "claim", "mountPath": f"{contract.PVC_DIR}/{name}", "readOnly": True})
    if settings.ca_config_map:
        found.append({"name": "ca", "mountPath": CA_DIR, "readOnly": True})
    return found
