"""Speaks with the model servers' admin ports: follows what they say of themselves, and pushes plans to them.

A ConfigMap reaches a pod up to a minute late and tells nothing back; this is the quick way, and what it carries is
signed. `reconcile` says after each pass which pods to follow and what to push; every change is a reason for another
pass. A report is kept by the uid of its pod and forgotten with the pod.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

import aiohttp

from modelpier_operator.cluster.backoff import Backoff
from modelpier_operator.cluster.kinds import Key
from modelpier_operator.decide.facts import PlanPush
from modelpier_server.contract import ADMIN_PORT, PLAN_PATH, SIGNATURE_HEADER, STATE_PATH, ContractError, Report

log = logging.getLogger(__name__)

POLLS = 256
"""Long polls at the same time; further pods wait for their turn."""
PUSHES = 32
POLL_SECONDS = 20.0
CROWDED_POLL_SECONDS = 2.0
TIMEOUT = 5.0
"""Seconds for connecting and for an answer beyond the time that a poll may wait."""
GRACE = 10.0
"""Seconds of failed tries before a pod counts as unreachable: a server that just started does not listen yet."""
REPORT_LIMIT = 1 << 20
"""Bytes of a report that are read; what is longer is refused."""


class AdminError(Exception):
    """A server did not answer, or not as the contract says."""


@dataclass(eq=False)
class _Link:
    """One pod that is followed or has a plan to take."""

    key: Key
    uid: str
    ip: str
    follow: bool = False
    push: PlanPush | None = None
    serial: int = 0
    failing_since: float | None = None
    backoff: Backoff = field(default_factory=lambda: Backoff(base=0.25, cap=15.0))
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    @property
    def wanted(self) -> bool:
        return self.follow or self.push is not None


class ReportSource(Protocol):
    """What a pass asks: of `Reports`, or of what tests put in its place."""

    def report(self, pod_uid: str) -> Report | None: ...
    def unreachable(self, pod_uid: str) -> str: ...
    def attend(
        self, key: Key, pods: Iterable[str], follow: Iterable[tuple[str, str]], pushes: Iterable[PlanPush]
    ) -> None: ...
    def forget(self, key: Key) -> None: ...


class Reports:
    """`changed` is called with the key of the ModelDeployment whose pod said something new."""

    def __init__(self, changed: Callable[[Key], None], *, port: int = ADMIN_PORT, grace: float = GRACE) -> None:
        self._changed, self._port, self._grace = changed, port, grace
        self._reports: dict[str, Report] = {}
        self._unreachable: dict[str, str] = {}
        self._links: dict[str, _Link] = {}
        self._pods: dict[Key, frozenset[str]] = {}
        self._polls, self._pushes = asyncio.Semaphore(POLLS), asyncio.Semaphore(PUSHES)
        self._session: aiohttp.ClientSession | None = None

    def __len__(self) -> int:
        """Pods that are followed or pushed to now."""
        return len(self._links)

    def report(self, pod_uid: str) -> Report | None:
        return self._reports.get(pod_uid)

    def unreachable(self, pod_uid: str) -> str:
        return self._unreachable.get(pod_uid, "")

    def attend(
        self, key: Key, pods: Iterable[str], follow: Iterable[tuple[str, str]], pushes: Iterable[PlanPush]
    ) -> None:
        """From now on follow and push exactly this for `key`; what is known of pods outside of `pods` is forgotten."""
        now = frozenset(pods)
        followed = dict(follow)
        pushed = {push.pod_uid: push for push in pushes}
        for uid in self._pods.get(key, frozenset()) - now:
            self._forget(uid)
        self._pods[key] = now
        if not now:
            del self._pods[key]
        for uid in now:
            push = pushed.get(uid)
            ip = followed.get(uid) or (push.pod_ip if push else "")
            self._want(key, uid, ip, follow=uid in followed, push=push)

    def forget(self, key: Key) -> None:
        """The ModelDeployment is gone."""
        self.attend(key, (), (), ())

    async def stop(self) -> None:
        tasks = [link.task for link in self._links.values() if link.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._links.clear()
        if self._session:
            await self._session.close()

    # ------------------------------------------------------------------------------------------ links
    def _want(self, key: Key, uid: str, ip: str, *, follow: bool, push: PlanPush | None) -> None:
        link = self._links.get(uid)
        if link is None:
            if not ip:
                return
            link = self._links[uid] = _Link(key, uid, ip)
        same = (link.ip, link.follow, link.push) == (ip or link.ip, follow, push)
        link.ip, link.follow, link.push = ip or link.ip, follow, push
        if not same:
            link.changed.set()
        if link.task is None:
            link.task = asyncio.create_task(self._serve(link), name=f"admin port of {uid}")

    def _forget(self, uid: str) -> None:
        self._reports.pop(uid, None)
        self._unreachable.pop(uid, None)
        link = self._links.pop(uid, None)
        if link and link.task:
            link.task.cancel()

    async def _serve(self, link: _Link) -> None:
        while link.wanted:
            link.changed.clear()
            try:
                report = await (self._put(link, link.push) if link.push else self._poll(link))
            except AdminError as error:
                self._failed(link, str(error))
                await _wait(link.changed, link.backoff.next())
            else:
                if report is not None:
                    self._take(link, report)
        # Nothing may be awaited between the last look at `wanted` and this, or a new wish would be lost.
        if self._links.get(link.uid) is link:
            del self._links[link.uid]

    def _take(self, link: _Link, report: Report) -> None:
        link.serial, link.failing_since = report.serial, None
        link.backoff.reset()
        news = self._reports.get(link.uid) != report
        self._reports[link.uid] = report
        if self._unreachable.pop(link.uid, None) or news:
            self._changed(link.key)

    def _failed(self, link: _Link, why: str) -> None:
        # Whoever answers next may be a new process in the same pod, which counts from the start.
        link.serial = 0
        now = asyncio.get_running_loop().time()
        link.failing_since = now if link.failing_since is None else link.failing_since
        if now - link.failing_since >= self._grace and self._unreachable.get(link.uid) != why:
            self._unreachable[link.uid] = why
            self._changed(link.key)

    # ------------------------------------------------------------------------------------------ requests
    async def _poll(self, link: _Link) -> Report | None:
        """The next report; None when something else is wanted of this pod meanwhile."""
        # Waiting for a slot is a part of what a change interrupts: a new plan must not wait for other pods' polls.
        asking = asyncio.create_task(self._listen(link))
        turning = asyncio.create_task(link.changed.wait())
        try:
            await asyncio.wait((asking, turning), return_when=asyncio.FIRST_COMPLETED)
            return await asking if asking.done() else None
        finally:
            turning.cancel()
            asking.cancel()
            await asyncio.gather(asking, turning, return_exceptions=True)

    async def _listen(self, link: _Link) -> Report:
        async with self._polls:
            seconds = POLL_SECONDS if len(self._links) <= POLLS else CROWDED_POLL_SECONDS
            path = f"{STATE_PATH}?after={link.serial}&wait={seconds:g}"
            return await self._ask("GET", link, path, TIMEOUT + seconds)

    async def _put(self, link: _Link, push: PlanPush) -> Report:
        async with self._pushes:
            headers = {SIGNATURE_HEADER: push.signature}
            report = await self._ask("PUT", link, PLAN_PATH, TIMEOUT, body=push.plan, headers=headers)
        if link.push is push:
            link.push = None
        return report

    async def _ask(  # noqa: PLR0917 - private, two calls
        self,
        method: str,
        link: _Link,
        path: str,
        seconds: float,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Report:
        host = f"[{link.ip}]" if ":" in link.ip else link.ip
        limits = aiohttp.ClientTimeout(total=seconds, sock_connect=TIMEOUT)
        try:
            async with self._open().request(
                method,
                f"http://{host}:{self._port}{path}",
                data=body,
                headers=headers,
                timeout=limits,
                allow_redirects=False,
            ) as response:
                raw = await _body(response)
                # 409: the server holds this plan, or a newer one, and says so in its report.
                if response.status not in (200, 409):
                    raise AdminError(f"{method} {path.split('?', maxsplit=1)[0]}: {response.status}: {_text(raw)}")
                return Report.decode(raw)
        except ContractError as error:
            raise AdminError(f"{method} {path.split('?', maxsplit=1)[0]}: {error}") from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            # One text for all of them: a pod that falls from one into another would cost a status write each time.
            log.debug("%s %s of %s: %r", method, path, link.ip, error)
            raise AdminError(
                f"no answer from {host}:{self._port}: it does not listen, or a NetworkPolicy is in the way"
            ) from error

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        return self._session


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """All of it, however many pieces it comes in. Raises AdminError beyond REPORT_LIMIT."""
    raw = bytearray()
    async for piece in response.content.iter_any():
        raw += piece
        if len(raw) > REPORT_LIMIT:
            raise AdminError(f"the answer is longer than {REPORT_LIMIT} bytes")
    return bytes(raw)


def _text(raw: bytes) -> str:
    return raw[:300].decode(errors="replace").strip()
