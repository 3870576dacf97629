"""What neither the schema nor CEL can say of a spec, and what pydantic says, in one form: for `judge`, as SpecInvalid.

Nothing here is reached by a manifest that the API server refused before. Pure; each check gives the field, what is
wrong with it and what to write instead.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import ValidationError

from modelpier_operator import names
from modelpier_operator.api import rules
from modelpier_operator.api.labels import LABEL_REMEDY, is_label_key, is_subdomain
from modelpier_operator.api.merge_keys import MERGED_BY
from modelpier_operator.api.quantity import QuantityError, normalise_quantity
from modelpier_operator.api.v1alpha1 import ModelDeploymentSpec, Toleration


@dataclass(frozen=True)
class Fault:
    """A field that cannot be used."""

    field: str
    """Path from the object's root, such as spec.model.uri."""
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" + (f"; {self.remedy}" if self.remedy else "")


def faults(name: str, spec: ModelDeploymentSpec) -> tuple[Fault, ...]:
    """Of a ModelDeployment's name and parsed spec; empty when all is well."""
    resources = spec.resources
    return (
        *(() if rules.NAME.holds(name) else (Fault(rules.NAME.field, rules.NAME.message),)),
        *_uri(spec.model.uri),
        *_keys("spec.resources.nodeSelector", resources.node_selector),
        *_toleration_keys(resources.tolerations),
        *_template("spec.resources.podTemplate", resources.pod_template or {}),
    )


def from_error(error: ValidationError) -> tuple[Fault, ...]:
    """What pydantic says, with the fields as users write them."""
    found = []
    for part in error.errors(include_url=False, include_input=False):
        where = [str(key) for key in part["loc"]]
        if part["type"] == "rule":
            where.append(part["ctx"]["field"])
        found.append(Fault(".".join(("spec", *where)), part["msg"]))
    return tuple(found)


# ------------------------------------------------------------------------------------------------ model.uri
def _uri(uri: str) -> Iterator[Fault]:
    where = "spec.model.uri"
    if not uri.isprintable():
        yield Fault(where, "holds characters that cannot be printed", "copy it again without them")
    scheme, _, rest = uri.partition("://")
    if scheme == "pvc" and not is_subdomain(claim := rest.partition("/")[0]):
        yield Fault(where, f"{claim} is no name of a PersistentVolumeClaim", "write pvc://CLAIM/PATH")
    if scheme in {"http", "https"}:
        yield from _url(where, uri)
    if _has_empty_or_dots(scheme, rest):
        yield Fault(where, 'the path must have no empty, "." or ".." part', "write it without them")


def _url(where: str, uri: str) -> Iterator[Fault]:
    try:
        parts = urlsplit(uri)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        yield Fault(where, f"not a URL: {error}", "write https://HOST[:PORT]/PATH")
        return
    if not host:
        yield Fault(where, "names no host", "write https://HOST[:PORT]/PATH")
    if unquote(parts.path).endswith("/"):
        yield Fault(where, "HTTP cannot list a folder", "name the .onnx file")


def _has_empty_or_dots(scheme: str, rest: str) -> bool:
    path = rest.partition("/")[2]
    if scheme in {"http", "https"}:
        path = re.split("[?#]", path)[0]
    if scheme in {"http", "https", "file"}:
        path = unquote(path)
    return any(part in {"", ".", ".."} or "\0" in part for part in path.removesuffix("/").split("/"))


# ------------------------------------------------------------------------------------------------ labels
def _toleration_keys(tolerations: Iterable[Toleration]) -> Iterator[Fault]:
    for index, toleration in enumerate(tolerations):
        if toleration.key and not is_label_key(toleration.key):
            yield Fault(f"spec.resources.tolerations.{index}.key", "is no key of a taint", LABEL_REMEDY)


def _keys(where: str, labels: Mapping[str, Any]) -> Iterator[Fault]:
    for key in labels:
        if not is_label_key(key):
            yield Fault(f"{where}.{key}", "is no key of a label", LABEL_REMEDY)


