"""What every object of ours carries: name, labels, owner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelpier_operator import names
from modelpier_operator.decide.address import all_pods
from modelpier_operator.decide.facts import Manifest

APP = "modelpier-server"


def labels(md: Manifest, **more: str) -> dict[str, str]:
    return {
        names.LABEL_MANAGED_BY: names.MANAGED_BY,
        names.LABEL_NAME: APP,
        **all_pods(md),
        **more,
    }


def metadata(
    md: Manifest,
    name: str,
    extra_labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Deleting the ModelDeployment deletes the object: Kubernetes' garbage collector sees to it, no finalizer."""
    made: dict[str, Any] = {
        "name": name,
        "namespace": md["metadata"]["namespace"],
        "labels": labels(md, **(extra_labels or {})),
        "ownerReferences": [
            {
                "apiVersion": names.API_VERSION,
                "kind": names.KIND,
                "name": md["metadata"]["name"],
                "uid": md["metadata"]["uid"],
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }
    if annotations:
        made["annotations"] = dict(annotations)
    return made
