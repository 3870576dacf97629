"""How one model is served: the part of a plan that users set with `spec.server`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from modelpier_server.contract import decoding

MOST_LEVELS = 16
MOST_LIBRARIES = 8
LIBRARY_PATTERN = r"([A-Za-z0-9_][A-Za-z0-9._+-]*/)*[A-Za-z0-9_][A-Za-z0-9._+-]*\.so"
"""A shared library by its path relative to the model's folder: no part of it begins with a dot."""
LONGEST_LIBRARY = 256
_LIBRARY = re.compile(LIBRARY_PATTERN)


@dataclass(frozen=True)
class Batching:
    enabled: bool = True
    max_rows: int = 64
    """Rows of the first axis that one run may hold."""
    max_delay: float = 0.0
    """Seconds that a request may wait for others to share its run; 0: never."""
    padding: Mapping[str, float] = field(default_factory=dict)
    """Inputs whose second axis is the length of a sequence, and what shorter ones are padded with to share a run with
    longer ones."""
    mask: str = ""
    """The one of them that says which elements count."""


@dataclass(frozen=True)
class Limits:
    max_queue: int = 1024
    """Requests that may wait; one more is answered 429."""
    request_timeout: float = 60.0
    """Seconds from the last byte of the request to the answer."""
    max_body_bytes: int = 64 * 1024 * 1024
    max_queue_wait: float = 0.0
    """Seconds; a request that is expected to wait longer is answered 429. 0: only its own time counts."""
    priority_levels: int = 1
    """1: requests are run in the order of their arrival; up to MOST_LEVELS: the parameter `priority` of requests
    counts, too."""
    run_timeout: float = 0.0
    """Seconds that one run may take before it is ended. 0: `request_timeout`, or ten times the longest run so far."""


@dataclass(frozen=True)
class GoldenTests:
    """Examples that a model's folder brings must come out before it serves."""

    enabled: bool = True
    relative: float = 1e-3
    absolute: float = 1e-5
    """An element may differ by `absolute` and `relative` of what is expected."""


class GraphOptimization(StrEnum):
    """Levels of ONNX Runtime, each with those before it."""

    DISABLED = "Disabled"
    BASIC = "Basic"  # constant folding, redundant nodes
    EXTENDED = "Extended"  # fusions for single providers
    ALL = "All"  # layouts for this processor


@dataclass(frozen=True)
class Provider:
    """An ONNX Runtime execution provider and its options."""

    name: str
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Options:
    """How one model is served. `instances` and `threads` 0: derived from the CPU limit."""

    providers: tuple[Provider, ...] = (Provider("CPUExecutionProvider"),)
    instances: int = 0
    threads: int = 0
    batching: Batching = Batching()
    limits: Limits = Limits()
    isolated: bool = False
    """In a process of its own: a crash of the model takes nobody else. Running out of the container's memory does where
    the kubelet sets memory.oom.group."""
    graph_optimization: GraphOptimization = GraphOptimization.ALL
    golden_tests: GoldenTests = GoldenTests()
    hooks: bool = False
    """The Python file that lies beside the model is run before and after it, with all rights of the process."""
    custom_operators: tuple[str, ...] = ()
    """Shared libraries of operators, by their paths relative to the model's folder: native code with all rights of the
    process."""


