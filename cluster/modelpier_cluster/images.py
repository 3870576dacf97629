"""Builds container images without a daemon, by buildah, from a base image made of Debian packages. Needs root.

`image build` calls build_image(). The same Dockerfiles are built elsewhere by `docker build`: only the arguments
BASE_IMAGE and GPU_BASE_IMAGE differ, which name what is pulled from a public registry there and made here.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from modelpier_cluster.build_secrets import write_secrets
from modelpier_cluster.commands import run, succeeds
from modelpier_cluster.errors import ClusterError
from modelpier_cluster.paths import cache_root, write_text
from modelpier_cluster.progress import Progress

SUITE = "bookworm"
BASE_IMAGE = f"localhost/modelpier-base:{SUITE}"
BASE_PACKAGES = "python3,python3-venv,ca-certificates"
# Nothing of these is needed at run time, and logs and caches would tell about the machine that built the image.
BASE_REMOVED = (
    *("var/cache/apt", "var/lib/apt/lists", "var/log", "usr/share/doc", "usr/share/man", "usr/share/locale"),
    *("usr/share/info", "usr/share/lintian", "tmp", "root/.cache"),
)
BASE_PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
BASE_ARGUMENTS = ("BASE_IMAGE", "GPU_BASE_IMAGE")
BUILD_SECONDS = 1800.0


@dataclass(frozen=True)
class ImageBuild:
    """One call of `image build`. `arguments` are NAME=VALUE, `file` defaults to CONTEXT/Dockerfile."""

    context: Path
    tag: str
    file: Path | None = None
    target: str | None = None
    arguments: tuple[str, ...] = ()

    def dockerfile(self) -> Path:
        """Raises ClusterError when it or the context is not there."""
        if not self.context.is_dir():
            raise ClusterError(f"the context {self.context} is no folder")
        file = self.file or self.context / "Dockerfile"
        if not file.is_file():
            raise ClusterError(f"there is no Dockerfile {file}: name it with --file")
        return file


def store_environment() -> dict[str, str]:
    """Where buildah keeps layers: a folder of the cache, never the machine's own store."""
    folder = cache_root() / "images"
    content = f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/root"\nrunroot = "{folder}/run"\n'
    write_text(folder / "storage.conf", content)
    return {**os.environ, "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"), "BUILDAH_ISOLATION": "chroot"}


def buildah(*arguments: str, timeout: float = BUILD_SECONDS, show: bool = False) -> str:
    """Standard output of buildah; with `show` it goes to standard error instead. Raises ClusterError when it fails."""
    command = ["buildah", *arguments]
    try:
        if show:
            result = subprocess.run(command, env=store_environment(), stdout=2, timeout=timeout, check=False, text=True)
        else:
            result = subprocess.run(
                command, env=store_environment(), capture_output=True, timeout=timeout, check=False, text=True
            )
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"{' '.join(command)} took longer than {timeout:.0f} s") from error
    if result.returncode:
        raise ClusterError(f"{' '.join(command)} failed: {(result.stderr or '').strip()[-2000:]}")
    return result.stdout or ""


def has_image(reference: str) -> bool:
    try:
        buildah("inspect", "--type", "image", reference, timeout=60)
    except ClusterError:
        return False
    return True


def build_image(build: ImageBuild, progress: Progress) -> None:
    """Build `build.tag` into the store; layers of earlier builds are used again."""
    file = build.dockerfile()
    ensure_base(progress)
    given = {argument.partition("=")[0] for argument in build.arguments}
    base = [f"{name}={BASE_IMAGE}" for name in BASE_ARGUMENTS if name not in given]
    with tempfile.TemporaryDirectory(prefix="modelpier-build-") as folder:
        secrets = write_secrets(Path(folder), os.environ)
        buildah(*build_arguments(build, file, [*base, *build.arguments], secrets), show=True)
    progress.say(f"image {build.tag} built")


