"""Triton's repository extension: the index, and who may load and unload."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelpier_server.contract import FailureReason, ModelReport, ModelState
from modelpier_server.transport import BY_PLAN, Access, Extras
from support import onnx_models
from support.recorded_control import Recorded
from support.serving import Answer, Client, Shelf, running, servable

INDEX = "/v2/repository/index"


async def act(client: Client, action: str, body: object = None, name: str = "m", **headers: str) -> Answer:
    raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    return await client.request("POST", f"/v2/repository/models/{name}/{action}", raw, headers)


async def test_the_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(
        servable(onnx_models.identity(), tmp_path), extras=Extras(repository=Access(Recorded()))
    ) as state:
        reports = state.shelf.describe()
        for name, how, reason in (
            ("coming", ModelState.WARMING, None),
            ("leaving", ModelState.DRAINING, None),
            ("broken", ModelState.FAILED, FailureReason.MODEL_INVALID),
        ):
            reports.append(ModelReport(name, name, "2", how, reason=reason, message="s3://secret/place"))
        monkeypatch.setattr(Shelf, "describe", lambda _: reports)
        client = await state.client()
        answer = await client.request("POST", INDEX, b"{}")
        assert [(e["name"], e["version"], e["state"], e["reason"]) for e in answer.json] == [
            ("m", "1", "READY", ""),
            ("coming", "2", "LOADING", ""),
            ("leaving", "2", "UNLOADING", ""),
            ("broken", "2", "UNAVAILABLE", "ModelInvalid"),
            ("gone", "1", "UNAVAILABLE", "unloaded"),
        ]
        assert b"secret" not in answer.body
        assert [e["name"] for e in (await client.request("POST", INDEX, b'{"ready": true}')).json] == ["m"]
        assert (await client.request("POST", INDEX)).status == 200
        assert (await client.request("POST", INDEX, b"[")).status == 400
        assert (await client.request("GET", INDEX)).status == 405


@pytest.mark.parametrize(
    ("extras", "text"),
    [(Extras(), "--allow-repository-control"), (Extras(repository=Access(refusal=BY_PLAN)), "a serving plan decides")],
)
async def test_not_allowed(tmp_path: Path, extras: Extras, text: str) -> None:
    async with running(servable(onnx_models.identity(), tmp_path), extras=extras) as state:
        client = await state.client()
        for action in ("load", "unload"):
            answer = await act(client, action)
            assert (answer.status, text in answer.error) == (403, True)


async def test_allowed() -> None:
    control = Recorded()
    async with running(extras=Extras(repository=Access(control))) as state:
        client = await state.client()
        assert (await act(client, "load")).status == 200
        assert (await act(client, "unload", {"parameters": {"unload_dependents": False}})).status == 200
        assert (await act(client, "load", name="zz")).status == 404
        assert control.asked == [("load", "m"), ("unload", "m"), ("load", "zz")]


async def test_what_is_refused_of_a_load() -> None:
    control = Recorded()
    async with running(extras=Extras(repository=Access(control))) as state:
        client = await state.client()
        answer = await act(client, "load", {"parameters": {"config": "{}"}})
        assert (answer.status, "parameters.config" in answer.error) == (400, True)
        assert (await act(client, "load", b"x")).status == 400
        assert (await act(client, "load", b"[" * 60_000)).status == 400
        assert (await act(client, "load", Origin="http://evil.example")).status == 403
        assert control.asked == []
        assert (await act(client, "load", Origin="http://test")).status == 200  # the Host of these tests
        assert (await act(client, "load", b" " * 70_000)).status == 413
