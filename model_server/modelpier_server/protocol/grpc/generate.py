"""Writes the messages of the .proto files here: `python -m modelpier_server.protocol.grpc.generate [--check]`, or
`make generate`. Needs grpcio-tools, which only the development environment has.

All messages live in a descriptor pool of this server's own: in protobuf's common one they would be at odds with every
client library that brings messages of the same names, as `tritonclient` does.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).parent
GENERATED = HERE / "generated"
SOURCES = ("health.proto", "inference.proto", "status.proto")
_COMMON_POOL = "_descriptor_pool.Default()"
_IMPORT_POOL = "from google.protobuf import descriptor_pool as _descriptor_pool\n"
_OWN_POOL = "from modelpier_server.protocol.grpc.pool import POOL as _POOL\n"


def make() -> Mapping[str, str]:
    """Name -> text of each generated file."""
    from grpc_tools import protoc  # noqa: PLC0415 - see above

    with TemporaryDirectory() as folder:
        flags = [f"--proto_path={HERE}", f"--python_out={folder}", f"--pyi_out={folder}"]
        if protoc.main(["protoc", *flags, *SOURCES]):
            raise SystemExit(1)  # protoc has said why
        return {path.name: _own_pool(path.read_text()) for path in sorted(Path(folder).iterdir())}


def _own_pool(text: str) -> str:
    return text.replace(_IMPORT_POOL, _OWN_POOL).replace(_COMMON_POOL, "_POOL")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m modelpier_server.protocol.grpc.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file differs")
    check = parser.parse_args(arguments).check
    differs = False
    for name, text in make().items():
        path = GENERATED / name
        if path.exists() and path.read_text() == text:
            continue
        differs = True
        if not check:
            path.write_text(text)
        print(f"{path.relative_to(Path.cwd())}: {'differs, run make generate' if check else 'written'}")
    return 1 if check and differs else 0


if __name__ == "__main__":
    raise SystemExit(main())
