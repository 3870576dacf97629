"""Objects behind HTTP or S3, read by ranges through obstore. `fetch` makes one `Source` per model, `download` reads
from it.

obstore's own retries are off: `retry` is the one place with a limit. Its error texts are never passed on, because
they hold the request's URL and with it signatures.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import obstore
from obstore import exceptions
from obstore.store import HTTPStore, S3Store

from modelpier_server.contract import FailureReason
from modelpier_server.errors import ModelError
from modelpier_server.repository.credentials import Credentials
from modelpier_server.repository.retry import Transient
from modelpier_server.repository.uri import ModelUri, UriError

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import ClientConfig, RetryConfig

HUB = "https://huggingface.co"
MOST_FILES = 1000
CONNECT_TIMEOUT = timedelta(seconds=10)
STALL_TIMEOUT = timedelta(seconds=30)
"""Between two reads of a body."""
REQUEST_TIMEOUT = timedelta(minutes=10)
"""For one range."""
STREAM_TIMEOUT = timedelta(hours=6)
"""For a whole file from a server without ranges."""
NO_RETRIES: RetryConfig = {"max_retries": 0, "retry_timeout": timedelta(seconds=20)}

Opener = Callable[[str, timedelta], tuple[Any, str]]
"""(name within the source, time limit of a request) -> (store, path in the store)."""


class Changed(Exception):  # noqa: N818 - something that happens to an object, handled by starting anew
    """The object is no longer the one of which the first range was read."""


class NoRanges(Exception):  # noqa: N818 - a property of the server, handled by reading in one stream
    """The server cannot be asked for ranges of this object, or not without mixing versions."""


@dataclass(frozen=True)
class Head:
    """The first range of an object and what came with it."""

    data: memoryview
    size: int
    """Bytes of the whole object."""
    tag: str
    """A strong ETag (RFC 9110, 8.8.3): it changes with the bytes."""


class Source:
    """One file (name "") or a folder's files (names relative to it)."""

    def __init__(self, shown: str, opener: Opener, lister: Callable[[], list[str]]) -> None:
        self.shown = shown
        self._open = opener
        self._list = lister

    def names(self) -> list[str]:
        """Files of the folder. Raises ModelError or Transient."""
        with _translated(self.shown):
            return self._list()

    def head(self, name: str, length: int) -> Head:
        """The first `length` bytes at most. Raises NoRanges, ModelError or Transient."""
        with _translated(self.shown):
            try:
                got = self._get(name, {"range": (0, length)})
            except exceptions.GenericError as error:
                if _status(error) == 416:  # what RFC 9110 has for any range of an empty object
                    return Head(memoryview(b""), 0, "")
                raise
            tag = got.meta["e_tag"] or ""
            # A weak tag may stay the same while bytes change, and If-Match never matches it.
            if not tag or tag.startswith("W/"):
                raise NoRanges
            return Head(memoryview(got.buffer()), got.meta["size"], tag)

    def range(self, name: str, start: int, end: int, tag: str) -> memoryview:
        """Bytes [start, end) of the version `tag`. Raises Changed, ModelError or Transient."""
        with _translated(self.shown):
            got = self._get(name, {"range": (start, end), "if_match": tag})
            # Compared as well as asked for: there are servers and caches that ignore If-Match.
            if got.meta["e_tag"] != tag:
                raise Changed
            data = memoryview(got.buffer())
        if len(data) != end - start:
            raise Transient(f"{self.shown}: {len(data)} bytes came instead of {end - start}")
        return data

    def stream(self, name: str) -> tuple[int, Iterator[memoryview]]:
        """(size in bytes, pieces in order) of the whole object; both may raise ModelError or Transient."""
        with _translated(self.shown):
            store, path = self._open(name, STREAM_TIMEOUT)
            got = obstore.get(store, path)
            return got.meta["size"], self._pieces(got)

    def _pieces(self, got: Any) -> Iterator[memoryview]:
        with _translated(self.shown):
            for piece in got.stream(min_chunk_size=1 << 20):
                yield memoryview(piece)

    def _get(self, name: str, options: GetOptions) -> Any:
        store, path = self._open(name, REQUEST_TIMEOUT)
        return obstore.get(store, path, options=options)


