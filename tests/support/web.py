"""A web server on loopback that tests can make behave badly: no ranges, no tags, faults, versions that change."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Seen:
    path: str
    range: str
    authorization: str
    if_match: str


@dataclass
class Web:
    """`files` by path with query; each may be changed at any time."""

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    tags: bool = True
    lengths: bool = True
    fault: Callable[[Seen], int | None] = lambda _seen: None
    """Status to answer instead; 0: break the connection in the middle of the body."""
    redirects: dict[str, str] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    url: str = ""
    before: Callable[[Seen], None] = lambda _seen: None

    def tag(self, path: str) -> str:
        return f'"{hashlib.md5(self.files[path], usedforsecurity=False).hexdigest()}"'


@contextmanager
def serving(web: Web) -> Iterator[Web]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            headers = self.headers
            seen = Seen(
                self.path, headers.get("range", ""), headers.get("authorization", ""), headers.get("if-match", "")
            )
            web.seen.append(seen)
            web.before(seen)
            if self.path in web.redirects:
                self._answer(302, b"", {"location": web.redirects[self.path]})
            elif (status := web.fault(seen)) is not None:
                self._fault(status)
            elif self.path not in web.files:
                self._answer(404, b"<html>secret in the body</html>", {})
            elif web.tags and seen.if_match and seen.if_match != web.tag(self.path):
                self._answer(412, b"", {})
            else:
                self._file(seen)

        def _file(self, seen: Seen) -> None:
            data = web.files[self.path]
            extra = {"etag": web.tag(self.path)} if web.tags else {}
            if not web.ranges or not seen.range:
                self._answer(200, data, extra)
                return
            start, end = (int(n) for n in seen.range.removeprefix("bytes=").split("-"))
            if start >= len(data):
                self._answer(416, b"", {"content-range": f"bytes */{len(data)}"})
                return
            end = min(end, len(data) - 1)
            extra["content-range"] = f"bytes {start}-{end}/{len(data)}"
            self._answer(206, data[start : end + 1], extra)

        def _fault(self, status: int) -> None:
            if status:
                self._answer(status, b"boom", {})
                return
            self.send_response(206)
            self.send_header("etag", chr(34) + "broken" + chr(34))
            self.send_header("content-length", "1000")
            self.send_header("content-range", "bytes 0-999/1000")
            self.end_headers()
            self.wfile.write(b"x" * 10)
            self.close_connection = True

        def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            length = {"content-length": str(len(body))} if web.lengths else {}
            for name, value in (length | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.close_connection = not web.lengths
            self.wfile.write(body)

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Clients of these tests break connections on purpose."""

    server = Server(("127.0.0.1", 0), Handler)
    web.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
