"""Who takes part: how each is started, and which form of request it takes for which model.

The best setting of each that was found is the one that runs: no worker processes for MLServer (its hop costs more than
it brings), batching where it is on by default or made for it. All have the same session options (peers/session.py).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bench.server import environments, planned
from bench.server.client.load import Request
from bench.server.wires import METHOD, Grpc, Multipart, NestedJson, OipBinary, OipJson, RawBytes, Wire
from modelpier_server.contract import Options

ROOT = Path(__file__).resolve().parents[2]
MODELS = ("tabular", "image", "text")
PYTHON = "3.11"
OURS, NOOP, BARE, FASTAPI = "modelpier", "no-op", "bare loop", "FastAPI"


@dataclass(frozen=True)
class Place:
    """Where one runs. `ports`: HTTP, gRPC and a third; `models`: files by name; `folder`: for its own files."""

    ports: tuple[int, int, int]
    models: Mapping[str, Path]
    folder: Path
    cores: int

    @property
    def model(self) -> str:
        """The first, for those who serve one."""
        return next(iter(self.models))


@dataclass(frozen=True)
class Start:
    """`environment` is on top of ours."""

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Contestant:
    """`wires`: for each model that it serves, HTTP's first."""

    name: str
    start: Callable[[Place], Start]
    wires: Mapping[str, tuple[Wire, ...]]
    path: Callable[[Wire, str], str]
    peer: bool = True
    checked: bool = True
    """Whether its answers are the model's."""
    restless: bool = False
    """Busy while it has nothing to do: it is measured when nobody else is."""

    def request(self, wire: Wire, model: str, feeds: list[Mapping[str, Any]]) -> Request:
        encoded = [wire.encode(model, given) for given in feeds]
        path = METHOD if isinstance(wire, Grpc) else self.path(wire, model)
        return Request(path, tuple(one.body for one in encoded), encoded[0].headers, wire.name)


def oip_path(_: Wire, model: str) -> str:
    return f"/v2/models/{model}/infer"


def fixed_path(path: str, *_: object) -> str:
    return path


# ------------------------------------------------------------------------------------------ ours, and the limits
def ours(name: str = OURS, options: Options | None = None, *, grpc: bool = True) -> Contestant:
    """`options` None: by flags, with all defaults; else by a plan, as in a pod."""
    wires: dict[str, tuple[Wire, ...]] = {
        "tabular": (OipJson(), OipBinary(), Grpc()),
        "image": (OipBinary(), OipJson(), Grpc()),
        "text": (OipJson(), OipBinary(), Grpc()),
    }
    return Contestant(
        name,
        partial(_start_ours, options, grpc),
        {**wires, "wide": (OipJson(),), "large": (OipJson(),)},
        oip_path,
        peer=False,
    )


def _start_ours(options: Options | None, grpc: bool, place: Place) -> Start:
    command = [sys.executable, "-m", "modelpier_server", "--http-port", str(place.ports[0]), "--log-level", "WARNING"]
    if grpc or options is not None:
        command += ["--grpc-port", str(place.ports[1])]
    environment = {"MODELPIER_MODEL_DIR": str(place.folder / "cache")}
    if options is None:
        for model, path in place.models.items():
            command += ["--model", f"{model}={path}"]
        return Start(tuple(command), environment)
    command += ["--host", "127.0.0.1", "--admin-port", str(place.ports[2])]
    return Start(tuple(command), {**environment, **planned.environment(place.folder / "plan", place.models, options)})


def limits() -> list[Contestant]:
    """The same transport without a model, and the loop without even that."""
    wires: dict[str, tuple[Wire, ...]] = {"tabular": (OipJson(), Grpc())}
    return [
        Contestant(NOOP, partial(_module, "bench.server.noop"), wires, oip_path, peer=False, checked=False),
        Contestant(
            BARE,
            partial(_module, "bench.server.bare"),
            {"tabular": (OipJson(),)},
            oip_path,
            peer=False,
            checked=False,
        ),
    ]


def _module(name: str, place: Place) -> Start:
    return Start((sys.executable, "-m", name, *map(str, place.ports[:2])))


