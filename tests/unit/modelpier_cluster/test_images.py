import gzip
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from modelpier_cluster.archive import scratch_archive
from modelpier_cluster.build_secrets import mirror_options, pip_configurations, write_secrets
from modelpier_cluster.errors import ClusterError
from modelpier_cluster.images import ImageBuild, build_arguments, build_image
from modelpier_cluster.privilege import missing_packages
from modelpier_cluster.progress import Progress
from modelpier_cluster.registry import Files, Registry, split


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("server", ("server", "latest")),
        ("server:2", ("server", "2")),
        ("team/server:2", ("team/server", "2")),
        ("localhost/server:2", ("server", "2")),
        ("198.51.100.1:5000/server", ("server", "latest")),
        ("registry.example.com/team/server:v1", ("team/server", "v1")),
    ],
)
def test_references_lose_their_host(reference: str, expected: tuple[str, str]) -> None:
    assert split(reference) == expected


@pytest.mark.parametrize("reference", ["Server:1", "server:", "a@sha256:12", "a b", "team//server:1", "x:" + "1" * 129])
def test_what_is_no_reference_is_refused(reference: str) -> None:
    with pytest.raises(ClusterError, match="NAME:TAG"):
        split(reference)


def test_an_image_without_a_name_asks_for_one() -> None:
    with pytest.raises(ClusterError, match="--as NAME:TAG"):
        split("")


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_text("no tar")
    with pytest.raises(ClusterError, match="no tar archive"):
        Registry("127.0.0.1:1").push_archive(tmp_path / "x.tar")


def written(path: Path, members: Mapping[str, object]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


INDEX = {"manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "sha256:12"}]}


@pytest.mark.parametrize(
    ("members", "match"),
    [
        ({"manifest.json": []}, "damaged"),
        ({"manifest.json": b"{"}, "damaged"),
        ({"manifest.json": b"\xff"}, "damaged"),
        ({"manifest.json": [3]}, "damaged"),
        ({"manifest.json": [{"RepoTags": ["x:1"], "Layers": []}]}, "'Config' is missing"),
        ({"manifest.json": [{"RepoTags": ["x:1"], "Config": "c", "Layers": []}]}, "'c' is missing"),
        ({"index.json": {}}, "'manifests' is missing"),
        ({"index.json": {"manifests": []}}, "damaged"),
        ({"./index.json": INDEX}, "'blobs/sha256/12' is missing"),
        ({"index.json": INDEX, "blobs/sha256/12": b"[]"}, "damaged"),
        ({"other.json": {}}, "neither a docker-archive nor an OCI archive"),
    ],
)
def test_a_damaged_archive_is_named_with_what_is_wrong(
    tmp_path: Path, members: Mapping[str, object], match: str
) -> None:
    with pytest.raises(ClusterError, match=rf"x\.tar .*{match}"):
        Registry("127.0.0.1:1").push_archive(written(tmp_path / "x.tar", members), "x:1")


def test_an_archive_that_is_cut_off(tmp_path: Path) -> None:
    whole = written(tmp_path / "whole.tar", {"manifest.json": [{"RepoTags": None, "Layers": []}], "x": bytes(5000)})
    packed = gzip.compress(whole.read_bytes())
    (tmp_path / "x.tar").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(ClusterError, match=r"x\.tar is "):
        Registry("127.0.0.1:1").push_archive(tmp_path / "x.tar", "x:1")


@pytest.mark.parametrize(
    ("start", "ending"),
    [(gzip.compress(b"x", mtime=0), "+gzip"), (b"\x28\xb5\x2f\xfd\x00", "+zstd"), (b"tar", "")],
    ids=["gzip", "zstd", "plain"],
)
def test_layers_are_declared_as_they_are_packed(tmp_path: Path, start: bytes, ending: str) -> None:
    with tarfile.open(written(tmp_path / "x.tar", {"./layer": start})) as archive:
        found = Files.of(archive).layer_type("layer")
    assert found == f"application/vnd.oci.image.layer.v1.tar{ending}"


def test_what_is_to_be_built_is_looked_at_first(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="no folder"):
        build_image(ImageBuild(tmp_path / "gone", "x:1"), Progress(quiet=True))
    with pytest.raises(ClusterError, match="no Dockerfile"):
        build_image(ImageBuild(tmp_path, "x:1"), Progress(quiet=True))


def test_a_registry_that_is_down_is_named_with_the_remedy(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("x")
    scratch_archive(tmp_path / "x.tar", "x:1", ["/bin/x"], {"bin/x": program})
    with pytest.raises(ClusterError, match=r"127\.0\.0\.1:1 does not answer.*status"):
        Registry("127.0.0.1:1").push_archive(tmp_path / "x.tar")


def test_archives_are_the_same_when_their_files_are(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("x")
    for name in ("a", "b"):
        scratch_archive(tmp_path / name, "x:1", ["/bin/x"], {"bin/x": program})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_build_command_line() -> None:
    build = ImageBuild(Path("/src"), "server:1", target="cpu")
    argv = build_arguments(build, Path("/src/Dockerfile"), ["A=1", "B=2"], {"ca.crt": Path("/ca")})
    assert argv[-1] == "/src"
    assert " ".join(argv).count("--build-arg") == 2
    assert "--secret=id=ca.crt,src=/ca" in argv
    assert argv[argv.index("--target") + 1] == "cpu"


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    (tmp_path / ".config" / "pip").mkdir(parents=True)
    return {"HOME": str(tmp_path)}


def test_a_machine_without_a_mirror_passes_no_secrets(
    tmp_path: Path, home: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelpier_cluster.build_secrets.pip_configurations", lambda _: [])
    assert write_secrets(tmp_path, home) == {}


def test_variables_are_stronger_than_files(home: dict[str, str]) -> None:
    file = Path(home["HOME"]) / ".config" / "pip" / "pip.conf"
    file.write_text("[global]\nindex-url = https://one.example.com/simple\ntimeout = 5\nquiet = 2\n")
    assert pip_configurations(home)[-1] == file
    options = mirror_options({**home, "PIP_INDEX_URL": "https://two.example.com/simple"}, [file])
    assert options == {"index-url": "https://two.example.com/simple", "timeout": "5"}


def test_the_authority_is_found_where_the_container_mounts_it(
    tmp_path: Path, home: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelpier_cluster.build_secrets.pip_configurations", lambda _: [])
    authority = tmp_path / "ca.pem"
    authority.write_text("certificate")
    secrets = write_secrets(tmp_path, {**home, "SSL_CERT_FILE": str(authority)})
    assert secrets["ca.crt"] == authority
    assert "cert = /run/secrets/ca.crt" in secrets["pip.conf"].read_text()


def test_missing_programs_are_told_as_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    wanted = {"no-such-program": "a-package", "no-other-program": "a-package", "/no/such/file": "keys", "/bin/sh": "sh"}
    assert missing_packages(wanted) == ["a-package", "keys"]
