"""What a process of its own costs a run: the same model here and isolated, side by side, as a Markdown table.

`make bench-isolation` runs it. Runs of both alternate in short rounds, so that whatever else the machine does meets
both. Medians, because a machine at work has outliers that neither of them made.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto, helper, numpy_helper

from modelpier_server.contract import Options
from modelpier_server.runtime import Session, load

ROUND = 50
"""Runs of one of them before the other's turn."""
PIXELS = 150_000
"""600 kB of FP32, about a picture of 224 x 224."""


@dataclass(frozen=True)
class Case:
    name: str
    model: ModelProto
    given: npt.NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000, help="of each model, here and isolated (default %(default)s)")
    runs = parser.parse_args().runs
    print("| model | in this process, p50 | isolated, p50 | more |")
    print("|---|---|---|---|")
    for case in (_tabular(), _wide()):
        here, isolated = measure(case, runs)
        print(f"| {case.name} | {here:.3f} ms | {isolated:.3f} ms | {isolated - here:.3f} ms |")


def measure(case: Case, runs: int) -> tuple[float, float]:
    """Milliseconds of the median run, here and isolated."""
    with _loaded(case, isolated=False) as here, _loaded(case, isolated=True) as apart:
        times: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(1 + runs // ROUND):
            times[False] += _round(here, case.given)
            times[True] += _round(apart, case.given)
    # The first round of each allocates.
    return median(times[False][ROUND:] or times[False]) * 1e3, median(times[True][ROUND:] or times[True]) * 1e3


@contextmanager
def _loaded(case: Case, *, isolated: bool) -> Iterator[Session]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        file.write_bytes(case.model.SerializeToString())
        session = load(file, Options(instances=1, threads=1, isolated=isolated))
        try:
            yield session
        finally:
            session.close()


def _round(session: Session, given: npt.NDArray[Any]) -> list[float]:
    taken = []
    for _ in range(ROUND):
        start = time.perf_counter()
        session.run({"x": given}, ["y"])
        taken.append(time.perf_counter() - start)
    return taken


def _tabular() -> Case:
    """32 numbers through two layers to 4."""
    random = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(random.normal(0, 0.3, shape).astype(np.float32), name)
        for name, shape in (("w0", (32, 64)), ("w1", (64, 4)))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w1"], ["y"]),
    ]
    return Case("tabular, 32 numbers", _model(nodes, 32, 4, weights), np.ones((1, 32), np.float32))


def _wide() -> Case:
    nodes = [helper.make_node("Neg", ["x"], ["y"])]
    return Case("600 kB in and out", _model(nodes, PIXELS, PIXELS, []), np.ones((1, PIXELS), np.float32))


def _model(nodes: list[Any], given: int, answered: int, weights: list[TensorProto]) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        "bench",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", given))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", answered))],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


if __name__ == "__main__":
    main()
