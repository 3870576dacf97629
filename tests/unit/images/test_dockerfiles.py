"""The Dockerfiles, as far as reading them tells; tests/e2e/test_images.py looks into the images."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
FILES = ("operator/Dockerfile", "model_server/Dockerfile")
FINAL = {"operator/Dockerfile": [""], "model_server/Dockerfile": ["cpu", "gpu"]}


@dataclass
class Stage:
    name: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, keyword: str) -> list[str]:
        return [rest for word, rest in self.instructions if word == keyword]


def stages(file: str) -> list[Stage]:
    text = re.sub(r"^\s*#.*\n", "", (ROOT / file).read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found = [Stage("(arguments)")]
    for line in filter(str.strip, text.splitlines()):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            found.append(Stage(rest.partition(" AS ")[2]))
        found[-1].instructions.append((word, rest.strip()))
    return found


def finals(file: str) -> list[Stage]:
    return [stage for stage in stages(file) if stage.name in FINAL[file]]


@pytest.mark.parametrize("file", FILES)
def test_images_run_as_nobody_in_particular(file: str) -> None:
    assert len(finals(file)) == len(FINAL[file])
    for stage in finals(file):
        assert stage.all("USER") == ["65532:65532"]
        assert stage.all("STOPSIGNAL") == ["SIGTERM"]
        assert len(stage.all("ENTRYPOINT")) == 1


@pytest.mark.parametrize("file", FILES)
def test_secrets_of_the_build_reach_no_image(file: str) -> None:
    for stage in finals(file):
        assert not any("--mount" in run for run in stage.all("RUN"))
        assert all(run.startswith("rm -rf ") for run in stage.all("RUN"))
        assert all("--from=" in copy for copy in stage.all("COPY")), "only what other stages made"


@pytest.mark.parametrize("file", FILES)
def test_packages_are_locked(file: str) -> None:
    text = (ROOT / file).read_text()
    assert all("--require-hashes" in line for line in text.splitlines() if "pip install" in line)
    assert "--require-hashes" in (ROOT / "requirements" / "image.sh").read_text()


@pytest.mark.parametrize("file", FILES)
def test_base_images_are_named_by_version(file: str) -> None:
    arguments = dict(rest.split("=", 1) for rest in stages(file)[0].all("ARG"))
    images = [value for name, value in arguments.items() if name.endswith("BASE_IMAGE")]
    assert images
    for image in images:
        assert re.fullmatch(r"docker\.io/[a-z/]+:\d+\.\d+[a-z0-9.-]+", image), image


@pytest.mark.parametrize("file", FILES)
def test_the_build_context_holds_what_is_copied_and_little_else(file: str) -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [copy for stage in stages(file) for copy in stage.all("COPY") if "--from=" not in copy]
    for source in (source for copy in copied for source in copy.split()[:-1]):
        assert (ROOT / source).exists(), source
        assert any(Path(source).match(pattern) for pattern in allowed), source


def test_telemetry_is_off_in_the_servers_images() -> None:
    for stage in finals("model_server/Dockerfile"):
        assert any("ORT_DISABLE_TELEMETRY=1" in value for value in stage.all("ENV"))


def test_the_servers_targets_differ_in_base_packages_and_label_alone() -> None:
    """A stage takes its settings from its base alone, and the bases differ: they stand there twice."""

    def comparable(name: str) -> list[tuple[str, str]]:
        (stage,) = [stage for stage in stages("model_server/Dockerfile") if stage.name == name]
        told = [(word, rest.replace("-gpu", "").replace("gpu-", "cpu-")) for word, rest in stage.instructions]
        return [(word, rest) for word, rest in told if word not in ("FROM", "LABEL")]

    assert comparable("gpu") == comparable("cpu")
    own_python = 1  # the RUN that adds python3-venv to CUDA's Ubuntu
    gpu_build = comparable("gpu-build")
    assert len(gpu_build) == len(comparable("cpu-build")) + own_python
    assert [step for step in gpu_build if step not in comparable("cpu-build")] == [gpu_build[1]]


def test_the_cuda_base_fits_the_locked_onnxruntime() -> None:
    """The extra `cuda` of onnxruntime-gpu asks for CUDA 13 from 1.28 on; that of 1.26 asked for 12."""
    locked = (ROOT / "requirements" / "server-gpu.txt").read_text()
    version = re.search(r"^onnxruntime-gpu==(\d+)\.(\d+)", locked, re.MULTILINE)
    assert version
    assert (int(version[1]), int(version[2])) >= (1, 28)
    arguments = dict(rest.split("=", 1) for rest in stages("model_server/Dockerfile")[0].all("ARG"))
    assert "/cuda:13." in arguments["GPU_BASE_IMAGE"]
    assert "-cudnn-runtime-" in arguments["GPU_BASE_IMAGE"]
