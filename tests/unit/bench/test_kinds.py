from bench.operator import kinds

from modelpier_operator.api.v1alpha1 import parse_spec


def test_what_the_load_creates_is_a_valid_spec() -> None:
    assert parse_spec(kinds.model_deployment(7)["spec"]).replicas == kinds.REPLICAS


def test_settled_means_that_the_status_speaks_of_the_newest_spec() -> None:
    md = {"metadata": {"generation": 2}, "status": {"observedGeneration": 1}}
    assert not kinds.settled(md)
    md["status"]["observedGeneration"] = 2
    assert kinds.settled(md)
    assert not kinds.settled({"metadata": {"generation": 1}})
