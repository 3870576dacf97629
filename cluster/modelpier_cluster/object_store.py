"""versitygw, an S3 API over a folder: on loopback for tests, and as a process of every cluster.

with ObjectStore() as store:
boto3.client("s3", endpoint_url=store.url, **store.boto3_arguments())
"""

import json
import secrets
import shutil
import socket
import tempfile
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from modelpier_cluster.build import TOOLS, programs
from modelpier_cluster.errors import ClusterError
from modelpier_cluster.guarded import GuardedProcesses, PortTakenError, free_ports
from modelpier_cluster.paths import write_text
from modelpier_cluster.supervisor import Process

REGION = "us-east-1"
ATTEMPTS = 4
START_SECONDS = 30.0


@dataclass(frozen=True)
class Keys:
    """What a client of the store needs to know."""

    url: str
    access_key: str
    secret_key: str
    region: str = REGION

    @classmethod
    def generate(cls, url: str) -> Self:
        return cls(url, f"modelpier{secrets.token_hex(4)}", secrets.token_hex(20))

    @classmethod
    def read(cls, path: Path) -> Self:
        return cls(**json.loads(path.read_text()))

    def write(self, path: Path) -> None:
        write_text(path, json.dumps(asdict(self), indent=1), 0o600)


def object_store_process(program: Path, folder: Path, listen: str, keys: Keys) -> Process:
    """The command line of versitygw over `folder`/data, listening on `listen` (host:port)."""
    for name in ("data", "metadata"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return Process(
        (
            *(str(program), "--access", keys.access_key, "--secret", keys.secret_key, "--region", keys.region),
            *("--port", listen, "--quiet", "posix"),
            # Metadata in plain files: a file system without user extended attributes is then good enough.
            *("--sidecar", f"{folder}/metadata", f"{folder}/data"),
        )
    )


def answers(url: str) -> bool:
    """Whether an S3 server answers at `url` (an unsigned request is refused, which is an answer)."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        opener.open(url, timeout=2).close()
    except urllib.error.HTTPError as error:
        error.close()
        return error.code < 500
    except OSError:
        return False
    return True


def accepts(host: str, port: int) -> bool:
    """Whether something accepts TCP connections there."""
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return False
    return True


class ObjectStore:
    """An S3 server on a free port of 127.0.0.1 that ends with this Python process; needs no root.

    Attributes once started: `url`, `access_key`, `secret_key`, `region`.
    """

    def __init__(self) -> None:
        self._program = programs([TOOLS]) / "versitygw"
        self._folder = Path(tempfile.mkdtemp(prefix="modelpier-object-store-"))
        self._keys: Keys | None = None
        self._processes: GuardedProcesses | None = None

    @property
    def keys(self) -> Keys:
        if not self._keys:
            raise ClusterError("the object store is not running: call start() first")
        return self._keys

    @property
    def url(self) -> str:
        return self.keys.url

    @property
    def access_key(self) -> str:
        return self.keys.access_key

    @property
    def secret_key(self) -> str:
        return self.keys.secret_key

    @property
    def region(self) -> str:
        return self.keys.region

    def boto3_arguments(self) -> dict[str, str]:
        """Keyword arguments of boto3.client beside endpoint_url."""
        return {
            "aws_access_key_id": self.access_key,
            "aws_secret_access_key": self.secret_key,
            "region_name": self.region,
        }

    def start(self) -> Self:
        """Start and wait until it answers; raises ClusterError when it does not."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._start_once()
            except PortTakenError:
                self._end()
                if attempt == ATTEMPTS:
                    raise
            else:
                return self
        raise AssertionError

    def _start_once(self) -> None:
        address = f"127.0.0.1:{free_ports(1)[0]}"
        self._keys = Keys.generate(f"http://{address}")
        process = object_store_process(self._program, self._folder, address, self._keys)
        self._processes = GuardedProcesses(self._folder, {"versitygw": process})
        self._processes.start()
        self._processes.wait_for("the object store", lambda: answers(self.url), START_SECONDS)

    def stop(self) -> None:
        """Kill it and remove its data. May be called twice."""
        self._end()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _end(self) -> None:
        if self._processes:
            self._processes.stop()
            self._processes = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
