"""Ports, paths, names of variables and files, times and exit status: what operator and server call things alike."""

from __future__ import annotations

# ------------------------------------------------------------------------------------------------ ports and paths
HTTP_PORT = 8080
"""Inference, health and metrics over HTTP."""
GRPC_PORT = 8081
"""Inference and health over gRPC."""
ADMIN_PORT = 8082
"""Plans and reports; closed to everyone but the operator by the NetworkPolicy."""
PROBE_PORT = 8083
"""Health and figures in plain HTTP, where the inference ports speak TLS."""

LIVE_PATH = "/v2/health/live"
READY_PATH = "/v2/health/ready"
METRICS_PATH = "/metrics"
PLAN_PATH = "/admin/plan"
"""PUT a signed plan (body: the plan's bytes; header SIGNATURE_HEADER): 200 with the report; 409 (with the report)
when an equal or newer one is held; 400 when it is malformed or belongs to another deployment; 403 when the signature
is wrong."""
STATE_PATH = "/admin/state"
"""GET the report; `?after=SERIAL&wait=SECONDS` answers once the report's serial is greater than SERIAL or the time is
over."""
SIGNATURE_HEADER = "X-Modelpier-Plan-Signature"

# ------------------------------------------------------------------------------------------------ environment and files
ENV_PLAN_FILE = "MODELPIER_PLAN_FILE"
ENV_PLAN_PUBLIC_KEY = "MODELPIER_PLAN_PUBLIC_KEY"
"""Raw 32-byte Ed25519 public key, base64."""
ENV_OWNER_UID = "MODELPIER_OWNER_UID"
"""Plans of any other owner are refused."""
ENV_POD_SET = "MODELPIER_POD_SET"
"""Plans for any other pod set are refused; unset: whatever set a plan names is taken."""
ENV_DRAIN_LIMIT = "MODELPIER_DRAIN_LIMIT"
"""Seconds that requests in flight get after DRAIN_ACCEPT_SECONDS: the longest request may take so long. Unset:
DRAIN_LIMIT_SECONDS."""
ENV_MODEL_DIR = "MODELPIER_MODEL_DIR"
ENV_MODEL_STORAGE = "MODELPIER_MODEL_STORAGE"
"""Bytes that MODEL_DIR may hold: a larger model is refused with DISK_FULL before the kubelet would evict the pod."""
ENV_CREDENTIALS_DIR = "MODELPIER_CREDENTIALS_DIR"
ENV_PVC_DIR = "MODELPIER_PVC_DIR"
ENV_TERMINATION_LOG = "MODELPIER_TERMINATION_LOG"
ENV_ACCESS_LOG = "MODELPIER_ACCESS_LOG"
"""Share of the requests that get a line in the log, from 0 to 1."""
ENV_API_KEYS = "MODELPIER_API_KEYS"
"""File or folder: requests must bring one of these keys."""
ENV_TLS_CERT = "MODELPIER_TLS_CERT"
"""File: the inference ports speak TLS with this certificate."""
ENV_TLS_KEY = "MODELPIER_TLS_KEY"
ENV_TLS_CLIENT_CA = "MODELPIER_TLS_CLIENT_CA"
"""File: only clients with a certificate of these authorities are let in."""

PLAN_DIR = "/etc/modelpier/plan"
PLAN_KEY = "plan.json"
"""Key in the plan's ConfigMap, and so the file's name below PLAN_DIR."""
SIGNATURE_KEY = "plan.sig"
"""Base64 of the Ed25519 signature over the bytes of PLAN_KEY."""
MODEL_DIR = "/var/lib/modelpier/models"
CREDENTIALS_DIR = "/etc/modelpier/credentials"
"""One folder per Secret, one file per key: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION,
AWS_ENDPOINT_URL (s3);
HTTP_AUTHORIZATION, or HTTP_USERNAME and HTTP_PASSWORD (http, https); HF_TOKEN, HF_ENDPOINT (hf)."""
PVC_DIR = "/mnt/modelpier/pvc"
"""One folder per PersistentVolumeClaim, mounted read-only; `pvc://CLAIM/PATH` is PVC_DIR/CLAIM/PATH."""
TERMINATION_LOG = "/dev/termination-log"
TERMINATION_LOG_LIMIT = 4096
"""Bytes that a kubelet keeps of a termination message."""

EXIT_MODEL_FAILED = 78
"""Exit status (EX_CONFIG of sysexits.h) of a server that could not bring up what its plan requires and serves nothing
else; its termination message is a `Failure`."""

DRAIN_ACCEPT_SECONDS = 5.0
"""After SIGTERM a server goes on accepting for so long: endpoints take time to propagate."""
GRPC_SETTLE_SECONDS = 22.5
"""Within that time every connection to the gRPC port is asked to go, by its age alone: a server that ends waits for so
long for clients that call all the time."""
DRAIN_LIMIT_SECONDS = 30.0
"""Requests in flight get at least so much time after that; more where ENV_DRAIN_LIMIT says so."""

URI_SCHEMES = ("file", "pvc", "http", "https", "s3", "hf")
