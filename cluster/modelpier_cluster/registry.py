"""Puts image archives into a cluster's registry over its HTTP API, without any container tool. Used by `load`.

Both formats are understood: docker-archive (`docker save`, `buildah push docker-archive:`) and OCI archive or layout
(image-spec: image-layout.md). API: github.com/opencontainers/distribution-spec.
"""

import hashlib
import json
import tarfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from modelpier_cluster.errors import ClusterError

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
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
        try:
            with tarfile.open(path) as archive:
                members = archive.getnames()
                push = self._push_docker if "manifest.json" in members else self._push_oci
                if not {"manifest.json", "index.json"} & set(members):
                    raise ClusterError(f"{path} is neither a docker-archive nor an OCI archive")
                return push(_Files(archive), name)
        except tarfile.TarError as error:
            raise ClusterError(f"{path} is no tar archive: {error}") from error

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

    def _push_docker(self, files: "_Files", name: str | None) -> str:
        entry = files.json("manifest.json")[0]
        repository, tag = split(name or next(iter(entry["RepoTags"] or []), ""))
        config = self._push_blob(repository, files, entry["Config"], OCI_CONFIG)
        layers = [self._push_blob(repository, files, layer, OCI_LAYER) for layer in entry["Layers"]]
        manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers}
        return self._push_manifest(repository, tag, json.dumps(manifest).encode(), OCI_MANIFEST)

    def _push_oci(self, files: "_Files", name: str | None) -> str:
        descriptor = files.json("index.json")["manifests"][0]
        annotations = descriptor.get("annotations", {})
        repository, tag = split(name or annotations.get("org.opencontainers.image.ref.name", ""))
        return self._push_tree(repository, tag, files, descriptor)

    def _push_tree(self, repository: str, tag: str, files: "_Files", descriptor: dict[str, Any]) -> str:
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

    def _push_blob(self, repository: str, files: "_Files", member: str, media_type: str) -> dict[str, Any]:
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
class _Files:
    """The members of an archive; hard and symbolic links (which docker save writes) are followed."""

    archive: tarfile.TarFile

    def open(self, member: str) -> IO[bytes]:
        stream = self.archive.extractfile(member)
        if stream is None:
            raise ClusterError(f"the archive has no file {member}")
        return stream

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


def _blob_path(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def split(reference: str) -> tuple[str, str]:
    """('team/server', '2') for 'registry:5000/team/server:2' or 'team/server:2'; the tag defaults to latest.

    Raises ClusterError for an empty reference.
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
    return name, tag
