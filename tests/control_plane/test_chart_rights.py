"""The operator as the chart's ServiceAccount on a real API server: its rights suffice, it uses each of them, and they
end where they should.

The operator is this repository's, a process with the environment of the chart's pod and the token of its account.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelpier_cluster import ClusterError, ControlPlane
from modelpier_cluster.audit import recording
from modelpier_cluster.build import KUBE, programs
from modelpier_cluster.guarded import free_ports
from modelpier_cluster.progress import wait_for
from modelpier_cluster.spec import Options
from support.helm import CHART, MISSING, REGISTRY, Helm, find_helm

SYSTEM = "modelpier-system"
ACCOUNT = f"system:serviceaccount:{SYSTEM}:modelpier-operator"
CHILDREN = "controllerrevisions,configmaps,deployments,networkpolicies,serviceaccounts,services,poddisruptionbudgets"
MANAGED = "app.kubernetes.io/managed-by=modelpier"
Right = tuple[str, str, str]
"""API group, resource with its subresource, verb."""
NEVER_CALLED: set[Right] = {("modelpier.dev", "modeldeployments/finalizers", "update")}
"""Asked for by an admission plugin of the API server when a child names its owner: it runs here, so that without this
right nothing would be created."""
ENFORCED = ("--enable-admission-plugins=OwnerReferencesPermissionEnforcement",)


def _missing() -> str:
    try:
        programs([KUBE])
    except ClusterError as error:
        return str(error)
    return "" if find_helm() else MISSING


pytestmark = [pytest.mark.control_plane, pytest.mark.skipif(bool(_missing()), reason=_missing())]


def model(name: str, namespace: str, version: str = "1", replicas: int = 2, **more: Any) -> str:
    spec = {"model": {"uri": f"s3://models/{version}/model.onnx"}, "replicas": replicas, **more}
    metadata = {"name": name, "namespace": namespace}
    return json.dumps(
        {"apiVersion": "modelpier.dev/v1alpha1", "kind": "ModelDeployment", "metadata": metadata, "spec": spec}
    )


@pytest.fixture(scope="module")
def control_plane() -> Iterator[ControlPlane]:
    with ControlPlane(controller_manager=True, options=Options(api_server_arguments=ENFORCED)) as running:
        # The garbage collector looks for new kinds twice a minute: it has found this one when the first test deletes.
        crd = next((CHART / "files" / "crds").glob("*.yaml"))
        running.kubectl("apply", "--server-side", "-f", str(crd))
        for namespace in ("team-a", "team-b", "elsewhere"):
            running.kubectl("create", "namespace", namespace)
        yield running


def environment(helm: Helm, *values: str) -> dict[str, str]:
    """Of the operator's container, as the chart sets it."""
    rendered = helm.template("-n", SYSTEM, "-s", "templates/deployment.yaml", *values)
    (container,) = yaml.safe_load(rendered)["spec"]["template"]["spec"]["containers"]
    return {variable["name"]: variable.get("value", SYSTEM) for variable in container["env"]}


def kubeconfig(control_plane: ControlPlane, path: Path) -> Path:
    config = json.loads(control_plane.kubeconfig.read_text())
    token = control_plane.kubectl("create", "token", "modelpier-operator", "-n", SYSTEM).strip()
    for user in config["users"]:
        user["user"] = {"token": token}
    path.write_text(json.dumps(config))
    return path


@contextmanager
def operator(control_plane: ControlPlane, folder: Path, *values: str) -> Iterator[None]:
    """Installed by the chart (its pods find no node here) and run as a process, until it is ready; nothing stays."""
    program = find_helm()
    assert program
    helm = Helm(program, folder, str(control_plane.kubeconfig))
    values = ("--set", "crds.install=false", *values)
    (port,) = free_ports(1)
    env = {"PATH": os.environ["PATH"], **environment(helm, *values), "MODELPIER_HTTP_PORT": str(port)}
    helm("install", "modelpier", str(CHART), *REGISTRY, "-n", SYSTEM, "--create-namespace", *values)
    env["KUBECONFIG"] = str(kubeconfig(control_plane, folder / "kubeconfig"))
    log = folder / "operator.log"
    with log.open("wb") as stream:
        process = subprocess.Popen([sys.executable, "-m", "modelpier_operator"], env=env, stderr=stream)
    try:
        wait_for("the operator", lambda: answers(port), 60, f"Its log: {log}")
        yield
        assert process.poll() is None
    except BaseException as error:
        error.add_note(f"The operator said:\n{log.read_text()[-4000:]}")
        raise
    finally:
        process.terminate()
        process.wait(20)
        helm("uninstall", "modelpier", "-n", SYSTEM)
        # Helm knows nothing of these; the next operator begins as this one did.
        left = ("secret/modelpier-operator-plan-key", "lease/modelpier-operator")
        control_plane.kubectl("delete", *left, "-n", SYSTEM, "--ignore-not-found")


