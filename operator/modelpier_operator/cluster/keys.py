"""The Ed25519 pair that signs serving plans: kept in one Secret in the operator's own namespace. Used by `process`.

The first leader makes it; a Secret that is there is used as it is, so that two operators never hold different keys.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from modelpier_operator.cluster import errors
from modelpier_operator.cluster.client import MANAGER, Api
from modelpier_operator.cluster.kinds import SECRET
from modelpier_operator.names import LABEL_MANAGED_BY, MANAGED_BY
from modelpier_operator.settings import PlanKeys, Settings

ENTRY = "ed25519"
"""Key in the Secret's data: the raw 32 bytes of the private key."""


class PlanKeyError(ValueError):
    """The Secret holds no usable key; the text names it and the remedy."""


async def load(api: Api, settings: Settings) -> PlanKeys:
    """Reads the Secret, or creates it once. Raises ApiError, PlanKeyError, NotLeaderError."""
    key = settings.operator_namespace, settings.plan_key_secret
    try:
        secret: Mapping[str, Any] = await api.get(SECRET.item(key))
    except errors.NotFoundError:
        secret = await _create(api, *key)
    return pair(_private(secret, key[1]))


async def _create(api: Api, namespace: str, name: str) -> Mapping[str, Any]:
    private = Ed25519PrivateKey.generate().private_bytes_raw()
    manifest = {
        "apiVersion": SECRET.api_version,
        "kind": SECRET.kind,
        "metadata": {"name": name, "namespace": namespace, "labels": {LABEL_MANAGED_BY: MANAGED_BY}},
        "type": "modelpier.dev/plan-key",
        "immutable": True,
        "data": {ENTRY: base64.b64encode(private).decode()},
    }
    try:
        return await api.write("POST", SECRET.collection(namespace), manifest, query=MANAGER)
    except errors.AlreadyExistsError:
        return await api.get(SECRET.item((namespace, name)))


def _private(secret: Mapping[str, Any], name: str) -> bytes:
    try:
        private = base64.b64decode((secret.get("data") or {})[ENTRY], validate=True)
    except (KeyError, binascii.Error) as error:
        raise PlanKeyError(f"Secret {name}: data.{ENTRY} is missing or not base64: delete the Secret") from error
    if len(private) != 32:
        raise PlanKeyError(f"Secret {name}: data.{ENTRY} must be 32 bytes, has {len(private)}: delete the Secret")
    return private


def pair(private: bytes) -> PlanKeys:
    public = Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return PlanKeys(private=private, public=base64.b64encode(public).decode())
