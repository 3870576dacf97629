"""FastAPI: what people write themselves. Plain functions run in its pool of threads."""

from __future__ import annotations

from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool

from bench.server.peers.session import answer, array_of, load

app = FastAPI()
session = load()


@app.post("/v2/models/{model}/infer")
def infer(model: str, body: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    feeds = {tensor["name"]: array_of(tensor) for tensor in body["inputs"]}
    return answer(session.run(None, feeds)[0])


@app.post("/raw")
async def raw(request: Request) -> dict[str, Any]:
    picture = np.frombuffer(await request.body(), np.float32).reshape(1, 3, 224, 224)
    return answer((await run_in_threadpool(session.run, None, {"x": picture}))[0])
