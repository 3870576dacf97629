"""Puts image archives into a cluster's registry over its HTTP API, without any container tool. Used by `load`.

Both formats are understood: docker-archive (`docker save`, `buildah push docker-archive:`) and OCI archive or layout
(image-spec: image-layout.md). API: github.com/opencontainers/distribution-spec.
"""

import contextlib
import hashlib
import json
import posixpath
import re
import tarfile
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from modelpier_cluster.errors import ClusterError

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
COMPRESSIONS = {b"\x1f\x8b": "+gzip", b"\x28\xb5\x2f\xfd": "+zstd"}
"""The first bytes of a compressed layer and what its media type ends in (RFC 1952, RFC 8878)."""
NAME_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
NAME = re.compile(rf"{NAME_PART}(?:/{NAME_PART})*")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
"""Both as the distribution spec writes them ("Pulling manifests")."""
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
TIMEOUT_SECONDS = 300.0


@dataclass(frozen=True)
class Registry:
    """A registry over plain HTTP at `address` (host:port)."""

    address: str

    def push_archive(self, path: Path, name: str | None = None) -> str:
        """Put the first image of an archive; returns its reference. `name` (NAME:TAG) replaces the archive's own.

        Raises ClusterError when the file is no image archive, or has no name and none is given.
        """
        with _understood(path), tarfile.open(path) as archive:
            files = Files.of(archive)
            push = self._push_docker if "manifest.json" in files.members else self._push_oci
            if not {"manifest.json", "index.json"} & files.members.keys():
                raise ClusterError(f"{path} is neither a docker-archive nor an OCI archive")
            return push(files, name)

    def packed_size(self, name: str) -> int:
        """Bytes of the layers of NAME:TAG as a node pulls them. Raises ClusterError."""
        repository, tag = split(name)
        url = f"http://{self.address}/v2/{repository}/manifests/{tag}"
        request = urllib.request.Request(url, headers={"Accept": OCI_MANIFEST})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
                manifest = json.load(answer)
        except (OSError, ValueError) as error:
            raise ClusterError(f"GET {url}: {error}") from error
        return sum(layer["size"] for layer in manifest["layers"])

    def _push_docker(self, files: "Files", name: str | None) -> str:
        entry = files.json("manifest.json")[0]
        repository, tag = split(name or next(iter(entry["RepoTags"] or []), ""))
        config = self._push_blob(repository, files, entry["Config"], OCI_CONFIG)
        layers = [self._push_blob(repository, files, layer, files.layer_type(layer)) for layer in entry["Layers"]]
        manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers}
        return self._push_manifest(repository, tag, json.dumps(manifest).encode(), OCI_MANIFEST)

    def _push_oci(self, files: "Files", name: str | None) -> str:
        descriptor = files.json("index.json")["manifests"][0]
        annotations = descriptor.get("annotations", {})
        # containerd's annotation has the whole name; the specified one may be the tag alone (docker buildx).
        own = annotations.get("io.containerd.image.name") or annotations.get("org.opencontainers.image.ref.name", "")
        repository, tag = split(name or own)
        return self._push_tree(repository, tag, files, descriptor)

    def _push_tree(self, repository: str, tag: str, files: "Files", descriptor: dict[str, Any]) -> str:
        """A manifest with its blobs, or an index with its manifests."""
        content = files.read(_blob_path(descriptor["digest"]))
        manifest = json.loads(content)
        if descriptor["mediaType"] in {OCI_INDEX, DOCKER_LIST}:
            for child in manifest["manifests"]:
                self._push_tree(repository, child["digest"], files, child)
        else:
            for blob in (manifest["config"], *manifest["layers"]):
                self._push_blob(repository, files, _blob_path(blob["digest"]), blob["mediaType"])
        return self._push_manifest(repository, tag, content, descriptor["mediaType"])

    def _push_blob(self, repository: str, files: "Files", member: str, media_type: str) -> dict[str, Any]:
        digest, size = files.digest(member)
        base = f"http://{self.address}/v2/{repository}/blobs"
        if self._request("HEAD", f"{base}/{digest}", missing_is_fine=True) is None:
            location = self._request("POST", f"{base}/uploads/") or ""
            target = urllib.parse.urljoin(base, location)
            target += f"{'&' if '?' in target else '?'}digest={urllib.parse.quote(digest)}"
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
            self._request("PUT", target, lambda: files.open(member), headers)
        return {"mediaType": media_type, "digest": digest, "size": size}

    def _push_manifest(self, repository: str, tag: str, content: bytes, media_type: str) -> str:
        url = f"http://{self.address}/v2/{repository}/manifests/{tag}"
        self._request("PUT", url, lambda: content, {"Content-Type": media_type})
        return f"{self.address}/{repository}{'@' if tag.startswith('sha256:') else ':'}{tag}"

    def _request(
        self,
        method: str,
        url: str,
        body: Callable[[], Any] = lambda: None,
        headers: dict[str, str] | None = None,
        *,
        missing_is_fine: bool = False,
    ) -> str | None:
        """The Location header of the answer ('' without one); None for a 404 where `missing_is_fine`."""
        request = urllib.request.Request(url, body(), headers or {}, method=method)  # noqa: S310
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
                return answer.headers.get("Location") or ""
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 404 and missing_is_fine:
                    return None
                raise ClusterError(
                    f"{method} {url}: {error.code} {error.read(500).decode(errors='replace')}"
                ) from error
        except OSError as error:
            raise ClusterError(f"the registry {self.address} does not answer: {error}. `status` tells more") from error


