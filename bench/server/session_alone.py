"""`python -m bench.server.session_alone FILE MODEL`: ONNX Runtime with one model and nothing else, on one thread.

Says "ready" once the session is there, and its resident memory (MiB) after a hundred runs: what a server's start and
memory are measured against. One of the programs that singles.py starts.
"""

from __future__ import annotations

import sys
from pathlib import Path

import onnxruntime as ort

RUNS = 100


def main(file: str, model: str) -> None:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    print("ready", flush=True)
    # Imported here: what makes the inputs is no part of a start.
    from bench.processes import parse_resident  # noqa: PLC0415
    from bench.server.feeds import feeds  # noqa: PLC0415

    given = feeds(model)
    for _ in range(RUNS):
        session.run(None, given)
    print(parse_resident(Path("/proc/self/status").read_text()), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
