"""Who may connect to the pods: `spec.access`, with the peers of Kubernetes' NetworkPolicy in their own shape.

`desired.network` hands them on as they are. All that Kubernetes would refuse in a policy is refused here already, by
the types alone: `validation` is not asked where a revision stays, and with a change of these it does.
https://kubernetes.io/docs/concepts/services-networking/network-policies/
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from modelpier_operator.api import rules
from modelpier_operator.api.labels import LABEL_REMEDY, is_label_key
from modelpier_operator.api.section import Cidr, LabelValue, Section


def _key(key: str) -> str:
    if not is_label_key(key):
        raise PydanticCustomError("label", "{key} is no key of a label; {remedy}", {"key": key, "remedy": LABEL_REMEDY})
    return key


def _keys(labels: dict[str, str]) -> dict[str, str]:
    for key in labels:
        _key(key)
    return labels


class SelectorOperator(StrEnum):
    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class Requirement(Section):
    """What one label must be."""

    RULES: ClassVar = rules.REQUIREMENT

    key: Annotated[
        str,
        Field(
            pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
            r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$",
            max_length=317,
        ),
        AfterValidator(_key),
    ]
    """Key of the label."""
    operator: SelectorOperator
    """In, NotIn: its value is one of `values`, or none of them. Exists, DoesNotExist: it is there, or is not."""
    values: list[LabelValue] = Field(default_factory=list, max_length=32)
    """Values of In and NotIn."""


class LabelSelector(Section):
    """As everywhere in Kubernetes: all of it must hold, and an empty one selects everything."""

    match_labels: Annotated[dict[str, LabelValue], Field(max_length=32), AfterValidator(_keys)] = Field(
        default_factory=dict
    )
    """Labels that must be there with these values."""
    match_expressions: list[Requirement] = Field(default_factory=list, max_length=16)
    """What must hold of labels besides."""


class IPBlock(Section):
    """A range of addresses."""

    RULES: ClassVar = rules.IP_BLOCK

    cidr: Cidr
    """The range, such as 10.0.0.0/8 or 2001:db8::/32."""
    except_: list[Cidr] = Field(default_factory=list, max_length=32, alias="except")
    """Parts of it that are left out."""


class Peer(Section):
    """Pods by their labels and by those of their namespaces, or a range of addresses outside of the cluster."""

    RULES: ClassVar = rules.PEER

    pod_selector: LabelSelector | None = None
    """Pods with such labels; {}: all. Without namespaceSelector those in the ModelDeployment's own namespace."""
    namespace_selector: LabelSelector | None = None
    """Pods of namespaces with such labels; {}: of all. With podSelector those that it selects there."""
    ip_block: IPBlock | None = None
    """Addresses, for callers that are no pods. A load balancer or node on the way may put its own in their place."""


class Access(Section):
    """Who may connect to the pods. It holds where the cluster's network enforces NetworkPolicies."""

    from_: list[Peer] = Field(default_factory=list, max_length=32, alias="from")
    """Who reaches the pods, as in a NetworkPolicy: inference, metrics and every other port except the admin port, which
    is the operator's. Name your clients, the gateway before them, and who scrapes metrics. Empty: everybody."""
