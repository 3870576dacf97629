"""The certificates by a TLS client as strict as Python 3.13's; older ones know the same flag."""

from __future__ import annotations

import http.server
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from modelpier_cluster import pki
from modelpier_cluster.api import ApiClient
from modelpier_cluster.errors import ClusterError

relaxed = ssl.create_default_context


def strict(*, cadata: str) -> ssl.SSLContext:
    context = relaxed(cadata=cadata)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


@pytest.fixture(autouse=True)
def as_since_python_3_13(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssl, "create_default_context", strict)


class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in http.server
        """Not into the test's output."""


class Quiet(http.server.ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Whom the client refuses says so; the test sees it at the client."""


@contextmanager
def api_server(folder: Path) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "apiserver.crt", folder / "apiserver.key")
    server = Quiet(("127.0.0.1", 0), Ready)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(("name", "purpose"), [("apiserver", "sslserver"), ("client", "sslclient")])
def test_certificates_pass_the_strict_check(tmp_path: Path, name: str, purpose: str) -> None:
    pki.create_pki(tmp_path, ["127.0.0.1"])
    command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", "ca.crt", f"{name}.crt"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr


def test_a_strict_client_trusts_the_api_server(tmp_path: Path) -> None:
    pki.create_pki(tmp_path, ["127.0.0.1"])
    with api_server(tmp_path) as url:
        assert ApiClient(url, "token", (tmp_path / "ca.crt").read_text()).ready()


def test_a_certificate_that_will_never_do_is_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without = "\n".join(line for line in pki.AUTHORITY.splitlines() if not line.startswith("keyUsage"))
    monkeypatch.setattr(pki, "AUTHORITY", without)
    pki.create_pki(tmp_path, ["127.0.0.1"])
    authority = (tmp_path / "ca.crt").read_text()
    with api_server(tmp_path) as url, pytest.raises(ClusterError, match=r"key usage.*`down` and `up`"):
        ApiClient(url, "token", authority).ready()


def test_the_server_of_another_cluster_only_is_not_ready(tmp_path: Path) -> None:
    for name in "ours", "theirs":
        pki.create_pki(tmp_path / name, ["127.0.0.1"])
    with api_server(tmp_path / "theirs") as url:
        assert not ApiClient(url, "token", (tmp_path / "ours" / "ca.crt").read_text()).ready()
