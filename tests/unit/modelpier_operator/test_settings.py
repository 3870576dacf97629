import pytest

from modelpier_operator.settings import Settings, SettingsError, from_environment

LEAST = {"MODELPIER_SERVER_IMAGE": "registry.example/server:1", "MODELPIER_NAMESPACE": "modelpier-system"}


def made(**more: str) -> Settings:
    return from_environment(LEAST | {f"MODELPIER_{key}": value for key, value in more.items()})


def test_image_and_namespace_are_enough() -> None:
    settings = made()
    assert settings.server_image == settings.server_image_gpu == "registry.example/server:1"
    assert settings.operator_namespace == "modelpier-system"
    assert (settings.watch_namespaces, settings.allow_pod_overrides, settings.ca_config_map) == ((), False, None)


def test_everything_can_be_set() -> None:
    settings = made(
        SERVER_IMAGE_GPU="registry.example/server-gpu:1",
        WATCH_NAMESPACES="team-a, team-b,",
        IMAGE_PULL_POLICY="Never",
        IMAGE_PULL_SECRETS="pull",
        CLUSTER_DOMAIN="cluster.example",
        ALLOW_POD_OVERRIDES="true",
        PLAN_KEY_SECRET="key",
        PROXY_ENV='{"HTTPS_PROXY": "http://proxy:3128"}',
        CA_CONFIG_MAP="ca",
        LEASE_NAME="lease",
        LEASE_DURATION="6",
        RENEW_DEADLINE="4.5",
        RETRY_PERIOD="0.25",
        WORKERS="4",
        HTTP_PORT="9000",
        LOG_LEVEL="DEBUG",
    )
    assert settings.server_image_gpu == "registry.example/server-gpu:1"
    assert settings.watch_namespaces == ("team-a", "team-b")
    assert settings.image_pull_policy == "Never"
    assert settings.image_pull_secrets == ("pull",)
    assert settings.cluster_domain == "cluster.example"
    assert settings.allow_pod_overrides
    assert settings.plan_key_secret == "key"
    assert settings.proxy_env == {"HTTPS_PROXY": "http://proxy:3128"}
    assert settings.ca_config_map == "ca"
    assert settings.lease_name == "lease"
    assert (settings.lease_duration, settings.renew_deadline, settings.retry_period) == (6.0, 4.5, 0.25)
    assert (settings.workers, settings.http_port, settings.log_level) == (4, 9000, "DEBUG")


@pytest.mark.parametrize("missing", LEAST)
def test_what_is_missing_is_named(missing: str) -> None:
    with pytest.raises(SettingsError, match=f"{missing}: must be set"):
        from_environment({key: value for key, value in LEAST.items() if key != missing})


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("LOG_LEVEL", "x", "must be one of INFO"),
        ("WORKERS", "nan", "must be a whole number from 1 to 256"),
        ("WORKERS", "0.5", "must be a whole number from 1 to 256"),
        ("WORKERS", "\u00b2", "must be a whole number from 1 to 256"),
        ("WORKERS", "9" * 5000, "must be a whole number from 1 to 256"),
        ("HTTP_PORT", "99999", "must be a whole number from 1 to 65535"),
        ("LEASE_DURATION", "inf", "must be greater than 0"),
        ("IMAGE_PULL_POLICY", "Sometimes", "must be one of IfNotPresent, Always, Never, is 'Sometimes'"),
        ("ALLOW_POD_OVERRIDES", "yes", "must be one of false, true, is 'yes'"),
        ("LEASE_DURATION", "soon", "must be a number, is 'soon'"),
        ("WORKERS", "0", "must be a whole number from 1 to 256, is '0'"),
        ("PROXY_ENV", "{", "must be a JSON object: "),
        ("PROXY_ENV", "[]", "must be a JSON object"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_what_can(variable: str, value: str, message: str) -> None:
    with pytest.raises(SettingsError) as refused:
        made(**{variable: value})
    assert str(refused.value).startswith(f"MODELPIER_{variable}: {message}")


@pytest.mark.parametrize(
    ("variable", "value"), [("RENEW_DEADLINE", "15"), ("RETRY_PERIOD", "10"), ("LEASE_DURATION", "9")]
)
def test_a_lease_must_outlive_its_renewal(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match="each must be longer than the next"):
        made(**{variable: value})
