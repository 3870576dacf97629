"""What a server is told at its start: by flags on a laptop, by the environment (`contract.ENV_*`) in Kubernetes.

`__main__` calls `read` once; nothing else of the server looks at flags or at the environment for its settings.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from modelpier_server import contract
from modelpier_server.contract import GoldenTests, Options, PlannedModel, Provider, Role

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PATH = re.compile(r"/[A-Za-z0-9._~:@/-]{0,1000}")
LOCAL_VERSION = "1"
SHADOW_VERSION = "shadow"
CLOUD_PORT = "AIP_HTTP_PORT"
"""Vertex AI's; its other variables name the routes."""


class SettingsError(ValueError):
    """The text names the flag or variable and the remedy."""


@dataclass(frozen=True)
class PlanSource:
    """Where plans come from and whose are followed."""

    file: Path
    public_key: str
    owner_uid: str
    admin_port: int
    pod_set: str = ""
    """Empty: plans for any set are followed."""


@dataclass(frozen=True)
class TlsFiles:
    """PEM; read again when they change."""

    cert: Path
    """The server's certificate, then those between it and an authority that clients know."""
    key: Path
    client_ca: Path | None = None
    """Authorities: only clients with a certificate of theirs are let in. None: all are."""


@dataclass(frozen=True)
class Settings:
    host: str
    http_port: int
    grpc_port: int | None
    """None: no gRPC."""
    source: PlanSource | None
    """None: no Kubernetes; `models` is all that is served."""
    models: tuple[PlannedModel, ...]
    model_dir: Path
    model_storage: int
    """Bytes that `model_dir` may hold; 0: no limit but the volume's."""
    credentials_dir: Path
    pvc_dir: Path
    termination_log: Path | None
    drain_accept: float
    """Seconds between the signal to end and the end of listening."""
    drain_limit: float
    """Seconds that requests in flight get after that, and those of a model that is dropped from the plan."""
    json_logs: bool
    log_level: str
    access_log: float
    """Share of the requests that get a line."""
    tracing: bool = False
    """Spans are sent to where OpenTelemetry's own variables say."""
    repository_control: bool = False
    """Clients may load and unload what `models` names."""
    vertex: tuple[str, str] | None = None
    """Paths for health and prediction that Vertex AI chose."""
    api_keys: Path | None = None
    """File, or folder of files; None: nobody needs a key."""
    tls: TlsFiles | None = None
    """None: both inference ports are in plain."""
    probe_port: int | None = None
    """Health and figures in plain, for those who have no certificate or trust none; None: no such port."""


def parser() -> argparse.ArgumentParser:
    flags = argparse.ArgumentParser(
        prog="modelpier-server",
        description="Serves ONNX models: the Open Inference Protocol over HTTP (below /v2) and gRPC, and POST /model.",
        epilog=f"In Kubernetes {contract.ENV_PLAN_FILE} names the plan that says what is served, in place of --model.",
    )
    add = flags.add_argument
    add("--model", action="append", default=[], metavar="NAME=URI", help="a model to serve, by path or URI; repeatable")
    add(
        "--digest",
        action="append",
        default=[],
        metavar="NAME=sha256:HEX",
        help="refuse NAME when it has another digest",
    )
    add(
        "--shadow",
        action="append",
        default=[],
        metavar="NAME=URI",
        help="a model that repeats the requests of --model NAME to be compared with it, and answers nobody",
    )
    add(
        "--shadow-share",
        action="append",
        default=[],
        metavar="NAME=PERCENT",
        help="share of the requests that NAME's shadow repeats (default 100)",
    )
    add("--host", help="address to listen on (default 127.0.0.1; with a plan 0.0.0.0)")
    add("--http-port", type=_port, help=f"default {contract.HTTP_PORT}; 0: any free one")
    add("--grpc-port", type=_port, help=f"default none; with a plan {contract.GRPC_PORT}; 0: any free one")
    add("--admin-port", type=_port, help=f"plans and reports, only with a plan (default {contract.ADMIN_PORT})")
    add(
        "--tls-cert",
        type=Path,
        metavar="FILE",
        help="certificate (PEM, with its chain): both inference ports speak TLS",
    )
    add("--tls-key", type=Path, metavar="FILE", help="private key of --tls-cert")
    add(
        "--tls-client-ca", type=Path, metavar="FILE", help="let in only clients with a certificate of these authorities"
    )
    add(
        "--api-keys", type=Path, metavar="PATH", help="file or folder with the digests of keys: requests must bring one"
    )
    add(
        "--probe-port",
        type=_port,
        help=f"health and metrics in plain HTTP (default none; with a plan and TLS {contract.PROBE_PORT})",
    )
    add("--provider", action="append", default=[], help="execution provider of ONNX Runtime; repeatable, in order")
    add("--instances", type=_count, default=0, help="runs at once (default: from the CPU limit)")
    add("--threads", type=_count, default=0, help="threads of each run (default: from the CPU limit)")
    add("--isolated", action="store_true", help="run each model in a process of its own: a crash takes no other one")
    add(
        "--hooks",
        action="store_true",
        help="run the hooks.py of each model's folder before and after it: code with all rights of the server",
    )
    add(
        "--custom-operators",
        action="append",
        default=[],
        metavar="PATH",
        help="load this library of operators from each model's folder (such as ops/custom.so): native code with all "
        "rights of the server; repeatable",
    )
    add("--no-golden-tests", action="store_true", help="do not run the examples that a model's folder brings")
    add("--log-format", choices=("json", "text"), help="default text; with a plan json")
    add("--log-level", choices=("DEBUG", "INFO", "WARNING", "ERROR"), default="INFO", help="default %(default)s")
    text = "log one line per request of the inference ports, or of so large a share of them (default 1)"
    add("--access-log", nargs="?", const=1.0, type=_share, metavar="SHARE", help=text)
    add(
        "--allow-repository-control",
        action="store_true",
        help="clients may load and unload what --model names (Triton's repository extension)",
    )
    add(
        "--drain-accept-seconds",
        type=_seconds,
        help="go on accepting for so long after SIGTERM (default 0; with a plan 5)",
    )
    return flags


