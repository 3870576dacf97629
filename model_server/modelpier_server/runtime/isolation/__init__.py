"""Models in processes of their own, behind the same face as in this one."""

from modelpier_server.runtime.isolation.session import IsolatedSession, load_isolated

__all__ = ["IsolatedSession", "load_isolated"]
