"""Signatures of plans: Ed25519 over the bytes of PLAN_KEY; the operator makes them, every server checks them."""

from __future__ import annotations

import base64
from functools import lru_cache
from typing import TYPE_CHECKING

from modelpier_server.contract.decoding import ContractError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def sign(plan: bytes, private_key: bytes) -> str:
    """Base64 signature of a plan's bytes by a raw 32-byte Ed25519 private key."""
    return base64.b64encode(_private(private_key).sign(plan)).decode()


def verify(plan: bytes, signature: str, public_key: str) -> None:
    """Raises ContractError unless `signature` (base64) is the one of `public_key` (base64, raw) over `plan`."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key, validate=True))
        key.verify(base64.b64decode(signature, validate=True), plan)
    except (InvalidSignature, ValueError) as error:
        raise ContractError("plan signature: not made by this deployment's operator over these bytes") from error


@lru_cache(1)
def _private(raw: bytes) -> Ed25519PrivateKey:
    """To take the key apart costs as much as a signature: an operator signs with one, thousands of times."""
    from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415 - keeps `contract` importable without it

    return ed25519.Ed25519PrivateKey.from_private_bytes(raw)
