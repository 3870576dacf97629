"""What is rendered for the components: the properties that other parts and the machine rely on."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from modelpier_cluster.addresses import Addresses
from modelpier_cluster.components import ControlPlanePlan, control_plane_files, control_plane_processes
from modelpier_cluster.control_plane import service_files
from modelpier_cluster.errors import ClusterError
from modelpier_cluster.node import node_processes
from modelpier_cluster.node_config import NodePlan, containerd_config, kubelet_config, node_files, node_labels, seconds
from modelpier_cluster.pki import subject_names
from modelpier_cluster.spec import ClusterSpec, Folder, Options

FOLDER = Folder(Path("/state/demo"))


@pytest.fixture
def plan() -> ControlPlanePlan:
    return ControlPlanePlan(
        folder=FOLDER,
        kube="/programs/kube",
        address="127.0.0.1",
        port=7443,
        etcd_port=7001,
        etcd_peer_port=7002,
        services="198.19.0.0/20",
        options=Options(node_monitor_grace="5s", api_server_arguments=("--feature-gates=A=true",)),
        loopback=True,
    )


@pytest.fixture
def node() -> NodePlan:
    return NodePlan("n2", Addresses(1), FOLDER, Path("/programs"), Options(gpus=3), "/modelpier/demo/n2")


def test_components_are_started_as_asked_for(plan: ControlPlanePlan) -> None:
    assert list(control_plane_processes(plan, controller_manager=False, scheduler=False)) == ["etcd", "apiserver"]
    everything = control_plane_processes(plan)
    assert [name for name, process in everything.items() if process.gated] == ["controller-manager", "scheduler"]


def test_a_loopback_control_plane_listens_nowhere_else(plan: ControlPlanePlan) -> None:
    processes = control_plane_processes(plan)
    assert "--bind-address=127.0.0.1" in processes["apiserver"].argv
    for name in ("controller-manager", "scheduler"):
        assert "--secure-port=0" in processes[name].argv
    urls = [argument for argument in processes["etcd"].argv if "http://" in argument]
    assert urls
    assert all("http://127.0.0.1:" in url for url in urls)


def test_options_reach_the_components(plan: ControlPlanePlan) -> None:
    processes = control_plane_processes(plan)
    assert processes["apiserver"].argv[-1] == "--feature-gates=A=true"
    assert "--node-monitor-grace-period=5s" in processes["controller-manager"].argv


def test_every_write_is_audited(plan: ControlPlanePlan) -> None:
    policy = json.loads(control_plane_files(plan)["audit-policy.json"])
    assert policy["rules"][-1] == {"level": "Metadata"}
    silenced = [rule for rule in policy["rules"] if rule["level"] == "None"]
    assert all("nonResourceURLs" in rule or rule["namespaces"] == ["kube-node-lease"] for rule in silenced)
    assert f"--audit-log-path={FOLDER.audit_log}" in control_plane_processes(plan)["apiserver"].argv


def test_containerd_pulls_from_the_clusters_registry_without_tls(node: NodePlan) -> None:
    config = tomllib.loads(containerd_config(node))
    registry = config["plugins"]["io.containerd.cri.v1.images"]["registry"]
    hosts = node_files(node)[f"certs.d/{node.addresses.registry}/hosts.toml"]
    assert registry["config_path"] == f"{node.files}/certs.d"
    assert tomllib.loads(hosts)["server"] == f"http://{node.addresses.registry}"


def test_containerd_and_kubelet_agree_on_the_cgroup_driver(node: NodePlan) -> None:
    runc = tomllib.loads(containerd_config(node))["plugins"]["io.containerd.cri.v1.runtime"]["containerd"]["runtimes"]
    assert runc["runc"]["options"]["SystemdCgroup"] is False
    assert kubelet_config(node)["cgroupDriver"] == "cgroupfs"
    assert kubelet_config(node)["cgroupRoot"] == "/modelpier/demo/n2"


def test_pods_get_addresses_of_their_node(node: NodePlan) -> None:
    network = json.loads(node_files(node)["cni/10-pods.conflist"])
    assert network["plugins"][0]["ipam"]["ranges"] == [[{"subnet": "198.18.18.0/24"}]]


def test_feature_gates_become_booleans(node: NodePlan) -> None:
    options = replace(node.options, kubelet_feature_gates=("A=true", "B=false"))
    assert kubelet_config(replace(node, options=options))["featureGates"] == {"A": True, "B": False}


def test_gpus_are_pretended_only_where_there_are_some(node: NodePlan) -> None:
    assert "--count=3" in node_processes(node)["n2-gpu"].argv
    assert "n2-gpu" not in node_processes(replace(node, options=Options(gpus=0)))


def test_nodes_are_spread_over_three_zones() -> None:
    zones = [node_labels(f"n{i}").partition("=")[2] for i in range(1, 7)]
    assert zones == ["zone-a", "zone-b", "zone-c"] * 2


def test_nothing_inside_resolves_outside_names() -> None:
    spec = ClusterSpec("demo", 1, 1, "/programs")
    corefile = service_files(FOLDER, spec, Addresses(1))["Corefile"]
    assert "kubernetes cluster.local" in corefile
    assert "forward" not in corefile


def test_certificates_name_hosts_and_addresses() -> None:
    assert subject_names(["a"], ["127.0.0.1"]) == "DNS:a,IP:127.0.0.1"
    with pytest.raises(ValueError, match="not-an-address"):
        subject_names([], ["not-an-address"])


def test_a_spec_survives_being_written(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    options = Options(gpus=2, api_server_arguments=("--v=1",), kubelet_feature_gates=("A=true",))
    spec = ClusterSpec("demo", 3, 2, "/programs", options)
    folder.write_spec(spec)
    assert folder.read_spec() == spec


@pytest.mark.parametrize(("text", "expected"), [("12s", 12), ("1m30s", 90), ("2h", 7200)])
def test_durations(text: str, expected: int) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "12", "1.5s", "-3s", "1s2m"])
def test_bad_durations_name_the_flag(text: str) -> None:
    with pytest.raises(ClusterError, match="--node-monitor-grace"):
        seconds(text)


@pytest.mark.parametrize("grace", ["8s", "12s", "2m"])
def test_several_heartbeats_fit_into_the_grace_period(node: NodePlan, grace: str) -> None:
    config = kubelet_config(replace(node, options=Options(node_monitor_grace=grace)))
    assert config["nodeLeaseDurationSeconds"] < seconds(grace)
    assert 4 * seconds(config["nodeStatusUpdateFrequency"]) <= seconds(grace)
