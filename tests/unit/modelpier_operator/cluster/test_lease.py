"""Electors over the API in memory, in virtual time: who may write, and when."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpier_operator.cluster import errors
from modelpier_operator.cluster.lease import Elector, LeadershipLostError
from support import builders, virtual_time
from support.api import MemoryApi
from support.faults import Faulty


@dataclass
class Line(Faulty):
    """An `Api` that can be broken for a while."""

    broken: bool = False

    def _alive(self) -> None:
        super()._alive()
        if self.broken:
            raise errors.UnavailableError("no answer")


class Candidate:
    def __init__(self, server: MemoryApi, name: str) -> None:
        self.line = Line(server.connect())
        self.elector = Elector(self.line, builders.settings(), name, asyncio.get_running_loop().time)
        self.lost: BaseException | None = None
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        await self.elector.acquire()
        try:
            await self.elector.keep()
        except LeadershipLostError as error:
            self.elector.close()
            self.lost = error

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    def may_write(self) -> bool:
        try:
            self.elector.gate(5.0)
        except errors.NotLeaderError:
            return False
        return True


def now() -> float:
    return asyncio.get_running_loop().time()


async def until(candidate: Candidate) -> float:
    begin = now()
    while not candidate.may_write():  # noqa: ASYNC110 - the clock is virtual
        await asyncio.sleep(0.05)
    return now() - begin


def test_the_first_leads_and_goes_on_leading() -> None:
    async def main() -> None:
        server = MemoryApi()
        first, second = Candidate(server, "a"), Candidate(server, "b")
        for _ in range(600):
            await asyncio.sleep(1)
            assert first.may_write()
            assert not second.may_write()
        await first.stop()
        await second.stop()

    virtual_time.run(main())


def test_a_released_lease_is_taken_at_the_next_look() -> None:
    async def main() -> None:
        server = MemoryApi()
        first, second = Candidate(server, "a"), Candidate(server, "b")
        await asyncio.sleep(30)
        await first.stop()
        await first.elector.release()
        assert not first.may_write()
        assert await until(second) <= 0.6
        await second.stop()

    virtual_time.run(main())


def test_a_dead_leaders_lease_is_taken_after_its_duration_and_not_before() -> None:
    async def main() -> None:
        server = MemoryApi()
        first, second = Candidate(server, "a"), Candidate(server, "b")
        await asyncio.sleep(30)
        await first.stop()
        assert 13 < await until(second) <= 16
        await second.stop()

    virtual_time.run(main())


def test_a_leader_that_cannot_renew_ends_before_another_one_may_write() -> None:
    async def main() -> None:
        server = MemoryApi()
        first, second = Candidate(server, "a"), Candidate(server, "b")
        await asyncio.sleep(30)
        first.line.broken = True
        await until(second)
        assert not first.may_write()
        assert first.lost is not None
        await second.stop()

    virtual_time.run(main())


def test_a_short_outage_is_survived() -> None:
    async def main() -> None:
        server = MemoryApi()
        first = Candidate(server, "a")
        await asyncio.sleep(30)
        first.line.broken = True
        await asyncio.sleep(7)
        first.line.broken = False
        await asyncio.sleep(30)
        assert first.lost is None
        assert first.may_write()
        await first.stop()

    virtual_time.run(main())


def test_somebody_who_touches_the_object_does_not_end_the_leadership() -> None:
    async def main() -> None:
        server = MemoryApi()
        first = Candidate(server, "a")
        for _ in range(20):
            await asyncio.sleep(2)
            [lease] = server.list("leases")
            lease["metadata"]["labels"] = {"touched": str(now())}
            server.replace("leases", lease)
        await asyncio.sleep(2)
        assert first.lost is None
        assert first.may_write()
        await first.stop()

    virtual_time.run(main())


def test_the_gate_closes_before_the_lease_ends() -> None:
    async def main() -> None:
        server = MemoryApi()
        first = Candidate(server, "a")
        await asyncio.sleep(1)
        await first.stop()
        left = first.elector.remaining()
        first.elector.gate(left - 0.1)
        with pytest.raises(errors.NotLeaderError):
            first.elector.gate(left + 0.1)

    virtual_time.run(main())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.booleans(), st.floats(0.1, 25)), max_size=14))
def test_two_never_may_write_at_the_same_time(events: list[tuple[int, bool, float]]) -> None:
    """Lines are cut and mended at random; whoever loses the lease starts again as somebody new."""

    async def main() -> None:
        server = MemoryApi()
        candidates = [Candidate(server, f"c{n}") for n in range(3)]
        for who, cut, seconds in events:
            candidates[who].line.broken = cut
            end = now() + seconds
            while now() < end:
                await asyncio.sleep(0.25)
                assert sum(c.may_write() for c in candidates) <= 1
            for index, candidate in enumerate(candidates):
                if candidate.lost:
                    candidates[index] = Candidate(server, f"c{index}-{now()}")
        for candidate in candidates:
            await candidate.stop()

    virtual_time.run(main())


def test_who_waits_for_time_goes_on_with_the_renewal_and_never_after_the_end() -> None:
    async def main() -> None:
        server = MemoryApi()
        first = Candidate(server, "a")
        await until(first)
        await first.stop()
        await asyncio.sleep(11)
        assert not first.may_write(), "as after SIGSTOP and SIGCONT"
        waiting = [asyncio.create_task(first.elector.time_for(5.0)) for _ in range(3)]
        await asyncio.sleep(0.1)
        assert not any(task.done() for task in waiting)
        begin = now()
        keeping = asyncio.create_task(first.elector.keep())
        await asyncio.gather(*waiting)
        assert first.may_write()
        assert now() - begin <= 2
        keeping.cancel()
        first.elector.close()
        late = asyncio.create_task(first.elector.time_for(5.0))
        await asyncio.sleep(60)
        assert not late.done()
        late.cancel()

    virtual_time.run(main())
