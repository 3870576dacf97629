"""The contract between operator and server: all that both import.

The operator renders pods with these ports, paths and environment names, writes serving plans, and reads reports and
termination messages; the server follows. Nothing here imports anything of either side.

A *plan* names the revisions that a pod holds. Its identity is (owner uid, generation): generations only grow, so that
a pod can tell a late plan from a new one whichever way it came (mounted ConfigMap or push). It is signed with the
operator's Ed25519 key (RFC 8032), because a ConfigMap can be edited by people who may not decide what a model server
runs. It names its pod set too: the signed plan of one set, copied into another's ConfigMap, is refused there.

Both sides import from this package alone: `names` (ports, paths, variables), `states` (closed sets), `options`, `plan`,
`report`, `failure` (the messages, each with its `encode` and `decode`) and `signing` are how it is kept readable.
"""

from __future__ import annotations

from modelpier_server.contract.decoding import ContractError
from modelpier_server.contract.differences import Comparison, Outcome, OutputDifference
from modelpier_server.contract.failure import Failure
from modelpier_server.contract.names import (
    ADMIN_PORT,
    CREDENTIALS_DIR,
    DRAIN_ACCEPT_SECONDS,
    DRAIN_LIMIT_SECONDS,
    ENV_ACCESS_LOG,
    ENV_API_KEYS,
    ENV_CREDENTIALS_DIR,
    ENV_DRAIN_LIMIT,
    ENV_MODEL_DIR,
    ENV_MODEL_STORAGE,
    ENV_OWNER_UID,
    ENV_PLAN_FILE,
    ENV_PLAN_PUBLIC_KEY,
    ENV_POD_SET,
    ENV_PVC_DIR,
    ENV_TERMINATION_LOG,
    ENV_TLS_CERT,
    ENV_TLS_CLIENT_CA,
    ENV_TLS_KEY,
    EXIT_MODEL_FAILED,
    GRPC_PORT,
    GRPC_SETTLE_SECONDS,
    HTTP_PORT,
    LIVE_PATH,
    METRICS_PATH,
    MODEL_DIR,
    PLAN_DIR,
    PLAN_KEY,
    PLAN_PATH,
    PROBE_PORT,
    PVC_DIR,
    READY_PATH,
    SIGNATURE_HEADER,
    SIGNATURE_KEY,
    STATE_PATH,
    TERMINATION_LOG,
    TERMINATION_LOG_LIMIT,
    URI_SCHEMES,
)
from modelpier_server.contract.options import (
    LIBRARY_PATTERN,
    LONGEST_LIBRARY,
    MOST_LIBRARIES,
    Batching,
    GoldenTests,
    GraphOptimization,
    Limits,
    Options,
    Provider,
    is_library,
)
from modelpier_server.contract.plan import LARGEST_SHARE, Plan, PlannedModel
from modelpier_server.contract.report import ModelReport, Report, TensorSpec
from modelpier_server.contract.signing import sign, verify
from modelpier_server.contract.states import FailureReason, ModelState, Role

__all__ = [
    "ADMIN_PORT",
    "CREDENTIALS_DIR",
    "DRAIN_ACCEPT_SECONDS",
    "DRAIN_LIMIT_SECONDS",
    "ENV_ACCESS_LOG",
    "ENV_API_KEYS",
    "ENV_CREDENTIALS_DIR",
    "ENV_DRAIN_LIMIT",
    "ENV_MODEL_DIR",
    "ENV_MODEL_STORAGE",
    "ENV_OWNER_UID",
    "ENV_PLAN_FILE",
    "ENV_PLAN_PUBLIC_KEY",
    "ENV_POD_SET",
    "ENV_PVC_DIR",
    "ENV_TERMINATION_LOG",
    "ENV_TLS_CERT",
    "ENV_TLS_CLIENT_CA",
    "ENV_TLS_KEY",
    "EXIT_MODEL_FAILED",
    "GRPC_PORT",
    "GRPC_SETTLE_SECONDS",
    "HTTP_PORT",
    "LARGEST_SHARE",
    "LIBRARY_PATTERN",
    "LIVE_PATH",
    "LONGEST_LIBRARY",
    "METRICS_PATH",
    "MODEL_DIR",
    "MOST_LIBRARIES",
    "PLAN_DIR",
    "PLAN_KEY",
    "PLAN_PATH",
    "PROBE_PORT",
    "PVC_DIR",
    "READY_PATH",
    "SIGNATURE_HEADER",
    "SIGNATURE_KEY",
    "STATE_PATH",
    "TERMINATION_LOG",
    "TERMINATION_LOG_LIMIT",
    "URI_SCHEMES",
    "Batching",
    "Comparison",
    "ContractError",
    "Failure",
    "FailureReason",
    "GoldenTests",
    "GraphOptimization",
    "Limits",
    "ModelReport",
    "ModelState",
    "Options",
    "Outcome",
    "OutputDifference",
    "Plan",
    "PlannedModel",
    "Provider",
    "Report",
    "Role",
    "TensorSpec",
    "is_library",
    "sign",
    "verify",
]