# ------------------------------------------------------------------------------------------------ kinds of sources
def open_source(uri: ModelUri, credentials: Credentials) -> Source:
    """Raises UriError when credentials and URI do not go together."""
    return {"s3": _s3, "hf": _hub}.get(uri.scheme, _http)(uri, credentials)


def _http(uri: ModelUri, credentials: Credentials) -> Source:
    stores = _http_stores(uri.url, _http_headers(credentials))
    return Source(uri.shown, lambda _name, limit: (stores[limit], ""), lambda: [""])


def _http_headers(credentials: Credentials) -> dict[str, str]:
    if given := credentials.get("HTTP_AUTHORIZATION"):
        return {"authorization": given}
    if user := credentials.get("HTTP_USERNAME"):
        pair = f"{user}:{credentials.get('HTTP_PASSWORD', '')}".encode()
        return {"authorization": f"Basic {base64.b64encode(pair).decode()}"}
    return {}


def _hub(uri: ModelUri, credentials: Credentials) -> Source:
    hub = credentials.get("HF_ENDPOINT", HUB).rstrip("/")
    _check_endpoint(hub, "HF_ENDPOINT")
    token = credentials.get("HF_TOKEN")
    headers = {"authorization": f"Bearer {token}"} if token else {}
    revision = quote(uri.revision, safe="")
    files = f"{hub}/{uri.authority}/resolve/{revision}"
    tree = f"{hub}/api/models/{uri.authority}/tree/{revision}/{quote(uri.path.rstrip('/'))}?recursive=true"

    stores = _http_stores(files, headers)

    def names() -> list[str]:
        answer = obstore.get(_http_stores(tree, headers)[REQUEST_TIMEOUT], "").buffer()
        return [e["path"].removeprefix(uri.path) for e in json.loads(bytes(answer)) if e.get("type") == "file"]

    return Source(uri.shown, lambda name, limit: (stores[limit], uri.path + name), names)


def _http_stores(url: str, headers: dict[str, str]) -> dict[timedelta, Any]:
    """One per time limit, and kept: a store owns the connections that ranges share."""
    return {
        limit: HTTPStore(
            url, client_options={**_client(url, limit), "default_headers": headers}, retry_config=NO_RETRIES
        )
        for limit in (REQUEST_TIMEOUT, STREAM_TIMEOUT)
    }


def _s3(uri: ModelUri, credentials: Credentials) -> Source:
    endpoint = credentials.get("AWS_ENDPOINT_URL_S3") or credentials.get("AWS_ENDPOINT_URL") or ""
    if endpoint:
        _check_endpoint(endpoint, "AWS_ENDPOINT_URL")
    options: dict[str, Any] = {
        "region": credentials.get("AWS_REGION") or credentials.get("AWS_DEFAULT_REGION") or "us-east-1",
        "retry_config": NO_RETRIES,
        **_s3_identity(credentials, own_endpoint=bool(endpoint)),
    }
    if endpoint:
        options |= {"endpoint": endpoint, "virtual_hosted_style_request": False}
    stores = {
        limit: S3Store(uri.authority, client_options=_client(endpoint, limit), **options)
        for limit in (REQUEST_TIMEOUT, STREAM_TIMEOUT)
    }

    def names() -> list[str]:
        found: list[str] = []
        for page in obstore.list(stores[REQUEST_TIMEOUT], uri.path.rstrip("/"), chunk_size=MOST_FILES):
            found += [entry["path"].removeprefix(uri.path) for entry in page]
            if len(found) > MOST_FILES:
                break
        return found

    return Source(uri.shown, lambda name, limit: (stores[limit], uri.path + name), names)


