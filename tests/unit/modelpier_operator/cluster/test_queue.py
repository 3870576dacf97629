from __future__ import annotations

import asyncio

from modelpier_operator.cluster.queue import Queue
from support import virtual_time

A, B = ("team", "a"), ("team", "b")


def test_a_key_is_handed_out_once_however_often_it_was_added() -> None:
    async def main() -> None:
        queue = Queue()
        for _ in range(3):
            queue.add(A)
        queue.add(B)
        assert [await queue.get(), await queue.get()] == [A, B]
        assert len(queue) == 0

    virtual_time.run(main())


def test_a_key_that_is_held_comes_back_after_done_and_not_before() -> None:
    async def main() -> None:
        queue = Queue()
        queue.add(A)
        held = await queue.get()
        queue.add(A)
        second = asyncio.create_task(queue.get())
        await asyncio.sleep(1)
        assert not second.done()
        queue.done(held)
        assert await second == A

    virtual_time.run(main())


def test_of_several_delays_the_earliest_counts() -> None:
    async def main() -> None:
        queue, loop = Queue(), asyncio.get_running_loop()
        queue.add_after(A, 30)
        queue.add_after(A, 5)
        queue.add_after(A, 60)
        await queue.get()
        assert loop.time() == 5
        queue.done(A)
        await asyncio.sleep(100)
        assert queue.idle

    virtual_time.run(main())


def test_failures_wait_longer_and_longer_up_to_the_cap_and_success_forgets_them() -> None:
    async def main() -> None:
        queue, loop = Queue(base=1.0, cap=8.0), asyncio.get_running_loop()
        waits = []
        for _ in range(6):
            begin = loop.time()
            queue.failed(A)
            queue.done(await queue.get())
            waits.append(loop.time() - begin)
        for wait, whole in zip(waits, (1, 2, 4, 8, 8, 8), strict=True):
            assert whole / 2 <= wait <= whole
        queue.succeeded(A)
        begin = loop.time()
        queue.failed(A)
        await queue.get()
        assert loop.time() - begin <= 1

    virtual_time.run(main())


def test_retry_after_is_a_lower_bound() -> None:
    async def main() -> None:
        queue, loop = Queue(), asyncio.get_running_loop()
        queue.failed(A, at_least=20)
        await queue.get()
        assert loop.time() == 20

    virtual_time.run(main())
