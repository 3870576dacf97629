"""How tensors travel: one class per form of request, with the reading of its answers. Pure; used by contestants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import orjson

from bench.server.client.load import GRPC
from modelpier_server.protocol.grpc.generated import inference_pb2

Feeds = Mapping[str, npt.NDArray[Any]]
Answer = npt.NDArray[np.float32]
JSON = {"content-type": "application/json"}
OCTETS = {"content-type": "application/octet-stream"}
DATATYPES = {"float32": "FP32", "int64": "INT64"}
BOUNDARY = b"XBOUNDX"
METHOD = "/inference.GRPCInferenceService/ModelInfer"


@dataclass(frozen=True)
class Encoded:
    body: bytes
    headers: Mapping[str, str]


class Wire(Protocol):
    """`name`: for people, and for the load generator."""

    @property
    def name(self) -> str: ...

    def encode(self, model: str, feeds: Feeds) -> Encoded: ...

    def decode(self, body: bytes) -> Answer:
        """The only output, flat. Raises ValueError, KeyError, TypeError for what is no answer."""


def _numbers(values: npt.NDArray[Any]) -> list[Any]:
    """Six digits, as a client that rounds would write them."""
    flat: list[Any] = values.ravel().tolist()
    return [round(number, 6) for number in flat] if values.dtype == np.float32 else flat


def _tensor(name: str, values: npt.NDArray[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": DATATYPES[values.dtype.name], "shape": list(values.shape)}


class OipJson:
    name = "JSON"

    def encode(self, model: str, feeds: Feeds) -> Encoded:  # noqa: ARG002 - it stands in the path
        inputs = [{**_tensor(name, values), "data": _numbers(values)} for name, values in feeds.items()]
        return Encoded(orjson.dumps({"inputs": inputs}), JSON)

    def decode(self, body: bytes) -> Answer:
        return np.array(orjson.loads(body)["outputs"][0]["data"], np.float32).ravel()


class OipBinary:
    """The binary tensor extension, both ways."""

    name = "binary"

    def encode(self, model: str, feeds: Feeds) -> Encoded:  # noqa: ARG002
        inputs = [
            {**_tensor(name, values), "parameters": {"binary_data_size": values.nbytes}}
            for name, values in feeds.items()
        ]
        head = orjson.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}})
        headers = {**OCTETS, "inference-header-content-length": str(len(head))}
        return Encoded(head + b"".join(values.tobytes() for values in feeds.values()), headers)

    def decode(self, body: bytes) -> Answer:
        """What follows the JSON, whose length stands in a header that samples lack: it ends with its last brace that
        makes it JSON.
        """
        size = orjson.loads(body[: _end_of_json(body)])["outputs"][0]["parameters"]["binary_data_size"]
        return np.frombuffer(body[len(body) - size :], np.float32)


def _end_of_json(body: bytes) -> int:
    depth, quoted = 0, False
    for at, byte in enumerate(body):
        if byte == 0x22 and body[at - 1] != 0x5C:
            quoted = not quoted
        elif not quoted and byte in b"{}":
            depth += 1 if byte == 0x7B else -1
            if depth == 0:
                return at + 1
    raise ValueError("the answer does not begin with JSON")


class Grpc:
    """ModelInfer with raw contents both ways."""

    name = GRPC

    def encode(self, model: str, feeds: Feeds) -> Encoded:
        message = inference_pb2.ModelInferRequest(model_name=model)
        for name, values in feeds.items():
            message.inputs.add(name=name, datatype=DATATYPES[values.dtype.name], shape=list(values.shape))
            message.raw_input_contents.append(values.tobytes())
        return Encoded(message.SerializeToString(), {})

    def decode(self, body: bytes) -> Answer:
        message = inference_pb2.ModelInferResponse.FromString(body)
        if message.raw_output_contents:
            return np.frombuffer(message.raw_output_contents[0], np.float32)
        return np.array(message.outputs[0].contents.fp32_contents, np.float32)


class RawBytes(OipJson):
    """The bytes of the only input, for servers whose user reads them himself."""

    name = "raw bytes"

    def encode(self, model: str, feeds: Feeds) -> Encoded:  # noqa: ARG002
        (values,) = feeds.values()
        return Encoded(values.tobytes(), OCTETS)


class Multipart(OipJson):
    """A form with one file."""

    name = "multipart"

    def encode(self, model: str, feeds: Feeds) -> Encoded:  # noqa: ARG002
        (values,) = feeds.values()
        head = b'Content-Disposition: form-data; name="file"; filename="a"\r\nContent-Type: application/octet-stream'
        body = b"--%b\r\n%b\r\n\r\n%b\r\n--%b--\r\n" % (BOUNDARY, head, values.tobytes(), BOUNDARY)
        return Encoded(body, {"content-type": f"multipart/form-data; boundary={BOUNDARY.decode()}"})


class NestedJson:
    """BentoML's: one array, nested; several inputs are stacked on the second axis."""

    name = "JSON"

    def encode(self, model: str, feeds: Feeds) -> Encoded:  # noqa: ARG002
        arrays = list(feeds.values())
        whole = arrays[0] if len(arrays) == 1 else np.stack(arrays, axis=1)
        nested = np.array(_numbers(whole), object).reshape(whole.shape).tolist()
        return Encoded(orjson.dumps({"x": nested}), JSON)

    def decode(self, body: bytes) -> Answer:
        return np.array(orjson.loads(body), np.float32).ravel()
