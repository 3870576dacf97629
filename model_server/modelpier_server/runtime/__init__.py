"""Models, loaded and ready to run."""

from modelpier_server.runtime.onnx import load
from modelpier_server.runtime.session import Session

__all__ = ["Session", "load"]
