"""`modelpier-operator`: reads its settings from the environment and runs until a signal. docs/reference/operator.md.

Exit status: 0 after a signal, 1 after a failure, 2 when the settings or the way to the cluster cannot be used, 3 when
the lease was lost.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys

from modelpier_operator import settings, telemetry
from modelpier_operator.cluster import config
from modelpier_operator.cluster.errors import ApiError
from modelpier_operator.cluster.keys import PlanKeyError
from modelpier_operator.judge import judge
from modelpier_operator.process import Exit, Process


def main() -> int:
    """Entry point of the console script; returns the exit status."""
    try:
        chosen = settings.from_environment(os.environ)
        access = config.find(os.environ)
    except (settings.SettingsError, config.AccessError) as error:
        print(f"modelpier-operator: {error}", file=sys.stderr)
        return Exit.USAGE
    telemetry.configure_logs(chosen.log_level)
    try:
        with asyncio.Runner(loop_factory=_loop) as runner:
            return runner.run(_run(chosen, access))
    except (OSError, PlanKeyError, ApiError) as error:
        logging.getLogger(__name__).critical("%s", error)
        return Exit.FAILED


async def _run(chosen: settings.Settings, access: config.Access) -> Exit:
    return await Process(chosen, access, judge).run()


def _loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop  # noqa: PLC0415 - not to be had everywhere
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


if __name__ == "__main__":
    sys.exit(main())
