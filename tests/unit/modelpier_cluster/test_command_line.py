import contextlib
import json
import re
from pathlib import Path

import pytest

from modelpier_cluster import cli, lifecycle
from modelpier_cluster.audit import events, recording, writes
from modelpier_cluster.cli import main, parser
from modelpier_cluster.errors import ClusterError
from modelpier_cluster.paths import (
    cache_root,
    filesystem,
    require_layers_possible,
    require_visible_in_nodes,
    state_root,
    write_text,
)
from modelpier_cluster.progress import wait_for
from modelpier_cluster.spec import ClusterSpec, Folder, cluster_folder
from modelpier_cluster.status import render


@pytest.fixture
def no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELPIER_CLUSTER_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("MODELPIER_CLUSTER_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("verb", [["status"], ["kubeconfig"], ["load", "x"]])
def test_without_a_cluster_the_way_to_one_is_named(
    no_cluster: None, capsys: pytest.CaptureFixture[str], verb: list[str]
) -> None:
    assert main([*verb, "--name", "nowhere"]) == 1
    assert "`up --name nowhere` starts one" in capsys.readouterr().err


def test_bad_names_end_with_a_message(no_cluster: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--name", "Bad_Name"]) == 1
    assert "--name 'Bad_Name'" in capsys.readouterr().err


def test_the_name_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELPIER_CLUSTER_NAME", "other")
    monkeypatch.setenv("MODELPIER_CLUSTER_NODES", "3")
    arguments = parser().parse_args(["up"])
    assert (arguments.name, arguments.nodes) == ("other", 3)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MODELPIER_CLUSTER_NODES", "abc"),
        ("MODELPIER_CLUSTER_NODES", "²"),
        ("MODELPIER_CLUSTER_GPUS", "-1"),
        ("MODELPIER_CLUSTER_PROXY_MODE", "ipvs"),
        ("MODELPIER_CLUSTER_API_SERVER_ARGUMENTS", "'--v=1"),
    ],
)
def test_a_wrong_variable_is_named_by_up_and_stops_no_other_verb(
    no_cluster: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variable: str,
    value: str,
) -> None:
    monkeypatch.setenv(variable, value)
    monkeypatch.setattr(cli, "build", lambda *_: "/built")
    monkeypatch.setattr(cli, "become_root", lambda *_: None)
    monkeypatch.setattr(cli, "ensure_packages", lambda *_: None)
    with contextlib.suppress(SystemExit):  # of argparse
        assert main(["up", "--name", "nowhere"]) == 1
    assert variable in capsys.readouterr().err
    assert main(["down", "--name", "nowhere"]) == 0


@pytest.mark.parametrize("proxy", ["ipvs", "IPTABLES"])
def test_only_the_kinds_of_proxy_that_are_there(proxy: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["up", "--proxy-mode", proxy])
    assert "iptables or nftables" in capsys.readouterr().err


def test_only_nodes_of_a_cluster_can_be_switched_off(no_cluster: None) -> None:
    folder = cluster_folder("one")
    with pytest.raises(ClusterError, match="`up --name one` starts one"):
        lifecycle.stop_node(folder, "n1")
    folder.write_spec(ClusterSpec("one", 0, 1, "/built"))
    with pytest.raises(ClusterError, match="cluster one has no node n2, only n1"):
        lifecycle.stop_node(folder, "n2")
    folder.write_spec(ClusterSpec("one", None, 0, "/built"))
    with pytest.raises(ClusterError, match="only a control plane"):
        lifecycle.stop_node(folder, "n1")


def test_clusters_of_one_name_in_two_places_share_no_group(tmp_path: Path) -> None:
    names = {Folder(tmp_path / user / "demo").unique_name for user in ("a", "b")}
    assert len(names) == 2
    assert all(re.fullmatch(r"demo-[0-9a-f]{8}", name) for name in names)
    (tmp_path / "link").symlink_to("a")
    assert Folder(tmp_path / "link" / "demo").unique_name in names


