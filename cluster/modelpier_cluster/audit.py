"""Reads the API server's audit log, so that tests can say exactly who wrote what. Used by tests.

with recording(control_plane.audit_log) as recorded:
...
assert writes(recorded) == []
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WRITING_VERBS = frozenset({"create", "update", "patch", "delete", "deletecollection"})


def events(path: Path, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
    """The complete audit events after byte `offset` of the log, and the offset after them."""
    if not path.exists():
        return [], offset
    with path.open("rb") as stream:
        stream.seek(offset)
        data = stream.read()
    complete = data[: data.rfind(b"\n") + 1]
    return [json.loads(line) for line in complete.splitlines()], offset + len(complete)


@contextmanager
def recording(path: Path) -> Iterator[list[dict[str, Any]]]:
    """Collects the events that were logged between entry and exit; the list is filled at exit."""
    _, begin = events(path)
    collected: list[dict[str, Any]] = []
    yield collected
    collected.extend(events(path, begin)[0])


def writes(
    recorded: Iterable[dict[str, Any]], *, user: str | None = None, user_agent: str = "", ignore_leases: bool = False
) -> list[str]:
    """'verb resource[/subresource] namespace/name' of each successful or refused write, oldest first.

    The API server's writes of its own (system:apiserver) are left out unless `user` asks for them.
    `user`: only that user name; `user_agent`: only clients whose User-Agent begins so; `ignore_leases`: leave out
    coordination.k8s.io/leases.
    """
    return [_line(event) for event in recorded if _is_write(event, user, user_agent, ignore_leases=ignore_leases)]


def _is_write(event: dict[str, Any], user: str | None, user_agent: str, *, ignore_leases: bool) -> bool:
    reference = event.get("objectRef", {})
    return (
        event["verb"] in WRITING_VERBS
        and (event["user"]["username"] != "system:apiserver" if user is None else event["user"]["username"] == user)
        and event.get("userAgent", "").startswith(user_agent)
        and not (ignore_leases and reference.get("resource") == "leases")
    )


def _line(event: dict[str, Any]) -> str:
    reference = event.get("objectRef", {})
    resource = "/".join(filter(None, [reference.get("resource"), reference.get("subresource")]))
    place = "/".join(filter(None, [reference.get("namespace"), reference.get("name")]))
    return f"{event['verb']} {resource} {place}"
