"""Sentences in, embeddings out: a text model from torch, its tokenizer inside, served by real pods."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from e2e.world import World, model_deployment, post
from sentences.convert import PYTHON, convert
from sentences.demo import LIMIT, SENTENCES

pytestmark = [pytest.mark.e2e, pytest.mark.heavy, pytest.mark.timeout(1800)]


def test_a_sentence_encoder_answers_as_torch_does(world: World, namespace: str, tmp_path: Path) -> None:
    if not PYTHON.exists():
        pytest.skip("the converter's environment is not there: run `make venv-convert` (about 6 GB)")
    converted = convert(tmp_path / "model.onnx", SENTENCES)
    uri = world.store.upload(converted.path, "minilm/1/model.onnx")
    resources = {"cpu": "500m", "memory": "1Gi", "modelStorage": "1Gi"}
    world.apply(model_deployment("minilm", uri, resources=resources), namespace=namespace)
    world.wait_ready("minilm", namespace)

    url = world.service_url("minilm", namespace)
    status, answer = post(f"{url}/model", {"model_name": "minilm", "input_data": SENTENCES})
    assert status == 200, answer
    served = np.array(answer["output_data"], np.float32)
    assert np.abs(served - np.array(converted.embeddings, np.float32)).max() < LIMIT
    boats, ship, revenue = served
    assert boats @ ship > 0.4 > 0.2 > boats @ revenue
