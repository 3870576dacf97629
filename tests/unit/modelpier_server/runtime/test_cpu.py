"""Cores that a container may use, from files as kernels write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelpier_server.runtime import cpu


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_affinity", lambda: 8)


def cores(root: Path, membership: str, files: dict[str, str]) -> int:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "membership").write_text(membership)
    return cpu.cores(root, root / "membership")


def quota(folder: str, micros: int) -> dict[str, str]:
    """As cgroup v1 has it."""
    return {f"{folder}/cpu.cfs_quota_us": f"{micros}\n", f"{folder}/cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 3),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/a/b\n", {"cpu.max": "max 100000\n", "a/cpu.max": "200000 100000\n", "a/b/cpu.max": "max 100000\n"}, 2),
        ("0::/a/b\n", {"a/cpu.max": "600000 100000\n", "a/b/cpu.max": "400000 100000\n"}, 4),
        ("0::/../outside\n", {"cpu.max": "200000 100000\n"}, 2),
        ("3:cpu,cpuacct:/pod\n", quota("cpu,cpuacct/pod", 150000), 2),
        ("3:cpu,cpuacct:/pod\n", quota("cpu", -1), 8),
        ("", {}, 8),
        ("0::/\n", {"cpu.max": "1600000 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "garbage"}, 8),
    ],
)  # fmt: skip
def test_the_tightest_limit_counts(tmp_path: Path, membership: str, files: dict[str, str], expected: int) -> None:
    assert cores(tmp_path, membership, files) == expected


def test_without_any_file(tmp_path: Path) -> None:
    assert cpu.cores(tmp_path / "none", tmp_path / "nothing") == 8
