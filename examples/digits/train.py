"""Trains two classifiers of handwritten digits and writes them as ONNX: `python examples/digits/train.py --out DIR`.

The data are scikit-learn's bundled 1,797 images of 8 x 8 pixels (UCI ML hand-written digits), so nothing is
downloaded. Version 1 is a logistic regression that has seen few images, version 2 a small neural network that has
seen all: both real, the second clearly better. Files written to DIR: `1/model.onnx`, `2/model.onnx` (input `pixels`
float [rows, 64]; outputs `label` int64 [rows], `probabilities` float [rows, 10]) and `test.npz`, the images that
neither has seen (`pixels`, `labels`).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.base import ClassifierMixin
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits


@dataclass(frozen=True)
class Trained:
    version: str
    path: Path
    accuracy: float
    """Share of the held-out images that scikit-learn itself gets right with it."""


def train(out: Path) -> list[Trained]:
    """Deterministic: the same files from the same versions of the libraries."""
    images, labels = load_digits(return_X_y=True)
    seen, held, seen_labels, held_labels = train_test_split(
        images.astype(np.float32), labels, test_size=0.4, random_state=7, stratify=labels
    )
    out.mkdir(parents=True, exist_ok=True)
    np.savez(out / "test.npz", pixels=held, labels=held_labels)
    # Version 1 has seen five images of each digit, as a first try might; version 2 has seen all of them.
    few = np.concatenate([np.flatnonzero(seen_labels == digit)[:5] for digit in range(10)])
    with threadpool_limits(1):  # matrices this small are slower on many threads, much slower on a busy machine
        first = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200)).fit(seen[few], seen_labels[few])
        network = MLPClassifier((96,), max_iter=400, random_state=7)
        second = make_pipeline(StandardScaler(), network).fit(seen, seen_labels)
    return [
        Trained("1", _save(first, out / "1" / "model.onnx"), float(first.score(held, held_labels))),
        Trained("2", _save(second, out / "2" / "model.onnx"), float(second.score(held, held_labels))),
    ]


def _save(model: ClassifierMixin, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    proto = to_onnx(
        model,
        initial_types=[("pixels", FloatTensorType([None, 64]))],
        options={id(model): {"zipmap": False}},
        target_opset={"": 18, "ai.onnx.ml": 3},
    )
    path.write_bytes(proto.SerializeToString())
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    for trained in train(parser.parse_args().out):
        print(f"version {trained.version}: {trained.accuracy:.1%} right, {trained.path}")


if __name__ == "__main__":
    main()