def read_options(value: Any, where: str) -> Options:
    data, default = decoding.mapping(value, where), Options()
    batching = decoding.mapping(data.get("batching") or {}, f"{where}.batching")
    limits = decoding.mapping(data.get("limits") or {}, f"{where}.limits")
    timeout = decoding.number(
        limits.get("request_timeout", default.limits.request_timeout), f"{where}.limits.request_timeout"
    )
    if timeout <= 0:
        raise decoding.ContractError(f"{where}.limits.request_timeout: must be a number of seconds > 0")
    levels = decoding.whole(limits, "priority_levels", f"{where}.limits", low=1, default=1)
    if levels > MOST_LEVELS:
        raise decoding.ContractError(f"{where}.limits.priority_levels: must be at most {MOST_LEVELS}")
    return Options(
        providers=tuple(
            _provider(p, f"{where}.providers[{i}]") for i, p in enumerate(decoding.array(data, "providers", where))
        )
        if data.get("providers")
        else default.providers,
        instances=decoding.whole(data, "instances", where, default=0),
        threads=decoding.whole(data, "threads", where, default=0),
        isolated=decoding.flag(data, "isolated", where, default=False),
        graph_optimization=decoding.member(GraphOptimization, data, "graph_optimization", where)
        if "graph_optimization" in data
        else default.graph_optimization,
        hooks=decoding.flag(data, "hooks", where, default=False),
        custom_operators=_libraries(data, where),
        golden_tests=_golden_tests(data.get("golden_tests") or {}, f"{where}.golden_tests"),
        batching=Batching(
            enabled=decoding.flag(batching, "enabled", f"{where}.batching", default=True),
            max_rows=decoding.whole(
                batching, "max_rows", f"{where}.batching", low=1, default=default.batching.max_rows
            ),
            max_delay=_seconds(batching, "max_delay", f"{where}.batching"),
            padding=_padding(batching, f"{where}.batching.padding"),
            mask=str(batching.get("mask") or ""),
        ),
        limits=Limits(
            max_queue=decoding.whole(limits, "max_queue", f"{where}.limits", low=1, default=default.limits.max_queue),
            max_queue_wait=_seconds(limits, "max_queue_wait", f"{where}.limits"),
            priority_levels=levels,
            run_timeout=_seconds(limits, "run_timeout", f"{where}.limits"),
            request_timeout=timeout,
            max_body_bytes=decoding.whole(
                limits, "max_body_bytes", f"{where}.limits", low=1, default=default.limits.max_body_bytes
            ),
        ),
    )


def is_library(text: str) -> bool:
    return len(text) <= LONGEST_LIBRARY and bool(_LIBRARY.fullmatch(text))


def _libraries(data: Mapping[str, Any], where: str) -> tuple[str, ...]:
    values = decoding.array(data, "custom_operators", where) if data.get("custom_operators") else []
    if len(values) > MOST_LIBRARIES:
        raise decoding.ContractError(f"{where}.custom_operators: must be at most {MOST_LIBRARIES}")
    for index, value in enumerate(values):
        if not isinstance(value, str) or not is_library(value):
            text = "must be a path relative to the model's folder, such as ops/custom.so"
            raise decoding.ContractError(f"{where}.custom_operators[{index}]: {text}")
    return tuple(values)


def _golden_tests(value: Any, where: str) -> GoldenTests:
    data, default = decoding.mapping(value, where), GoldenTests()
    return GoldenTests(
        enabled=decoding.flag(data, "enabled", where, default=True),
        relative=_tolerance(data, "relative", where, default.relative),
        absolute=_tolerance(data, "absolute", where, default.absolute),
    )


def _tolerance(data: Mapping[str, Any], key: str, where: str, default: float) -> float:
    value = decoding.number(data.get(key, default), f"{where}.{key}")
    if value < 0:
        raise decoding.ContractError(f"{where}.{key}: must be a number >= 0")
    return value


def _padding(batching: Mapping[str, Any], where: str) -> Mapping[str, float]:
    values = decoding.mapping(batching.get("padding") or {}, where)
    return {str(name): decoding.number(value, f"{where}.{name}") for name, value in values.items()}


def _seconds(data: Mapping[str, Any], key: str, where: str) -> float:
    """0 where it is not given."""
    value = decoding.number(data.get(key, 0.0), f"{where}.{key}")
    if value < 0:
        raise decoding.ContractError(f"{where}.{key}: must be a number of seconds >= 0")
    return value


def _provider(value: Any, where: str) -> Provider:
    data = decoding.mapping(value, where)
    options = decoding.mapping(data.get("options") or {}, f"{where}.options")
    return Provider(decoding.text(data, "name", where), {str(k): str(v) for k, v in options.items()})
