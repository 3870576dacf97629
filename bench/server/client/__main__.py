"""`python -m bench.server.client`: reads a Load from its standard input, says `begin` and `end`, and writes an
Outcome.
"""

from __future__ import annotations

import gc
import os
import sys
from functools import partial

from bench.server.client.grpc import STREAMS, GrpcDialogue
from bench.server.client.http import HttpDialogue, request_bytes
from bench.server.client.load import GRPC, Load, Outcome
from bench.server.client.loop import run


def perform(load: Load) -> Outcome:
    gc.disable()  # nothing here makes cycles, and a collection would be a pause of the client
    say = partial(print, flush=True)
    if load.request.wire == GRPC:
        streams = min(STREAMS, load.concurrency)
        return run(load, partial(GrpcDialogue, load, streams), load.concurrency // streams, say)
    return run(load, partial(HttpDialogue, request_bytes(load)), load.concurrency, say)


def main() -> None:
    load = Load.decode(sys.stdin.read())
    if load.core is not None:
        os.sched_setaffinity(0, {load.core})
    print(perform(load).encode())


if __name__ == "__main__":
    main()
