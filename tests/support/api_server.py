"""Plain HTTP to a test's API server: status codes and bodies as they come, for what a client library would hide."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from modelpier_cluster import ControlPlane

GROUP_PATH = "/apis/modelpier.dev/v1alpha1/namespaces/default/modeldeployments"
TIMEOUT = 30.0


@dataclass(frozen=True)
class Answer:
    code: int
    body: dict[str, Any]

    @property
    def message(self) -> str:
        return str(self.body.get("message", ""))

    @property
    def causes(self) -> dict[str, str]:
        """What is wrong, by field."""
        causes = (self.body.get("details") or {}).get("causes") or ()
        return {cause.get("field", ""): cause["message"] for cause in causes}


class ApiServer:
    """As the administrator; close() when done."""

    def __init__(self, control_plane: ControlPlane, folder: Path) -> None:
        authority = folder / "ca.crt"
        authority.write_text(control_plane.client.authority)
        self._url = control_plane.url
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy is meant for the outside world
        self._session.verify = str(authority)
        self._session.headers["Authorization"] = f"Bearer {control_plane.token}"

    def call(self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None) -> Answer:
        answer = self._session.request(
            method, self._url + path, json=body, headers=headers, timeout=TIMEOUT, allow_redirects=False
        )
        return Answer(answer.status_code, answer.json())

    def try_out(self, manifest: dict[str, Any]) -> Answer:
        """Would it be created? Unknown fields are refused, nothing is stored."""
        return self.call("POST", f"{GROUP_PATH}?dryRun=All&fieldValidation=Strict", manifest)

    def merge(self, path: str, patch: Any) -> Answer:
        return self.call("PATCH", path, patch, headers={"Content-Type": "application/merge-patch+json"})

    def close(self) -> None:
        self._session.close()
