"""All objects of a ModelDeployment: owned, ordered, and no more of them than needed."""

from __future__ import annotations

from typing import Any

import pytest

from modelpier_operator import names
from modelpier_operator.decide.facts import Observed, Ref
from modelpier_operator.judge import judge
from modelpier_server import contract
from support.builders import KEYS, T0, at, md, of_kind, settings


def children(**spec: Any) -> tuple[Any, ...]:
    return judge(Observed(md(**spec)), settings(), KEYS, T0).children


def test_everything_is_owned_labelled_and_in_the_same_namespace() -> None:
    for child in children(replicas=2):
        metadata = child["metadata"]
        (owner,) = metadata["ownerReferences"]
        assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == ("uid-m", True, True)
        assert metadata["labels"][names.LABEL_MANAGED_BY] == names.MANAGED_BY
        assert metadata["labels"][names.LABEL_DEPLOYMENT] == "m"
        assert metadata["namespace"] == "team"


def test_what_others_need_comes_first() -> None:
    kinds = [child["kind"] for child in children(replicas=2)]
    assert kinds[-1] == "Deployment"
    assert kinds.index("ControllerRevision") < kinds.index("ConfigMap") < kinds.index("Deployment")
    assert kinds.index("ServiceAccount") < kinds.index("Deployment")


@pytest.mark.parametrize(("replicas", "budgets"), [(0, 0), (1, 0), (2, 1), (9, 1)])
def test_a_disruption_budget_from_two_replicas_on(replicas: int, budgets: int) -> None:
    found = of_kind(children(replicas=replicas), "PodDisruptionBudget")
    assert len(found) == budgets
    for budget in found:
        assert budget["spec"]["maxUnavailable"] == 1
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_what_is_no_longer_needed_goes() -> None:
    first = judge(Observed(md(replicas=2)), settings(), KEYS, T0)
    smaller = judge(Observed(md(replicas=1, generation=2), children=first.children), settings(), KEYS, at(1))
    assert smaller.delete == (Ref("PodDisruptionBudget", "m"),)


def test_an_own_account_is_not_made() -> None:
    assert not of_kind(children(server={"serviceAccountName": "identity"}), "ServiceAccount")


def test_selectors_meet_pods() -> None:
    made = children()
    (deployment,), (service,) = of_kind(made, "Deployment"), of_kind(made, "Service")
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels
    assert service["spec"]["selector"].items() <= labels
    (policy,) = of_kind(made, "NetworkPolicy")
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels


def test_pods_mount_the_plan_of_their_set() -> None:
    made = children()
    (deployment,), (plan,) = of_kind(made, "Deployment"), of_kind(made, "ConfigMap")
    volumes = deployment["spec"]["template"]["spec"]["volumes"]
    assert next(v for v in volumes if v["name"] == "plan")["configMap"]["name"] == plan["metadata"]["name"]


def test_pods_and_their_plan_name_the_same_pod_set() -> None:
    made = children()
    (deployment,), (config,) = of_kind(made, "Deployment"), of_kind(made, "ConfigMap")
    (server,) = deployment["spec"]["template"]["spec"]["containers"]
    told = {e["name"]: e.get("value") for e in server["env"]}
    plan = contract.Plan.decode(config["data"][contract.PLAN_KEY])
    assert plan.pod_set == told[contract.ENV_POD_SET] == deployment["metadata"]["name"]


@pytest.mark.parametrize("length", [1, 40, 63])
def test_names_of_any_length(length: int) -> None:
    made = judge(Observed(md("m" * length)), settings(), KEYS, T0).children
    for child in made:
        limit = 63 if child["kind"] in {"Service", "ControllerRevision"} else 253
        assert len(child["metadata"]["name"]) <= limit
        assert all(len(value) <= 63 for value in child["metadata"]["labels"].values())
    (deployment,) = of_kind(made, "Deployment")
    assert len(deployment["metadata"]["name"]) <= 63 - 17, "a pod's hostname is a DNS label"
