"""Which of several operators acts: a coordination.k8s.io/Lease, taken and kept by compare-and-swap of its
resourceVersion.

No clock is compared with another machine's: a holder's claim is over when the record has not changed for its duration,
measured here. The holder counts from before it sent the renewal that succeeded, so it always knows less time than the
others grant it; and `gate` lets no write start that might end later than that.
Algorithm: k8s.io/client-go/tools/leaderelection. Used by `process`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from modelpier_operator.cluster import errors
from modelpier_operator.cluster.client import Api
from modelpier_operator.cluster.kinds import LEASE
from modelpier_operator.settings import Settings

log = logging.getLogger(__name__)
Object = dict[str, Any]
Clock = Callable[[], float]


def steady_clock() -> float:
    """Seconds; goes on while the machine sleeps, where the system has such a clock. Never an event loop's cached
    time.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class LeadershipLostError(Exception):
    """Not renewed within the deadline, or somebody else holds the lease: the process must end."""


@dataclass(frozen=True)
class Terms:
    """Seconds. `duration` > `deadline` > `retry`; a leader renews every tenth of the duration at most."""

    duration: float
    deadline: float
    retry: float

    @classmethod
    def of(cls, settings: Settings) -> Terms:
        return cls(settings.lease_duration, settings.renew_deadline, settings.retry_period)

    @property
    def interval(self) -> float:
        return max(self.retry, self.duration / 10)


@dataclass(frozen=True)
class Sighting:
    """The record as it was when it last changed, and when that was, by our clock."""

    record: tuple[Any, ...]
    since: float


