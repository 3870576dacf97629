"""The chart on a real API server, by the real Helm: what it renders is accepted, and it installs, upgrades and goes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelpier_cluster import ClusterError, ControlPlane
from modelpier_cluster.build import KUBE, programs
from modelpier_cluster.progress import wait_for
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


def older_chart(folder: Path) -> Path:
    """The chart as it may have been before the CRD had its short name and priority classes."""
    older = Path(shutil.copytree(CHART, folder / "older"))
    (file,) = (older / "files" / "crds").glob("*.yaml")
    crd = yaml.safe_load(file.read_text())
    del crd["spec"]["names"]["shortNames"]
    del schema(crd)["priorityClassName"]
    file.write_text(yaml.safe_dump(crd))
    return older


def schema(crd: Any) -> Any:
    """Of spec.resources, by field."""
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return spec["properties"]["resources"]["properties"]


def test_an_upgrade_brings_the_crds_up_to_date(helm: Helm, control_plane: ControlPlane, tmp_path: Path) -> None:
    crd = "crd/modeldeployments.modelpier.dev"
    control_plane.kubectl("delete", crd, "--ignore-not-found", "--wait")
    helm("install", "modelpier", str(older_chart(tmp_path)), *REGISTRY, "-n", SYSTEM)
    try:
        control_plane.kubectl("wait", "--for=condition=Established", crd)
        control_plane.kubectl("apply", "-f", "-", stdin=MODEL)
        before = get(control_plane, "modeldeployments/kept")["metadata"]
        assert "priorityClassName" not in schema(get(control_plane, crd))
        helm("upgrade", "modelpier", str(CHART), *REGISTRY, "-n", SYSTEM)
        assert "priorityClassName" in schema(get(control_plane, crd))
        wait_for(
            "the short name", lambda: get(control_plane, crd)["status"]["acceptedNames"].get("shortNames") == ["md"]
        )
        after = get(control_plane, "md/kept")["metadata"]
        assert (after["uid"], after["resourceVersion"]) == (before["uid"], before["resourceVersion"])
    finally:
        helm("uninstall", "modelpier", "-n", SYSTEM)
        control_plane.kubectl("delete", "modeldeployments", "--all", "-n", "default")


def test_an_upgrade_to_listed_namespaces_takes_the_cluster_wide_rights_away(
    installed: Helm, control_plane: ControlPlane
) -> None:
    def may(namespace: str) -> bool:
        account = f"--as=system:serviceaccount:{SYSTEM}:modelpier-operator"
        return can(control_plane, "patch", "modeldeployments.modelpier.dev", "status", namespace, account)

    assert may("team-a")
    assert may("default")
    listed = ("--set", "watchNamespaces={team-a}")
    installed("upgrade", "modelpier", str(CHART), *REGISTRY, "-n", SYSTEM, *listed)
    assert may("team-a")
    assert not may("default")
    assert not get(control_plane, "clusterrolebindings", "-l", "app.kubernetes.io/instance=modelpier")["items"]


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
        return can(control_plane, verb, "modeldeployments.modelpier.dev", subresource, "team-a", f"--as={user}")

    assert may("editor", "create")
    assert may("editor", "patch", "scale")
    assert not may("editor", "patch", "status")
    assert may("viewer", "get")
    assert not may("viewer", "delete")


def can(control_plane: ControlPlane, verb: str, what: str, subresource: str, namespace: str, who: str) -> bool:
    try:
        question = ("auth", "can-i", verb, what, f"--subresource={subresource}", "-n", namespace, who)
        return control_plane.kubectl(*question).strip() == "yes"
    except ClusterError:  # kubectl's exit status says no as well
        return False
