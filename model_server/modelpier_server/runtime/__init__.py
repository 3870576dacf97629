"""Models, loaded and ready to run."""

from pathlib import Path

from modelpier_server.contract import Options
from modelpier_server.runtime import onnx
from modelpier_server.runtime.isolation import load_isolated
from modelpier_server.runtime.session import Control, Session

__all__ = ["Control", "Session", "load"]


def load(path: Path, options: Options) -> Session:
    """Blocking: in this process or, where the options say so, in one of its own. Raises ModelError."""
    return load_isolated(path, options) if options.isolated else onnx.load(path, options)
