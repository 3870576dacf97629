"""Loads and unloads models on request of a client, without Kubernetes: Triton's repository extension asks for it.

`process` makes it where `--allow-repository-control` says so. It goes the way of plans: each request is a newer plan of
the models that `--model` names, and the follower does the rest. A model that is loaded again is brought up beside the
one that serves, which goes only when the new one is ready; where that fails, the old one stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Generic

from modelpier_server.contract import ModelState, Plan, PlannedModel, Role
from modelpier_server.errors import InvalidRequest, NotFound, Unavailable
from modelpier_server.lifecycle.board import Record
from modelpier_server.lifecycle.follower import Follower
from modelpier_server.lifecycle.parts import S

OWNER = "local"


class Control(Generic[S]):
    """Belongs to the event loop. `models` are all that may ever be served; `begin` starts with all of them."""

    def __init__(self, follower: Follower[S], models: Sequence[PlannedModel]) -> None:
        self._follower = follower
        self._models = {model.name: model for model in models if model.role is not Role.SHADOW}
        self._shadows = [model for model in models if model.role is Role.SHADOW]
        """Always held; where no model of the name is loaded, they have nothing to do."""
        self._held: dict[str, PlannedModel] = dict(self._models)
        self._coming: dict[str, PlannedModel] = {}
        """On request, and not ready yet."""
        self._loads = 0
        self._generation = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self) -> None:
        self._apply()

    def unloaded(self) -> list[tuple[str, str]]:
        """Name and version of what could be loaded."""
        leaving = {record.planned.name for record in self._follower.board.leaving}
        known = self._held.keys() | self._coming.keys() | leaving
        return [(model.name, model.version) for model in self._models.values() if model.name not in known]

    async def load(self, name: str) -> None:
        """Returns once the model as it now is serves; goes on when the caller leaves.

        Raises NotFound, Unavailable (busy), InvalidRequest (it cannot be loaded).
        """
        model = self._free(name)
        self._loads += 1
        # A candidate: whether this process goes on does not depend on it.
        weight = 0 if name in self._held else model.weight
        new = replace(model, revision=f"{name}-load-{self._loads}", role=Role.CANDIDATE, weight=weight)
        self._coming[name] = new
        task = asyncio.get_running_loop().create_task(self._load(model, new))
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        await asyncio.shield(task)

    async def unload(self, name: str) -> None:
        """Returns once no request finds the model any more; those in flight are answered. Raises as `load`."""
        self._free(name)
        self._held.pop(name, None)
        self._apply()

    def _free(self, name: str) -> PlannedModel:
        model = self._models.get(name)
        if model is None:
            raise NotFound(f"model '{name[:100]}' is none that --model names; there are {', '.join(self._models)}")
        if name in self._coming or self._starting(name):
            raise Unavailable(f"model '{name}' is being loaded already")
        return model

    def _starting(self, name: str) -> bool:
        held = self._held.get(name)
        record = self._follower.board.records.get(held.revision) if held is not None else None
        return record is not None and not record.settled

    async def _load(self, model: PlannedModel, new: PlannedModel) -> None:
        self._apply()
        record = self._follower.board.records[new.revision]
        if record.task is not None:
            await asyncio.wait({record.task})
        del self._coming[model.name]
        if record.state is ModelState.READY:
            self._held[model.name] = replace(new, role=model.role, weight=model.weight)
        self._apply()
        _judge(record)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """The caller may be gone: then nobody else asks the task for its error."""
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()

    def _apply(self) -> None:
        self._generation += 1
        models = (*self._held.values(), *self._coming.values(), *self._shadows)
        self._follower.apply(Plan(OWNER, self._generation, models))


def _judge(record: Record[S]) -> None:
    """Raises InvalidRequest where it failed, Unavailable where the process ended meanwhile."""
    if record.reason is not None:
        raise InvalidRequest(f"model '{record.planned.name}' cannot be loaded: {record.reason}: {record.message}")
    if record.state is not ModelState.READY:
        raise Unavailable(f"model '{record.planned.name}' was taken out of service while it was loaded")
