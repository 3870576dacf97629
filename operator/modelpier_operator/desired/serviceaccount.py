"""The identity of the pods: an account without any rights or token, unless the user names one of their own."""

from __future__ import annotations

from typing import Any

from modelpier_operator import names
from modelpier_operator.decide.facts import Manifest
from modelpier_operator.desired.metadata import metadata


def name(md: Manifest) -> str:
    return names.capped(md["metadata"]["name"], "server", 253)


def service_account(md: Manifest) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(md, name(md)),
        "automountServiceAccountToken": False,
    }
