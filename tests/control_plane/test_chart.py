"""The chart on a real API server, by the real Helm: what it renders is accepted, and it installs, upgrades and goes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelpier_cluster import ClusterError, ControlPlane
from modelpier_cluster.build import KUBE, programs
from support.helm import CHART, MISSING, REGISTRY, Helm, find_helm
from support.pages import heredocs

VALUES = Path(__file__).resolve().parents[1] / "unit" / "charts" / "values"
SYSTEM = "modelpier-system"
MODEL = """
apiVersion: modelpier.dev/v1alpha1
kind: ModelDeployment
metadata: {name: kept, namespace: default}
spec: {model: {uri: "s3://models/kept/model.onnx"}}
"""
POD_MONITOR_CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: podmonitors.monitoring.coreos.com}
spec:
  group: monitoring.coreos.com
  scope: Namespaced
  names: {kind: PodMonitor, plural: podmonitors, singular: podmonitor}
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
"""


def _missing() -> str:
    try:
        programs([KUBE])
    except ClusterError as error:
        return str(error)
    return "" if find_helm() else MISSING


pytestmark = [pytest.mark.control_plane, pytest.mark.skipif(bool(_missing()), reason=_missing())]


@pytest.fixture(scope="module")
def control_plane() -> Iterator[ControlPlane]:
    with ControlPlane() as running:
        for namespace in ("team-a", "team-b"):
            running.kubectl("create", "namespace", namespace)
        # Pods of the chart must be admitted under the strictest of the Pod Security Standards.
        running.kubectl("create", "namespace", SYSTEM)
        running.kubectl("label", "namespace", SYSTEM, "pod-security.kubernetes.io/enforce=restricted")
        running.kubectl("apply", "-f", "-", stdin=POD_MONITOR_CRD)
        running.kubectl("wait", "--for=condition=Established", "crd/podmonitors.monitoring.coreos.com")
        yield running


@pytest.fixture
def helm(control_plane: ControlPlane, tmp_path: Path) -> Helm:
    program = find_helm()
    assert program
    return Helm(program, tmp_path, str(control_plane.kubeconfig))


@pytest.mark.parametrize("case", sorted(path.stem for path in VALUES.glob("*.yaml")))
def test_the_server_accepts_what_is_rendered(case: str, helm: Helm, control_plane: ControlPlane) -> None:
    rendered = helm.template("-n", SYSTEM, "--values", str(VALUES / f"{case}.yaml"))
    # Strict: an unknown field is an error, not a warning. For pods admission asks for an account: see below.
    manifests = [m for m in yaml.safe_load_all(rendered) if m and m["kind"] != "Pod"]
    answer = control_plane.kubectl(
        "apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=yaml.safe_dump_all(manifests)
    )
    assert len(answer.splitlines()) == len(manifests)


def get(control_plane: ControlPlane, *what: str) -> Any:
    return json.loads(control_plane.kubectl("get", *what, "-o", "json"))


@pytest.fixture
def installed(helm: Helm) -> Iterator[Helm]:
    helm("install", "modelpier", str(CHART), *REGISTRY, "-n", SYSTEM)
    yield helm
    helm.run("uninstall", "modelpier", "-n", SYSTEM)


def test_notes_name_a_watched_namespace(helm: Helm) -> None:
    """Without a cluster Helm 3 does not show them."""
    tried = ("--dry-run=server", "--set", "watchNamespaces={team-a}")
    told = helm("install", "modelpier", str(CHART), *REGISTRY, "-n", SYSTEM, *tried)
    assert "kubectl apply -n team-a" in told.partition("NOTES:")[2]


def test_the_model_of_the_notes_is_accepted(installed: Helm, control_plane: ControlPlane) -> None:
    (model,) = heredocs(installed("get", "notes", "modelpier", "-n", SYSTEM))
    control_plane.kubectl("wait", "--for=condition=Established", "crd/modeldeployments.modelpier.dev")
    answer = control_plane.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=model)
    assert answer == "modeldeployment.modelpier.dev/mnist created (server dry run)\n"


def test_pods_are_admitted_under_restricted(installed: Helm, control_plane: ControlPlane) -> None:
    template = get(control_plane, "-n", SYSTEM, "deployment/modelpier-operator")["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", **template}
    pod["metadata"] |= {"name": "probe", "namespace": SYSTEM}
    control_plane.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))
    hook = yaml.safe_load(installed.template("-n", SYSTEM, "-s", "templates/tests/ready.yaml"))
    del hook["metadata"]["annotations"]
    hook["spec"]["serviceAccountName"] = "modelpier-operator"  # nobody makes the namespace's default account here
    control_plane.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(hook))


