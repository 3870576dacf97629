"""Models in the process that calls: the graph and, where the options say so, the hooks beside it. `runtime.load` calls
it in the server's process, `isolation.worker` in a model's own.
"""

from __future__ import annotations

from pathlib import Path

from modelpier_server.contract import Options
from modelpier_server.errors import ModelError
from modelpier_server.runtime import hooks, onnx
from modelpier_server.runtime.graph_cache import GraphCache
from modelpier_server.runtime.session import Session


def load(path: Path, options: Options, digest: str = "", graphs: GraphCache | None = None) -> Session:
    """See `onnx.load`. The hooks are those of the file's folder: whoever calls knows that the digest covers it."""
    session = onnx.load(path, options, digest, graphs)
    if not options.hooks:
        return session
    try:
        return hooks.wrap(session, path.parent)
    except ModelError:
        session.close()
        raise
