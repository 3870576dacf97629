"""Requests of different lengths in one run."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpier_server import runtime
from modelpier_server.contract import Batching, Options
from modelpier_server.errors import InvalidRequest
from modelpier_server.scheduler import Servable
from modelpier_server.scheduler.padding import SHORTEST, Padding, bucket
from modelpier_server.scheduler.padding_probe import Refusal, find_padding
from support import onnx_models
from support.serving import Gated, gated, planned, running, servable, tensor, until

FAR = float("inf")
WANTED = Batching(padding={"ids": 1, "mask": 0}, mask="mask")


def request(*lengths: int, rows: int = 1) -> dict[str, np.ndarray]:
    (length,) = lengths
    ids = (np.arange(rows * length, dtype=np.int64) * 7 % 10).reshape(rows, length)
    return {"ids": ids, "mask": np.ones((rows, length), np.int64)}


def found(folder: Path, model: bytes, wanted: Batching = WANTED) -> Padding | Refusal:
    session = runtime.load(onnx_models.write(model, folder / "m.onnx"), Options())
    return find_padding(session, wanted, 8)


@given(st.integers(1, 1 << 20), st.integers(1, 1 << 20))
def test_a_bucket_wastes_a_quarter_at_most(one: int, other: int) -> None:
    for length in (one, other):
        assert length <= bucket(length) <= max(SHORTEST, 1.25 * length)
        assert bucket(bucket(length)) == bucket(length)
    if one <= other:
        assert bucket(one) <= bucket(other)


def test_there_are_few_buckets() -> None:
    assert len({bucket(length) for length in range(1, 1025)}) == 1 + 4 * 7


@pytest.mark.parametrize("square", [True, False])
def test_a_model_that_honours_its_mask_is_padded(tmp_path: Path, square: bool) -> None:
    padding = found(tmp_path, onnx_models.encoder(square=square))
    assert isinstance(padding, Padding)
    assert padding.cuts == {"tokens": (1,), **({"pairs": (1, 2)} if square else {})}


@pytest.mark.parametrize(
    ("model", "wanted", "text"),
    [
        (onnx_models.encoder(honours_mask=False), WANTED, "output 'pooled' of a row depends on its padding"),
        (onnx_models.encoder(), Batching(padding={"ids": 0}, mask="mask"), "mask must name one of the inputs"),
        (onnx_models.encoder(), Batching(padding={"mask": 0}, mask="mask"), "input 'ids' has the length 'length' too"),
        (onnx_models.encoder(), Batching(padding={"idz": 0, "mask": 0}, mask="mask"), "the model has no input 'idz'"),
        (onnx_models.identity(), Batching(padding={"x": 0}, mask="x"), "input 'x' has no variable length"),
        (onnx_models.identity("BYTES", ("n", "l")), Batching(padding={"x": 0}, mask="x"), "has no variable length"),
        (onnx_models.doubled_length(), Batching(padding={"ids": 0}, mask="ids"), "in a way of its own"),
        (onnx_models.encoder(), Batching(padding={"ids": 77, "mask": 0}, mask="mask"), "a padded run fails"),
    ],
)
def test_what_is_not_padded(tmp_path: Path, model: bytes, wanted: Batching, text: str) -> None:
    refusal = found(tmp_path, model, wanted)
    assert isinstance(refusal, Refusal)
    assert text in refusal.why


def behind_gate(folder: Path, model: bytes) -> tuple[Servable, Gated]:
    served, session = gated(model, folder, planned(instances=1, batching=WANTED), rows=16)
    padding = find_padding(session._session, WANTED, 8)
    assert isinstance(padding, Padding)
    served.finding.padding = padding
    return served, session


async def test_different_lengths_share_a_run_and_get_their_own_back(tmp_path: Path) -> None:
    served, session = behind_gate(tmp_path, onnx_models.encoder(square=True))
    first = served.submit(request(3), None, FAR)
    await until(lambda: session.runs == [1])
    asked = [request(length, rows=rows) for length, rows in ((17, 1), (20, 2), (19, 1), (18, 3))]
    futures = [served.submit(inputs, None, FAR) for inputs in asked]
    session.gate.set()
    results = await asyncio.gather(*futures)
    await first
    assert session.runs == [1, 7]
    for inputs, (tokens, pooled, pairs) in zip(asked, results, strict=True):
        alone = session._session.run(inputs, ["tokens", "pooled", "pairs"])
        assert tokens.shape == (*inputs["ids"].shape, 2)
        for got, expected in zip((tokens, pooled, pairs), alone, strict=True):
            assert got.shape == expected.shape
            assert np.allclose(got, expected)
    served.close()


async def test_lengths_of_other_buckets_run_apart(tmp_path: Path) -> None:
    served, session = behind_gate(tmp_path, onnx_models.encoder())
    first = served.submit(request(3), None, FAR)
    await until(lambda: session.runs == [1])
    futures = [served.submit(request(length), None, FAR) for length in (3, 200, 8, 193, 5)]
    session.gate.set()
    results = await asyncio.gather(*futures)
    await first
    assert session.runs == [1, 3, 2]
    assert [result[0].shape[1] for result in results] == [3, 200, 8, 193, 5]
    served.close()


async def test_chosen_outputs_are_cut_too(tmp_path: Path) -> None:
    served, session = behind_gate(tmp_path, onnx_models.encoder(square=True))
    first = served.submit(request(3), ["pairs", "tokens"], FAR)
    await until(lambda: session.runs == [1])
    futures = [served.submit(request(length), ["pairs", "tokens"], FAR) for length in (5, 7)]
    session.gate.set()
    results = await asyncio.gather(first, *futures)
    assert session.runs == [1, 2]
    assert [[array.shape for array in result] for result in results[1:]] == [
        [(1, 5, 5), (1, 5, 2)],
        [(1, 7, 7), (1, 7, 2)],
    ]
    served.close()


async def test_inputs_that_disagree_run_alone_and_fail_alone(tmp_path: Path) -> None:
    served, session = behind_gate(tmp_path, onnx_models.encoder())
    first = served.submit(request(3), None, FAR)
    await until(lambda: session.runs == [1])
    wrong = served.submit({**request(5), "mask": np.ones((1, 6), np.int64)}, None, FAR)
    good = [served.submit(request(length), None, FAR) for length in (5, 6)]
    session.gate.set()
    results = await asyncio.gather(wrong, *good, return_exceptions=True)
    await first
    assert isinstance(results[0], InvalidRequest)
    assert [result[0].shape for result in results[1:]] == [(1, 5, 2), (1, 6, 2)]  # type: ignore[index]
    served.close()


async def test_a_poisonous_length_mate_fails_alone(tmp_path: Path) -> None:
    served, session = behind_gate(tmp_path, onnx_models.encoder())
    first = served.submit(request(3), None, FAR)
    await until(lambda: session.runs == [1])
    poison = request(6)
    poison["ids"][0, 0] = 99
    futures = [served.submit(inputs, None, FAR) for inputs in (request(5), poison, request(7), request(4))]
    session.gate.set()
    results = await asyncio.gather(*futures, return_exceptions=True)
    await first
    assert isinstance(results[1], InvalidRequest)
    assert [results[i][0].shape[1] for i in (0, 2, 3)] == [5, 7, 4]  # type: ignore[index]
    served.close()


@pytest.mark.parametrize("honours", [True, False])
async def test_warm_up_decides_and_metadata_says_it(tmp_path: Path, honours: bool) -> None:
    served = servable(onnx_models.encoder(honours_mask=honours), tmp_path, planned(batching=WANTED))
    assert served.finding.max_rows, served.finding.why
    assert (served.finding.padding is not None) is honours
    async with running(served) as state:
        client = await state.client()
        said = (await client.request("GET", "/v2/models/m")).json["parameters"]["batching"]
        assert said.startswith("on: up to")
        assert ("; lengths are padded" in said) is honours
        assert ("not padded: output 'pooled' of a row depends" in said) is not honours
        inputs = [tensor([1, 2, 3], name=name, datatype="INT64") for name in ("ids", "mask")]
        assert (await client.infer({"inputs": inputs})).status == 200
