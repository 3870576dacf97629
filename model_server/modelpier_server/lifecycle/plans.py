"""Lets a plan in, or says why not. `watch` offers the mounted file, `admin` what the operator pushes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from modelpier_server.contract import ContractError, Plan, verify

LARGEST = 2 * 1024 * 1024
"""Bytes. A ConfigMap ends at 1 MiB."""


class PlanRefused(Exception):  # noqa: N818 - says what happened
    """`status` is the answer to a push."""

    status: ClassVar[int] = 400


class PlanForged(PlanRefused):
    status = 403


class PlanStale(PlanRefused):
    """Not an error: the same plan comes by two ways, and one is slower."""

    status = 409


@dataclass(frozen=True)
class Trust:
    """Whose plans are followed."""

    public_key: str
    owner_uid: str
    pod_set: str = ""
    """Empty: whatever set a plan is for."""


def admit(raw: bytes, signature: str, trust: Trust, held: int) -> Plan:
    """The plan in `raw`, newer than generation `held`. Raises PlanRefused naming the field."""
    if len(raw) > LARGEST:
        raise PlanRefused(f"plan: larger than {LARGEST} bytes")
    try:
        verify(raw, signature, trust.public_key)  # before anything of it is looked at
    except ContractError as error:
        raise PlanForged(str(error)) from error
    try:
        plan = Plan.decode(raw)
    except ContractError as error:
        raise PlanRefused(str(error)) from error
    if plan.owner_uid != trust.owner_uid:
        raise PlanRefused(f"plan.owner_uid: belongs to {plan.owner_uid[:64]}, but this server to {trust.owner_uid}")
    if trust.pod_set and plan.pod_set != trust.pod_set:
        named = plan.pod_set[:64] or "none"
        raise PlanRefused(f"plan.pod_set: is for {named}, but this server belongs to {trust.pod_set}")
    if plan.generation <= held:
        raise PlanStale(f"plan.generation: {plan.generation} is not newer than {held}")
    for revision, count in Counter(m.revision for m in plan.models).items():
        if count > 1:
            raise PlanRefused(f"plan.models: revision {revision} is there {count} times")
    return plan


class Intake:
    """The one way in for plans."""

    def __init__(
        self, trust: Trust, held: Callable[[], int], follow: Callable[[Plan], None], refuse: Callable[[str], None]
    ) -> None:
        self._trust = trust
        self._held = held
        self._follow = follow
        self._refuse = refuse

    def offer(self, raw: bytes, signature: str) -> None:
        """Raises PlanRefused; all but stale plans are shown in the report as well."""
        try:
            plan = admit(raw, signature, self._trust, self._held())
        except PlanStale:
            raise
        except PlanRefused as error:
            self._refuse(str(error))
            raise
        self._follow(plan)
