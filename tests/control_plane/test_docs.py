"""What the documentation shows of objects, on a real API server: nobody copies something that is refused."""

from __future__ import annotations

import pytest

from modelpier_cluster import ControlPlane
from support.pages import Block, manifests, parsed

SHOWN = manifests()
pytestmark = pytest.mark.control_plane


def test_there_are_some() -> None:
    """In the README, the tutorial and the reference: where one would look first."""
    kinds = {(block.page.name, document["kind"]) for block in SHOWN for document in parsed(block)}
    assert {(page, "ModelDeployment") for page in ("README.md", "first-model.md", "modeldeployment.md")} <= kinds


@pytest.mark.parametrize("block", SHOWN, ids=str)
def test_what_is_shown_is_accepted(shared_control_plane: ControlPlane, block: Block) -> None:
    told = shared_control_plane.kubectl(
        "apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-", stdin=block.text
    )
    assert told.count("serverside-applied (server dry run)") == len(parsed(block))
