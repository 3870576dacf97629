"""Models, loaded and ready to run."""

from modelpier_server.runtime.onnx import load
from modelpier_server.runtime.session import Control, Session

__all__ = ["Control", "Session", "load"]
