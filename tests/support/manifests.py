"""ModelDeployments whose manifests are looked at whole: as golden files, and by a real API server."""

from __future__ import annotations

from typing import Any

from support.builders import DIGEST

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "smallest": ({}, {}),
    "gpu": (
        {
            "gpu": 2,
            "replicas": 3,
            "model": {
                "uri": "hf://org/encoder/model.onnx",
                "version": "7",
                "digest": DIGEST,
                "credentialsSecret": "hf",
            },
            "resources": {
                "memory": "1.5Gi",
                "cpuLimit": "2500m",
                "nodeSelector": {"zone": "a"},
                "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
                "priorityClassName": "high",
                "runtimeClassName": "nvidia",
            },
        },
        {"image_pull_secrets": ("registry",), "proxy_env": {"HTTPS_PROXY": "http://proxy.example:3128"}},
    ),
    "claim-and-own-account": (
        {
            "model": {"uri": "pvc://models/m.onnx"},
            "server": {
                "serviceAccountName": "identity",
                "image": "registry.example/own:9",
                "startupTimeoutSeconds": 60,
            },
        },
        {"ca_config_map": "ca", "image_pull_policy": "Always"},
    ),
    "pod-template": (
        {
            "resources": {
                "podTemplate": {
                    "metadata": {"annotations": {"team": "vision"}, "labels": {"tier": "gold"}},
                    "spec": {
                        "hostNetwork": True,
                        "containers": [
                            {"name": "server", "resources": {"limits": {"memory": "4096Mi"}}},
                            {"name": "sidecar", "image": "registry.example/sidecar:1"},
                        ],
                    },
                }
            }
        },
        {"allow_pod_overrides": True},
    ),
    "access": (
        {
            "access": {
                "from": [
                    {"podSelector": {"matchLabels": {"app": "shop"}, "matchExpressions": []}},
                    {
                        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}},
                        "podSelector": {
                            "matchExpressions": [
                                {"key": "app.kubernetes.io/name", "operator": "In", "values": ["prometheus", "agent"]},
                                {"key": "canary", "operator": "DoesNotExist"},
                            ]
                        },
                    },
                    {"namespaceSelector": {}, "podSelector": {"matchLabels": {"gateway": ""}}},
                    {"ipBlock": {"cidr": "198.18.0.0/16", "except": ["198.18.7.0/24"]}},
                    {"ipBlock": {"cidr": "2001:DB8::/32"}},
                ]
            }
        },
        {},
    ),
}
"""By name: what `builders.md` and `builders.settings` are given."""
