from pathlib import Path

import pytest

from modelpier_operator.api import generate


def test_everything_is_written_and_then_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.count(": written\n") == len(generate.FILES)
    assert generate.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == ""


def test_check_names_what_differs_and_leaves_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate.main([str(tmp_path)])
    page = tmp_path / "docs/reference/conditions.md"
    page.write_text("edited by hand")
    capsys.readouterr()
    assert generate.main(["--check", str(tmp_path)]) == 1
    assert capsys.readouterr().out == "docs/reference/conditions.md: differs, run make generate\n"
    assert page.read_text() == "edited by hand"
    assert generate.stale(tmp_path) == ["docs/reference/conditions.md"]
