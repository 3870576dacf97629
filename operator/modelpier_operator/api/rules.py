"""Rules over more than one field, each said twice, side by side: as CEL for the API server and as Python for the types.

`v1alpha1` hangs them on its sections, `crd` writes the CEL into the CRD, so that `kubectl apply` is refused with the
message; the Python twin judges objects that were stored before a rule existed. A test holds both against one another.
CEL: https://kubernetes.io/docs/reference/using-api/cel/. Patterns are RE2 and Python's `re` alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from modelpier_operator.api.quantity import quantity_value


@dataclass(frozen=True)
class Rule:
    """`holds` gets the section as a pydantic object, `cel` as `self`."""

    field: str
    """Wire name below the section; with dots for a section below it."""
    message: str
    """What to write, in one sentence or two; the API server puts the field before it."""
    cel: str
    holds: Callable[[Any], bool]


def _uri(pattern: str, message: str, *, only: str = "", want: bool = True) -> Rule:
    """The URI must (not) match `pattern`, if it begins with `only`."""
    test = f"{'' if want else '!'}self.uri.matches(r'{pattern}')"
    compiled = re.compile(pattern)
    return Rule(
        "uri",
        message,
        f"!self.uri.startsWith('{only}') || {test}" if only else test,
        lambda model: not model.uri.startswith(only) or (compiled.search(model.uri) is not None) is want,
    )


MODEL = (
    _uri(
        "^(s3|hf|pvc|https?|file)://",
        "must begin with s3://, hf://, pvc://, https://, http:// or file://, as in s3://bucket/resnet50/model.onnx",
    ),
    _uri(
        "^s3://[A-Za-z0-9][A-Za-z0-9._-]{1,254}/[^/]",
        "write s3://BUCKET/KEY; endpoint, region and keys belong in the Secret of credentialsSecret",
        only="s3://",
    ),
    _uri(
        "^hf://[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}(@[^/]*)?/[^/]",
        "write hf://ORG/REPO[@REVISION]/PATH, as in hf://org/encoder@v1.2/onnx/model.onnx",
        only="hf://",
    ),
    _uri(
        "^pvc://[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/[^/]",
        "write pvc://CLAIM/PATH, where CLAIM is the name of a PersistentVolumeClaim in the same namespace",
        only="pvc://",
    ),
    _uri(
        "^https?://[^/?#@]+/[^/?#]",
        "write https://HOST/PATH, without user and password: these belong in the Secret of credentialsSecret",
        only="http",
    ),
    _uri(
        "^https?://[^?#]*/([?#]|$)",
        "HTTP cannot list a folder: name the .onnx file, or keep the folder in s3, hf, pvc or file",
        only="http",
        want=False,
    ),
    _uri("^file:///[^/]", "write file:///PATH with three slashes: an absolute path in the image", only="file://"),
    _uri(
        r"^[a-z0-9]+://[^/?]*/([^?]*/)?([.]{0,2}/|[.]{1,2}([?]|$))",
        'the path must have no empty, "." or ".." part',
        want=False,
    ),
    Rule(
        "credentialsSecret",
        "only s3, hf, https and http use credentials: remove it, or change model.uri",
        "!has(self.credentialsSecret) || self.uri.matches(r'^(s3|hf|https?)://')",
        lambda model: model.credentials_secret is None or bool(re.match("(s3|hf|https?)://", model.uri)),
    ),
)

BATCHING = (
    Rule(
        "mask",
        "names one of the inputs in padding: which one says what counts; write both or neither",
        "(!has(self.padding) || size(self.padding) == 0) ? (!has(self.mask) || self.mask == '') "
        ": has(self.mask) && self.mask in self.padding",
        lambda batching: batching.mask in batching.padding if batching.padding else not batching.mask,
    ),
)

SERVER = (
    Rule(
        "executionProviders",
        "names each provider once; merge the options of those that are named twice",
        "!has(self.executionProviders) || "
        "self.executionProviders.all(p, self.executionProviders.exists_one(q, q.name == p.name))",
        lambda server: _distinct([p.name for p in server.execution_providers]),
    ),
    Rule(
        "imagePullSecrets",
        "names each Secret once",
        "!has(self.imagePullSecrets) || self.imagePullSecrets.all(s, self.imagePullSecrets.exists_one(t, t == s))",
        lambda server: _distinct(server.image_pull_secrets),
    ),
    Rule(
        "customOperators",
        "names each library once",
        "!has(self.customOperators) || self.customOperators.all(s, self.customOperators.exists_one(t, t == s))",
        lambda server: _distinct(server.custom_operators),
    ),
)

TOLERATION = (
    Rule(
        "value",
        "operator Exists compares no value: remove value, or write operator Equal",
        "!has(self.operator) || self.operator != 'Exists' || !has(self.value) || self.value == ''",
        lambda toleration: toleration.operator != "Exists" or not toleration.value,
    ),
    Rule(
        "key",
        "a toleration without key must have operator Exists: it then tolerates every taint",
        "(has(self.key) && self.key != '') || (has(self.operator) && self.operator == 'Exists')",
        lambda toleration: bool(toleration.key) or toleration.operator == "Exists",
    ),
    Rule(
        "tolerationSeconds",
        "only effect NoExecute has tolerationSeconds: remove it, or write effect NoExecute",
        "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
        lambda toleration: toleration.toleration_seconds is None or toleration.effect == "NoExecute",
    ),
)


def _positive(name: str, attribute: str) -> Rule:
    return Rule(
        name,
        "must be more than 0",
        f"quantity(self.{name}).isGreaterThan(quantity('0'))",
        lambda resources: quantity_value(getattr(resources, attribute)) > 0,
    )


RESOURCES = (
    _positive("cpu", "cpu"),
    _positive("memory", "memory"),
    _positive("modelStorage", "model_storage"),
    Rule(
        "cpuLimit",
        "must not be less than resources.cpu, which is the request",
        "!has(self.cpuLimit) || quantity(self.cpuLimit).compareTo(quantity(self.cpu)) >= 0",
        lambda resources: (
            resources.cpu_limit is None or quantity_value(resources.cpu_limit) >= quantity_value(resources.cpu)
        ),
    ),
    Rule(
        "gpuResource",
        "must be an extended resource of a device plugin, such as nvidia.com/gpu; kubernetes.io names are not",
        "!self.gpuResource.matches(r'(^|[.])kubernetes[.]io/|^requests[.]')",
        lambda resources: not re.search(r"(^|[.])kubernetes[.]io/|^requests[.]", resources.gpu_resource),
    ),
)

ROLLOUT = (
    Rule(
        "capacityWaitSeconds",
        "must be less than rollout.progressDeadlineSeconds: the rollout would be given up before Auto chooses anew",
        "self.capacityWaitSeconds < self.progressDeadlineSeconds",
        lambda rollout: rollout.capacity_wait_seconds < rollout.progress_deadline_seconds,
    ),
)


def _network(text: str) -> IPv4Network | IPv6Network | None:
    """None for what is no range, or has bits set beyond its length: Kubernetes is about to refuse those."""
    try:
        network = ip_network(text)
    except ValueError:
        return None
    return None if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped else network


def _within(part: str, whole: str) -> bool:
    inner, outer = _network(part), _network(whole)
    if isinstance(inner, IPv4Network) and isinstance(outer, IPv4Network):
        return inner != outer and inner.subnet_of(outer)
    if isinstance(inner, IPv6Network) and isinstance(outer, IPv6Network):
        return inner != outer and inner.subnet_of(outer)
    return False


IP_BLOCK = (
    Rule(
        "cidr",
        "write the first address of a range and the length of its prefix, as in 10.0.0.0/8 or 2001:db8::/32",
        "isCIDR(self.cidr) && cidr(self.cidr) == cidr(self.cidr).masked()",
        lambda block: _network(block.cidr) is not None,
    ),
    Rule(
        "except",
        "each is a part of cidr, smaller than it and written in the same way, as 10.1.0.0/16 is of 10.0.0.0/8",
        "!has(self.except) || !isCIDR(self.cidr) || self.except.all(e, isCIDR(e) && cidr(e) == cidr(e).masked() && "
        "cidr(self.cidr).containsCIDR(e) && cidr(e).prefixLength() > cidr(self.cidr).prefixLength())",
        lambda block: all(_within(part, block.cidr) for part in block.except_),
    ),
)

REQUIREMENT = (
    Rule(
        "values",
        "operators In and NotIn need values, Exists and DoesNotExist have none",
        "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
        lambda requirement: (requirement.operator in {"In", "NotIn"}) == bool(requirement.values),
    ),
)

PEER = (
    Rule(
        "podSelector",
        "a peer without podSelector, namespaceSelector and ipBlock is nobody: write one of them",
        "has(self.podSelector) || has(self.namespaceSelector) || has(self.ipBlock)",
        lambda peer: any(part is not None for part in (peer.pod_selector, peer.namespace_selector, peer.ip_block)),
    ),
    Rule(
        "ipBlock",
        "stands alone: make a peer of its own for podSelector and namespaceSelector",
        "!has(self.ipBlock) || !(has(self.podSelector) || has(self.namespaceSelector))",
        lambda peer: peer.ip_block is None or (peer.pod_selector is None and peer.namespace_selector is None),
    ),
)

GPU_PROVIDERS = (
    "CUDAExecutionProvider",
    "TensorrtExecutionProvider",
    "NvTensorRTRTXExecutionProvider",
    "ROCMExecutionProvider",
    "MIGraphXExecutionProvider",
)
_GPU_LIST = ", ".join(f"'{name}'" for name in GPU_PROVIDERS)

SPEC = (
    Rule(
        "server.executionProviders",
        "names a provider that needs a GPU: set resources.gpu to 1 or more, or remove it",
        "self.resources.gpu > 0 || has(self.resources.podTemplate) || !has(self.server.executionProviders) || "
        f"!self.server.executionProviders.exists(p, p.name in [{_GPU_LIST}])",
        lambda spec: (
            spec.resources.gpu > 0
            or spec.resources.pod_template is not None
            or not any(p.name in GPU_PROVIDERS for p in spec.server.execution_providers)
        ),
    ),
    Rule(
        "server.executionProviders",
        "has a default for nvidia.com resources only: name the provider for resources.gpuResource",
        "self.resources.gpu == 0 || self.resources.gpuResource.startsWith('nvidia.com/') || "
        "(has(self.server.executionProviders) && self.server.executionProviders.size() > 0)",
        lambda spec: (
            spec.resources.gpu == 0
            or spec.resources.gpu_resource.startswith("nvidia.com/")
            or bool(spec.server.execution_providers)
        ),
    ),
)

NAME_PATTERN = "^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$"
NAME = Rule(
    "metadata.name",
    "becomes the name of a Service: at most 63 lower-case letters, digits and hyphens, a letter first (RFC 1035)",
    f"self.metadata.name.matches(r'{NAME_PATTERN}')",
    lambda name: re.fullmatch(NAME_PATTERN, name) is not None,
)
"""Since 1.36 Services may begin with a digit (RelaxedServiceNameValidation); older supported versions refuse it."""


def _distinct(values: list[str]) -> bool:
    return len(values) == len(set(values))
