"""The server's certificate, and the authorities whose clients alone are let in.

`process` makes one `Tls` for both inference ports. The HTTP port asks for `context` at every new connection, gRPC for
`grpc_configuration`: connections that are open keep what they were made with.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from cryptography import x509

from modelpier_server.settings import SettingsError, TlsFiles
from modelpier_server.telemetry import Metrics
from modelpier_server.transport.security.files import log, read

if TYPE_CHECKING:
    import grpc

CERT, KEY, CLIENT_CA = "--tls-cert", "--tls-key", "--tls-client-ca"
LARGEST = 1 << 20
"""Bytes of one file; a system's whole store of authorities has a quarter of that."""


class Tls:
    """A source of `files.Watch`, which calls `take` first of all."""

    what = "tls"

    def __init__(self, files: TlsFiles, metrics: Metrics) -> None:
        self._files = files
        self._metrics = metrics
        self.context: ssl.SSLContext
        """A new one for each set of files: it has no ticket by which a client could go on whose authority has gone."""
        self._pem: tuple[bytes, bytes, bytes | None]

    def files(self) -> Sequence[Path]:
        named = (self._files.cert, self._files.key, self._files.client_ca)
        return [path for path in named if path is not None]

    def take(self) -> None:
        files = self._files
        chain, key = read(files.cert, CERT, LARGEST), read(files.key, KEY, LARGEST)
        authorities = None if files.client_ca is None else read(files.client_ca, CLIENT_CA, LARGEST)
        certificate = _certificate(chain, files.cert)
        context = _context(files)
        if authorities is not None:
            _require_clients(context, authorities, files.client_ca)
        self._pem = (chain, key, authorities)
        self.context = context
        self._metrics.certificate_ends = certificate.not_valid_after_utc.timestamp()
        if self._metrics.certificate_ends < time.time():
            log.warning("the certificate has expired", extra={"file": str(files.cert)})

    # ------------------------------------------------------------------------------------------ gRPC
    def grpc_credentials(self) -> grpc.ServerCredentials:
        import grpc  # noqa: PLC0415 - who asks for no port does not wait for it

        given = self._pem

        def changed() -> grpc.ServerCertificateConfiguration | None:
            """Called at every new connection, by a thread of gRPC."""
            nonlocal given
            if self._pem is given:
                return None
            given = self._pem
            return _configuration(given)

        return grpc.dynamic_ssl_server_credentials(
            _configuration(given),
            changed,  # type: ignore[arg-type] # None is for no change
            require_client_authentication=given[2] is not None,
        )


def _configuration(pem: tuple[bytes, bytes, bytes | None]) -> grpc.ServerCertificateConfiguration:
    import grpc  # noqa: PLC0415 - as above

    chain, key, authorities = pem
    return grpc.ssl_server_certificate_configuration([(key, chain)], authorities)


def _certificate(chain: bytes, path: Path) -> x509.Certificate:
    """The server's own, which comes first."""
    try:
        return x509.load_pem_x509_certificates(chain)[0]
    except ValueError as error:
        raise SettingsError(f"{CERT}: {path} must hold certificates in PEM, the server's own first") from error


def _context(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(files.cert, files.key, _no_password)
    except ssl.SSLError as error:
        text = "is not the key of the certificate" if "MISMATCH" in str(error) else "must hold a private key in PEM"
        raise SettingsError(f"{KEY}: {files.key} {text} ({CERT} {files.cert}): {error.reason or error}") from error
    except OSError as error:  # it was there a moment ago
        raise SettingsError(f"{KEY}: {files.key} cannot be read: {error.strerror}") from error
    return context


def _no_password() -> NoReturn:
    """Otherwise OpenSSL asks for one at the terminal, and waits."""
    raise SettingsError(f"{KEY}: the key is encrypted; give one that is not, and guard its file")


def _require_clients(context: ssl.SSLContext, authorities: bytes, path: Path | None) -> None:
    try:
        context.load_verify_locations(cadata=authorities.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise SettingsError(f"{CLIENT_CA}: {path} must hold certificates of authorities in PEM") from error
    context.verify_mode = ssl.CERT_REQUIRED
