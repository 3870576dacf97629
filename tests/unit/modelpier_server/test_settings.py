from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from modelpier_server import contract
from modelpier_server.settings import SettingsError, TlsFiles, parser, read

POD = {
    contract.ENV_PLAN_FILE: "/etc/modelpier/plan/plan.json",
    contract.ENV_PLAN_PUBLIC_KEY: "a2V5",
    contract.ENV_OWNER_UID: "uid",
    contract.ENV_MODEL_STORAGE: "1000",
}


def test_a_laptop(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    flags = ["--model", f"a={tmp_path}/m 1.onnx", "--model", f"b={tmp_path}/folder", "--model", "c=s3://b/k"]
    settings = read(flags, {"XDG_CACHE_HOME": "/cache"})
    assert (settings.host, settings.http_port, settings.source) == ("127.0.0.1", 8080, None)
    assert [m.uri for m in settings.models] == [
        f"file://{tmp_path}/m%201.onnx",
        f"file://{tmp_path}/folder/",
        "s3://b/k",
    ]
    assert (settings.drain_accept, settings.json_logs, settings.termination_log) == (0.0, False, None)
    assert settings.model_dir == Path("/cache/modelpier/models")


def test_options_of_a_laptop() -> None:
    digest = f"sha256:{'0' * 64}"
    flags = ["--model", "a=x", "--digest", f"a={digest}", "--provider", "P", "--instances", "2", "--threads", "3"]
    flags += ["--custom-operators", "ops/a.so", "--custom-operators", "b.so"]
    (model,) = read(flags, {}).models
    assert (model.digest, model.options.instances, model.options.threads) == (digest, 2, 3)
    assert [p.name for p in model.options.providers] == ["P"]
    assert model.options.custom_operators == ("ops/a.so", "b.so")


def test_grpc_is_asked_for_on_a_laptop() -> None:
    model = ["--model", "a=x"]
    assert read(model, {}).grpc_port is None
    assert [read([*model, "--grpc-port", port], {}).grpc_port for port in ("0", "9000")] == [0, 9000]


def test_a_pod() -> None:
    settings = read([], POD)
    assert settings.source is not None
    assert (settings.host, settings.source.admin_port, settings.models) == ("0.0.0.0", contract.ADMIN_PORT, ())
    assert (settings.drain_accept, settings.json_logs) == (contract.DRAIN_ACCEPT_SECONDS, True)
    assert settings.grpc_port == contract.GRPC_PORT
    assert (settings.model_dir, settings.model_storage) == (Path(contract.MODEL_DIR), 1000)
    assert settings.termination_log == Path(contract.TERMINATION_LOG)


def test_a_cloud_that_runs_the_container() -> None:
    cloud = {"AIP_HTTP_PORT": "9000", "AIP_HEALTH_ROUTE": "/health", "AIP_PREDICT_ROUTE": "/v1/m:predict"}
    settings = read(["--model", "a=x"], cloud)
    assert (settings.host, settings.http_port) == ("0.0.0.0", 9000)
    assert settings.vertex == ("/health", "/v1/m:predict")
    told = read(["--model", "a=x", "--http-port", "1", "--host", "h"], cloud)
    assert (told.host, told.http_port) == ("h", 1)
    assert read(["--model", "a=x"], {}).vertex is None


@pytest.mark.parametrize(
    "environment",
    [
        {"AIP_HTTP_PORT": "x"},
        {"AIP_HTTP_PORT": "70000"},
        {"AIP_HEALTH_ROUTE": "/health"},
        {"AIP_HEALTH_ROUTE": "health", "AIP_PREDICT_ROUTE": "/p"},
        {"AIP_HEALTH_ROUTE": "/health", "AIP_PREDICT_ROUTE": "/{p}"},
    ],
)
def test_a_cloud_that_is_not_understood(environment: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="AIP_"):
        read(["--model", "a=x"], environment)


def test_repository_control_is_for_laptops() -> None:
    assert read(["--model", "a=x", "--allow-repository-control"], {}).repository_control
    assert not read(["--model", "a=x"], {}).repository_control
    with pytest.raises(SettingsError, match="--allow-repository-control"):
        read(["--allow-repository-control"], POD)


def test_certificates() -> None:
    assert read(["--model", "a=x"], {}).tls is None
    assert read(["--model", "a=x"], {}).probe_port is None
    flags = ["--tls-cert", "c", "--tls-key", "k"]
    laptop = read(["--model", "a=x", *flags], {})
    assert laptop.tls == TlsFiles(Path("c"), Path("k"))
    assert laptop.probe_port is None
    told = {contract.ENV_TLS_CERT: "/c", contract.ENV_TLS_KEY: "/k", contract.ENV_TLS_CLIENT_CA: "/ca"}
    pod = read([], {**POD, **told})
    assert (pod.tls, pod.probe_port) == (TlsFiles(Path("/c"), Path("/k"), Path("/ca")), contract.PROBE_PORT)
    assert read(["--tls-key", "k", "--probe-port", "0"], {**POD, **told}).probe_port == 0
    assert read(["--tls-key", "k"], {**POD, **told}).tls == TlsFiles(Path("/c"), Path("k"), Path("/ca"))


def test_what_a_pod_is_told_of_itself() -> None:
    plain = read([], POD)
    assert plain.source is not None
    assert (plain.source.pod_set, plain.drain_limit) == ("", contract.DRAIN_LIMIT_SECONDS)
    told = read([], {**POD, contract.ENV_POD_SET: "digits-1", contract.ENV_DRAIN_LIMIT: "86400"})
    assert told.source is not None
    assert (told.source.pod_set, told.drain_limit) == ("digits-1", 86400.0)


@pytest.mark.parametrize(
    ("flags", "environment", "names"),
    [
        ([], {}, "--model"),
        (["--model", "a"], {}, "NAME=URI"),
        (["--model", "a/b=x"], {}, "NAME"),
        (["--model", "a=x", "--model", "a=y"], {}, "twice"),
        (["--model", "a=x", "--digest", "b=sha256:0"], {}, "no --model b"),
        (["--model", "a=x", "--digest", "a=md5:0"], {}, "--digest"),
        (["--model", "a=x", "--admin-port", "1"], {}, "--admin-port"),
        (["--model", "a=x"], POD, "not together"),
        ([], {**POD, contract.ENV_OWNER_UID: ""}, contract.ENV_OWNER_UID),
        ([], {**POD, contract.ENV_MODEL_STORAGE: "1Gi"}, contract.ENV_MODEL_STORAGE),
        ([], {**POD, contract.ENV_DRAIN_LIMIT: "1m"}, contract.ENV_DRAIN_LIMIT),
        (["--model", "a=x", "--tls-cert", "c"], {}, "--tls-key"),
        (["--model", "a=x", "--tls-client-ca", "c"], {}, "--tls-cert"),
        ([], {**POD, contract.ENV_TLS_KEY: "k"}, contract.ENV_TLS_CERT),
        ([], {**POD, contract.ENV_DRAIN_LIMIT: "-1"}, contract.ENV_DRAIN_LIMIT),
        ([], {**POD, contract.ENV_DRAIN_LIMIT: "\u0663"}, contract.ENV_DRAIN_LIMIT),
        ([], {**POD, contract.ENV_MODEL_STORAGE: "\u00b2"}, f"{contract.ENV_MODEL_STORAGE}: must be a whole number"),
        ([], {**POD, contract.ENV_MODEL_STORAGE: "9" * 5000}, f"{contract.ENV_MODEL_STORAGE}: must be a whole number"),
        (["--model", "a=~nosuchuser/x.onnx"], {}, "--model: there is no home folder for ~nosuchuser: write the whole"),
        (["--model", "a=x", "--shadow", "a=~nosuchuser/x"], {}, "--shadow: there is no home folder for ~nosuchuser"),
        (["--model", "a=x", "--api-keys", "~nosuchuser/k"], {}, "--api-keys: there is no home folder for ~nosuchuser"),
        (["--model", "a=x", "--tls-cert", "~nosuchuser/k"], {}, "--tls-cert: there is no home folder for ~nosuchuser"),
        (["--model", "a=x", "--custom-operators", "../a.so"], {}, "--custom-operators: must be a path relative"),
        (["--model", "a=x", *["--custom-operators", "a.so"] * 9], {}, "--custom-operators: give at most 8"),
        (["--model", f"a={'x' * 300}"], {}, "--model: give a path that can be looked at"),
    ],
)
def test_mistakes_are_named(flags: list[str], environment: dict[str, str], names: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(flags, environment)
    assert names in str(caught.value)


def test_links_in_a_circle_are_named(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("a")
    with pytest.raises(SettingsError, match="--model: give a path that can be looked at"):
        read(["--model", f"a={tmp_path}/a"], {})


def test_somebody_without_a_home_says_where_models_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container with a user that its files do not know."""
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)
    with pytest.raises(SettingsError, match="MODELPIER_MODEL_DIR: must be set"):
        read(["--model", "a=x"], {})
    assert read(["--model", "a=x"], {contract.ENV_MODEL_DIR: "/m"}).model_dir == Path("/m")


@pytest.mark.parametrize(
    ("flags", "environment"),
    [(["--model", "a=~nosuchuser/x.onnx"], {}), ([], {**POD, contract.ENV_MODEL_STORAGE: "\u00b2"})],
)
def test_a_mistake_is_one_line_and_status_2(flags: list[str], environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "modelpier_server", *flags]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("modelpier-server: ")


@pytest.mark.parametrize("flags", [["--http-port", "70000"], ["--threads", "-1"], ["--drain-accept-seconds", "nan"]])
def test_numbers_are_checked(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read(["--model", "a=x", *flags], {})
    assert flags[0] in capsys.readouterr().err


def test_the_reference_has_every_flag_and_variable() -> None:
    page = (Path(__file__).parents[3] / "docs" / "reference" / "server.md").read_text()
    flags = [option for action in parser()._actions for option in action.option_strings if option.startswith("--")]
    variables = [value for name, value in vars(contract).items() if name.startswith("ENV_")]
    missing = [name for name in (*flags, *variables) if f"`{name}" not in page]
    assert missing == ["--help"]


# ------------------------------------------------------------------------------------------ traces and the access log
LAPTOP = ["--model", "a=x"]


@pytest.mark.parametrize(
    ("flags", "environment", "share"),
    [
        ([], {}, 0.0),
        (["--access-log"], {}, 1.0),
        (["--access-log", "0.01"], {}, 0.01),
        ([], {contract.ENV_ACCESS_LOG: "0.5"}, 0.5),
        (["--access-log", "0"], {contract.ENV_ACCESS_LOG: "0.5"}, 0.0),
    ],
)
def test_the_share_of_requests_that_are_logged(flags: list[str], environment: dict[str, str], share: float) -> None:
    assert read([*LAPTOP, *flags], environment).access_log == share


@pytest.mark.parametrize("text", ["2", "-1", "nan", "yes"])
def test_a_share_is_a_number(text: str) -> None:
    with pytest.raises(SettingsError, match="MODELPIER_ACCESS_LOG: must be a number from 0 to 1"):
        read(LAPTOP, {contract.ENV_ACCESS_LOG: text})


@pytest.mark.parametrize(
    ("more", "tracing"),
    [
        ({}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, True),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, False),
        ({"OTEL_TRACES_SAMPLER": "parentbased_always_off"}, True),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"}, True),
    ],
)
def test_traces_by_opentelemetrys_variables(more: dict[str, str], *, tracing: bool) -> None:
    assert read(LAPTOP, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", **more}).tracing is tracing


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
        ("OTEL_TRACES_EXPORTER", "jaeger"),
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_TRACES_SAMPLER_ARG", "2"),
    ],
)
def test_what_cannot_be_followed_is_refused(name: str, value: str) -> None:
    known = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_SAMPLER": "traceidratio"}
    with pytest.raises(SettingsError, match=name):
        read(LAPTOP, {**known, name: value})


def test_shadows_of_a_laptop() -> None:
    flags = ["--model", "a=x", "--model", "b=y", "--shadow", "a=z", "--shadow", "b=w", "--shadow-share", "b=5"]
    models = read(flags, {}).models
    assert [(m.name, m.weight) for m in models if m.role is contract.Role.SHADOW] == [("a", 100), ("b", 5)]
    assert len({m.revision for m in models}) == 4


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (["--shadow", "b=z"], "--shadow: there is no --model b"),
        (["--shadow", "a"], "--shadow: write NAME=URI"),
        (["--shadow-share", "a=5"], "--shadow-share: there is no --shadow a"),
        (["--shadow", "a=z", "--shadow-share", "a=101"], "--shadow-share: must be a whole number from 0 to 100"),
        (["--shadow", "a=z", "--shadow-share", "a=half"], "--shadow-share: must be a whole number from 0 to 100"),
    ],
)
def test_shadows_that_are_not_understood(flags: list[str], names: str) -> None:
    with pytest.raises(SettingsError, match=names):
        read(["--model", "a=x", *flags], {})


def test_shadows_of_a_pod_come_with_its_plan() -> None:
    with pytest.raises(SettingsError, match="--shadow"):
        read(["--shadow", "a=z"], POD)
