"""What a real API server makes of our manifests: it takes them, changes nothing, and holds pods to be restricted."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from modelpier_operator.cluster.compare import contains
from modelpier_operator.cluster.kinds import CHILDREN, POD
from modelpier_operator.decide.facts import Observed, Outcome
from modelpier_operator.judge import judge
from support.builders import KEYS, T0, md, of_kind, settings
from support.control_plane import missing
from support.manifests import CASES
from support.real_api import ApiServer

pytestmark = [pytest.mark.control_plane, pytest.mark.skipif(bool(missing()), reason=missing())]


def judged(case: str, namespace: str) -> Outcome:
    spec, administrator = CASES[case]
    subject = md(**{"replicas": 2, **spec})
    subject["metadata"] |= {"namespace": namespace, "uid": "0b0e7a3c-0000-4000-8000-000000000000"}
    return judge(Observed(subject), settings(**administrator), KEYS, T0)


@pytest.mark.parametrize("case", CASES)
def test_a_live_object_holds_every_field_as_we_wrote_it(case: str, api_server: ApiServer, namespace: str) -> None:
    for child in judged(case, namespace).children:
        live = api_server.call("POST", CHILDREN[child["kind"]].collection(namespace), child)
        assert contains(live, child), difference(live, child)


@pytest.mark.parametrize("case", ["smallest", "pod-template"])
def test_pods_follow_the_restricted_standard_unless_overridden(
    case: str, api_server: ApiServer, namespace: str
) -> None:
    label = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    api_server.call("PATCH", f"/api/v1/namespaces/{namespace}", label, "application/merge-patch+json")
    outcome = judged(case, namespace)
    (account,) = of_kind(outcome.children, "ServiceAccount")
    api_server.call("POST", CHILDREN["ServiceAccount"].collection(namespace), account)
    template = copy.deepcopy(of_kind(outcome.children, "Deployment")[0]["spec"]["template"])
    template["metadata"]["name"] = "p"
    body = {"apiVersion": "v1", "kind": "Pod", **template}
    path = f"{POD.collection(namespace)}?dryRun=All"
    if case == "smallest":
        assert contains(api_server.call("POST", path, body)["spec"], without_spread(template["spec"]))
    else:
        with pytest.raises(Exception, match="violates PodSecurity"):
            api_server.call("POST", path, body)


def without_spread(spec: Any) -> Any:
    """The API server writes the values of `matchLabelKeys` into a pod's own selector."""
    return {key: value for key, value in spec.items() if key != "topologySpreadConstraints"}


def difference(live: Any, wanted: Any, path: str = "") -> str:
    """Where the API server's object lacks or changes what was wanted."""
    if isinstance(wanted, dict) and isinstance(live, dict):
        return "".join(difference(live.get(key), value, f"{path}.{key}") for key, value in wanted.items())
    if isinstance(wanted, list) and isinstance(live, list) and len(live) == len(wanted):
        return "".join(difference(a, b, f"{path}[]") for a, b in zip(live, wanted, strict=True))
    return "" if live == wanted else f"{path}: wanted {wanted!r}, is {live!r}\n"
