"""`python -m bench.server.noop HTTP-PORT GRPC-PORT`: our transport, and grpcio's, with an answer that no model made.

What is above this is what reading, scheduling, running, writing and counting cost. One of the contestants.
"""

from __future__ import annotations

import sys

import grpc
import numpy as np
import uvloop

from bench.server.wires import METHOD
from modelpier_server.protocol.grpc.generated import inference_pb2
from modelpier_server.telemetry import Metrics
from modelpier_server.transport import App, Router, serve
from modelpier_server.transport.exchange import Exchange

ANSWER = (
    b'{"model_name":"tabular","model_version":"1","outputs":[{"name":"y","datatype":"FP32","shape":[1,4],'
    b'"data":[0.46875012,-0.99112421,1.73423409,0.12341234]}]}'
)


def answer(exchange: Exchange) -> None:
    exchange.send_json(ANSWER)


class Constant(grpc.GenericRpcHandler):
    """ModelInfer without messages: bytes in, bytes out."""

    def __init__(self) -> None:
        message = inference_pb2.ModelInferResponse(model_name="tabular", model_version="1")
        message.outputs.add(name="y", datatype="FP32", shape=[1, 4])
        message.raw_output_contents.append(np.zeros(4, np.float32).tobytes())
        self._answer: bytes = message.SerializeToString()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        return grpc.unary_unary_rpc_method_handler(self._infer) if details.method == METHOD else None

    async def _infer(self, _request: bytes, _context: object) -> bytes:
        return self._answer


async def main(http_port: int, grpc_port: int) -> None:
    router = Router()
    router.add_direct("POST", "/v2/models/{model}/infer", answer)
    await serve("127.0.0.1", http_port, App(router, Metrics()))
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Constant(),))
    server.add_insecure_port(f"127.0.0.1:{grpc_port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
