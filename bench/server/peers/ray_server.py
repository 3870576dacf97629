"""Ray Serve, with its batching."""

from __future__ import annotations

import os
import signal
from typing import Any

import numpy as np
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse

from bench.server.peers.session import PORT, answer, array_of, load

CORES = int(os.environ["BENCH_CORES"])
PASSED_ON = ("BENCH_MODEL", "BENCH_FILE", "BENCH_PORT", "BENCH_THREADS", "BENCH_CORES", "PYTHONPATH")
ACTOR = {"num_cpus": 1, "runtime_env": {"env_vars": {name: os.environ[name] for name in PASSED_ON}}}


@serve.deployment(num_replicas=1, max_ongoing_requests=512, ray_actor_options=ACTOR)
class OnnxDeployment:
    def __init__(self) -> None:
        self._session = load()

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.002)
    async def run(self, inputs: list[dict[str, Any]]) -> list[Any]:
        feeds = {name: np.stack([one[name] for one in inputs]) for name in inputs[0]}
        return list(self._session.run(None, feeds)[0])

    async def __call__(self, request: Request) -> JSONResponse:
        if request.headers.get("content-type") == "application/octet-stream":
            given = {"x": np.frombuffer(await request.body(), np.float32).reshape(3, 224, 224)}
        else:
            inputs = (await request.json())["inputs"]
            given = {tensor["name"]: array_of(tensor, without_batch=True) for tensor in inputs}
        return JSONResponse(answer((await self.run(given))[None]))


def main() -> None:
    # A replica, and room for what Ray itself puts beside it.
    ray.init(num_cpus=max(2, CORES), include_dashboard=False, object_store_memory=200 << 20, log_to_driver=False)
    quiet = {"enable_access_log": False}
    serve.start(http_options={"host": "127.0.0.1", "port": PORT}, logging_config=quiet)
    deployment: Any = OnnxDeployment
    serve.run(deployment.bind(), name="app", route_prefix="/infer", logging_config=quiet)
    signal.sigwait({signal.SIGTERM})
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    main()
