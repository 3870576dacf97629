"""Certificates made on the spot, and the Secret's volume that they lie in."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


@dataclass(frozen=True)
class Pair:
    """PEM."""

    cert: bytes
    key: bytes

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Paths of certificate and key."""
        folder.mkdir(parents=True, exist_ok=True)
        cert, key = folder / f"{name}.crt", folder / f"{name}.key"
        cert.write_bytes(self.cert)
        key.write_bytes(self.key)
        return cert, key


class Authority:
    def __init__(self, name: str = "authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        made = _builder(self._name, self._name, self._key.public_key(), timedelta(days=2))
        made = made.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self._cert = made.sign(self._key, hashes.SHA256())
        self.pem = self._cert.public_bytes(serialization.Encoding.PEM)

    def issue(self, name: str = "localhost", *, lives: timedelta = timedelta(days=1)) -> Pair:
        """For servers at 127.0.0.1 and for clients; `lives` from an hour ago."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = _builder(_name(name), self._name, key.public_key(), lives)
        places = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        made = made.add_extension(x509.SubjectAlternativeName(places), critical=False)
        uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        made = made.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        cert = made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        return Pair(cert, pem_of(key))


def pem_of(key: ec.EllipticCurvePrivateKey, password: bytes = b"") -> bytes:
    hidden: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password:
        hidden = serialization.BestAvailableEncryption(password)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden)


def encrypted(pair: Pair) -> Pair:
    key = serialization.load_pem_private_key(pair.key, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return Pair(pair.cert, pem_of(key, b"secret"))


class SecretVolume:
    """A Secret as a kubelet mounts it: links into a folder that is switched as a whole."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._count = 0

    def write(self, **files: bytes) -> None:
        """`tls_crt` for `tls.crt`."""
        named = {name.replace("_", "."): content for name, content in files.items()}
        self._count += 1
        folder = self.root / f"..{self._count}"
        folder.mkdir(parents=True)
        for name, content in named.items():
            (folder / name).write_bytes(content)
        new = self.root / "..data_tmp"
        new.symlink_to(folder.name)
        new.rename(self.root / "..data")
        for link in self.root.iterdir():
            if link.is_symlink() and link.name not in named and not link.name.startswith(".."):
                link.unlink()
        for name in named:
            if not (self.root / name).is_symlink():
                (self.root / name).symlink_to(f"..data/{name}")


def _builder(
    name: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, lives: timedelta
) -> x509.CertificateBuilder:
    begin = datetime.now(UTC) - timedelta(hours=1)
    return x509.CertificateBuilder(issuer, name, key, x509.random_serial_number(), begin, begin + lives)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
