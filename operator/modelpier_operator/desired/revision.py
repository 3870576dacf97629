"""A revision as an apps/v1 ControllerRevision."""

from __future__ import annotations

from typing import Any

from modelpier_operator import names
from modelpier_operator.decide import memory
from modelpier_operator.decide.facts import Manifest
from modelpier_operator.decide.revision import Revision
from modelpier_operator.desired.metadata import metadata


def controller_revision(md: Manifest, revision: Revision) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": metadata(
            md, revision.name, {names.LABEL_REVISION_HASH: revision.hash}, memory.write(revision.memory)
        ),
        "revision": revision.number,
        "data": {"spec": revision.snapshot, "template": revision.template},
    }
