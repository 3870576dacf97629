"""Optimised graphs on disk: when they are made, used, given up and mistrusted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from modelpier_server import runtime
from modelpier_server.contract import FailureReason, Options, Provider
from modelpier_server.errors import ModelError
from modelpier_server.runtime import graph_cache
from modelpier_server.runtime.graph_cache import GraphCache, Note
from modelpier_server.runtime.onnx import load
from support import onnx_models
from support.onnx_models import external, write

DIGEST = f"sha256:{'a' * 64}"
X = {"x": np.ones((2, 32), np.float32)}


@pytest.fixture
def graphs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GraphCache:
    """In which every load counts as long, and every kept graph pays."""
    monkeypatch.setattr(graph_cache, "LONG", 0.0)
    monkeypatch.setattr(graph_cache, "GAIN", float("inf"))
    return GraphCache(tmp_path / "graphs", 1 << 20, lambda size: True)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write(onnx_models.mlp(), tmp_path / "blob" / "model.onnx")


def names(graphs: GraphCache) -> list[str]:
    return sorted(path.suffix for path in graphs._folder.iterdir())


def entry(graphs: GraphCache) -> tuple[Path, Path]:
    (graph,) = graphs._folder.glob("*.onnx")
    return graph, graph.with_suffix(".json")


def test_the_first_load_is_timed_the_second_writes_and_the_third_reads(graphs: GraphCache, model: Path) -> None:
    expected = load(model, Options()).run(X, ["y"])
    load(model, Options(), DIGEST, graphs)
    assert names(graphs) == [".json"]
    load(model, Options(), DIGEST, graphs)
    assert names(graphs) == [".json", ".onnx"]
    graph, _ = entry(graphs)
    model.write_bytes(b"not read any more")
    assert np.allclose(load(model, Options(), DIGEST, graphs).run(X, ["y"])[0], expected[0])
    assert graph.read_bytes()[:2] != b"no"


def test_other_models_providers_and_machines_have_graphs_of_their_own(
    graphs: GraphCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {graphs.entry(digest, about)._graph for digest in ("a", "b") for about in ("1.30 CPU", "1.32 CPU")}
    monkeypatch.setattr(graph_cache, "machine", lambda: "another")
    keys.add(graphs.entry("a", "1.30 CPU")._graph)
    assert len(keys) == 5


def make(graphs: GraphCache, model: Path, digest: str = DIGEST) -> None:
    for _ in range(2):
        load(model, Options(), digest, graphs)


@pytest.mark.parametrize("damage", ["graph", "cut", "gone", "note", "note is a list"])
def test_a_damaged_cache_is_made_again(graphs: GraphCache, model: Path, damage: str) -> None:
    make(graphs, model)
    graph, note = entry(graphs)
    if damage == "graph":
        graph.write_bytes(graph.read_bytes()[:-1] + b"?")
    elif damage == "cut":
        graph.write_bytes(graph.read_bytes()[:100])
    elif damage == "gone":
        graph.unlink()
    else:
        note.write_text("{" if damage == "note" else "[]")
    assert load(model, Options(), DIGEST, graphs).run(X, ["y"])
    make(graphs, model)
    assert names(graphs) == [".json", ".onnx"]


def test_a_graph_that_cannot_be_loaded_is_dropped(graphs: GraphCache, model: Path) -> None:
    """As it is written so: its hash is right."""
    make(graphs, model)
    graph, _ = entry(graphs)
    kept = graphs.entry(DIGEST, "")
    kept._graph, kept._file = graph, graph.with_suffix(".json")
    kept.note = Note(1.0)
    bad = graph.with_suffix(".new")
    bad.write_bytes(b"no graph")
    kept.written(bad)
    assert load(model, Options(), DIGEST, graphs).run(X, ["y"])
    assert not graph.exists() or graph.read_bytes() != b"no graph"


def test_a_graph_that_brings_nothing_is_given_up_for_good(
    graphs: GraphCache, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(graphs, model)
    monkeypatch.setattr(graph_cache, "GAIN", 0.0)
    load(model, Options(), DIGEST, graphs)
    assert names(graphs) == [".json"]
    monkeypatch.setattr(graph_cache, "GAIN", float("inf"))
    make(graphs, model)
    assert names(graphs) == [".json"]


def test_short_loads_are_not_worth_a_file(graphs: GraphCache, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_cache, "LONG", 60.0)
    make(graphs, model)
    assert names(graphs) == [".json"]


def test_the_size_is_bounded_and_the_oldest_go(tmp_path: Path, graphs: GraphCache) -> None:
    models = [write(onnx_models.mlp((32, size, 4)), tmp_path / str(size) / "m.onnx") for size in (64, 65, 66)]
    graphs._limit = int(2.6 * models[2].stat().st_size)
    for index, model in enumerate(models):
        make(graphs, model, f"sha256:{index:064}")
    assert 1 <= len(list(graphs._folder.glob("*.onnx"))) < 3
    assert sum(path.stat().st_size for path in graphs._folder.glob("*.onnx")) <= graphs._limit
    newest = max(graphs._folder.glob("*.onnx"), key=lambda path: path.stat().st_mtime)
    assert newest.stat().st_size >= models[2].stat().st_size * 0.9


def test_a_full_volume_keeps_nothing(graphs: GraphCache, model: Path) -> None:
    graphs._room = lambda size: False
    make(graphs, model)
    assert names(graphs) == [".json"]


def test_a_folder_that_cannot_be_written_to_keeps_no_model_from_loading(tmp_path: Path, model: Path) -> None:
    (tmp_path / "graphs").write_text("a file")
    graphs = GraphCache(tmp_path / "graphs", 1 << 20, lambda size: True)
    make(graphs, model)


def test_models_with_files_beside_them_are_left_alone(tmp_path: Path, graphs: GraphCache) -> None:
    """They may be its external data."""
    data = np.array([1, 2, 3], np.float32).tobytes()
    (tmp_path / "ext").mkdir()
    (tmp_path / "ext" / "w.bin").write_bytes(data)
    path = external(tmp_path / "ext" / "m.onnx", "w.bin", data)
    make(graphs, path)
    assert not graphs._folder.exists()


def test_a_bad_model_is_bad_all_the_same(tmp_path: Path, graphs: GraphCache) -> None:
    path = write(b"no model", tmp_path / "bad" / "m.onnx")
    for _ in range(2):
        with pytest.raises(ModelError) as error:
            load(path, Options(), DIGEST, graphs)
        assert error.value.reason is FailureReason.MODEL_INVALID


def test_engines_are_tensorrts_own(tmp_path: Path, model: Path, graphs: GraphCache) -> None:
    from modelpier_server.runtime.onnx import _entry  # noqa: PLC0415

    tensorrt = Options(providers=(Provider("TensorrtExecutionProvider"), Provider("CPUExecutionProvider")))
    assert _entry(model, tensorrt, DIGEST, graphs) is None
    assert _entry(model, Options(), DIGEST, graphs) is not None


def test_a_kept_graph_has_the_models_signature(graphs: GraphCache, tmp_path: Path) -> None:
    model = write(onnx_models.encoder(square=True), tmp_path / "e" / "m.onnx")
    sessions: list[runtime.Session] = [load(model, Options(), DIGEST, graphs) for _ in range(3)]
    assert (graphs._folder / "x").parent.exists()
    for session in sessions[1:]:
        assert (session.inputs, session.outputs, session.axes) == (
            sessions[0].inputs,
            sessions[0].outputs,
            sessions[0].axes,
        )
