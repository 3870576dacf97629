"""A serving plan: which revisions a pod holds. The operator writes it, its pods read it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from modelpier_server.contract import decoding
from modelpier_server.contract.options import Options, read_options
from modelpier_server.contract.states import Role

LARGEST_SHARE = 100
"""Percent."""


@dataclass(frozen=True)
class PlannedModel:
    """One revision of one model that a pod must hold."""

    name: str
    """The name in URLs."""
    revision: str
    version: str
    uri: str
    digest: str | None = None
    """`sha256:<64 hex>` of the file, or of the sorted listing of a folder; None: nothing is served before it is
    pinned."""
    weight: int = 100
    """Share of the requests that name no version, in proportion to the others of the name; of a shadow: percent of
    their answered requests, 0 to 100."""
    role: Role = Role.REQUIRED
    credentials: str | None = None
    """Name of the folder below CREDENTIALS_DIR."""
    options: Options = Options()


@dataclass(frozen=True)
class Plan:
    owner_uid: str
    generation: int
    models: tuple[PlannedModel, ...]
    pod_set: str = ""
    """Name of the pod set that it is for; empty: of none, for a server that was started by hand."""

    def encode(self) -> bytes:
        """Canonical JSON: sorted keys, no blanks. Equal plans have equal bytes."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, raw: bytes | str) -> Plan:
        """Raises ContractError naming the field."""
        data = decoding.mapping(decoding.parse(raw, "plan"), "plan")
        return cls(
            owner_uid=decoding.text(data, "owner_uid", "plan"),
            generation=decoding.whole(data, "generation", "plan", low=1),
            models=tuple(_model(m, f"plan.models[{i}]") for i, m in enumerate(decoding.array(data, "models", "plan"))),
            pod_set="" if data.get("pod_set", "") == "" else decoding.text(data, "pod_set", "plan"),
        )


def _model(value: Any, where: str) -> PlannedModel:
    data = decoding.mapping(value, where)
    role = decoding.member(Role, data, "role", where)
    weight = decoding.whole(data, "weight", where, default=100)
    if role is Role.SHADOW and weight > LARGEST_SHARE:
        raise decoding.ContractError(f"{where}.weight: must be from 0 to {LARGEST_SHARE} for a shadow: percent")
    return PlannedModel(
        name=decoding.text(data, "name", where),
        revision=decoding.text(data, "revision", where),
        version=decoding.text(data, "version", where),
        uri=decoding.text(data, "uri", where),
        digest=decoding.digest(data, where),
        weight=weight,
        role=role,
        credentials=decoding.optional_text(data, "credentials", where),
        options=read_options(data.get("options") or {}, f"{where}.options"),
    )
