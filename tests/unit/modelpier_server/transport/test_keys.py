"""API keys: what is open, what asks for a key, and what each answer says."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from modelpier_server.errors import OutOfScope, Unauthorized
from modelpier_server.protocol.grpc.generated import inference_pb2 as pb
from modelpier_server.records import Recorder
from modelpier_server.settings import SettingsError
from modelpier_server.telemetry import Metrics
from modelpier_server.transport import Extras, VertexRoutes
from modelpier_server.transport.security.files import Watch
from modelpier_server.transport.security.keys import Keys
from modelpier_server.transport.security.scopes import Scope
from support import grpc_serving, onnx_models
from support.grpc_serving import refused, row
from support.serving import Client, Running, request_bytes, running, servable, tensor

GOOD = json.dumps({"inputs": [tensor([1, 2, 3])]}).encode()
INFER = "/v2/models/m/infer"
READER, ADMIN, BOTH = b"reader-key", b"admin-key", b"both-key"


def line(key: bytes, scopes: str = "infer", name: str = "team") -> str:
    return f"{name} {scopes} sha256:{hashlib.sha256(key).hexdigest()}\n"


def keys(path: Path, text: str | None = None) -> Keys:
    """Read from the file `path`."""
    if text is None:
        text = line(READER) + line(ADMIN, "admin", "root") + line(BOTH, "admin,infer", "both")
    path.write_text(text)
    made = Keys(path)
    made.take()
    return made


# ------------------------------------------------------------------------------------------ the file
def test_comments_and_blank_lines(tmp_path: Path) -> None:
    made = keys(tmp_path / "keys", f"# of 2026\n\n  {line(READER)}\r\n\t{line(ADMIN, 'admin', 'root')}")
    assert made.check(READER, Scope.INFER).name == "team"
    assert made.check(ADMIN, Scope.ADMIN).name == "root"
    with pytest.raises(OutOfScope, match="'root' lacks the scope infer"):
        made.check(ADMIN, Scope.INFER)
    with pytest.raises(Unauthorized):
        made.check(READER + b" ", Scope.INFER)
    with pytest.raises(Unauthorized):
        made.check(b"", Scope.INFER)


def test_a_folder_of_files_as_a_secret_is_mounted(tmp_path: Path) -> None:
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..2026" / "a").write_text(line(READER))
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "a").symlink_to("..data/a")
    (tmp_path / "b").write_text(line(ADMIN, "admin"))
    (tmp_path / ".hidden").write_text("nonsense")
    made = Keys(tmp_path)
    made.take()
    assert made.find(READER)
    assert made.find(ADMIN)


def test_no_keys_let_nobody_in(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = keys(tmp_path / "keys", "# none yet\n")
    assert "no API keys" in caplog.text
    with pytest.raises(Unauthorized):
        made.check(READER, Scope.INFER)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("secret-key", "line 1: must be NAME SCOPES"),
        (line(READER) + "team infer secret-key", "line 2: must be NAME SCOPES"),
        (line(READER)[:-2], "64 hexadecimal"),
        (line(READER).replace("sha256", "md5"), "must be"),
        (line(READER, "write"), "unknown scope 'write'; known: infer, admin"),
        (line(READER, "infer,"), "unknown scope ''"),
        (line(READER) + line(READER, "admin"), "twice"),
        ("\udcff", "must be text"),
    ],
)
def test_what_is_no_list_of_keys(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "keys"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(SettingsError) as error:
        Keys(path).take()
    assert named in str(error.value)
    assert "--api-keys" in str(error.value)
    assert "secret-key" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"--api-keys: .*cannot be read"):
        Watch(Keys(tmp_path / "keys"), Metrics())


def test_changes_are_taken_once_they_lie_still(tmp_path: Path) -> None:
    path, metrics = tmp_path / "keys", Metrics()
    path.write_text(line(READER))
    made = Keys(path)
    watch = Watch(made, metrics)
    watch.look()
    path.write_text(line(ADMIN, "admin"))
    watch.look()
    assert made.find(READER)
    watch.look()
    assert (made.find(READER), bool(made.find(ADMIN))) == (None, True)
    for _ in range(3):
        watch.look()
    assert metrics.reloads == {("api_keys", "taken"): 1, ("api_keys", "refused"): 0}


@pytest.mark.parametrize("bad", ["nonsense", None])
def test_what_is_bad_leaves_what_was(tmp_path: Path, bad: str | None, caplog: pytest.LogCaptureFixture) -> None:
    path, metrics = tmp_path / "keys", Metrics()
    path.write_text(line(READER))
    made = Keys(path)
    watch = Watch(made, metrics)
    if bad is None:
        path.unlink()
    else:
        path.write_text(bad)
    for _ in range(5):
        watch.look()
    assert made.find(READER)
    assert metrics.reloads == {("api_keys", "taken"): 0, ("api_keys", "refused"): 1}
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    path.write_text(line(ADMIN))
    watch.look()
    watch.look()
    assert made.find(ADMIN)


# ------------------------------------------------------------------------------------------ HTTP
@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Running]:
    extras = Extras(keys=keys(tmp_path / "keys"), recorder=Recorder(1.0), vertex=VertexRoutes("/health", "/predict"))
    async with running(servable(onnx_models.identity(), tmp_path), extras=extras) as state:
        yield state


@pytest.fixture
async def client(guarded: Running) -> Client:
    return await guarded.client()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer reader-key"}, 200),
        ({"authorization": "bEARER   reader-key "}, 200),
        ({"X-API-Key": "reader-key"}, 200),
        ({"Authorization": "Basic x", "X-API-Key": "reader-key"}, 200),
        ({"Authorization": "Bearer both-key"}, 200),
        ({"Authorization": "Bearer admin-key"}, 403),
        ({"Authorization": "Bearer other"}, 401),
        ({"Authorization": "Bearer "}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"Authorization": "reader-key"}, 401),
        ({"Authorization": "Bearer other", "X-API-Key": "reader-key"}, 401),
        ({"Authorization": f"Basic {base64.b64encode(b'a:reader-key').decode()}"}, 401),
        ({"X-API-Key": hashlib.sha256(READER).hexdigest()}, 401),
    ],
)
async def test_infer_asks_for_a_key(client: Client, headers: dict[str, str], status: int) -> None:
    for _ in range(2):
        answer = await client.request("POST", INFER, GOOD, headers)
        assert answer.status == status
        if status != 200:
            assert answer.error
        assert answer.headers.get("www-authenticate", "").startswith("Bearer realm=") == (status != 200)


async def test_what_refusals_say(client: Client) -> None:
    answer = await client.request("POST", INFER, GOOD)
    assert answer.headers["www-authenticate"] == 'Bearer realm="modelpier"'
    answer = await client.request("POST", INFER, GOOD, {"X-API-Key": "other"})
    assert answer.headers["www-authenticate"] == 'Bearer realm="modelpier", error="invalid_token"'
    assert "other" not in answer.error
    answer = await client.request("POST", "/v2/repository/index", b"", {"X-API-Key": "reader-key"})
    assert answer.status == 403
    assert answer.headers["www-authenticate"].endswith('error="insufficient_scope", scope="admin"')
    assert "'team'" in answer.error


async def test_two_keys_in_one_request_are_no_key(client: Client) -> None:
    twice = "Authorization: Bearer reader-key\r\n" * 2
    raw = f"POST {INFER} HTTP/1.1\r\nHost: t\r\n{twice}Content-Length: {len(GOOD)}\r\n\r\n".encode() + GOOD
    await client.send(raw)
    assert (await client.answer()).status == 401


OPEN = {"/v2/health/live", "/v2/health/ready", "/ping", "/health", "/metrics", "/"}
ADMINISTRATION = {
    "/v2/repository/index",
    "/v2/repository/models/{model}/load",
    "/v2/repository/models/{model}/unload",
}


async def test_every_route_asks_for_what_it_should(guarded: Running, client: Client) -> None:
    """A route that somebody adds is guarded unless it is named here."""
    for route in guarded.server.app.router.routes:
        path = route.pattern.replace("{model}", "m").replace("{version}", "1")
        answer = await client.request(route.method, path, b"{}" if route.method == "POST" else b"")
        assert answer.status == (200 if route.pattern in OPEN else 401), route.pattern
        answer = await client.request(route.method, path, b"", {"X-API-Key": "admin-key"})
        assert (answer.status == 403) == (route.pattern not in OPEN | ADMINISTRATION) or "loading" in answer.error
        answer = await client.request(route.method, path, b"", {"X-API-Key": "reader-key"})
        assert (answer.status == 403) == (route.pattern in ADMINISTRATION)
    known = {route.pattern for route in guarded.server.app.router.routes}
    assert known >= OPEN | ADMINISTRATION


async def test_who_has_no_key_sends_no_large_body(client: Client) -> None:
    await client.send(request_bytes("POST", INFER, b"", {"Content-Length": 50_000_000, "Expect": "100-continue"}))
    answer = await client.answer()
    assert answer.status == 401
    assert answer.headers["connection"] == "close"
    assert await client.closed()


async def test_paths_that_do_not_exist_are_no_secret(client: Client) -> None:
    assert (await client.request("GET", "/nothing")).status == 404
    assert (await client.request("GET", "/v2/models/unknown")).status == 401


async def test_the_access_log_names_the_key(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "modelpier_server.access")
    for key in ("both-key", "other"):
        await client.request("GET", "/v2/models", b"", {"X-API-Key": key})
    found = [record for record in caplog.records if record.name == "modelpier_server.access"]
    assert [vars(record)["key"] for record in found] == ["both", ""]
    assert "both-key" not in str([vars(record) for record in found])


async def test_the_openapi_document_says_it(client: Client, tmp_path: Path) -> None:
    document = (await client.request("GET", "/openapi.json", b"", {"X-API-Key": "reader-key"})).json
    assert set(document["components"]["securitySchemes"]) == {"bearer", "apiKey"}
    infer = document["paths"]["/v2/models/m/versions/1/infer"]["post"]
    assert {"401", "403"} <= infer["responses"].keys()
    assert infer["security"]
    assert "security" not in document["paths"]["/v2/health/ready"]["get"]
    async with running() as state:
        plain = (await (await state.client()).request("GET", "/openapi.json")).json
    assert "securitySchemes" not in plain["components"]


# ------------------------------------------------------------------------------------------ gRPC
@pytest.fixture
async def calls(tmp_path: Path) -> AsyncIterator[grpc_serving.Client]:
    extras = Extras(keys=keys(tmp_path / "keys"))
    async with grpc_serving.running(servable(onnx_models.identity(), tmp_path), extras=extras) as state:
        yield state.client


def bearer(key: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {key}"),)


async def test_calls_ask_for_a_key(calls: grpc_serving.Client) -> None:
    for metadata in (bearer("reader-key"), (("x-api-key", "reader-key"),)):
        answer = await calls.infer(row(1, 2, 3), metadata=metadata)
        assert grpc_serving.floats(answer) == [1, 2, 3]
    for wrong in ((), bearer("other"), (("authorization-bin", b"Bearer reader-key"),)):
        error = await refused(calls.infer(row(1, 2, 3), metadata=wrong))
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    error = await refused(calls.infer(row(1, 2, 3), metadata=bearer("admin-key")))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "lacks the scope infer" in grpc_serving.told(error)


async def test_streams_ask_for_a_key(calls: grpc_serving.Client) -> None:
    stream = calls.stream()
    assert await stream.code() is grpc.StatusCode.UNAUTHENTICATED
    stream = calls.stream(metadata=bearer("reader-key"))
    await stream.write(row(1, 2, 3))
    assert not (await stream.read()).error_message
    await stream.done_writing()


async def test_every_method_asks_for_what_it_should(calls: grpc_serving.Client) -> None:
    opened, administration = {"ServerLive", "ServerReady"}, {"RepositoryModelLoad", "RepositoryModelUnload"}
    service = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    for name in {method.name for method in service.methods} - {"ModelInfer", "ModelStreamInfer"}:
        if name in opened:
            await calls.call(name, b"")
            continue
        codes = {key: await code(calls, name, key) for key in ("", "reader-key", "admin-key")}
        assert codes[""] is grpc.StatusCode.UNAUTHENTICATED
        if name == "RepositoryIndex":
            assert codes["reader-key"] is grpc.StatusCode.PERMISSION_DENIED
            assert codes["admin-key"] is grpc.StatusCode.OK
        elif name not in administration:
            assert codes["admin-key"] in {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED}, name
            assert codes["reader-key"] is not grpc.StatusCode.PERMISSION_DENIED, name
    error = await refused(calls.call("RepositoryModelLoad", b"", metadata=bearer("reader-key")))
    assert "lacks the scope admin" in grpc_serving.told(error)
    assert await calls.check() == "SERVING"


async def code(calls: grpc_serving.Client, name: str, key: str) -> grpc.StatusCode:
    try:
        await calls.call(name, b"", metadata=bearer(key) if key else ())
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK
