"""Where the API server is and how to prove who we are: from the pod's ServiceAccount, or from KUBECONFIG.

Read once by `__main__`; `client` and kopf's login handler use the same Access.
"""

from __future__ import annotations

import base64
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class AccessError(ValueError):
    """No usable way to an API server; the text says what is missing and the remedy."""


@dataclass(frozen=True)
class Access:
    server: str
    ca: bytes | None = None
    """PEM. None: the system's authorities."""
    token: str | None = None
    token_file: Path | None = None
    """Read again and again: the kubelet rotates it."""
    certificate: bytes | None = None
    private_key: bytes | None = None
    insecure: bool = False

    def bearer(self) -> str | None:
        return self.token_file.read_text().strip() if self.token_file else self.token

    def tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.ca.decode() if self.ca else None)
        # Set by Python from 3.13 on, it refuses authorities without a keyUsage, as many clusters have them. client-go
        # does not ask for it, so that such a cluster works with every other client.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate and self.private_key:
            # The ssl module takes a client certificate from a file alone.
            with tempfile.NamedTemporaryFile() as file:
                file.write(self.certificate + b"\n" + self.private_key)
                file.flush()
                context.load_cert_chain(file.name)
        return context


def find(env: Mapping[str, str], service_account: Path = SERVICE_ACCOUNT) -> Access:
    """KUBECONFIG when it is set, else the pod's ServiceAccount. Raises AccessError."""
    if path := env.get("KUBECONFIG"):
        return from_kubeconfig(Path(path))
    return in_cluster(env, service_account)


def in_cluster(env: Mapping[str, str], folder: Path = SERVICE_ACCOUNT) -> Access:
    host, port = env.get("KUBERNETES_SERVICE_HOST"), env.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise AccessError("no cluster: neither KUBECONFIG nor KUBERNETES_SERVICE_HOST is set; set KUBECONFIG to a file")
    token_file, authority = folder / "token", folder / "ca.crt"
    for file in (token_file, authority):
        if not file.is_file():
            raise AccessError(f"{file}: not there; set automountServiceAccountToken: true for the operator's pod")
    shown = f"[{host}]" if ":" in host else host
    return Access(server=f"https://{shown}:{port}", ca=authority.read_bytes(), token_file=token_file)


def from_kubeconfig(path: Path) -> Access:
    """The current context of one file. Raises AccessError naming the entry that is missing or not supported."""
    try:
        data = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise AccessError(f"KUBECONFIG {path}: cannot be read: {error}") from error
    if not isinstance(data, dict):
        raise AccessError(f"KUBECONFIG {path}: is not a kubeconfig")
    context = _named(data, "contexts", data.get("current-context"), "context", path)
    cluster = _named(data, "clusters", context.get("cluster"), "cluster", path)
    user = _named(data, "users", context.get("user"), "user", path)
    for unsupported in ("exec", "auth-provider", "username"):
        if unsupported in user:
            raise AccessError(
                f"KUBECONFIG {path}: users[{context['user']}].user.{unsupported} is not supported by the operator; "
                "use a token or a client certificate"
            )
    for unsupported in ("tls-server-name", "proxy-url"):
        if cluster.get(unsupported):
            raise AccessError(
                f"KUBECONFIG {path}: clusters[{context['cluster']}].cluster.{unsupported} is not supported by the "
                "operator; use an address that is reached directly and that the server's certificate names"
            )
    if not cluster.get("server"):
        raise AccessError(f"KUBECONFIG {path}: clusters[{context['cluster']}].cluster.server is missing")
    if not str(cluster["server"]).startswith(("http://", "https://")):
        where = f"KUBECONFIG {path}: clusters[{context['cluster']}].cluster.server"
        raise AccessError(f"{where}: {cluster['server']!r} is no http or https URL")
    token_file = user.get("tokenFile")
    return Access(
        server=cluster["server"],
        ca=_content(cluster, "certificate-authority", path),
        token=user.get("token"),
        token_file=path.parent / token_file if token_file else None,
        certificate=_content(user, "client-certificate", path),
        private_key=_content(user, "client-key", path),
        insecure=bool(cluster.get("insecure-skip-tls-verify")),
    )


def _named(data: Mapping[str, Any], group: str, name: str | None, field: str, path: Path) -> Mapping[str, Any]:
    for entry in data.get(group) or ():
        if entry.get("name") == name and isinstance(entry.get(field), dict):
            found: Mapping[str, Any] = entry[field]
            return found
    raise AccessError(f"KUBECONFIG {path}: {group}: no entry named {name!r}")


def _content(entry: Mapping[str, Any], field: str, path: Path) -> bytes | None:
    """A PEM given inline as `FIELD-data`, or as the name of a file, relative to the kubeconfig."""
    if inline := entry.get(f"{field}-data"):
        return base64.b64decode(str(inline))
    if name := entry.get(field):
        try:
            return (path.parent / str(name)).read_bytes()
        except OSError as error:
            raise AccessError(f"KUBECONFIG {path}: {field}: {error}") from error
    return None
