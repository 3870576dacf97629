"""All names, labels and annotations that the operator puts on objects, in one place: capped, hashed, documented.

A name is never parsed: what an object is stands in its labels.
"""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

GROUP = "modelpier.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "ModelDeployment"
PLURAL = "modeldeployments"
FIELD_MANAGER = "modelpier-operator"

LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGED_BY = "modelpier"
LABEL_NAME = "app.kubernetes.io/name"
LABEL_DEPLOYMENT = f"{GROUP}/deployment"
"""Name of the ModelDeployment."""
LABEL_POD_SET = f"{GROUP}/pod-set"
"""Name of the pod set: on its Deployment, its plan and its pods."""
LABEL_POD_SET_HASH = f"{GROUP}/pod-set-hash"
ANNOTATION_REVISION = f"{GROUP}/revision"
"""On a pod set's Deployment and plan: the ControllerRevision that it serves."""
ANNOTATION_CANDIDATE = f"{GROUP}/candidate"
"""On a pod set's plan: the ControllerRevision that its pods hold beside that one, in a Swap."""
LABEL_REVISION_HASH = f"{GROUP}/revision-hash"
"""On ControllerRevisions."""

ANNOTATION_APPLIED = f"{GROUP}/applied"
"""Hash of the manifest as it was last applied: a change of what is wanted is seen without comparing every field."""
ANNOTATION_PROMOTED = f"{GROUP}/promoted"
"""On a ControllerRevision: RFC 3339 time at which it last took the production weight."""
ANNOTATION_STARTED = f"{GROUP}/started"
"""On a ControllerRevision: RFC 3339 time at which its rollout began."""
ANNOTATION_FAILED = f"{GROUP}/failed"
"""On a ControllerRevision: the reason for which its rollout was given up."""
ANNOTATION_STRATEGY = f"{GROUP}/strategy"
"""On a ControllerRevision: the strategy that the planner chose, and why."""
ANNOTATION_DIGEST = f"{GROUP}/digest"
"""On a ControllerRevision: the digest pinned at the first load."""
ANNOTATION_SELECTED = f"{GROUP}/selected"
"""On the Service: RFC 3339 time at which its selector was written as it is."""

CONTAINER = "server"
"""Name of the model server's container."""

LABEL_VALUE_LIMIT = 63
DNS_LABEL_LIMIT = 63


def digest(value: Any, length: int = 10) -> str:
    """First `length` hexadecimal digits of the sha256 of canonical JSON: sorted keys, no blanks, UTF-8."""
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()[:length]


def capped(stem: str, suffix: str, limit: int = DNS_LABEL_LIMIT) -> str:
    """`stem-suffix`, at most `limit` characters: a stem that is too long is cut and marked with a hash of itself."""
    room = limit - len(suffix) - 1
    if len(stem) <= room:
        return f"{stem}-{suffix}"
    mark = hashlib.sha256(stem.encode()).hexdigest()[:6]
    return f"{stem[: room - 7].rstrip('-.')}-{mark}-{suffix}"


def revision_name(deployment: str, revision_hash: str) -> str:
    return capped(deployment, revision_hash)


def pod_set_name(deployment: str, pod_set_hash: str, ordinal: int) -> str:
    # ReplicaSets append a hyphen and up to 10 characters, pods 6 more, and a pod's hostname is a DNS label.
    return capped(deployment, f"{pod_set_hash}-{ordinal}", DNS_LABEL_LIMIT - 17)


def plan_name(pod_set: str) -> str:
    return f"{pod_set}-plan"


def label_value(name: str) -> str:
    """A ModelDeployment's name (up to 253 characters) as a label value (up to 63)."""
    if len(name) <= LABEL_VALUE_LIMIT:
        return name
    return capped(name[:-1], hashlib.sha256(name.encode()).hexdigest()[:6], LABEL_VALUE_LIMIT)
