"""What lies in the images that the pods run: no build tools, nothing of the machine that built them, byte code."""

from __future__ import annotations

import json
from typing import Any

import pytest

from e2e.world import World, model_deployment

pytestmark = pytest.mark.e2e

LOOK = """
import importlib.util, json, os, shutil
origin = lambda name: importlib.util.find_spec(name).origin
tools = ("pip", "pip3", "gcc", "cc", "make", "git", "curl")
traces = ("/etc/pip.conf", "/root/.config/pip/pip.conf", "/run/secrets/pip.conf", "/run/secrets/ca.crt", "/src")
places = ("/", "/opt/venv", "/opt/code", "/opt/bytecode", "/usr/lib")
modules = ("json", "asyncio.events", "ssl", "orjson", "modelpier_server.contract")
foreign = lambda v: v.startswith("PIP_") or v.endswith(("_CA_BUNDLE", "_CERT_FILE")) or v.lower().endswith("_proxy")
print(json.dumps({
    "tools": [tool for tool in tools if shutil.which(tool)],
    "importable": [name for name in ("pip", "setuptools", "hatchling", "pytest") if importlib.util.find_spec(name)],
    "traces": [path for path in traces if os.path.exists(path)],
    "environment": [name for name in os.environ if foreign(name)],
    "writable": [path for path in places if os.access(path, os.W_OK)],
    "user": [os.getuid(), os.getgid()],
    "telemetry": os.environ.get("ORT_DISABLE_TELEMETRY"),
    "uncompiled": [n for n in modules if not os.path.exists(importlib.util.cache_from_source(origin(n)))],
}))
"""


def look(world: World, namespace: str, pod: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(world.kubectl("exec", "-n", namespace, pod, "--", "python3", "-c", LOOK))
    return found


def assert_tidy(found: dict[str, Any]) -> None:
    for empty in ("tools", "importable", "traces", "environment", "writable", "uncompiled"):
        assert found[empty] == [], empty
    assert found["user"] == [65532, 65532]


def test_the_operators_image(world: World) -> None:
    pods = world.list("pods", world.system_namespace, "app.kubernetes.io/name=modelpier-operator")
    staying = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    assert_tidy(look(world, world.system_namespace, staying[0]["metadata"]["name"]))


def test_the_servers_image(world: World, namespace: str, digits: dict[str, str]) -> None:
    world.apply(model_deployment("m", digits["1"]), namespace=namespace)
    world.wait_ready("m", namespace)
    (pod,) = world.pods("m", namespace)
    found = look(world, namespace, pod["metadata"]["name"])
    assert_tidy(found)
    assert found["telemetry"] == "1"
