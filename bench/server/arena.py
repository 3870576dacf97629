"""What all measurements share: files of the models, right answers, cores, lengths. Used by rounds and singles."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.server import feeds, models
from bench.server.contestants import Contestant
from bench.server.cores import Cores
from bench.server.environments import content_key
from bench.server.running import Running
from bench.server.truth import Truth
from modelpier_cluster.paths import cache_root
from modelpier_cluster.progress import Progress


@dataclass(frozen=True)
class Arena:
    cores: Cores
    seconds: float
    """Of one run of ours and of the limits."""
    rounds: int
    progress: Progress
    truth: Truth

    @property
    def peers_seconds(self) -> float:
        """Their distance is large, and there are many of them: a third keeps all of it within half an hour."""
        return self.seconds / 3

    def files(self, *names: str) -> dict[str, Path]:
        return files(*names)

    @contextmanager
    def running(self, contestant: Contestant, *served: str) -> Iterator[Running]:
        """Ready for the first of the models. Raises NotRunning."""
        with tempfile.TemporaryDirectory(prefix="modelpier-bench-") as folder:
            running = Running(contestant, files(*served), Path(folder), self.cores)
            try:
                running.until_ready(served[0], self.truth)
                yield running
            finally:
                running.stop()


def files(*names: str) -> dict[str, Path]:
    """Made once per content of their makers, kept in the user's cache."""
    makers = "".join(Path(module.__file__ or "").read_text() for module in (models, feeds))
    folder = cache_root() / "bench" / f"models-{content_key(makers, platform.python_version())}"
    return {name: models.write(name, folder) for name in names}


def truth(names: Sequence[str]) -> Truth:
    return Truth(files(*names))