def test_a_file_that_is_not_there_is_no_name_of_an_image(
    no_cluster: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster_folder("one").write_spec(ClusterSpec("one", 0, 1, "/built"))
    monkeypatch.setattr(cli, "wait_for", lambda *_: None)
    assert main(["load", "./gone.tar", "--name", "one"]) == 1
    assert "there is no file ./gone.tar" in capsys.readouterr().err


def test_commands_inside_a_node_keep_their_flags() -> None:
    arguments = parser().parse_args(["exec", "--name", "x", "n1", "ls", "-l", "--all"])
    assert arguments.command == ["ls", "-l", "--all"]


def test_what_root_has_left_is_removed_by_root(no_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a registry's contents, once the cluster is down."""

    def down(_folder: Folder, *, purge: bool) -> None:
        assert purge
        raise PermissionError(13, "Permission denied", "link")

    def become_root(_arguments: list[str]) -> None:
        raise ClusterError("asked for root")

    monkeypatch.setattr(lifecycle, "down", down)
    monkeypatch.setattr(cli, "become_root", become_root)
    with pytest.raises(ClusterError, match="asked for root"):
        cli._down(parser().parse_args(["down", "--name", "gone", "--purge"]))


def test_xdg_folders_are_honoured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("MODELPIER_CLUSTER_STATE", "MODELPIER_CLUSTER_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "s"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "c"))
    assert state_root() == tmp_path / "s" / "modelpier" / "clusters"
    assert cache_root() == tmp_path / "c" / "modelpier"


@pytest.mark.parametrize("hidden", ["/var/lib/x", "/var/log/x", "/run/user/1000/x"])
def test_state_that_nodes_would_hide_is_refused(hidden: str, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="MODELPIER_CLUSTER_STATE"):
        require_visible_in_nodes(Path(hidden))
    require_visible_in_nodes(tmp_path)


def test_secrets_are_never_readable_by_others(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a" / "b", "secret", 0o600)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["b"]


def test_waiting_ends_with_what_was_waited_for() -> None:
    with pytest.raises(ClusterError, match=r"waiting for the moon after 0 s\. Look up"):
        wait_for("the moon", lambda: False, 0.05, "Look up")


def test_status_for_people() -> None:
    report = {
        "name": "demo",
        "running": True,
        "ready": True,
        "nodes": {"n1": True, "n2": False},
        "objectStore": {"url": "http://s", "region": "r", "access_key": "a", "secret_key": "k"},
        "kubeconfig": "/k",
    }
    text = render(report)
    assert text.startswith("cluster demo: ready\n")
    assert "n2          not ready" in text
    assert "access key a, secret key k" in text


def audit(verb: str, user: str = "me", resource: str = "configmaps", **more: str) -> str:
    reference = {"resource": resource, "namespace": "default", "name": "x", **more}
    return json.dumps({"verb": verb, "user": {"username": user}, "userAgent": "kopf/1", "objectRef": reference}) + "\n"


def test_audit_events_of_a_span(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_text(audit("create"))
    with recording(log) as recorded, log.open("a") as stream:
        stream.write(audit("patch", subresource="status") + audit("get") + '{"verb": "half')
    assert writes(recorded) == ["patch configmaps/status default/x"]


def test_audit_log_that_does_not_exist_yet(tmp_path: Path) -> None:
    assert events(tmp_path / "none") == ([], 0)


def test_writes_can_be_narrowed(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_text(
        audit("create", user="a") + audit("update", user="system:apiserver") + audit("update", resource="leases")
    )
    recorded, _ = events(log)
    assert writes(recorded) == ["create configmaps default/x", "update leases default/x"]
    assert writes(recorded, user="a") == ["create configmaps default/x"]
    assert writes(recorded, user="system:apiserver") == ["update configmaps default/x"]
    assert writes(recorded, ignore_leases=True) == ["create configmaps default/x"]
    assert writes(recorded, user_agent="curl") == []


MOUNTS = """\
21 1 0:19 / / rw,relatime - overlay overlay rw,lowerdir=/x
22 21 0:20 / /home rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:21 / /home/a\\040b rw - nfs4 server:/x rw
24 21 0:22 / /mnt rw - overlay overlay rw
25 21 0:23 / /mnt rw - xfs /dev/vdb rw
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [("/srv", "overlay"), ("/home/me", "ext4"), ("/home/a b/c", "nfs4"), ("/homes", "overlay"), ("/mnt/x", "xfs")],
)
def test_the_file_system_of_a_folder(folder: str, kind: str) -> None:
    assert filesystem(Path(folder), MOUNTS) == kind


def test_state_on_a_containers_own_file_system_is_refused_with_the_remedy() -> None:
    with pytest.raises(ClusterError, match=r"type overlay.*MODELPIER_CLUSTER_STATE.*volume"):
        require_layers_possible(Path("/srv"), MOUNTS)
    require_layers_possible(Path("/home/me"), MOUNTS)
