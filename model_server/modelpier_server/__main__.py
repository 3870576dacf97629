"""`modelpier-server`, also `python -m modelpier_server`: serves models on a laptop by flags, in a pod by the
operator's plan.

Exit status: 0 after a drain; 2 for wrong flags or environment; 69 when a port cannot be had;
contract.EXIT_MODEL_FAILED when what is required cannot be served.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import signal
import sys
from typing import NoReturn

from modelpier_server.repository.uri import UriError, parse
from modelpier_server.settings import Settings, SettingsError, read

DESCRIPTORS = 1 << 16
"""Twice the connections that each port may have, and what models and downloads open."""


def main() -> NoReturn:
    # Until `process` has its own: the first process of a container ignores signals that it has no handler for.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: os._exit(128 + received))
    try:
        settings = read(None, os.environ)
        for model in settings.models:
            _check(model.name, model.uri)
    except SettingsError as error:
        print(f"modelpier-server: {error}", file=sys.stderr)
        sys.exit(2)
    status = _run(settings)
    logging.shutdown()
    sys.stderr.flush()
    # A download or load in a thread must not hold up the end; nothing is left to be done.
    os._exit(status)


def _check(name: str, uri: str) -> None:
    try:
        parse(uri)
    except UriError as error:
        raise SettingsError(f"--model {name}: {error}") from error


def _run(settings: Settings) -> int:
    # Imported here: `--help` and mistakes in flags are answered without waiting for numpy and ONNX Runtime.
    import uvloop  # noqa: PLC0415

    from modelpier_server import telemetry  # noqa: PLC0415
    from modelpier_server.process import Process  # noqa: PLC0415

    if settings.grpc_port is not None:
        import modelpier_server.transport.grpc  # noqa: PLC0415 - below, what is imported is frozen

    if settings.tracing:
        import modelpier_server.tracing  # noqa: F401, PLC0415 - as above

    telemetry.configure(settings.log_level, text=not settings.json_logs, access=settings.access_log > 0)

    _take_descriptors()

    async def serve() -> int:
        return await Process(settings, os.environ).run()

    # What is imported lives as long as the process: no full collection needs to walk through it in between requests.
    gc.collect()
    gc.freeze()
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    return runner.run(serve())


def _take_descriptors() -> None:
    """As many as all connections need: many systems give a process 1024 at first, and more if it asks."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft < most and soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


if __name__ == "__main__":
    main()
