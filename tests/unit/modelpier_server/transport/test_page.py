"""The page at `/`, what it polls, and the OpenAPI document. The page in a browser: tests/server/test_page.py."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from modelpier_server.scheduler.servable import Servable
from modelpier_server.telemetry import Metrics
from modelpier_server.transport import openapi
from modelpier_server.transport.router import Router
from support import onnx_models
from support.serving import Client, Running, planned, running, servable, tensor

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[Running]:
    metrics = Metrics()
    models = {
        "m": onnx_models.identity(),
        "add": onnx_models.add("INT32"),
        "half": onnx_models.identity("FP16"),
        "text": onnx_models.identity("BYTES", ("n", 2)),
        "wide": onnx_models.identity("FP32", ("n", 5000)),
        "lengths": onnx_models.variable_length(),
        "scalar": onnx_models.identity("FP64", ()),
        "bits": onnx_models.identity("BOOL", (2, 2)),
        "fixed": onnx_models.identity("UINT8", (2,)),
    }
    served = [servable(model, tmp_path, planned(name), metrics) for name, model in models.items()]
    async with running(*served, metrics=metrics) as state:
        yield state


@pytest.fixture
async def client(state: Running) -> Client:
    return await state.client()


async def test_browsers_get_the_page_and_kserves_clients_their_answer(client: Client) -> None:
    page = await client.request("GET", "/", headers=HTML)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert (await client.request("GET", "/")).json == {"status": "alive"}
    assert (await client.request("HEAD", "/", headers=HTML)).status == 200


async def test_the_page_needs_nothing_else_and_runs_only_its_own_script(client: Client) -> None:
    page = await client.request("GET", "/", headers=HTML)
    html = page.body.decode()
    assert len(html) < 30_000
    assert not re.search(r"(src|href)=\"(https?:)?//", html)
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    for tag in ("style", "script"):
        content = re.search(rf"<{tag}>(.*)</{tag}>", html, re.DOTALL)
        assert content is not None
        assert base64.b64encode(hashlib.sha256(content[1].encode()).digest()).decode() in policy
    assert "innerHTML" not in html


async def test_figures(client: Client) -> None:
    assert (await client.infer({"inputs": [tensor([1, 2, 3])]})).status == 200
    assert (await client.infer({"inputs": []})).status == 400
    status = (await client.request("GET", "/status.json")).json
    assert (status["ready"], status["connections"]) == (True, 1)
    model = next(m for m in status["models"] if m["name"] == "m")
    assert (model["state"], model["version"]) == ("ready", "1")
    assert model["batching"].startswith(("on: ", "off: "))
    assert model["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
    figures = model["figures"]
    assert (figures["success"], figures["failed"], figures["pending"]) == (1, 1, 0)
    assert len(figures["seconds"]["counts"]) == len(figures["seconds"]["bounds"]) + 1
    assert sum(figures["seconds"]["counts"]) == 1


# ------------------------------------------------------------------------------------------------ OpenAPI
async def test_every_route_is_described(state: Running, client: Client) -> None:
    document = (await client.request("GET", "/openapi.json")).json
    assert document["openapi"] == "3.1.0"
    assert [r.pattern for r in state.server.app.router.routes if r.about is None] == []
    operations = [o for path in document["paths"].values() for o in path.values()]
    assert len({o["operationId"] for o in operations}) == len(operations)
    assert all(o["summary"] and o["responses"]["200"] for o in operations)


async def test_the_document_is_made_anew_only_when_models_change(
    state: Running, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []

    def describe(router: Router, served: list[Servable], *, guarded: bool = False) -> dict[str, object]:
        made.append(served)
        return original(router, served, guarded=guarded)

    original = openapi.describe
    monkeypatch.setattr(openapi, "describe", describe)
    first = (await client.request("GET", "/openapi.json")).body
    assert (await client.request("GET", "/openapi.json")).body == first
    assert len(made) <= 1
    state.shelf.servables["new"] = servable(onnx_models.identity(), tmp_path, planned("new"))
    assert "/v2/models/new/infer" in (await client.request("GET", "/openapi.json")).json["paths"]
    del state.shelf.servables["new"]
    assert (await client.request("GET", "/openapi.json")).body == first


async def test_examples_are_valid_requests(state: Running, client: Client) -> None:
    """All that the document gives, sent as it says."""
    document = (await client.request("GET", "/openapi.json")).json
    sent = set()
    for path, operations in document["paths"].items():
        content = operations.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json", {})
        examples = [content["example"]] if "example" in content else []
        for example in examples + [e["value"] for e in content.get("examples", {}).values()]:
            answer = await client.request("POST", path, json.dumps(example).encode())
            assert answer.status == 200, (path, example, answer.body)
            sent.add(path)
    assert {"/model", "/v2/models/m/infer", "/v1/models/half/versions/1:predict"} <= sent
    assert "/v2/models/half/infer" not in sent  # half precision has no JSON form there
    assert not any("wide" in path for path in sent)


async def test_bodies_are_the_models_own(client: Client) -> None:
    paths = (await client.request("GET", "/openapi.json")).json["paths"]
    schema = paths["/v2/models/add/versions/1/infer"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert schema["properties"]["inputs"]["minItems"] == 2
    text = json.dumps(schema)
    for part in ('"const": "a"', '"const": "INT32"', '"maximum": 2147483647', '"const": 3'):
        assert part in text


async def test_without_models_paths_are_general() -> None:
    async with running() as state:
        document = (await (await state.client()).request("GET", "/openapi.json")).json
        (parameter,) = document["paths"]["/v2/models/{model}/infer"]["post"]["parameters"]
        assert (parameter["name"], parameter["required"]) == ("model", True)
