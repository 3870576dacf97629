"""The listening end of a port with TLS: accepts, agrees on keys, and hands over to `Connection`.

By hand, and not by the event loop's servers, whose context is fixed: here each connection gets the newest one, and
those that never come to the end of their handshake count among all connections.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING

from modelpier_server.transport.connection import Connection

if TYPE_CHECKING:
    from modelpier_server.transport.security.tls import Tls
    from modelpier_server.transport.server import Server

BACKLOG = 1024
SHUTDOWN = 5.0
"""Seconds that a client gets to agree on the end of a connection."""
PAUSE = 0.5
"""Seconds until another try where the process has no descriptor left for a connection."""

log = logging.getLogger(__name__)


class SecureListener:
    """Belongs to one `Server`."""

    def __init__(self, server: Server, tls: Tls) -> None:
        self._server = server
        self._tls = tls
        self.sockets: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._handshakes: set[asyncio.Task[None]] = set()

    async def open(self, host: str, port: int) -> None:
        """Raises OSError where it cannot listen."""
        loop = asyncio.get_running_loop()
        places = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        try:
            for family, _, _, _, address in dict.fromkeys(places):
                made = socket.create_server(address[:2], family=family, backlog=BACKLOG)
                made.setblocking(False)
                self.sockets.append(made)
        except OSError:
            self.close()
            raise
        self._accepting = [loop.create_task(self._accept(listening)) for listening in self.sockets]

    @property
    def handshakes(self) -> int:
        """Connections that cannot carry a request yet."""
        return len(self._handshakes)

    def close(self) -> None:
        """Nobody is accepted any more; handshakes go on."""
        for task in self._accepting:
            task.cancel()
        for listening in self.sockets:
            listening.close()

    def abort(self) -> None:
        for task in self._handshakes:
            task.cancel()

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, _ = await loop.sock_accept(listening)
            except OSError as error:  # no descriptors left, or the client is gone already
                log.warning("a connection was not accepted", extra={"error": str(error)})
                await asyncio.sleep(PAUSE)
                continue
            if not self._server.room_for_handshake():
                client.close()  # nobody can be told why before there is a key
                continue
            task = loop.create_task(self._shake(client))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    async def _shake(self, client: socket.socket) -> None:
        server = self._server
        try:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: Connection(server),
                client,
                ssl=self._tls.context,
                ssl_handshake_timeout=server.limits.header_timeout,
                ssl_shutdown_timeout=SHUTDOWN,
            )
        except OSError as error:  # of ssl, of the network, and the time-out
            client.close()
            server.failed_handshake(error)