def test_an_upgrade_changes_what_was_asked_and_nothing_else(installed: Helm, control_plane: ControlPlane) -> None:
    def generations() -> dict[str, Any]:
        kinds = "deployments,services,serviceaccounts,roles,rolebindings,poddisruptionbudgets"
        items = [*get(control_plane, "-n", SYSTEM, kinds)["items"], *get(control_plane, "clusterroles,crds")["items"]]
        return {f"{i['kind']}/{i['metadata']['name']}": i["metadata"]["resourceVersion"] for i in items}

    before = generations()
    installed("upgrade", "modelpier", str(CHART), *REGISTRY, "-n", SYSTEM, "--set", "operator.logLevel=DEBUG")
    after = generations()
    assert before.keys() == after.keys()
    assert {name for name in after if after[name] != before[name]} == {"Deployment/modelpier-operator"}
    template = get(control_plane, "-n", SYSTEM, "deployment/modelpier-operator")["spec"]["template"]
    assert {"name": "MODELPIER_LOG_LEVEL", "value": "DEBUG"} in template["spec"]["containers"][0]["env"]


def test_an_upgrade_brings_the_crds_up_to_date(installed: Helm, control_plane: ControlPlane) -> None:
    """As after an upgrade from a chart whose CRD did not have the short name yet."""
    patch = '[{"op": "remove", "path": "/spec/names/shortNames"}]'
    control_plane.kubectl("patch", "crd/modeldeployments.modelpier.dev", "--type=json", "-p", patch)
    # Helm 4 applies on the server's side and would stop at the other manager's fields; Helm 3 compares by itself.
    applied = ("--server-side=true", "--force-conflicts") if installed.major >= 4 else ()
    installed("upgrade", "modelpier", str(CHART), *REGISTRY, "-n", SYSTEM, *applied)
    names = get(control_plane, "crd/modeldeployments.modelpier.dev")["spec"]["names"]
    assert names["shortNames"] == ["md"]


def test_uninstalling_keeps_the_models_and_reinstalling_takes_them_over(
    helm: Helm, control_plane: ControlPlane
) -> None:
    helm("install", "modelpier", str(CHART), *REGISTRY, "-n", SYSTEM)
    control_plane.kubectl("wait", "--for=condition=Established", "crd/modeldeployments.modelpier.dev")
    control_plane.kubectl("apply", "-f", "-", stdin=MODEL)
    uid = get(control_plane, "md/kept")["metadata"]["uid"]
    said = helm("uninstall", "modelpier", "-n", SYSTEM)
    assert "modeldeployments.modelpier.dev" in said, "Helm names what it leaves"
    assert get(control_plane, "md/kept")["metadata"]["uid"] == uid
    left = get(control_plane, "-n", SYSTEM, "deployments,services,serviceaccounts,roles,rolebindings")["items"]
    assert [item["metadata"]["name"] for item in left] == []
    assert not [r for r in get(control_plane, "clusterroles")["items"] if "modelpier" in r["metadata"]["name"]]
    helm("install", "modelpier", str(CHART), *REGISTRY, "-n", SYSTEM)
    assert get(control_plane, "md/kept")["metadata"]["uid"] == uid
    helm("uninstall", "modelpier", "-n", SYSTEM)
    control_plane.kubectl("delete", "md/kept")


def test_owners_of_three_namespaces_install_it_there(helm: Helm, control_plane: ControlPlane) -> None:
    """The CRDs being there, nothing of the chart lies or reaches outside of the namespaces."""
    crd = next((CHART / "files" / "crds").glob("*.yaml"))
    control_plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(crd))
    control_plane.kubectl("create", "clusterrole", "everything", "--verb=*", "--resource=*.*")
    for namespace in (SYSTEM, "team-a", "team-b"):
        binding = ("rolebinding", "owner", "-n", namespace, "--clusterrole=everything", "--user=owner")
        control_plane.kubectl("create", *binding)
    own = ("--kube-as-user", "owner", "-n", SYSTEM)
    helm("install", "modelpier", str(CHART), *REGISTRY, *own, "--values", str(VALUES / "namespaced.yaml"))
    helm("uninstall", "modelpier", *own)


def test_editors_may_write_models_and_viewers_may_read_them(installed: Helm, control_plane: ControlPlane) -> None:
    """The controller manager fills the aggregated roles; here the labels are followed by hand."""
    roles = get(control_plane, "clusterroles", "-l", "rbac.authorization.k8s.io/aggregate-to-edit=true")["items"]
    ours = [role["metadata"]["name"] for role in roles if role["metadata"]["name"].startswith("modelpier-")]
    assert sorted(ours) == ["modelpier-edit", "modelpier-view"]
    for user, role in (("editor", "modelpier-edit"), ("viewer", "modelpier-view")):
        control_plane.kubectl("create", "rolebinding", user, "-n", "team-a", f"--clusterrole={role}", f"--user={user}")

    def may(user: str, verb: str, subresource: str = "") -> bool:
        question = ("auth", "can-i", verb, "modeldeployments.modelpier.dev", f"--subresource={subresource}")
        try:
            return control_plane.kubectl(*question, "-n", "team-a", f"--as={user}").strip() == "yes"
        except ClusterError:  # kubectl's exit status says no as well
            return False

    assert may("editor", "create")
    assert may("editor", "patch", "scale")
    assert not may("editor", "patch", "status")
    assert may("viewer", "get")
    assert not may("viewer", "delete")
