"""Memory that a container may use, from files as kernels write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelpier_server.runtime import memory
from modelpier_server.runtime.memory import Room


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


V2 = "anon 600\nfile 250\ninactive_file 100\nactive_file 50\nshmem 100\n"
V1 = "inactive_file 1\nactive_file 1\ntotal_inactive_file 100\ntotal_active_file 50\n"


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/\n", {"memory.max": "1000\n", "memory.current": "850\n", "memory.stat": V2}, Room(300, 1000)),
        ("0::/\n", {"memory.max": "500\n", "memory.current": "850\n", "memory.stat": V2}, Room(0, 500)),
        ("0::/\n", {"memory.max": "max\n", "memory.current": "850\n", "memory.stat": V2}, None),
        ("0::/\n", {"memory.max": "1000\n"}, None),
        (
            "0::/a/b\n",
            {
                "a/memory.max": "1000\n",
                "a/memory.current": "950\n",
                "a/memory.stat": V2,
                "a/b/memory.max": "800\n",
                "a/b/memory.current": "200\n",
                "a/b/memory.stat": V2,
            },
            Room(200, 1000),
        ),
        (
            "9:memory:/pod\n",
            {
                "memory/pod/memory.limit_in_bytes": "1000\n",
                "memory/pod/memory.usage_in_bytes": "850\n",
                "memory/pod/memory.stat": V1,
            },
            Room(300, 1000),
        ),
    ],
)
def test_room_is_where_there_is_least_of_it(
    tmp_path: Path, membership: str, files: dict[str, str], expected: Room | None
) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "membership").write_text(membership)
    assert memory.room(tmp_path, tmp_path / "membership") == expected


@pytest.mark.parametrize(("limit", "expected"), [(None, 1 << 30), (1 << 40, 1 << 30), (1 << 29, 1 << 27), (1000, 250)])
def test_bodies_get_a_quarter_and_a_gibibyte_at_most(limit: int | None, expected: int) -> None:
    assert memory.for_bodies(limit) == expected
