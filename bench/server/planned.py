"""A signed plan for our server, as the operator would write it: for options that have no flag. Used by contestants."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from modelpier_server import contract
from modelpier_server.contract import Options, Plan, PlannedModel

OWNER = "bench"
KEY = bytes(32)
"""It guards nothing: whoever can write the plan here could replace the server, too."""


def environment(folder: Path, models: Mapping[str, Path], options: Options) -> dict[str, str]:
    """Writes the plan below `folder`; returns the variables that make a server follow it."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = Plan(OWNER, 1, tuple(_model(name, path, options) for name, path in models.items())).encode()
    (folder / contract.PLAN_KEY).write_bytes(raw)
    (folder / contract.SIGNATURE_KEY).write_text(contract.sign(raw, KEY))
    public = Ed25519PrivateKey.from_private_bytes(KEY).public_key().public_bytes_raw()
    return {
        contract.ENV_PLAN_FILE: str(folder / contract.PLAN_KEY),
        contract.ENV_PLAN_PUBLIC_KEY: base64.b64encode(public).decode(),
        contract.ENV_OWNER_UID: OWNER,
        contract.ENV_TERMINATION_LOG: str(folder / "termination-log"),
        contract.ENV_CREDENTIALS_DIR: str(folder / "credentials"),
    }


def _model(name: str, path: Path, options: Options) -> PlannedModel:
    digest = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    return PlannedModel(name, f"{name}-1", "1", path.as_uri(), digest, options=options)
