"""Open-loop load from a process of its own: requests start at their times, whatever has become of those before.

`python open_loop.py URL BODY_FILE RATE SECONDS [--steady COUNT] [--until-unready DELAY [--move-to HOST:PORT]]` prints
`started`, with --steady `steady` once COUNT requests have been answered with 200, and in the end one JSON object. Every
second request comes over a kept connection, the others over new ones; nothing is ever tried again. With --until-unready
it goes on until readiness turns away, and DELAY seconds longer, as requests do until endpoints have spread through a
cluster. With --move-to it does not end then: new connections go to the other server, kept ones are used until they are
closed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import threading
import time
import urllib.parse
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

WORKERS = 32
READY_PATH = "/v2/health/ready"


@dataclass
class Load:
    host: str
    path: str
    body: bytes
    interval: float
    end: float
    """Of time.monotonic()."""
    steady: int = 0
    """Answers after which it says so; 0: never."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    next: int = 0
    start: float = field(default_factory=time.monotonic)
    outcomes: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    late: float = 0.0

    def worker(self) -> None:
        kept = self._connection()
        while (turn := self._turn()) is not None:
            if turn % 2:
                if kept.sock is None:  # the last answer said so
                    kept = self._connection()
                self._request(kept, turn)
            else:
                fresh = self._connection()
                self._request(fresh, turn)
                fresh.close()
        kept.close()

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, timeout=30)

    def _turn(self) -> int | None:
        with self.lock:
            turn, self.next = self.next, self.next + 1
        due = self.start + turn * self.interval
        if due >= self.end:
            return None
        time.sleep(max(0.0, due - time.monotonic()))
        if time.monotonic() >= self.end:
            return None
        self.late = max(self.late, time.monotonic() - due)
        return turn

    def _request(self, connection: http.client.HTTPConnection, turn: int) -> None:
        try:
            connection.request("POST", self.path, self.body, {"content-type": "application/json"})
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            self._count("error", f"{turn}: {type(error).__name__}: {error}")
            return
        self._count(str(answer.status), "" if answer.status == 200 else f"{turn}: {body[:200]!r}", body)

    def _count(self, outcome: str, error: str, body: bytes = b"") -> None:
        with self.lock:
            self.outcomes[outcome] += 1
            if outcome == "200" and self.outcomes["200"] == self.steady:
                print("steady", flush=True)
            if body and len(body) < 200:
                self.answers[json.loads(body).get("model_version", "?")] += 1
            if error:
                self.errors.append(error)


def watch_readiness(load: Load, delay: float, move_to: str | None) -> None:
    """Every 100 ms over a new connection, as a kubelet would."""
    while time.monotonic() < load.end:
        connection = http.client.HTTPConnection(load.host, timeout=5)
        try:
            connection.request("GET", READY_PATH)
            ready = connection.getresponse().status == 200
        except OSError:
            ready = False
        finally:
            connection.close()
        if not ready:
            break
        time.sleep(0.1)
    if move_to is None:
        load.end = min(load.end, time.monotonic() + delay)
    else:
        time.sleep(delay)
        load.host = move_to


def main() -> None:
    flags = argparse.ArgumentParser()
    flags.add_argument("url")
    flags.add_argument("body", type=Path)
    flags.add_argument("rate", type=float)
    flags.add_argument("seconds", type=float)
    flags.add_argument("--steady", type=int, default=0)
    flags.add_argument("--until-unready", type=float)
    flags.add_argument("--move-to")
    given = flags.parse_args()
    url = urllib.parse.urlsplit(given.url)
    end = time.monotonic() + given.seconds
    load = Load(url.netloc, url.path, given.body.read_bytes(), 1 / given.rate, end, given.steady)
    threads = [threading.Thread(target=load.worker) for _ in range(WORKERS)]
    if given.until_unready is not None:
        threads.append(threading.Thread(target=watch_readiness, args=(load, given.until_unready, given.move_to)))
    print("started", flush=True)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = {"outcomes": load.outcomes, "answers": load.answers, "errors": load.errors[:10], "late": load.late}
    json.dump({**found, "seconds": time.monotonic() - load.start}, sys.stdout)


if __name__ == "__main__":
    main()
