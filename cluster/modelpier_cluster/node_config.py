"""The configuration files of a node's kubelet, containerd, kube-proxy and pod network. Pure; used by node.py."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelpier_cluster.addresses import Addresses, node_number
from modelpier_cluster.errors import ClusterError
from modelpier_cluster.spec import Folder, Options

PAUSE_IMAGE = "localhost/modelpier-pause:1"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
ZONES = "abc"


@dataclass(frozen=True)
class NodePlan:
    """One node of one cluster."""

    name: str
    addresses: Addresses
    folder: Folder
    programs: Path
    options: Options
    group: str  # the node's control group

    @property
    def files(self) -> Path:
        return self.folder.node(self.name)


def node_files(plan: NodePlan) -> dict[str, str]:
    """Every configuration file of a node, by its path below the node's folder."""
    registry = plan.addresses.registry
    return {
        "containerd.toml": containerd_config(plan),
        "kubelet.json": json.dumps(kubelet_config(plan), indent=1),
        "proxy.json": json.dumps(proxy_config(plan.folder, plan.addresses, plan.options, plan.name), indent=1),
        "cni/10-pods.conflist": json.dumps(pod_network(plan), indent=1),
        f"certs.d/{registry}/hosts.toml": f'server = "http://{registry}"\n[host."http://{registry}"]\n',
    }


def kubelet_config(plan: NodePlan) -> dict[str, Any]:
    grace = seconds(plan.options.node_monitor_grace)
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": str(plan.addresses.node(plan.name)),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{plan.folder.pki}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": plan.group,
        "failCgroupV1": False,
        "failSwapOn": False,
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "resolvConf": "",
        "clusterDomain": "cluster.local",
        "clusterDNS": [str(plan.addresses.control_plane)],
        "enforceNodeAllocatable": ["pods"],
        # The disk is the machine's: how full it is is none of the cluster's business.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi"},
        "registerNode": True,
        # Six reports and six renewals (at a quarter of the lease) fit into the silence after which a node is missed, so
        # that a busy machine's nodes do not flap. Reports time out after their own interval.
        "nodeStatusUpdateFrequency": f"{max(1, grace // 6)}s",
        "nodeLeaseDurationSeconds": max(4, grace * 2 // 3),
        "serializeImagePulls": False,
        "featureGates": {
            name: value == "true" for name, _, value in (g.partition("=") for g in plan.options.kubelet_feature_gates)
        },
    }


def seconds(duration: str) -> int:
    """12 for '12s', 90 for '1m30s'; raises ClusterError for anything else than whole hours, minutes and seconds."""
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", duration)
    if not duration or not found:
        raise ClusterError(f"--node-monitor-grace {duration!r}: write it as in 12s or 1m30s")
    hours, minutes, rest = (int(part or 0) for part in found.groups())
    return 3600 * hours + 60 * minutes + rest


def containerd_config(plan: NodePlan) -> str:
    images, runtime = "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"
    return f"""version = 3
[grpc]
address = "{CONTAINERD_SOCKET}"
[plugins."{images}".pinned_images]
sandbox = "{PAUSE_IMAGE}"
[plugins."{images}".registry]
config_path = "{plan.files}/certs.d"
[plugins."{runtime}"]
# Without CAP_SYS_RESOURCE (as in many containers and virtual machines) runc cannot lower the score and dies silently.
restrict_oom_score_adj = true
[plugins."{runtime}".cni]
bin_dirs = ["{plan.programs}"]
conf_dir = "{plan.files}/cni"
use_internal_loopback = true
[plugins."{runtime}".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."{runtime}".containerd.runtimes.runc.options]
SystemdCgroup = false
"""


def pod_network(plan: NodePlan) -> dict[str, Any]:
    """ptp, not bridge: a service address whose backend is on the same bridge would bypass kube-proxy's rules."""
    subnet = str(plan.addresses.node_pods(plan.name))
    ipam = {
        "type": "host-local",
        "dataDir": "/run/cni-ipam",
        "ranges": [[{"subnet": subnet}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    return {
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {"type": "ptp", "ipMasq": False, "ipam": ipam},
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def proxy_config(folder: Folder, addresses: Addresses, options: Options, hostname: str) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(folder.kubeconfig())},
        "mode": options.proxy_mode,
        "clusterCIDR": str(addresses.pods),
        "hostnameOverride": hostname,
        # These would change the machine's own connection tracking.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "iptables": {"minSyncPeriod": "100ms"},
    }


def node_labels(node: str) -> str:
    """Nodes are spread over three zones, so that topology spread has something to spread over."""
    return f"topology.kubernetes.io/zone=zone-{ZONES[(node_number(node) - 1) % len(ZONES)]}"
