"""What the operator's administrator decides: read once from the environment by `__main__`, passed down as a value.

The chart sets these variables; docs/reference/operator.md lists them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MOST_WORKERS = 256


class SettingsError(ValueError):
    """A variable that cannot be used; the text names it and the remedy."""


@dataclass(frozen=True)
class PlanKeys:
    """The Ed25519 pair that signs serving plans: raw 32 bytes, and the public half as base64."""

    private: bytes
    public: str


@dataclass(frozen=True)
class Settings:
    server_image: str
    """Image of pods that ask for no GPU."""
    server_image_gpu: str
    operator_namespace: str
    watch_namespaces: tuple[str, ...] = ()
    """Empty: all namespaces."""
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    """Names of Secrets that must exist in the namespace of the ModelDeployment."""
    cluster_domain: str = "cluster.local"
    allow_pod_overrides: bool = False
    plan_key_secret: str = "modelpier-plan-key"  # noqa: S105 - the name of a Secret
    proxy_env: Mapping[str, str] = field(default_factory=dict)
    """HTTP_PROXY, HTTPS_PROXY, NO_PROXY for the model servers' downloads."""
    ca_config_map: str | None = None
    """A ConfigMap with `ca.crt` that must exist in the namespace of the ModelDeployment."""
    lease_name: str = "modelpier-operator"
    lease_duration: float = 15.0
    renew_deadline: float = 10.0
    retry_period: float = 0.5
    workers: int = 16
    http_port: int = 8080
    """Probes and metrics of the operator itself."""
    log_level: str = "INFO"


def from_environment(env: Mapping[str, str]) -> Settings:
    """Raises SettingsError naming the variable."""
    duration = _seconds(env, "MODELPIER_LEASE_DURATION", 15.0)
    deadline = _seconds(env, "MODELPIER_RENEW_DEADLINE", 10.0)
    retry = _seconds(env, "MODELPIER_RETRY_PERIOD", 0.5)
    if not duration > deadline > retry:
        raise SettingsError(
            "MODELPIER_LEASE_DURATION, MODELPIER_RENEW_DEADLINE, MODELPIER_RETRY_PERIOD: each must be longer than the "
            f"next, or a lease runs out before it is renewed; they are {duration:g}, {deadline:g}, {retry:g} seconds"
        )
    return Settings(
        server_image=_required(env, "MODELPIER_SERVER_IMAGE"),
        server_image_gpu=env.get("MODELPIER_SERVER_IMAGE_GPU") or _required(env, "MODELPIER_SERVER_IMAGE"),
        operator_namespace=_required(env, "MODELPIER_NAMESPACE"),
        watch_namespaces=_list(env, "MODELPIER_WATCH_NAMESPACES"),
        image_pull_policy=_one_of(env, "MODELPIER_IMAGE_PULL_POLICY", ("IfNotPresent", "Always", "Never")),
        image_pull_secrets=_list(env, "MODELPIER_IMAGE_PULL_SECRETS"),
        cluster_domain=env.get("MODELPIER_CLUSTER_DOMAIN") or "cluster.local",
        allow_pod_overrides=_one_of(env, "MODELPIER_ALLOW_POD_OVERRIDES", ("false", "true")) == "true",
        plan_key_secret=env.get("MODELPIER_PLAN_KEY_SECRET") or "modelpier-plan-key",
        proxy_env=_mapping(env, "MODELPIER_PROXY_ENV"),
        ca_config_map=env.get("MODELPIER_CA_CONFIG_MAP") or None,
        lease_name=env.get("MODELPIER_LEASE_NAME") or "modelpier-operator",
        lease_duration=duration,
        renew_deadline=deadline,
        retry_period=retry,
        workers=_whole(env, "MODELPIER_WORKERS", 16, MOST_WORKERS),
        http_port=_whole(env, "MODELPIER_HTTP_PORT", 8080, 65535),
        log_level=_one_of(env, "MODELPIER_LOG_LEVEL", ("INFO", "DEBUG", "WARNING", "ERROR", "CRITICAL")),
    )


def _required(env: Mapping[str, str], name: str) -> str:
    if not (value := env.get(name)):
        raise SettingsError(f"{name}: must be set")
    return value


def _list(env: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(part for part in (p.strip() for p in env.get(name, "").split(",")) if part)


def _one_of(env: Mapping[str, str], name: str, allowed: tuple[str, ...]) -> str:
    value = env.get(name) or allowed[0]
    if value not in allowed:
        raise SettingsError(f"{name}: must be one of {', '.join(allowed)}, is {value!r}")
    return value


def _seconds(env: Mapping[str, str], name: str, default: float) -> float:
    try:
        value = float(env.get(name) or default)
    except ValueError as error:
        raise SettingsError(f"{name}: must be a number, is {env[name]!r}") from error
    if not 0 < value < float("inf"):
        raise SettingsError(f"{name}: must be greater than 0, is {value}")
    return value


def _whole(env: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = env.get(name) or str(default)
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= most:
        raise SettingsError(f"{name}: must be a whole number from 1 to {most}, is {text!r}")
    return int(text)


def _mapping(env: Mapping[str, str], name: str) -> Mapping[str, str]:
    try:
        value: Any = json.loads(env.get(name) or "{}")
    except ValueError as error:
        raise SettingsError(f"{name}: must be a JSON object: {error}") from error
    if not isinstance(value, dict):
        raise SettingsError(f"{name}: must be a JSON object")
    return {str(k): str(v) for k, v in value.items()}
