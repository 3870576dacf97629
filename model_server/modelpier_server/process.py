"""The life of a server's process: puts the layers together, serves until a signal or until nothing can be served,
drains.

`__main__` runs it. The order at the end (design of the drain): unready at once and alive; go on accepting, because
endpoints take time to propagate; then stop listening, answer what has come, exit 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modelpier_server.contract import EXIT_MODEL_FAILED, Failure
from modelpier_server.lifecycle.admin import routes
from modelpier_server.lifecycle.board import Board
from modelpier_server.lifecycle.catalog import Catalog
from modelpier_server.lifecycle.control import Control
from modelpier_server.lifecycle.follower import Follower
from modelpier_server.lifecycle.journal import Journal
from modelpier_server.lifecycle.parts import Tools
from modelpier_server.lifecycle.plans import LARGEST, Intake, Trust
from modelpier_server.lifecycle.watch import watch
from modelpier_server.offload import Decoder
from modelpier_server.records import Recorder, Tracing
from modelpier_server.repository.disk import Disk
from modelpier_server.repository.fetch import Places, Repository
from modelpier_server.runtime import load, memory
from modelpier_server.runtime.graph_cache import GraphCache
from modelpier_server.scheduler import Mirrors, Servable, Turns
from modelpier_server.settings import PlanSource, Settings, SettingsError
from modelpier_server.telemetry import Metrics
from modelpier_server.transport import (
    BY_FLAG,
    BY_PLAN,
    Access,
    App,
    Extras,
    HttpLimits,
    Router,
    Server,
    VertexRoutes,
    inference_app,
    probe_app,
    serve,
)

if TYPE_CHECKING:
    from modelpier_server.transport.grpc import GrpcServer
    from modelpier_server.transport.security.files import Watch
    from modelpier_server.transport.security.keys import Keys
    from modelpier_server.transport.security.tls import Tls

EXIT_SETTINGS = 2
"""As argparse has it."""
EXIT_NO_PORT = 69
"""EX_UNAVAILABLE of sysexits.h."""
ADMIN_LIMITS = HttpLimits(max_body_bytes=LARGEST, max_buffered_bytes=8 * LARGEST)
"""Before a signature is looked at, anybody may have sent the body."""
MOST_GRAPHS = 2 << 30
"""Bytes of optimised graphs that are kept in the model cache."""
PROBE_LIMITS = HttpLimits(max_body_bytes=1 << 16, max_buffered_bytes=1 << 20, max_connections=256)
LAST_ANSWERS = 1.0
"""Seconds that requests to the ports of administration and probes get at the end."""

log = logging.getLogger(__name__)


class Process:
    """Made and used on the event loop."""

    def __init__(self, settings: Settings, environment: Mapping[str, str]) -> None:
        self._settings = settings
        self._metrics = Metrics()
        self._mirrors = Mirrors()
        self._metrics.sources.append(self._mirrors.lines)
        self._tracing = _tracing() if settings.tracing else None
        observed = settings.access_log > 0 or self._tracing is not None
        self._recorder = Recorder(settings.access_log, self._tracing) if observed else None
        self._catalog: Catalog[Servable] = Catalog()
        self._decoder = Decoder()
        self._board: Board[Servable] = Board()
        self._disk = Disk(settings.model_dir, settings.model_storage, settings.model_dir / "graphs")
        places = Places(self._disk, settings.credentials_dir, settings.pvc_dir)
        self._repository = Repository(places, environment, isolated=settings.source is not None)
        self._repository.clean()
        self._follower = Follower(
            self._tools(),
            self._catalog,
            self._board,
            trusting=settings.source is None,
            drain=settings.drain_limit,
            # Without a plan nothing starts this process again, and several may share the cache.
            journal=Journal(settings.model_dir / "journal" if settings.source is not None else None),
        )
        self._control = Control(self._follower, settings.models) if settings.source is None else None
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._servers: list[Server] = []
        self._grpc: GrpcServer | None = None
        self._watches: list[Watch] = []
        self._tls: Tls | None = None
        self._keys: Keys | None = None

    async def run(self) -> int:
        """Exit status of the process."""
        self._handle_signals()
        try:
            self._secure()
            self._servers = await self._listen()
        except SettingsError as error:
            print(f"modelpier-server: {error}", file=sys.stderr)
            return EXIT_SETTINGS
        except OSError as error:
            print(
                f"modelpier-server: {error.strerror or error}; choose another --http-port, --grpc-port, "
                "--probe-port or --host",
                file=sys.stderr,
            )
            return EXIT_NO_PORT
        watching = self._begin()
        ends: set[asyncio.Future[Any]] = {self._ended, self._follower.fatal}
        await asyncio.wait(ends.union(watching), return_when=asyncio.FIRST_COMPLETED)
        for task in watching:
            if task.done():
                task.result()  # it never ends by itself: a server that follows no plan any longer must not pretend to
            task.cancel()
        if self._ended.done():
            await self._drain()
            return 0
        return await self._fail(self._follower.fatal.result())

    # -------------------------------------------------------------------------------------------- the beginning
    def _tools(self) -> Tools[Servable]:
        turns, disk = Turns(), self._disk
        assert disk.spare is not None
        graphs = GraphCache(disk.spare, MOST_GRAPHS, lambda size: disk.free() >= size)
        return Tools(
            fetch=self._repository.fetch,
            load=lambda path, options, stop, digest: load(path, options, stop, digest, graphs),
            serve=lambda session, planned: Servable(session, planned, self._metrics, turns),
            mirror=self._mirrors.follow,
            release=self._repository.release,
            sweep=self._repository.sweep,
        )

    def _secure(self) -> None:
        """Raises SettingsError. What guards the ports is there before they are."""
        settings = self._settings
        if settings.tls is None and settings.api_keys is None:
            return
        # Here: a laptop without either does not wait for them.
        from modelpier_server.transport.security.files import Watch  # noqa: PLC0415
        from modelpier_server.transport.security.keys import Keys  # noqa: PLC0415
        from modelpier_server.transport.security.tls import Tls  # noqa: PLC0415

        if settings.tls is not None:
            self._tls = Tls(settings.tls, self._metrics)
            self._watches.append(Watch(self._tls, self._metrics))
        if settings.api_keys is not None:
            self._keys = Keys(settings.api_keys)
            self._watches.append(Watch(self._keys, self._metrics))

    async def _listen(self) -> list[Server]:
        settings, source = self._settings, self._settings.source
        servers = []
        if source is not None:  # first: who finds the server alive may ask it for its report
            servers.append(await serve(settings.host, source.admin_port, self._admin(source), ADMIN_LIMITS))
        extras = self._extras()
        app = inference_app(self._catalog, self._metrics, extras)
        limits = HttpLimits(max_buffered_bytes=memory.for_bodies(memory.limit()))
        servers.insert(0, await serve(settings.host, settings.http_port, app, limits))
        self._grpc = await self._listen_grpc(extras)
        about = {"host": settings.host, "http_port": servers[0].port}
        if self._grpc is not None:
            about["grpc_port"] = self._grpc.port
        if source is not None:
            about["admin_port"] = servers[1].port
        if settings.probe_port is not None:
            probes = probe_app(self._catalog, self._metrics)
            servers.append(await serve(settings.host, settings.probe_port, probes, PROBE_LIMITS))
            about["probe_port"] = servers[-1].port
        log.info("listening", extra={**about, "tls": self._tls is not None, "api_keys": self._keys is not None})
        return servers

    def _extras(self) -> Extras:
        settings = self._settings
        refusal = BY_FLAG if settings.source is None else BY_PLAN
        return Extras(
            recorder=self._recorder,
            repository=Access(self._control if settings.repository_control else None, refusal),
            vertex=VertexRoutes(*settings.vertex) if settings.vertex is not None else None,
            tls=self._tls,
            keys=self._keys,
            decoder=self._decoder,
        )

    async def _listen_grpc(self, extras: Extras) -> GrpcServer | None:
        settings = self._settings
        if settings.grpc_port is None:
            return None
        from modelpier_server.transport import grpc  # noqa: PLC0415 - who asks for no port does not wait for it

        limits = grpc.GrpcLimits(max_buffered_bytes=memory.for_bodies(memory.limit()))
        return await grpc.serve(settings.host, settings.grpc_port, self._catalog, self._metrics, limits, extras=extras)

    def _admin(self, source: PlanSource) -> App:
        router = Router()
        for method, path, handler in routes(self._intake(source), self._board):
            router.add(method, path, handler)
        return App(router)

    def _intake(self, source: PlanSource) -> Intake:
        trust = Trust(source.public_key, source.owner_uid, source.pod_set)
        return Intake(trust, lambda: self._board.generation, self._follower.apply, self._follower.refuse)

    def _begin(self) -> list[asyncio.Task[None]]:
        """What goes on as long as the process."""
        source, loop = self._settings.source, asyncio.get_running_loop()
        watching: list[asyncio.Task[None]] = []
        if self._watches:
            from modelpier_server.transport.security.files import follow  # noqa: PLC0415 - as in `_secure`

            watching.append(loop.create_task(follow(self._watches)))
        if source is None:
            assert self._control is not None
            self._control.begin()
        else:
            watching.append(loop.create_task(watch(source.file, self._intake(source).offer, self._follower.refuse)))
        return watching

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)

    def _signalled(self, number: signal.Signals) -> None:
        if self._ended.done():  # asked twice: whoever does that wants it now
            log.warning("ended at once", extra={"signal": number.name})
            os._exit(128 + number)
        log.info("draining", extra={"signal": number.name})
        self._ended.set_result(None)

    # -------------------------------------------------------------------------------------------- the end
    async def _drain(self) -> None:
        self._follower.drain()
        inference, *others = self._servers
        inference.begin_close()  # at once: who uses a kept connection all the time has moved on when listening ends
        await asyncio.sleep(self._settings.drain_accept)
        ending = [inference.stop(self._settings.drain_limit)]
        if self._grpc is not None:
            patient = self._settings.drain_accept > 0  # who is given no time to go has nowhere to go
            ending.append(self._grpc.stop(self._settings.drain_limit, patient=patient))
        if not all(await asyncio.gather(*ending)):
            log.warning("requests were still running at the end", extra={"seconds": self._settings.drain_limit})
        for server in others:
            server.begin_close()
            self._board.changed()  # answers who waits for the report
            await server.stop(LAST_ANSWERS)
        await self._follower.close(0.0)  # requests have had their time
        self._decoder.close()
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close)
        log.info("drained")

    async def _fail(self, failure: Failure) -> int:
        print(f"modelpier-server: {failure.revision}: {failure.reason}: {failure.message}", file=sys.stderr)
        if self._settings.termination_log is not None:
            with contextlib.suppress(OSError):  # not there outside of Kubernetes
                self._settings.termination_log.write_bytes(failure.encode())
        for server in self._servers:
            await server.stop(LAST_ANSWERS)
        if self._grpc is not None:
            await self._grpc.stop(LAST_ANSWERS, patient=False)
        await self._follower.close(0.0)
        self._decoder.close()
        return EXIT_MODEL_FAILED


def _tracing() -> Tracing:
    from modelpier_server.tracing import OtlpTracing  # noqa: PLC0415 - who sends no traces does not wait for the SDK

    return OtlpTracing()
