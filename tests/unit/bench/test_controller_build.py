from pathlib import Path

from bench.operator.controller_build import SOURCES, content_key


def copy_of(folder: Path) -> Path:
    (folder / "go.mod").write_text("module x\n")
    (folder / "main.go").write_text("package main\n")
    return folder


def test_the_key_changes_with_sources_and_compiler_alone(tmp_path: Path) -> None:
    sources = copy_of(tmp_path)
    key = content_key(sources, "go1.26.8")
    (sources / "README.md").write_text("words")
    assert content_key(sources, "go1.26.8") == key
    assert content_key(sources, "go1.27.0") != key
    (sources / "main.go").write_text("package main // changed\n")
    assert content_key(sources, "go1.26.8") != key


def test_the_controller_is_there() -> None:
    assert (SOURCES / "go.mod").is_file()
    assert len(content_key(SOURCES, "go1.26.8")) == 16
