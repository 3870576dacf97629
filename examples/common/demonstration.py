"""What the demonstrations share: a cluster by kubectl, models handed over, a rollout followed, a Service reached.

They need KUBECONFIG and a kubectl. With MODELPIER_S3_ENDPOINT (the local cluster has one) models go to object
storage; elsewhere a small file server in the cluster hands them out.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

Manifest = dict[str, Any]


class DemoError(SystemExit):
    """Ends the demonstration with one clear line."""


def arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parsed, with `kubectl` and `namespace` among them."""
    parser.add_argument("--namespace", default="default")
    parser.add_argument("--kubectl", default=os.environ.get("MODELPIER_KUBECTL") or shutil.which("kubectl"))
    args = parser.parse_args()
    if not args.kubectl:
        raise DemoError("no kubectl found: set MODELPIER_KUBECTL or put it into PATH")
    return args


def say(text: str) -> None:
    print(f"\n== {text}", flush=True)


def wait(look: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not look():
        if time.monotonic() > end:
            raise DemoError(f"waited {seconds:g} s for {what}")
        time.sleep(0.1)


def curl(url: str, body: Any) -> str:
    options = ["--silent", "--show-error", "--fail-with-body", "--noproxy", "*", "--max-time", "30"]
    done = subprocess.run(
        ["curl", *options, url, "--data-binary", "@-"],
        input=json.dumps(body),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise DemoError(f"curl {url}: {done.stderr.strip()} {done.stdout.strip()}")
    return done.stdout


class Cluster:
    def __init__(self, kubectl: str, namespace: str) -> None:
        self.kubectl_path, self.namespace = kubectl, namespace

    def kubectl(self, *args: str, stdin: str | bytes | None = None) -> str:
        command = [self.kubectl_path, "-n", self.namespace, *args]
        given = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(command, input=given, capture_output=True, timeout=180, check=False)
        if done.returncode:
            raise DemoError(f"kubectl {' '.join(args)}: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout.decode()

    def apply(self, *manifests: Manifest) -> None:
        text = "\n---\n".join(map(json.dumps, manifests))
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)

    def status(self, name: str) -> Manifest:
        status: Manifest = json.loads(self.kubectl("get", "md", name, "-o", "json")).get("status", {})
        return status

    def pods(self, name: str) -> int:
        return len(self.kubectl("get", "pods", "-l", f"modelpier.dev/deployment={name}", "-o", "name").split())

    def follow(self, name: str, version: str, tick: Callable[[], str] = lambda: "") -> None:
        """Prints each change of status until the version serves at full strength."""
        told, begin = "", time.monotonic()
        while time.monotonic() < begin + 300:
            status = self.status(name)
            conditions = {c["type"]: c for c in status.get("conditions", [])}
            ready = conditions.get("Ready", {})
            line = f"{ready.get('reason', '...')}: {ready.get('message', 'waiting for the operator')}"
            if line != told:
                print(f"   {time.monotonic() - begin:6.1f} s  {line[:150]}{tick()}", flush=True)
                told = line
            if ready.get("status") == "True" and status.get("version") == version:
                return
            if conditions.get("Stalled", {}).get("status") == "True":
                raise DemoError(f"the rollout is stalled: {line}")
            time.sleep(0.3)
        raise DemoError(f"version {version} was not ready after 300 s: {told}")

    @contextmanager
    def reach(self, name: str) -> Iterator[str]:
        """A base URL of the Service from this machine: directly where the cluster's network is routed, else by
        `kubectl proxy`.
        """
        service = json.loads(self.kubectl("get", "service", name, "-o", "json"))
        direct = f"http://{service['spec']['clusterIP']}"
        if _answers(direct):
            yield direct
            return
        command = [self.kubectl_path, "proxy", "--port=0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as proxy:
            try:
                assert proxy.stdout
                address = proxy.stdout.readline().rsplit(" ", 1)[-1].strip()
                yield f"http://{address}/api/v1/namespaces/{self.namespace}/services/{name}:http/proxy"
            finally:
                proxy.terminate()

    def hand_over(self, name: str, models: Mapping[str, Path]) -> dict[str, Manifest]:
        """The files where pods can fetch them: `spec.model` by version, without more than uri and credentials."""
        if os.environ.get("MODELPIER_S3_ENDPOINT"):
            return self._upload(name, models)
        return self._serve_files(name, models)

    def _upload(self, name: str, models: Mapping[str, Path]) -> dict[str, Manifest]:
        import boto3  # noqa: PLC0415 - only where there is object storage

        env = os.environ
        secret = {
            "AWS_ACCESS_KEY_ID": env["MODELPIER_S3_ACCESS_KEY"],
            "AWS_SECRET_ACCESS_KEY": env["MODELPIER_S3_SECRET_KEY"],
            "AWS_ENDPOINT_URL": env["MODELPIER_S3_ENDPOINT"],
            "AWS_REGION": "us-east-1",
        }
        client = boto3.client(
            "s3",
            endpoint_url=secret["AWS_ENDPOINT_URL"],
            aws_access_key_id=secret["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=secret["AWS_SECRET_ACCESS_KEY"],
            region_name=secret["AWS_REGION"],
        )
        if "models" not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
            client.create_bucket(Bucket="models")
        self.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3"}, "stringData": secret})
        places = {}
        for version, path in models.items():
            client.upload_file(str(path), "models", f"{name}/{version}/model.onnx")
            places[version] = {"uri": f"s3://models/{name}/{version}/model.onnx", "credentialsSecret": "s3"}
        return places

    def _serve_files(self, name: str, models: Mapping[str, Path]) -> dict[str, Manifest]:
        files = f"{name}-files"
        self.apply(*_file_server(files, self._server_image()))
        self.kubectl("rollout", "status", f"deployment/{files}", "--timeout=120s")
        receive = "import shutil, sys; shutil.copyfileobj(sys.stdin.buffer, open(sys.argv[1], 'wb'))"
        for version, path in models.items():
            target = f"/files/{version}.onnx"
            self.kubectl(
                "exec", "-i", f"deployment/{files}", "--", "python3", "-c", receive, target, stdin=path.read_bytes()
            )
        return {version: {"uri": f"http://{files}.{self.namespace}.svc/{version}.onnx"} for version in models}

    def _server_image(self) -> str:
        where = ("deployments", "-A", "-l", "app.kubernetes.io/name=modelpier-operator", "-o", "json")
        items = json.loads(self.kubectl("get", *where))["items"]
        env = {e["name"]: e.get("value") for d in items for e in d["spec"]["template"]["spec"]["containers"][0]["env"]}
        if not (image := env.get("MODELPIER_SERVER_IMAGE")):
            raise DemoError("the operator is not installed in this cluster: run `make install` first")
        return str(image)


def _file_server(name: str, image: str) -> tuple[Manifest, Manifest]:
    labels = {"app": name}
    container = {
        "name": "files",
        "image": image,
        "command": ["python3", "-m", "http.server", "8000", "--directory", "/files"],
        "volumeMounts": [{"name": "files", "mountPath": "/files"}],
        "readinessProbe": {"tcpSocket": {"port": 8000}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
    }
    pod = {
        "automountServiceAccountToken": False,
        "containers": [container],
        "volumes": [{"name": "files", "emptyDir": {"sizeLimit": "1Gi"}}],
    }
    template = {"metadata": {"labels": labels}, "spec": pod}
    deployment = {"selector": {"matchLabels": labels}, "template": template}
    service = {"selector": labels, "ports": [{"port": 80, "targetPort": 8000}]}
    return (
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": deployment},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": service},
    )


def _answers(url: str) -> bool:
    import socket  # noqa: PLC0415

    host = urlsplit(url)
    try:
        socket.create_connection((host.hostname or "", host.port or 80), timeout=2).close()
    except OSError:
        return False
    return True
