"""Builds the cluster's programs from the three Go modules beside this package, once per content. Used by all verbs.

Each module is built into a folder of the cache that is named by a hash of its sources, the Go version and the flags.
A further folder links all programs under their own names (and kubectl), so that one entry in PATH is enough.
"""

import hashlib
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from modelpier_cluster.errors import ClusterError
from modelpier_cluster.go_toolchain import Go, build_environment, choose_go, install_go, needed_version
from modelpier_cluster.paths import cache_root
from modelpier_cluster.progress import Progress

SOURCES = Path(__file__).resolve().parent.parent
KUBERNETES_VERSION = "1.36.3"
_VERSION_VARIABLES = "k8s.io/component-base/version.git"
LINKS = {"kubectl": "kube"}


@dataclass(frozen=True)
class Module:
    """A Go module: the packages to build and the programs that come out."""

    name: str
    packages: tuple[str, ...]
    programs: tuple[str, ...]
    linker_flags: str = "-s -w"

    @property
    def folder(self) -> Path:
        return SOURCES / self.name

    def sources(self) -> list[Path]:
        files = (p for p in self.folder.rglob("*") if p.suffix == ".go" or p.name in {"go.mod", "go.sum"})
        return sorted(files)


KUBE = Module(
    "kube",
    (".",),
    ("kube",),
    f"-s -w -X {_VERSION_VARIABLES}Version=v{KUBERNETES_VERSION} -X {_VERSION_VARIABLES}Major=1 "
    f"-X {_VERSION_VARIABLES}Minor={KUBERNETES_VERSION.split('.')[1]}",
)
RUNTIME = Module(
    "runtime",
    ("tool", "./pause"),
    ("containerd", "containerd-shim-runc-v2", "ctr", "host-local", "ptp", "portmap", "pause"),
)
TOOLS = Module("tools", ("tool",), ("helm", "versitygw"))
MODULES = (KUBE, RUNTIME, TOOLS)


def module_key(module: Module, go_version: str) -> str:
    """Sixteen hexadecimal digits that change with any source file, the Go version, the packages or the flags."""
    digest = hashlib.sha256(f"{go_version}\0{module.packages}\0{module.linker_flags}".encode())
    for path in module.sources():
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(module.folder)}\0{content}\0".encode())
    return digest.hexdigest()[:16]


def output_folder(module: Module, go_version: str) -> Path:
    return cache_root() / "programs" / f"{module.name}-{module_key(module, go_version)}"


def toolchain() -> Go:
    return choose_go(needed_version(module.folder / "go.mod" for module in MODULES))


def programs(modules: Iterable[Module] = MODULES) -> Path:
    """The folder of the built programs; raises ClusterError naming the build command when one is missing.

    MODELPIER_CLUSTER_PROGRAMS names a folder to use instead of the cache.
    """
    modules = tuple(modules)
    if override := os.environ.get("MODELPIER_CLUSTER_PROGRAMS"):
        folder = Path(override)
        _require(folder, modules)
        return folder
    version = toolchain().version
    folders = [output_folder(module, version) for module in modules]
    missing = [module.name for module, folder in zip(modules, folders, strict=True) if not folder.exists()]
    if missing:
        raise ClusterError(f"not built yet: {', '.join(missing)}. `python3 {SOURCES}/cluster.py build` builds them")
    return _linked(modules, folders)


def build(progress: Progress, modules: Iterable[Module] = MODULES) -> Path:
    """Build what is not in the cache, printing the time of each module; returns the folder of all programs."""
    modules = tuple(modules)
    if "MODELPIER_CLUSTER_PROGRAMS" in os.environ:
        return programs(modules)
    go = toolchain()
    todo = [module for module in modules if not output_folder(module, go.version).exists()]
    if todo:
        path = go.path or install_go(progress)
        for module in todo:
            _build_module(module, path, output_folder(module, go.version), progress)
    return programs(modules)


def _build_module(module: Module, go: str, folder: Path, progress: Progress) -> None:
    progress.say(f"building {module.name}: {', '.join(module.programs)}")
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    partial.mkdir(parents=True)
    begin, cpu = time.monotonic(), _children_cpu_seconds()
    command = [go, "build", "-ldflags", module.linker_flags, "-o", f"{partial}/", *module.packages]
    try:
        result = subprocess.run(command, cwd=module.folder, env=build_environment(), timeout=3600, check=False)
        if result.returncode:
            raise ClusterError(f"building {module.name} failed: {' '.join(command)} in {module.folder}")
        _require(partial, (module,))
        if not folder.exists():
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    spent = _children_cpu_seconds() - cpu
    progress.say(f"built {module.name} in {time.monotonic() - begin:.0f} s ({spent:.0f} CPU seconds)")


def _children_cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _require(folder: Path, modules: Iterable[Module]) -> None:
    missing = [name for module in modules for name in module.programs if not (folder / name).is_file()]
    if missing:
        raise ClusterError(f"{folder} lacks the programs {', '.join(missing)}")


def _linked(modules: tuple[Module, ...], folders: list[Path]) -> Path:
    """A folder with a link to every program of `folders`, made once and named by them. The links are relative, because
    caches are copied to other places.
    """
    name = hashlib.sha256("".join(folder.name for folder in folders).encode()).hexdigest()[:16]
    linked = cache_root() / "programs" / f"linked-{name}"
    if linked.exists():
        return linked
    partial = linked.with_name(f".{linked.name}.{os.getpid()}")
    partial.mkdir(parents=True)
    for module, folder in zip(modules, folders, strict=True):
        for program in module.programs:
            (partial / program).symlink_to(os.path.relpath(folder / program, partial))
    for link, program in LINKS.items():
        if (partial / program).exists():
            (partial / link).symlink_to(program)
    if linked.exists():  # another process was faster
        shutil.rmtree(partial)
    else:
        partial.rename(linked)
    return linked
