"""Certificates, tokens and kubeconfigs of one cluster, made by openssl. Used once, when a control plane starts.

One authority signs the API server's certificate and the client certificate with which the API server speaks to
kubelets and aggregated APIs. People and nodes identify themselves by tokens. Every certificate has the extensions that
RFC 5280 asks for (4.2.1.1 to 4.2.1.3, 4.2.1.9): Python from 3.13 on refuses others (VERIFY_X509_STRICT).
"""

import base64
import json
import secrets
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from pathlib import Path

from modelpier_cluster.errors import ClusterError
from modelpier_cluster.paths import write_text
from modelpier_cluster.spec import Folder

DAYS = "3650"
AUTHORITY = """[req]
distinguished_name = subject
x509_extensions = extensions
prompt = no
[subject]
CN = modelpier-cluster-ca
[extensions]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""
"""A configuration of our own, because the system's adds extensions that differ from machine to machine."""
LEAF = """basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""
API_SERVER_NAMES = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")


def create_pki(folder: Path, addresses: Iterable[str]) -> None:
    """Fill `folder` with ca, apiserver, client (.crt, .key), sa.key, sa.pub; `addresses` are the server's."""
    folder.mkdir(parents=True, exist_ok=True)
    _key(folder, "sa")
    _openssl(folder, "pkey", "-in", "sa.key", "-pubout", "-out", "sa.pub")
    _key(folder, "ca")
    _authority(folder)
    _certificate(
        folder,
        "apiserver",
        "/CN=kube-apiserver",
        f"extendedKeyUsage=serverAuth\nsubjectAltName={subject_names(API_SERVER_NAMES, addresses)}\n",
    )
    _certificate(folder, "client", "/O=system:masters/CN=front-proxy", "extendedKeyUsage=clientAuth\n")


def subject_names(names: Iterable[str], addresses: Iterable[str]) -> str:
    """The value of a subjectAltName extension."""
    return ",".join([*(f"DNS:{name}" for name in names), *(f"IP:{ip_address(address)}" for address in addresses)])


def create_users(folder: Folder, server: str, nodes: Iterable[str]) -> None:
    """Write tokens.csv (the API server's static token file) and one kubeconfig per user: admin and every node."""
    groups = {"admin": ("admin", "system:masters")}
    groups |= {node: (f"system:node:{node}", "system:nodes") for node in nodes}
    rows = []
    for user, (name, group) in groups.items():
        token = secrets.token_hex(16)
        rows.append(f'{token},{name},{user},"{group}"\n')
        config = kubeconfig(server, token, (folder.pki / "ca.crt").read_bytes(), folder.path.name)
        write_text(folder.kubeconfig(user), json.dumps(config, indent=1), 0o600)
    write_text(folder.path / "tokens.csv", "".join(rows), 0o600)


def kubeconfig(server: str, token: str, authority: bytes, name: str) -> Mapping[str, object]:
    """A kubeconfig as a JSON object (which every YAML reader reads)."""
    cluster = {"server": server, "certificate-authority-data": base64.b64encode(authority).decode()}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
    }


def _key(folder: Path, name: str) -> None:
    _openssl(folder, "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", f"{name}.key")
    (folder / f"{name}.key").chmod(0o600)


def _authority(folder: Path) -> None:
    _key(folder, "ca")
    write_text(folder / "ca.cnf", AUTHORITY)
    _openssl(folder, "req", "-x509", "-new", "-config", "ca.cnf", "-key", "ca.key", "-out", "ca.crt", "-days", DAYS)


def _certificate(folder: Path, name: str, subject: str, extensions: str) -> None:
    _key(folder, name)
    write_text(folder / f"{name}.ext", LEAF + extensions)
    _openssl(folder, "req", "-new", "-key", f"{name}.key", "-out", f"{name}.csr", "-subj", subject)
    signer = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", DAYS)
    _openssl(folder, "x509", "-req", "-in", f"{name}.csr", *signer, "-extfile", f"{name}.ext", "-out", f"{name}.crt")


def _openssl(folder: Path, *arguments: str) -> None:
    if not shutil.which("openssl"):
        raise ClusterError("openssl is missing: install the package openssl")
    result = subprocess.run(
        ["openssl", *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    if result.returncode:
        raise ClusterError(f"openssl {arguments[0]} failed: {result.stderr.strip()}")