@dataclass(frozen=True)
class Files:
    """The members of an archive; hard and symbolic links (which docker save writes) are followed."""

    archive: tarfile.TarFile
    members: dict[str, tarfile.TarInfo]  # by their names without a leading ./

    @classmethod
    def of(cls, archive: tarfile.TarFile) -> "Files":
        return cls(archive, {posixpath.normpath(member.name): member for member in archive})

    def open(self, member: str) -> IO[bytes]:
        """Raises KeyError when it, or what it links to, is not there."""
        stream = self.archive.extractfile(self.members[posixpath.normpath(member)])
        if stream is None:
            raise KeyError(member)  # a folder
        return stream

    def layer_type(self, member: str) -> str:
        """A docker archive does not say how its layers are compressed."""
        with self.open(member) as stream:
            start = stream.read(4)
        return OCI_LAYER + next((end for magic, end in COMPRESSIONS.items() if start.startswith(magic)), "")

    def read(self, member: str) -> bytes:
        with self.open(member) as stream:
            return stream.read()

    def json(self, member: str) -> Any:
        return json.loads(self.read(member))

    def digest(self, member: str) -> tuple[str, int]:
        with self.open(member) as stream:
            digest = hashlib.sha256()
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
            return f"sha256:{digest.hexdigest()}", stream.tell()


@contextlib.contextmanager
def _understood(path: Path) -> Iterator[None]:
    """Whatever a damaged or foreign archive makes of our reading becomes a ClusterError that names it."""
    try:
        yield
    except tarfile.TarError as error:
        raise ClusterError(f"{path} is no tar archive: {error}") from error
    except KeyError as error:
        raise ClusterError(f"{path} is no whole image archive: {error} is missing") from error
    except (AttributeError, EOFError, IndexError, TypeError, ValueError, zlib.error) as error:
        raise ClusterError(f"{path} is a damaged image archive: {error}") from error


def _blob_path(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def split(reference: str) -> tuple[str, str]:
    """('team/server', '2') for 'registry:5000/team/server:2' or 'team/server:2'; the tag defaults to latest.

    Raises ClusterError for what is no reference, and for one by digest, under which nothing can be put.
    """
    first, slash, rest = reference.partition("/")
    # The part before the first slash is a host when it could be one, as everywhere in the container world.
    if slash and ("." in first or ":" in first or first == "localhost"):
        reference = rest
    name, colon, tag = reference.rpartition(":")
    if not colon:
        name, tag = tag, "latest"
    if not name:
        raise ClusterError("the archive does not say how its image is called: give a name with --as NAME:TAG")
    if not NAME.fullmatch(name) or not TAG.fullmatch(tag):
        raise ClusterError(
            f"{reference!r} is neither a file nor an image's NAME:TAG (lower case, such as team/server:2)"
        )
    return name, tag
