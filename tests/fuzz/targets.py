"""What is fuzzed: plain functions that take bytes. They return for whatever a client may send, right or wrong, and
raise for a defect: an exception that is no answer to a client, or a promise that is not kept.

`test_corpus` plays the saved inputs through them, `worker` has them mutated. A target is made once per process: what it
needs is imported then, so that the worker can instrument it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module

Check = Callable[[bytes], None]


@dataclass(frozen=True)
class Target:
    name: str
    module: str
    """Below `fuzz`: its function `make_NAME` makes the check, and its `seeds_NAME` gives what to begin with."""
    grammar: str = ""
    """Of `fuzz.mutate`: how inputs are changed so that they stay nearly right; empty: byte by byte alone."""
    words: tuple[str, ...] = ()
    """The dictionary: what a client might write, a character per byte."""
    longest: int = 4096
    share: float = 1.0
    """Of the campaign's time."""
    foreign: bool = False
    """Runs code of others that is not ours to mend: what it finds is reported, not failed on."""

    def make(self) -> Check:
        check: Check = getattr(import_module(f"fuzz.{self.module}"), f"make_{self.name}")()
        return check

    def seeds(self) -> Mapping[str, bytes]:
        found: Mapping[str, bytes] = getattr(import_module(f"fuzz.{self.module}"), f"seeds_{self.name}")()
        return found


_JSON = ("true", "false", "null", "1e999", "-1", "[]", "{}", '"', "\\ud800", "\\u0000", "9223372036854775808")
_INFER = (
    '"inputs":', '"outputs":', '"parameters":', '"data":', '"shape":', '"datatype":', '"name":',
    '"binary_data":', '"binary_data_size":', '"binary_data_output":', '"classification":', '"priority":',
    '"timeout":', '"id":', "FP32", "FP16", "BF16", "BYTES", "INT64", "UINT8", "BOOL",
)  # fmt: skip
_HTTP = (
    "\r\n", "\r\n\r\n", "GET ", "POST ", "PUT ", "HEAD ", "OPTIONS ", " HTTP/1.1", " HTTP/1.0", "Host: t",
    "Content-Length: ", "Transfer-Encoding: chunked", "0\r\n\r\n", "Connection: close", "Connection: keep-alive",
    "Expect: 100-continue", "Upgrade: h2c", "Content-Encoding: gzip", "Accept-Encoding: gzip", "X-Request-Id: a",
    "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate: a=b,c@d=e", "Accept-Encoding: deflate;q=0.5, *;q=0", "Inference-Header-Content-Length: 0",
    "/v2/models/m/infer", "/v2/models/two/infer", "/v2/health/ready", "/v1/models/m:predict", "/model", "/metrics",
    "/invocations", "/v2/repository/index", "%2f", "%00", "?a=b", "generate", "/versions/1",
)  # fmt: skip

TARGETS: Mapping[str, Target] = {
    target.name: target
    for target in (
        Target("infer_json", "codecs", "json", (*_JSON, *_INFER), share=1.5),
        Target("infer_binary", "codecs", "binary", (*_JSON, *_INFER)),
        Target("predict", "codecs", "json", (*_JSON, '"instances":', '"inputs":', '"b64":')),
        Target("generate", "codecs", "json", (*_JSON, '"text_input":', '"parameters":', '"id":')),
        Target("plain", "codecs", "json", (*_JSON, '"model_name":', '"input_data":', '"model_version":')),
        Target("grpc", "grpc_codec", "infer_message", share=1.5),
        Target("inflate", "bodies", words=("\x1f\x8b\x08", "\x78\x9c", "\x78\xda")),
        Target("plan", "plans", "json", _JSON),
        Target("connection", "connection", words=_HTTP, share=3.0),
        Target("operators", "models", "onnx", ("ai.onnx.contrib",)),
        Target("load", "models", "onnx", ("ai.onnx.contrib",), longest=1 << 14, foreign=True),
    )
}
