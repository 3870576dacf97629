"""Reports against model servers' admin ports on loopback, played by a small web server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
from aiohttp import web

from modelpier_operator.cluster.reports import Reports
from modelpier_operator.decide.facts import PlanPush
from modelpier_server.contract import PLAN_PATH, SIGNATURE_HEADER, STATE_PATH, Report
from support.builders import report

KEY = ("team", "m")
POD = ("uid", "127.0.0.1")


class Server:
    """A model server's admin port."""

    def __init__(self) -> None:
        self.report: Report = replace(report("r"), generation=1)
        self.changed = asyncio.Event()
        self.taken: list[tuple[bytes, str]] = []
        self.answer: int = 200
        self.port = 0

    def say(self, **changes: object) -> None:
        self.report = replace(self.report, serial=self.report.serial + 1, **changes)  # type: ignore[arg-type]
        self.changed.set()

    async def state(self, request: web.Request) -> web.Response:
        after, wait = int(request.query["after"]), float(request.query["wait"])
        if self.report.serial <= after:
            self.changed.clear()
            try:
                async with asyncio.timeout(wait):
                    await self.changed.wait()
            except TimeoutError:
                pass
        return web.Response(body=self.report.encode())

    async def plan(self, request: web.Request) -> web.Response:
        self.taken.append((await request.read(), request.headers[SIGNATURE_HEADER]))
        if self.answer == 200:
            self.say(generation=2)
        return web.Response(status=self.answer, body=self.report.encode() if self.answer in (200, 409) else b"no")


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made, app = Server(), web.Application()
    app.router.add_get(STATE_PATH, made.state)
    app.router.add_put(PLAN_PATH, made.plan)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.port = runner.addresses[0][1]
    yield made
    await runner.cleanup()


@pytest.fixture
async def reports(server: Server) -> AsyncIterator[Reports]:
    made = Reports(lambda _: None, port=server.port, grace=0.2)
    yield made
    await made.stop()


def push(plan: bytes = b"plan") -> PlanPush:
    return PlanPush("uid", "127.0.0.1", plan, "signature")


async def until(done: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not done():  # noqa: ASYNC110 - what changes is behind a socket
            await asyncio.sleep(0.01)


async def test_a_followed_pod_is_known_and_every_change_arrives(server: Server, reports: Reports) -> None:
    reports.attend(KEY, ["uid"], [POD], [])
    await until(lambda: reports.report("uid") == server.report)
    server.say(ready=False)
    await until(lambda: (known := reports.report("uid")) and not known.ready)


async def test_what_is_no_longer_followed_is_still_known_until_the_pod_goes(server: Server, reports: Reports) -> None:
    reports.attend(KEY, ["uid"], [POD], [])
    await until(lambda: reports.report("uid"))
    reports.attend(KEY, ["uid"], [], [])
    await until(lambda: len(reports) == 0)
    assert reports.report("uid") == server.report
    reports.attend(KEY, [], [], [])
    assert reports.report("uid") is None


async def test_a_plan_arrives_with_its_signature_although_a_poll_is_waiting(server: Server, reports: Reports) -> None:
    reports.attend(KEY, ["uid"], [POD], [])
    await until(lambda: reports.report("uid"))
    reports.attend(KEY, ["uid"], [POD], [push()])
    await until(lambda: (known := reports.report("uid")) and known.generation == 2)
    assert server.taken == [(b"plan", "signature")]


async def test_a_server_that_holds_a_newer_plan_says_so(server: Server, reports: Reports) -> None:
    server.answer = 409
    server.say(generation=9)
    reports.attend(KEY, ["uid"], [], [push()])
    await until(lambda: (known := reports.report("uid")) and known.generation == 9)
    await until(lambda: len(reports) == 0)


async def test_a_refused_plan_is_told_and_tried_again(server: Server, reports: Reports) -> None:
    server.answer = 403
    reports.attend(KEY, ["uid"], [], [push()])
    await until(lambda: "403" in reports.unreachable("uid"))
    server.answer = 200
    await until(lambda: (known := reports.report("uid")) and known.generation == 2)
    assert reports.unreachable("uid") == ""


async def test_a_port_that_stays_closed_is_told_after_a_while(server: Server) -> None:
    changes: list[tuple[str, str]] = []
    reports = Reports(changes.append, port=server.port + 1 if server.port < 65535 else 1, grace=0.3)
    reports.attend(KEY, ["uid"], [POD], [])
    await until(lambda: reports.unreachable("uid"))
    assert changes == [KEY]
    reports.forget(KEY)
    assert reports.unreachable("uid") == ""
    await reports.stop()
