"""Memory that a container may use, from files as kernels write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelpier_server.runtime import memory


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/\n", {"memory.max": "max\n"}, None),
        ("0::/\n", {"memory.max": "536870912\n"}, 1 << 29),
        ("0::/a/b\n", {"memory.max": "max\n", "a/memory.max": "1000\n", "a/b/memory.max": "max\n"}, 1000),
        ("0::/a/b\n", {"a/memory.max": "1000\n", "a/b/memory.max": "900\n"}, 900),
        ("0::/../outside\n", {"memory.max": "700\n"}, 700),
        ("9:memory:/pod\n", {"memory/pod/memory.limit_in_bytes": "1000\n"}, 1000),
        ("9:memory:/pod\n", {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ("", {}, None),
        ("0::/\n", {"memory.max": "garbage"}, None),
    ],
)
def test_the_tightest_limit_counts(
    tmp_path: Path, membership: str, files: dict[str, str], expected: int | None
) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "membership").write_text(membership)
    assert memory.limit(tmp_path, tmp_path / "membership") == expected


@pytest.mark.parametrize(("limit", "expected"), [(None, 1 << 30), (1 << 40, 1 << 30), (1 << 29, 1 << 27), (1000, 250)])
def test_bodies_get_a_quarter_and_a_gibibyte_at_most(limit: int | None, expected: int) -> None:
    assert memory.for_bodies(limit) == expected
