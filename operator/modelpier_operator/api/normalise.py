"""What a user asked for, in one canonical form: equal intents give equal values, and so equal revision hashes.

`decide.revision` hashes it and keeps it in the ControllerRevision; `parse_spec` reads it back.
Values that equal their defaults are left out, so that a field which a later version adds (with a default) does not make
new revisions of everything. For the same reason a default never changes within an API version: a test holds the hashes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic.main import IncEx

from modelpier_operator.api.v1alpha1 import ModelDeploymentSpec

_POLICY: IncEx = {"runtime_upgrade"}
_NOT_PART_OF_A_REVISION: Mapping[str, IncEx | bool] = {
    "replicas": True,
    "rollout": True,
    "access": True,
    "server": _POLICY,
}
"""How many, how to get there, for whom, and when to follow the operator's image: none of them changes what is served.
"""


def normalise(spec: ModelDeploymentSpec) -> dict[str, Any]:
    """Camel-case JSON of `model`, `server` and `resources` without defaults; quantities are canonical by their type."""
    intent = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=_NOT_PART_OF_A_REVISION)
    return {section: fields for section, fields in intent.items() if fields}
