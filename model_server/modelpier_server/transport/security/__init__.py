"""Who may speak with the inference ports, and how: certificates, and what is read from files and read again."""

from modelpier_server.transport.security.files import Watch, follow
from modelpier_server.transport.security.tls import Tls

__all__ = ["Tls", "Watch", "follow"]
