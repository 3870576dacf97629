"""Loads and unloads models on request of a client, without Kubernetes: Triton's repository extension asks for it.

`process` makes it where `--allow-repository-control` says so. It goes the way of plans: each request is a newer plan of
the models that `--model` names, and the follower does the rest. A model that is loaded again is brought up beside the
one that serves, which goes only when the new one is ready; where that fails, the old one stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
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
        self._models = {model.name: model for model in models}
        self._held: dict[str, PlannedModel] = dict(self._models)
        self._busy: set[str] = set()
        self._loads = 0
        self._generation = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self) -> None:
        self._apply(self._held.values())

    def unloaded(self) -> list[tuple[str, str]]:
        """Name and version of what could be loaded."""
        leaving = {record.planned.name for record in self._follower.board.leaving}
        return [
            (m.name, m.version) for m in self._models.values() if m.name not in self._held and m.name not in leaving
        ]

    async def load(self, name: str) -> None:
        """Returns once the model as it now is serves; goes on when the caller leaves.

        Raises NotFound, Unavailable (busy), InvalidRequest (it cannot be loaded).
        """
        model = self._claim(name)
        task = asyncio.get_running_loop().create_task(self._load(model))
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        await asyncio.shield(task)

    async def unload(self, name: str) -> None:
        """Returns once no request finds the model any more; those in flight are answered. Raises as `load`."""
        self._claim(name)
        try:
            self._held.pop(name, None)
            self._apply(self._held.values())
        finally:
            self._busy.discard(name)

    def _claim(self, name: str) -> PlannedModel:
        model = self._models.get(name)
        if model is None:
            raise NotFound(f"model '{name[:100]}' is none that --model names; there are {', '.join(self._models)}")
        if name in self._busy or self._coming(name):
            raise Unavailable(f"model '{name}' is being loaded or unloaded already")
        self._busy.add(name)
        return model

    def _coming(self, name: str) -> bool:
        held = self._held.get(name)
        record = self._follower.board.records.get(held.revision) if held is not None else None
        return record is not None and not record.settled

    async def _load(self, model: PlannedModel) -> None:
        self._loads += 1
        old = self._held.get(model.name)
        # A candidate: whether this process goes on does not depend on it.
        new = replace(model, revision=f"{model.name}-load-{self._loads}", role=Role.CANDIDATE, weight=0 if old else 100)
        try:
            self._apply((*self._held.values(), new))
            record = self._follower.board.records[new.revision]
            if record.task is not None:
                await asyncio.wait({record.task})
            if record.state is ModelState.READY:
                self._held[model.name] = replace(new, role=model.role, weight=model.weight)
            self._apply(self._held.values())
        finally:
            self._busy.discard(model.name)
        _judge(record)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """The caller may be gone: then nobody else asks the task for its error."""
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()

    def _apply(self, models: Iterable[PlannedModel]) -> None:
        self._generation += 1
        self._follower.apply(Plan(OWNER, self._generation, tuple(models)))


def _judge(record: Record[S]) -> None:
    """Raises InvalidRequest where it failed, Unavailable where the process ended meanwhile."""
    if record.reason is not None:
        raise InvalidRequest(f"model '{record.planned.name}' cannot be loaded: {record.reason}: {record.message}")
    if record.state is not ModelState.READY:
        raise Unavailable(f"model '{record.planned.name}' was taken out of service while it was loaded")
