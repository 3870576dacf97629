"""API keys: which are known, by their digests alone, and what each may do.

`transport.server` and `transport.grpc.edge` ask `Keys.check` before anything of a request but its head has been read.
A key must be random and long (32 bytes): then its SHA-256 is as good as a slow hash, and costs a microsecond.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hmac import compare_digest
from pathlib import Path

from modelpier_server.errors import OutOfScope, Unauthorized
from modelpier_server.settings import SettingsError
from modelpier_server.transport.security.files import log, read
from modelpier_server.transport.security.scopes import Scope

FLAG = "--api-keys"
LARGEST = 1 << 20
"""Bytes of one file: as many as a whole Secret may have."""
MOST_FILES = 1000
FORM = "NAME SCOPES sha256:HEX, SCOPES being infer, admin or both with a comma"
_LINE = re.compile(r"(?P<name>\S{1,100})\s+(?P<scopes>\S+)\s+sha256:(?P<digest>[0-9a-fA-F]{64})")
_PREFIX = 8
"""Bytes of a digest by which it is looked up."""
AUTHORIZATION, API_KEY = "authorization", "x-api-key"


@dataclass(frozen=True, slots=True)
class Key:
    """A known one."""

    name: str
    """For the access log; several keys may share it while one takes the place of another."""
    digest: bytes
    scopes: frozenset[Scope]


class Keys:
    """A source of `files.Watch`, which calls `take` first of all. `place` is a file or a folder of files."""

    what = "api_keys"

    def __init__(self, place: Path) -> None:
        self._place = place
        self._known: dict[bytes, list[Key]] = {}

    def files(self) -> Sequence[Path]:
        """Of a Secret's volume those that are keys of the Secret."""
        if not self._place.is_dir():
            return [self._place]
        return sorted(path for path in self._place.iterdir() if not path.name.startswith(".") and path.is_file())

    def take(self) -> None:
        try:
            files = self.files()
        except OSError as error:
            raise SettingsError(f"{FLAG}: {self._place} cannot be read: {error.strerror}") from error
        if len(files) > MOST_FILES:
            raise SettingsError(f"{FLAG}: {self._place} has more than {MOST_FILES} files")
        found = [key for path in files for key in _keys(path)]
        self._known = _by_prefix(found)
        if not found:
            log.warning("there are no API keys: all but health and metrics is refused", extra={"in": str(self._place)})

    def check(self, presented: bytes | None, scope: Scope) -> Key:
        """Raises Unauthorized, OutOfScope."""
        if presented is None:
            raise Unauthorized("an API key is needed: send the header Authorization: Bearer KEY, or X-API-Key: KEY")
        key = self.find(presented)
        if key is None:
            raise Unauthorized("the API key is not known here", known=False)
        if scope not in key.scopes:
            raise OutOfScope(f"the API key '{key.name}' lacks the scope {scope}", scope)
        return key

    def check_http(self, headers: Mapping[bytes, bytes], scope: Scope) -> Key:
        """`headers` by lower-case name. Raises as `check`."""
        return self.check(_of_http(headers), scope)

    def check_metadata(self, pairs: Iterable[tuple[str, str | bytes]] | None, scope: Scope) -> Key:
        """`pairs` of a gRPC call. Raises as `check`."""
        return self.check(_of_metadata(pairs), scope)

    def caller(self, headers: Mapping[bytes, bytes]) -> str:
        """Name of the key of an HTTP request; empty: none that is known."""
        presented = _of_http(headers)
        key = self.find(presented) if presented is not None else None
        return key.name if key is not None else ""

    def find(self, presented: bytes) -> Key | None:
        digest = hashlib.sha256(presented).digest()
        for key in self._known.get(digest[:_PREFIX], ()):
            if compare_digest(key.digest, digest):
                return key
        return None


def _of_http(headers: Mapping[bytes, bytes]) -> bytes | None:
    return _presented(headers.get(b"authorization"), headers.get(b"x-api-key"))


def _of_metadata(pairs: Iterable[tuple[str, str | bytes]] | None) -> bytes | None:
    """The key of a call."""
    found = {name: value.encode() if isinstance(value, str) else value for name, value in pairs or ()}
    return _presented(found.get(AUTHORIZATION), found.get(API_KEY))


def _presented(authorization: bytes | None, api_key: bytes | None) -> bytes | None:
    if authorization is not None:
        scheme, _, key = authorization.partition(b" ")
        if scheme.lower() == b"bearer":
            return key.strip()
    return api_key


def _keys(path: Path) -> list[Key]:
    """Raises SettingsError, which never quotes what it found: that may be a key."""
    try:
        lines = read(path, FLAG, LARGEST).decode().splitlines()
    except UnicodeDecodeError as error:
        raise SettingsError(f"{FLAG}: {path} must be text, a key a line: {FORM}") from error
    found = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text and not text.startswith("#"):
            found.append(_key(text, f"{FLAG}: {path} line {number}"))
    return found


def _key(text: str, where: str) -> Key:
    match = _LINE.fullmatch(text)
    if match is None:
        raise SettingsError(f"{where}: must be {FORM}; HEX is the key's SHA-256, 64 hexadecimal digits")
    wanted = match["scopes"].split(",")
    if unknown := [scope for scope in wanted if scope not in set(Scope)]:
        raise SettingsError(f"{where}: unknown scope '{unknown[0][:20]}'; known: {', '.join(Scope)}")
    return Key(match["name"], bytes.fromhex(match["digest"]), frozenset(map(Scope, wanted)))


def _by_prefix(keys: Iterable[Key]) -> dict[bytes, list[Key]]:
    """Raises SettingsError for a key that is there twice."""
    found: dict[bytes, list[Key]] = {}
    seen: set[bytes] = set()
    for key in keys:
        if key.digest in seen:
            raise SettingsError(f"{FLAG}: the key '{key.name}' is there twice; give it both scopes in one line")
        seen.add(key.digest)
        found.setdefault(key.digest[:_PREFIX], []).append(key)
    return found