# ------------------------------------------------------------------------------------------ peers
def peers() -> list[Contestant]:
    json_everywhere: dict[str, tuple[Wire, ...]] = {model: (OipJson(),) for model in MODELS}
    with_grpc: dict[str, tuple[Wire, ...]] = {**json_everywhere, "tabular": (OipJson(), Grpc())}
    raw_image: dict[str, tuple[Wire, ...]] = {**json_everywhere, "image": (RawBytes(),)}
    return [
        Contestant(FASTAPI, _fastapi, raw_image, _fastapi_path),
        Contestant("MLServer", _mlserver, with_grpc, oip_path),
        Contestant("KServe", _kserve, {**with_grpc, "image": (OipBinary(),)}, oip_path),
        Contestant("BentoML", _bentoml, {model: (NestedJson(),) for model in MODELS}, partial(fixed_path, "/infer")),
        Contestant("LitServe", _litserve, {**raw_image, "image": (Multipart(),)}, partial(fixed_path, "/predict")),
        Contestant("PyTriton", _pytriton, {**with_grpc, "image": (OipBinary(),)}, oip_path),
        Contestant("Ray Serve", _ray, raw_image, partial(fixed_path, "/infer"), restless=True),
    ]


def _peer(environment: str, place: Place, *command: str, python: str = PYTHON, **variables: str) -> Start:
    """`command`: a program of the peer's environment and its arguments."""
    folder = environments.environment(environment, python)
    shared = {
        "BENCH_MODEL": place.model,
        "BENCH_FILE": str(place.models[place.model]),
        "BENCH_PORT": str(place.ports[0]),
        "BENCH_THREADS": str(1 if place.model == "tabular" else place.cores),
        "PYTHONPATH": str(ROOT),
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "VIRTUAL_ENV": str(folder),
    }
    return Start((str(folder / "bin" / command[0]), *command[1:]), {**shared, **variables})


def _program(name: str) -> tuple[str, ...]:
    return ("python", "-m", f"bench.server.peers.{name}")


def _fastapi(place: Place) -> Start:
    quiet = ("--no-access-log", "--log-level", "warning")
    port = str(place.ports[0])
    return _peer("fastapi", place, "uvicorn", "bench.server.peers.fastapi_app:app", "--port", port, *quiet)


def _fastapi_path(wire: Wire, model: str) -> str:
    return "/raw" if isinstance(wire, RawBytes) else oip_path(wire, model)


def _mlserver(place: Place) -> Start:
    folder = place.folder / "mlserver"
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "debug": False,
        "host": "127.0.0.1",
        "http_port": place.ports[0],
        "grpc_port": place.ports[1],
        "metrics_port": place.ports[2],
        "parallel_workers": 0,
        "grpc_max_message_length": 64 << 20,
        "environments_dir": str(folder / "environments"),
        "metrics_dir": str(folder),
    }
    model = {"name": place.model, "implementation": "bench.server.peers.mlserver_model.OnnxModel"}
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    return _peer("mlserver", place, "mlserver", "start", str(folder))


def _kserve(place: Place) -> Start:
    return _peer("kserve", place, *_program("kserve_server"), BENCH_GRPC_PORT=str(place.ports[1]))


def _bentoml(place: Place) -> Start:
    service = ("bentoml", "serve", "bench.server.peers.bentoml_service:OnnxService", "--working-dir", str(ROOT))
    where = ("--host", "127.0.0.1", "--port", str(place.ports[0]))
    home = str(place.folder / "bentoml")
    return _peer("bentoml", place, *service, *where, BENTOML_DO_NOT_TRACK="True", BENTOML_HOME=home)


def _litserve(place: Place) -> Start:
    """Pictures run best one by one, in a process per core."""
    if place.model != "image":
        return _peer("litserve", place, *_program("litserve_server"))
    workers = str(place.cores)
    variables = {"BENCH_WORKERS": workers, "BENCH_BATCH": "1", "BENCH_THREADS": "1"}
    return _peer("litserve", place, *_program("litserve_server"), **variables)


def _pytriton(place: Place) -> Start:
    python = "3.12"  # its stub of 3.11 does not start
    folder = environments.environment("pytriton", python)
    ports = {"BENCH_GRPC_PORT": str(place.ports[1]), "BENCH_METRICS_PORT": str(place.ports[2])}
    variables = {
        "LD_LIBRARY_PATH": environments.library_folder(folder),
        "PYTRITON_HOME": str(place.folder / "pytriton"),
        "PYTRITON_NO_TELEMETRY": "1",
        **ports,
    }
    return _peer("pytriton", place, *_program("pytriton_server"), python=python, **variables)


def _ray(place: Place) -> Start:
    variables = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DISABLE_MEMORY_MONITOR": "1",
        "RAY_TMPDIR": str(place.folder / "ray"),
        "BENCH_CORES": str(place.cores),
    }
    return _peer("ray", place, *_program("ray_server"), **variables)
