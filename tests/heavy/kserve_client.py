"""Runs in an environment with the package `kserve`: its clients against the server at the URL and the gRPC address
given, v1 and v2.

`test_kserve_client.py` starts it. Prints one JSON object of what the client returned.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig


def request(array: np.ndarray, *, binary: bool) -> InferRequest:
    tensor = InferInput(name="x", shape=list(array.shape), datatype="FP32")
    tensor.set_data_from_numpy(array, binary_data=binary)
    return InferRequest(model_name="m", infer_inputs=[tensor], parameters={"binary_data_output": binary})


async def main(url: str, address: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    array = np.array([[1, 2.5, -3]], np.float32)
    async with InferenceRESTClient(RESTConfig(protocol="v2", timeout=20)) as client:
        found["v2"] = [
            await client.is_server_live(url),
            await client.is_server_ready(url),
            await client.is_model_ready(url, "m"),
            await client.is_model_ready(url, "zz"),
        ]
        for name, binary in (("json", False), ("binary", True)):
            answer = await client.infer(url, request(array, binary=binary), model_name="m")
            found[name] = [answer.model_name, answer.outputs[0].as_numpy().tolist()]
        try:
            await client.infer(url, request(array[:, :2], binary=False), model_name="m")
        except Exception as error:  # noqa: BLE001 - what it raises is what is looked at
            found["error"] = [type(error).__name__, str(error)]
    async with InferenceRESTClient(RESTConfig(protocol="v1", timeout=20)) as client:
        found["v1"] = [await client.is_server_live(url), await client.is_model_ready(url, "m")]
        found["predict"] = await client.infer(url, {"instances": array.tolist()}, model_name="m")
    async with InferenceGRPCClient(address, timeout=20, retries=0) as client:
        found["grpc"] = [
            await client.is_server_live(),
            await client.is_server_ready(),
            await client.is_model_ready("m"),
        ]
        for name, binary in (("grpc typed", False), ("grpc raw", True)):
            answer = await client.infer(request(array, binary=binary))
            found[name] = [answer.model_name, answer.outputs[0].as_numpy().tolist()]
        try:
            await client.infer(request(array[:, :2], binary=False))
        except Exception as error:  # noqa: BLE001 - as above
            found["grpc error"] = [type(error).__name__, str(error)]
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(*sys.argv[1:]))))
