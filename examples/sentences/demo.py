"""A text model, shown: a sentence encoder is converted from torch, tokenizer and all, served, and asked how alike
three sentences are.

`make demo-text` calls this once a cluster runs and the chart is installed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from common.demonstration import Cluster, DemoError, Manifest, arguments, curl, say
from sentences.convert import PYTHON, Converted, ConverterError, convert

SENTENCES = ("Two boats are moored in the harbour.", "A ship lies at the pier.", "Quarterly revenue grew by 4.5%.")
LIMIT = 1e-5
"""Largest difference from torch; sums in another order make a few 1e-7."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--converter", type=Path, default=PYTHON, help="the Python of the converter's environment")
    args = arguments(parser)
    with tempfile.TemporaryDirectory() as folder:
        show(Cluster(args.kubectl, args.namespace), args.converter, Path(folder))


def show(cluster: Cluster, converter: Path, folder: Path) -> None:
    say("Converting the sentence encoder MiniLM from torch to ONNX, with its tokenizer inside")
    converted = exported(converter, folder)
    say("Handing it over")
    place = cluster.hand_over("minilm", {"1": converted.path})["1"]
    print(f"   {place['uri']}")
    say("kubectl apply: ModelDeployment minilm")
    cluster.apply(deployment(place))
    cluster.follow("minilm", "1")
    with cluster.reach("minilm") as url:
        ask(url, converted)
    print("\n   kubectl get md minilm\n" + cluster.kubectl("get", "md", "minilm"))


def exported(converter: Path, folder: Path) -> Converted:
    begin = time.monotonic()
    try:
        converted = convert(folder / "model.onnx", SENTENCES, converter)
    except ConverterError as error:
        raise DemoError(str(error)) from error
    print(f"   {converted.bytes / 1e6:.0f} MB in {time.monotonic() - begin:.0f} s, up to {converted.max_length} tokens")
    print(
        f"   {converted.sentences} sentences in a dozen scripts give torch's embeddings: "
        f"largest difference {converted.largest_difference:.1e}"
    )
    return converted


def deployment(place: Manifest) -> Manifest:
    return {
        "apiVersion": "modelpier.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "minilm"},
        "spec": {
            "model": {**place, "version": "1"},
            "resources": {"cpu": "500m", "memory": "1Gi", "modelStorage": "1Gi"},
        },
    }


def ask(url: str, converted: Converted) -> None:
    say("Sentences in, embeddings out")
    body = {"model_name": "minilm", "input_data": SENTENCES}
    print(f"   $ curl -s {url}/model -d '{json.dumps(body)}'")
    answer = np.array(json.loads(curl(f"{url}/model", body))["output_data"], np.float32)
    shown = ", ".join(f"{number:.4f}" for number in answer[0, :4])
    print(f"   {answer.shape[0]} embeddings of {answer.shape[1]} numbers: [{shown}, ...]\n")
    for row, sentence in enumerate(SENTENCES):
        print("   " + "".join(f"{float(answer[row] @ other):7.2f}" for other in answer) + f"   {sentence}")
    difference = float(np.abs(answer - np.array(converted.embeddings, np.float32)).max())
    print(f"\n   largest difference from torch's own output: {difference:.1e}")
    if not difference <= LIMIT:
        raise DemoError(f"the served answer differs from torch's by {difference:.1e}; at most {LIMIT:g} is right")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; `make cluster-down` removes everything")
