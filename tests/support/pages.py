"""The documentation as tests see it: every Markdown page of the repository, and what stands there to be copied."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("docs", "operator", "model_server", "model_converter", "bench", "cluster", "examples")
FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
HEREDOC = re.compile(r"<<'?(?P<word>\w+)'?[^\n]*\n(?P<text>.*?)^(?P=word)$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """Something to copy, and where it stands."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    below = [page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md")]
    return sorted([*ROOT.glob("*.md"), *below])


def blocks() -> list[Block]:
    """What stands between fences; YAML that a shell block hands to a command as a block of its own."""
    found = []
    for page in pages():
        text = page.read_text()
        for fence in FENCE.finditer(text):
            line = text.count("\n", 0, fence.start()) + 1
            found.append(Block(page, line, fence["language"], fence["text"]))
            found += [Block(page, line, "yaml", text) for text in heredocs(fence["text"]) if "apiVersion:" in text]
    return found


def heredocs(text: str) -> list[str]:
    """As a shell takes them: the word that ends one stands at the beginning of its line."""
    return [each["text"] for each in HEREDOC.finditer(text)]


def parsed(block: Block) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(block.text) if document]


def manifests() -> list[Block]:
    """Objects for a cluster."""
    return [b for b in blocks() if b.language == "yaml" and all("apiVersion" in each for each in parsed(b))]


def values() -> list[Block]:
    """Values for the chart."""
    return [b for b in blocks() if b.language == "yaml" and not any("apiVersion" in each for each in parsed(b))]


def commands(program: str) -> list[tuple[str, list[str]]]:
    """The command lines of `program` that are there to be copied: where, and the words after its name."""
    found = []
    for block in blocks():
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True) if line.startswith(f"{program} ") else []
            found += [(f"{block}: {' '.join(words)[:60]}", words[1:])] if words else []
    return found
