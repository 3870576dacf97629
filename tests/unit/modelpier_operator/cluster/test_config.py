from __future__ import annotations

import base64
import json
import ssl
from pathlib import Path
from typing import Any

import pytest

from modelpier_operator.cluster.config import Access, AccessError, find, in_cluster


def kubeconfig(folder: Path, user: dict[str, Any], cluster: dict[str, Any] | None = None) -> dict[str, str]:
    cluster = {"server": "https://198.51.100.1:6443"} if cluster is None else cluster
    data = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
    }
    (folder / "config").write_text(json.dumps(data))
    return {"KUBECONFIG": str(folder / "config")}


def test_a_kubeconfig_with_a_token(tmp_path: Path) -> None:
    authority = base64.b64encode(b"PEM").decode()
    cluster = {"server": "https://198.51.100.1:6443", "certificate-authority-data": authority}
    access = find(kubeconfig(tmp_path, {"token": "t"}, cluster))
    assert (access.server, access.ca, access.bearer()) == ("https://198.51.100.1:6443", b"PEM", "t")


def test_files_are_relative_to_the_kubeconfig_and_a_token_file_is_read_each_time(tmp_path: Path) -> None:
    (tmp_path / "client.crt").write_bytes(b"CERT")
    (tmp_path / "client.key").write_bytes(b"KEY")
    (tmp_path / "token").write_text("one\n")
    user = {"client-certificate": "client.crt", "client-key": "client.key", "tokenFile": "token"}
    access = find(kubeconfig(tmp_path, user))
    assert (access.certificate, access.private_key, access.bearer()) == (b"CERT", b"KEY", "one")
    (tmp_path / "token").write_text("two\n")
    assert access.bearer() == "two"


@pytest.mark.parametrize("unsupported", ["exec", "auth-provider", "username"])
def test_other_ways_are_refused_by_name(tmp_path: Path, unsupported: str) -> None:
    with pytest.raises(AccessError, match=rf"users\[u\].user.{unsupported} is not supported"):
        find(kubeconfig(tmp_path, {unsupported: {}}))


@pytest.mark.parametrize("unsupported", ["tls-server-name", "proxy-url"])
def test_other_ways_to_the_server_are_refused_by_name(tmp_path: Path, unsupported: str) -> None:
    cluster = {"server": "https://198.51.100.1:6443", unsupported: "x"}
    with pytest.raises(AccessError, match=rf"clusters\[k\].cluster.{unsupported} is not supported"):
        find(kubeconfig(tmp_path, {"token": "t"}, cluster))


def test_authorities_without_a_key_usage_are_trusted_as_client_go_does(monkeypatch: pytest.MonkeyPatch) -> None:
    strict = ssl.create_default_context()
    strict.verify_flags |= ssl.VERIFY_X509_STRICT  # as Python makes it from 3.13 on
    monkeypatch.setattr(ssl, "create_default_context", lambda **_: strict)
    context = Access("https://198.51.100.1:6443").tls()
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match=r"cluster\.server is missing"):
        find(kubeconfig(tmp_path, {"token": "t"}, {}))
    with pytest.raises(AccessError, match="cannot be read"):
        find({"KUBECONFIG": str(tmp_path / "nowhere")})
    with pytest.raises(AccessError, match="neither KUBECONFIG nor KUBERNETES_SERVICE_HOST"):
        find({})


def test_in_a_pod(tmp_path: Path) -> None:
    env = {"KUBERNETES_SERVICE_HOST": "2001:db8::1", "KUBERNETES_SERVICE_PORT": "443"}
    with pytest.raises(AccessError, match="automountServiceAccountToken"):
        in_cluster(env, tmp_path)
    (tmp_path / "token").write_text("t")
    (tmp_path / "ca.crt").write_bytes(b"PEM")
    access = in_cluster(env, tmp_path)
    assert (access.server, access.bearer()) == ("https://[2001:db8::1]:443", "t")
