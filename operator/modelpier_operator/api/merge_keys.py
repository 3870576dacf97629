"""By which field the lists of a pod template are merged: `validation` demands it, `desired.merge` uses it."""

from __future__ import annotations

from collections.abc import Mapping

MERGED_BY: Mapping[str, str] = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ports": "containerPort",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
}
"""patchMergeKey of the lists in PodSpec and Container; other lists are replaced as a whole."""