class Elector:
    def __init__(self, api: Api, settings: Settings, identity: str, clock: Clock = steady_clock) -> None:
        self._api, self.identity, self._clock = api, identity, clock
        self._terms = Terms.of(settings)
        self._collection = LEASE.collection(settings.operator_namespace)
        self._name = settings.lease_name
        self._path = f"{self._collection}/{self._name}"
        self._sighting: Sighting | None = None
        self._lease: Object | None = None
        self._until = float("-inf")
        self._renewed = asyncio.Event()

    # ------------------------------------------------------------------------------------------ what others ask
    def remaining(self) -> float:
        """Seconds for which nobody else can hold the lease; negative or zero when we do not."""
        return self._until - self._clock()

    @property
    def leading(self) -> bool:
        return self.remaining() > 0

    def gate(self, seconds: float) -> None:
        """Raises NotLeaderError unless a write that may take `seconds` ends before anybody else may write."""
        if (left := self.remaining()) < seconds:
            raise errors.NotLeaderError(f"{left:.1f} s are left on the lease, and the write may take {seconds:g} s")

    async def time_for(self, seconds: float) -> None:
        """Waits until `gate(seconds)` lets a write start; for ever once closed, or when the lease is lost."""
        while self.remaining() < seconds:
            self._renewed.clear()
            await self._renewed.wait()

    def close(self) -> None:
        """Let no further write start."""
        self._until = float("-inf")

    # ------------------------------------------------------------------------------------------ election
    async def acquire(self) -> None:
        """Waits until this process leads; errors of the API server are waited out."""
        while not await self._attempt():  # noqa: ASYNC110 - the event is at the API server
            await asyncio.sleep(self._terms.retry)
        log.info("leading as %s", self.identity)

    async def keep(self) -> None:
        """Renews for ever. Raises LeadershipLostError."""
        renewed = self._clock()
        while True:
            await asyncio.sleep(self._terms.interval)
            while not await self._attempt():
                if self._held_by_another():
                    raise LeadershipLostError(f"the lease {self._name} is somebody else's")
                if self._clock() - renewed > self._terms.deadline:
                    raise LeadershipLostError(f"the lease {self._name} was not renewed for {self._terms.deadline:g} s")
                await asyncio.sleep(self._terms.retry)
            if self._clock() - renewed > self._terms.duration:
                # Stopped and continued in between: somebody else may have led meanwhile, what we know may be old.
                raise LeadershipLostError(f"the lease {self._name} ran out before it was renewed")
            renewed = self._clock()

    async def release(self) -> None:
        """Give the lease up so that another one takes it at its next look. Nothing of ours may be in flight any
        more.
        """
        self.close()
        lease, self._lease = self._lease, None
        if lease is None:
            return
        spec = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _now()}
        try:
            await self._put({**lease, "spec": spec})
            log.info("released the lease")
        except errors.ApiError as error:
            log.warning("the lease could not be released and will run out: %s", error)

    async def _attempt(self) -> bool:
        """One try to take or renew the lease."""
        begin = self._clock()
        try:
            self._lease = await self._take(self._lease if self.leading else None)
        except errors.ConflictError:
            # Somebody was faster, or touched the object: look at it in the next try.
            self._lease = None
            return await self._look_again(begin)
        except errors.ApiError as error:
            log.warning("the lease cannot be had: %s", error)
            return False
        return self._have(begin)

    async def _look_again(self, begin: float) -> bool:
        try:
            self._lease = await self._take(None)
        except errors.ApiError as error:
            log.info("the lease was changed by somebody else: %s", error)
            return False
        return self._have(begin)

    def _have(self, begin: float) -> bool:
        """Whether an attempt that began at `begin` gave us the lease; then notes how long it lasts."""
        if self._lease is None:
            return False
        self._until = begin + self._terms.duration
        self._renewed.set()
        return True

    async def _take(self, held: Object | None) -> Object | None:
        """Our lease as written; None while somebody else's claim lasts. `held`: as we wrote it last."""
        lease = held or await self._get()
        if lease is None:
            manifest = {"metadata": {"name": self._name}, "spec": self._spec({})}
            return await self._write("POST", self._collection, manifest)
        spec = lease.get("spec") or {}
        if held is None and not self._is_free(spec):
            return None
        return await self._put({**lease, "spec": self._spec(spec)})

    async def _get(self) -> Object | None:
        try:
            async with asyncio.timeout(self._terms.deadline):
                return await self._api.get(self._path)
        except errors.NotFoundError:
            return None
        except TimeoutError as error:
            raise errors.UnavailableError(f"no answer within {self._terms.deadline:g} s") from error

    def _is_free(self, spec: Object) -> bool:
        record = spec.get("holderIdentity"), spec.get("renewTime"), spec.get("leaseTransitions")
        if self._sighting is None or self._sighting.record != record:
            self._sighting = Sighting(record, self._clock())
        if spec.get("holderIdentity") in (None, "", self.identity):
            return True
        lasts = max(float(spec.get("leaseDurationSeconds") or 0), self._terms.duration)
        return self._clock() - self._sighting.since > lasts

    def _held_by_another(self) -> bool:
        holder = self._sighting.record[0] if self._sighting else None
        return self._lease is None and holder not in (None, "", self.identity)

    def _spec(self, before: Object) -> Object:
        ours = before.get("holderIdentity") == self.identity
        return {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": max(1, round(self._terms.duration)),
            "acquireTime": before["acquireTime"] if ours and before.get("acquireTime") else _now(),
            "renewTime": _now(),
            "leaseTransitions": int(before.get("leaseTransitions") or 0) + (0 if ours or not before else 1),
        }

    async def _put(self, lease: Object) -> Object:
        # The resourceVersion in the body makes this a compare-and-swap.
        return await self._write("PUT", self._path, lease)

    async def _write(self, method: str, path: str, lease: Object) -> Object:
        whole = {"apiVersion": LEASE.api_version, "kind": LEASE.kind, **lease}
        # Half of what is left beyond the deadline: a renewal that hangs must leave time for another one.
        return await self._api.write_ungated(method, path, whole, seconds=self._terms.deadline / 2)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