def read(arguments: Sequence[str] | None, environment: Mapping[str, str]) -> Settings:
    """Raises SettingsError, or SystemExit(2) as argparse does."""
    flags = parser().parse_args(arguments)
    source = _source(flags, environment)
    if source is None:
        models = _models(flags)
    else:
        if flags.model or flags.digest or flags.shadow or flags.shadow_share:
            raise SettingsError(
                f"--model, --digest, --shadow, --shadow-share: not together with {contract.ENV_PLAN_FILE}: "
                "the plan names the models"
            )
        if flags.allow_repository_control:
            raise SettingsError(
                f"--allow-repository-control: not together with {contract.ENV_PLAN_FILE}: the plan decides what is held"
            )
        models = ()
    planned = source is not None
    accept = contract.DRAIN_ACCEPT_SECONDS if planned else 0.0
    log = environment.get(contract.ENV_TERMINATION_LOG) or (contract.TERMINATION_LOG if planned else "")
    hosted = planned or CLOUD_PORT in environment
    tls = _tls(flags, environment)
    probed = planned and tls is not None
    return Settings(
        host=flags.host or ("0.0.0.0" if hosted else "127.0.0.1"),  # noqa: S104 - a pod is reached from other nodes
        http_port=_http_port(environment) if flags.http_port is None else flags.http_port,
        grpc_port=contract.GRPC_PORT if planned and flags.grpc_port is None else flags.grpc_port,
        source=source,
        models=models,
        model_dir=_model_dir(environment, planned=planned),
        model_storage=_bytes(environment, contract.ENV_MODEL_STORAGE),
        credentials_dir=Path(environment.get(contract.ENV_CREDENTIALS_DIR) or contract.CREDENTIALS_DIR),
        pvc_dir=Path(environment.get(contract.ENV_PVC_DIR) or contract.PVC_DIR),
        termination_log=Path(log) if log else None,
        drain_accept=accept if flags.drain_accept_seconds is None else flags.drain_accept_seconds,
        drain_limit=_drain_limit(environment),
        json_logs=planned if flags.log_format is None else flags.log_format == "json",
        log_level=flags.log_level,
        access_log=_access_log(environment) if flags.access_log is None else flags.access_log,
        tracing=_tracing(environment),
        repository_control=flags.allow_repository_control,
        vertex=_vertex(environment),
        api_keys=_file("--api-keys", flags.api_keys, environment, contract.ENV_API_KEYS),
        tls=tls,
        probe_port=contract.PROBE_PORT if probed and flags.probe_port is None else flags.probe_port,
    )


def _model_dir(environment: Mapping[str, str], *, planned: bool) -> Path:
    if told := environment.get(contract.ENV_MODEL_DIR):
        return Path(told)
    if planned:
        return Path(contract.MODEL_DIR)
    try:
        return Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "modelpier" / "models"
    except RuntimeError as error:  # a container's user that no file knows, and no HOME
        raise SettingsError(f"{contract.ENV_MODEL_DIR}: must be set, as in /tmp/models: {error}") from error


