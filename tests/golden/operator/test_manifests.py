"""All objects of a ModelDeployment, whole, as people would read them: a change of any field shows in a diff."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from modelpier_operator.decide.facts import Observed
from modelpier_operator.judge import judge
from support.builders import DIGEST, KEYS, T0, md, settings

HERE = Path(__file__).parent
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
}


@pytest.mark.parametrize("case", CASES)
def test_manifests(case: str, refresh: bool) -> None:
    spec, administrator = CASES[case]
    outcome = judge(Observed(md(**spec)), settings(**administrator), KEYS, T0)
    text = yaml.dump_all(outcome.children, Dumper=Plain, sort_keys=False, width=120)
    path = HERE / f"{case}.yaml"
    if refresh:
        path.write_text(text)
    assert path.read_text() == text, "if this is meant: pytest tests/golden --refresh-golden"


class Plain(yaml.SafeDumper):
    """Without anchors: each object stands for itself."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
