"""Models, loaded and ready to run."""

from pathlib import Path
from threading import Event

from modelpier_server.contract import Options
from modelpier_server.runtime import local
from modelpier_server.runtime.graph_cache import GraphCache
from modelpier_server.runtime.isolation import load_isolated
from modelpier_server.runtime.session import Control, Session

__all__ = ["Control", "Session", "load"]


def load(
    path: Path, options: Options, stop: Event | None = None, digest: str = "", graphs: GraphCache | None = None
) -> Session:
    """Blocking: in this process or, where the options say so, in one of its own, which `stop` ends in the middle of a
    load. Raises ModelError. In this process the optimised graph of the model with that digest may be kept in `graphs`.
    """
    return load_isolated(path, options, stop) if options.isolated else local.load(path, options, digest, graphs)
