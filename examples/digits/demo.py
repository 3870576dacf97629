"""The main job, shown: a model is handed over, served, called, and its next version rolled in under load.

`make demo` calls this once a cluster runs and the chart is installed. It needs KUBECONFIG and a kubectl, and says
each thing that it does. With MODELPIER_S3_ENDPOINT (the local cluster has one) the models go to object storage;
elsewhere a small file server in the cluster hands them out.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from load import Load, Tally, run
from train import Trained, train

Manifest = dict[str, Any]
SHADES = " .:-=+*#%@"


class DemoError(SystemExit):
    """Ends the demo with one clear line."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--namespace", default="default")
    parser.add_argument("--rate", type=float, default=100.0, help="requests per second during the rollout")
    parser.add_argument("--kubectl", default=os.environ.get("MODELPIER_KUBECTL") or shutil.which("kubectl"))
    args = parser.parse_args()
    if not args.kubectl:
        raise DemoError("no kubectl found: set MODELPIER_KUBECTL or put it into PATH")
    with tempfile.TemporaryDirectory() as folder:
        Demo(args.kubectl, args.namespace, Path(folder)).show(args.rate)


class Demo:
    def __init__(self, kubectl: str, namespace: str, folder: Path) -> None:
        self.kubectl_path, self.namespace, self.folder = kubectl, namespace, folder
        self.begin = time.monotonic()

    def show(self, rate: float) -> None:
        say("Training two classifiers of handwritten digits (scikit-learn's 1,797 images) and converting them to ONNX")
        first, second = train(self.folder)
        for trained in (first, second):
            print(f"   version {trained.version}: {trained.accuracy:.1%} of the held-out images right")
        say("Handing both over")
        uris = self.hand_over([first, second])
        print("   " + "\n   ".join(uris.values()))
        say("kubectl apply: ModelDeployment digits, version 1, two pods")
        self.apply(self.deployment(first, uris))
        self.follow("1")
        with self.reach() as url:
            self.ask(url)
            before = self.accuracy(url)
            say(f"Version 2 goes in while {rate:g} requests a second arrive (open loop, no retries)")
            tally = self.roll(url, second, uris, rate)
            self.report(tally, before, self.accuracy(url))

    # ------------------------------------------------------------------------------------------- steps
    def hand_over(self, models: list[Trained]) -> dict[str, str]:
        """The uris by version."""
        if os.environ.get("MODELPIER_S3_ENDPOINT"):
            return self.upload(models)
        return self.serve_files(models)

    def upload(self, models: list[Trained]) -> dict[str, str]:
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
        uris = {}
        for model in models:
            client.upload_file(str(model.path), "models", f"digits/{model.version}/model.onnx")
            uris[model.version] = f"s3://models/digits/{model.version}/model.onnx"
        self.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3"}, "stringData": secret})
        return uris

    def serve_files(self, models: list[Trained]) -> dict[str, str]:
        data = {f"digits-{m.version}.onnx": base64.b64encode(m.path.read_bytes()).decode() for m in models}
        labels = {"app": "digits-files"}
        container = {
            "name": "files",
            "image": self.server_image(),
            "command": ["python3", "-m", "http.server", "8000", "--directory", "/files"],
            "volumeMounts": [{"name": "files", "mountPath": "/files"}],
            "readinessProbe": {"tcpSocket": {"port": 8000}, "periodSeconds": 1},
            "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "64Mi"}},
        }
        self.apply(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "digits-files"}, "binaryData": data},
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": "digits-files"},
                "spec": {
                    "selector": {"matchLabels": labels},
                    "template": {
                        "metadata": {"labels": labels},
                        "spec": {
                            "automountServiceAccountToken": False,
                            "containers": [container],
                            "volumes": [{"name": "files", "configMap": {"name": "digits-files"}}],
                        },
                    },
                },
            },
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "digits-files"},
                "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8000}]},
            },
        )
        self.kubectl("rollout", "status", "deployment/digits-files", "--timeout=120s")
        host = f"digits-files.{self.namespace}.svc"
        return {m.version: f"http://{host}/digits-{m.version}.onnx" for m in models}

    def deployment(self, model: Trained, uris: dict[str, str]) -> Manifest:
        uri = uris[model.version]
        credentials = {"credentialsSecret": "s3"} if uri.startswith("s3:") else {}
        return {
            "apiVersion": "modelpier.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": "digits"},
            "spec": {
                "model": {"uri": uri, "version": model.version, **credentials},
                "resources": {"cpu": "100m", "memory": "512Mi", "modelStorage": "1Gi"},
                "replicas": 2,
            },
        }

    def follow(self, version: str, tick: Callable[[], str] = lambda: "") -> None:
        """Prints each change of status until the version serves at full strength."""
        told, end = "", time.monotonic() + 300
        while time.monotonic() < end:
            status = self.status()
            conditions = {c["type"]: c for c in status.get("conditions", [])}
            ready = conditions.get("Ready", {})
            line = f"{ready.get('reason', '...')}: {ready.get('message', 'waiting for the operator')}"
            if line != told:
                print(f"   {time.monotonic() - self.begin:6.1f} s  {line[:150]}{tick()}", flush=True)
                told = line
            if ready.get("status") == "True" and status.get("version") == version:
                return
            if conditions.get("Stalled", {}).get("status") == "True":
                raise DemoError(f"the rollout is stalled: {line}")
            time.sleep(0.3)
        raise DemoError(f"version {version} was not ready after 300 s: {told}")

    @contextmanager
    def reach(self) -> Iterator[str]:
        """A base URL of the Service from this machine: directly where the cluster's network is routed, else by
        `kubectl proxy`.
        """
        service = json.loads(self.kubectl("get", "service", "digits", "-o", "json"))
        direct = f"http://{service['spec']['clusterIP']}"
        if answers(direct):
            yield direct
            return
        command = [self.kubectl_path, "proxy", "--port=0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as proxy:
            try:
                assert proxy.stdout
                address = proxy.stdout.readline().rsplit(" ", 1)[-1].strip()
                yield f"http://{address}/api/v1/namespaces/{self.namespace}/services/digits:http/proxy"
            finally:
                proxy.terminate()

    def ask(self, url: str) -> None:
        held = np.load(self.folder / "test.npz")
        pixels, label = held["pixels"][3], int(held["labels"][3])
        say(f"A handwritten {label}, as the model sees it")
        for row in pixels.reshape(8, 8):
            print("     " + "".join(SHADES[min(int(v * 10 / 17), 9)] * 2 for v in row))
        body = {"model_name": "digits", "input_data": [[int(v) for v in pixels]]}
        print(f"   $ curl -s {url}/model -d '{json.dumps(body)[:70]}...'")
        answer = json.loads(curl(f"{url}/model", body))["output_data"]
        probabilities = answer["probabilities"][0]
        print(f"   It is a {answer['label'][0]}:")
        for digit in np.argsort(probabilities)[::-1][:3]:
            print(f"     {digit}  {probabilities[digit]:6.1%}  {'#' * round(probabilities[digit] * 40)}")

    def accuracy(self, url: str) -> float:
        held = np.load(self.folder / "test.npz")
        answer = json.loads(curl(f"{url}/model", {"model_name": "digits", "input_data": held["pixels"].tolist()}))
        return float((np.array(answer["output_data"]["label"]) == held["labels"]).mean())

    def roll(self, url: str, model: Trained, uris: dict[str, str], rate: float) -> Tally:
        pixels = np.load(self.folder / "test.npz")["pixels"][0].tolist()
        tensor = {"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": pixels}
        order = Load(f"{url}/v2/models/digits/infer", json.dumps({"inputs": [tensor]}).encode(), rate, limit=100_000)
        tally, done = Tally(), threading.Event()
        thread = threading.Thread(target=lambda: asyncio.run(run(order, tally, done.is_set)), daemon=True)
        thread.start()
        try:
            wait(lambda: tally.sent >= rate, "the load to begin")
            self.apply(self.deployment(model, uris))
            self.follow("2", lambda: f"   [{tally.sent} sent, {tally.lost} lost, by version {dict(tally.versions)}]")
            wait(lambda: self.pods() == 2, "the old pods to drain and go")
        finally:
            done.set()
            thread.join(timeout=60)
        return tally

    def report(self, tally: Tally, before: float, after: float) -> None:
        say("Done")
        print(f"   {tally.sent} requests sent, {tally.lost} lost; answered by version: {dict(tally.versions)}")
        p50, p99 = np.quantile(tally.latencies, [0.5, 0.99]) * 1e3
        print(f"   p50 {p50:.1f} ms, p99 {p99:.1f} ms")
        print(f"   accuracy as served: version 1 {before:.1%}, version 2 {after:.1%}")
        print("\n   kubectl get md digits\n" + self.kubectl("get", "md", "digits"))
        if tally.lost:
            raise DemoError(f"requests were lost: {dict(tally.answers)} {dict(tally.failures)}")

    # ------------------------------------------------------------------------------------------- cluster
    def kubectl(self, *args: str, stdin: str | None = None) -> str:
        command = [self.kubectl_path, "-n", self.namespace, *args]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=180, check=False)
        if done.returncode:
            raise DemoError(f"kubectl {' '.join(args)}: {done.stderr.strip()}")
        return done.stdout

    def apply(self, *manifests: Manifest) -> None:
        self.kubectl(
            "apply", "--server-side", "--force-conflicts", "-f", "-", stdin="\n---\n".join(map(json.dumps, manifests))
        )

    def status(self) -> Manifest:
        status: Manifest = json.loads(self.kubectl("get", "md", "digits", "-o", "json")).get("status", {})
        return status

    def pods(self) -> int:
        return len(self.kubectl("get", "pods", "-l", "modelpier.dev/deployment=digits", "-o", "name").split())

    def server_image(self) -> str:
        where = ("deployments", "-A", "-l", "app.kubernetes.io/name=modelpier-operator", "-o", "json")
        items = json.loads(self.kubectl("get", *where))["items"]
        env = {e["name"]: e.get("value") for d in items for e in d["spec"]["template"]["spec"]["containers"][0]["env"]}
        if not (image := env.get("MODELPIER_SERVER_IMAGE")):
            raise DemoError("the operator is not installed in this cluster: run `make install` first")
        return image


def say(text: str) -> None:
    print(f"\n== {text}", flush=True)


def wait(look: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not look():
        if time.monotonic() > end:
            raise DemoError(f"waited {seconds:g} s for {what}")
        time.sleep(0.1)


def answers(url: str) -> bool:
    import socket  # noqa: PLC0415

    host = urlsplit(url)
    try:
        socket.create_connection((host.hostname or "", host.port or 80), timeout=2).close()
    except OSError:
        return False
    return True


def curl(url: str, body: Any) -> str:
    done = subprocess.run(
        [
            "curl",
            "--silent",
            "--show-error",
            "--fail-with-body",
            "--noproxy",
            "*",
            "--max-time",
            "30",
            url,
            "--data-binary",
            "@-",
        ],
        input=json.dumps(body),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise DemoError(f"curl {url}: {done.stderr.strip()} {done.stdout.strip()}")
    return done.stdout


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; `make cluster-down` removes everything")
