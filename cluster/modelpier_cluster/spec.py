"""What a running cluster was asked to be, written to its state folder by `up` and read by everything inside it."""

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelpier_cluster.addresses import Addresses, check_name, node_names
from modelpier_cluster.errors import ClusterError
from modelpier_cluster.paths import cache_root, state_root, write_text


@dataclass(frozen=True)
class Options:
    """Knobs with a default that suits; each is a flag of `up` (see cli.py)."""

    gpus: int = 8
    node_monitor_grace: str = "12s"
    proxy_mode: str = "iptables"
    api_server_arguments: tuple[str, ...] = ()
    kubelet_feature_gates: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClusterSpec:
    """A cluster: its name, slot (None: control plane only, on 127.0.0.1), size, options and programs."""

    name: str
    slot: int | None
    nodes: int
    programs: str
    options: Options = dataclasses.field(default_factory=Options)

    def addresses(self) -> Addresses:
        if self.slot is None:
            raise ClusterError(f"cluster {self.name} is a control plane only: it has no nodes, registry or network")
        return Addresses(self.slot)

    def node_names(self) -> list[str]:
        return node_names(self.nodes) if self.nodes else []


@dataclass(frozen=True)
class Folder:
    """The state folder of one cluster: which file is where."""

    path: Path

    @property
    def unique_name(self) -> str:
        """Differs between clusters of one name in the folders of two users, for what all of a machine share."""
        return f"{self.path.name}-{hashlib.sha256(os.fsencode(self.path.resolve())).hexdigest()[:8]}"

    @property
    def spec_file(self) -> Path:
        return self.path / "cluster.json"

    @property
    def logs(self) -> Path:
        return self.path / "log"

    @property
    def pki(self) -> Path:
        return self.path / "pki"

    @property
    def audit_log(self) -> Path:
        return self.path / "audit.log"

    @property
    def object_store_keys(self) -> Path:
        return self.path / "object-store.json"

    @property
    def cgroup_file(self) -> Path:
        return self.path / "cgroup"

    def kubeconfig(self, user: str = "admin") -> Path:
        return self.path / f"{user}.kubeconfig"

    def node(self, name: str) -> Path:
        return self.path / "nodes" / name

    def read_spec(self) -> ClusterSpec:
        """Raises ClusterError when there is no such cluster."""
        try:
            data = json.loads(self.spec_file.read_text())
        except OSError as error:
            raise ClusterError(
                f"there is no cluster {self.path.name!r}: `up --name {self.path.name}` starts one"
            ) from error
        options: dict[str, Any] = data.pop("options")
        for name in ("api_server_arguments", "kubelet_feature_gates"):
            options[name] = tuple(options[name])
        return ClusterSpec(**data, options=Options(**options))

    def write_spec(self, spec: ClusterSpec) -> None:
        write_text(self.spec_file, json.dumps(dataclasses.asdict(spec), indent=1))


def cluster_folder(name: str) -> Folder:
    return Folder(state_root() / check_name(name))


def registry_folder(name: str) -> Path:
    """The registry's contents are kept between runs, one folder per cluster: tags of two clusters never mix."""
    return cache_root() / "registry" / name
