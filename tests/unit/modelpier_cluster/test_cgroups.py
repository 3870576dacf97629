"""Control groups on a folder tree that looks like the kernel's: every branch without root, systemd or cgroup v2."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from modelpier_cluster.cgroups import (
    LEAF,
    create_group,
    enable_controllers,
    enter_leaf,
    hierarchies,
    own_group,
    placement,
    remove_group,
)
from modelpier_cluster.errors import ClusterError

CONTROLLERS = "cpuset cpu io memory hugetlb pids rdma misc"
LEAF_ENTRY = ("python3", "cluster.py", "_in-leaf")


def unified(folder: Path, controllers: str = CONTROLLERS, offered: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cgroup.controllers").write_text(controllers + "\n")
    (folder / "cgroup.subtree_control").write_text(offered + "\n" if offered else "")
    (folder / "cgroup.procs").write_text("")
    return folder


def enabled(folder: Path) -> set[str]:
    return {word.lstrip("+") for word in (folder / "cgroup.subtree_control").read_text().split()}


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """The kernel fills a new group with its files; here a patched mkdir does."""
    original = Path.mkdir

    def mkdir(self: Path, mode: int = 0o777, *, parents: bool = False, exist_ok: bool = False) -> None:
        new = not self.exists()
        original(self, mode, parents, exist_ok)
        if new:
            (self / "cgroup.controllers").write_text(" ".join(sorted(enabled(self.parent))))
            for name in ("cgroup.subtree_control", "cgroup.procs", "cgroup.type"):
                (self / name).write_text("")

    def install() -> None:
        monkeypatch.setattr(Path, "mkdir", mkdir)

    return install


def test_v1_has_no_scope_and_needs_no_prefix() -> None:
    place = placement("demo", LEAF_ENTRY, unified=False, systemd=True)
    assert (place.group, place.prefix) == ("/modelpier/demo", ())


def test_v2_without_systemd_uses_a_group_of_its_own() -> None:
    assert placement("demo", LEAF_ENTRY, unified=True, systemd=False).group == "/modelpier/demo"


def test_v2_under_systemd_runs_in_a_delegated_scope_and_enters_a_leaf_first() -> None:
    place = placement("demo", LEAF_ENTRY, unified=True, systemd=True)
    assert place.group is None
    assert place.prefix[:2] == ("systemd-run", "--scope")
    assert "--property=Delegate=yes" in place.prefix
    assert "--unit=modelpier-cluster-demo.scope" in place.prefix
    assert place.prefix[-3:] == LEAF_ENTRY


def test_the_own_group_is_read_from_the_unified_line() -> None:
    text = "1:name=systemd:/x\n0::/system.slice/modelpier-cluster-demo.scope/processes\n"
    assert own_group(text) == "/system.slice/modelpier-cluster-demo.scope/processes"
    with pytest.raises(ClusterError, match="cgroup v2"):
        own_group("4:memory:/\n")


def test_a_process_moves_itself_into_the_leaf(tmp_path: Path) -> None:
    scope = unified(tmp_path / "demo.scope")
    enter_leaf(scope)
    assert (scope / LEAF / "cgroup.procs").read_text() == "0"


def test_only_what_kubelets_use_is_enabled_and_nothing_twice(tmp_path: Path) -> None:
    group = unified(tmp_path / "g", offered="memory pids")
    enable_controllers(group)
    assert enabled(group) == {"cpuset", "cpu", "io", "memory", "hugetlb", "pids"}
    assert (group / "cgroup.subtree_control").read_text().count("memory") == 1


@pytest.mark.parametrize("lost", ["cpu", "cpuset", "memory", "pids"])
def test_a_missing_controller_is_named_with_the_remedy(tmp_path: Path, lost: str) -> None:
    group = unified(tmp_path / "g", controllers=CONTROLLERS.replace(f"{lost} ", ""))
    with pytest.raises(ClusterError, match=rf"controllers {lost} cannot be used.*DelegateControllers"):
        enable_controllers(group)


def test_a_machine_without_huge_pages_is_fine(tmp_path: Path) -> None:
    group = unified(tmp_path / "g", controllers="cpuset cpu memory pids")
    enable_controllers(group)
    assert enabled(group) == {"cpuset", "cpu", "memory", "pids"}


def test_controllers_reach_the_node_through_every_level_of_a_scope(tmp_path: Path, kernel: Callable[[], None]) -> None:
    root = unified(tmp_path)
    (tmp_path / "cgroup.subtree_control").write_text("cpu memory pids\n")  # what systemd had enabled
    kernel()
    create_group("/system.slice/modelpier-cluster-demo.scope/processes", root)
    create_group("/system.slice/modelpier-cluster-demo.scope/n1", root)
    node = root / "system.slice" / "modelpier-cluster-demo.scope" / "n1"
    assert {"cpu", "cpuset", "memory", "pids", "hugetlb"} <= set((node / "cgroup.controllers").read_text().split())
    assert enabled(node) == set(), "the kubelet decides about its own group"


def test_in_a_container_the_processes_of_the_root_make_room(tmp_path: Path, kernel: Callable[[], None]) -> None:
    root = unified(tmp_path)
    (root / "cgroup.type").write_text("domain\n")  # only a root that is none has this file
    (root / "cgroup.procs").write_text("17\n18\n")
    kernel()
    create_group("/modelpier/demo/n1", root)
    assert (root / LEAF / "cgroup.procs").read_text() == "18", "the last one that was moved"


def test_on_the_real_root_processes_stay_where_they_are(tmp_path: Path, kernel: Callable[[], None]) -> None:
    root = unified(tmp_path)
    (root / "cgroup.procs").write_text("17\n")
    kernel()
    create_group("/modelpier/demo/n1", root)
    assert not (root / LEAF).exists()


@pytest.fixture
def v1(tmp_path: Path) -> Path:
    for name in ("cpu", "cpuset", "memory"):
        (tmp_path / name).mkdir()
    (tmp_path / "cpu,cpuacct").symlink_to("cpu")
    (tmp_path / "cpuset" / "cpuset.cpus").write_text("0-3\n")
    (tmp_path / "cpuset" / "cpuset.mems").write_text("0\n")
    return tmp_path


def test_v1_hierarchies_leave_out_links(v1: Path) -> None:
    assert [h.name for h in hierarchies(v1)] == ["cpu", "cpuset", "memory"]


def test_v1_groups_exist_everywhere_and_inherit_processors(v1: Path) -> None:
    create_group("/modelpier/demo/n1", v1)
    assert all((h / "modelpier/demo/n1").is_dir() for h in hierarchies(v1))
    assert (v1 / "cpuset/modelpier/demo/n1/cpuset.cpus").read_text() == "0-3\n"
    assert (v1 / "cpuset/modelpier/cpuset.mems").read_text() == "0\n"


def test_removal_leaves_other_clusters_alone(v1: Path) -> None:
    shutil.rmtree(v1 / "cpuset")  # its files could only be removed by the kernel
    for name in ("demo", "other"):
        create_group(f"/modelpier/{name}/n1/pod", v1)
    assert remove_group("/modelpier/demo", v1)
    assert not list(v1.glob("*/modelpier/demo"))
    assert (v1 / "memory/modelpier/other/n1/pod").is_dir()
    assert remove_group("/modelpier/other", v1)
    assert not list(v1.glob("*/modelpier"))


def test_removal_says_when_something_is_left(v1: Path) -> None:
    shutil.rmtree(v1 / "cpuset")
    create_group("/modelpier/demo/n1", v1)
    busy = v1 / "cpu/modelpier/demo/n1"

    def rmdir(folder: Path) -> None:
        if folder == busy:
            raise OSError(16, "Device or resource busy")
        folder.rmdir()

    assert not remove_group("/modelpier/demo", v1, rmdir)
    assert busy.exists()
    assert remove_group("/modelpier/demo", v1)


def test_removing_what_is_not_there_is_fine(v1: Path) -> None:
    assert remove_group("/modelpier/demo", v1)
