"""A real Kubernetes cluster on one Linux machine, and parts of one for tests. See docs/how-to/local-cluster.md.

Importable: ControlPlane (a loopback API server, no root), ObjectStore (a loopback S3 server), audit (who wrote what).
"""

from modelpier_cluster.errors import ClusterError
from modelpier_cluster.loopback import ControlPlane
from modelpier_cluster.object_store import ObjectStore

__all__ = ["ClusterError", "ControlPlane", "ObjectStore"]
