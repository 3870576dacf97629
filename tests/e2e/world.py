"""What the end-to-end tests do with a cluster: apply, look, wait with a deadline, send requests. Used through
conftest's fixtures."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from modelpier_operator.api.conditions import Reason

Manifest = dict[str, Any]
Manifests = list[Manifest]
"""A name of its own: inside of `World` a list is its method."""
T = TypeVar("T")


@dataclass(frozen=True)
class Store:
    """An S3-compatible store: `endpoint` as pods and tests reach it."""

    endpoint: str
    access_key: str
    secret_key: str
    bucket: str = "models"

    def client(self) -> Any:
        import boto3  # noqa: PLC0415 - only tests that upload pay for the import

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
        )

    def upload(self, path: Path, key: str) -> str:
        """The object's uri."""
        client = self.client()
        if self.bucket not in [b["Name"] for b in client.list_buckets()["Buckets"]]:
            client.create_bucket(Bucket=self.bucket)
        client.upload_file(str(path), self.bucket, key)
        return f"s3://{self.bucket}/{key}"


@dataclass(frozen=True)
class World:
    kubectl_path: str
    kubeconfig: str
    store: Store
    system_namespace: str = "modelpier-system"

    def kubectl(self, *args: str, stdin: str | None = None, check: bool = True) -> str:
        done = subprocess.run(
            [self.kubectl_path, f"--kubeconfig={self.kubeconfig}", *args],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"kubectl {' '.join(args)}: {done.stderr.strip()}")
        return done.stdout

    def apply(self, *manifests: Manifest, namespace: str) -> None:
        text = "\n---\n".join(json.dumps(m) for m in manifests)
        self.kubectl("apply", "-n", namespace, "--server-side", "--force-conflicts", "-f", "-", stdin=text)

    def list(self, kind: str, namespace: str, selector: str = "") -> Manifests:
        raw = self.kubectl("get", kind, "-n", namespace, "-o", "json", *(("-l", selector) if selector else ()))
        items: Manifests = json.loads(raw)["items"]
        return items

    def get(self, kind: str, name: str, namespace: str) -> Manifest | None:
        raw = self.kubectl("get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found")
        found: Manifest | None = json.loads(raw) if raw.strip() else None
        return found

    def md(self, name: str, namespace: str) -> Manifest:
        return self.get("modeldeployments.modelpier.dev", name, namespace) or {}

    def pods(self, name: str, namespace: str) -> Manifests:
        return self.list("pods", namespace, f"modelpier.dev/deployment={name}")

    def wait(self, look: Callable[[], T | Literal[False] | None], what: str, seconds: float = 90.0) -> T:
        """The first true value of `look()`; AssertionError with its last value at the deadline."""
        end, value = time.monotonic() + seconds, look()
        while not value:
            if time.monotonic() > end:
                raise AssertionError(f"waited {seconds:g} s for {what}; last seen: {value!r}")
            time.sleep(0.2)
            value = look()
        return value

    def wait_ready(self, name: str, namespace: str, *, version: str | None = None, seconds: float = 120.0) -> Manifest:
        def look() -> Manifest | None:
            md = self.md(name, namespace)
            current = md.get("status", {}).get("observedGeneration") == md.get("metadata", {}).get("generation")
            right = version is None or md.get("status", {}).get("version") == version
            return md if current and right and condition(md, "Ready").get("status") == "True" else None

        try:
            return self.wait(look, f"{namespace}/{name} to be ready", seconds)
        except AssertionError as error:
            status = json.dumps(self.md(name, namespace).get("status"), indent=1)
            pods = self.kubectl("get", "pods", "-n", namespace, "-o", "wide")
            raise AssertionError(f"{error}\n{status}\n{pods}") from error

    def wait_told(self, name: str, namespace: str, reason: str, *words: str, seconds: float = 90.0) -> Manifest:
        """Waits until Ready=False and Degraded=True both say `reason`, with all `words` (the cause) and what to do."""

        def look() -> Manifest | None:
            md = self.md(name, namespace)
            told = {kind: condition(md, kind) for kind in ("Ready", "Degraded")}
            right = all(
                c.get("reason") == reason and all(w in c["message"] for w in (*words, Reason(reason).remedy))
                for c in told.values()
            )
            statuses = [c.get("status") for c in told.values()]
            return md if right and statuses == ["False", "True"] else None

        try:
            return self.wait(look, f"{namespace}/{name} to tell {reason}: {', '.join(words)}", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{json.dumps(self.md(name, namespace).get('status'), indent=1)}") from error

    def service_url(self, name: str, namespace: str) -> str:
        service = self.get("service", name, namespace)
        assert service, f"no Service {namespace}/{name}"
        return f"http://{service['spec']['clusterIP']}"


def condition(md: Manifest, kind: str) -> Manifest:
    found = [c for c in md.get("status", {}).get("conditions", []) if c["type"] == kind]
    return found[0] if found else {}


def post(url: str, body: Any, timeout: float = 30.0) -> tuple[int, Any]:
    """Status and decoded JSON answer; no retries."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def model_deployment(name: str, uri: str, **spec: Any) -> Manifest:
    """`spec` sections are merged over a small CPU default."""
    model = {"uri": uri, "credentialsSecret": "s3", **spec.pop("model", {})}
    model = {k: v for k, v in model.items() if v is not None}
    resources = {"cpu": "100m", "memory": "512Mi", "modelStorage": "1Gi", **spec.pop("resources", {})}
    return {
        "apiVersion": "modelpier.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "spec": {"model": model, "resources": resources, **spec},
    }
