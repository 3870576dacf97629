"""KServe's Python server."""

from __future__ import annotations

import os
from typing import Any

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from kserve.utils.utils import generate_uuid

from bench.server.peers.session import MODEL, PORT, load


class OnnxModel(Model):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.load()

    def load(self) -> None:
        self._session = load()
        self._outputs = [output.name for output in self._session.get_outputs()]
        self.ready = True

    def predict(
        self,
        payload: InferRequest,
        headers: dict[str, str] | None = None,  # noqa: ARG002
        response_headers: dict[str, str] | None = None,  # noqa: ARG002
    ) -> InferResponse:
        results = self._session.run(None, {tensor.name: tensor.as_numpy() for tensor in payload.inputs})
        binary = bool(payload.use_binary_outputs)
        return InferResponse(
            response_id=payload.id or generate_uuid(),
            model_name=self.name,
            infer_outputs=[self._output(*pair, binary) for pair in zip(self._outputs, results, strict=True)],
            use_binary_outputs=binary,
            from_grpc=payload.from_grpc,
        )

    def _output(self, name: str, values: Any, binary: bool) -> InferOutput:
        output = InferOutput(name, list(values.shape), "FP32")
        output.set_data_from_numpy(values, binary_data=binary)
        return output


if __name__ == "__main__":
    ports = {"http_port": PORT, "grpc_port": int(os.environ["BENCH_GRPC_PORT"])}
    ModelServer(**ports, workers=1, enable_latency_logging=False).start([OnnxModel(MODEL)])
