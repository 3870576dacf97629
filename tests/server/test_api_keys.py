"""API keys of the real process: from a Secret's volume, changed while it serves."""

from __future__ import annotations

import subprocess
from pathlib import Path

import grpc
import pytest

from modelpier_server import contract
from modelpier_server.protocol.grpc.generated import inference_pb2 as pb
from support.certificates import SecretVolume
from support.server_process import ServerProcess, infer_body, server, wait_for

INFER = "/v2/models/m/infer"
METADATA = "/inference.GRPCInferenceService/ServerMetadata"


def made(name: str, scopes: str = "infer") -> tuple[str, bytes]:
    """A key and its line, by the commands that the how-to shows."""
    script = f"""
        KEY=$(openssl rand -hex 32)
        echo "$KEY"
        echo "{name} {scopes} sha256:$(printf %s "$KEY" | sha256sum | cut -d' ' -f1)"
    """
    key, line = subprocess.run(["sh", "-c", script], check=True, capture_output=True, text=True).stdout.splitlines()
    return key, line.encode()


def status(running: ServerProcess, key: str) -> int:
    return running.call("POST", INFER, infer_body(), {"Authorization": f"Bearer {key}"})[0]


def by_grpc(running: ServerProcess, key: str) -> grpc.StatusCode:
    with grpc.insecure_channel(f"127.0.0.1:{running.grpc}") as channel:
        call = channel.unary_unary(
            METADATA,
            request_serializer=pb.ServerMetadataRequest.SerializeToString,
            response_deserializer=pb.ServerMetadataResponse.FromString,
        )
        try:
            call(pb.ServerMetadataRequest(), timeout=10, metadata=(("authorization", f"Bearer {key}"),))
        except grpc.RpcError as error:
            return grpc.StatusCode(error.code())
    return grpc.StatusCode.OK


def test_keys_come_and_go_while_it_serves(tmp_path: Path, identity: Path) -> None:
    volume = SecretVolume(tmp_path / "keys")
    (first, line), (second, other) = made("first"), made("second", "infer,admin")
    volume.write(team=line)
    flags = ["--model", f"m={identity}", "--api-keys", str(volume.root), "--allow-repository-control"]
    with server(tmp_path / "s", *flags, grpc=True) as running:
        running.wait_ready()  # health asks for no key
        assert (status(running, first), status(running, second), status(running, "")) == (200, 401, 401)
        assert by_grpc(running, first) is grpc.StatusCode.OK
        assert by_grpc(running, second) is grpc.StatusCode.UNAUTHENTICATED
        assert running.call("POST", "/v2/repository/models/m/unload", headers={"X-API-Key": first})[0] == 403

        volume.write(team=b"# the first one is gone\n" + other)
        wait_for(lambda: status(running, second) == 200)
        assert status(running, first) == 401
        assert by_grpc(running, second) is grpc.StatusCode.OK
        assert by_grpc(running, first) is grpc.StatusCode.UNAUTHENTICATED

        volume.write(team=line + b" nonsense")
        figure = b'modelpier_security_reloads_total{what="api_keys",result="refused"} 1\n'
        wait_for(lambda: figure in running.call("GET", contract.METRICS_PATH)[1])
        assert (status(running, first), status(running, second)) == (401, 200)
        assert "line 1: must be" in running.output
        assert running.call("POST", "/v2/repository/models/m/unload", headers={"X-API-Key": second})[0] == 200
        assert status(running, second) == 404
        for secret in (first, second, line.decode().split(":")[1]):
            assert secret not in running.output


@pytest.mark.parametrize(("content", "named"), [(b"nonsense", "line 1: must be"), (None, "cannot be read")])
def test_a_bad_beginning_names_the_setting(tmp_path: Path, identity: Path, content: bytes | None, named: str) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content)
    with server(tmp_path / "s", "--model", f"m={identity}", "--api-keys", str(path)) as running:
        assert running.wait() == 2
        assert "--api-keys: " in running.output
        assert named in running.output
