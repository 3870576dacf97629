"""What the pages say of the repository is there: files, headings, commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.pages import FENCE, ROOT, blocks, pages

LINK = re.compile(r"\]\((?!https?:)(?P<path>[^)#\s]*)(#(?P<anchor>[^)\s]+))?\)")
PATH = re.compile(r"(?:^|[ =])((?:cluster|examples|tests|charts|crds|operator|model_server|model_converter)/[\w./-]+)")
FOLDERS = "cluster|examples|tests|charts|crds|operator|model_server|model_converter"
PATH = re.compile(rf"(?:^|[ =])((?:{FOLDERS})/[\w./-]+)", re.MULTILINE)
MAKE = re.compile(r"(?:`|\$\(|^)make ([^`#&)\n]+)", re.MULTILINE)
TARGETS = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def anchors(page: Path) -> set[str]:
    """As GitHub makes them from headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.finditer(FENCE.sub("", page.read_text())):
        target = (page.parent / link["path"]).resolve() if link["path"] else page
        assert target.exists(), link[0]
        assert link["anchor"] is None or link["anchor"] in anchors(target), link[0]


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_make_command_exists(page: Path) -> None:
    for command in MAKE.findall(page.read_text()):
        named = {word for word in command.split() if not word.startswith("-") and "=" not in word and word != "..."}
        assert named <= TARGETS, command


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_commands_name_exist(page: Path) -> None:
    """Paths of the repository in what is to be copied."""
    for block in (b for b in blocks() if b.page == page and b.language == ""):
        for path in PATH.findall(block.text):
            assert (ROOT / path).exists(), f"{block}: {path}"


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_an_environment_is_made_before_it_is_used(page: Path) -> None:
    """Whoever follows a page from its top has no .venv before the page has made one."""
    lines = [line for block in blocks() if block.page == page for line in block.text.splitlines()]
    for number, line in enumerate(lines):
        if used := re.match(r"(?:\w+=\S+ )*\.(venv[\w-]*)/bin/", line):
            made = {word for before in lines[:number] if before.startswith("make ") for word in before.split()}
            assert used[1] in made, line
