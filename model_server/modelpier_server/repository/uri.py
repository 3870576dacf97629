"""Model URIs: what `spec.model.uri` and `--model NAME=URI` may say. Pure; used by `settings` callers and by `fetch`.

A URI that ends in "/" is a folder; its one top-level `*.onnx` file is the model and the others are its external data.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from modelpier_server.contract import URI_SCHEMES

LONGEST = 4096
_CLAIM = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_HF_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


class UriError(ValueError):
    """The text names the field `uri`, what is wrong with it, and what to write instead; it holds no secret."""


@dataclass(frozen=True)
class ModelUri:
    """A checked URI. `path` has no "." or ".." in it and no empty part; it is absolute for `file` only."""

    scheme: str
    authority: str
    """Claim, bucket, host or `org/repo`; empty for `file`."""
    path: str
    revision: str = ""
    """Of a hub's repository."""
    url: str = ""
    """What is asked for over HTTP(S), with its query: it can hold a signature, so it is never shown."""

    @property
    def folder(self) -> bool:
        return self.path.endswith("/")

    @property
    def shown(self) -> str:
        """For logs, reports and messages: no user, no query."""
        at = f"@{self.revision}" if self.revision else ""
        gap = "" if self.scheme == "file" else "/"
        return f"{self.scheme}://{self.authority}{at}{gap}{self.path}"[:300]


def parse(text: str) -> ModelUri:
    """Raises UriError."""
    scheme, colon, rest = text.partition("://")
    if not colon or scheme not in URI_SCHEMES:
        allowed = " ".join(f"{s}://" for s in URI_SCHEMES)
        raise UriError(f"uri: must begin with one of {allowed}; got {scheme[:40] if colon else '(no scheme)'}")
    if len(text) > LONGEST or not text.isprintable():
        raise UriError(f"uri: must be at most {LONGEST} printable characters")
    return {"file": _file, "pvc": _pvc, "s3": _s3, "hf": _hub}.get(scheme, _http)(scheme, rest)


def _file(scheme: str, rest: str) -> ModelUri:
    if not rest.startswith("/"):
        raise UriError("uri: a file needs an absolute path, as in file:///models/resnet50/model.onnx (three slashes)")
    return ModelUri(scheme, "", "/" + _clean(unquote(rest[1:]), "file:///models/resnet50/model.onnx"))


def _pvc(scheme: str, rest: str) -> ModelUri:
    claim, _, path = rest.partition("/")
    if not _CLAIM.fullmatch(claim):
        raise UriError(
            "uri: write pvc://CLAIM/PATH, where CLAIM is the name of a PersistentVolumeClaim in this namespace"
        )
    return ModelUri(scheme, claim, _clean(path, f"pvc://{claim}/resnet50/model.onnx"))


def _s3(scheme: str, rest: str) -> ModelUri:
    bucket, _, key = rest.partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise UriError("uri: write s3://BUCKET/KEY; the endpoint and the keys belong in the credentials Secret")
    return ModelUri(scheme, bucket, _clean(key, f"s3://{bucket}/resnet50/model.onnx"))


def _hub(scheme: str, rest: str) -> ModelUri:
    parts = rest.split("/", 2)
    example = "hf://ORG/REPO[@REVISION]/PATH, as in hf://org/encoder@v1.2/onnx/model.onnx"
    if len(parts) < 3:
        raise UriError(f"uri: write {example}")
    org, (repo, _, revision), path = parts[0], parts[1].partition("@"), parts[2]
    if not _HF_NAME.fullmatch(org) or not _HF_NAME.fullmatch(repo):
        raise UriError(f"uri: {org[:40]}/{repo[:40]} is not a repository's name; write {example}")
    return ModelUri(scheme, f"{org}/{repo}", _clean(path, example), revision=unquote(revision) or "main")


def _http(scheme: str, rest: str) -> ModelUri:
    try:
        parts = urlsplit(f"{scheme}://{rest}")
        host, _port = parts.hostname, parts.port
    except ValueError as error:
        raise UriError(f"uri: not a URL: {error}") from error
    if not host:
        raise UriError(f"uri: write {scheme}://HOST/PATH")
    if "@" in parts.netloc:
        raise UriError(
            "uri: a name or password in the URL would be seen by everyone who sees the plan; "
            "put HTTP_USERNAME and HTTP_PASSWORD into the credentials Secret"
        )
    path = _clean(unquote(parts.path).lstrip("/"), f"{scheme}://{parts.netloc}/resnet50/model.onnx")
    if path.endswith("/"):
        raise UriError("uri: HTTP cannot list a folder; name the .onnx file, or keep the folder in s3, hf, pvc or file")
    url = f"{scheme}://{parts.netloc}{quote(parts.path, safe='/%:@!$&()*+,;=~-._')}"
    return ModelUri(scheme, parts.netloc, path, url=f"{url}?{parts.query}" if parts.query else url)


def _clean(path: str, example: str) -> str:
    if not path.strip("/"):
        raise UriError(f"uri: names no file; write it as in {example}")
    parts = path.removesuffix("/").split("/")
    if any(part in {"", ".", ".."} or "\0" in part for part in parts):
        raise UriError('uri: the path must have no empty, "." or ".." part')
    return path
