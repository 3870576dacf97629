"""Specs of ModelDeployments for tests: the smallest one with changes, and strategies of valid and of broken ones."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

URI = "s3://models/resnet50/model.onnx"
API_VERSION = "modelpier.dev/v1alpha1"


def smallest(**sections: Any) -> dict[str, Any]:
    """`sections` replace the ones of the smallest spec."""
    return {"model": {"uri": URI}, **sections}


def deployment(name: str = "resnet50", **sections: Any) -> dict[str, Any]:
    """A manifest."""
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": smallest(**sections),
    }


def _some(required: dict[str, Any] | None = None, **optional: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(required or {}, optional=optional)


_names = st.from_regex(r"[a-z]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
_seconds = st.integers(1, 86400)
_quantities = st.sampled_from(["1", "500m", "1.5", "4", "1024Mi", "2Gi", "0.5Gi", "1500M", "7k", "12345678"])
_remote = st.sampled_from(
    [URI, "s3://models/resnet50/", "hf://org/repo@v1/onnx/model.onnx", "https://host:1/a/m.onnx?x=1"]
)
_local = st.sampled_from(["pvc://claim/model.onnx", "pvc://a.b/c/", "file:///models/a.onnx"])
_model_parts: dict[str, Any] = {
    "version": st.sampled_from(["1", "v2.0", "2024-01-01_a"]),
    "digest": st.just("sha256:" + "a1" * 32),
    "tests": _some(enabled=st.booleans(), relativeTolerance=st.floats(0, 1), absoluteTolerance=st.floats(0, 1)),
}
_models = st.one_of(
    _some({"uri": _remote}, credentialsSecret=_names, **_model_parts), _some({"uri": _local}, **_model_parts)
)
_servers: dict[str, Any] = {
    "instances": st.integers(0, 256),
    "threads": st.integers(0, 256),
    "batching": _some(enabled=st.booleans(), maxRows=st.integers(1, 65536), maxDelayMicroseconds=st.integers(0, 10**6)),
    "limits": _some(
        maxQueue=st.integers(1, 10**6),
        requestTimeoutSeconds=_seconds,
        maxBodyBytes=st.integers(1024, 1 << 31),
        maxQueueWaitMilliseconds=st.integers(0, 86_400_000),
        priorityLevels=st.integers(1, 16),
        runTimeoutSeconds=st.integers(0, 86400),
    ),
    "startupTimeoutSeconds": _seconds,
    "image": st.just("registry.example/server:1"),
    "imagePullSecrets": st.lists(_names, max_size=3, unique=True),
    "serviceAccountName": _names,
    "runtimeUpgrade": st.sampled_from(["Manual", "Auto"]),
    "hooks": st.booleans(),
    "customOperators": st.lists(
        st.sampled_from(["a.so", "ops/custom.so", "v1.2/lib-x+y_z.so"]), max_size=3, unique=True
    ),
    "graphOptimization": st.sampled_from(["Disabled", "Basic", "Extended", "All"]),
}
_tolerations = st.one_of(
    _some({"key": _names}, value=_names, effect=st.just("NoSchedule")),
    _some({"operator": st.just("Exists")}, key=_names),
    _some({"key": _names, "effect": st.just("NoExecute")}, tolerationSeconds=st.integers(0, 1000)),
)
_resources: dict[str, Any] = {
    "cpu": _quantities,
    "memory": _quantities,
    "modelStorage": _quantities,
    "nodeSelector": st.dictionaries(_names, st.one_of(_names, st.just("")), max_size=3),
    "tolerations": st.lists(_tolerations, max_size=3),
    "priorityClassName": _names,
    "runtimeClassName": _names,
    "podTemplate": _some(
        metadata=_some(labels=st.dictionaries(_names, _names, max_size=2)),
        spec=st.just({"volumes": [{"name": "scratch", "emptyDir": {}}]}),
    ),
}
_rollouts = st.one_of(
    _some(strategy=st.sampled_from(["Auto", "Surge", "Swap", "Replace"]), revisionHistoryLimit=st.integers(0, 100)),
    st.tuples(_seconds, _seconds)
    .filter(lambda pair: pair[0] < pair[1])
    .map(lambda pair: {"capacityWaitSeconds": pair[0], "progressDeadlineSeconds": pair[1]}),
)
_labels = st.dictionaries(_names, st.one_of(_names, st.just("")), max_size=2)
_requirements = st.one_of(
    _some({"key": _names, "operator": st.sampled_from(["Exists", "DoesNotExist"])}, values=st.just([])),
    st.fixed_dictionaries(
        {
            "key": st.builds(lambda prefix, name: f"{prefix}/{name}", _names, _names),
            "operator": st.sampled_from(["In", "NotIn"]),
            "values": st.lists(_names, min_size=1, max_size=2),
        }
    ),
)
_selectors = _some(matchLabels=_labels, matchExpressions=st.lists(_requirements, max_size=2))
_peers = st.one_of(
    _some({"podSelector": _selectors}, namespaceSelector=_selectors),
    st.fixed_dictionaries({"namespaceSelector": _selectors}),
    st.sampled_from(
        [
            {"ipBlock": {"cidr": "198.18.0.0/15", "except": ["198.18.0.0/16", "198.19.255.255/32"]}},
            {"ipBlock": {"cidr": "0.0.0.0/0", "except": []}},
            {"ipBlock": {"cidr": "2001:DB8::/32", "except": ["2001:db8:1::/48"]}},
            {"ipBlock": {"cidr": "::/0"}},
            {"ipBlock": {"cidr": "64:ff9b::198.18.0.0/112"}},
        ]
    ),
)
_access = st.fixed_dictionaries({}, optional={"from": st.lists(_peers, max_size=3)})


def _provider(*kinds: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    return st.lists(
        _some(
            {"name": st.sampled_from([f"{kind}ExecutionProvider" for kind in kinds])},
            options=st.dictionaries(_names, st.text("abc123", max_size=5), max_size=2),
        ),
        min_size=1,
        max_size=2,
        unique_by=lambda provider: provider["name"],
    )


_placed = st.one_of(
    st.tuples(
        _some(**_servers, executionProviders=_provider("CPU", "OpenVINO")),
        _some(**_resources),
    ),
    st.tuples(_some(**_servers), _some({"gpu": st.integers(1, 64)}, **_resources)),
    st.tuples(
        _some({"executionProviders": _provider("CUDA", "Tensorrt")}, **_servers),
        _some(
            {"gpu": st.integers(1, 64)},
            gpuResource=st.sampled_from(["nvidia.com/gpu", "nvidia.com/mig-1g.10gb", "amd.com/gpu"]),
            **_resources,
        ),
    ),
)
spec_values: st.SearchStrategy[dict[str, Any]] = st.builds(
    lambda model, placed, rest: {"model": model, "server": placed[0], "resources": placed[1], **rest},
    _models,
    _placed,
    _some(replicas=st.integers(0, 10000), rollout=_rollouts, access=_access),
)
"""Specs that are accepted."""

NO_RANGES = (
    "",
    "198.18.0.1",
    "198.18.0.1/16",
    "198.18.0.0/33",
    "198.18.0.0/016",
    "198.18.0/24",
    "198.018.0.0/16",
    "198.18.0.0/255.255.0.0",
    "example.org/24",
    "2001:db8::1/32",
    "::ffff:198.18.0.0/112",
    "::ffff:c612:0/112",
    "fe80::%1/64",
    "1::2::/64",
    "::/129",
    ":::/1",
)
"""What no `cidr` may be."""
NO_PARTS = ("198.18.0.0/16", "198.18.0.0/15", "198.19.0.0/24", "2001:db8::/32", "198.18.1.1/24", "198.18.1.1")
"""What may not be left out of 198.18.0.0/16."""
NO_LIBRARIES = (
    *("", ".so", "a", "a.so.1", "/a.so", "../a.so", "a/../b.so", "./a.so", "a//b.so", "a.so\n", "a\0.so", "a/.so"),
    *("ä.so", "a b.so", "a\\b.so", "a/" * 127 + "b.so"),
)
"""What is no path of a library below a model's folder."""
_BREAKS: tuple[tuple[str, Any], ...] = (
    (
        "model.uri",
        st.sampled_from(["", "model.onnx", "ftp://a/b", "s3://", "s3://b", "s3://bucket/", "s3:///key", "S3://bb/k"]),
    ),
    (
        "model.uri",
        st.sampled_from(["hf://org/repo", "hf://org//x", "pvc://Claim/x", "pvc://claim", "file://host/x", "file:///"]),
    ),
    (
        "model.uri",
        st.sampled_from(["https://host", "https://host/", "https://me:pw@host/x", "https://host/a/", "http:/x/y"]),
    ),
    (
        "model.uri",
        st.sampled_from(
            ["s3://bucket/a/../b", "s3://bucket/a//b", "pvc://claim/.", " s3://bucket/a", "s3://bucket/a\n"]
        ),
    ),
    ("model.version", st.sampled_from(["", "-a", "a b", "a" * 64])),
    ("model.digest", st.sampled_from(["sha256:abc", "a1" * 32])),
    ("model.credentialsSecret", st.sampled_from(["", "UPPER", "a" * 254])),
    ("model.name", st.just("x")),
    ("model.tests.relativeTolerance", st.sampled_from([-0.1, 1e7, "1"])),
    ("model.tests.absoluteTolerance", st.sampled_from([-0.1, 1e7, "1"])),
    ("model.tests.enabled", st.sampled_from([1, "true"])),
    ("server.instances", st.sampled_from([-1, 257, "1", 1.5])),
    ("server.batching.maxRows", st.sampled_from([0, 65537])),
    ("server.batching.mask", st.just("attention_mask")),
    ("server.batching.padding", st.just({"input_ids": 0})),
    ("server.batching.maxDelayMicroseconds", st.sampled_from([-1, 1_000_001])),
    ("server.limits.maxQueueWaitMilliseconds", st.sampled_from([-1, 86_400_001])),
    ("server.limits.priorityLevels", st.sampled_from([0, 17])),
    ("server.limits.maxBodyBytes", st.sampled_from([0, (1 << 31) + 1])),
    ("server.image", st.just("")),
    ("server.imagePullSecrets", st.just(["a", "a"])),
    ("server.executionProviders", st.just([{"name": "CPUExecutionProvider"}, {"name": "CPUExecutionProvider"}])),
    ("server.executionProviders", st.just([{"name": "cuda"}])),
    ("server.runtimeUpgrade", st.just("auto")),
    ("server.graphOptimization", st.just("all")),
    ("server.hooks", st.sampled_from([1, "true"])),
    (
        "server.customOperators",
        st.sampled_from(["a.so", [1], ["a.so", "a.so"], [f"{number}.so" for number in range(9)]]),
    ),
    ("server.customOperators", st.sampled_from(NO_LIBRARIES).map(lambda path: [path])),
    ("resources.gpu", st.sampled_from([-1, 65, "1"])),
    (
        "resources.gpuResource",
        st.sampled_from(["gpu", "kubernetes.io/gpu", "a.kubernetes.io/gpu", "requests.x/gpu", "/x"]),
    ),
    ("resources.cpu", st.sampled_from(["0", "0m", "0.000", "-1", "1 ", "1e3", "1Pi", "", "9" * 16, "1234567Gi"])),
    ("resources.cpuLimit", st.sampled_from(["1m", "0"])),
    ("resources.memory", st.sampled_from(["0Gi", "lots", 2])),
    ("resources.nodeSelector", st.sampled_from([{"a": "-"}, {"a": "b" * 64}, {"a": 1}])),
    ("resources.tolerations", st.sampled_from([[{}], [{"operator": "Exists", "key": "a", "value": "b"}]])),
    ("resources.tolerations", st.sampled_from([[{"operator": "In"}], [{"key": "a", "tolerationSeconds": 3}]])),
    ("resources.podTemplate", st.sampled_from([{"kind": "Pod"}, {"metadata": {"name": "x"}}, {"spec": []}])),
    ("replicas", st.sampled_from([-1, 10001, "1"])),
    ("rollout.strategy", st.just("surge")),
    ("rollout", st.just({"capacityWaitSeconds": 900})),
    ("rollout.capacityWaitSeconds", st.sampled_from([0, 86401])),
    ("rollout.paused", st.just(True)),
    (
        "access.from",
        st.sampled_from(
            [[{}], [{"podSelector": {}, "ipBlock": {"cidr": "::/0"}}], [{"podSelector": {}}] * 33, [{"a": 1}]]
        ),
    ),
    (
        "access.from",
        st.sampled_from(
            [
                [{"podSelector": {"matchExpressions": [{"key": key, "operator": operator, "values": values}]}}]
                for key, operator, values in (
                    ("a", "In", []),
                    ("a", "Exists", ["b"]),
                    ("a", "in", ["b"]),
                    ("a b", "Exists", []),
                    ("A.b/c", "Exists", []),
                    ("a", "NotIn", ["-"]),
                )
            ]
        ),
    ),
    ("access.from", st.sampled_from([[{"namespaceSelector": {"matchLabels": {"a": value}}}] for value in ("-", 1)])),
    ("access.from", st.sampled_from(NO_RANGES).map(lambda cidr: [{"ipBlock": {"cidr": cidr}}])),
    (
        "access.from",
        st.sampled_from(NO_PARTS).map(lambda part: [{"ipBlock": {"cidr": "198.18.0.0/16", "except": [part]}}]),
    ),
    ("access.to", st.just([])),
    ("autoscaling", st.just({})),
)


def _broken(spec: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    head, _, rest = path.partition(".")
    return {**spec, head: _broken(spec.get(head) or {}, rest, value) if rest else value}


broken_values: st.SearchStrategy[dict[str, Any]] = st.sampled_from(_BREAKS).flatmap(
    lambda fault: st.builds(lambda spec, value: _broken(spec, fault[0], value), spec_values, fault[1])
)
"""Specs with one field that is refused."""
