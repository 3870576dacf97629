"""gRPC: the second inference port. Imported only where one is asked for: grpcio costs 0.1 s of a start."""

from modelpier_server.transport.grpc.limits import GrpcLimits
from modelpier_server.transport.grpc.server import GrpcServer, serve

__all__ = ["GrpcLimits", "GrpcServer", "serve"]
