"""Who takes part, with what, and where."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from bench.server import environments, models, versions
from bench.server.client.load import Sample
from bench.server.contestants import Contestant, Place, limits, ours, peers
from bench.server.cores import Cores, divide, pinned
from bench.server.environments import NotInstallable, content_key, interpreter
from bench.server.planned import environment as planned
from bench.server.raw import Layout, Rate, layouts, run
from bench.server.rounds import jobs
from bench.server.truth import Truth
from bench.server.wires import OipJson

from modelpier_server.contract import ENV_PLAN_FILE, ENV_PLAN_PUBLIC_KEY, Limits, Options, Plan, verify

EVERYBODY = [ours(), *limits(), *peers()]


def asked(contestant: Contestant, model: str, *, full: bool = False) -> list[tuple[str, int, bool]]:
    return [(job.cell.wire, job.cell.concurrency, job.cell.main) for job in jobs(contestant, model, full=full)]


def test_by_default_only_what_has_a_target_is_measured() -> None:
    by_name = {one.name: one for one in EVERYBODY}
    assert asked(by_name["modelpier"], "tabular") == [("JSON", 1, True), ("JSON", 64, True), ("grpc", 64, False)]
    assert asked(by_name["MLServer"], "tabular") == [("JSON", 64, True), ("grpc", 64, False)]
    assert asked(by_name["modelpier"], "image") == [("binary", 16, True)]
    assert asked(by_name["MLServer"], "image") == [("JSON", 16, True)]
    assert asked(by_name["no-op"], "image") == []


def test_in_full_everything_is() -> None:
    found = asked(ours(), "image", full=True)
    assert len(found) == 12
    assert {wire for wire, _, main in found if main} == {"binary"}


def test_every_peer_has_its_versions_pinned_with_hashes() -> None:
    for name, packages in versions.PACKAGES.items():
        text = (environments.PEERS / f"{name}.txt").read_text()
        found = versions.pinned(text)
        assert set(packages) <= set(found)
        assert text.count("--hash=sha256:") >= len(found) > 5
        assert "://" not in text


def test_an_environment_is_made_anew_for_other_pins_or_another_python() -> None:
    key = content_key("a==1", "3.11")
    assert content_key("a==1", "3.11") == key
    assert len({key, content_key("a==2", "3.11"), content_key("a==1", "3.12")}) == 3


def test_a_missing_interpreter_is_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert interpreter(f"{sys.version_info[0]}.{sys.version_info[1]}") == Path(sys.executable)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    with pytest.raises(NotInstallable, match=r"needs Python 3\.0"):
        interpreter("3.0")


def test_what_cannot_be_installed_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(environments, "PEERS", tmp_path)
    (tmp_path / "broken.txt").write_text("not a requirement\n")
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    with pytest.raises(NotInstallable, match=r"broken\.txt"):
        environments.environment("broken", python)


@pytest.mark.parametrize(
    ("available", "server", "client", "comparable"),
    [
        ({0, 1, 2, 3}, {0, 1, 2}, 3, True),
        ({2, 5, 6, 7, 9, 11}, {2, 5, 6}, 11, True),
        ({0, 1}, {0}, 1, False),
        ({4}, {4}, None, False),
    ],
)
def test_cores_are_divided(available: set[int], server: set[int], client: int | None, comparable: bool) -> None:
    found = divide(available)
    assert found == Cores(frozenset(server), client)
    assert found.comparable is comparable


def test_pinning_ends() -> None:
    before = os.sched_getaffinity(0)
    one = frozenset({min(before)})
    with pinned(one):
        assert os.sched_getaffinity(0) == one
    assert os.sched_getaffinity(0) == before


def test_our_options_come_by_a_plan_that_the_server_takes(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"model")
    variables = planned(tmp_path / "plan", {"m": tmp_path / "m.onnx"}, Options(limits=Limits(max_queue=7)))
    file = Path(variables[ENV_PLAN_FILE])
    verify(file.read_bytes(), (file.parent / "plan.sig").read_text(), variables[ENV_PLAN_PUBLIC_KEY])
    (model,) = Plan.decode(file.read_bytes()).models
    assert (model.name, model.options.limits.max_queue) == ("m", 7)


def test_by_flags_no_plan_is_written(tmp_path: Path) -> None:
    start = ours().start(Place((1, 2, 3), {"m": tmp_path / "m.onnx"}, tmp_path, 1))
    assert f"m={tmp_path / 'm.onnx'}" in start.command
    assert ENV_PLAN_FILE not in start.environment


@pytest.fixture(scope="module")
def tabular(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.write("tabular", tmp_path_factory.mktemp("models"))


def test_right_answers_are_told_from_wrong_ones_and_from_another_request_s(tabular: Path) -> None:
    truth, wire = Truth({"tabular": tabular}), OipJson()
    bodies = []
    for variant in range(2):
        values = truth._answers("tabular")[variant]
        bodies.append(b'{"outputs":[{"data":%b}]}' % str(values.tolist()).encode())
    assert truth.wrong("tabular", wire, [Sample(0, bodies[0]), Sample(1, bodies[1])]) == 0
    assert truth.wrong("tabular", wire, [Sample(1, bodies[0]), Sample(0, b"{}"), Sample(0, b"x")]) == 3
    assert not truth.agrees("tabular", 0, wire, b'{"outputs":[{"data":[1.0]}]}')


def test_models_are_made_once_and_alike(tabular: Path, tmp_path: Path) -> None:
    assert models.write("tabular", tmp_path).read_bytes() == tabular.read_bytes()
    assert np.prod([layout.rows for layout in layouts("image", 3)]) > 1


def test_the_limit_is_looked_for_where_it_may_be() -> None:
    assert layouts("tabular", 3) == [Layout(1, 1, 1)]
    assert {layout.workers for layout in layouts("text", 1)} == {1}
    assert {(layout.workers, layout.threads) for layout in layouts("image", 3)} == {(3, 1), (1, 3)}


def test_the_limit_counts_rows_of_all_workers(tabular: Path) -> None:
    found = run(str(tabular), "tabular", Layout(2, 1, 8), 0.1)
    assert isinstance(found, Rate)
    assert found.items > 800
    assert found.cpu > 0