def build_arguments(build: ImageBuild, file: Path, arguments: Sequence[str], secrets: dict[str, Path]) -> list[str]:
    """The command line of `buildah bud`. Pure."""
    return [
        *("bud", "--quiet", "--layers", "--isolation", "chroot", "--network", "host", "--pull-never"),
        *("--file", str(file), "--tag", build.tag),
        *(("--target", build.target) if build.target else ()),
        *(part for argument in arguments for part in ("--build-arg", argument)),
        *(f"--secret=id={name},src={path}" for name, path in secrets.items()),
        str(build.context),
    ]


def base_recipe() -> str:
    """Changes with whatever goes into the base image; the image's second tag ends in it."""
    recipe = f"{SUITE} {BASE_PACKAGES} {BASE_REMOVED} {BASE_PATH} 1"
    return hashlib.sha256(recipe.encode()).hexdigest()[:12]


def ensure_base(progress: Progress) -> None:
    """Make the base image once (a minute or two), from the packages of DEBIAN_MIRROR or debootstrap's default."""
    exact = f"{BASE_IMAGE}-{base_recipe()}"
    with _locked():
        if has_image(exact):
            return
        progress.say(f"making the base image {BASE_IMAGE} from Debian packages (once)")
        with tempfile.TemporaryDirectory(prefix="base-", dir=cache_root() / "images") as folder:
            root = Path(folder) / "root"
            _install_base(root)
            _tidy_base(root)
            _commit_base(root, exact)
        buildah("tag", exact, BASE_IMAGE)
        progress.say("base image ready")


def _install_base(root: Path) -> None:
    mirror = [os.environ["DEBIAN_MIRROR"]] if os.environ.get("DEBIAN_MIRROR") else []
    debootstrap = ("debootstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", SUITE, str(root), *mirror)
    try:
        run(*debootstrap, timeout=BUILD_SECONDS)
    except ClusterError as error:
        log = root / "debootstrap" / "debootstrap.log"
        detail = log.read_text(errors="replace")[-1000:] if log.exists() else ""
        raise ClusterError(f"{error}\n{detail}\nDEBIAN_MIRROR names another mirror") from error
    # `python` and `pip install` then behave as in the official Python images, whose interpreter is in /usr/local.
    run("chroot", root, "python3", "-m", "venv", "/usr/local", timeout=300)


def _tidy_base(root: Path) -> None:
    for name in BASE_REMOVED:
        for entry in (root / name).glob("*"):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    for cache in list(root.rglob("__pycache__")):
        shutil.rmtree(cache)
    for name in ("etc/resolv.conf", "etc/hostname"):
        (root / name).unlink(missing_ok=True)


def _commit_base(root: Path, tag: str) -> None:
    container = buildah("from", "scratch").strip()
    try:
        buildah("add", "--quiet", container, f"{root}/", "/")
        buildah("config", "--env", f"PATH={BASE_PATH}", "--env", "LANG=C.UTF-8", "--cmd", "python3", container)
        buildah("commit", "--quiet", container, tag)
    finally:
        buildah("rm", container)


@contextmanager
def _locked() -> Iterator[None]:
    folder = cache_root() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def push(image: str, registry: str, name: str) -> None:
    """Copy an image of the store to `registry`/`name` (plain HTTP); raises ClusterError when there is no such image."""
    if not has_image(image):
        raise ClusterError(f"there is no image {image!r}: `image build CONTEXT {image}` makes one, or name an archive")
    # zstd packs several times faster than gzip, and containerd unpacks it, too.
    packing = ("--format", "oci", "--compression-format", "zstd", "--compression-level", "1")
    buildah("push", "--quiet", "--tls-verify=false", *packing, image, f"docker://{registry}/{name}")


def unpacked_size(image: str) -> str:
    """As buildah prints it ("194 MB"): on disk, with the base that other images share."""
    return str(json.loads(buildah("images", "--json", image, timeout=60))[0]["size"])


def remove_image(image: str) -> bool:
    """Forget an image of the store; returns whether there was one."""
    return succeeds("env", f"CONTAINERS_STORAGE_CONF={cache_root()}/images/storage.conf", "buildah", "rmi", image)
