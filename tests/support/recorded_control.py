"""In place of what loads and unloads on request of clients."""

from __future__ import annotations

from modelpier_server.errors import NotFound


class Recorded:
    """A control that writes down what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    async def load(self, name: str) -> None:
        self.asked.append(("load", name))
        if name == "zz":
            raise NotFound("model 'zz' is none that --model names")

    async def unload(self, name: str) -> None:
        self.asked.append(("unload", name))

    def unloaded(self) -> list[tuple[str, str]]:
        return [("gone", "1")]