def _s3_identity(credentials: Credentials, *, own_endpoint: bool) -> dict[str, Any]:
    key, secret = credentials.get("AWS_ACCESS_KEY_ID"), credentials.get("AWS_SECRET_ACCESS_KEY")
    if bool(key) != bool(secret):
        raise UriError("credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are needed together")
    if key:
        identity = {"access_key_id": key, "secret_access_key": secret, "expires_at": None}
        # A provider rather than options: obstore fills missing options from the environment and would mix two
        # identities.
        return {"credential_provider": lambda: {**identity, "token": credentials.get("AWS_SESSION_TOKEN")}}
    # Without keys: on AWS the pod's or the node's own identity; a store of one's own knows no such thing.
    return {"skip_signature": True} if own_endpoint else {}


def _check_endpoint(url: str, field: str) -> None:
    if not url.startswith(("http://", "https://")):
        raise UriError(f"credentials: {field} must begin with https:// or http://")


def _client(url: str, limit: timedelta) -> ClientConfig:
    return {
        "allow_http": url.startswith("http://"),
        "connect_timeout": CONNECT_TIMEOUT,
        "read_timeout": STALL_TIMEOUT,
        "timeout": limit,
        "user_agent": "modelpier-server",
    }


# ------------------------------------------------------------------------------------------------ errors
_STATUS = re.compile(r"status code: (\d{3})")
_CAUSES = (
    ("timed out", re.compile(r"TimedOut|timed out|deadline", re.IGNORECASE)),
    ("connection refused", re.compile(r"ConnectionRefused|Connection refused")),
    ("the host's name cannot be resolved", re.compile(r"dns error|failed to lookup", re.IGNORECASE)),
    ("the server's certificate is not trusted", re.compile(r"certificate|UnknownIssuer", re.IGNORECASE)),
    ("the connection broke", re.compile(r"ConnectionReset|IncompleteMessage|Body|Connection")),
)


@contextmanager
def _translated(shown: str) -> Iterator[None]:
    """Turns obstore's errors into ours."""
    try:
        yield
    except exceptions.NotSupportedError:
        raise NoRanges from None
    except exceptions.PreconditionError:
        raise Changed from None
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
        raise ModelError(FailureReason.DOWNLOAD_FORBIDDEN, f"{shown}: {_cause(error)}: {_FORBIDDEN}") from None
    except FileNotFoundError as error:
        raise ModelError(FailureReason.MODEL_NOT_FOUND, f"{shown}: {_cause(error)}: check the uri") from None
    except exceptions.BaseError as error:
        raise _other(error, shown) from None
    except (KeyError, TypeError, ValueError) as error:
        raise Transient(f"{shown}: the answer is not what this kind of server gives ({type(error).__name__})") from None


_FORBIDDEN = "check the credentials Secret and what it may read"


def _other(error: Exception, shown: str) -> Exception:
    text, status = str(error), _status(error)
    if "169.254.169.254" in text or "security-credentials" in text:
        return ModelError(
            FailureReason.DOWNLOAD_FORBIDDEN,
            f"{shown}: no credentials; name a Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )
    if "Content-Length" in text:
        reason = "the server does not say how long the file is (Content-Length); serve it as a plain file"
        return ModelError(FailureReason.DOWNLOAD_FAILED, f"{shown}: {reason}")
    if status == 410:
        return ModelError(FailureReason.MODEL_NOT_FOUND, f"{shown}: {_cause(error)}: check the uri")
    if status and 400 <= status < 500 and status not in {408, 425, 429}:
        return ModelError(FailureReason.DOWNLOAD_FAILED, f"{shown}: {_cause(error)}")
    return Transient(f"{shown}: {_cause(error)}")


def _status(error: Exception) -> int:
    found = _STATUS.search(str(error))
    return int(found[1]) if found else 0


def _cause(error: Exception) -> str:
    if status := _status(error):
        return f"the server answered {status}"
    text = str(error)
    return next((name for name, pattern in _CAUSES if pattern.search(text)), "the request failed")