def _tls(flags: argparse.Namespace, environment: Mapping[str, str]) -> TlsFiles | None:
    """A flag goes before its variable."""
    cert = _file("--tls-cert", flags.tls_cert, environment, contract.ENV_TLS_CERT)
    key = _file("--tls-key", flags.tls_key, environment, contract.ENV_TLS_KEY)
    client_ca = _file("--tls-client-ca", flags.tls_client_ca, environment, contract.ENV_TLS_CLIENT_CA)
    if cert is not None and key is not None:
        return TlsFiles(cert, key, client_ca)
    if cert is not None or key is not None or client_ca is not None:
        raise SettingsError(
            f"--tls-cert, --tls-key ({contract.ENV_TLS_CERT}, {contract.ENV_TLS_KEY}): give both; "
            "--tls-client-ca comes in addition"
        )
    return None


def _file(flag: str, given: Path | None, environment: Mapping[str, str], name: str) -> Path | None:
    if given is not None:
        return _expanded(flag, given)
    return Path(environment[name]) if environment.get(name) else None


def _expanded(flag: str, path: Path) -> Path:
    """~ and ~user for what a shell has left as it was: in NAME=~/model.onnx it does."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise SettingsError(f"{flag}: there is no home folder for {path.parts[0]}: write the whole path") from error


def _http_port(environment: Mapping[str, str]) -> int:
    """Of the cloud that runs this container, if one does."""
    text = environment.get(CLOUD_PORT)
    if text is None:
        return contract.HTTP_PORT
    try:
        return _port(text)
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise SettingsError(f"{CLOUD_PORT}: must be a port number; got {text[:100]!r}") from error


def _vertex(environment: Mapping[str, str]) -> tuple[str, str] | None:
    names = ("AIP_HEALTH_ROUTE", "AIP_PREDICT_ROUTE")
    paths = [environment.get(name, "") for name in names]
    if not any(paths):
        return None
    for name, path in zip(names, paths, strict=True):
        if not _PATH.fullmatch(path):
            raise SettingsError(
                f"{name}: must be a path such as /health, set together with the other; got {path[:100]!r}"
            )
    return paths[0], paths[1]


def _source(flags: argparse.Namespace, environment: Mapping[str, str]) -> PlanSource | None:
    file = environment.get(contract.ENV_PLAN_FILE)
    if not file:
        if flags.admin_port is not None:
            raise SettingsError(f"--admin-port: only with a plan ({contract.ENV_PLAN_FILE})")
        return None
    for name in (contract.ENV_PLAN_PUBLIC_KEY, contract.ENV_OWNER_UID):
        if not environment.get(name):
            raise SettingsError(f"{name}: must be set together with {contract.ENV_PLAN_FILE}")
    return PlanSource(
        file=Path(file),
        public_key=environment[contract.ENV_PLAN_PUBLIC_KEY],
        owner_uid=environment[contract.ENV_OWNER_UID],
        admin_port=contract.ADMIN_PORT if flags.admin_port is None else flags.admin_port,
        pod_set=environment.get(contract.ENV_POD_SET, ""),
    )


def _models(flags: argparse.Namespace) -> tuple[PlannedModel, ...]:
    if not flags.model:
        raise SettingsError("--model: give at least one, as in --model digits=./digits.onnx")
    models = _pairs(flags.model, "--model", "NAME=URI")
    digests = _pairs(flags.digest, "--digest", "NAME=sha256:HEX")
    if unknown := digests.keys() - models.keys():
        raise SettingsError(f"--digest: there is no --model {min(unknown)}")
    options = Options(
        instances=flags.instances,
        threads=flags.threads,
        isolated=flags.isolated,
        hooks=flags.hooks,
        custom_operators=_libraries(flags.custom_operators),
        golden_tests=GoldenTests(enabled=not flags.no_golden_tests),
    )
    if flags.provider:
        options = replace(options, providers=tuple(map(Provider, flags.provider)))
    planned = tuple(
        PlannedModel(
            name, name, LOCAL_VERSION, _uri("--model", uri), digest=_digest(digests.get(name)), options=options
        )
        for name, uri in models.items()
    )
    return (*planned, *_shadows(flags, models, options))


def _libraries(paths: Sequence[str]) -> tuple[str, ...]:
    if len(paths) > contract.MOST_LIBRARIES:
        raise SettingsError(f"--custom-operators: give at most {contract.MOST_LIBRARIES}")
    for path in paths:
        if not contract.is_library(path):
            raise SettingsError(
                "--custom-operators: must be a path relative to the model's folder, such as ops/custom.so; "
                f"got {path[:100]!r}"
            )
    return tuple(paths)


def _shadows(flags: argparse.Namespace, models: Mapping[str, str], options: Options) -> tuple[PlannedModel, ...]:
    shadows = _pairs(flags.shadow, "--shadow", "NAME=URI")
    shares = _pairs(flags.shadow_share, "--shadow-share", "NAME=PERCENT")
    if unknown := shadows.keys() - models.keys():
        raise SettingsError(f"--shadow: there is no --model {min(unknown)}")
    if unknown := shares.keys() - shadows.keys():
        raise SettingsError(f"--shadow-share: there is no --shadow {min(unknown)}")
    return tuple(
        PlannedModel(
            name,
            f"{name}:{SHADOW_VERSION}",  # no --model has such a name
            SHADOW_VERSION,
            _uri("--shadow", uri),
            weight=_percent(shares.get(name, "100")),
            role=Role.SHADOW,
            options=options,
        )
        for name, uri in shadows.items()
    )


def _percent(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,3}", text) or int(text) > contract.LARGEST_SHARE:
        raise SettingsError(f"--shadow-share: must be a whole number from 0 to {contract.LARGEST_SHARE}: percent")
    return int(text)


def _pairs(values: Sequence[str], flag: str, form: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for value in values:
        name, equals, rest = value.partition("=")
        if not equals or not rest or not _NAME.fullmatch(name):
            raise SettingsError(
                f"{flag}: write {form}, NAME being of letters, digits, '.', '_' and '-'; got {value[:100]!r}"
            )
        if name in found:
            raise SettingsError(f"{flag}: {name} is given twice")
        found[name] = rest
    return found


def _uri(flag: str, text: str) -> str:
    """A path stands for itself."""
    if "://" in text:
        return text
    expanded = _expanded(flag, Path(text))
    try:
        path = expanded.resolve()
        return path.as_uri() + ("/" if path.is_dir() else "")
    except (OSError, RuntimeError) as error:  # too long, in a folder that is closed to us, links in a circle
        raise SettingsError(f"{flag}: give a path that can be looked at: {error}") from error


def _digest(text: str | None) -> str | None:
    if text is not None and not _DIGEST.fullmatch(text):
        raise SettingsError("--digest: must be sha256: and 64 hexadecimal digits in lower case")
    return text


def _bytes(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name) or "0"
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise SettingsError(f"{name}: must be a whole number of bytes, without a unit; got {text[:100]!r}")
    return int(text)


def _drain_limit(environment: Mapping[str, str]) -> float:
    text = environment.get(contract.ENV_DRAIN_LIMIT)
    if not text:
        return contract.DRAIN_LIMIT_SECONDS
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]+)?", text):
        raise SettingsError(f"{contract.ENV_DRAIN_LIMIT}: must be a number of seconds below a million")
    return float(text)


def _access_log(environment: Mapping[str, str]) -> float:
    text = environment.get(contract.ENV_ACCESS_LOG) or "0"
    try:
        return _share(text)
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise SettingsError(f"{contract.ENV_ACCESS_LOG}: must be a number from 0 to 1; got {text[:100]!r}") from error


_SAMPLERS = ("always_on", "always_off", "traceidratio")


def _tracing(environment: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's variables name a collector, and what is to be sent there. The SDK reads all others."""

    def value(name: str) -> str:
        return environment.get(name, "").strip().lower()

    if value("OTEL_SDK_DISABLED") == "true" or value("OTEL_TRACES_EXPORTER") == "none":
        return False
    if not (value("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or value("OTEL_EXPORTER_OTLP_ENDPOINT")):
        return False
    if value("OTEL_TRACES_EXPORTER") not in {"", "otlp"}:
        raise SettingsError("OTEL_TRACES_EXPORTER: must be otlp or none")
    protocol = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
    if not value(protocol):
        protocol = "OTEL_EXPORTER_OTLP_PROTOCOL"
    if value(protocol) not in {"", "http/protobuf"}:
        raise SettingsError(f"{protocol}: must be http/protobuf (a collector's port 4318)")
    return _sampled(value("OTEL_TRACES_SAMPLER"), value("OTEL_TRACES_SAMPLER_ARG"))


def _sampled(sampler: str, argument: str) -> bool:
    """Whether the sampler takes anything at all."""
    if sampler and sampler.removeprefix("parentbased_") not in _SAMPLERS:
        known = (f"{prefix}{name}" for prefix in ("", "parentbased_") for name in _SAMPLERS)
        raise SettingsError(f"OTEL_TRACES_SAMPLER: must be one of {', '.join(known)}")
    if sampler.endswith("traceidratio") and argument:
        try:
            _share(argument)
        except (ValueError, argparse.ArgumentTypeError) as error:
            raise SettingsError("OTEL_TRACES_SAMPLER_ARG: must be a number from 0 to 1") from error
    return sampler != "always_off"


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError("must be from 0 to 1")
    return value


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError("must be from 0 to 65535")
    return value


def _count(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 4096:
        raise argparse.ArgumentTypeError("must be from 0 to 4096")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 3600:
        raise argparse.ArgumentTypeError("must be from 0 to 3600")
    return value