# ------------------------------------------------------------------------------------------------ podTemplate
def _template(where: str, template: Mapping[str, Any]) -> Iterator[Fault]:
    """As far as it matters to the operator, which merges it: the API server judges the pod."""
    for part in ("metadata", "spec"):
        if part in template and not isinstance(template[part], Mapping):
            yield Fault(f"{where}.{part}", "must be an object", "write it as in a pod, or leave it out")
            return
    metadata, spec = template.get("metadata") or {}, template.get("spec") or {}
    for kind in ("labels", "annotations"):
        if metadata.get(kind) is not None:
            yield from _own_labels(f"{where}.metadata.{kind}", metadata[kind])
    for kind in ("containers", "volumes"):
        if kind in spec and spec[kind] is None:
            yield Fault(f"{where}.spec.{kind}", "cannot be removed", "leave it out")
            return
    for kind in ("containers", "initContainers"):
        if spec.get(kind) is not None:
            yield from _containers(f"{where}.spec.{kind}", spec[kind])
    yield from _volumes(f"{where}.spec.volumes", spec.get("volumes", []))
    yield from _lists(f"{where}.spec", spec, skipped={"containers", "initContainers", "volumes"})


def _own_labels(where: str, values: Any) -> Iterator[Fault]:
    if not isinstance(values, Mapping):
        yield Fault(where, "must be an object", "write KEY: VALUE")
        return
    yield from _keys(where, values)
    for key in values:
        if key.partition("/")[0] == names.GROUP:
            yield Fault(f"{where}.{key}", "belongs to the operator", "remove it")


def _lists(where: str, owner: Mapping[str, Any], skipped: Collection[str] = ()) -> Iterator[Fault]:
    """Of what is merged by keys: their entries must have them. `null` takes a list away."""
    for field in owner.keys() & MERGED_BY.keys() - skipped:
        entries, key = owner[field], MERGED_BY[field]
        if entries is None:
            continue
        if not isinstance(entries, list) or not all(isinstance(e, Mapping) and e.get(key) for e in entries):
            yield Fault(f"{where}.{field}", f"must be a list of objects with {key}")


def _containers(where: str, containers: Any) -> Iterator[Fault]:
    if not isinstance(containers, list) or not all(isinstance(c, Mapping) and c.get("name") for c in containers):
        yield Fault(where, "must be a list of containers with names", f"call the model server's {names.CONTAINER}")
        return
    for index, container in enumerate(containers):
        if container["name"] == names.CONTAINER and "image" in container and not container["image"]:
            yield Fault(f"{where}.{index}.image", "cannot be removed", "leave it out")
        yield from _amounts(f"{where}.{index}.resources", container.get("resources") or {})
        yield from _lists(f"{where}.{index}", container)


def _volumes(where: str, volumes: Any) -> Iterator[Fault]:
    if not isinstance(volumes, list) or not all(isinstance(v, Mapping) and v.get("name") for v in volumes):
        yield Fault(where, "must be a list of volumes with names")
        return
    for index, volume in enumerate(volumes):
        empty = volume.get("emptyDir")
        if isinstance(empty, Mapping) and empty.get("sizeLimit") is not None:
            yield from _amount(f"{where}.{index}.emptyDir.sizeLimit", empty["sizeLimit"])


def _amounts(where: str, resources: Any) -> Iterator[Fault]:
    if not isinstance(resources, Mapping):
        yield Fault(where, "must be an object", "write requests and limits")
        return
    for kind in ("requests", "limits"):
        amounts = resources.get(kind) or {}
        if not isinstance(amounts, Mapping):
            yield Fault(f"{where}.{kind}", "must be an object", "write cpu: 500m, memory: 2Gi")
            continue
        for name, amount in amounts.items():
            yield from _amount(f"{where}.{kind}.{name}", amount)


def _amount(where: str, amount: Any) -> Iterator[Fault]:
    try:
        normalise_quantity(amount)
    except QuantityError as error:
        yield Fault(where, str(error))
