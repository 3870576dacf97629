"""What an API key may be good for; routes and methods name the one that they ask for."""

from __future__ import annotations

from enum import StrEnum


class Scope(StrEnum):
    INFER = "infer"
    """Whatever runs models or tells of them."""
    ADMIN = "admin"
    """Triton's repository: the index, loading and unloading."""
