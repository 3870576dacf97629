"""Client against a small web server in place of an API server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from modelpier_operator.cluster import errors
from modelpier_operator.cluster.client import Client
from modelpier_operator.cluster.config import Access
from modelpier_operator.telemetry import Telemetry

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
PATH = "/api/v1/namespaces/team/configmaps/c"


class Bench:
    def __init__(self) -> None:
        self.seen: list[web.Request] = []
        self.handler: Handler = self.fine
        self.telemetry = Telemetry()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request)
        return await self.handler(request)

    async def fine(self, request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else {}
        return web.json_response({"kind": "ConfigMap", "echo": body})


@pytest.fixture
async def bench() -> Bench:
    return Bench()


@pytest.fixture
async def client(bench: Bench, tmp_path: Path) -> AsyncIterator[Client]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", bench.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    (tmp_path / "token").write_text("secret")
    access = Access(server=f"http://127.0.0.1:{runner.addresses[0][1]}", token_file=tmp_path / "token")
    async with Client(access, user_agent="me", telemetry=bench.telemetry, write_timeout=0.3) as made:
        yield made
    await runner.cleanup()


async def test_who_asks_and_what_is_asked(bench: Bench, client: Client) -> None:
    await client.get(PATH, {"labelSelector": "a=b,c!=d"})
    [request] = bench.seen
    assert request.headers["Authorization"] == "Bearer secret"
    assert request.headers["User-Agent"] == "me"
    assert request.headers["Accept-Encoding"] == "identity"
    assert request.query["labelSelector"] == "a=b,c!=d"


async def test_writes_are_counted_by_verb_and_resource(bench: Bench, client: Client) -> None:
    answer = await client.write("PATCH", f"{PATH}/status", {"a": 1})
    assert answer["echo"] == {"a": 1}
    assert bench.telemetry.writes.values == {("patch", "configmaps/status"): 1.0}


@pytest.mark.parametrize(
    ("status", "reason", "error", "permanent"),
    [
        (409, "Conflict", errors.ConflictError, False),
        (409, "AlreadyExists", errors.AlreadyExistsError, False),
        (404, "NotFound", errors.NotFoundError, False),
        (403, "Forbidden", errors.ForbiddenError, True),
        (401, "Unauthorized", errors.UnauthorizedError, False),
        (422, "Invalid", errors.InvalidError, True),
        (429, "TooManyRequests", errors.TooManyRequestsError, False),
        (410, "Expired", errors.GoneError, False),
        (503, "", errors.UnavailableError, False),
        (415, "", errors.RefusedError, True),
    ],
)
async def test_every_refusal_carries_its_retry_decision(
    bench: Bench, client: Client, status: int, reason: str, error: type[errors.ApiError], *, permanent: bool
) -> None:
    async def refuse(_: web.Request) -> web.StreamResponse:
        body = {"kind": "Status", "reason": reason, "message": "no", "details": {"causes": [{"field": "x"}]}}
        return web.json_response(body, status=status, headers={"Retry-After": "7"})

    bench.handler = refuse
    with pytest.raises(error) as caught:
        await client.get(PATH)
    assert type(caught.value) is error
    assert (caught.value.permanent, caught.value.retry_after, caught.value.fields) == (permanent, 7.0, ("x",))


@pytest.mark.parametrize("told", ["\u00b2", "soon", "-1", ""])
def test_a_time_to_wait_that_is_no_number_is_passed_over(told: str) -> None:
    """Whatever a proxy on the way has written."""
    error = errors.from_status(429, {"details": {"retryAfterSeconds": 3}}, told)
    assert error.retry_after == 3.0


async def test_a_write_that_takes_too_long_is_given_up(bench: Bench, client: Client) -> None:
    async def hang(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        raise AssertionError

    bench.handler = hang
    begin = asyncio.get_running_loop().time()
    with pytest.raises(errors.UnavailableError):
        await client.write("POST", PATH, {"a": 1})
    assert asyncio.get_running_loop().time() - begin < 5


async def test_a_closed_gate_stops_writes_and_nothing_else(bench: Bench, client: Client) -> None:
    def closed(seconds: float) -> None:
        raise errors.NotLeaderError(f"{seconds}")

    client.guard(closed)
    with pytest.raises(errors.NotLeaderError):
        await client.write("POST", PATH, {"a": 1})
    assert bench.seen == []
    await client.get(PATH)
    await client.write_ungated("PUT", PATH, {"a": 1}, seconds=1)


async def test_a_gate_that_closes_at_the_last_moment_lets_nothing_out(bench: Bench, client: Client) -> None:
    """As after SIGSTOP and SIGCONT between the first question and the sending."""
    asked = 0

    def once(_seconds: float) -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise errors.NotLeaderError("too late")

    client.guard(once)
    with pytest.raises(errors.NotLeaderError):
        await client.write("POST", PATH, {"a": 1})
    assert asked == 2
    assert bench.seen == []
    assert not bench.telemetry.writes.values
    assert await client.quiet(1)


async def test_a_watch_delivers_lines_of_any_length_and_tells_errors(bench: Bench, client: Client) -> None:
    long = "x" * 300_000

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"type":"ADDED","object":{"a":"')
        await response.write(long.encode())
        await response.write(b'"}}\n{"type":"BOOKMARK","object":{}}\n')
        await response.write(b'{"type":"ERROR","object":{"code":410,"reason":"Expired","message":"old"}}\n')
        return response

    bench.handler = stream
    events = []
    with pytest.raises(errors.GoneError):  # noqa: PT012 - the error comes out of the loop
        async for event in client.watch("/api/v1/configmaps", {"resourceVersion": "1"}):
            events.append(event)  # noqa: PERF401 - it ends by raising
    assert [e["type"] for e in events] == ["ADDED", "BOOKMARK"]
    assert events[0]["object"]["a"] == long