def answers(port: int) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def children(control_plane: ControlPlane, namespace: str) -> list[str]:
    return control_plane.kubectl("get", CHILDREN, "-n", namespace, "-l", MANAGED, "-o", "name").split()


def status(control_plane: ControlPlane, namespace: str, name: str) -> dict[str, Any]:
    found = json.loads(control_plane.kubectl("get", "md", name, "-n", namespace, "-o", "json"))
    return {"generation": found["metadata"]["generation"], **found.get("status", {})}


def is_settled(control_plane: ControlPlane, namespace: str, name: str) -> bool:
    found = status(control_plane, namespace, name)
    return bool(found.get("observedGeneration") == found["generation"])


def eventually(what: str, condition: Callable[[], bool]) -> None:
    wait_for(what, condition, 90)


def told(control_plane: ControlPlane, namespace: str) -> list[tuple[str, str, int]]:
    """Events about ModelDeployments."""
    about = "involvedObject.kind=ModelDeployment"
    found = control_plane.kubectl("get", "events", "-n", namespace, "--field-selector", about, "-o", "json")
    return [(event["type"], event["reason"], event["count"]) for event in json.loads(found)["items"]]


def life(control_plane: ControlPlane, namespace: str) -> None:
    """Everything that the operator does to a ModelDeployment's children: create, change, delete; and what it tells."""

    def settled() -> bool:
        return is_settled(control_plane, namespace, "m")

    control_plane.kubectl("apply", "-f", "-", stdin=model("m", namespace))
    eventually("children", lambda: len(children(control_plane, namespace)) >= 7 and settled())
    control_plane.kubectl("scale", "md/m", "-n", namespace, "--replicas=1")
    budgets = ("get", "poddisruptionbudgets", "-n", namespace, "-l", MANAGED, "-o", "name")
    eventually("the budget's end", lambda: not control_plane.kubectl(*budgets).strip())
    control_plane.kubectl("apply", "-f", "-", stdin=model("m", namespace, version="2", replicas=1))
    revisions = ("get", "controllerrevisions", "-n", namespace, "-l", MANAGED, "-o", "name")
    eventually("a second revision", lambda: len(control_plane.kubectl(*revisions).split()) == 2 and settled())
    override = {"podTemplate": {"spec": {"hostNetwork": True}}}
    control_plane.kubectl("apply", "-f", "-", stdin=model("m", namespace, version="3", replicas=1, resources=override))
    eventually("an Event", lambda: ("Warning", "PodOverridesForbidden", 1) in told(control_plane, namespace))
    control_plane.kubectl("delete", "md/m", "-n", namespace, "--wait")
    eventually("the children's end", lambda: not children(control_plane, namespace))


def upheavals(control_plane: ControlPlane, namespace: str) -> None:
    """What is rarer in a life, with each kind of child: one that is found without its labels is labelled again, and
    one that is no longer wanted is deleted, be it the operator's work or somebody's copy of that."""
    wanted: dict[str, Any] = {"name": "n", "namespace": namespace, "rollout": {"revisionHistoryLimit": 0}}
    control_plane.kubectl("apply", "-f", "-", stdin=model(**wanted))
    eventually("children", lambda: len(children(control_plane, namespace)) == 7)
    eventually("a status", lambda: is_settled(control_plane, namespace, "n"))
    before = children(control_plane, namespace)
    control_plane.kubectl("label", CHILDREN, "-l", MANAGED, "-n", namespace, MANAGED.partition("=")[0] + "-")
    eventually("the labels", lambda: children(control_plane, namespace) == before)

    for kind in ("services", "networkpolicies"):
        (found,) = json.loads(control_plane.kubectl("get", kind, "-n", namespace, "-l", MANAGED, "-o", "json"))["items"]
        found["metadata"] = {k: found["metadata"][k] for k in ("labels", "namespace", "ownerReferences")}
        found["metadata"]["name"] = "copy"
        found["spec"] = {k: v for k, v in found["spec"].items() if not k.startswith("clusterIP")}
        control_plane.kubectl("create", "-f", "-", stdin=json.dumps(found))
    eventually("the copies' end", lambda: children(control_plane, namespace) == before)

    control_plane.kubectl("apply", "-f", "-", stdin=model(**wanted, version="2", server={"serviceAccountName": "own"}))
    eventually("another pod set", lambda: len(children(control_plane, namespace)) == 6)
    control_plane.kubectl("delete", "md/n", "-n", namespace, "--wait")
    eventually("the children's end", lambda: not children(control_plane, namespace))


