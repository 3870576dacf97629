"""TLS of both inference ports of the real process: who is let in, and files that change while it serves."""

from __future__ import annotations

import http.client
import re
import signal
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from modelpier_server import contract
from modelpier_server.protocol.grpc.generated import inference_pb2 as pb
from support import onnx_models
from support.certificates import Authority, Pair, SecretVolume, encrypted
from support.server_process import ServerProcess, free_port, infer_body, server, wait_for

INFER = "/v2/models/m/infer"
READY = "/inference.GRPCInferenceService/ServerReady"


class Place:
    """Authorities, the server's volume, and its process."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.authority, self.clients = Authority("server"), Authority("clients")
        self.volume = SecretVolume(root / "tls")
        self.process: ServerProcess
        self.probes = free_port()

    def write(self, pair: Pair | None = None, ca: bytes | None = None) -> Pair:
        pair = pair or self.authority.issue()
        self.volume.write(tls_crt=pair.cert, tls_key=pair.key, **{} if ca is None else {"ca_crt": ca})
        return pair

    @contextmanager
    def serving(self, identity: Path, *, mutual: bool = False) -> Iterator[ServerProcess]:
        flags = ["--tls-cert", str(self.volume.root / "tls.crt"), "--tls-key", str(self.volume.root / "tls.key")]
        if mutual:
            flags += ["--tls-client-ca", str(self.volume.root / "ca.crt")]
        flags += ["--model", f"m={identity}", "--probe-port", str(self.probes)]
        with server(self.root / "s", *flags, grpc=True) as self.process:
            wait_for(lambda: self.probe(contract.READY_PATH) == 200 or self.process.process.poll() is not None)
            assert self.process.process.poll() is None, self.process.output
            yield self.process

    def probe(self, path: str) -> int:
        return self.process.call("GET", path, port=self.probes)[0]

    def figure(self, name: str, **labels: str) -> float:
        text = self.process.call("GET", contract.METRICS_PATH, port=self.probes)[1].decode()
        pairs = ",".join(f'{key}="{value}"' for key, value in labels.items())
        wanted = f"{{{pairs}}}" if pairs else ""
        found = re.search(rf"^{re.escape(name + wanted)} (\S+)$", text, re.MULTILINE)
        assert found, text
        return float(found[1])

    def context(self, client: Pair | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.authority.pem.decode())
        if client is not None:
            context.load_cert_chain(*client.write(self.root / "client", "client"))
        return context

    def connect(self, context: ssl.SSLContext | None = None) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(
            "127.0.0.1", self.process.port, timeout=20, context=context or self.context()
        )

    def infer(self, context: ssl.SSLContext | None = None) -> int:
        connection = self.connect(context)
        try:
            return infer(connection)
        finally:
            connection.close()

    def ready_by_grpc(self, authority: bytes | None = None, client: Pair | None = None) -> bool:
        pair = (client.key, client.cert) if client is not None else (None, None)
        credentials = grpc.ssl_channel_credentials(authority or self.authority.pem, *pair)
        with grpc.secure_channel(f"localhost:{self.process.grpc}", credentials) as channel:
            return bool(ready(channel))

    def serial(self) -> int:
        """Of the certificate that a new connection is shown."""
        with (
            socket.create_connection(("127.0.0.1", self.process.port), timeout=20) as plain,
            self.context().wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            return int(str((secure.getpeercert() or {})["serialNumber"]), 16)


def infer(connection: http.client.HTTPConnection, headers: Mapping[str, str] | None = None) -> int:
    connection.request("POST", INFER, infer_body(), dict(headers or {}))
    answer = connection.getresponse()
    answer.read()
    return answer.status


def ready(channel: grpc.Channel) -> bool:
    call = channel.unary_unary(
        READY,
        request_serializer=pb.ServerReadyRequest.SerializeToString,
        response_deserializer=pb.ServerReadyResponse.FromString,
    )
    return bool(call(pb.ServerReadyRequest(), timeout=10).ready)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_both_ports_speak_tls_and_probes_do_not_need_to(place: Place, identity: Path) -> None:
    place.write()
    with place.serving(identity) as running:
        assert place.infer() == 200
        assert place.ready_by_grpc()
        connection = place.connect()
        assert [infer(connection) for _ in range(3)] == [200] * 3
        assert connection.sock.selected_alpn_protocol() is None
        connection.close()
        assert place.probe(contract.LIVE_PATH) == 200
        assert place.probe(INFER) == 404
        assert running.call("GET", contract.READY_PATH)[0] == 0  # in plain, on the port that speaks TLS
        assert place.figure("modelpier_tls_handshake_failures_total") >= 1
        assert running.call("GET", contract.READY_PATH, port=running.grpc)[0] == 0
        with pytest.raises(ssl.SSLError):
            place.infer(ssl.create_default_context(cadata=Authority().pem.decode()))
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.load_verify_locations(cadata=place.authority.pem.decode())
        old.set_alpn_protocols(["h2", "http/1.1"])
        assert place.infer(old) == 200
        running.signal(signal.SIGTERM)
        assert running.wait() == 0, running.output


def test_a_large_body_both_ways_and_one_that_is_refused(place: Place, tmp_path: Path) -> None:
    wide = onnx_models.write(onnx_models.identity(shape=("n", 500_000)), tmp_path / "wide.onnx")
    place.write()
    with place.serving(wide):
        connection = place.connect()
        body = bytes(range(256)) * 7812 + b"\0" * 128
        assert len(body) == 2_000_000
        for _ in range(3):
            connection.request("POST", INFER, body, {"Inference-Header-Content-Length": "0"})
            answer = connection.getresponse()
            length = int(answer.headers["Inference-Header-Content-Length"])
            assert answer.read()[length:] == body
        # Refused before it is read, while the client goes on to send it: the answer is not lost on the way.
        connection.request("POST", "/v2/models/unknown/infer", body)
        answer = connection.getresponse()
        assert (answer.status, answer.headers["connection"]) == (404, "close")
        assert b"unknown" in answer.read()
        connection.close()


def test_a_new_certificate_is_taken_and_open_connections_stay(place: Place, identity: Path) -> None:
    place.write()
    with place.serving(identity):
        first = place.serial()
        kept = place.connect()
        assert infer(kept) == 200
        credentials = grpc.ssl_channel_credentials(place.authority.pem)
        with grpc.secure_channel(f"localhost:{place.process.grpc}", credentials) as channel:
            assert ready(channel)
            place.write()
            wait_for(lambda: place.serial() != first)
            assert place.figure("modelpier_security_reloads_total", what="tls", result="taken") == 1
            assert infer(kept) == 200
            assert ready(channel)
        kept.close()

        place.authority = Authority("another")  # as who does not know the first one
        place.write()
        wait_for(lambda: place.figure("modelpier_security_reloads_total", what="tls", result="taken") == 2)
        assert place.infer() == 200
        assert place.ready_by_grpc()
        assert place.figure("modelpier_security_reloads_total", what="tls", result="refused") == 0


def test_a_bad_new_certificate_leaves_the_old_one(place: Place, identity: Path) -> None:
    place.write()
    with place.serving(identity) as running:
        first = place.serial()
        ends = place.figure("modelpier_tls_certificate_not_after_seconds")
        place.write(Pair(place.authority.issue().cert, place.authority.issue().key))
        wait_for(lambda: place.figure("modelpier_security_reloads_total", what="tls", result="refused") == 1)
        assert "--tls-key" in running.output
        assert place.serial() == first
        assert place.ready_by_grpc()
        (place.volume.root / "tls.crt").unlink()
        wait_for(lambda: place.figure("modelpier_security_reloads_total", what="tls", result="refused") == 2)
        assert place.infer() == 200
        place.write()
        wait_for(lambda: place.figure("modelpier_security_reloads_total", what="tls", result="taken") == 1)
        assert place.serial() != first
        assert place.figure("modelpier_tls_certificate_not_after_seconds") >= ends


def test_only_clients_of_the_authority_are_let_in(place: Place, identity: Path) -> None:
    place.write(ca=place.clients.pem)
    good = place.clients.issue("client")
    with place.serving(identity, mutual=True):
        assert place.infer(place.context(good)) == 200
        assert place.ready_by_grpc(client=good)
        for bad in (None, Authority("clients").issue("client")):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                place.infer(place.context(bad))
            with pytest.raises(grpc.RpcError) as error:
                place.ready_by_grpc(client=bad)
            assert error.value.code() is grpc.StatusCode.UNAVAILABLE
        assert place.probe(contract.READY_PATH) == 200

        # Another authority: who was let in by a ticket of the first one's time is not any more.
        session = resumable(place, good)
        place.clients = Authority("other clients")
        place.write(ca=place.clients.pem)
        wait_for(lambda: place.figure("modelpier_security_reloads_total", what="tls", result="taken") == 1)
        assert place.infer(place.context(place.clients.issue("client"))) == 200
        assert place.ready_by_grpc(client=place.clients.issue("client"))
        with pytest.raises((ssl.SSLError, ConnectionError)):
            place.infer(place.context(good))
        with pytest.raises((ssl.SSLError, ConnectionError)):
            exchange(place, *session)
        with pytest.raises(grpc.RpcError):
            place.ready_by_grpc(client=good)


def resumable(place: Place, client: Pair) -> tuple[ssl.SSLContext, ssl.SSLSession]:
    context = place.context(client)
    _, session = exchange(place, context, None)
    resumed, session = exchange(place, context, session)
    assert resumed
    return context, session


def exchange(place: Place, context: ssl.SSLContext, session: ssl.SSLSession | None) -> tuple[bool, ssl.SSLSession]:
    """One request; whether the session was resumed, and the one to resume next."""
    request = f"GET {contract.READY_PATH} HTTP/1.1\r\nHost: t\r\n\r\n".encode()
    with (
        socket.create_connection(("127.0.0.1", place.process.port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname="localhost", session=session) as secure,
    ):
        secure.sendall(request)
        answer = secure.recv(1000)
        if not answer:  # with TLS 1.3 clients learn of a refusal after their handshake
            raise ConnectionAbortedError
        assert answer.startswith(b"HTTP/1.1 200")
        assert secure.session is not None
        return bool(secure.session_reused), secure.session


@pytest.mark.parametrize("case", ["no key", "mismatch", "no PEM", "encrypted", "authority", "missing", "half"])
def test_a_bad_beginning_names_the_setting(tmp_path: Path, identity: Path, case: str) -> None:
    authority = Authority()
    good, other = authority.issue(), authority.issue()
    pair = {"mismatch": Pair(good.cert, other.key), "no key": Pair(good.cert, b""), "no PEM": Pair(b"x", good.key)}
    cert, key = (encrypted(good) if case == "encrypted" else pair.get(case, good)).write(tmp_path, "server")
    ca = tmp_path / "ca.crt"
    ca.write_bytes(b"x" if case == "authority" else authority.pem)
    if case == "missing":
        key.unlink()
    flags = ["--tls-cert", str(cert), "--tls-client-ca", str(ca)]
    flags += [] if case == "half" else ["--tls-key", str(key)]
    with server(tmp_path / "s", "--model", f"m={identity}", *flags) as running:
        assert running.wait() == 2
        named = {"no PEM": "--tls-cert:", "authority": "--tls-client-ca:"}.get(case, "--tls-key")
        assert named in running.output
        assert "Traceback" not in running.output
        assert {"encrypted": "encrypted", "mismatch": "is not the key"}.get(case, "") in running.output


def test_who_never_ends_a_handshake_takes_no_place_for_long(place: Place, identity: Path) -> None:
    place.write()
    with place.serving(identity):
        silent = [socket.create_connection(("127.0.0.1", place.process.port), timeout=40) for _ in range(50)]
        assert place.infer() == 200
        for connection in silent:
            assert connection.recv(1) == b""  # after header_timeout
            connection.close()
        assert place.figure("modelpier_tls_handshake_failures_total") >= 50
        assert place.infer() == 200
