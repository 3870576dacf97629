"""The status of a ModelDeployment, as types: what the API server keeps of it.

`modelpier_operator.status` writes it as plain JSON; these types become the schema, and the tests hold what is written
against them, for the API server silently drops fields that a schema does not know.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from modelpier_operator.api.section import Section

Count = Annotated[int, Field(strict=True, ge=0, le=(1 << 31) - 1)]
# Without a maximum: the API server keeps bounds as floats, and no integer of 64 bits fits the one of 2**63 - 1.
Generation = Annotated[int, Field(strict=True, ge=0, json_schema_extra={"format": "int64"})]
Text = Annotated[str, Field(max_length=32768)]
Word = Annotated[str, Field(max_length=1024)]
Duration = Annotated[float, Field(ge=0)]
_BY_TYPE: dict[str, Any] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}


class Condition(Section):
    """metav1.Condition: one aspect of the state, and since when it is so."""

    type: Annotated[str, Field(pattern=r"^[A-Za-z]{1,64}$")]
    """Ready, Available, Progressing, Degraded, Stalled, ModelResolved, Scheduled or Loaded."""
    status: Annotated[str, Field(json_schema_extra={"enum": ["True", "False", "Unknown"]})]
    """True, False or Unknown."""
    observed_generation: Generation | None = None
    """The metadata.generation that was looked at."""
    last_transition_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """Since when `status` is what it is."""
    reason: Annotated[str, Field(pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$", max_length=1024)]
    """Root cause, one of a closed set: see the reference of conditions."""
    message: Text
    """The same for people, with names and numbers and what to do."""


class RevisionStatus(Section):
    """One revision: what was or is served."""

    name: Word
    """Name of its ControllerRevision."""
    version: Word | None = None
    """Its label in URLs."""
    digest: Word | None = None
    """Content of its model, once known."""
    pod_set: Word | None = None
    """Name of the Deployment whose pods hold it."""
    weight: Annotated[int | None, Field(strict=True, ge=0, le=100)] = None
    """Percent of production traffic."""
    replicas: Count | None = None
    """Pods that exist for it."""
    ready_replicas: Count | None = None
    """Pods that can serve it."""
    phase: Word | None = None
    """Serving, Ready (waits for traffic), Starting, Stopped, ScaledToZero or Failed."""
    reason: Word | None = None
    """Why, one of the reasons of conditions."""
    message: Text | None = None
    """The same for people."""


class RolloutStatus(Section):
    """The way from one revision to the next."""

    revision: Word | None = None
    """Name of the revision that the spec asks for."""
    strategy: Word | None = None
    """Surge, Swap or Replace: what was chosen."""
    reason: Word | None = None
    """Why it was chosen."""
    phase: Word | None = None
    """How far it is."""


class Timings(Section):
    """Seconds that the newest ready pod took."""

    schedule: Duration | None = None
    """From its creation until it had a node."""
    pull: Duration | None = None
    """From there until its container ran."""
    download: Duration | None = None
    """To download the model."""
    load: Duration | None = None
    """To load it into ONNX Runtime."""
    warm_up: Duration | None = None
    """To run it before it took requests."""


class ModelDeploymentStatus(Section):
    """What is: written by the operator alone."""

    observed_generation: Generation | None = None
    """The metadata.generation that this status speaks of."""
    url: Word | None = None
    """Where it serves inside the cluster."""
    version: Word | None = None
    """Version that serves."""
    replicas: Count | None = None
    """Pods that take production traffic or are meant to."""
    ready_replicas: Count | None = None
    """Those of them that are ready."""
    selector: Annotated[str | None, Field(max_length=4096)] = None
    """Label selector of the pods that take production traffic, for autoscalers."""
    conditions: Annotated[list[Condition] | None, Field(max_length=32, json_schema_extra=_BY_TYPE)] = None
    """Its state: see the reference of conditions."""
    revisions: Annotated[list[RevisionStatus] | None, Field(max_length=128)] = None
    """The revisions that have pods, or are meant to."""
    rollout: RolloutStatus | None = None
    """The latest rollout."""
    timings: Timings | None = None
    """How long the newest ready pod took to start, in seconds."""
