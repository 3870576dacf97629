"""Requests to runs: queues, batches, runner threads."""

from modelpier_server.scheduler.mirror import Mirrors
from modelpier_server.scheduler.servable import Servable
from modelpier_server.scheduler.turns import Turns
from modelpier_server.scheduler.work import FutureWork, Work

__all__ = ["FutureWork", "Mirrors", "Servable", "Turns", "Work"]
