"""The main job, shown: a model is handed over, served, called, and its next version rolled in under load.

`make demo` calls this once a cluster runs and the chart is installed. It says each thing that it does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np

from common.demonstration import Cluster, DemoError, Manifest, arguments, curl, say, wait
from digits.load import Load, Tally, run
from digits.train import Trained, train

SHADES = " .:-=+*#%@"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=float, default=100.0, help="requests per second during the rollout")
    args = arguments(parser)
    with tempfile.TemporaryDirectory() as folder:
        Demo(Cluster(args.kubectl, args.namespace), Path(folder)).show(args.rate)


class Demo:
    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder

    def show(self, rate: float) -> None:
        say("Training two classifiers of handwritten digits (scikit-learn's 1,797 images) and converting them to ONNX")
        first, second = train(self.folder)
        for trained in (first, second):
            print(f"   version {trained.version}: {trained.accuracy:.1%} of the held-out images right")
        say("Handing both over")
        places = self.cluster.hand_over("digits", {m.version: m.path for m in (first, second)})
        print("   " + "\n   ".join(place["uri"] for place in places.values()))
        say("kubectl apply: ModelDeployment digits, version 1, two pods")
        self.cluster.apply(deployment(first, places))
        self.cluster.follow("digits", "1")
        with self.cluster.reach("digits") as url:
            self.ask(url)
            before = self.accuracy(url)
            say(f"Version 2 goes in while {rate:g} requests a second arrive (open loop, no retries)")
            tally = self.roll(url, second, places, rate)
            self.report(tally, before, self.accuracy(url))

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

    def roll(self, url: str, model: Trained, places: dict[str, Manifest], rate: float) -> Tally:
        pixels = np.load(self.folder / "test.npz")["pixels"][0].tolist()
        tensor = {"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": pixels}
        order = Load(f"{url}/v2/models/digits/infer", json.dumps({"inputs": [tensor]}).encode(), rate, limit=100_000)
        tally, done = Tally(), threading.Event()
        thread = threading.Thread(target=lambda: asyncio.run(run(order, tally, done.is_set)), daemon=True)
        thread.start()
        try:
            wait(lambda: tally.sent >= rate, "the load to begin")
            self.cluster.apply(deployment(model, places))
            self.cluster.follow(
                "digits", "2", lambda: f"   [{tally.sent} sent, {tally.lost} lost, by version {dict(tally.versions)}]"
            )
            wait(lambda: self.cluster.pods("digits") == 2, "the old pods to drain and go")
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
        print("\n   kubectl get md digits\n" + self.cluster.kubectl("get", "md", "digits"))
        if tally.lost:
            raise DemoError(f"requests were lost: {dict(tally.answers)} {dict(tally.failures)}")


def deployment(model: Trained, places: dict[str, Manifest]) -> Manifest:
    return {
        "apiVersion": "modelpier.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "digits"},
        "spec": {
            "model": {**places[model.version], "version": model.version},
            "resources": {"cpu": "100m", "memory": "512Mi", "modelStorage": "1Gi"},
            "replicas": 2,
        },
    }


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; `make cluster-down` removes everything")
