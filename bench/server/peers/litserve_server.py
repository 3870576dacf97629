"""LitServe, with its batching. It reads annotations: no `from __future__ import annotations` here."""

import os
from collections.abc import Mapping
from typing import Any

import litserve
import numpy as np
from fastapi import Request

from bench.server.peers.session import PORT, answer, array_of, load

BATCH = int(os.environ.get("BENCH_BATCH", "32"))
WORKERS = int(os.environ.get("BENCH_WORKERS", "1"))


class OnnxApi(litserve.LitAPI):
    def setup(self, device: str) -> None:  # noqa: ARG002
        self._session = load()

    def decode_request(self, request: Request) -> Any:
        """What comes is a form or the JSON, in spite of the annotation."""
        if "file" in request:
            return {"x": np.frombuffer(request["file"].file.read(), np.float32).reshape(3, 224, 224)}
        return {tensor["name"]: array_of(tensor, without_batch=True) for tensor in request["inputs"]}

    def batch(self, inputs: list[Mapping[str, Any]]) -> dict[str, Any]:
        return {name: np.stack([one[name] for one in inputs]) for name in inputs[0]}

    def predict(self, x: Mapping[str, Any]) -> Any:
        alone = self.max_batch_size == 1
        return self._session.run(None, {name: values[None] for name, values in x.items()} if alone else dict(x))[0]

    def unbatch(self, output: Any) -> list[Any]:
        return list(output)

    def encode_response(self, output: Any) -> dict[str, Any]:
        return answer(output if self.max_batch_size == 1 else output[None])


if __name__ == "__main__":
    api = OnnxApi(max_batch_size=BATCH, batch_timeout=0.002 if BATCH > 1 else 0.0)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=WORKERS, timeout=60)
    quiet = {"generate_client_file": False, "log_level": "warning", "access_log": False}
    server.run(host="127.0.0.1", port=PORT, num_api_servers=1, **quiet)