def refused(recorded: list[dict[str, Any]]) -> set[str]:
    """'verb resource' of what the operator asked for in vain."""
    mine = (event for event in recorded if event["user"]["username"] == ACCOUNT)
    return {
        f"{event['verb']} {event['objectRef']['resource']}"
        for event in mine
        if event.get("responseStatus", {}).get("code") in (401, 403)
    }


def used(recorded: list[dict[str, Any]]) -> set[Right]:
    """What the operator asked for and was not refused; discovery, which everybody may do, aside."""
    mine = (event for event in recorded if event["user"]["username"] == ACCOUNT and "objectRef" in event)
    return {_right(event) for event in mine if event.get("responseStatus", {}).get("code") not in (401, 403)}


def _right(event: dict[str, Any]) -> Right:
    reference = event["objectRef"]
    resource = "/".join(filter(None, (reference["resource"], reference.get("subresource"))))
    return reference.get("apiGroup", ""), resource, event["verb"]


def granted(folder: Path) -> set[Right]:
    """What the chart's roles let the operator do."""
    program = find_helm()
    assert program
    rendered = Helm(program, folder).template("-n", SYSTEM, "-s", "templates/rbac-operator.yaml")
    rules = [rule for manifest in yaml.safe_load_all(rendered) if manifest for rule in manifest.get("rules", ())]
    return {right for rule in rules for right in product(rule["apiGroups"], rule["resources"], rule["verbs"])}


def test_the_rights_in_the_whole_cluster_suffice_and_none_is_surplus(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    with recording(control_plane.audit_log) as recorded, operator(control_plane, tmp_path):
        upheavals(control_plane, "elsewhere")
        life(control_plane, "elsewhere")
    assert refused(recorded) == set()
    assert granted(tmp_path) - used(recorded) == NEVER_CALLED


def test_the_rights_in_listed_namespaces_suffice(control_plane: ControlPlane, tmp_path: Path) -> None:
    values = ("--set", "watchNamespaces={team-a,team-b}", "--set", "rbac.aggregateToDefaultRoles=false")
    with recording(control_plane.audit_log) as recorded, operator(control_plane, tmp_path, *values):
        control_plane.kubectl("apply", "-f", "-", stdin=model("ignored", "elsewhere"))
        life(control_plane, "team-a")
        life(control_plane, "team-b")
        assert children(control_plane, "elsewhere") == []
        assert "observedGeneration" not in status(control_plane, "elsewhere", "ignored")
    assert refused(recorded) == set()
    bindings = json.loads(control_plane.kubectl("get", "clusterrolebindings", "-o", "json"))["items"]
    subjects = [subject for binding in bindings for subject in binding.get("subjects", ())]
    assert not [subject for subject in subjects if subject.get("namespace") == SYSTEM]


def test_the_account_reaches_no_secret_of_users(control_plane: ControlPlane, tmp_path: Path) -> None:
    with operator(control_plane, tmp_path):
        eventually("the key", lambda: "plan-key" in control_plane.kubectl("get", "secrets", "-n", SYSTEM, "-o", "name"))
        rights = [
            ("get", "secrets", "team-a"),
            ("list", "secrets", "team-a"),
            ("create", "secrets", "team-a"),
            ("list", "secrets", SYSTEM),
            ("get", "secrets/another", SYSTEM),
            ("delete", "secrets/modelpier-operator-plan-key", SYSTEM),
            ("create", "pods", "team-a"),
            ("patch", "modeldeployments.modelpier.dev", "team-a"),
            ("create", "clusterroles", "team-a"),
            ("create", "rolebindings", "team-a"),
        ]
        held = [right for right in rights if may(control_plane, *right)]
        assert held == []
        assert may(control_plane, "get", "secrets/modelpier-operator-plan-key", SYSTEM)


def may(control_plane: ControlPlane, verb: str, what: str, namespace: str) -> bool:
    try:
        answer = control_plane.kubectl("auth", "can-i", verb, what, "-n", namespace, f"--as={ACCOUNT}")
    except ClusterError:  # kubectl's exit status says no as well
        return False
    return answer.strip() == "yes"
